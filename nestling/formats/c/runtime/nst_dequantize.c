#include "nst_kernels.h"

void nst_dequantize(const int8_t *in, int32_t count, int32_t zero, float scale, float *out)
{
    for (; count > 0; count--)
        *out++ = scale * (float)(*in++ - zero);
}
