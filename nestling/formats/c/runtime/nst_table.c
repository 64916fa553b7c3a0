#include "nst_kernels.h"

void nst_table(const uint8_t *image, const int8_t *table, int32_t pixels, int32_t channels, int8_t *out)
{
    for (; pixels > 0; pixels--)
        for (int32_t c = 0; c < channels; c++)
            *out++ = table[256 * c + *image++];
}
