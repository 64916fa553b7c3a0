#include "nst_depthwise_packed.h"

void nst_depthwise_3_packed(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                            int32_t bits)
{
    nst_depthwise_unpacked(in, layer, out, scratch, part, bits, nst_depthwise_3);
}
