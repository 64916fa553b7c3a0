#include "nst_fixed.h"
#include "nst_kernels.h"

/* 1 / (1 + x) for x in [0, 1), 31 fractional bits in and out: three Newton steps from 48 / 17 - 32 / 17 * (1 + x) / 2. */
static int32_t one_over_one_plus(int32_t x)
{
    const int32_t half = (int32_t)(((int64_t)x + INT32_MAX + 1) >> 1);
    int32_t estimate = 1515870810 + nst_high_mul(half, -1010580540); /* 29 fractional bits */
    for (int32_t i = 0; i < 3; i++) {
        const int32_t error = (1 << 29) - nst_high_mul(half, estimate);
        estimate += nst_high_mul(estimate, error) * 4;
    }
    return estimate > INT32_MAX / 2 ? INT32_MAX : estimate * 2;
}

void nst_softmax(const int8_t *in, const nst_softmax_layer *layer, int8_t *out)
{
    for (int32_t row = 0; row < layer->rows; row++, in += layer->depth) {
        int32_t largest = -128, headroom = 0;
        int64_t total = 0; /* 19 fractional bits */
        for (int32_t i = 0; i < layer->depth; i++)
            largest = in[i] > largest ? in[i] : largest;
        for (int32_t i = 0; i < layer->depth; i++)
            total += nst_divide_by_power(layer->exponentials[largest - in[i]], 12);
        const uint32_t sum = total < INT32_MAX ? (uint32_t)total : INT32_MAX;
        while ((sum << headroom & 0x80000000u) == 0)
            headroom++;
        const int32_t factor = one_over_one_plus((int32_t)((sum << headroom) - 0x80000000u));
        for (int32_t i = 0; i < layer->depth; i++) {
            const int32_t share = nst_high_mul(layer->exponentials[largest - in[i]], factor);
            const int32_t down = 12 - headroom + 23; /* from 32 on nothing is left */
            *out++ = nst_clamped((down < 32 ? nst_divide_by_power(share, down) : 0) - 128, -128, 127);
        }
    }
}
