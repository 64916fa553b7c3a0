#include "nst_dsp.h"
#include "nst_fixed.h"

enum { TERMS = 256, BITS = 18 };

/* saturated((sum * multiplier >> 32) + addend >> BITS). */
NST_INLINE int8_t answer(int32_t sum, int32_t multiplier, int32_t addend)
{
    int32_t value;
#if defined(__thumb2__) && defined(__ARM_FEATURE_DSP)
    __asm__("smmla %0, %1, %2, %3" : "=r"(value) : "r"(sum), "r"(multiplier), "r"(addend));
    __asm__("ssat %0, #8, %1, asr #18" : "=r"(value) : "r"(value));
    return (int8_t)value;
#else
    value = (int32_t)(((int64_t)sum * multiplier) >> 32) + addend;
    return nst_clamped(value >> BITS, -128, 127);
#endif
}

/* a * one + b, which a compiler that sees a power of two makes two instructions of. */
NST_INLINE int32_t sum_of(int32_t a, int32_t one, int32_t b)
{
#if defined(__thumb2__)
    __asm__("mla %0, %1, %2, %0" : "+r"(b) : "r"(a), "r"(one));
    return b;
#else
    return a * one + b;
#endif
}

/* b's part of the sum, with what a's zero point adds to it. */
NST_INLINE int32_t term(const nst_add_dsp_layer *layer, int32_t b)
{
    const int32_t wide = (b - layer->b_zero) * (1 << layer->b_left);
    const int32_t narrow = nst_scaled(wide, layer->b_multiplier, layer->b_shift, 0);
    return narrow * (1 << layer->left) - layer->a_zero * (1 << (19 + layer->left));
}

/* table: the terms of b's bytes, those from 128 on being the negative ones. */
static void by_table(const int8_t *a, const int8_t *b, const nst_add_dsp_layer *layer, int8_t *out, const int32_t *table)
{
    const int32_t multiplier = layer->multiplier, addend = layer->addend, one = 1 << (19 + layer->left);
    int32_t count = layer->count;
    for (; count >= 4; count -= 4) {
        out[0] = answer(sum_of(a[0], one, table[(uint8_t)b[0]]), multiplier, addend);
        out[1] = answer(sum_of(a[1], one, table[(uint8_t)b[1]]), multiplier, addend);
        out[2] = answer(sum_of(a[2], one, table[(uint8_t)b[2]]), multiplier, addend);
        out[3] = answer(sum_of(a[3], one, table[(uint8_t)b[3]]), multiplier, addend);
        a += 4, b += 4, out += 4;
    }
    for (; count > 0; count--)
        *out++ = answer(sum_of(*a++, one, table[(uint8_t)*b++]), multiplier, addend);
}

void nst_add_dsp(const int8_t *a, const int8_t *b, const nst_add_dsp_layer *layer, int8_t *out, void *scratch, int32_t bytes)
{
    const nst_output y = layer->output;
    int32_t *table = scratch;
    if (bytes >= TERMS * 4 && layer->count >= TERMS) {
        for (int32_t i = 0; i < TERMS; i++)
            table[i] = term(layer, i < 128 ? i : i - 256);
        by_table(a, b, layer, out, table);
    } else {
        const int32_t one = 1 << (19 + layer->left);
        for (int32_t i = 0; i < layer->count; i++)
            out[i] = answer(sum_of(a[i], one, term(layer, b[i])), layer->multiplier, layer->addend);
    }
    for (int32_t i = 0; (y.low > -128 || y.high < 127) && i < layer->count; i++)
        out[i] = nst_clamped(out[i], y.low, y.high);
}
