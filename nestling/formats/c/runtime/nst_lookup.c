#include "nst_kernels.h"

void nst_lookup(const int8_t *in, const int8_t table[256], int32_t count, int8_t *out)
{
    for (; count > 0; count--)
        *out++ = table[*in++ + 128];
}
