#include "nst_bytes.h"
#include "nst_products.h"

/* Pixels through the table, [channels][256]; colours side by side, which is what there mostly is. */
NST_INLINE int8_t *look_up(int8_t *to, const int8_t *pixel, int32_t pixels, const int8_t *table, int32_t channels)
{
    const uint8_t *from = (const uint8_t *)pixel;
    if (channels == 3) {
        for (; pixels > 0; pixels--, to += 3, from += 3) {
            to[0] = table[from[0]];
            to[1] = table[256 + from[1]];
            to[2] = table[512 + from[2]];
        }
        return to;
    }
    for (; pixels > 0; pixels--)
        for (int32_t c = 0; c < channels; c++)
            *to++ = table[256 * c + *from++];
    return to;
}

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
                patch = table ? look_up(patch, from, end - begin, table, depth) : nst_copy(patch, from, (end - begin) * depth);
            }
            patch = nst_fill(patch, layer->in_zero, (piece - end) * depth);
        }
    }
}

/* Pixels of a row in pairs, each pair's patches gathered once for all channels of a group. */
static void convolve(const int8_t *in, const int8_t *table, const nst_conv_layer *layer, int8_t *out, int32_t *work)
{
    const nst_window window = layer->window;
    const int32_t in_channels = layer->in.channels / layer->groups, channels = layer->sums.channels;
    const int32_t weights = (channels + 3) / 4 * 4 * layer->sums.depth;
    int8_t *patches = (int8_t *)(work + layer->sums.depth), *other = patches + layer->sums.depth;
    for (int32_t y = 0; y < layer->out.height; y++) {
        const int32_t top = y * window.stride.height - window.pad.height;
        for (int32_t x = 0; x < layer->out.width; x += 2) {
            const int32_t left = x * window.stride.width - window.pad.width;
            const int32_t both = x + 1 < layer->out.width;
            nst_sums sums = layer->sums;
            for (int32_t group = 0; group < layer->groups; group++) {
                gather(in, table, layer, top, left, group * in_channels, patches);
                if (both) {
                    gather(in, table, layer, top, left + window.stride.width, group * in_channels, other);
                    nst_products_2(patches, other, &sums, out, layer->out.channels, work);
                } else {
                    nst_products_1(patches, &sums, out);
                }
                out += channels;
                sums.weights += weights;
                sums.bias += channels;
                sums.multiplier += channels;
                sums.shift += channels;
            }
            out += both ? layer->out.channels : 0;
        }
    }
}

void nst_conv(const int8_t *in, const nst_conv_layer *layer, int8_t *out, void *scratch)
{
    convolve(in, 0, layer, out, scratch);
}

void nst_conv_image(const uint8_t *image, const nst_conv_image_layer *layer, int8_t *out, void *scratch)
{
    convolve((const int8_t *)image, layer->table, &layer->conv, out, scratch);
}
