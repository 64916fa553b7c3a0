#include "nst_packed.h"
#include "nst_part.h"

void nst_conv_1x1_packed(const int8_t *in, const nst_conv_1x1_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                         int32_t bytes, int32_t bits)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const int32_t depth = layer->sums.depth, at_once = nst_at_once(layer->sums.channels, depth, bytes, 4 * depth);
    int32_t *work = (int32_t *)scratch + (at_once + 3) / 4 * depth;
    for (int32_t first = p.channels.first; first < p.channels.end; first += at_once) {
        const nst_range some = {first, nst_smaller(first + at_once, p.channels.end)};
        const nst_conv_1x1_layer unpacked = {layer->out, nst_unpacked(&layer->sums, some, bits, scratch)};
        const nst_part own = {p.rows, {0, unpacked.sums.channels}};
        nst_conv_1x1(in, &unpacked, out + first, work, &own);
    }
}
