/* Kernels for processors with Arm's M-profile vector extension (Helium), integers only. What nst_kernels.h says of its kernels holds
 * here, too.
 *
 * Each file has a portable twin of its instructions, which is what is compiled for any other processor.
 */
#ifndef NST_MVE_H
#define NST_MVE_H

#include "nst_kernels.h"

/* As nst_sums, of weights whose zero point is 0.
 *
 * stream: for every four channels, the last ones filled up with zeros, [(depth + 15) / 16][4][16] weights, then four biases, four
 * multipliers and four exponents of 32 bits each, lowest byte first. No exponent is above 0, and none is 0 where `negative` is 1:
 * answers below the zero point are wanted. See nst_mve_scaled().
 */
typedef struct {
    int32_t depth;    /* products a sum */
    int32_t channels; /* answers a patch */
    const int8_t *stream;
    int32_t negative;
    nst_output output;
} nst_mve_sums;

/* As nst_conv_1x1. scratch: two patches, filled up to a multiple of 16 bytes each. */
typedef struct {
    nst_shape out;
    nst_mve_sums sums;
} nst_conv_1x1_mve_layer;

void nst_conv_1x1_mve(const int8_t *in, const nst_conv_1x1_mve_layer *layer, int8_t *out, void *scratch, const nst_part *part);

/* As nst_conv with one group. scratch: as above, and two bytes for every byte of a window's row. */
typedef struct {
    nst_shape in, out;
    nst_window window;
    int32_t in_zero, groups; /* 1 */
    nst_mve_sums sums;
} nst_conv_mve_layer;

void nst_conv_mve(const int8_t *in, const nst_conv_mve_layer *layer, int8_t *out, void *scratch, const nst_part *part);

/* As nst_conv_image. */
typedef struct {
    const int8_t *table;
    nst_conv_mve_layer conv;
} nst_conv_image_mve_layer;

void nst_conv_image_mve(const uint8_t *image, const nst_conv_image_mve_layer *layer, int8_t *out, void *scratch,
                        const nst_part *part);

/* The same of weights of 4 or 2 bits, which are unpacked into scratch, behind what the kernel itself needs: of as many channels, a
 * multiple of four, as there is room for, then of the next ones. bytes: of scratch.
 *
 * Such a stream's weights are packed, 16 bytes in the place of 32 or 64: the lowest bits of all of them are the first 16 weights, in two's
 * complement, the next bits the next 16. out may lie over in as there only where all weights have room. */
void nst_conv_1x1_mve_packed(const int8_t *in, const nst_conv_1x1_mve_layer *layer, int8_t *out, void *scratch,
                             const nst_part *part, int32_t bytes, int32_t bits);
void nst_conv_mve_packed(const int8_t *in, const nst_conv_mve_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                         int32_t bytes, int32_t bits);
void nst_conv_image_mve_packed(const uint8_t *image, const nst_conv_image_mve_layer *layer, int8_t *out, void *scratch,
                               const nst_part *part, int32_t bytes, int32_t bits);

/* As nst_depthwise, with windows of 3x3 that are not dilated, at stride 1 or 2 both ways. stream: for every channel its weights in
 * rows, filled up with three zeros, then its bias, its multiplier and its exponent as above.
 * bytes: of scratch, for one strip more than `ahead` at least: see nst_depthwise_mve.h. */
typedef struct {
    nst_shape in, out;
    nst_window window;
    int32_t in_zero, ahead; /* strips that are read before the answers of one may be written over the map */
    nst_mve_sums sums;
} nst_depthwise_mve_layer;

void nst_depthwise_3_mve(const int8_t *in, const nst_depthwise_mve_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                         int32_t bytes);

/* The same with windows of 3 to 8 columns and of up to 8 rows; its taps are filled up with one to four zeros. Scratch is also for its
 * weights, spread: 64 bytes for every two columns. */
void nst_depthwise_mve(const int8_t *in, const nst_depthwise_mve_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                       int32_t bytes);

/* As nst_add, of two operands of one shape. Exponents are below 0; negative: as in nst_mve_sums. */
typedef struct {
    int32_t count;
    int32_t a_zero, b_zero;
    int32_t b_left, b_multiplier, b_exponent;
    int32_t multiplier, exponent, negative;
    nst_output output;
} nst_add_mve_layer;

void nst_add_mve(const int8_t *a, const int8_t *b, const nst_add_mve_layer *layer, int8_t *out);

/* Of windows of up to 255 places, with halves away from zero. */
void nst_average_pool_mve(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part);
void nst_max_pool_mve(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part);

/* Where what is summed lies in rows of four bytes or more: size[3] is 1, size[2] * size[4] at least 4. */
void nst_mean_mve(const int8_t *in, const nst_mean_layer *layer, int8_t *out);

/* ---- zeros skipped --------------------------------------------------------------------------------------------------------- */

/* As nst_conv_1x1_blocks, with blocks of any weights, a multiple of four a channel; places are counted from the channel's first block,
 * and left is one less than there. scratch: 4 bytes for each of depth, rounded up to a multiple of 4. */
void nst_conv_1x1_blocks_mve(const int8_t *in, const nst_conv_1x1_blocks_layer *layer, int8_t *out, void *scratch,
                             const nst_part *part);

#endif
