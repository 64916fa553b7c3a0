/* What the parts of the learner (nestling_head_*.c) share, and nobody else includes: that is nestling_head.h. */
#ifndef NESTLING_HEAD_PARTS_H
#define NESTLING_HEAD_PARTS_H

#include "nestling_head.h"

static inline uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* memcpy, for there is no library. */
static inline void copy(void *to, const void *from, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
}

/* Whether memory, of whatever alignment, begins with a whole file of at most `bytes`; header: a copy of its header.
 * Of nestling_head_format.c: flash, too, has to know before it copies. */
nestling_head_state nestling_head_state_of(const uint8_t *memory, uint32_t bytes, nestling_head_header *header);

#endif
