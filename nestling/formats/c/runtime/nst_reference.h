/* What each kernel means: its naive twin, for tests only. Same arguments, same bytes. */
#ifndef NST_REFERENCE_H
#define NST_REFERENCE_H

#include "nst_kernels.h"

void nst_conv_1x1_reference(const int8_t *in, const nst_conv_1x1_layer *layer, int8_t *out, void *scratch, const nst_part *part);
void nst_conv_reference(const int8_t *in, const nst_conv_layer *layer, int8_t *out, void *scratch, const nst_part *part);
void nst_conv_image_reference(const uint8_t *image, const nst_conv_image_layer *layer, int8_t *out, void *scratch,
                              const nst_part *part);
void nst_depthwise_reference(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch, const nst_part *part);
void nst_depthwise_3_reference(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch,
                               const nst_part *part);
void nst_depthwise_5_reference(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch,
                               const nst_part *part);
void nst_fully_connected_reference(const int8_t *in, const nst_fully_connected_layer *layer, int8_t *out);
void nst_add_reference(const int8_t *a, const int8_t *b, const nst_add_layer *layer, int8_t *out);
void nst_mul_reference(const int8_t *a, const int8_t *b, const nst_mul_layer *layer, int8_t *out);
void nst_lookup_reference(const int8_t *in, const int8_t table[256], int32_t count, int8_t *out);
void nst_table_reference(const uint8_t *image, const int8_t *table, int32_t pixels, int32_t channels, int8_t *out);
void nst_average_pool_reference(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part);
void nst_max_pool_reference(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part);
void nst_mean_reference(const int8_t *in, const nst_mean_layer *layer, int8_t *out);
void nst_pad_reference(const int8_t *in, const nst_pad_layer *layer, int8_t *out);
void nst_resize_nearest_reference(const int8_t *in, const nst_resize_nearest_layer *layer, int8_t *out);
void nst_concat_reference(const int8_t *const *in, const nst_concat_layer *layer, int8_t *out);
void nst_slice_reference(const int8_t *in, const nst_slice_layer *layer, int8_t *out);
void nst_softmax_reference(const int8_t *in, const nst_softmax_layer *layer, int8_t *out);
void nst_dequantize_reference(const int8_t *in, int32_t count, int32_t zero, float scale, float *out);
void nst_head_reference(const int8_t *in, const nst_head_layer *layer, float *out);

#endif
