#include "nst_kernels.h"

void nst_concat(const int8_t *const *in, const nst_concat_layer *layer, int8_t *out)
{
    for (int32_t row = 0; row < layer->rows; row++) {
        for (int32_t part = 0; part < layer->parts; part++) {
            const int32_t size = layer->sizes[part];
            const int8_t *from = in[part] + row * size, *table = layer->tables[part];
            for (int32_t i = 0; i < size; i++)
                *out++ = table ? table[from[i] + 128] : from[i];
        }
    }
}
