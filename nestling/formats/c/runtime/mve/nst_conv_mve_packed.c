#include "nst_packed_mve.h"

/* table: of an image, or 0. */
static void convolve(const int8_t *in, const int8_t *table, const nst_conv_mve_layer *layer, int8_t *out, int8_t *scratch,
                     const nst_part *part, int32_t bytes, int32_t bits)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const nst_mve_sums *sums = &layer->sums;
    const int32_t own = 2 * (nst_mve_whole(sums->depth) + layer->window.size.width * layer->in.channels);
    const int32_t at_once = nst_mve_at_once(sums, sums->channels, bytes - own);
    nst_conv_image_mve_layer unpacked = {table, *layer};
    for (int32_t first = p.channels.first; first < p.channels.end; first += at_once) {
        const nst_range some = {first, nst_smaller(first + at_once, p.channels.end)};
        unpacked.conv.sums = nst_mve_unpacked(sums, some, bits, scratch + own);
        const nst_part part_of = {p.rows, {0, unpacked.conv.sums.channels}};
        if (table)
            nst_conv_image_mve((const uint8_t *)in, &unpacked, out + first, scratch, &part_of);
        else
            nst_conv_mve(in, &unpacked.conv, out + first, scratch, &part_of);
    }
}

void nst_conv_mve_packed(const int8_t *in, const nst_conv_mve_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                         int32_t bytes, int32_t bits)
{
    convolve(in, 0, layer, out, scratch, part, bytes, bits);
}

void nst_conv_image_mve_packed(const uint8_t *image, const nst_conv_image_mve_layer *layer, int8_t *out, void *scratch,
                               const nst_part *part, int32_t bytes, int32_t bits)
{
    convolve((const int8_t *)image, layer->table, &layer->conv, out, scratch, part, bytes, bits);
}
