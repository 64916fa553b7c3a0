#include "nst_bytes.h"
#include "nst_kernels.h"

void nst_pad(const int8_t *in, const nst_pad_layer *layer, int8_t *out)
{
    const int32_t channels = layer->in.channels, left = layer->pad.width * channels, row = layer->in.width * channels;
    const int32_t right = layer->out.width * channels - left - row;
    const int32_t below = layer->out.height - layer->pad.height - layer->in.height;
    out = nst_fill(out, layer->in_zero, layer->pad.height * layer->out.width * channels);
    for (int32_t y = 0; y < layer->in.height; y++) {
        out = nst_fill(out, layer->in_zero, left);
        out = nst_copy(out, in, row);
        in += row;
        out = nst_fill(out, layer->in_zero, right);
    }
    nst_fill(out, layer->in_zero, below * layer->out.width * channels);
}
