#include "nst_depthwise.h"

NST_INLINE int32_t three(const int8_t *x, const int16_t *w, int32_t sum)
{
    sum += x[0] * w[0];
    sum += x[1] * w[1];
    sum += x[2] * w[2];
    return sum;
}

NST_INLINE void three_taps(const int8_t *x, const int16_t *w, int32_t size, int32_t stride, int32_t dilation, int32_t sums[4])
{
    (void)size, (void)dilation;
    sums[0] = three(x, w, sums[0]);
    sums[1] = three(x + stride, w, sums[1]);
    sums[2] = three(x + 2 * stride, w, sums[2]);
    sums[3] = three(x + 3 * stride, w, sums[3]);
}

void nst_depthwise_3(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch)
{
    const int32_t stride = layer->window.stride.width;
    if (stride == 1)
        nst_depthwise_by(in, layer, out, scratch, 1, three_taps);
    else if (stride == 2)
        nst_depthwise_by(in, layer, out, scratch, 2, three_taps);
    else
        nst_depthwise_by(in, layer, out, scratch, stride, three_taps);
}
