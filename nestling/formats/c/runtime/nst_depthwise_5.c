#include "nst_depthwise.h"

NST_INLINE int32_t five(const int8_t *x, const int16_t *w, int32_t sum)
{
    sum += x[0] * w[0];
    sum += x[1] * w[1];
    sum += x[2] * w[2];
    sum += x[3] * w[3];
    sum += x[4] * w[4];
    return sum;
}

NST_INLINE void five_taps(const int8_t *x, const int16_t *w, int32_t size, int32_t stride, int32_t dilation, int32_t sums[4])
{
    (void)size, (void)dilation;
    sums[0] = five(x, w, sums[0]);
    sums[1] = five(x + stride, w, sums[1]);
    sums[2] = five(x + 2 * stride, w, sums[2]);
    sums[3] = five(x + 3 * stride, w, sums[3]);
}

void nst_depthwise_5(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch)
{
    const int32_t stride = layer->window.stride.width;
    if (stride == 1)
        nst_depthwise_by(in, layer, out, scratch, 1, five_taps);
    else if (stride == 2)
        nst_depthwise_by(in, layer, out, scratch, 2, five_taps);
    else
        nst_depthwise_by(in, layer, out, scratch, stride, five_taps);
}
