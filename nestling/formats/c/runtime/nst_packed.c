#include "nst_packed.h"

int8_t *nst_unpack(const int8_t *packed, int32_t bits, int32_t count, int8_t *weights)
{
    int8_t *const end = weights + count;
    if (bits == 4)
        for (; weights < end; weights += 2) {
            const int32_t byte = *packed++;
            weights[0] = (int8_t)((int8_t)(uint8_t)((uint32_t)byte << 4) >> 4);
            weights[1] = (int8_t)(byte >> 4);
        }
    else
        for (; weights < end; weights += 4) {
            const int32_t byte = *packed++;
            weights[0] = (int8_t)((int8_t)(uint8_t)((uint32_t)byte << 6) >> 6);
            weights[1] = (int8_t)((int8_t)(uint8_t)((uint32_t)byte << 4) >> 6);
            weights[2] = (int8_t)((int8_t)(uint8_t)((uint32_t)byte << 2) >> 6);
            weights[3] = (int8_t)(byte >> 6);
        }
    return end;
}

int32_t nst_at_once(int32_t channels, int32_t depth, int32_t bytes, int32_t own)
{
    const int32_t room = (bytes - own) / (4 * depth) * 4;
    return room < channels ? room : channels;
}

nst_sums nst_unpacked(const nst_sums *sums, nst_range channels, int32_t bits, int8_t *weights)
{
    const int32_t first = channels.first;
    nst_sums some = *sums;
    some.channels = channels.end - first;
    nst_unpack(sums->weights + first * sums->depth * bits / 8, bits, (some.channels + 3) / 4 * 4 * sums->depth, weights);
    some.weights = weights;
    some.bias += first;
    some.multiplier += first;
    some.shift += first;
    return some;
}
