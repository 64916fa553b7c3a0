#include "nst_six_high_dsp.h"

#if NST_DSP_ASSEMBLY

/* clang-format off */

#define OTHERS "6" /* rows */
#define BACK "sub r0, r0, lr, lsl #2\n" "sub r0, r0, lr, lsl #1\n"

#define ROW_1(first)                                                                                                               \
    "ldm r0, {r2, r3, r12}\n"                                                                                                      \
    "ldrd r10, r11, [r1], #8\n"                                                                                                    \
    first("r2", "r3", "r12")                                                                                                       \
    "ldrd r10, r11, [r1], #8\n"                                                                                                    \
    "ldr r2, [r0, #12]\n"                                                                                                          \
    NST_DSP_PAIR("r3", "r12", "r2")                                                                                                \
    "ldrd r10, r11, [r1], #8\n"                                                                                                    \
    "ldr r3, [r0, #16]\n"                                                                                                          \
    NST_DSP_PAIR("r12", "r2", "r3")                                                                                                \
    "ldrd r10, r11, [r1], #8\n"                                                                                                    \
    "ldr r12, [r0, #20]\n"                                                                                                         \
    NST_DSP_PAIR("r2", "r3", "r12")
#define SIXES_1(scaled)                                                                                                            \
    NST_DSP_HIGH_SIXES(NST_DSP_WINDOW("r9", ROW_1(NST_DSP_FIRST_PAIR), OTHERS, ROW_1(NST_DSP_PAIR), BACK), "12", scaled)

#define THREE_1(first)                                                                                                             \
    "ldm r0, {r2, r3, r7, r8, r9}\n"                                                                                               \
    "ldrd r10, r11, [r1], #8\n"                                                                                                    \
    first("r2", "r3")                                                                                                              \
    "ldrd r10, r11, [r1], #8\n"                                                                                                    \
    NST_DSP_THREE_PAIR("r3", "r7")                                                                                                 \
    "ldrd r10, r11, [r1], #8\n"                                                                                                    \
    NST_DSP_THREE_PAIR("r7", "r8")                                                                                                 \
    "ldrd r10, r11, [r1], #8\n"                                                                                                    \
    NST_DSP_THREE_PAIR("r8", "r9")
#define THREES_1                                                                                                                   \
    NST_DSP_HIGH_THREES(                                                                                                           \
        NST_DSP_WINDOW("r6", THREE_1(NST_DSP_FIRST_THREE_PAIR), OTHERS, THREE_1(NST_DSP_THREE_PAIR), BACK), "6")

#define ROW_2(from4, from5, from6, from7, from8)                                                                                   \
    "ldrd r10, r11, [r1], #8\n"                                                                                                    \
    "ldrd r12, r3, [r1], #8\n"                                                                                                     \
    "ldr r2, [r0]\n"                                                                                                               \
    NST_DSP_TAKE_FROM("r4", "r2", "r10", from4)                                                                                    \
    "ldr r2, [r0, #4]\n"                                                                                                           \
    NST_DSP_TAKE_FROM("r5", "r2", "r10", from5)                                                                                    \
    NST_DSP_TAKE("r4", "r2", "r11")                                                                                                \
    "ldr r2, [r0, #8]\n"                                                                                                           \
    NST_DSP_TAKE_FROM("r6", "r2", "r10", from6)                                                                                    \
    NST_DSP_TAKE("r5", "r2", "r11")                                                                                                \
    NST_DSP_TAKE("r4", "r2", "r12")                                                                                                \
    "ldr r2, [r0, #12]\n"                                                                                                          \
    NST_DSP_TAKE_FROM("r7", "r2", "r10", from7)                                                                                    \
    NST_DSP_TAKE("r6", "r2", "r11")                                                                                                \
    NST_DSP_TAKE("r5", "r2", "r12")                                                                                                \
    NST_DSP_TAKE("r4", "r2", "r3")                                                                                                 \
    "ldr r2, [r0, #16]\n"                                                                                                          \
    NST_DSP_TAKE_FROM("r8", "r2", "r10", from8)                                                                                    \
    NST_DSP_TAKE("r7", "r2", "r11")                                                                                                \
    NST_DSP_TAKE("r6", "r2", "r12")                                                                                                \
    NST_DSP_TAKE("r5", "r2", "r3")                                                                                                 \
    "ldr r2, [r0, #20]\n"                                                                                                          \
    NST_DSP_TAKE("r9", "r2", "r10")                                                                                                \
    NST_DSP_TAKE("r8", "r2", "r11")                                                                                                \
    NST_DSP_TAKE("r7", "r2", "r12")                                                                                                \
    NST_DSP_TAKE("r6", "r2", "r3")                                                                                                 \
    "ldr r2, [r0, #24]\n"                                                                                                          \
    NST_DSP_TAKE("r9", "r2", "r11")                                                                                                \
    NST_DSP_TAKE("r8", "r2", "r12")                                                                                                \
    NST_DSP_TAKE("r7", "r2", "r3")                                                                                                 \
    "ldr r2, [r0, #28]\n"                                                                                                          \
    NST_DSP_TAKE("r9", "r2", "r12")                                                                                                \
    NST_DSP_TAKE("r8", "r2", "r3")                                                                                                 \
    "ldr r2, [r0, #32]\n"                                                                                                          \
    NST_DSP_TAKE("r9", "r2", "r3")
#define SIXES_2(scaled)                                                                                                            \
    NST_DSP_HIGH_SIXES(                                                                                                            \
        NST_DSP_WINDOW("r9", ROW_2("r9", "r9", "r9", "r9", "r9"), OTHERS, ROW_2("r4", "r5", "r6", "r7", "r8"), BACK), "24", scaled)

#define THREE_2(from4, from5)                                                                                                      \
    "ldm r0, {r2, r3, r7, r8, r9, r12}\n"                                                                                          \
    "ldr r10, [r1], #4\n"                                                                                                          \
    NST_DSP_TAKE_FROM("r4", "r2", "r10", from4)                                                                                    \
    NST_DSP_TAKE_FROM("r5", "r3", "r10", from5)                                                                                    \
    NST_DSP_TAKE("r6", "r7", "r10")                                                                                                \
    "ldr r10, [r1], #4\n"                                                                                                          \
    NST_DSP_TAKE("r4", "r3", "r10")                                                                                                \
    NST_DSP_TAKE("r5", "r7", "r10")                                                                                                \
    NST_DSP_TAKE("r6", "r8", "r10")                                                                                                \
    "ldr r10, [r1], #4\n"                                                                                                          \
    NST_DSP_TAKE("r4", "r7", "r10")                                                                                                \
    NST_DSP_TAKE("r5", "r8", "r10")                                                                                                \
    NST_DSP_TAKE("r6", "r9", "r10")                                                                                                \
    "ldr r10, [r1], #4\n"                                                                                                          \
    NST_DSP_TAKE("r4", "r8", "r10")                                                                                                \
    NST_DSP_TAKE("r5", "r9", "r10")                                                                                                \
    NST_DSP_TAKE("r6", "r12", "r10")
#define THREES_2                                                                                                                   \
    NST_DSP_HIGH_THREES(NST_DSP_WINDOW("r6", THREE_2("r6", "r6"), OTHERS, THREE_2("r4", "r5"), BACK), "12")

/* clang-format on */

#endif

NST_DSP_KERNELS(7)

void nst_depthwise_7_dsp(const int8_t *in, const nst_depthwise_dsp_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                         int32_t bytes)
{
    nst_dsp_depthwise_by(in, layer, out, scratch, part, bytes, &kernels);
}
