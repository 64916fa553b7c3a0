#include "nst_packed_rv32.h"

void nst_conv_1x1_rv32_packed(const int8_t *in, const nst_conv_1x1_rv32_layer *layer, int8_t *out, void *scratch,
                              const nst_part *part, int32_t bytes, int32_t most, int32_t bits)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const int32_t own = 8 * layer->sums.depth, at_once = (bytes - own) / most * 4;
    const int8_t *packed = nst_rv32_packed_weights(&layer->sums, p.channels.first, bits);
    for (int32_t first = p.channels.first; first < p.channels.end; first += at_once) {
        const nst_range channels = {first, nst_smaller(first + at_once, p.channels.end)};
        const nst_rv32_some some = nst_rv32_unpacked(&layer->sums, channels, packed, bits, (int8_t *)scratch + own);
        const nst_conv_1x1_rv32_layer unpacked = {layer->out, some.sums};
        const nst_part part_of = {p.rows, {0, some.sums.channels}};
        nst_conv_1x1_rv32(in, &unpacked, out + first, scratch, &part_of);
        packed = some.next;
    }
}
