/* Real factors as 32-bit integers, as TFLite has them. Right shifts of negative numbers are arithmetic. */
#ifndef NST_FIXED_H
#define NST_FIXED_H

#include "nst_kernels.h"

#if defined(__GNUC__)
#define NST_INLINE static inline __attribute__((always_inline))
#define NST_APART static __attribute__((noinline)) /* with registers of its own */
#else
#define NST_INLINE static inline
#define NST_APART static
#endif

/* x * multiplier * 2^(exponent - 31) for any x, in the two roundings of docs/integer-semantics.md. exponent: -31 .. 31. */
int32_t nst_rescale(int32_t x, int32_t multiplier, int32_t exponent);

/* x / 2^exponent, halves away from zero. exponent: 0 .. 31. */
int32_t nst_divide_by_power(int32_t x, int32_t exponent);

/* a * b / 2^31, halves up. */
NST_INLINE int32_t nst_high_mul(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + (1 << 30)) >> 31);
}

/* The short way of scaling, a third of the instructions: sum * multiplier * 2^-(32 + shift) + zero, for |sum| < 2^30 and shift >= 0.
 * Doubling the sum spares a 64-bit shift, and the last bit of the division rounds and adds the zero point at once. */
NST_INLINE int32_t nst_scaled_short(int32_t sum, int32_t multiplier, int32_t shift, int32_t zero)
{
    const int64_t product = (int64_t)(sum * 2) * multiplier;
    const int32_t high = (int32_t)(product >> 32) + (int32_t)((uint32_t)product >> 31);
    return (((high + (high >> 31)) >> shift) + (2 * zero + 1)) >> 1;
}

/* sum * multiplier * 2^(exponent - 31) + zero. shift is -exponent - 1 where the short way may be gone, else exponent - 64. */
NST_INLINE int32_t nst_scaled(int32_t sum, int32_t multiplier, int32_t shift, int32_t zero)
{
    return shift < 0 ? nst_rescale(sum, multiplier, shift + 64) + zero : nst_scaled_short(sum, multiplier, shift, zero);
}

NST_INLINE int8_t nst_clamped(int32_t value, int32_t low, int32_t high)
{
    value = value < low ? low : value;
    return (int8_t)(value > high ? high : value);
}

/* What all answers of a layer share, made once: see nst_answer(). */
typedef struct {
    int32_t from_low, low, distance;
    nst_output output;
} nst_ending;

NST_INLINE nst_ending nst_ending_of(const nst_output *y)
{
    const nst_ending e = {y->zero - y->low, y->low, y->high - y->low, *y};
    return e;
}

/* One answer: scaled, moved to the zero point and clamped. Values are counted from low, so that one unsigned comparison finds those
 * below low as well as those above high. */
NST_INLINE int8_t nst_answer(int32_t sum, int32_t multiplier, int32_t shift, const nst_ending *e)
{
    int32_t value = nst_scaled_short(sum, multiplier, shift, e->from_low);
    if ((uint32_t)value > (uint32_t)e->distance)
        value = e->distance & ~(value >> 31);
    return (int8_t)(value + e->low);
}

/* The same the long way. */
NST_INLINE int8_t nst_answer_long(int32_t sum, int32_t multiplier, int32_t shift, const nst_ending *e)
{
    return nst_clamped(nst_rescale(sum, multiplier, shift + 64) + e->output.zero, e->output.low, e->output.high);
}

#endif
