#include "nst_four_dsp.h"
#include "nst_pool.h"

static int8_t average(int32_t sum, int32_t count, const nst_pool_layer *layer)
{
    const int32_t half = count / 2;
    if (layer->upwards) /* on what was uint8: 128 more a place */
        sum = (sum + 128 * count + half) / count - 128;
    else
        sum = (sum > 0 ? sum + half : sum - half) / count;
    return nst_clamped(sum, layer->output.low, layer->output.high);
}

/* Four channels at once; those that are left over one by one. */
void nst_average_pool_dsp(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const int32_t width = layer->in.width, channels = layer->in.channels;
    out += p.rows.first * layer->out.width * channels;
    for (int32_t row = p.rows.first; row < p.rows.end; row++) {
        for (int32_t column = 0; column < layer->out.width; column++, out += channels) {
            const nst_places w = nst_inside(layer, row, column);
            const int32_t count = (w.bottom - w.top) * (w.right - w.left);
            int32_t c = p.channels.first;
            for (; c + 4 <= p.channels.end; c += 4) {
                nst_four_sums sums = {0};
                for (int32_t i = w.top; i < w.bottom; i++) {
                    const int8_t *x = in + (i * width + w.left) * channels + c;
                    for (int32_t j = w.left; j < w.right; j++, x += channels)
                        nst_four_add(&sums, x);
                }
                out[c] = average(nst_four_sum(&sums, 0), count, layer);
                out[c + 1] = average(nst_four_sum(&sums, 1), count, layer);
                out[c + 2] = average(nst_four_sum(&sums, 2), count, layer);
                out[c + 3] = average(nst_four_sum(&sums, 3), count, layer);
            }
            for (; c < p.channels.end; c++) {
                int32_t sum = 0;
                for (int32_t i = w.top; i < w.bottom; i++)
                    for (int32_t j = w.left; j < w.right; j++)
                        sum += in[(i * width + j) * channels + c];
                out[c] = average(sum, count, layer);
            }
        }
    }
}
