#include "nst_fixed.h"
#include "nst_products.h"

/* The nearest whole number, halves away from zero, added to zero and clamped. */
static int8_t rounded(double value, const nst_output *y)
{
    const double size = value < 0 ? -value : value;
    const int32_t whole = size < 1e6 ? (int32_t)(size + 0.5) : 1000000;
    return nst_clamped(y->zero + (value < 0 ? -whole : whole), y->low, y->high);
}

void nst_fully_connected(const int8_t *in, const nst_fully_connected_layer *layer, int8_t *out)
{
    const int32_t start = nst_weight_zero_term(in, layer->depth, layer->weight_zero);
    const int8_t *weights = layer->weights;
    for (int32_t first = 0; first < layer->channels; first += 4) {
        int32_t sums[4] = {start, start, start, start};
        nst_dot_1x4(in, weights, layer->depth, sums);
        weights += 4 * layer->depth;
        for (int32_t i = 0, o = first; i < 4 && o < layer->channels; i++, o++) {
            /* volatile: the product is rounded on its own, never fused with the addition that follows */
            volatile double product = (double)(sums[i] + layer->bias[o]) * layer->factor[layer->per_channel ? o : 0];
            *out++ = rounded(product, &layer->output);
        }
    }
}
