#include "nst_bytes.h"
#include "nst_part.h"
#include "nst_products.h"

/* Pixels pass through scratch. Where out is in they go from the last to the first if they grow, so that an answer never lands on one
 * still to be read. */
void nst_conv_1x1(const int8_t *in, const nst_conv_1x1_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const nst_sums sums = nst_some_channels(&layer->sums, 0, p.channels);
    const int32_t depth = sums.depth, channels = layer->out.channels, width = layer->out.width;
    const int32_t first = p.rows.first * width, end = p.rows.end * width;
    const int32_t in_place = in == out, backwards = in_place && channels > depth;
    out += p.channels.first;
    for (int32_t done = first; done < end; done += 2) {
        const int32_t n = end - done < 2 ? 1 : 2;
        const int32_t pixel = backwards ? first + end - done - n : done;
        const int8_t *x = in + pixel * depth;
        int8_t *y = out + pixel * channels;
        if (n == 2)
            nst_products_2(x, x + depth, &sums, y, channels, scratch);
        else
            nst_products_1(in_place ? nst_copied(scratch, x, depth) : x, &sums, y);
    }
}
