#include "nst_four_dsp.h"

static int8_t answer(int32_t sum, const nst_mean_layer *layer)
{
    const nst_output y = layer->output;
    return nst_clamped(nst_scaled(sum, layer->multiplier, layer->shift, y.zero), y.low, y.high);
}

/* Four neighbours at once; those that are left over one by one. */
void nst_mean_dsp(const int8_t *in, const nst_mean_layer *layer, int8_t *out)
{
    const int32_t count = layer->size[1], kept = layer->size[2] * layer->size[4], zeros = layer->in_zero * count;
    for (int32_t a = 0; a < layer->size[0]; a++, in += count * kept) {
        int32_t b = 0;
        for (; b + 4 <= kept; b += 4) {
            nst_four_sums sums = {0};
            const int8_t *x = in + b;
            for (int32_t i = 0; i < count; i++, x += kept)
                nst_four_add(&sums, x);
            *out++ = answer(nst_four_sum(&sums, 0) - zeros, layer);
            *out++ = answer(nst_four_sum(&sums, 1) - zeros, layer);
            *out++ = answer(nst_four_sum(&sums, 2) - zeros, layer);
            *out++ = answer(nst_four_sum(&sums, 3) - zeros, layer);
        }
        for (; b < kept; b++) {
            int32_t sum = -zeros;
            for (int32_t i = 0; i < count; i++)
                sum += in[i * kept + b];
            *out++ = answer(sum, layer);
        }
    }
}
