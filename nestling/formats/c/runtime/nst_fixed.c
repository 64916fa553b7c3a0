#include "nst_fixed.h"

int32_t nst_rescale(int32_t x, int32_t multiplier, int32_t exponent)
{
    const int32_t left = exponent > 0 ? exponent : 0;
    const int32_t wide = (int32_t)((uint32_t)x << left);
    return nst_divide_by_power(nst_high_mul(wide, multiplier), left - exponent);
}

int32_t nst_divide_by_power(int32_t x, int32_t exponent)
{
    const int32_t rest_mask = (int32_t)(((uint32_t)1 << exponent) - 1);
    const int32_t half = (rest_mask >> 1) + (x < 0 ? 1 : 0);
    return (x >> exponent) + ((x & rest_mask) > half ? 1 : 0);
}
