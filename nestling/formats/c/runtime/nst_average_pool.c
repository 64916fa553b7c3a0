#include "nst_pool.h"

void nst_average_pool(const int8_t *in, const nst_pool_layer *layer, int8_t *out)
{
    const int32_t width = layer->in.width, channels = layer->in.channels;
    const nst_output y = layer->output;
    for (int32_t row = 0; row < layer->out.height; row++) {
        for (int32_t column = 0; column < layer->out.width; column++) {
            const nst_places p = nst_inside(layer, row, column);
            const int32_t count = (p.bottom - p.top) * (p.right - p.left), half = count / 2;
            for (int32_t c = 0; c < channels; c++) {
                int32_t sum = 0;
                for (int32_t i = p.top; i < p.bottom; i++) {
                    const int8_t *x = in + (i * width + p.left) * channels + c;
                    for (int32_t j = p.left; j < p.right; j++, x += channels)
                        sum += *x;
                }
                if (layer->upwards) /* on what was uint8: 128 more a place */
                    sum = (sum + 128 * count + half) / count - 128;
                else
                    sum = (sum > 0 ? sum + half : sum - half) / count;
                *out++ = nst_clamped(sum, y.low, y.high);
            }
        }
    }
}
