#include "nst_fixed.h"
#include "nst_kernels.h"

void nst_mean(const int8_t *in, const nst_mean_layer *layer, int8_t *out)
{
    const int32_t *n = layer->size;
    const nst_output y = layer->output;
    const int32_t columns = n[3] * n[4], rows = n[2] * columns, all_zero = layer->in_zero * n[1] * n[3];
    for (int32_t a = 0; a < n[0]; a++, in += n[1] * rows) {
        for (int32_t b = 0; b < n[2]; b++) {
            for (int32_t c = 0; c < n[4]; c++) {
                int32_t sum = -all_zero;
                for (int32_t i = 0; i < n[1]; i++) {
                    const int8_t *x = in + i * rows + b * columns + c;
                    for (int32_t j = 0; j < n[3]; j++, x += n[4])
                        sum += *x;
                }
                *out++ = nst_clamped(nst_scaled(sum, layer->multiplier, layer->shift, y.zero), y.low, y.high);
            }
        }
    }
}
