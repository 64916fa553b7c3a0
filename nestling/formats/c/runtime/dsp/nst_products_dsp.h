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

/* The short way of a sum, not clamped. c: a channel's numbers behind its weights. */
NST_INLINE int32_t nst_short_way(int32_t sum, const int32_t *c, const nst_sums_dsp *sums)
{
    const int32_t both_signs = sums->after == 4 && !sums->known;
    const int32_t negative = both_signs && sum < 0 ? c[1] : 0, multiplier = both_signs ? c[3] : c[1];
    const int32_t scaled = (int32_t)((int64_t)(int32_t)((uint32_t)sum << c[0]) * multiplier >> 32);
    return (scaled + (c[2] - negative)) >> 14;
}

/* Some groups of a layer, and what all of their answers share. */
typedef struct {
    const int32_t *stream, *end; /* of 16 bits */
    int32_t columns;             /* bytes */
    int32_t skipped;             /* bytes of code, see ANSWERS */
    const int8_t *long_way;      /* of these groups, or 0 */
    nst_range channels;          /* of the answer: those of the groups; where there are constants, those that are wanted */
    int32_t simple;              /* whether whole groups take the short way, without constants, and no clamp is left to do */
    int32_t first;               /* whether no groups come before them */
    const nst_sums_dsp *sums;
} nst_groups_dsp;

/* The groups that some channels, from a multiple of four on, are in. */
nst_range nst_groups_of(const nst_sums_dsp *sums, nst_range channels);

/* How many of these can be computed at once where `bytes` are left for their streams. */
int32_t nst_at_once_dsp(const nst_sums_dsp *sums, nst_range groups, int32_t bytes);

/* Some of the groups, for these channels. A stream of fewer than 16 bits is widened into `room`. */
nst_groups_dsp nst_ready_groups(const nst_sums_dsp *sums, nst_range channels, nst_range groups, int32_t *room);

/* Two patches of `count` bytes as columns, [(count + 3) / 4][2][patch]: of four bytes the first and the third in one number, then
 * the others; zeros behind the last byte. */
void nst_columns_2(const int8_t *a, const int8_t *b, int32_t count, int32_t *columns);

/* The answers to two patches. columns: [steps][patch], each two numbers of 16 bits. out0, out1: where all answers of a patch go; they
 * may be the same place. */
void nst_answers_2(const nst_groups_dsp *some, const int32_t *columns, int8_t *out0, int8_t *out1);

#endif
