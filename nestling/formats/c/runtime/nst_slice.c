#include "nst_bytes.h"
#include "nst_kernels.h"

void nst_slice(const int8_t *in, const nst_slice_layer *layer, int8_t *out)
{
    in += layer->first;
    for (int32_t row = 0; row < layer->rows; row++, in += layer->in_size)
        out = nst_copy(out, in, layer->size);
}
