#include "nst_bytes.h"
#include "nst_part.h"
#include "nst_rv32.h"

/* Pixels pass through scratch. Where out is in they go from the last to the first if they grow, so that an answer never lands on one
 * still to be read. */
void nst_conv_1x1_rv32(const int8_t *in, const nst_conv_1x1_rv32_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const int32_t depth = layer->sums.depth, channels = layer->out.channels, width = layer->out.width;
    const int32_t first = p.rows.first * width, end = p.rows.end * width;
    const int32_t backwards = in == out && channels > depth;
    const int8_t *weights = nst_rv32_weights(&layer->sums, p.channels.first);
    out += p.channels.first;
    for (int32_t done = first; done < end; done += 4) {
        const int32_t n = nst_smaller(end - done, 4);
        const int32_t pixel = backwards ? first + end - done - n : done;
        const int8_t *x = in + pixel * depth;
        int8_t *y = out + pixel * channels;
        if (n == 1) {
            nst_products_1_rv32(nst_copied(scratch, x, depth), &layer->sums, weights, p.channels, y);
        } else {
            nst_rv32_pack(scratch, x, x + depth, n > 2 ? x + 2 * depth : x, n > 3 ? x + 3 * depth : x, depth);
            nst_products_4_rv32(scratch, &layer->sums, weights, p.channels, y, channels, n);
        }
    }
}
