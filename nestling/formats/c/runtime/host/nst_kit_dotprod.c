/* The kit of 64-bit Arm with SDOT: four products of signed bytes a number and step, exact in 32 bits. Numbers are inputs as they are. */
#include "nst_kit.h"

#if defined(__aarch64__)
#include "nst_neon.h"

#define NST_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
NST_PRAGMA(clang attribute push(__attribute__((target("dotprod"))), apply_to = function))
#else
NST_PRAGMA(GCC push_options)
NST_PRAGMA(GCC target("arch=armv8.2-a+dotprod"))
#endif

enum { TILE = 4 };

#if defined(__clang__) && __clang_major__ < 16 && !defined(__ARM_FEATURE_DOTPROD) /* whose header has it for whole files only */
#define DOT(sum, w, x, lane) __asm__("sdot %0.4s, %1.16b, %2.4b[" #lane "]" : "+w"(sum) : "w"(w), "w"(x))
#else
#define DOT(sum, w, x, lane) (sum) = vdotq_laneq_s32(sum, w, x, lane)
#endif

/* Four numbers of each pixel, the lane-th of its x. All four vectors of weights are one load. */
#define STEP(lane)                                                                                                                 \
    {                                                                                                                              \
        const int8x16x4_t some = nst_four_vectors(w + 64 * (lane));                                                                \
        NST_EACH (v, vectors)                                                                                                      \
            NST_EACH (i, n)                                                                                                        \
                DOT(s[i][v], some.val[v], x[i], lane);                                                                             \
    }

NST_ALWAYS void tile(const nst_tile *t, const int32_t n, const int32_t vectors)
{
    const int64_t step = t->step;
    const int8_t *w = t->weights;
    int32x4_t s[TILE][4];
    int8x16_t x[TILE];
    NST_EACH (i, n)
        NST_EACH (v, vectors)
            s[i][v] = vld1q_s32(t->bias + 4 * v);
    for (int32_t r = 0; r < t->run_count; r++) {
        const int8_t *from = (const int8_t *)t->runs[r] + t->at;
        for (int32_t k = t->fours / 4; k > 0; k--, w += 256, from += 16) {
            NST_EACH (i, n)
                x[i] = vld1q_s8(from + i * step);
            STEP(0)
            STEP(1)
            STEP(2)
            STEP(3)
        }
        for (int32_t k = t->fours % 4; k > 0; k--, w += 64, from += 4) {
            NST_EACH (i, n)
                x[i] = nst_four_times(from + i * step);
            STEP(0)
        }
    }
    nst_answers(s, n, vectors, &t->ends, t->out, t->channels, t->left);
}

static void products(const uint8_t *const *runs, int32_t step, int32_t pixels, const nst_host_sums *sums, int8_t *out)
{
    nst_tiles_of(tile, TILE, TILE, runs, step, pixels, sums, out);
}

/* Of 16 * n pixels. */
NST_ALWAYS void blocks_of(const uint8_t *x, const int32_t n, const nst_blocks *b, const nst_host_sums *sums, int32_t o, int8_t *out)
{
    int32x4_t s[4][4];
    NST_EACH (i, n)
        NST_EACH (v, 4)
            s[i][v] = vdupq_n_s32(sums->bias[o]);
    for (int32_t k = 0; k < b->count; k++) {
        const int8_t *from = (const int8_t *)x + b->places[k] * NST_BLOCK * 4;
        const int8x16_t w = nst_four_times(b->weights + 4 * k);
        NST_EACH (i, n) {
            const int8x16x4_t some = nst_four_vectors(from + 64 * i);
            NST_EACH (v, 4)
                DOT(s[i][v], some.val[v], w, 0);
        }
    }
    NST_EACH (i, n)
        nst_put_channel(s[i], sums, o, out + 16 * i);
}

static void blocks(const uint8_t *x, int32_t pixels, const nst_blocks *b, const nst_host_sums *sums, int32_t o, int8_t *out)
{
    if (pixels > 48)
        blocks_of(x, 4, b, sums, o, out);
    else if (pixels > 32)
        blocks_of(x, 3, b, sums, o, out);
    else if (pixels > 16)
        blocks_of(x, 2, b, sums, o, out);
    else
        blocks_of(x, 1, b, sums, o, out);
}

#if defined(__clang__)
NST_PRAGMA(clang attribute pop)
#else
NST_PRAGMA(GCC pop_options)
#endif

const nst_kit nst_kit_dotprod =
    {"dotprod", 1, 0, nst_as_they_are, products, nst_not_needed, nst_depthwise_neon, NST_LOOPS, nst_lookup_neon, blocks};
#endif
