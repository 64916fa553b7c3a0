/* The heart of the convolutions for processors with SMLAD: two patches against groups of four channels. See nst_sums_dsp. */
#ifndef NST_PRODUCTS_DSP_H
#define NST_PRODUCTS_DSP_H

#include "nst_dsp.h"
#include "nst_fixed.h"

/* Whether this file's instructions are there; without them the same is computed in plain C. */
#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__)
#define NST_DSP 1
#else
#define NST_DSP 0
#endif

/* Two numbers of 16 bits in one of 32. */
NST_INLINE int32_t nst_halves(int32_t low, int32_t high)
{
    return (int32_t)((uint32_t)(uint16_t)low | (uint32_t)(uint16_t)high << 16);
}

/* Byte i of a number, the lowest one first. */
NST_INLINE int32_t nst_byte(int32_t number, int32_t i)
{
    return (int8_t)(uint8_t)((uint32_t)number >> (8 * i));
}

/* The short way of a sum, not clamped. c: its `after` constants. */
NST_INLINE int32_t nst_short_way(int32_t sum, const int32_t *c, int32_t after)
{
    const int32_t negative = after == 4 && sum < 0 ? c[1] : 0, multiplier = after == 4 ? c[3] : c[1];
    const int32_t scaled = (int32_t)((int64_t)(int32_t)((uint32_t)sum << c[0]) * multiplier >> 32);
    return (scaled + (c[2] - negative)) >> 14;
}

/* Some channels of a layer, from a multiple of four on, and what all of their answers share. */
typedef struct {
    const int32_t *stream; /* wide, of the first of them */
    int32_t channels;
    int32_t columns;        /* bytes */
    int32_t skipped;        /* bytes of code, see ANSWERS */
    int32_t short_ones;     /* whether all of them, whole groups, take the short way and no clamp is left to do */
    const int8_t *long_way; /* of their groups, or 0 */
    const nst_sums_dsp *sums;
} nst_channels_dsp;

/* How many channels of `channels` can be computed at once: all, or a multiple of 4, where `bytes` are left for their streams. */
int32_t nst_at_once_dsp(const nst_sums_dsp *sums, int32_t channels, int32_t bytes);

/* Some channels, from a multiple of four on. A narrow stream is widened into `room`. */
nst_channels_dsp nst_channels_of(const nst_sums_dsp *sums, nst_range channels, int32_t *room);

/* Two patches of `count` bytes as columns, [(count + 3) / 4][2][patch]: of four bytes the first and the third in one number, then
 * the others; zeros behind the last byte. */
void nst_columns_2(const int8_t *a, const int8_t *b, int32_t count, int32_t *columns);

/* The answers to two patches. columns: [steps][patch], each two numbers of 16 bits. out0, out1: where the first channel's go; they
 * may be the same place. */
void nst_answers_2(const nst_channels_dsp *some, const int32_t *columns, int8_t *out0, int8_t *out1);

#endif
