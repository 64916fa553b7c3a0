/* How a channel lies in the stream of a convolution that skips zeros (nst_block_sums). */
#ifndef NST_STREAM_H
#define NST_STREAM_H

#include "nst_fixed.h"
#include "nst_kernels.h"

enum { NST_SHIFT = 14, NST_LONG = 128, NST_LONG_FROM = 192 };

/* Of the channel that begins there. */
NST_INLINE int32_t nst_blocks_of(const int32_t *stream)
{
    return (stream[1] >> 8) + 1;
}

/* The words of a channel that are no weights. */
NST_INLINE int32_t nst_constants(const nst_block_sums *sums)
{
    return sums->below ? 5 : 4;
}

/* What one of a channel's sums becomes, the short way. negative: 0 where there is none. */
NST_INLINE int8_t nst_answer_short(int32_t sum, int32_t left, int32_t multiplier, int32_t addend, int32_t negative,
                                   const nst_output *y)
{
    const int32_t wide = (int32_t)((uint32_t)sum << left);
    const int32_t product = (int32_t)((int64_t)wide * multiplier >> 32) + addend - (negative & (sum >> 31));
    return nst_clamped(product >> NST_SHIFT, y->low, y->high);
}

/* How many of the next channels, at most `most`, take the short way. */
NST_INLINE int32_t nst_short_ones(const int32_t *stream, const nst_block_sums *sums, int32_t most)
{
    int32_t count = 0;
    for (; count < most && !(stream[1] & NST_LONG); count++)
        stream += nst_blocks_of(stream) + nst_constants(sums);
    return count;
}

#endif
