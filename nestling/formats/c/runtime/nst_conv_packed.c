#include "nst_packed.h"
#include "nst_part.h"

/* Groups with all of their weights unpacked. */
static void convolve_groups(const int8_t *in, nst_conv_layer layer, int8_t *out, void *scratch, const nst_part *part, int32_t bits)
{
    const int32_t count = layer.groups * ((layer.sums.channels + 3) / 4 * 4) * layer.sums.depth;
    const int8_t *packed = layer.sums.weights;
    layer.sums.weights = scratch;
    nst_conv(in, &layer, out, nst_unpack(packed, bits, count, scratch), part);
}

void nst_conv_packed(const int8_t *in, const nst_conv_layer *layer, int8_t *out, void *scratch, const nst_part *part, int32_t bytes,
                     int32_t bits)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const int32_t depth = layer->sums.depth, at_once = nst_at_once(layer->sums.channels, depth, bytes, 6 * depth);
    int32_t *work = (int32_t *)scratch + (at_once + 3) / 4 * depth;
    nst_conv_layer unpacked = *layer;
    if (layer->groups > 1) {
        convolve_groups(in, *layer, out, scratch, part, bits);
        return;
    }
    for (int32_t first = p.channels.first; first < p.channels.end; first += at_once) {
        const nst_range some = {first, nst_smaller(first + at_once, p.channels.end)};
        unpacked.sums = nst_unpacked(&layer->sums, some, bits, scratch);
        const nst_part own = {p.rows, {0, unpacked.sums.channels}};
        nst_conv(in, &unpacked, out + first, work, &own);
    }
}

void nst_conv_image_packed(const uint8_t *image, const nst_conv_image_layer *layer, int8_t *out, void *scratch,
                           const nst_part *part, int32_t bits)
{
    const nst_part p = nst_part_of(part, &layer->conv.out);
    const nst_sums *sums = &layer->conv.sums;
    nst_conv_image_layer unpacked = *layer;
    unpacked.conv.sums = nst_unpacked(sums, p.channels, bits, scratch);
    const nst_part own = {p.rows, {0, unpacked.conv.sums.channels}};
    nst_conv_image(image, &unpacked, out + p.channels.first, (int32_t *)scratch + (sums->channels + 3) / 4 * sums->depth, &own);
}
