/* Parts of a layer. */
#ifndef NST_PART_H
#define NST_PART_H

#include "nst_fixed.h"
#include "nst_kernels.h"

NST_INLINE int32_t nst_smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

NST_INLINE int32_t nst_larger(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

/* The part, or all of an answer of this shape. */
NST_INLINE nst_part nst_part_of(const nst_part *part, const nst_shape *answer)
{
    const nst_part all = {{0, answer->height}, {0, answer->channels}};
    return part ? *part : all;
}

#endif
