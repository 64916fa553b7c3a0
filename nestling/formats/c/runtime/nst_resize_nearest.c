#include "nst_bytes.h"
#include "nst_kernels.h"

void nst_resize_nearest(const int8_t *in, const nst_resize_nearest_layer *layer, int8_t *out)
{
    const int32_t channels = layer->out.channels, row = layer->out.width * channels;
    for (int32_t y = 0; y < layer->out.height; y++) {
        if (y > 0 && layer->rows[y] == layer->rows[y - 1]) {
            out = nst_copy(out, out - row, row);
            continue;
        }
        const int8_t *from = in + layer->rows[y] * layer->in.width * channels;
        for (int32_t x = 0; x < layer->out.width; x++)
            out = nst_copy(out, from + layer->columns[x] * channels, channels);
    }
}
