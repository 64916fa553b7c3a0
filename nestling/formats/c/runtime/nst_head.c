#include "nst_kernels.h"

void nst_head(const int8_t *in, const nst_head_layer *layer, float *out)
{
    const float *w = layer->weights;
    for (int32_t c = 0; c < layer->classes; c++) {
        float sums[4] = {0, 0, 0, 0};
        int32_t k = 0;
        for (; k + 4 <= layer->depth; k += 4, w += 4) {
            sums[0] += w[0] * (float)(in[k] - layer->zero);
            sums[1] += w[1] * (float)(in[k + 1] - layer->zero);
            sums[2] += w[2] * (float)(in[k + 2] - layer->zero);
            sums[3] += w[3] * (float)(in[k + 3] - layer->zero);
        }
        for (; k < layer->depth; k++)
            sums[0] += *w++ * (float)(in[k] - layer->zero);
        out[c] = layer->bias[c] + layer->scale * ((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
}
