#include "nst_depthwise.h"

void nst_depthwise(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch)
{
    nst_depthwise_by(in, layer, out, scratch, layer->window.size.width, layer->window.stride.width, nst_any_taps);
}
