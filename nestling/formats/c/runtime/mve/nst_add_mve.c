#include "nst_products_mve.h"

#if NST_MVE

#include <arm_mve.h>

/* See nst_mve_scaled(). */
NST_INLINE int32x4_t scaled(int32x4_t x, int32_t multiplier, int32_t exponent, int32_t negative)
{
    x = vqrdmulhq_n_s32(x, multiplier);
    if (negative)
        x = vaddq_s32(x, vshrq_n_s32(x, 31));
    return vrshlq_n_s32(x, exponent);
}

NST_INLINE int32x4_t four(const int8_t *a, const int8_t *b, const nst_add_mve_layer *layer, int32_t negative)
{
    const int32x4_t y = vshlq_r_s32(vsubq_n_s32(vldrbq_s32(b), layer->b_zero), layer->b_left);
    const int32x4_t of_b = scaled(y, layer->b_multiplier, layer->b_exponent, 1);
    const int32x4_t sum = vaddq_n_s32(vmlaq_n_s32(of_b, vldrbq_s32(a), 1 << 19), -layer->a_zero * (1 << 19));
    return scaled(sum, layer->multiplier, layer->exponent, negative);
}

/* Eight bytes at a time; their order changes as they are narrowed, the first four and the second four in turn. */
NST_INLINE void eights(const int8_t *a, const int8_t *b, const nst_add_mve_layer *layer, int8_t *out, int32_t count,
                       int32_t negative)
{
    const nst_add_mve_layer l = *layer;
    const uint16x8_t places = {0, 4, 1, 5, 2, 6, 3, 7};
    for (; count > 0; count -= 8, a += 8, b += 8, out += 8) {
        const int32x4_t y = four(a, b, &l, negative), z = four(a + 4, b + 4, &l, negative);
        const int16x8_t both = vqmovntq_s32(vqmovnbq_s32(vdupq_n_s16(0), y), z);
        const int8x16_t bytes = vqmovnbq_s16(vdupq_n_s8(0), vqaddq_n_s16(both, (int16_t)l.output.zero));
        vstrbq_scatter_offset_s16(out, places, (int16x8_t)bytes);
    }
}

#else

static void eights(const int8_t *a, const int8_t *b, const nst_add_mve_layer *layer, int8_t *out, int32_t count, int32_t negative)
{
    for (int32_t i = 0; i < count; i++) {
        const int32_t y = (b[i] - layer->b_zero) * (1 << layer->b_left);
        const int32_t sum = nst_mve_scaled(y, layer->b_multiplier, layer->b_exponent, 1) + (a[i] - layer->a_zero) * (1 << 19);
        const int32_t value = nst_mve_scaled(sum, layer->multiplier, layer->exponent, negative);
        out[i] = nst_clamped(value + layer->output.zero, -128, 127);
    }
}

#endif

void nst_add_mve(const int8_t *a, const int8_t *b, const nst_add_mve_layer *layer, int8_t *out)
{
    const int32_t whole = layer->count & -8, rest = layer->count - whole;
    if (layer->negative)
        eights(a, b, layer, out, whole, 1);
    else
        eights(a, b, layer, out, whole, 0);
    if (rest) {
        int8_t x[8] = {0}, y[8] = {0}, sum[8];
        nst_mve_copy(x, a + whole, rest);
        nst_mve_copy(y, b + whole, rest);
        eights(x, y, layer, sum, 8, layer->negative);
        nst_mve_copy(out + whole, sum, rest);
    }
    if (layer->output.low > -128 || layer->output.high < 127)
        nst_mve_clamp(out, layer->count, &layer->output);
}
