/* Depthwise convolutions of packed weights. */
#ifndef NST_DEPTHWISE_PACKED_H
#define NST_DEPTHWISE_PACKED_H

#include "nst_fixed.h"
#include "nst_packed.h"

typedef void nst_depthwise_kernel(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch);

/* kernel: known to the compiler, so that it is called directly. */
NST_INLINE void nst_depthwise_unpacked(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch, int32_t bits,
                                       nst_depthwise_kernel *kernel)
{
    const int32_t count = layer->out.channels * layer->sums.depth;
    nst_depthwise_layer whole = *layer;
    nst_unpack(layer->sums.weights, bits, count, scratch);
    whole.sums.weights = scratch;
    kernel(in, &whole, out, (int32_t *)scratch + (count + 3) / 4);
}

#endif
