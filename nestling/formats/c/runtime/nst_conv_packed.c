#include "nst_packed.h"

/* Some channels only: pixels of a row in pairs, each pair a map of its own, since nst_conv() writes all channels of a map. */
static void convolve_pairs(const int8_t *in, nst_conv_layer part, int8_t *out, void *work)
{
    const nst_shape map = part.out;
    const nst_window window = part.window;
    part.out.height = 1;
    for (int32_t y = 0; y < map.height; y++) {
        part.window.pad.height = window.pad.height - y * window.stride.height;
        for (int32_t x = 0; x < map.width; x += 2) {
            part.window.pad.width = window.pad.width - x * window.stride.width;
            part.out.width = x + 1 < map.width ? 2 : 1;
            nst_conv(in, &part, out, work);
            out += part.out.width * map.channels;
        }
    }
}

/* The layer with all of its weights unpacked. Where they end. */
static void *unpack_all(nst_conv_layer *layer, int32_t bits, int8_t *scratch)
{
    const int32_t count = layer->groups * ((layer->sums.channels + 3) / 4 * 4) * layer->sums.depth;
    const int8_t *packed = layer->sums.weights;
    layer->sums.weights = scratch;
    return nst_unpack(packed, bits, count, scratch);
}

void nst_conv_packed(const int8_t *in, const nst_conv_layer *layer, int8_t *out, void *scratch, int32_t bytes, int32_t bits)
{
    const int32_t channels = layer->sums.channels, depth = layer->sums.depth;
    const int32_t at_once = layer->groups > 1 ? channels : nst_at_once(channels, depth, bytes, 6 * depth);
    nst_conv_layer part = *layer;
    if (at_once == channels) {
        void *work = unpack_all(&part, bits, scratch);
        nst_conv(in, &part, out, work);
        return;
    }
    for (int32_t first = 0; first < channels; first += at_once) {
        part.sums = nst_unpacked(&layer->sums, first, at_once, bits, scratch);
        convolve_pairs(in, part, out + first, (int32_t *)scratch + at_once / 4 * depth);
    }
}

void nst_conv_image_packed(const uint8_t *image, const nst_conv_image_layer *layer, int8_t *out, void *scratch, int32_t bits)
{
    nst_conv_image_layer whole = *layer;
    void *work = unpack_all(&whole.conv, bits, scratch);
    nst_conv_image(image, &whole, out, work);
}
