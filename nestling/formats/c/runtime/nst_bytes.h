/* Filling, copying, looking up. */
#ifndef NST_BYTES_H
#define NST_BYTES_H

#include "nst_fixed.h"

/* Each returns where it stopped. */
NST_INLINE int8_t *nst_fill(int8_t *to, int32_t value, int32_t count)
{
    for (; count > 0; count--)
        *to++ = (int8_t)value;
    return to;
}

/* Four bytes are read before they are written, so that the compiler may move them as one word. */
NST_INLINE int8_t *nst_copy(int8_t *to, const int8_t *from, int32_t count)
{
    for (; count >= 4; count -= 4) {
        const int8_t a = from[0], b = from[1], c = from[2], d = from[3];
        to[0] = a, to[1] = b, to[2] = c, to[3] = d;
        to += 4, from += 4;
    }
    for (; count > 0; count--)
        *to++ = *from++;
    return to;
}

/* Pixels of an image through its table, int8 [channels][256]; colours side by side, which is what there mostly is. */
NST_INLINE int8_t *nst_look_up(int8_t *to, const int8_t *pixel, int32_t pixels, const int8_t *table, int32_t channels)
{
    const uint8_t *from = (const uint8_t *)pixel;
    if (channels == 3) {
        for (; pixels > 0; pixels--, to += 3, from += 3) {
            to[0] = table[from[0]];
            to[1] = table[256 + from[1]];
            to[2] = table[512 + from[2]];
        }
        return to;
    }
    for (; pixels > 0; pixels--)
        for (int32_t c = 0; c < channels; c++)
            *to++ = table[256 * c + *from++];
    return to;
}

/* Where the copy begins. */
NST_INLINE const int8_t *nst_copied(int8_t *to, const int8_t *from, int32_t count)
{
    nst_copy(to, from, count);
    return to;
}

#endif
