#include "nst_depthwise.h"

void nst_depthwise_5(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch)
{
    nst_depthwise_of(in, layer, out, scratch, 5);
}
