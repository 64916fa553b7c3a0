/* Four neighbouring bytes at once: sums of no more than 255 places, and the largest of several. */
#ifndef NST_FOUR_DSP_H
#define NST_FOUR_DSP_H

#include "nst_dsp.h"
#include "nst_fixed.h"

#if defined(__thumb2__) && defined(__ARM_FEATURE_DSP)

/* In lanes of 16 bits: bytes 0 and 2, bytes 1 and 3. */
typedef struct {
    int32_t even, odd;
} nst_four_sums;

typedef struct {
    int32_t bytes;
} nst_four_largest;

NST_INLINE int32_t nst_four_at(const int8_t *x)
{
    int32_t four; /* of any alignment */
    __asm__("ldr %0, %1" : "=r"(four) : "m"(*(const int8_t (*)[4])x));
    return four;
}

NST_INLINE void nst_four_add(nst_four_sums *sums, const int8_t *x)
{
    const int32_t four = nst_four_at(x);
    __asm__("sxtab16 %0, %0, %1" : "+r"(sums->even) : "r"(four));
    __asm__("sxtab16 %0, %0, %1, ror #8" : "+r"(sums->odd) : "r"(four));
}

NST_INLINE int32_t nst_four_sum(const nst_four_sums *sums, int32_t i)
{
    const int32_t two = i % 2 ? sums->odd : sums->even;
    return i < 2 ? (int16_t)two : two >> 16;
}

NST_INLINE void nst_four_take(nst_four_largest *largest, const int8_t *x)
{
    int32_t difference;
    __asm__("ssub8 %1, %2, %0\n\tsel %0, %2, %0" : "+r"(largest->bytes), "=&r"(difference) : "r"(nst_four_at(x)));
}

NST_INLINE int32_t nst_four_byte(const nst_four_largest *largest, int32_t i)
{
    return (int8_t)(largest->bytes >> (8 * i));
}

NST_INLINE void nst_four_begin(nst_four_largest *largest)
{
    largest->bytes = (int32_t)0x80808080u; /* four times -128 */
}

#else

typedef struct {
    int32_t of[4];
} nst_four_sums;

typedef struct {
    int32_t of[4];
} nst_four_largest;

NST_INLINE void nst_four_add(nst_four_sums *sums, const int8_t *x)
{
    for (int32_t i = 0; i < 4; i++)
        sums->of[i] += x[i];
}

NST_INLINE int32_t nst_four_sum(const nst_four_sums *sums, int32_t i)
{
    return sums->of[i];
}

NST_INLINE void nst_four_take(nst_four_largest *largest, const int8_t *x)
{
    for (int32_t i = 0; i < 4; i++)
        largest->of[i] = x[i] > largest->of[i] ? x[i] : largest->of[i];
}

NST_INLINE int32_t nst_four_byte(const nst_four_largest *largest, int32_t i)
{
    return largest->of[i];
}

NST_INLINE void nst_four_begin(nst_four_largest *largest)
{
    for (int32_t i = 0; i < 4; i++)
        largest->of[i] = -128;
}

#endif

#endif
