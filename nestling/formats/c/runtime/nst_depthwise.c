#include "nst_depthwise.h"

static void channel(const nst_depthwise_layer *layer, const nst_plane *plane, int32_t rows, int32_t o, int8_t *out)
{
    nst_channel(layer, plane, rows, o, out, layer->window.size.width, layer->window.stride.width, nst_any_taps);
}

void nst_depthwise(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    nst_depthwise_by(in, layer, out, scratch, part, channel);
}
