#include "nst_packed_rv32.h"

/* table: of an image, or 0. */
static void convolve(const int8_t *in, const int8_t *table, const nst_conv_rv32_layer *layer, int8_t *out, int8_t *scratch,
                     const nst_part *part, int32_t bytes, int32_t most, int32_t bits)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const nst_window window = layer->window;
    const int32_t own = 8 * layer->sums.depth + (3 * window.stride.width + window.size.width) * layer->in.channels;
    const int32_t at_once = (bytes - own) / most * 4;
    const int8_t *packed = nst_rv32_packed_weights(&layer->sums, p.channels.first, bits);
    nst_conv_image_rv32_layer unpacked = {table, *layer};
    for (int32_t first = p.channels.first; first < p.channels.end; first += at_once) {
        const nst_range channels = {first, nst_smaller(first + at_once, p.channels.end)};
        const nst_rv32_some some = nst_rv32_unpacked(&layer->sums, channels, packed, bits, scratch + own);
        const nst_part part_of = {p.rows, {0, some.sums.channels}};
        unpacked.conv.sums = some.sums;
        if (table)
            nst_conv_image_rv32((const uint8_t *)in, &unpacked, out + first, scratch, &part_of);
        else
            nst_conv_rv32(in, &unpacked.conv, out + first, scratch, &part_of);
        packed = some.next;
    }
}

void nst_conv_rv32_packed(const int8_t *in, const nst_conv_rv32_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                          int32_t bytes, int32_t most, int32_t bits)
{
    convolve(in, 0, layer, out, scratch, part, bytes, most, bits);
}

void nst_conv_image_rv32_packed(const uint8_t *image, const nst_conv_image_rv32_layer *layer, int8_t *out, void *scratch,
                                const nst_part *part, int32_t bytes, int32_t most, int32_t bits)
{
    convolve((const int8_t *)image, layer->table, &layer->conv, out, scratch, part, bytes, most, bits);
}
