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

/* As a kit's products, and the channels that go the long way. */
NST_INLINE void nst_products_of(const nst_kit *kit, const uint8_t *const *runs, int32_t step, int32_t pixels,
                                const nst_host_sums *sums, int8_t *out)
{
    const int32_t channels = sums->channels, deep = (sums->depth + 3) / 4 * 4;
    kit->products(runs, step, pixels, sums, out);
    for (int32_t o = 0; sums->long_ones && o < channels; o++) {
        if (!nst_is_long(sums, o))
            continue;
        const int8_t *w = sums->weights + o / NST_GROUP * NST_GROUP * sums->runs * deep + o % NST_GROUP * 4;
        for (int32_t pixel = 0; pixel < pixels; pixel++) {
            int32_t sum = sums->bias[o];
            for (int32_t r = 0; r < sums->runs; r++)
                for (int32_t k = 0; k < sums->depth; k++)
                    sum += nst_input_of(kit, runs[r] + pixel * step, k) * w[(r * deep + k) / 4 * 4 * NST_GROUP + k % 4];
            out[pixel * channels + o] = nst_long_answer(sum, sums, o);
        }
    }
}

#endif
