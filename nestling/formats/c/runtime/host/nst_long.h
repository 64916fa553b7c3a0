/* Rows of numbers to answers by a crew's kit, with the channels that it leaves to the long way. */
#ifndef NST_LONG_H
#define NST_LONG_H

#include "nst_kit.h"
#include "nst_part.h"

NST_INLINE uint8_t *nst_aligned(void *scratch)
{
    return (uint8_t *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
}

/* The answer of a channel whose factor is 0, from its sum with bias. */
NST_INLINE int8_t nst_long_answer(int32_t sum, const nst_host_sums *sums, int32_t o)
{
    const nst_output *y = &sums->output;
    return nst_clamped(nst_scaled(sum, sums->multiplier[o], sums->shift[o], y->zero), y->low, y->high);
}

/* `rows` rows, `step` bytes apart, to their pixels' answers, one after the other. */
NST_INLINE void nst_products_of(const nst_kit *kit, const uint8_t *x, int32_t step, int32_t rows, const nst_host_sums *sums, int8_t *out)
{
    const int32_t depth = sums->depth, channels = sums->channels, deep = (depth + 3) / 4 * 4;
    kit->products(x, step, rows, sums, out, channels);
    for (int32_t o = 0; sums->long_ones && o < channels; o++) {
        if (!nst_is_long(sums, o))
            continue;
        const int8_t *w = sums->weights + o / NST_GROUP * NST_GROUP * deep + o % NST_GROUP * 4;
        for (int32_t row = 0; row < rows; row++) {
            int32_t sum = sums->bias[o];
            for (int32_t k = 0; k < depth; k++)
                sum += nst_input_of(kit, x + row * step, k) * w[k / 4 * 4 * NST_GROUP + k % 4];
            out[row * channels + o] = nst_long_answer(sum, sums, o);
        }
    }
}

#endif
