#include "nst_depthwise.h"

static void channel(const nst_depthwise_layer *layer, const nst_plane *plane, int32_t rows, int32_t o, int8_t *out)
{
    nst_channel_of(layer, plane, rows, o, out, 5);
}

void nst_depthwise_5(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    nst_depthwise_by(in, layer, out, scratch, part, channel);
}
