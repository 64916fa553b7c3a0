#include "nst_four_dsp.h"
#include "nst_pool.h"

/* Four channels at once; those that are left over one by one. */
void nst_max_pool_dsp(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const nst_output y = layer->output;
    const int32_t width = layer->in.width, channels = layer->in.channels;
    out += p.rows.first * layer->out.width * channels;
    for (int32_t row = p.rows.first; row < p.rows.end; row++) {
        for (int32_t column = 0; column < layer->out.width; column++, out += channels) {
            const nst_places w = nst_inside(layer, row, column);
            int32_t c = p.channels.first;
            for (; c + 4 <= p.channels.end; c += 4) {
                nst_four_largest largest;
                nst_four_begin(&largest);
                for (int32_t i = w.top; i < w.bottom; i++) {
                    const int8_t *x = in + (i * width + w.left) * channels + c;
                    for (int32_t j = w.left; j < w.right; j++, x += channels)
                        nst_four_take(&largest, x);
                }
                out[c] = nst_clamped(nst_four_byte(&largest, 0), y.low, y.high);
                out[c + 1] = nst_clamped(nst_four_byte(&largest, 1), y.low, y.high);
                out[c + 2] = nst_clamped(nst_four_byte(&largest, 2), y.low, y.high);
                out[c + 3] = nst_clamped(nst_four_byte(&largest, 3), y.low, y.high);
            }
            for (; c < p.channels.end; c++) {
                int32_t largest = -128;
                for (int32_t i = w.top; i < w.bottom; i++)
                    for (int32_t j = w.left; j < w.right; j++)
                        largest = nst_larger(largest, in[(i * width + j) * channels + c]);
                out[c] = nst_clamped(largest, y.low, y.high);
            }
        }
    }
}
