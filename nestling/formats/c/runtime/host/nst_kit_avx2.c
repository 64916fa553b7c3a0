/* The kit of x86 processors with AVX2: two products of 16 bits a number and step (VPMADDWD), exact in 32 bits whatever the bytes.
 * Numbers are int16. */
#include "nst_kit.h"

#if defined(__x86_64__)
#include "nst_x86.h"

NST_FOR("avx2,fma")

#include "nst_avx2.h"
#include "nst_loops.h"

/* Pixels whose sums are kept in registers; fours of the depth whose weights are widened at once, for many pixels: 8 KiB. */
enum { TILE = 3, FOURS = 64 };

static void numbers(const int8_t *in, int32_t count, void *out)
{
    int16_t *y = out;
    int32_t i = 0;
    for (; i + 16 <= count; i += 16)
        _mm256_storeu_si256((__m256i *)(y + i), _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(in + i))));
    for (; i + 8 <= count; i += 8)
        _mm_storeu_si128((__m128i *)(y + i), _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)(in + i))));
    for (; i < count; i++)
        y[i] = in[i];
}

/* ---- pixels by weights ------------------------------------------------------------------------------------------------------ */

/* Sums of a pixel, of four channels a vector, each in two halves side by side. */
typedef struct {
    __m256i a, b, c, d;
} nst_four_sums;

/* sum + x * w, in pairs. In so many words because the weights are to come from memory for every pixel: compilers would rather keep them
 * in registers, and the sums in memory. */
NST_FLAT __m256i and_products(__m256i sum, __m256i x, const int16_t *w)
{
    __m256i both;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(both) : "x"(x), "m"(*(const __m256i *)(const void *)w));
    return sum;
}

/* Four more of the depth. */
NST_FLAT nst_four_sums more(nst_four_sums s, const uint8_t *x, const int16_t *w, const int32_t vectors)
{
    int64_t four;
    __builtin_memcpy(&four, x, 8);
    const __m256i some = _mm256_set1_epi64x(four);
    s.a = and_products(s.a, some, w);
    s.b = and_products(s.b, some, w + 16);
    if (vectors > 2) {
        s.c = and_products(s.c, some, w + 32);
        s.d = and_products(s.d, some, w + 48);
    }
    return s;
}

/* Some runs from their at-th byte on, `fours` of each. */
typedef struct {
    const uint8_t *const *runs;
    int64_t at, step;
    int32_t count, fours;
} nst_piece;

/* The same of n pixels. */
NST_FLAT void tile(const nst_piece *p, int64_t at, const int16_t *w, const int32_t n, const int32_t vectors, nst_four_sums *sums)
{
    const int64_t step = p->step;
    nst_four_sums s0 = sums[0], s1 = sums[n > 1 ? 1 : 0], s2 = sums[n > 2 ? 2 : 0];
    for (int32_t r = 0; r < p->count; r++) {
        const uint8_t *x = p->runs[r] + at;
        for (int32_t k = p->fours; k > 0; k--, x += 8, w += 16 * vectors) {
            s0 = more(s0, x, w, vectors);
            if (n > 1)
                s1 = more(s1, x + step, w, vectors);
            if (n > 2)
                s2 = more(s2, x + 2 * step, w, vectors);
        }
    }
    sums[0] = s0;
    if (n > 1)
        sums[1] = s1;
    if (n > 2)
        sums[2] = s2;
}

NST_FLAT void tiles(const nst_piece *p, const int16_t *w, int32_t pixels, const int32_t vectors, nst_four_sums *sums)
{
    int64_t at = p->at;
    for (; pixels >= TILE; pixels -= TILE, at += TILE * p->step, sums += TILE)
        tile(p, at, w, TILE, vectors, sums);
    if (pixels == 2)
        tile(p, at, w, 2, vectors, sums);
    else if (pixels == 1)
        tile(p, at, w, 1, vectors, sums);
}

NST_FLAT __m256i joined(__m256i a, __m256i b)
{
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), 0xD8);
}

/* Adds all of a group's products to the sums of some pixels, the first of which is `at` bytes from the runs' beginnings. */
NST_FLAT void add_products(const uint8_t *const *runs, int64_t at, int32_t step, int32_t pixels, const nst_host_sums *sums,
                           int32_t first, const int32_t vectors, nst_four_sums *kept)
{
    const int32_t all = (sums->depth + 3) / 4,
                  together = all < FOURS ? FOURS / all : 1; /* runs whose weights are widened at once */
    const int8_t *from = sums->weights + first * sums->runs * all * 4;
    __m256i w[4 * FOURS];
    for (int32_t r = 0; r < sums->runs; r += together) {
        for (int32_t done = 0; done < all; done += FOURS) {
            const int32_t count = nst_smaller(together, sums->runs - r), fours = nst_smaller(all - done, FOURS);
            const nst_piece piece = {runs + r, at + 8 * done, step, count, fours};
            for (int32_t k = 0, i = 0; k < count * fours; k++, from += 64)
                for (int32_t v = 0; v < vectors; v++, i++)
                    w[i] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(from + 16 * v)));
            tiles(&piece, (const int16_t *)w, pixels, vectors, kept);
        }
    }
}

static void products(const uint8_t *const *runs, int32_t step, int32_t pixels, const nst_host_sums *sums, int8_t *out)
{
    const nst_ends e = ends_of(&sums->output);
    const int32_t channels = sums->channels;
    nst_four_sums kept[NST_ROWS];
    for (int32_t pixel = 0; pixel < pixels; pixel += NST_ROWS) {
        const int32_t n = nst_smaller(pixels - pixel, NST_ROWS);
        const int64_t at = (int64_t)pixel * step;
        for (int32_t first = 0; first < channels; first += NST_GROUP) {
            const int32_t left = nst_smaller(channels - first, NST_GROUP);
            const __m128i *bias = (const __m128i *)(sums->bias + first);
            const nst_four_sums begin = {_mm256_cvtepu32_epi64(_mm_loadu_si128(bias)),
                                         _mm256_cvtepu32_epi64(_mm_loadu_si128(bias + 1)),
                                         _mm256_cvtepu32_epi64(_mm_loadu_si128(bias + 2)),
                                         _mm256_cvtepu32_epi64(_mm_loadu_si128(bias + 3))};
            for (int32_t i = 0; i < n; i++)
                kept[i] = begin;
            if (left > 8)
                add_products(runs, at, step, n, sums, first, 4, kept);
            else
                add_products(runs, at, step, n, sums, first, 2, kept);
            const nst_put p = put_of(sums, first, 2, left);
            for (int32_t i = 0; i < n; i += 2) {
                const nst_four_sums *s = kept + i, *t = i + 1 < n ? s + 1 : s;
                int8_t *y = out + (pixel + i) * channels + first;
                put_pixels(joined(s->a, s->b), joined(s->c, s->d), joined(t->a, t->b), joined(t->c, t->d), &p, &e, y,
                           t > s ? y + channels : 0);
            }
        }
    }
}

/* ---- depthwise -------------------------------------------------------------------------------------------------------------- */

NST_FLAT void eight(const int8_t *const *taps, __m128i y[2])
{
    const __m128i a = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)taps[0]));
    const __m128i b = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)taps[1]));
    y[0] = _mm_unpacklo_epi16(a, b);
    y[1] = _mm_unpackhi_epi16(a, b);
}

static void ready(const nst_host_sums *sums, void *given)
{
    ready_by(eight, 2, 16, 64, sums->bias, sums, given);
}

NST_FLAT __m256i block(const uint8_t *const *taps, int32_t at, const nst_host_sums *sums, const int8_t *ready, const nst_ends *e)
{
    const int32_t depth = sums->runs;
    __m256i s0 = load(ready), s1 = load(ready + 32), s2 = load(ready + 64), s3 = load(ready + 96);
    const int8_t *w = ready + ends_bytes(sums);
    for (int32_t t = 0; t < depth; t += 2, w += 128) {
        const int16_t *x = (const int16_t *)(const void *)taps[t] + at;
        const int16_t *next = (const int16_t *)(const void *)taps[t + 1 < depth ? t + 1 : t] + at; /* none: its weights are 0 */
        const __m256i a = load(x), b = load(next), c = load(x + 16), d = load(next + 16);
        s0 = _mm256_add_epi32(s0, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), load(w)));
        s1 = _mm256_add_epi32(s1, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), load(w + 32)));
        s2 = _mm256_add_epi32(s2, _mm256_madd_epi16(_mm256_unpacklo_epi16(c, d), load(w + 64)));
        s3 = _mm256_add_epi32(s3, _mm256_madd_epi16(_mm256_unpackhi_epi16(c, d), load(w + 96)));
    }
    return _mm256_permute4x64_epi64(block_of(s0, s1, s2, s3, sums, ready, e), 0xD8);
}

static void depthwise(const uint8_t *const *taps, const nst_host_sums *sums, const void *given, int32_t count, int8_t *out)
{
    depthwise_by(block, 2, taps, sums, given, count, out);
}

/* ---- blocks ----------------------------------------------------------------------------------------------------------------- */

/* Of 32 pixels, or 16; each vector four of them in two halves. */
NST_FLAT void blocks_of(const uint8_t *x, const int32_t pixels, const nst_blocks *b, const nst_host_sums *sums, int32_t o,
                        int8_t *out)
{
    const __m256i bias = _mm256_set1_epi64x((uint32_t)sums->bias[o]);
    __m256i s0 = bias, s1 = bias, s2 = bias, s3 = bias, s4 = bias, s5 = bias, s6 = bias, s7 = bias;
    for (int32_t k = 0; k < b->count; k++) {
        const int16_t *from = (const int16_t *)(const void *)(x + b->places[k] * NST_BLOCK * 8);
        int32_t four;
        __builtin_memcpy(&four, b->weights + 4 * k, 4);
        const __m256i some = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four)));
        s0 = and_products(s0, some, from);
        s1 = and_products(s1, some, from + 16);
        s2 = and_products(s2, some, from + 32);
        s3 = and_products(s3, some, from + 48);
        if (pixels > 16) {
            s4 = and_products(s4, some, from + 64);
            s5 = and_products(s5, some, from + 80);
            s6 = and_products(s6, some, from + 96);
            s7 = and_products(s7, some, from + 112);
        }
    }
    const __m256i a = joined(s0, s1), c = joined(s2, s3);
    put_channel(a, c, pixels > 16 ? joined(s4, s5) : a, pixels > 16 ? joined(s6, s7) : c, sums, o, out);
}

static void blocks(const uint8_t *x, int32_t pixels, const nst_blocks *b, const nst_host_sums *sums, int32_t o, int8_t *out)
{
    for (int32_t first = 0; first < pixels; first += 32) {
        if (pixels - first > 16)
            blocks_of(x + first * 8, 32, b, sums, o, out + first);
        else
            blocks_of(x + first * 8, 16, b, sums, o, out + first);
    }
}

const nst_kit nst_kit_avx2 = {"avx2", 2, 0, numbers, products, ready, depthwise, NST_LOOPS, nst_loop_lookup, blocks};

NST_END_FOR
#endif
