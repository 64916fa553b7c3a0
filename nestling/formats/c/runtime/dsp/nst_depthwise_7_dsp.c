#include "nst_six_dsp.h"

#if NST_DSP_ASSEMBLY

/* clang-format off */

/* Weights come from memory, where r1 is while a row's products are taken: s1 their beginning, s2 the answer meanwhile. */
#define ENTER                                                                                                                      \
    NST_DSP_ENTER                                                                                                                  \
    "vldm r2!, {s0}\n"                                                                                                             \
    "vmov s1, r2\n"
#define BEGIN(bias)                                                                                                                \
    "vmov " bias ", s0\n"                                                                                                          \
    "vmov s2, r1\n"                                                                                                                \
    "vmov r1, s1\n"
/* Back at the first row. */
#define END                                                                                                                        \
    "sub r0, r0, lr, lsl #2\n"                                                                                                     \
    "sub r0, r0, lr, lsl #1\n"                                                                                                     \
    "vmov r1, s2\n"

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
    ENTER                                                                                                                          \
    NST_DSP_ROW_BEGINS                                                                                                             \
    "2: "                                                                                                                          \
    BEGIN("r9")                                                                                                                    \
    ROW_1(NST_DSP_FIRST_PAIR)                                                                                                      \
    ".rept 6\n"                                                                                                                    \
    "add r0, r0, lr\n"                                                                                                             \
    ROW_1(NST_DSP_PAIR)                                                                                                            \
    ".endr\n"                                                                                                                      \
    END                                                                                                                            \
    scaled                                                                                                                         \
    NST_DSP_STORED                                                                                                                 \
    NST_DSP_SIX_END("12")                                                                                                          \
    NST_DSP_LEAVE

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
    ENTER                                                                                                                          \
    "1: "                                                                                                                          \
    BEGIN("r6")                                                                                                                    \
    THREE_1(NST_DSP_FIRST_THREE_PAIR)                                                                                              \
    ".rept 6\n"                                                                                                                    \
    "add r0, r0, lr\n"                                                                                                             \
    THREE_1(NST_DSP_THREE_PAIR)                                                                                                    \
    ".endr\n"                                                                                                                      \
    END                                                                                                                            \
    NST_DSP_THREE_END("6")                                                                                                         \
    NST_DSP_LEAVE

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
    ENTER                                                                                                                          \
    NST_DSP_ROW_BEGINS                                                                                                             \
    "2: "                                                                                                                          \
    BEGIN("r9")                                                                                                                    \
    ROW_2("r9", "r9", "r9", "r9", "r9")                                                                                            \
    ".rept 6\n"                                                                                                                    \
    "add r0, r0, lr\n"                                                                                                             \
    ROW_2("r4", "r5", "r6", "r7", "r8")                                                                                            \
    ".endr\n"                                                                                                                      \
    END                                                                                                                            \
    scaled                                                                                                                         \
    NST_DSP_STORED                                                                                                                 \
    NST_DSP_SIX_END("24")                                                                                                          \
    NST_DSP_LEAVE

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
    ENTER                                                                                                                          \
    "1: "                                                                                                                          \
    BEGIN("r6")                                                                                                                    \
    THREE_2("r6", "r6")                                                                                                            \
    ".rept 6\n"                                                                                                                    \
    "add r0, r0, lr\n"                                                                                                             \
    THREE_2("r4", "r5")                                                                                                            \
    ".endr\n"                                                                                                                      \
    END                                                                                                                            \
    NST_DSP_THREE_END("12")                                                                                                        \
    NST_DSP_LEAVE

/* clang-format on */

#endif

NST_DSP_KERNEL(sixes_1, 7, 1, 6, SIXES_1(NST_DSP_ALL_SCALED))
NST_DSP_KERNEL(sixes_1_fully, 7, 1, 6, SIXES_1(NST_DSP_ALL_SCALED_FULLY))
NST_DSP_KERNEL(threes_1, 7, 1, 3, THREES_1)
NST_DSP_KERNEL(sixes_2, 7, 2, 6, SIXES_2(NST_DSP_ALL_SCALED))
NST_DSP_KERNEL(sixes_2_fully, 7, 2, 6, SIXES_2(NST_DSP_ALL_SCALED_FULLY))
NST_DSP_KERNEL(threes_2, 7, 2, 3, THREES_2)

static void take_1(const nst_depthwise_dsp_layer *layer, int32_t o, nst_dsp_channel *channel)
{
    nst_dsp_take(layer, o, channel, 7, 1);
}

static void take_2(const nst_depthwise_dsp_layer *layer, int32_t o, nst_dsp_channel *channel)
{
    nst_dsp_take(layer, o, channel, 7, 2);
}

void nst_depthwise_7_dsp(const int8_t *in, const nst_depthwise_dsp_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                         int32_t bytes)
{
    static const nst_dsp_kernels kernels = {{{sixes_1, sixes_1_fully, threes_1}, {sixes_2, sixes_2_fully, threes_2}},
                                            {take_1, take_2}};
    nst_dsp_depthwise_by(in, layer, out, scratch, part, bytes, &kernels);
}
