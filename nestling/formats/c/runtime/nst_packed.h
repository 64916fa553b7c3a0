/* Layers whose weights take 4 or 2 bits: they are unpacked into scratch, and the kernel of nst_kernels.h runs on them. The answers are
 * the same bytes.
 *
 * The layer's weights lie in the order of nst_kernels.h, packed: the first one in a byte's lowest bits, in two's complement.
 * bits: 4 or 2. Scratch holds the unpacked weights, one a byte, and behind them, from a multiple of 4 on, what the kernel itself needs.
 */
#ifndef NST_PACKED_H
#define NST_PACKED_H

#include "nst_kernels.h"

/* All weights are unpacked at once. */
void nst_depthwise_packed(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                          int32_t bits);
void nst_depthwise_3_packed(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                            int32_t bits);
void nst_depthwise_5_packed(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                            int32_t bits);
void nst_conv_image_packed(const uint8_t *image, const nst_conv_image_layer *layer, int8_t *out, void *scratch,
                           const nst_part *part, int32_t bits);

/* The weights of as many channels as there is room for, then the next ones: the more room, the less is done twice.
 * bytes: of scratch; 4 * depth beside the kernel's own are the fewest, for 4 channels; a convolution in groups takes all weights.
 * nst_conv_1x1_packed: out may be in only where all weights have room. */
void nst_conv_1x1_packed(const int8_t *in, const nst_conv_1x1_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                         int32_t bytes, int32_t bits);
void nst_conv_packed(const int8_t *in, const nst_conv_layer *layer, int8_t *out, void *scratch, const nst_part *part, int32_t bytes,
                     int32_t bits);
void nst_fully_connected_packed(const int8_t *in, const nst_fully_connected_layer *layer, int8_t *out, void *scratch, int32_t bytes,
                                int32_t bits);

/* ---- what they share ------------------------------------------------------------------------------------------------------- */

/* count weights from their bytes on; up to three more are written, as far as the last byte holds some. Where they end. */
int8_t *nst_unpack(const int8_t *packed, int32_t bits, int32_t count, int8_t *weights);

/* How many of some channels can be unpacked at once beside `own` bytes for the kernel: all, or a multiple of 4. */
int32_t nst_at_once(int32_t channels, int32_t depth, int32_t bytes, int32_t own);

/* Some channels of sums, from a multiple of four on, their weights unpacked into `weights`. */
nst_sums nst_unpacked(const nst_sums *sums, nst_range channels, int32_t bits, int8_t *weights);

#endif
