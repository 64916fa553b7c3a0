#include "nst_pool.h"

void nst_max_pool(const int8_t *in, const nst_pool_layer *layer, int8_t *out)
{
    const int32_t width = layer->in.width, channels = layer->in.channels;
    const nst_output y = layer->output;
    for (int32_t row = 0; row < layer->out.height; row++) {
        for (int32_t column = 0; column < layer->out.width; column++) {
            const nst_places p = nst_inside(layer, row, column);
            for (int32_t c = 0; c < channels; c++) {
                int32_t largest = -128;
                for (int32_t i = p.top; i < p.bottom; i++) {
                    const int8_t *x = in + (i * width + p.left) * channels + c;
                    for (int32_t j = p.left; j < p.right; j++, x += channels)
                        largest = *x > largest ? *x : largest;
                }
                *out++ = nst_clamped(largest, y.low, y.high);
            }
        }
    }
}
