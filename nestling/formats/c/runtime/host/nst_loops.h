/* Loops over bytes that lie side by side, for kits. They are plain C, and whoever includes this compiles them for its instructions:
 * NST_SOME bytes pass through arrays of a known length that nothing else lies over, which is what compilers make vectors of. */
#ifndef NST_LOOPS_H
#define NST_LOOPS_H

#include "nst_kit.h"
#include "nst_part.h"

#include <string.h>

/* NST_SOME answers. a and b may lie under out. */
typedef void nst_some(const int8_t *a, const int8_t *b, const void *layer, int8_t *out);

NST_INLINE void nst_some_at_a_time(const int8_t *a, const int8_t *b, int32_t count, const void *layer, int8_t *out, nst_some *some)
{
    int32_t i = 0;
    for (; i + NST_SOME <= count; i += NST_SOME)
        some(a + i, b + i, layer, out + i);
    if (i < count) {
        int8_t rest[3][NST_SOME] = {{0}};
        memcpy(rest[0], a + i, (size_t)(count - i));
        memcpy(rest[1], b + i, (size_t)(count - i));
        some(rest[0], rest[1], layer, rest[2]);
        memcpy(out + i, rest[2], (size_t)(count - i));
    }
}

NST_INLINE void nst_added(const int8_t *a, const int8_t *b, const void *layer, int8_t *out)
{
    const nst_add_host_layer *l = layer;
    const int32_t fa = l->a_factor, fb = l->b_factor, addend = l->addend, shift = l->shift, low = l->low, high = l->high;
    int8_t p[NST_SOME], q[NST_SOME], y[NST_SOME];
    int32_t values[NST_SOME];
    memcpy(p, a, NST_SOME);
    memcpy(q, b, NST_SOME);
    for (int32_t i = 0; i < NST_SOME; i++)
        values[i] = ((p[i] * fa + q[i] * fb + addend) >> shift) + low;
    for (int32_t k = 0; k < l->odd_ones; k++) {
        const int32_t odd_a = l->odd_a[k], odd_b = l->odd_b[k], more = l->odd_more[k];
        for (int32_t i = 0; i < NST_SOME; i++)
            values[i] += ((p[i] == odd_a) & (q[i] == odd_b)) * more;
    }
    for (int32_t i = 0; i < NST_SOME; i++)
        y[i] = (int8_t)nst_smaller(nst_larger(values[i], low), high);
    memcpy(out, y, NST_SOME);
}

/* Added to so large a number, a float has no places behind the point: it is rounded, to even, and its last bits are the whole number. */
enum { NST_LARGE = 3 << 22, NST_LARGE_BITS = 0x4b400000 };

NST_INLINE void nst_multiplied(const int8_t *a, const int8_t *b, const void *layer, int8_t *out)
{
    const nst_mul_host_layer l = *(const nst_mul_host_layer *)layer;
    const int32_t half = 1 << (l.right - 1);
    int8_t p[NST_SOME], q[NST_SOME], y[NST_SOME];
    float products[NST_SOME];
    int32_t values[NST_SOME];
    memcpy(p, a, NST_SOME);
    memcpy(q, b, NST_SOME);
    for (int32_t i = 0; i < NST_SOME; i++)
        products[i] = (float)((p[i] - l.a_zero) * (q[i] - l.b_zero)) * l.factor + NST_LARGE;
    memcpy(values, products, sizeof values);
    for (int32_t i = 0; i < NST_SOME; i++) {
        const int32_t wide = values[i] - NST_LARGE_BITS, value = ((wide + (wide >> 31) + half) >> l.right) + l.output.zero;
        y[i] = (int8_t)nst_smaller(nst_larger(value, l.output.low), l.output.high);
    }
    memcpy(out, y, NST_SOME);
}

static void nst_loop_add(const int8_t *a, const int8_t *b, int32_t count, const nst_add_host_layer *layer, int8_t *out)
{
    nst_some_at_a_time(a, b, count, layer, out, nst_added);
}

static void nst_loop_mul(const int8_t *a, const int8_t *b, int32_t count, const nst_mul_host_layer *layer, int8_t *out)
{
    nst_some_at_a_time(a, b, count, layer, out, nst_multiplied);
}

static void nst_loop_sums(const int8_t *x, int32_t step, int32_t places, int32_t *sums)
{
    enum { MOST = 255 }; /* bytes whose sum has room in 16 bits */
    for (int32_t n; places > 0; places -= n) {
        int16_t few[NST_SOME] = {0};
        n = nst_smaller(places, MOST);
        for (int32_t place = 0; place < n; place++, x += step)
            for (int32_t i = 0; i < NST_SOME; i++)
                few[i] = (int16_t)(few[i] + x[i]);
        for (int32_t i = 0; i < NST_SOME; i++)
            sums[i] += few[i];
    }
}

static void nst_loop_largest(const int8_t *x, int32_t step, int32_t places, int8_t *largest)
{
    int8_t y[NST_SOME];
    memcpy(y, largest, NST_SOME);
    for (; places > 0; places--, x += step)
        for (int32_t i = 0; i < NST_SOME; i++)
            y[i] = x[i] > y[i] ? x[i] : y[i];
    memcpy(largest, y, NST_SOME);
}

NST_INLINE void nst_loop_lookup(const int8_t *in, int32_t count, const int8_t *table, int8_t *out)
{
    for (; count > 0; count--)
        *out++ = table[*in++ + 128];
}

/* The members of nst_kit that these are, but the lookup. */
#define NST_LOOPS nst_loop_add, nst_loop_mul, nst_loop_sums, nst_loop_largest

#endif
