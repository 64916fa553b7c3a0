#include "nst_bytes.h"
#include "nst_part.h"
#include "nst_products.h"

NST_INLINE int32_t between(int32_t low, int32_t value, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* The patch whose first pixel is (top, left) of the map, from channel `first` on: [height][width][depth]. What lies outside the map
 * is the input's zero. A row of the window that is one piece of the map moves as one. */
static void gather(const int8_t *in, const int8_t *table, const nst_conv_layer *layer, int32_t top, int32_t left, int32_t first,
                   int8_t *patch)
{
    const nst_shape map = layer->in;
    const nst_window window = layer->window;
    const int32_t depth = map.channels / layer->groups;
    const int32_t piece = window.dilation.width == 1 && layer->groups == 1 ? window.size.width : 1;
    for (int32_t row = 0; row < window.size.height; row++) {
        const int32_t y = top + row * window.dilation.height;
        const int32_t width = y >= 0 && y < map.height ? map.width : 0;
        for (int32_t column = 0; column < window.size.width; column += piece) {
            const int32_t x = left + column * window.dilation.width;
            const int32_t begin = between(0, -x, piece), end = between(begin, width - x, piece);
            patch = nst_fill(patch, layer->in_zero, begin * depth);
            if (begin < end) {
                const int8_t *from = in + (y * map.width + x + begin) * map.channels + first;
                patch = table ? nst_look_up(patch, from, end - begin, table, depth) : nst_copy(patch, from, (end - begin) * depth);
            }
            patch = nst_fill(patch, layer->in_zero, (piece - end) * depth);
        }
    }
}

/* Some channels of a group, from `out` on: pixels of a row in pairs, each pair's patches gathered once. */
static void convolve_group(const int8_t *in, const int8_t *table, const nst_conv_layer *layer, int32_t group, const nst_sums *sums,
                           nst_range rows, int8_t *out, int32_t *work)
{
    const nst_window window = layer->window;
    const int32_t first = group * (layer->in.channels / layer->groups), step = layer->out.channels;
    int8_t *patches = (int8_t *)(work + sums->depth), *other = patches + sums->depth;
    out += rows.first * layer->out.width * step;
    for (int32_t y = rows.first; y < rows.end; y++) {
        const int32_t top = y * window.stride.height - window.pad.height;
        int32_t left = -window.pad.width, x = layer->out.width;
        for (; x >= 2; x -= 2, left += 2 * window.stride.width, out += 2 * step) {
            gather(in, table, layer, top, left, first, patches);
            gather(in, table, layer, top, left + window.stride.width, first, other);
            nst_products_2(patches, other, sums, out, step, work);
        }
        if (x) {
            gather(in, table, layer, top, left, first, patches);
            nst_products_1(patches, sums, out);
            out += step;
        }
    }
}

static void convolve(const int8_t *in, const int8_t *table, const nst_conv_layer *layer, int8_t *out, int32_t *work,
                     const nst_part *part)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const int32_t channels = layer->sums.channels;
    for (int32_t group = p.channels.first / channels; group * channels < p.channels.end; group++) {
        const int32_t before = group * channels;
        const nst_range own = {nst_larger(p.channels.first - before, 0), nst_smaller(p.channels.end - before, channels)};
        const nst_sums sums = nst_some_channels(&layer->sums, group, own);
        convolve_group(in, table, layer, group, &sums, p.rows, out + before + own.first, work);
    }
}

void nst_conv(const int8_t *in, const nst_conv_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    convolve(in, 0, layer, out, scratch, part);
}

void nst_conv_image(const uint8_t *image, const nst_conv_image_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    convolve((const int8_t *)image, layer->table, &layer->conv, out, scratch, part);
}
