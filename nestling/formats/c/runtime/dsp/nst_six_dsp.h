/* Six outputs of a depthwise convolution in assembly, or three: what is the same for all sizes of windows.
 *
 * r0 the plane, r1 the answer, r4 to r9 the sums, r10, r11 (r12, r3) pairs of weights, r2, r3, r12 words of the plane, lr its pitch,
 * s0 the bias. Stack: step, where the row of the answer ends, multiplier, addend, three steps, last, down, back, sixes, negative,
 * further. */
#ifndef NST_SIX_DSP_H
#define NST_SIX_DSP_H

#include "nst_depthwise_dsp.h"

#if NST_DSP_ASSEMBLY

/* clang-format off */

/* r2 then points at the bias. */
#define NST_DSP_ENTER                                                                                                              \
    "push {r4-r11, lr}\n"                                                                                                          \
    "sub sp, #44\n"                                                                                                                \
    "str r3, [sp, #20]\n"                                                                                                          \
    "ldm r2!, {r4-r8, lr}\n"                                                                                                       \
    "add r3, sp, #24\n"                                                                                                            \
    "stm r3, {r4-r8}\n"                                                                                                            \
    "ldm r2!, {r4, r6, r7}\n"                                                                                                      \
    "add r8, r4, r4, lsl #1\n"                                                                                                     \
    "stm sp, {r4-r8}\n"

#define NST_DSP_ROW_BEGINS                                                                                                         \
    "1: ldr r2, [sp, #32]\n"                                                                                                       \
    "add r2, r2, r1\n"                                                                                                             \
    "str r2, [sp, #4]\n"

/* bytes: that the outputs take of a row of the plane. */
#define NST_DSP_SIX_END(bytes)                                                                                                     \
    "adds r0, #" bytes "\n"                                                                                                        \
    "cmp r1, r3\n"                                                                                                                 \
    "bne 2b\n"

#define NST_DSP_LEAVE                                                                                                              \
    "ldrd r2, r3, [sp, #24]\n"                                                                                                     \
    "add r0, r0, r2\n"                                                                                                             \
    "add r1, r1, r3\n"                                                                                                             \
    "ldr r2, [sp, #20]\n"                                                                                                          \
    "cmp r1, r2\n"                                                                                                                 \
    "bne 1b\n"                                                                                                                     \
    "add sp, #44\n"                                                                                                                \
    "pop {r4-r11, pc}\n"

#define NST_DSP_SIX(what) what("r4") what("r5") what("r6") what("r7") what("r8") what("r9")
#define NST_DSP_THREE(what) what("r4") what("r5") what("r6")

/* Sums to the upper halves of their products. */
#define NST_DSP_SCALED(sum) "smmla " sum ", " sum ", r10, r11\n"
#define NST_DSP_ALL_SCALED                                                                                                         \
    "ldm sp, {r2, r3, r10, r11, r12}\n"                                                                                            \
    NST_DSP_SIX(NST_DSP_SCALED)

/* The same with r2 added to those of sums below 0, and r3 bits less. */
#define NST_DSP_SCALED_FULLY(sum)                                                                                                  \
    "and r12, r2, " sum ", asr #31\n"                                                                                              \
    "smmla " sum ", " sum ", r10, r11\n"                                                                                           \
    "add " sum ", " sum ", r12\n"                                                                                                  \
    "asr " sum ", " sum ", r3\n"
#define NST_DSP_ALL_SCALED_FULLY                                                                                                   \
    "ldrd r10, r11, [sp, #8]\n"                                                                                                    \
    "ldrd r2, r3, [sp, #36]\n"                                                                                                     \
    NST_DSP_SIX(NST_DSP_SCALED_FULLY)                                                                                              \
    "ldm sp, {r2, r3, r10, r11, r12}\n"

#define NST_DSP_SATURATED(sum) "ssat " sum ", #8, " sum ", asr #10\n" /* NST_DSP_BITS */

/* r2: a step, r12: three. */
#define NST_DSP_STORED                                                                                                             \
    NST_DSP_SIX(NST_DSP_SATURATED)                                                                                                 \
    "add r10, r12, r2, lsl #1\n"                                                                                                   \
    "strb r4, [r1]\n"                                                                                                              \
    "strb r5, [r1, r2]\n"                                                                                                          \
    "strb r6, [r1, r2, lsl #1]\n"                                                                                                  \
    "strb r7, [r1, r12]\n"                                                                                                         \
    "strb r8, [r1, r2, lsl #2]\n"                                                                                                  \
    "strb r9, [r1, r10]\n"                                                                                                         \
    "add r1, r1, r12, lsl #1\n"

/* Three outputs a row, the sums in r4 to r6. bytes: as above. */
#define NST_DSP_THREE_END(bytes)                                                                                                   \
    "ldrd r10, r11, [sp, #8]\n"                                                                                                    \
    "ldrd r2, r3, [sp, #36]\n"                                                                                                     \
    NST_DSP_THREE(NST_DSP_SCALED_FULLY)                                                                                            \
    "ldm sp, {r2, r3, r10, r11, r12}\n"                                                                                            \
    NST_DSP_THREE(NST_DSP_SATURATED)                                                                                               \
    "strb r4, [r1]\n"                                                                                                              \
    "strb r5, [r1, r2]\n"                                                                                                          \
    "strb r6, [r1, r2, lsl #1]\n"                                                                                                  \
    "add r1, r1, r12\n"                                                                                                            \
    "adds r0, #" bytes "\n"

/* from + the product of two pairs. */
#define NST_DSP_TAKE_FROM(sum, x, w, from) "smlad " sum ", " x ", " w ", " from "\n"
#define NST_DSP_TAKE(sum, x, w) NST_DSP_TAKE_FROM(sum, x, w, sum)

/* Stride 1: one pair of columns over three words, r10 for even outputs and r11 for odd ones; the first of all adds to the bias in r9. */
#define NST_DSP_PAIR_FROM(a, b, c, from4, from5, from6, from7, from8)                                                              \
    NST_DSP_TAKE_FROM("r4", a, "r10", from4)                                                                                       \
    NST_DSP_TAKE_FROM("r5", a, "r11", from5)                                                                                       \
    NST_DSP_TAKE_FROM("r6", b, "r10", from6)                                                                                       \
    NST_DSP_TAKE_FROM("r7", b, "r11", from7)                                                                                       \
    NST_DSP_TAKE_FROM("r8", c, "r10", from8)                                                                                       \
    NST_DSP_TAKE("r9", c, "r11")
#define NST_DSP_PAIR(a, b, c) NST_DSP_PAIR_FROM(a, b, c, "r4", "r5", "r6", "r7", "r8")
#define NST_DSP_FIRST_PAIR(a, b, c) NST_DSP_PAIR_FROM(a, b, c, "r9", "r9", "r9", "r9", "r9")

/* The same for three outputs, whose bias is in r6. */
#define NST_DSP_THREE_PAIR_FROM(a, b, from4, from5)                                                                                \
    NST_DSP_TAKE_FROM("r4", a, "r10", from4)                                                                                       \
    NST_DSP_TAKE_FROM("r5", a, "r11", from5)                                                                                       \
    NST_DSP_TAKE("r6", b, "r10")
#define NST_DSP_THREE_PAIR(a, b) NST_DSP_THREE_PAIR_FROM(a, b, "r4", "r5")
#define NST_DSP_FIRST_THREE_PAIR(a, b) NST_DSP_THREE_PAIR_FROM(a, b, "r6", "r6")

/* clang-format on */

#define NST_DSP_KERNEL(name, size, stride, at_once, body)                                                                          \
    NST_DSP_NAKED void name(const int16_t *plane, int8_t *out, const nst_dsp_channel *channel, const int8_t *last)                 \
    {                                                                                                                              \
        __asm__ volatile(body);                                                                                                    \
    }

#else

#define NST_DSP_KERNEL(name, size, stride, at_once, body)                                                                          \
    static void name(const int16_t *plane, int8_t *out, const nst_dsp_channel *channel, const int8_t *last)                        \
    {                                                                                                                              \
        nst_dsp_rows_portable(plane, out, channel, last, size, stride, at_once);                                                   \
    }

#endif

/* All kernels of windows of a size, from its SIXES_1, THREES_1, SIXES_2 and THREES_2, as `kernels`. */
#define NST_DSP_KERNELS(size)                                                                                                      \
    NST_DSP_KERNEL(sixes_1, size, 1, 6, SIXES_1(NST_DSP_ALL_SCALED))                                                               \
    NST_DSP_KERNEL(sixes_1_fully, size, 1, 6, SIXES_1(NST_DSP_ALL_SCALED_FULLY))                                                   \
    NST_DSP_KERNEL(threes_1, size, 1, 3, THREES_1)                                                                                 \
    NST_DSP_KERNEL(sixes_2, size, 2, 6, SIXES_2(NST_DSP_ALL_SCALED))                                                               \
    NST_DSP_KERNEL(sixes_2_fully, size, 2, 6, SIXES_2(NST_DSP_ALL_SCALED_FULLY))                                                   \
    NST_DSP_KERNEL(threes_2, size, 2, 3, THREES_2)                                                                                 \
    static void take_1(const nst_depthwise_dsp_layer *layer, int32_t o, nst_dsp_channel *channel)                                  \
    {                                                                                                                              \
        nst_dsp_take(layer, o, channel, size, 1);                                                                                  \
    }                                                                                                                              \
    static void take_2(const nst_depthwise_dsp_layer *layer, int32_t o, nst_dsp_channel *channel)                                  \
    {                                                                                                                              \
        nst_dsp_take(layer, o, channel, size, 2);                                                                                  \
    }                                                                                                                              \
    static const nst_dsp_kernels kernels = {{{sixes_1, sixes_1_fully, threes_1}, {sixes_2, sixes_2_fully, threes_2}},              \
                                            {take_1, take_2}};

#endif
