/* The heart of the convolutions: two patches against all output channels, four of them at a time. */
#ifndef NST_MVE_PRODUCTS_H
#define NST_MVE_PRODUCTS_H

#include "nst_fixed.h"
#include "nst_mve.h"

#if defined(__ARM_FEATURE_MVE)
#define NST_MVE 1
#else
#define NST_MVE 0
#endif

/* A multiple of 16 that has room for so many bytes. */
NST_INLINE int32_t nst_mve_whole(int32_t bytes)
{
    return (bytes + 15) & -16;
}

/* Both roundings of docs/integer-semantics.md as VQRDMULH and VRSHL do them, exponent <= 0. The first is the reference's. The second
 * rounds halves upwards, not away from zero: the same from 0 upwards, and below for what is one less; that does not take a number to
 * another half, and needs an exponent below 0, since without a division nothing is rounded. Where answers below the zero point are
 * not wanted (negative = 0) both ways end at the zero point. */
NST_INLINE int32_t nst_mve_scaled(int32_t sum, int32_t multiplier, int32_t exponent, int32_t negative)
{
    int64_t value = nst_high_mul(sum, multiplier);
    value -= negative && value < 0 ? 1 : 0;
    return (int32_t)((value + ((int64_t)1 << -exponent >> 1)) >> -exponent);
}

/* Moves some bytes. What lies behind them up to a multiple of 16 is neither read nor written. */
NST_INLINE void nst_mve_copy(int8_t *to, const int8_t *from, int32_t count)
{
#if NST_MVE
    __asm__ volatile(
        "wlstp.8 lr, %[count], 2f\n"
        "1: vldrb.8 q0, [%[from]], #16\n\t"
        "vstrb.8 q0, [%[to]], #16\n\t"
        "letp lr, 1b\n"
        "2:"
        : [to] "+r"(to), [from] "+r"(from)
        : [count] "r"(count)
        : "lr", "q0", "memory");
#else
    for (; count > 0; count--)
        *to++ = *from++;
#endif
}

NST_INLINE void nst_mve_fill(int8_t *to, int32_t value, int32_t count)
{
#if NST_MVE
    __asm__ volatile(
        "vdup.8 q0, %[value]\n\t"
        "wlstp.8 lr, %[count], 2f\n"
        "1: vstrb.8 q0, [%[to]], #16\n\t"
        "letp lr, 1b\n"
        "2:"
        : [to] "+r"(to)
        : [count] "r"(count), [value] "r"(value)
        : "lr", "q0", "memory");
#else
    for (; count > 0; count--)
        *to++ = (int8_t)value;
#endif
}

/* Two patches of nst_mve_whole(depth) bytes each, one behind the other, what lies behind depth being any bytes; answers of some
 * channels, from a multiple of four on, at out and at out + step. With a step of 0 both patches must be the same one's: one answer. */
void nst_mve_products(const int8_t *patches, const nst_mve_sums *sums, nst_range channels, int8_t *out, int32_t step);

/* Holds some bytes between the output's low and high. */
void nst_mve_clamp(int8_t *values, int32_t count, const nst_output *output);

#endif
