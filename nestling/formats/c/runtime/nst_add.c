#include "nst_fixed.h"
#include "nst_kernels.h"

void nst_add(const int8_t *a, const int8_t *b, const nst_add_layer *layer, int8_t *out)
{
    const nst_broadcast s = layer->shape;
    const nst_output y = layer->output;
    const int32_t a_zero = layer->a_zero, b_zero = layer->b_zero;
    for (int32_t i = 0; i < s.size[0]; i++) {
        for (int32_t j = 0; j < s.size[1]; j++) {
            const int8_t *p = a + i * s.a_step[0] + j * s.a_step[1];
            const int8_t *q = b + i * s.b_step[0] + j * s.b_step[1];
            for (int32_t k = s.size[2]; k > 0; k--) {
                const int32_t of_a = (*p - a_zero) * (1 << 19);
                const int32_t of_b = nst_scaled((*q - b_zero) * (1 << layer->b_left), layer->b_multiplier, layer->b_shift, 0);
                *out++ = nst_clamped(nst_scaled(of_a + of_b, layer->multiplier, layer->shift, y.zero), y.low, y.high);
                p += s.a_step[2];
                q += s.b_step[2];
            }
        }
    }
}
