#include "nst_part.h"
#include "nst_products_dsp.h"

/* Some groups of all pixels of the rows, in pairs; an odd last one is both of a pair. Where out is in they go from the last to the
 * first if they grow: both pixels are in columns before an answer is written. */
static void convolve(const int8_t *in, const nst_conv_1x1_dsp_layer *layer, int8_t *out, int32_t *columns, const nst_part *part,
                     const nst_groups_dsp *some)
{
    const int32_t depth = layer->sums.depth, channels = layer->out.channels, width = layer->out.width;
    const int32_t first = part->rows.first * width, end = part->rows.end * width;
    const int32_t backwards = in == out && channels > depth;
    for (int32_t done = first; done < end; done += 2) {
        const int32_t n = end - done < 2 ? 1 : 2;
        const int32_t pixel = backwards ? first + end - done - n : done, other = pixel + n - 1;
        nst_columns_2(in + pixel * depth, in + other * depth, depth, columns);
        nst_answers_2(some, columns, out + pixel * channels, out + other * channels);
    }
}

void nst_conv_1x1_dsp(const int8_t *in, const nst_conv_1x1_dsp_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                      int32_t bytes)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const nst_sums_dsp *sums = &layer->sums;
    const nst_range all = nst_groups_of(sums, p.channels);
    const int32_t at_once = nst_at_once_dsp(sums, all, bytes - 8 * sums->steps);
    int32_t *columns = scratch;
    for (int32_t first = all.first; first < all.end; first += at_once) {
        const nst_range groups = {first, nst_smaller(first + at_once, all.end)};
        const nst_groups_dsp some = nst_ready_groups(sums, p.channels, groups, columns + 2 * sums->steps);
        convolve(in, layer, out, columns, &p, &some);
    }
}
