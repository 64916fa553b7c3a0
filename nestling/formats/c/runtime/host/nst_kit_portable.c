/* The kit without instructions of a processor's own: plain C, for every computer. */
#include "nst_kit.h"
#include "nst_loops.h"
#include "nst_part.h"

#include <string.h>

static void numbers(const int8_t *in, int32_t count, void *out)
{
    memcpy(out, in, (size_t)count);
}

static int8_t answer(int32_t sum, const nst_host_sums *sums, int32_t o)
{
    const nst_output *y = &sums->output;
    return nst_clamped(nst_scaled(sum, sums->multiplier[o], sums->shift[o], y->zero), y->low, y->high);
}

static void products(const uint8_t *const *runs, int32_t step, int32_t pixels, const nst_host_sums *sums, int8_t *out)
{
    const int32_t fours = (sums->depth + 3) / 4, channels = sums->channels;
    for (int32_t first = 0; first < channels; first += NST_GROUP) {
        const int32_t end = nst_smaller(channels - first, NST_GROUP);
        for (int32_t pixel = 0; pixel < pixels; pixel++) {
            const int8_t *w = sums->weights + first * sums->runs * fours * 4;
            int32_t s[NST_GROUP];
            memcpy(s, sums->bias + first, sizeof s);
            for (int32_t r = 0; r < sums->runs; r++) {
                const int8_t *x = (const int8_t *)runs[r] + pixel * step;
                for (int32_t k = 0; k < fours; k++, x += 4, w += 4 * NST_GROUP)
                    for (int32_t o = 0; o < NST_GROUP; o++)
                        s[o] += x[0] * w[4 * o] + x[1] * w[4 * o + 1] + x[2] * w[4 * o + 2] + x[3] * w[4 * o + 3];
            }
            for (int32_t o = 0; o < end; o++)
                out[pixel * channels + first + o] = answer(s[o], sums, first + o);
        }
    }
}

static void ready(const nst_host_sums *sums, void *as_it_is)
{
    (void)sums;
    (void)as_it_is;
}

static void depthwise(const uint8_t *const *taps, const nst_host_sums *sums, const void *as_it_is, int32_t count, int8_t *out)
{
    enum { SOME = 32 };
    const int32_t channels = sums->channels;
    (void)as_it_is;
    for (int32_t pixel = 0; pixel < count; pixel += channels) {
        for (int32_t first = 0; first < channels; first += SOME) {
            const int32_t n = nst_smaller(channels - first, SOME);
            int32_t s[SOME];
            memcpy(s, sums->bias + first, (size_t)n * sizeof *s);
            for (int32_t t = 0; t < sums->runs; t++) {
                const int8_t *x = (const int8_t *)taps[t] + pixel + first, *w = sums->weights + t * channels + first;
                for (int32_t i = 0; i < n; i++)
                    s[i] += x[i] * w[i];
            }
            for (int32_t i = 0; i < n; i++)
                out[pixel + first + i] = answer(s[i], sums, first + i);
        }
    }
}

static void blocks(const uint8_t *x, int32_t pixels, const nst_blocks *b, const nst_host_sums *sums, int32_t o, int8_t *out)
{
    int32_t s[NST_BLOCK];
    for (int32_t i = 0; i < pixels; i++)
        s[i] = sums->bias[o];
    for (int32_t k = 0; k < b->count; k++) {
        const int8_t *from = (const int8_t *)x + b->places[k] * NST_BLOCK * 4, *w = b->weights + 4 * k;
        for (int32_t i = 0; i < pixels; i++, from += 4)
            s[i] += from[0] * w[0] + from[1] * w[1] + from[2] * w[2] + from[3] * w[3];
    }
    for (int32_t i = 0; i < pixels; i++)
        out[i] = answer(s[i], sums, o);
}

const nst_kit nst_kit_portable = {"portable", 1, 0, numbers, products, ready, depthwise, NST_LOOPS, nst_loop_lookup, blocks};
