#include "nst_packed_mve.h"

enum { SIDE_BY_SIDE = 4, CONSTANTS = 3 * 4 * SIDE_BY_SIDE };

/* Bytes of the weights of four channels, a byte each. */
NST_INLINE int32_t weights_of(const nst_mve_sums *sums)
{
    return SIDE_BY_SIDE * nst_mve_whole(sums->depth);
}

/* Of 16 bytes the bits from 8 - bits - above on. */
NST_INLINE void unpack_16(int8_t *to, const int8_t *from, int32_t above, int32_t bits)
{
#if NST_MVE
    __asm__ volatile(
        "vldrb.8 q0, [%[from]]\n\t"
        "vshl.s8 q0, %[above]\n\t"
        "vshl.s8 q0, %[down]\n\t"
        "vstrb.8 q0, [%[to]]"
        :
        : [to] "r"(to), [from] "r"(from), [above] "r"(above), [down] "r"(bits - 8)
        : "q0", "memory");
#else
    for (int32_t i = 0; i < 16; i++)
        to[i] = (int8_t)((int8_t)(uint8_t)((uint32_t)from[i] << above) >> (8 - bits));
#endif
}

int32_t nst_mve_at_once(const nst_mve_sums *sums, int32_t channels, int32_t bytes)
{
    return nst_smaller(bytes / (weights_of(sums) + CONSTANTS) * SIDE_BY_SIDE, channels);
}

nst_mve_sums nst_mve_unpacked(const nst_mve_sums *sums, nst_range channels, int32_t bits, int8_t *room)
{
    const int32_t packed = weights_of(sums) * bits / 8;
    const int8_t *from = sums->stream + channels.first / SIDE_BY_SIDE * (packed + CONSTANTS);
    nst_mve_sums some = *sums;
    some.channels = channels.end - channels.first;
    some.stream = room;
    for (int32_t channel = channels.first; channel < channels.end; channel += SIDE_BY_SIDE) {
        for (const int8_t *end = from + packed; from < end; from += 16)
            for (int32_t above = 8 - bits; above >= 0; above -= bits, room += 16)
                unpack_16(room, from, above, bits);
        nst_mve_copy(room, from, CONSTANTS);
        room += CONSTANTS;
        from += CONSTANTS;
    }
    return some;
}
