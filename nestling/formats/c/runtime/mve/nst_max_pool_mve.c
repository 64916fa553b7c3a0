#include "nst_pools_mve.h"

enum { AT_ONCE = 16 };

#if NST_MVE

static void some(const int8_t *in, const nst_pool_layer *layer, const nst_places *w, int32_t count, int8_t *out)
{
    const mve_pred16_t lanes = vctp8q((uint32_t)count);
    int8x16_t largest = vdupq_n_s8((int8_t)layer->output.low);
    for (int32_t i = w->top; i < w->bottom; i++) {
        const int8_t *x = in + (i * layer->in.width + w->left) * layer->in.channels;
        for (int32_t j = w->left; j < w->right; j++, x += layer->in.channels)
            largest = vmaxq_m_s8(largest, largest, vldrbq_z_s8(x, lanes), lanes);
    }
    vstrbq_p_s8(out, vminq_s8(largest, vdupq_n_s8((int8_t)layer->output.high)), lanes);
}

#else

static void some(const int8_t *in, const nst_pool_layer *layer, const nst_places *w, int32_t count, int8_t *out)
{
    for (int32_t c = 0; c < count; c++) {
        int32_t largest = layer->output.low;
        for (int32_t i = w->top; i < w->bottom; i++)
            for (int32_t j = w->left; j < w->right; j++)
                largest = nst_larger(largest, in[(i * layer->in.width + j) * layer->in.channels + c]);
        out[c] = (int8_t)nst_smaller(largest, layer->output.high);
    }
}

#endif

void nst_max_pool_mve(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part)
{
    nst_pool_by(in, layer, out, part, AT_ONCE, some);
}
