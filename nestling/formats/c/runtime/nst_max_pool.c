#include "nst_pool.h"

void nst_max_pool(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const int32_t width = layer->in.width, channels = layer->in.channels;
    const nst_output y = layer->output;
    out += p.rows.first * layer->out.width * channels;
    for (int32_t row = p.rows.first; row < p.rows.end; row++) {
        for (int32_t column = 0; column < layer->out.width; column++, out += channels) {
            const nst_places w = nst_inside(layer, row, column);
            for (int32_t c = p.channels.first; c < p.channels.end; c++) {
                int32_t largest = -128;
                for (int32_t i = w.top; i < w.bottom; i++) {
                    const int8_t *x = in + (i * width + w.left) * channels + c;
                    for (int32_t j = w.left; j < w.right; j++, x += channels)
                        largest = *x > largest ? *x : largest;
                }
                out[c] = nst_clamped(largest, y.low, y.high);
            }
        }
    }
}
