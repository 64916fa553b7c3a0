#include "nst_packed.h"
#include "nst_products.h"

void nst_conv_1x1_packed(const int8_t *in, const nst_conv_1x1_layer *layer, int8_t *out, void *scratch, int32_t bytes, int32_t bits)
{
    const int32_t depth = layer->sums.depth, channels = layer->sums.channels, pixels = layer->pixels;
    const int32_t at_once = nst_at_once(channels, depth, bytes, 4 * depth);
    int32_t *work = (int32_t *)scratch + (at_once + 3) / 4 * depth;
    for (int32_t first = 0; first < channels; first += at_once) {
        const nst_conv_1x1_layer part = {pixels, nst_unpacked(&layer->sums, first, at_once, bits, scratch)};
        if (at_once == channels) {
            nst_conv_1x1(in, &part, out, work);
            return;
        }
        const int8_t *x = in;
        int8_t *y = out + first;
        int32_t left = pixels;
        for (; left >= 2; left -= 2, x += 2 * depth, y += 2 * channels)
            nst_products_2(x, x + depth, &part.sums, y, channels, work);
        if (left)
            nst_products_1(x, &part.sums, y);
    }
}
