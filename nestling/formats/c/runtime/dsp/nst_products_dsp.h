/* The heart of the convolutions for processors with SMLAD: two patches against groups of four channels. See nst_sums_dsp. */
#ifndef NST_PRODUCTS_DSP_H
#define NST_PRODUCTS_DSP_H

#include "nst_dsp.h"

/* Whether this file's instructions are there; without them the same is computed in plain C. */
#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__)
#define NST_DSP 1
#else
#define NST_DSP 0
#endif

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
