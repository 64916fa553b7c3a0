#include "nst_pools_mve.h"

/* Windows of up to 255 places: their sums have room in 16 bits. */
enum { AT_ONCE = 8 };

#if NST_MVE

NST_INLINE void sums_of(const int8_t *in, const nst_pool_layer *layer, const nst_places *w, int32_t count, int16_t sums[AT_ONCE])
{
    const mve_pred16_t lanes = vctp16q((uint32_t)count);
    int16x8_t sum = vdupq_n_s16(0);
    for (int32_t i = w->top; i < w->bottom; i++) {
        const int8_t *x = in + (i * layer->in.width + w->left) * layer->in.channels;
        for (int32_t j = w->left; j < w->right; j++, x += layer->in.channels)
            sum = vaddq_s16(sum, vldrbq_z_s16(x, lanes));
    }
    vst1q_s16(sums, sum);
}

#else

NST_INLINE void sums_of(const int8_t *in, const nst_pool_layer *layer, const nst_places *w, int32_t count, int16_t sums[AT_ONCE])
{
    for (int32_t c = 0; c < count; c++) {
        sums[c] = 0;
        for (int32_t i = w->top; i < w->bottom; i++)
            for (int32_t j = w->left; j < w->right; j++)
                sums[c] = (int16_t)(sums[c] + in[(i * layer->in.width + j) * layer->in.channels + c]);
    }
}

#endif

static void some(const int8_t *in, const nst_pool_layer *layer, const nst_places *w, int32_t count, int8_t *out)
{
    const int32_t places = (w->bottom - w->top) * (w->right - w->left), half = places / 2;
    int16_t sums[AT_ONCE];
    sums_of(in, layer, w, count, sums);
    for (int32_t c = 0; c < count; c++) {
        const int32_t sum = sums[c], value = (sum > 0 ? sum + half : sum - half) / places;
        out[c] = nst_clamped(value, layer->output.low, layer->output.high);
    }
}

void nst_average_pool_mve(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part)
{
    nst_pool_by(in, layer, out, part, AT_ONCE, some);
}
