#include "nst_packed_mve.h"

void nst_conv_1x1_mve_packed(const int8_t *in, const nst_conv_1x1_mve_layer *layer, int8_t *out, void *scratch,
                             const nst_part *part, int32_t bytes, int32_t bits)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const nst_mve_sums *sums = &layer->sums;
    const int32_t own = 2 * nst_mve_whole(sums->depth), at_once = nst_mve_at_once(sums, sums->channels, bytes - own);
    for (int32_t first = p.channels.first; first < p.channels.end; first += at_once) {
        const nst_range some = {first, nst_smaller(first + at_once, p.channels.end)};
        const nst_conv_1x1_mve_layer unpacked = {layer->out, nst_mve_unpacked(sums, some, bits, (int8_t *)scratch + own)};
        const nst_part part_of = {p.rows, {0, unpacked.sums.channels}};
        nst_conv_1x1_mve(in, &unpacked, out + first, scratch, &part_of);
    }
}
