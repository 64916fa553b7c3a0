#include "nst_products.h"

#include "nst_fixed.h"

nst_sums nst_some_channels(const nst_sums *sums, int32_t group, nst_range channels)
{
    const int32_t fours = (sums->channels + 3) / 4 * 4, first = group * sums->channels + channels.first;
    nst_sums some = *sums;
    some.channels = channels.end - channels.first;
    some.weights += (group * fours + channels.first) * sums->depth;
    some.bias += first;
    some.multiplier += first;
    some.shift += first;
    return some;
}

/* ---- eight sums of two patches, which lie side by side in a row of nst_both -------------------------------------------------- */

/* Where one instruction gives a 64-bit product (with its addition, Arm's SMLAL), one product serves both patches. */
#if !defined(NST_TWO_IN_ONE)
#if defined(__arm__) || UINTPTR_MAX > 0xffffffffu
#define NST_TWO_IN_ONE 1
#else
#define NST_TWO_IN_ONE 0
#endif
#endif

#if NST_TWO_IN_ONE

/* The second patch's byte lies 23 bits above the first one's: a product with such a number is both products. Sums of up to 252
 * products of bytes stay within 2^22 of 0; they begin at 2^22, so that the lower one is never negative. */
#define UNROLL 4
enum { AT_ONCE = 252, SUMS = 4, APART = 23, BEGIN = 1 << (APART - 1) };
typedef int32_t nst_both;
typedef int64_t nst_sum;

NST_INLINE nst_both both_of(int32_t a, int32_t b)
{
    return a + b * (1 << APART);
}

NST_INLINE void step_2x4(nst_both x, const int8_t *w, nst_sum *s)
{
    s[0] += (int64_t)x * w[0];
    s[1] += (int64_t)x * w[1];
    s[2] += (int64_t)x * w[2];
    s[3] += (int64_t)x * w[3];
}

NST_INLINE void take_apart(const nst_sum *s, int32_t *sums)
{
    sums[0] = (int32_t)((uint32_t)*s & ((1u << APART) - 1)) - BEGIN;
    sums[1] = (int32_t)(*s >> APART);
}

#else

#define UNROLL 2 /* more than that, and registers run out on RISC-V */
enum { AT_ONCE = INT32_MAX, SUMS = 8, BEGIN = 0 };
typedef struct {
    int8_t a, b;
} nst_both;
typedef int32_t nst_sum;

NST_INLINE nst_both both_of(int8_t a, int8_t b)
{
    return (nst_both){a, b};
}

NST_INLINE void step_2x4(nst_both x, const int8_t *w, nst_sum *s)
{
    s[0] += x.a * w[0];
    s[1] += x.b * w[0];
    s[2] += x.a * w[1];
    s[3] += x.b * w[1];
    s[4] += x.a * w[2];
    s[5] += x.b * w[2];
    s[6] += x.a * w[3];
    s[7] += x.b * w[3];
}

NST_INLINE void take_apart(const nst_sum *s, int32_t *sums)
{
    sums[0] = s[0];
    sums[1] = s[1];
}

#endif

/* sums: [channel][patch]. w: [depth][4]; depth: at most AT_ONCE. */
NST_APART void dot_2x4(const nst_both *x, const int8_t *w, int32_t depth, int32_t sums[8])
{
    const nst_both *whole = x + (depth & -UNROLL), *end = x + depth;
    nst_sum s[8] = {BEGIN, BEGIN, BEGIN, BEGIN};
    for (; x < whole; x += UNROLL, w += 4 * UNROLL) {
        step_2x4(x[0], w, s);
        step_2x4(x[1], w + 4, s);
#if UNROLL == 4
        step_2x4(x[2], w + 8, s);
        step_2x4(x[3], w + 12, s);
#endif
    }
    for (; x < end; x++, w += 4)
        step_2x4(*x, w, s);
    take_apart(s, sums);
    take_apart(s + SUMS / 4, sums + 2);
    take_apart(s + SUMS / 2, sums + 4);
    take_apart(s + SUMS / 4 * 3, sums + 6);
}

/* Channel o's answers to both patches. */
NST_INLINE void answer_2(int32_t a, int32_t b, const nst_sums *sums, int32_t o, const nst_ending *ending, int8_t *out, int32_t step)
{
    const int32_t bias = sums->bias[o], multiplier = sums->multiplier[o], shift = sums->shift[o];
    if (shift >= 0) {
        out[o] = nst_answer(a + bias, multiplier, shift, ending);
        out[o + step] = nst_answer(b + bias, multiplier, shift, ending);
    } else {
        out[o] = nst_answer_long(a + bias, multiplier, shift, ending);
        out[o + step] = nst_answer_long(b + bias, multiplier, shift, ending);
    }
}

void nst_products_2(const int8_t *x0, const int8_t *x1, const nst_sums *layer, int8_t *out, int32_t step, int32_t *work)
{
    const nst_sums sums = *layer;
    const int32_t start0 = nst_weight_zero_term(x0, sums.depth, sums.weight_zero);
    const int32_t start1 = nst_weight_zero_term(x1, sums.depth, sums.weight_zero);
    const nst_ending ending = nst_ending_of(&sums.output);
    const int8_t *weights = sums.weights;
    nst_both *both = (nst_both *)work;
    for (int32_t k = 0; k < sums.depth; k++)
        both[k] = both_of(x0[k], x1[k]);
    for (int32_t first = 0; first < sums.channels; first += 4) {
        int32_t s[8];
        dot_2x4(both, weights, sums.depth < AT_ONCE ? sums.depth : AT_ONCE, s);
        for (int32_t done = AT_ONCE; done < sums.depth; done += AT_ONCE) {
            int32_t more[8];
            dot_2x4(both + done, weights + 4 * done, sums.depth - done < AT_ONCE ? sums.depth - done : AT_ONCE, more);
            for (int32_t i = 0; i < 8; i++)
                s[i] += more[i];
        }
        weights += 4 * sums.depth;
        answer_2(s[0] + start0, s[1] + start1, &sums, first, &ending, out, step);
        if (first + 1 < sums.channels)
            answer_2(s[2] + start0, s[3] + start1, &sums, first + 1, &ending, out, step);
        if (first + 2 < sums.channels)
            answer_2(s[4] + start0, s[5] + start1, &sums, first + 2, &ending, out, step);
        if (first + 3 < sums.channels)
            answer_2(s[6] + start0, s[7] + start1, &sums, first + 3, &ending, out, step);
    }
}

/* ---- one patch ------------------------------------------------------------------------------------------------------------- */

NST_INLINE void step_1x4(const int8_t *x, const int8_t *w, int32_t *sums)
{
    const int32_t a = *x;
    sums[0] += a * w[0];
    sums[1] += a * w[1];
    sums[2] += a * w[2];
    sums[3] += a * w[3];
}

void nst_dot_1x4(const int8_t *x, const int8_t *w, int32_t depth, int32_t sums[4])
{
    int32_t s[4] = {sums[0], sums[1], sums[2], sums[3]};
    int32_t k = depth;
    for (; k >= 4; k -= 4) {
        step_1x4(x, w, s);
        step_1x4(x + 1, w + 4, s);
        step_1x4(x + 2, w + 8, s);
        step_1x4(x + 3, w + 12, s);
        x += 4, w += 16;
    }
    for (; k > 0; k--) {
        step_1x4(x, w, s);
        x += 1, w += 4;
    }
    sums[0] = s[0], sums[1] = s[1], sums[2] = s[2], sums[3] = s[3];
}

int32_t nst_weight_zero_term(const int8_t *x, int32_t depth, int32_t weight_zero)
{
    int32_t sum = 0;
    for (int32_t k = 0; weight_zero != 0 && k < depth; k++)
        sum += x[k];
    return -weight_zero * sum;
}

void nst_products_1(const int8_t *x, const nst_sums *sums, int8_t *out)
{
    const int32_t start = nst_weight_zero_term(x, sums->depth, sums->weight_zero);
    const nst_ending ending = nst_ending_of(&sums->output);
    for (int32_t first = 0; first < sums->channels; first += 4) {
        int32_t s[4] = {start, start, start, start};
        nst_dot_1x4(x, sums->weights + first * sums->depth, sums->depth, s);
        for (int32_t i = 0, o = first; i < 4 && o < sums->channels; i++, o++) {
            const int32_t sum = s[i] + sums->bias[o], multiplier = sums->multiplier[o], shift = sums->shift[o];
            out[o] = shift >= 0 ? nst_answer(sum, multiplier, shift, &ending) : nst_answer_long(sum, multiplier, shift, &ending);
        }
    }
}
