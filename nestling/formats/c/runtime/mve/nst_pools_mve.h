/* What pools share: sums, or largest bytes, of eight or sixteen channels over a window. */
#ifndef NST_POOLS_MVE_H
#define NST_POOLS_MVE_H

#include "nst_pool.h"
#include "nst_products_mve.h"

#if NST_MVE
#include <arm_mve.h>
#endif

/* Some channels of one answer, `count` of at most as many as are taken at once. in: the map from the first of them on. */
typedef void nst_pool_channels(const int8_t *in, const nst_pool_layer *layer, const nst_places *places, int32_t count, int8_t *out);

NST_INLINE void nst_pool_by(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part, int32_t at_once,
                            nst_pool_channels *some)
{
    const nst_part p = nst_part_of(part, &layer->out);
    for (int32_t row = p.rows.first; row < p.rows.end; row++) {
        for (int32_t column = 0; column < layer->out.width; column++) {
            const nst_places places = nst_inside(layer, row, column);
            int8_t *to = out + (row * layer->out.width + column) * layer->out.channels;
            for (int32_t c = p.channels.first; c < p.channels.end; c += at_once)
                some(in + c, layer, &places, nst_smaller(p.channels.end - c, at_once), to + c);
        }
    }
}

#endif
