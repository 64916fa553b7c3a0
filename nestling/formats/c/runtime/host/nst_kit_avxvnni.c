/* The kit of x86 processors with VPDPBUSD in 256 bits: four products of unsigned by signed bytes a number and step, exact in 32 bits.
 * Numbers are inputs + 128. With NST_AVXVNNI_AS_AVX512VL it is compiled for the same instruction of AVX-512, which more computers have
 * to try it on. */
#include "nst_kit.h"

#if NST_AVXVNNI
#include "nst_x86.h"

#if defined(NST_AVXVNNI_AS_AVX512VL)
NST_FOR("avx2,fma,avx512f,avx512vl,avx512vnni")
#define nst_and_products _mm256_dpbusd_epi32
#else
NST_FOR("avx2,fma,avxvnni")
#define nst_and_products _mm256_dpbusd_avx_epi32
#endif

#include "nst_avx2.h"
#include "nst_loops.h"

enum { TILE = 6 }; /* pixels whose sums are kept in registers */

static void numbers(const int8_t *in, int32_t count, void *out)
{
    int8_t *y = out;
    int32_t i = 0;
    for (; i + 32 <= count; i += 32)
        _mm256_storeu_si256((__m256i *)(y + i), _mm256_xor_si256(load(in + i), _mm256_set1_epi8((char)0x80)));
    for (; i + 8 <= count; i += 8)
        _mm_storel_epi64((__m128i *)(y + i), _mm_xor_si128(_mm_loadl_epi64((const __m128i *)(in + i)), _mm_set1_epi8((char)0x80)));
    for (; i < count; i++)
        y[i] = (int8_t)(in[i] ^ 0x80);
}

/* ---- pixels by weights ------------------------------------------------------------------------------------------------------ */

/* A pixel's sums, of eight channels a vector. */
typedef struct {
    __m256i a, b;
} nst_eight_sums;

/* Four more of the depth. */
NST_FLAT nst_eight_sums more(nst_eight_sums s, const uint8_t *x, __m256i w0, __m256i w1, const int32_t vectors)
{
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    const __m256i some = _mm256_set1_epi32(four);
    s.a = nst_and_products(s.a, some, w0);
    s.b = vectors > 1 ? nst_and_products(s.b, some, w1) : s.a;
    return s;
}

NST_FLAT void put_two(nst_eight_sums s, nst_eight_sums t, const nst_put *p, const nst_ends *e, int8_t *y0, int8_t *y1)
{
    put_pixels(s.a, s.b, t.a, t.b, p, e, y0, y1);
}

typedef struct {
    const nst_host_sums *sums;
    nst_ends ends;
    const uint8_t *const *runs;
    int8_t *out;
    int64_t at, step;           /* bytes from a run's beginning; from pixel to pixel */
    int32_t fours, first, left; /* of a run; channel; channels from there */
} nst_tile;

/* Answers of n pixels and a group, or the first eight channels of it. */
NST_FLAT void tile(const nst_tile *t, const int32_t n, const int32_t vectors)
{
    const nst_host_sums *sums = t->sums;
    const int8_t *w = sums->weights + t->first * sums->runs * t->fours * 4;
    const int64_t step = t->step;
    const nst_eight_sums bias = {load(sums->bias_of_bytes + t->first), load(sums->bias_of_bytes + t->first + 8)};
    nst_eight_sums s0 = bias, s1 = bias, s2 = bias, s3 = bias, s4 = bias, s5 = bias;
    for (int32_t r = 0; r < sums->runs; r++) {
        const uint8_t *x = t->runs[r] + t->at, *x3 = n > 3 ? x + 3 * step : x;
        for (int32_t k = t->fours; k > 0; k--, x += 4, x3 += 4, w += 64) {
            const __m256i w0 = load(w), w1 = vectors > 1 ? load(w + 32) : w0;
            s0 = more(s0, x, w0, w1, vectors);
            if (n > 1)
                s1 = more(s1, x + step, w0, w1, vectors);
            if (n > 2)
                s2 = more(s2, x + 2 * step, w0, w1, vectors);
            if (n > 3)
                s3 = more(s3, x3, w0, w1, vectors);
            if (n > 4)
                s4 = more(s4, x3 + step, w0, w1, vectors);
            if (n > 5)
                s5 = more(s5, x3 + 2 * step, w0, w1, vectors);
        }
    }
    const nst_put p = put_of(sums, t->first, vectors, t->left);
    const int32_t channels = sums->channels;
    int8_t *y = t->out;
    put_two(s0, s1, &p, &t->ends, y, n > 1 ? y + channels : 0);
    if (n > 2)
        put_two(s2, s3, &p, &t->ends, y + 2 * channels, n > 3 ? y + 3 * channels : 0);
    if (n > 4)
        put_two(s4, s5, &p, &t->ends, y + 4 * channels, n > 5 ? y + 5 * channels : 0);
}

NST_FLAT void tiles(nst_tile *t, int32_t pixels, const int32_t vectors)
{
    for (; pixels >= TILE; pixels -= TILE) {
        tile(t, TILE, vectors);
        t->at += TILE * t->step;
        t->out += TILE * t->sums->channels;
    }
    switch (pixels) {
    case 5: tile(t, 5, vectors); break;
    case 4: tile(t, 4, vectors); break;
    case 3: tile(t, 3, vectors); break;
    case 2: tile(t, 2, vectors); break;
    case 1: tile(t, 1, vectors); break;
    default: break;
    }
}

static void products(const uint8_t *const *runs, int32_t step, int32_t pixels, const nst_host_sums *sums, int8_t *out)
{
    for (int32_t first = 0; first < sums->channels; first += NST_GROUP) {
        const int32_t left = nst_smaller(sums->channels - first, NST_GROUP);
        nst_tile t = {sums, ends_of(&sums->output), runs, out + first, 0, step, (sums->depth + 3) / 4, first, left};
        if (left > 8)
            tiles(&t, pixels, 2);
        else
            tiles(&t, pixels, 1);
    }
}

/* ---- depthwise -------------------------------------------------------------------------------------------------------------- */

NST_FLAT void eight(const int8_t *const *taps, __m128i y[2])
{
    const __m128i ab = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)taps[0]), _mm_loadl_epi64((const __m128i *)taps[1]));
    const __m128i cd = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)taps[2]), _mm_loadl_epi64((const __m128i *)taps[3]));
    y[0] = _mm_unpacklo_epi16(ab, cd);
    y[1] = _mm_unpackhi_epi16(ab, cd);
}

static void ready(const nst_host_sums *sums, void *given)
{
    ready_by(eight, 4, 64, 16, sums->bias_of_bytes, sums, given);
}

NST_FLAT __m256i block(const uint8_t *const *taps, int32_t at, const nst_host_sums *sums, const int8_t *ready, const nst_ends *e)
{
    const int32_t depth = sums->runs;
    __m256i s0 = load(ready), s1 = load(ready + 32), s2 = load(ready + 64), s3 = load(ready + 96);
    const int8_t *w = ready + ends_bytes(sums);
    for (int32_t t = 0; t < depth; t += 4, w += 128) {
        const int32_t last = depth - 1; /* whatever stands for a tap that there is not has weights of 0 */
        const __m256i a = load(taps[t] + at), b = load(taps[t + 1 < depth ? t + 1 : last] + at);
        const __m256i c = load(taps[t + 2 < depth ? t + 2 : last] + at), d = load(taps[t + 3 < depth ? t + 3 : last] + at);
        const __m256i ab = _mm256_unpacklo_epi8(a, b), cd = _mm256_unpacklo_epi8(c, d);
        const __m256i ab_high = _mm256_unpackhi_epi8(a, b), cd_high = _mm256_unpackhi_epi8(c, d);
        s0 = nst_and_products(s0, _mm256_unpacklo_epi16(ab, cd), load(w));
        s1 = nst_and_products(s1, _mm256_unpackhi_epi16(ab, cd), load(w + 32));
        s2 = nst_and_products(s2, _mm256_unpacklo_epi16(ab_high, cd_high), load(w + 64));
        s3 = nst_and_products(s3, _mm256_unpackhi_epi16(ab_high, cd_high), load(w + 96));
    }
    return block_of(s0, s1, s2, s3, sums, ready, e);
}

static void depthwise(const uint8_t *const *taps, const nst_host_sums *sums, const void *given, int32_t count, int8_t *out)
{
    depthwise_by(block, 4, taps, sums, given, count, out);
}

/* ---- blocks ----------------------------------------------------------------------------------------------------------------- */

static void blocks(const uint8_t *x, int32_t pixels, const nst_blocks *b, const nst_host_sums *sums, int32_t o, int8_t *out)
{
    for (int32_t first = 0; first < pixels; first += 32) {
        __m256i s0 = _mm256_set1_epi32(sums->bias_of_bytes[o]), s1 = s0, s2 = s0, s3 = s0;
        for (int32_t k = 0; k < b->count; k++) {
            const uint8_t *from = x + (b->places[k] * NST_BLOCK + first) * 4;
            int32_t four;
            __builtin_memcpy(&four, b->weights + 4 * k, 4);
            const __m256i some = _mm256_set1_epi32(four);
            s0 = nst_and_products(s0, load(from), some);
            s1 = nst_and_products(s1, load(from + 32), some);
            s2 = nst_and_products(s2, load(from + 64), some);
            s3 = nst_and_products(s3, load(from + 96), some);
        }
        put_channel(s0, s1, s2, s3, sums, o, out + first);
    }
}

const nst_kit nst_kit_avxvnni = {"avxvnni", 1, 128, numbers, products, ready, depthwise, NST_LOOPS, nst_loop_lookup, blocks};

NST_END_FOR
#endif
