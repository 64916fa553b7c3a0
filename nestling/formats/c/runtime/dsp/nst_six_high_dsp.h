/* Six outputs, or three, of windows so high that their weights come from memory, where r1 is while a row's products are taken: s1 their
 * beginning, s2 the answer meanwhile. */
#ifndef NST_SIX_HIGH_DSP_H
#define NST_SIX_HIGH_DSP_H

#include "nst_six_dsp.h"

#if NST_DSP_ASSEMBLY

/* clang-format off */

#define NST_DSP_ENTER_HIGH                                                                                                         \
    NST_DSP_ENTER                                                                                                                  \
    "vldm r2!, {s0}\n"                                                                                                             \
    "vmov s1, r2\n"

/* A window: its first row, which begins with the bias, then the others, each a pitch further down; back: to the first row. */
#define NST_DSP_WINDOW(bias, first, others, row, back)                                                                             \
    "vmov " bias ", s0\n"                                                                                                          \
    "vmov s2, r1\n"                                                                                                                \
    "vmov r1, s1\n"                                                                                                                \
    first                                                                                                                          \
    ".rept " others "\n"                                                                                                           \
    "add r0, r0, lr\n"                                                                                                             \
    row                                                                                                                            \
    ".endr\n"                                                                                                                      \
    back                                                                                                                           \
    "vmov r1, s2\n"

/* bytes: that the outputs take of a row of the plane. */
#define NST_DSP_HIGH_SIXES(window, bytes, scaled)                                                                                  \
    NST_DSP_ENTER_HIGH                                                                                                             \
    NST_DSP_ROW_BEGINS                                                                                                             \
    "2: "                                                                                                                          \
    window                                                                                                                         \
    scaled                                                                                                                         \
    NST_DSP_STORED                                                                                                                 \
    NST_DSP_SIX_END(bytes)                                                                                                         \
    NST_DSP_LEAVE
#define NST_DSP_HIGH_THREES(window, bytes)                                                                                         \
    NST_DSP_ENTER_HIGH                                                                                                             \
    "1: "                                                                                                                          \
    window                                                                                                                         \
    NST_DSP_THREE_END(bytes)                                                                                                       \
    NST_DSP_LEAVE

/* clang-format on */

#endif

#endif
