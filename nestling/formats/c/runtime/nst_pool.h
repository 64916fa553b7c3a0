/* Which places of a pool's window lie inside the map. */
#ifndef NST_POOL_H
#define NST_POOL_H

#include "nst_fixed.h"
#include "nst_kernels.h"
#include "nst_part.h"

/* Rows and columns from the first to before the last. */
typedef struct {
    int32_t top, bottom, left, right;
} nst_places;

NST_INLINE nst_places nst_inside(const nst_pool_layer *layer, int32_t row, int32_t column)
{
    const nst_window w = layer->window;
    nst_places p;
    p.top = row * w.stride.height - w.pad.height;
    p.left = column * w.stride.width - w.pad.width;
    p.bottom = p.top + w.size.height < layer->in.height ? p.top + w.size.height : layer->in.height;
    p.right = p.left + w.size.width < layer->in.width ? p.left + w.size.width : layer->in.width;
    p.top = p.top > 0 ? p.top : 0;
    p.left = p.left > 0 ? p.left : 0;
    return p;
}

#endif
