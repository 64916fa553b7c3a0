/* The arrays of every layer, laid out as its kernel reads them; see nst_kernels.h. */
#ifndef NESTLING_WEIGHTS_H
#define NESTLING_WEIGHTS_H

#include <stdint.h>

extern const int8_t nestling_layer0_table[768];
extern const int8_t nestling_layer0_weights[216];
extern const int32_t nestling_layer0_bias[8];
extern const int32_t nestling_layer0_multiplier[8];
extern const int8_t nestling_layer0_shift[8];

extern const int8_t nestling_layer1_table[256];

extern const int8_t nestling_layer2_weights[128];
extern const int32_t nestling_layer2_bias[16];
extern const int32_t nestling_layer2_multiplier[16];
extern const int8_t nestling_layer2_shift[16];

extern const int8_t nestling_layer3_weights[144];
extern const int32_t nestling_layer3_bias[16];
extern const int32_t nestling_layer3_multiplier[16];
extern const int8_t nestling_layer3_shift[16];

extern const int8_t nestling_layer4_weights[128];
extern const int32_t nestling_layer4_bias[8];
extern const int32_t nestling_layer4_multiplier[8];
extern const int8_t nestling_layer4_shift[8];

extern const int8_t nestling_layer7_weights[32];
extern const int32_t nestling_layer7_bias[4];
extern const int32_t nestling_layer7_multiplier[4];
extern const int8_t nestling_layer7_shift[4];

extern const int8_t nestling_layer8_weights[32];
extern const int32_t nestling_layer8_bias[8];
extern const int32_t nestling_layer8_multiplier[8];
extern const int8_t nestling_layer8_shift[8];

extern const int8_t nestling_layer9_table[256];

extern const int8_t nestling_layer11_weights[64];
extern const int32_t nestling_layer11_bias[6];
extern const int32_t nestling_layer11_multiplier[6];
extern const int8_t nestling_layer11_shift[6];

extern const int8_t nestling_layer13_weights[864];
extern const int32_t nestling_layer13_bias[10];
extern const int32_t nestling_layer13_multiplier[10];
extern const int8_t nestling_layer13_shift[10];

extern const int8_t nestling_layer14_table[256];

extern const int32_t nestling_layer15_sizes[2];

extern const float nestling_layer18_weights[32];
extern const float nestling_layer18_bias[2];

#endif
