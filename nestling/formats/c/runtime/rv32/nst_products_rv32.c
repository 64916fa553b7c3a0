#include "nst_ending_rv32.h"
#include "nst_part.h"
#include "nst_rv32.h"

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

#if defined(__riscv) && __riscv_xlen == 32 && !defined(NST_NO_ASSEMBLY)

/* What is in C below, as a compiler does not find it: of 24 numbers and two pointers two numbers lie on the stack, the others in
 * registers. A step is 22 instructions of four bytes each, which is how the jump into them finds its place.
 *
 * a0: x, a1: w, at its block's first byte. a2 to a5: pixels, a weight, a product. a6 to t1, t2 to t5: a block's sums. t6 to s6: `both`.
 * s7 to ra and 8(sp), 12(sp): `upper`. 0(sp): sums; 4(sp): where a block of no steps would jump to. */
const int8_t *nst_rv32_dot_4x4(const int32_t *x, const int8_t *w, nst_two sums[8]);
#define dot_4x4 nst_rv32_dot_4x4

__asm__(
    ".section .text.nst_rv32_dot_4x4, \"ax\"\n"
    ".globl nst_rv32_dot_4x4\n"
    ".type nst_rv32_dot_4x4, @function\n"

    ".macro nst_first place, p, q\n"
    "lb a4, \\place(a1)\n"
    "mul \\p, a2, a4\n"
    "mul \\q, a3, a4\n"
    ".endm\n"

    ".macro nst_next place, p, q\n"
    "lb a4, \\place(a1)\n"
    "mul a5, a2, a4\n"
    "mul a4, a3, a4\n"
    "add \\p, \\p, a5\n"
    "add \\q, \\q, a4\n"
    ".endm\n"

    ".macro nst_step k\n" /* counted from the block's end */
    "lw a2, -8 * \\k(a0)\n"
    "lw a3, 4 - 8 * \\k(a0)\n"
    "nst_next (1 - 4 * \\k), a6, t2\n"
    "nst_next (2 - 4 * \\k), a7, t3\n"
    "nst_next (3 - 4 * \\k), t0, t4\n"
    "nst_next (4 - 4 * \\k), t1, t5\n"
    ".endm\n"

    ".macro nst_apart block, both, upper\n" /* a2: half of 65536 */
    "add \\both, \\both, \\block\n"
    "add \\block, \\block, a2\n"
    "srai \\block, \\block, 16\n"
    "add \\upper, \\upper, \\block\n"
    ".endm\n"

    ".macro nst_registers do\n"
    "\\do ra, 16(sp)\n"
    "\\do s0, 20(sp)\n"
    "\\do s1, 24(sp)\n"
    "\\do s2, 28(sp)\n"
    "\\do s3, 32(sp)\n"
    "\\do s4, 36(sp)\n"
    "\\do s5, 40(sp)\n"
    "\\do s6, 44(sp)\n"
    "\\do s7, 48(sp)\n"
    "\\do s8, 52(sp)\n"
    "\\do s9, 56(sp)\n"
    "\\do s10, 60(sp)\n"
    "\\do s11, 64(sp)\n"
    ".endm\n"

    "nst_rv32_dot_4x4:\n"
    "addi sp, sp, -80\n"
    "nst_registers sw\n"
    "sw a2, 0(sp)\n"
    "la a2, 5f + 88\n"
    "sw a2, 4(sp)\n"
    "sw zero, 8(sp)\n"
    "sw zero, 12(sp)\n"
    ".irp one, t6, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, ra\n"
    "li \\one, 0\n"
    ".endr\n"
    "lb a5, 0(a1)\n"
    "bgtz a5, 2f\n"

    "1:\n" /* over zeros */
    "slli a5, a5, 3\n"
    "sub a0, a0, a5\n"
    "addi a1, a1, 1\n"
    "lb a5, 0(a1)\n"
    "bltz a5, 1b\n"

    "2:\n" /* a block of a5 places: the first one begins the sums */
    "lw a2, 0(a0)\n"
    "lw a3, 4(a0)\n"
    "nst_first 1, a6, t2\n"
    "nst_first 2, a7, t3\n"
    "nst_first 3, t0, t4\n"
    "nst_first 4, t1, t5\n"
    "lw a4, 4(sp)\n"
    "li a3, -88\n"
    "mul a3, a3, a5\n"
    "add a4, a4, a3\n"
    "slli a5, a5, 2\n"
    "add a1, a1, a5\n"
    "slli a5, a5, 1\n"
    "add a0, a0, a5\n"
    "jr a4\n"
    ".option push\n"
    ".option norvc\n"
    ".irp k, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1\n"
    "nst_step \\k\n"
    ".endr\n"
    ".option pop\n"

    "5:\n"
    "lui a2, 8\n"
    "nst_apart a6, t6, s7\n"
    "nst_apart t2, s0, s8\n"
    "nst_apart a7, s1, s9\n"
    "nst_apart t3, s2, s10\n"
    "nst_apart t0, s3, s11\n"
    "nst_apart t4, s4, ra\n"
    "lw a3, 8(sp)\n"
    "lw a4, 12(sp)\n"
    "nst_apart t1, s5, a3\n"
    "nst_apart t5, s6, a4\n"
    "sw a3, 8(sp)\n"
    "sw a4, 12(sp)\n"
    "addi a1, a1, 1\n"
    "lb a5, 0(a1)\n"
    "bgtz a5, 2b\n"
    "bltz a5, 1b\n"

    "lw a2, 0(sp)\n"
    "sw t6, 0(a2)\n"
    "sw s7, 4(a2)\n"
    "sw s0, 8(a2)\n"
    "sw s8, 12(a2)\n"
    "sw s1, 16(a2)\n"
    "sw s9, 20(a2)\n"
    "sw s2, 24(a2)\n"
    "sw s10, 28(a2)\n"
    "sw s3, 32(a2)\n"
    "sw s11, 36(a2)\n"
    "sw s4, 40(a2)\n"
    "sw ra, 44(a2)\n"
    "sw s5, 48(a2)\n"
    "sw a3, 52(a2)\n"
    "sw s6, 56(a2)\n"
    "sw a4, 60(a2)\n"
    "addi a0, a1, 1\n"
    "nst_registers lw\n"
    "addi sp, sp, 80\n"
    "ret\n"
    ".size nst_rv32_dot_4x4, . - nst_rv32_dot_4x4\n"
    ".text\n");

#else

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
    const int32_t half = 1 << 15;
    int32_t n = *w++;
    for (; n < 0; n = *w++)
        x -= 2 * n;
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

#endif

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

void nst_products_4_rv32(const int32_t *x, const nst_rv32_sums *sums, const int8_t *weights, nst_range channels, int8_t *out,
                         int32_t step, int32_t pixels)
{
    const nst_rv32_ends ends = nst_rv32_ends_of(&sums->output);
    const int32_t *three = sums->endings + 3 * channels.first;
    const int32_t few = pixels < 4 ? NST_RV32_LONG : 0; /* one by one, as where a channel goes the long way */
    for (int32_t first = channels.first; first < channels.end; first += 4) {
        nst_two s[8];
        weights = dot_4x4(x, weights, s);
        const nst_two *sum = s;
        const int32_t *end = three + 3 * nst_smaller(4, channels.end - first);
        for (; three < end; three += 3, sum += 2, out++) {
            if (((three[2] | few) & (NST_RV32_NEGATIVE | NST_RV32_LONG)) == 0) {
                const nst_rv32_ending e = {three[0], three[1], ends.base + (three[2] >> 16), 0, three[2]};
                answer_4(sum, &e, &ends, out, step, 0);
                continue;
            }
            const nst_rv32_ending e = nst_rv32_ending_of(three, &ends);
            if (((three[2] | few) & NST_RV32_LONG) == 0) {
                answer_4(sum, &e, &ends, out, step, 1);
                continue;
            }
            const int32_t all[4] = {lower(sum), sum[0].upper, lower(sum + 1), sum[1].upper};
            for (int32_t i = 0; i < pixels; i++)
                out[i * step] = nst_rv32_answer(all[i], &e, &ends);
        }
    }
}

/* ---- one patch -------------------------------------------------------------------------------------------------------------- */

void nst_products_1_rv32(const int8_t *x, const nst_rv32_sums *sums, const int8_t *weights, nst_range channels, int8_t *out)
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
