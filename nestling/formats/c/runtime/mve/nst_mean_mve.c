#include "nst_products_mve.h"

#if NST_MVE

#include <arm_mve.h>

/* Sums of four neighbours over `count` rows, `step` bytes apart. */
NST_INLINE void four_sums(const int8_t *x, int32_t count, int32_t step, int32_t start, int32_t sums[4])
{
    int32x4_t sum = vdupq_n_s32(start);
    for (; count > 0; count--, x += step)
        sum = vaddq_s32(sum, vldrbq_s32(x));
    vst1q_s32(sums, sum);
}

#else

NST_INLINE void four_sums(const int8_t *x, int32_t count, int32_t step, int32_t start, int32_t sums[4])
{
    for (int32_t i = 0; i < 4; i++) {
        sums[i] = start;
        for (int32_t k = 0; k < count; k++)
            sums[i] += x[k * step + i];
    }
}

#endif

/* Four columns at a time; where fewer are left, the last four. */
void nst_mean_mve(const int8_t *in, const nst_mean_layer *layer, int8_t *out)
{
    const int32_t *n = layer->size;
    const nst_output y = layer->output;
    const int32_t columns = n[2] * n[4];
    for (int32_t a = 0; a < n[0]; a++, in += n[1] * columns, out += columns) {
        for (int32_t c = 0; c < columns; c += 4) {
            const int32_t first = c + 4 <= columns ? c : columns - 4;
            int32_t sums[4];
            four_sums(in + first, n[1], columns, -layer->in_zero * n[1], sums);
            for (int32_t i = 0; i < 4; i++)
                out[first + i] = nst_clamped(nst_scaled(sums[i], layer->multiplier, layer->shift, y.zero), y.low, y.high);
        }
    }
}
