#include "nst_part.h"
#include "nst_products_mve.h"

/* Pixels pass through scratch, in the order of nst_conv_1x1. */
void nst_conv_1x1_mve(const int8_t *in, const nst_conv_1x1_mve_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const int32_t depth = layer->sums.depth, whole = nst_mve_whole(depth), channels = layer->out.channels;
    const int32_t first = p.rows.first * layer->out.width, end = p.rows.end * layer->out.width;
    const int32_t backwards = in == out && channels > depth;
    nst_mve_work work = nst_mve_ready(scratch, &layer->sums, p.channels, channels);
    int8_t *patches = scratch;
    out += p.channels.first;
    for (int32_t done = first; done < end; done += 2) {
        const int32_t n = end - done < 2 ? 1 : 2;
        const int32_t pixel = backwards ? first + end - done - n : done;
        const int8_t *x = in + pixel * depth;
        nst_mve_copy(patches, x, depth);
        if (n == 2)
            nst_mve_copy(patches + whole, x + depth, depth);
        nst_products_mve(&work, n, out + pixel * channels);
    }
}
