#include "nst_six_dsp.h"

#if NST_DSP_ASSEMBLY

/* clang-format off */

/* s1 to s12 the weights: of each row a pair for even columns, one for odd ones, the next two. */
#define ROW_1(first, w0, w1, w2, w3)                                                                                               \
    "ldm r0, {r2, r3, r12}\n"                                                                                                      \
    "vmov r10, r11, s" #w0 ", s" #w1 "\n"                                                                                          \
    first("r2", "r3", "r12")                                                                                                       \
    "vmov r10, r11, s" #w2 ", s" #w3 "\n"                                                                                          \
    "ldr r2, [r0, #12]\n"                                                                                                          \
    NST_DSP_PAIR("r3", "r12", "r2")
#define SIXES_1(scaled)                                                                                                            \
    NST_DSP_ENTER                                                                                                                  \
    "vldm r2, {s0-s12}\n"                                                                                                          \
    NST_DSP_ROW_BEGINS                                                                                                             \
    "2: vmov r9, s0\n"                                                                                                             \
    ROW_1(NST_DSP_FIRST_PAIR, 1, 2, 3, 4)                                                                                          \
    "add r0, r0, lr\n"                                                                                                             \
    ROW_1(NST_DSP_PAIR, 5, 6, 7, 8)                                                                                                \
    "add r0, r0, lr\n"                                                                                                             \
    ROW_1(NST_DSP_PAIR, 9, 10, 11, 12)                                                                                             \
    "sub r0, r0, lr, lsl #1\n"                                                                                                     \
    scaled                                                                                                                         \
    NST_DSP_STORED                                                                                                                 \
    NST_DSP_SIX_END("12")                                                                                                          \
    NST_DSP_LEAVE

#define THREE_1(first, w0, w1, w2, w3)                                                                                             \
    "ldm r0, {r2, r3, r12}\n"                                                                                                      \
    "vmov r10, r11, s" #w0 ", s" #w1 "\n"                                                                                          \
    first("r2", "r3")                                                                                                              \
    "vmov r10, r11, s" #w2 ", s" #w3 "\n"                                                                                          \
    NST_DSP_THREE_PAIR("r3", "r12")
#define THREES_1                                                                                                                   \
    NST_DSP_ENTER                                                                                                                  \
    "vldm r2, {s0-s12}\n"                                                                                                          \
    "1: vmov r6, s0\n"                                                                                                             \
    THREE_1(NST_DSP_FIRST_THREE_PAIR, 1, 2, 3, 4)                                                                                  \
    "add r0, r0, lr\n"                                                                                                             \
    THREE_1(NST_DSP_THREE_PAIR, 5, 6, 7, 8)                                                                                        \
    "add r0, r0, lr\n"                                                                                                             \
    THREE_1(NST_DSP_THREE_PAIR, 9, 10, 11, 12)                                                                                     \
    "sub r0, r0, lr, lsl #1\n"                                                                                                     \
    NST_DSP_THREE_END("6")                                                                                                         \
    NST_DSP_LEAVE

/* s1 to s6 the weights: two pairs of each row, over seven words of the plane. */
#define ROW_2(from4, from5, from6, from7, from8, w0, w1)                                                                           \
    "vmov r10, r11, s" #w0 ", s" #w1 "\n"                                                                                          \
    "ldm r0, {r2, r3, r12}\n"                                                                                                      \
    NST_DSP_TAKE_FROM("r4", "r2", "r10", from4)                                                                                    \
    NST_DSP_TAKE_FROM("r5", "r3", "r10", from5)                                                                                    \
    NST_DSP_TAKE_FROM("r6", "r12", "r10", from6)                                                                                   \
    NST_DSP_TAKE("r4", "r3", "r11")                                                                                                \
    NST_DSP_TAKE("r5", "r12", "r11")                                                                                               \
    "ldrd r2, r3, [r0, #12]\n"                                                                                                     \
    NST_DSP_TAKE_FROM("r7", "r2", "r10", from7)                                                                                    \
    NST_DSP_TAKE_FROM("r8", "r3", "r10", from8)                                                                                    \
    NST_DSP_TAKE("r6", "r2", "r11")                                                                                                \
    NST_DSP_TAKE("r7", "r3", "r11")                                                                                                \
    "ldrd r2, r3, [r0, #20]\n"                                                                                                     \
    NST_DSP_TAKE("r9", "r2", "r10")                                                                                                \
    NST_DSP_TAKE("r8", "r2", "r11")                                                                                                \
    NST_DSP_TAKE("r9", "r3", "r11")
#define SIXES_2(scaled)                                                                                                            \
    NST_DSP_ENTER                                                                                                                  \
    "vldm r2, {s0-s6}\n"                                                                                                           \
    NST_DSP_ROW_BEGINS                                                                                                             \
    "2: vmov r9, s0\n"                                                                                                             \
    ROW_2("r9", "r9", "r9", "r9", "r9", 1, 2)                                                                                      \
    "add r0, r0, lr\n"                                                                                                             \
    ROW_2("r4", "r5", "r6", "r7", "r8", 3, 4)                                                                                      \
    "add r0, r0, lr\n"                                                                                                             \
    ROW_2("r4", "r5", "r6", "r7", "r8", 5, 6)                                                                                      \
    "sub r0, r0, lr, lsl #1\n"                                                                                                     \
    scaled                                                                                                                         \
    NST_DSP_STORED                                                                                                                 \
    NST_DSP_SIX_END("24")                                                                                                          \
    NST_DSP_LEAVE

#define THREE_2(from4, from5, w0, w1)                                                                                              \
    "ldm r0, {r2, r3, r7, r8}\n"                                                                                                   \
    "vmov r10, r11, s" #w0 ", s" #w1 "\n"                                                                                          \
    NST_DSP_TAKE_FROM("r4", "r2", "r10", from4)                                                                                    \
    NST_DSP_TAKE_FROM("r5", "r3", "r10", from5)                                                                                    \
    NST_DSP_TAKE("r6", "r7", "r10")                                                                                                \
    NST_DSP_TAKE("r4", "r3", "r11")                                                                                                \
    NST_DSP_TAKE("r5", "r7", "r11")                                                                                                \
    NST_DSP_TAKE("r6", "r8", "r11")
#define THREES_2                                                                                                                   \
    NST_DSP_ENTER                                                                                                                  \
    "vldm r2, {s0-s6}\n"                                                                                                           \
    "1: vmov r6, s0\n"                                                                                                             \
    THREE_2("r6", "r6", 1, 2)                                                                                                      \
    "add r0, r0, lr\n"                                                                                                             \
    THREE_2("r4", "r5", 3, 4)                                                                                                      \
    "add r0, r0, lr\n"                                                                                                             \
    THREE_2("r4", "r5", 5, 6)                                                                                                      \
    "sub r0, r0, lr, lsl #1\n"                                                                                                     \
    NST_DSP_THREE_END("12")                                                                                                        \
    NST_DSP_LEAVE

/* clang-format on */

#endif

NST_DSP_KERNELS(3)

void nst_depthwise_3_dsp(const int8_t *in, const nst_depthwise_dsp_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                         int32_t bytes)
{
    nst_dsp_depthwise_by(in, layer, out, scratch, part, bytes, &kernels);
}
