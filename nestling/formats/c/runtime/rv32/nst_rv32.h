/* Kernels for RV32IM without vectors: 32-bit multiplications that compute two pixels at once.
 *
 * a + b * 65536 times w is both a * w and b * w. Such products may be added, too, as long as the lower sum stays within 16 bits: a block
 * of weights whose absolute values add up to 255 at most. Then the block's sum is taken apart. The generator cuts each four channels'
 * weights into the longest blocks that allow this, of 16 at most.
 */
#ifndef NST_RV32_H
#define NST_RV32_H

#include "nst_fixed.h"
#include "nst_kernels.h"

/* As nst_sums, but
 *
 * weights: for every four channels (the last ones filled up with zeros) blocks, each a byte n > 0 and [n][4] weights, then a byte 0.
 * A byte n < 0 before a block: -n places where all four weights are 0, and which are stepped over.
 * endings: [channels][3]: bias, multiplier, and the rest of what makes a byte of a sum (see nst_rv32_ending_of()).
 */
typedef struct {
    int32_t depth, channels;
    const int8_t *weights;
    const int32_t *endings;
    nst_output output;
} nst_rv32_sums;

/* Where the weights of the four channels from `first` on lie, first being a multiple of 4. */
const int8_t *nst_rv32_weights(const nst_rv32_sums *sums, int32_t first);

/* Four patches side by side as x[depth][2] of two pixels each: answers to the first `pixels` of them, `step` bytes apart, channels
 * from..to. weights: of the channel `from`. */
void nst_products_4_rv32(const int32_t *x, const nst_rv32_sums *sums, const int8_t *weights, nst_range channels, int8_t *out,
                         int32_t step, int32_t pixels);

/* Bytes of four pixels side by side: [count][2]. Returns where it stopped. */
NST_INLINE int32_t *nst_rv32_pack(int32_t *to, const int8_t *x0, const int8_t *x1, const int8_t *x2, const int8_t *x3,
                                  int32_t count)
{
    for (const int32_t *end = to + 2 * count; to < end; to += 2) {
        to[0] = *x0++ + *x1++ * (1 << 16);
        to[1] = *x2++ + *x3++ * (1 << 16);
    }
    return to;
}

/* One patch of bytes. */
void nst_products_1_rv32(const int8_t *x, const nst_rv32_sums *sums, const int8_t *weights, nst_range channels, int8_t *out);

/* As nst_conv_1x1. scratch: 8 * depth bytes. */
typedef struct {
    nst_shape out;
    nst_rv32_sums sums;
} nst_conv_1x1_rv32_layer;

void nst_conv_1x1_rv32(const int8_t *in, const nst_conv_1x1_rv32_layer *layer, int8_t *out, void *scratch, const nst_part *part);

/* As nst_conv, of one group, with columns that are not dilated. scratch: 8 * depth bytes, and the columns of the map that four windows
 * side by side reach. */
typedef struct {
    nst_shape in, out;
    nst_window window;
    int32_t in_zero, groups;
    nst_rv32_sums sums;
} nst_conv_rv32_layer;

void nst_conv_rv32(const int8_t *in, const nst_conv_rv32_layer *layer, int8_t *out, void *scratch, const nst_part *part);

/* As nst_conv_image. */
typedef struct {
    const int8_t *table;
    nst_conv_rv32_layer conv;
} nst_conv_image_rv32_layer;

void nst_conv_image_rv32(const uint8_t *image, const nst_conv_image_rv32_layer *layer, int8_t *out, void *scratch,
                         const nst_part *part);

/* The same of weights of 4 or 2 bits: those of a block are packed, the first one in a byte's lowest bits, in two's complement. They are
 * unpacked into scratch, behind what the kernel itself needs: of as many channels, a multiple of four, as there is room for, then of
 * the next ones. bytes: of scratch; most: of four channels' weights, unpacked. out may lie over in as there only where all weights
 * have room. */
void nst_conv_1x1_rv32_packed(const int8_t *in, const nst_conv_1x1_rv32_layer *layer, int8_t *out, void *scratch,
                              const nst_part *part, int32_t bytes, int32_t most, int32_t bits);
void nst_conv_rv32_packed(const int8_t *in, const nst_conv_rv32_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                          int32_t bytes, int32_t most, int32_t bits);
void nst_conv_image_rv32_packed(const uint8_t *image, const nst_conv_image_rv32_layer *layer, int8_t *out, void *scratch,
                                const nst_part *part, int32_t bytes, int32_t most, int32_t bits);

/* As nst_depthwise, of 3 x 3 that are not dilated, at most two apart. sums.weights: as there, without blocks. scratch: as there. */
typedef struct {
    nst_shape in, out;
    nst_window window;
    int32_t in_zero;
    nst_rv32_sums sums;
} nst_depthwise_rv32_layer;

void nst_depthwise_3_rv32(const int8_t *in, const nst_depthwise_rv32_layer *layer, int8_t *out, void *scratch,
                          const nst_part *part);

/* As nst_add, of operands of one shape: low + clamped((a * a_factor + b * b_factor + addend) >> shift). The generator has tried all 65536
 * pairs of bytes. */
typedef struct {
    int32_t count;
    int32_t a_factor, b_factor, addend, shift;
    int32_t low, high;
} nst_add_rv32_layer;

void nst_add_rv32(const int8_t *a, const int8_t *b, const nst_add_rv32_layer *layer, int8_t *out);

#endif
