#include "nst_packed.h"

void nst_fully_connected_packed(const int8_t *in, const nst_fully_connected_layer *layer, int8_t *out, void *scratch, int32_t bytes,
                                int32_t bits)
{
    const int32_t depth = layer->depth, channels = layer->channels, at_once = nst_at_once(channels, depth, bytes, 0);
    nst_fully_connected_layer part = *layer;
    part.weights = scratch;
    for (int32_t first = 0; first < channels; first += at_once) {
        part.channels = channels - first < at_once ? channels - first : at_once;
        nst_unpack(layer->weights + first * depth * bits / 8, bits, (part.channels + 3) / 4 * 4 * depth, scratch);
        part.bias = layer->bias + first;
        part.factor = layer->factor + (layer->per_channel ? first : 0);
        nst_fully_connected(in, &part, out + first);
    }
}
