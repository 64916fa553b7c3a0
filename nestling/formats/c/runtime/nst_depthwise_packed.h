/* Depthwise convolutions of packed weights. */
#ifndef NST_DEPTHWISE_PACKED_H
#define NST_DEPTHWISE_PACKED_H

#include "nst_fixed.h"
#include "nst_packed.h"
#include "nst_part.h"

typedef void nst_depthwise_kernel(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch,
                                  const nst_part *part);

/* Only the part's weights are unpacked, to where they lie among all of them, from a whole byte on.
 * kernel: known to the compiler, so that it is called directly. */
NST_INLINE void nst_depthwise_unpacked(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch,
                                       const nst_part *part, int32_t bits, nst_depthwise_kernel *kernel)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const int32_t depth = layer->sums.depth, count = layer->out.channels * depth;
    const int32_t first = p.channels.first * depth / 4 * 4, end = p.channels.end * depth;
    int8_t *weights = scratch;
    nst_depthwise_layer whole = *layer;
    nst_unpack(layer->sums.weights + first * bits / 8, bits, end - first, weights + first);
    whole.sums.weights = weights;
    kernel(in, &whole, out, (int32_t *)scratch + (count + 3) / 4, &p);
}

#endif
