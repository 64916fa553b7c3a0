#include "nst_products_mve.h"

enum { SIDE_BY_SIDE = 4, BLOCK = 16, CONSTANTS = 3 * 4 * SIDE_BY_SIDE };

#if NST_MVE

/* 16 products for each of eight sums. VMLADAV adds to even registers only, and these are all eight of them. 56 bytes of code. */
#define WEIGHTS(MLA, X, Y, A, B) "vldrb.8 q0, [%[w]], #16\n\t" MLA ".s8 " A ", q0, " X "\n\t" MLA ".s8 " B ", q0, " Y "\n\t"
#define BLOCK_OF(MLA, X, Y)                                                                                                        \
    WEIGHTS(MLA, X, Y, "r0", "r8")                                                                                                 \
    WEIGHTS(MLA, X, Y, "r2", "r10") WEIGHTS(MLA, X, Y, "r4", "r12") WEIGHTS(MLA, X, Y, "r6", "lr")
#define PRODUCTS(MLA)                                                                                                              \
    "vldrb.8 q1, [%[x]], #16\n\t"                                                                                                  \
    "vldrb.8 q2, [%[y]], #16\n\t" BLOCK_OF(MLA, "q1", "q2")
enum { CODE_OF_BLOCK = 56 };

/* The first patch's sums into q3, the second one's into q4, with their biases; their factors. */
#define SUMS                                                                                                                       \
    "vmov q3[2], q3[0], r0, r4\n\t"                                                                                                \
    "vmov q3[3], q3[1], r2, r6\n\t"                                                                                                \
    "vmov q4[2], q4[0], r8, r12\n\t"                                                                                               \
    "vmov q4[3], q4[1], r10, lr\n\t"                                                                                               \
    "vldrb.8 q0, [%[w]], #16\n\t"                                                                                                  \
    "vadd.i32 q3, q3, q0\n\t"                                                                                                      \
    "vadd.i32 q4, q4, q0\n\t"                                                                                                      \
    "vldrb.8 q0, [%[w]], #16\n\t"                                                                                                  \
    "vqrdmulh.s32 q3, q3, q0\n\t"                                                                                                  \
    "vqrdmulh.s32 q4, q4, q0\n\t"
#define LESS_IF_NEGATIVE                                                                                                           \
    "vshr.s32 q0, q3, #31\n\t"                                                                                                     \
    "vadd.i32 q3, q3, q0\n\t"                                                                                                      \
    "vshr.s32 q0, q4, #31\n\t"                                                                                                     \
    "vadd.i32 q4, q4, q0\n\t"
/* Their shifts; then they are narrowed to bytes, both patches' in turn, and put in their places; then the next four channels. */
#define ANSWERS(ZERO, END)                                                                                                         \
    "vldrb.8 q0, [%[w]], #16\n\t"                                                                                                  \
    "vrshl.s32 q3, q3, q0\n\t"                                                                                                     \
    "vrshl.s32 q4, q4, q0\n\t"                                                                                                     \
    "vqmovnb.s32 q0, q3\n\t"                                                                                                       \
    "vqmovnt.s32 q0, q4\n\t"                                                                                                       \
    "vqadd.s16 q0, q0, " ZERO                                                                                                      \
    "\n\t"                                                                                                                         \
    "vqmovnb.s16 q0, q0\n\t"                                                                                                       \
    "vstrb.16 q0, [%[out], q7]\n\t"                                                                                                \
    "adds %[out], %[out], #4\n\t"                                                                                                  \
    "cmp %[out], " END                                                                                                             \
    "\n\t"                                                                                                                         \
    "bne 2b\n\t"

/* Four channels a round. After the first block a round enters its loop of four blocks where so many are left as must be. */
#define FOURS(FIX)                                                                                                                 \
    __asm__ volatile("vldrb.8 q7, [%[p]]\n\t"                                                                                      \
                     "ldrd r0, r2, [%[p], #16]\n\t"                                                                                \
                     "ldrd r4, %[y], [%[p], #24]\n\t"                                                                              \
                     "vmov d12, %[x], %[y]\n\t"                                                                                    \
                     "vmov d13, r0, r2\n\t"                                                                                        \
                     "mov %[end], %[y]\n\t"                                                                                        \
                     "adr %[p], 3f\n\t"                                                                                            \
                     "add %[p], %[p], r4\n\t"                                                                                      \
                     "orr %[p], %[p], #1\n"                                                                                        \
                     "2: vmov %[x], %[y], d12\n\t" PRODUCTS("vmladav") "bx %[p]\n\t"                                               \
                                                                       ".balign 4\n"                                               \
                                                                       "3: " PRODUCTS("vmladava") PRODUCTS("vmladava")             \
                                                                           PRODUCTS("vmladava") PRODUCTS("vmladava")               \
                                                                               "cmp.w %[x], %[end]\n\t"                            \
                                                                               "bne.w 3b\n\t" SUMS FIX "vmov r0, r2, d13\n\t" ANSWERS("r2", "r0")                     \
                     : [x] "+r"(x), [w] "+r"(w), [out] "+r"(out), [y] "=&r"(y), [end] "=&r"(end), [p] "+r"(p)                      \
                     :                                                                                                             \
                     : "r0", "r2", "r4", "r6", "r8", "r10", "r12", "lr", "q0", "q1", "q2", "q3", "q4", "q6", "q7", "cc",           \
                       "memory")

/* The same where both patches have room in vectors, of one block or two: they are loaded once. */
#define FEW_FOURS(LOAD, BLOCKS, FIX)                                                                                               \
    __asm__ volatile(                                                                                                              \
        "vldrb.8 q7, [%[p]]\n\t"                                                                                                   \
        "vldrb.8 q1, [%[x]]\n\t"                                                                                                   \
        "vldrb.8 q2, [%[y]]\n\t" LOAD                                                                                              \
        "ldrd %[y], %[x], [%[p], #16]\n"                                                                                           \
        "2: " BLOCKS SUMS FIX ANSWERS("%[x]", "%[y]") /* */                                                                        \
        : [x] "+r"(x), [w] "+r"(w), [out] "+r"(out), [y] "+r"(y)                                                                   \
        : [p] "r"(p)                                                                                                               \
        : "r0", "r2", "r4", "r6", "r8", "r10", "r12", "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "cc", "memory")
#define ONE BLOCK_OF("vmladav", "q1", "q2")
#define LOAD_SECOND "vldrb.8 q5, [%[x], #16]\n\tvldrb.8 q6, [%[y], #16]\n\t"
#define TWO ONE BLOCK_OF("vmladava", "q5", "q6")

static void few_fours(const int8_t *x, const int8_t *w, int32_t negative, int8_t *out, const nst_mve_call *p)
{
    const int8_t *y = p->other;
    if (y - x == BLOCK && negative)
        FEW_FOURS("", ONE, LESS_IF_NEGATIVE);
    else if (y - x == BLOCK)
        FEW_FOURS("", ONE, "");
    else if (negative)
        FEW_FOURS(LOAD_SECOND, TWO, LESS_IF_NEGATIVE);
    else
        FEW_FOURS(LOAD_SECOND, TWO, "");
}

static void many_fours(const int8_t *x, const int8_t *w, int32_t negative, int8_t *out, const nst_mve_call *call)
{
    const int8_t *y, *end;
    const nst_mve_call *p = call;
    if (negative)
        FOURS(LESS_IF_NEGATIVE);
    else
        FOURS("");
}

void nst_mve_fours(const int8_t *x, const int8_t *w, int32_t negative, int8_t *out, const nst_mve_call *call)
{
    if (call->other - x <= 2 * BLOCK)
        few_fours(x, w, negative, out, call);
    else
        many_fours(x, w, negative, out, call);
}

#else

enum { CODE_OF_BLOCK = 0 };

void nst_mve_fours(const int8_t *x, const int8_t *w, int32_t negative, int8_t *out, const nst_mve_call *call)
{
    const int32_t blocks = (int32_t)(call->other - x) / BLOCK;
    const nst_output all = {call->zero, -128, 127};
    for (; out != call->end; out += SIDE_BY_SIDE, w += blocks * SIDE_BY_SIDE * BLOCK + CONSTANTS) {
        const int8_t *constants = w + blocks * SIDE_BY_SIDE * BLOCK;
        for (int32_t i = 0; i < 2 * SIDE_BY_SIDE; i++) {
            const int32_t channel = i / 2;
            const int8_t *patch = i % 2 ? call->other : x;
            int32_t sum = nst_word(constants + 4 * channel);
            for (int32_t k = 0; k < blocks * BLOCK; k++)
                sum += patch[k] * w[k / BLOCK * SIDE_BY_SIDE * BLOCK + channel * BLOCK + k % BLOCK];
            const int32_t multiplier = nst_word(constants + 16 + 4 * channel), exponent = nst_word(constants + 32 + 4 * channel);
            const int32_t value = nst_mve_scaled(sum, multiplier, exponent, negative) + all.zero;
            out[call->places[i]] = nst_clamped(value, all.low, all.high);
        }
    }
}

#endif

nst_mve_work nst_mve_ready(int8_t *patches, const nst_mve_sums *sums, nst_range channels, int32_t step)
{
    const int32_t blocks = (sums->depth + BLOCK - 1) / BLOCK, bytes = blocks * SIDE_BY_SIDE * BLOCK + CONSTANTS;
    const int32_t count = channels.end - channels.first;
    nst_mve_work work;
    work.call[1].zero = sums->output.zero;
    work.call[1].skip = ((5 - blocks) & 3) * CODE_OF_BLOCK;
    work.call[1].other = patches + blocks * BLOCK;
    work.call[0] = work.call[2] = work.call[1];
    for (int32_t i = 0; i < 8; i++) {
        work.call[0].places[i] = (uint16_t)(i / 2);
        work.call[1].places[i] = (uint16_t)(i / 2 + i % 2 * step);
        work.call[2].places[i] = (uint16_t)(i / 2 + i % 2 * SIDE_BY_SIDE);
    }
    work.patches = patches;
    work.stream = sums->stream + channels.first / SIDE_BY_SIDE * bytes;
    work.whole = count & -SIDE_BY_SIDE;
    work.rest = count - work.whole;
    work.of_rest = work.stream + work.whole / SIDE_BY_SIDE * bytes;
    work.step = step;
    work.negative = sums->negative;
    work.output = sums->output;
    work.clamps = sums->output.low > -128 || sums->output.high < 127;
    work.plain = !work.rest && !work.clamps;
    return work;
}

void nst_mve_any_products(nst_mve_work *work, int32_t patches, int8_t *out)
{
    nst_mve_call *call = &work->call[patches - 1];
    const int32_t size = (int32_t)(call->other - work->patches);
    if (patches < 2) /* the same twice, of which both answers go to one place */
        nst_mve_copy(work->patches + size, work->patches, size);
    if (work->whole) {
        call->end = out + work->whole;
        nst_mve_fours(work->patches, work->stream, work->negative, out, call);
    }
    if (work->rest) {
        int8_t rest[2 * SIDE_BY_SIDE], *to = out + work->whole;
        work->call[2].end = rest + SIDE_BY_SIDE;
        nst_mve_fours(work->patches, work->of_rest, work->negative, rest, &work->call[2]);
        for (int32_t i = 0; i < work->rest; i++) {
            to[i] = rest[i];
            if (patches > 1)
                to[i + work->step] = rest[i + SIDE_BY_SIDE];
        }
    }
    for (int32_t i = 0; i < patches && work->clamps; i++)
        nst_mve_clamp(out + i * work->step, work->whole + work->rest, &work->output);
}

void nst_mve_clamp(int8_t *values, int32_t count, const nst_output *output)
{
#if NST_MVE
    __asm__ volatile(
        "vdup.8 q1, %[low]\n\t"
        "vdup.8 q2, %[high]\n\t"
        "wlstp.8 lr, %[count], 2f\n"
        "1: vldrb.8 q0, [%[at]]\n\t"
        "vmax.s8 q0, q0, q1\n\t"
        "vmin.s8 q0, q0, q2\n\t"
        "vstrb.8 q0, [%[at]], #16\n\t"
        "letp lr, 1b\n"
        "2:"
        : [at] "+r"(values)
        : [count] "r"(count), [low] "r"(output->low), [high] "r"(output->high)
        : "lr", "q0", "q1", "q2", "memory");
#else
    for (; count > 0; count--, values++)
        *values = nst_clamped(*values, output->low, output->high);
#endif
}
