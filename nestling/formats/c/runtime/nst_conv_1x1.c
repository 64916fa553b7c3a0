#include "nst_bytes.h"
#include "nst_products.h"

/* Pixels pass through scratch. Where out is in they go from the last to the first if they grow, so that an answer never lands on one
 * still to be read. */
void nst_conv_1x1(const int8_t *in, const nst_conv_1x1_layer *layer, int8_t *out, void *scratch)
{
    const int32_t depth = layer->sums.depth, channels = layer->sums.channels, pixels = layer->pixels;
    const int32_t in_place = in == out, backwards = in_place && channels > depth;
    for (int32_t done = 0; done < pixels; done += 2) {
        const int32_t n = pixels - done < 2 ? 1 : 2;
        const int32_t pixel = backwards ? pixels - done - n : done;
        const int8_t *x = in + pixel * depth;
        int8_t *y = out + pixel * channels;
        if (n == 2)
            nst_products_2(x, x + depth, &layer->sums, y, channels, scratch);
        else
            nst_products_1(in_place ? nst_copied(scratch, x, depth) : x, &layer->sums, y);
    }
}
