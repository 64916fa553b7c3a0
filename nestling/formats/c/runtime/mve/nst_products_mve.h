/* The heart of the convolutions: two patches against all output channels, four of them at a time. */
#ifndef NST_PRODUCTS_MVE_H
#define NST_PRODUCTS_MVE_H

/* The assembly wants fourteen registers, whatever the rest of a firmware is compiled with: none for a frame, none kept back by -O0. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__ARM_FEATURE_MVE)
#pragma GCC optimize("O2", "omit-frame-pointer")
#endif

#include "nst_fixed.h"
#include "nst_mve.h"

/* clang keeps a register or two for itself, whatever it is told: it gets the portable twins. */
#if defined(__ARM_FEATURE_MVE) && !defined(__clang__)
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

/* A number of 32 bits in a stream. */
NST_INLINE int32_t nst_word(const int8_t *bytes)
{
    const uint8_t *b = (const uint8_t *)bytes;
    return (int32_t)(b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24);
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

/* What a run over some channels needs beside its pointers; the instructions read it in this order. */
typedef struct {
    uint16_t places[8]; /* of an answer behind out: channel 0 of both patches, channel 1 of both, ... */
    const int8_t *end;  /* of out */
    int32_t zero;
    int32_t skip;        /* bytes of code */
    const int8_t *other; /* the second patch */
} nst_mve_call;

/* What all answers of a layer, or of its part, share. */
typedef struct {
    nst_mve_call call[3]; /* for one patch, for two, and for the channels beyond a multiple of four */
    int8_t *patches;
    const int8_t *stream, *of_rest;
    int32_t whole, rest;                   /* channels */
    int32_t step, negative, clamps, plain; /* plain: no rest, no clamps */
    nst_output output;
} nst_mve_work;

/* patches: two of nst_mve_whole(depth) bytes each, one behind the other, what lies behind depth being any bytes. channels: from a
 * multiple of four on. step: from the first patch's answers to the second one's. */
nst_mve_work nst_mve_ready(int8_t *patches, const nst_mve_sums *sums, nst_range channels, int32_t step);

/* Four channels after the other, up to call->end. x: the first patch; w: their stream. */
void nst_mve_fours(const int8_t *x, const int8_t *w, int32_t negative, int8_t *out, const nst_mve_call *call);

void nst_mve_any_products(nst_mve_work *work, int32_t patches, int8_t *out);

/* The answers of one patch, or of both. */
NST_INLINE void nst_products_mve(nst_mve_work *work, int32_t patches, int8_t *out)
{
    if (patches == 2 && work->plain) {
        work->call[1].end = out + work->whole;
        nst_mve_fours(work->patches, work->stream, work->negative, out, &work->call[1]);
    } else
        nst_mve_any_products(work, patches, out);
}

/* Holds some bytes between the output's low and high. */
void nst_mve_clamp(int8_t *values, int32_t count, const nst_output *output);

#endif
