#include "nst_part.h"
#include "nst_rv32.h"
#include "nst_rv32_ending.h"

const int8_t *nst_rv32_weights(const nst_rv32_sums *sums, int32_t first)
{
    const int8_t *w = sums->weights;
    for (int32_t channel = 0; channel < first; channel += 4) {
        for (int32_t n = *w++; n; n = *w++)
            w += n > 0 ? 4 * n : 0;
    }
    return w;
}

/* ---- four patches against four channels ------------------------------------------------------------------------------------- */

/* The sums of a channel and two pixels, taken apart: the lower one is both - upper * 65536, which wraps. */
typedef struct {
    uint32_t both;
    int32_t upper;
} nst_two;

#if defined(__GNUC__)
#define FALL_THROUGH __attribute__((fallthrough))
#else
#define FALL_THROUGH
#endif
#define FIRST(c) (v = w[c], p##c = a * v, q##c = b * v)
#define NEXT(k, c) (v = w[4 * (k) + (c)], p##c += a * v, q##c += b * v)
#define STEP(k)                                                                                                                    \
    FALL_THROUGH;                                                                                                                  \
    case k: a = x[2 * (k)], b = x[2 * (k) + 1], NEXT(k, 0), NEXT(k, 1), NEXT(k, 2), NEXT(k, 3)

/* A sum that is negative takes one from what lies above it; half of 65536 gives that back. */
#define APART(block, sum) (sum.both += (uint32_t)block, sum.upper += (block + half) >> 16)

/* sums: [channel][two pixels]. Returns where the next four channels' weights begin. The steps of a block run from the last to the
 * second one, so that how many there are is one jump. */
NST_APART const int8_t *dot_4x4(const int32_t *x, const int8_t *w, nst_two sums[8])
{
    nst_two s0 = {0, 0}, s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    int32_t n = *w++, half = 1 << 15;
    for (; n < 0; n = *w++)
        x -= 2 * n;
#if defined(__riscv)
    __asm__("" : "+r"(half)); /* to be held, not made again eight times a block */
#endif
    do {
        int32_t a = x[0], b = x[1], v, p0, p1, p2, p3, q0, q1, q2, q3;
        FIRST(0), FIRST(1), FIRST(2), FIRST(3);
        switch (n - 1) {
        default:
            STEP(15);
            STEP(14);
            STEP(13);
            STEP(12);
            STEP(11);
            STEP(10);
            STEP(9);
            STEP(8);
            STEP(7);
            STEP(6);
            STEP(5);
            STEP(4);
            STEP(3);
            STEP(2);
            STEP(1);
            FALL_THROUGH;
        case 0: break;
        }
        x += 2 * n, w += 4 * n;
        APART(p0, s0), APART(q0, s1), APART(p1, s2), APART(q1, s3), APART(p2, s4), APART(q2, s5), APART(p3, s6), APART(q3, s7);
        for (n = *w++; n < 0; n = *w++)
            x -= 2 * n;
    } while (n);
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3, sums[4] = s4, sums[5] = s5, sums[6] = s6, sums[7] = s7;
    return w;
}

NST_INLINE int32_t lower(const nst_two *sum)
{
    return (int32_t)(sum->both - ((uint32_t)sum->upper << 16));
}

NST_INLINE void answer_4(const nst_two *sum, const nst_rv32_ending *e, const nst_rv32_ends *ends, int8_t *out, int32_t step,
                         int32_t with_negative)
{
    int8_t *next = out + step;
    *out = nst_rv32_short(lower(sum), e, ends, with_negative);
    *next = nst_rv32_short(sum[0].upper, e, ends, with_negative), next += step;
    *next = nst_rv32_short(lower(sum + 1), e, ends, with_negative), next += step;
    *next = nst_rv32_short(sum[1].upper, e, ends, with_negative);
}

void nst_rv32_products_4(const int32_t *x, const nst_rv32_sums *sums, const int8_t *weights, nst_range channels, int8_t *out,
                         int32_t step, int32_t pixels)
{
    const nst_rv32_ends ends = nst_rv32_ends_of(&sums->output);
    const int32_t *three = sums->endings + 3 * channels.first;
    for (int32_t first = channels.first; first < channels.end; first += 4) {
        nst_two s[8];
        weights = dot_4x4(x, weights, s);
        const nst_two *sum = s;
        const int32_t *end = three + 3 * nst_smaller(4, channels.end - first);
        for (; three < end; three += 3, sum += 2, out++) {
            const nst_rv32_ending e = nst_rv32_ending_of(three, &ends);
            if (pixels == 4 && !(e.rest & (NST_RV32_NEGATIVE | NST_RV32_LONG))) {
                answer_4(sum, &e, &ends, out, step, 0);
            } else if (pixels == 4 && !(e.rest & NST_RV32_LONG)) {
                answer_4(sum, &e, &ends, out, step, 1);
            } else {
                const int32_t all[4] = {lower(sum), sum[0].upper, lower(sum + 1), sum[1].upper};
                for (int32_t i = 0; i < pixels; i++)
                    out[i * step] = nst_rv32_answer(all[i], &e, &ends);
            }
        }
    }
}

/* ---- one patch -------------------------------------------------------------------------------------------------------------- */

void nst_rv32_products_1(const int8_t *x, const nst_rv32_sums *sums, const int8_t *weights, nst_range channels, int8_t *out)
{
    const nst_rv32_ends ends = nst_rv32_ends_of(&sums->output);
    const int32_t *three = sums->endings + 3 * channels.first;
    for (int32_t first = channels.first; first < channels.end; first += 4) {
        int32_t s[4] = {0, 0, 0, 0};
        const int8_t *a = x;
        for (int32_t n = *weights++; n; n = *weights++) {
            a -= n < 0 ? n : 0;
            for (const int8_t *end = n > 0 ? a + n : a; a < end; a++, weights += 4) {
                s[0] += *a * weights[0];
                s[1] += *a * weights[1];
                s[2] += *a * weights[2];
                s[3] += *a * weights[3];
            }
        }
        for (int32_t i = 0; i < nst_smaller(4, channels.end - first); i++, three += 3) {
            const nst_rv32_ending e = nst_rv32_ending_of(three, &ends);
            *out++ = nst_rv32_answer(s[i], &e, &ends);
        }
    }
}
