#include "nst_rv32.h"

/* The factors are held: the compiler cannot know that an answer does not lie over them. */
void nst_add_rv32(const int8_t *a, const int8_t *b, const nst_add_rv32_layer *layer, int8_t *out)
{
    const nst_add_rv32_layer l = *layer;
    const int32_t distance = l.high - l.low;
#define ADDED(i)                                                                                                                   \
    do {                                                                                                                           \
        int32_t value = (a[i] * l.a_factor + b[i] * l.b_factor + l.addend) >> l.shift;                                             \
        if ((uint32_t)value > (uint32_t)distance)                                                                                  \
            value = distance & ~(value >> 31);                                                                                     \
        out[i] = (int8_t)(value + l.low);                                                                                          \
    } while (0)
    int32_t left = l.count;
    for (; left >= 4; left -= 4, a += 4, b += 4, out += 4) {
        ADDED(0);
        ADDED(1);
        ADDED(2);
        ADDED(3);
    }
    for (; left > 0; left--, a++, b++, out++)
        ADDED(0);
}
