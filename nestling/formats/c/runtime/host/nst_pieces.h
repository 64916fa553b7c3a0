/* How what is no convolution is divided among threads. */
#ifndef NST_PIECES_H
#define NST_PIECES_H

#include "nst_kit.h"
#include "nst_part.h"

#include <string.h>

enum { NST_WORTH = 8192 }; /* bytes: what fewer take is over before a thread has begun */

typedef struct {
    const nst_kit *kit;
    const void *layer;
    const int8_t *a, *b;
    int8_t *out;
} nst_pieces;

/* Where NST_SOME columns begin: the last ones so early that there are as many, which computes some of them twice. */
NST_INLINE int32_t nst_begin(int32_t column, int32_t columns)
{
    return nst_smaller(column, columns - NST_SOME);
}

#endif
