#include "nst_bytes.h"
#include "nst_part.h"
#include "nst_rv32.h"

/* So many columns of a row of the map, from `left` on: where they lie, or a copy in `work` if some are outside of the map, or pass
 * through a table. 0 for a row outside. */
static const int8_t *row_of(const int8_t *in, const int8_t *table, const nst_conv_rv32_layer *layer, int32_t y, int32_t left,
                            int32_t columns, int8_t *work)
{
    const nst_shape map = layer->in;
    const int32_t depth = map.channels, first = nst_larger(left, 0), end = nst_smaller(left + columns, map.width);
    if (y < 0 || y >= map.height)
        return 0;
    if (!table && first == left && end == left + columns)
        return in + (y * map.width + left) * depth;
    const int32_t before = nst_smaller(first - left, columns), inside = nst_larger(end - first, 0);
    const int8_t *from = in + (y * map.width + nst_smaller(first, map.width)) * depth;
    int8_t *to = nst_fill(work, layer->in_zero, before * depth);
    to = table ? nst_look_up(to, from, inside, table, depth) : nst_copy(to, from, inside * depth);
    nst_fill(to, layer->in_zero, (columns - before - inside) * depth);
    return work;
}

/* Four patches side by side, the first of which begins at (top, left) of the map. work: behind them. */
static void gather(const int8_t *in, const int8_t *table, const nst_conv_rv32_layer *layer, int32_t top, int32_t left, int32_t *to)
{
    const nst_window window = layer->window;
    const int32_t step = window.stride.width * layer->in.channels, size = window.size.width * layer->in.channels;
    int8_t *work = (int8_t *)(to + 2 * layer->sums.depth);
    for (int32_t row = 0; row < window.size.height; row++) {
        const int32_t y = top + row * window.dilation.height;
        const int8_t *x = row_of(in, table, layer, y, left, 3 * window.stride.width + window.size.width, work);
        if (x) {
            to = nst_rv32_pack(to, x, x + step, x + 2 * step, x + 3 * step, size);
        } else {
            for (const int32_t *end = to + 2 * size; to < end; to++)
                *to = layer->in_zero * ((1 << 16) + 1);
        }
    }
}

static void convolve(const int8_t *in, const int8_t *table, const nst_conv_rv32_layer *layer, int8_t *out, int32_t *work,
                     const nst_part *part)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const nst_window window = layer->window;
    const int32_t width = layer->out.width, step = layer->out.channels;
    const int8_t *weights = nst_rv32_weights(&layer->sums, p.channels.first);
    out += p.channels.first;
    for (int32_t y = p.rows.first; y < p.rows.end; y++) {
        for (int32_t x = 0; x < width; x += 4) {
            const int32_t top = y * window.stride.height - window.pad.height, left = x * window.stride.width - window.pad.width;
            gather(in, table, layer, top, left, work);
            nst_products_4_rv32(work, &layer->sums, weights, p.channels, out + (y * width + x) * step, step,
                                nst_smaller(width - x, 4));
        }
    }
}

void nst_conv_rv32(const int8_t *in, const nst_conv_rv32_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    convolve(in, 0, layer, out, scratch, part);
}

void nst_conv_image_rv32(const uint8_t *image, const nst_conv_image_rv32_layer *layer, int8_t *out, void *scratch,
                         const nst_part *part)
{
    convolve((const int8_t *)image, layer->table, &layer->conv, out, scratch, part);
}
