/* From a sum to its byte in a few instructions: kernels/rescaling.py says why that is exact. */
#ifndef NST_ENDING_RV32_H
#define NST_ENDING_RV32_H

#include "nst_fixed.h"
#include "nst_kernels.h"

enum {
    NST_RV32_SHIFT = 14,
    NST_RV32_NEGATIVE = 1 << 10, /* negative sums lose 1 << (rest >> 5 & 31) */
    NST_RV32_LONG = 1 << 11,     /* not proven: rest >> 16 is nst_scaled()'s shift */
};

/* What all channels of a layer share. base: the addend without a channel's own share of it; bytes are counted from low. */
typedef struct {
    int32_t base, low, distance;
    nst_output output;
} nst_rv32_ends;

/* One channel's. rest: the left shift in its lowest five bits, then `negative`, the flags, and in its upper half the addend. */
typedef struct {
    int32_t bias, multiplier, addend, negative, rest;
} nst_rv32_ending;

NST_INLINE nst_rv32_ends nst_rv32_ends_of(const nst_output *y)
{
    const int32_t half = 1 << (NST_RV32_SHIFT - 1);
    const nst_rv32_ends ends = {(y->zero - y->low) * (1 << NST_RV32_SHIFT) + half, y->low, y->high - y->low, *y};
    return ends;
}

NST_INLINE nst_rv32_ending nst_rv32_ending_of(const int32_t *three, const nst_rv32_ends *ends)
{
    const int32_t rest = three[2];
    const int32_t negative = rest & NST_RV32_NEGATIVE ? 1 << (rest >> 5 & 31) : 0;
    const nst_rv32_ending ending = {three[0], three[1], ends->base + (rest >> 16), negative, rest};
    return ending;
}

/* The answer to a sum without its bias, where the channel is proven; with_negative: known to the compiler. */
NST_INLINE int8_t nst_rv32_short(int32_t sum, const nst_rv32_ending *e, const nst_rv32_ends *ends, int32_t with_negative)
{
    const int32_t moved = sum + e->bias;
    const int32_t wide = (int32_t)((uint32_t)moved << (e->rest & 31));
    int32_t value = (int32_t)((int64_t)wide * e->multiplier >> 32) + e->addend;
    if (with_negative)
        value -= e->negative & moved >> 31;
    value >>= NST_RV32_SHIFT;
    if ((uint32_t)value > (uint32_t)ends->distance)
        value = ends->distance & ~(value >> 31);
    return (int8_t)(value + ends->low);
}

/* Any channel's. */
NST_INLINE int8_t nst_rv32_answer(int32_t sum, const nst_rv32_ending *e, const nst_rv32_ends *ends)
{
    const nst_output y = ends->output;
    if (e->rest & NST_RV32_LONG)
        return nst_clamped(nst_scaled(sum + e->bias, e->multiplier, e->rest >> 16, y.zero), y.low, y.high);
    return nst_rv32_short(sum, e, ends, 1);
}

#endif
