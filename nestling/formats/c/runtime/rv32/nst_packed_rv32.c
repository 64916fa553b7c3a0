#include "nst_packed_rv32.h"

#include "nst_packed.h"

const int8_t *nst_rv32_packed_weights(const nst_rv32_sums *sums, int32_t first, int32_t bits)
{
    const int8_t *w = sums->weights;
    for (int32_t channel = 0; channel < first; channel += 4) {
        for (int32_t n = *w++; n; n = *w++)
            w += n > 0 ? n * bits / 2 : 0;
    }
    return w;
}

nst_rv32_some nst_rv32_unpacked(const nst_rv32_sums *sums, nst_range channels, const int8_t *packed, int32_t bits, int8_t *room)
{
    nst_rv32_some some = {*sums, packed};
    some.sums.channels = channels.end - channels.first;
    some.sums.weights = room;
    some.sums.endings = sums->endings + 3 * channels.first;
    for (int32_t channel = channels.first; channel < channels.end; channel += 4) {
        int32_t n;
        do {
            n = *some.next++;
            *room++ = (int8_t)n;
            if (n > 0) {
                room = nst_unpack(some.next, bits, 4 * n, room);
                some.next += n * bits / 2;
            }
        } while (n);
    }
    return some;
}
