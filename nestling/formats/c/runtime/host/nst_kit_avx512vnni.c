/* The kit of x86 processors with VPDPBUSD in 512 bits: four products of unsigned by signed bytes a number and step, exact in 32 bits.
 * Numbers are inputs + 128. */
#include "nst_kit.h"

#if defined(__x86_64__)
#include "nst_x86.h"

NST_FOR("avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi")

#include "nst_loops.h"

enum { TILE = 8 }; /* pixels whose sums are kept in registers */

static void numbers(const int8_t *in, int32_t count, void *out)
{
    const __m512i from = _mm512_set1_epi8((char)0x80);
    int8_t *y = out;
    int32_t i = 0;
    for (; i + 64 <= count; i += 64)
        _mm512_storeu_si512(y + i, _mm512_xor_si512(_mm512_loadu_si512(in + i), from));
    if (i < count) {
        const __mmask64 rest = ~(uint64_t)0 >> (64 - (count - i));
        _mm512_mask_storeu_epi8(y + i, rest, _mm512_xor_si512(_mm512_maskz_loadu_epi8(rest, in + i), from));
    }
}

/* ---- sums to answers -------------------------------------------------------------------------------------------------------- */

typedef struct {
    __m512i zero, low, high;
} nst_ends;

static inline nst_ends ends_of(const nst_output *y)
{
    const nst_ends e = {_mm512_set1_epi16((int16_t)y->zero), _mm512_set1_epi8((char)y->low), _mm512_set1_epi8((char)y->high)};
    return e;
}

/* Sixteen sums to whole numbers, zero not yet added. ends: where their channels' factors, addends and odd sums lie, `step` apart. */
static inline __attribute__((always_inline)) __m512i nearest(__m512i sum, const int32_t *ends, int64_t step, int32_t odd_ones)
{
    /* the sum's sign, the addend's other bits */
    const __m512i addend = _mm512_ternarylogic_epi32(sum, _mm512_loadu_si512(ends + step), _mm512_set1_epi32(INT32_MIN), 0xE4);
    const __m512 value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(ends), _mm512_castsi512_ps(addend));
    __m512i y = _mm512_cvtps_epi32(value);
    for (int32_t i = 0; i < odd_ones; i++) {
        const __mmask16 odd = _mm512_cmpeq_epi32_mask(sum, _mm512_loadu_si512(ends + (2 + i) * step));
        y = _mm512_mask_add_epi32(y, odd, y, _mm512_or_si512(_mm512_srai_epi32(sum, 31), _mm512_set1_epi32(1)));
    }
    return y;
}

/* Four vectors of answers as bytes: of each 128 bits first a's four, then b's, c's and d's. */
static inline __m512i bytes(__m512i a, __m512i b, __m512i c, __m512i d, const nst_ends *e)
{
    const __m512i ab = _mm512_adds_epi16(_mm512_packs_epi32(a, b), e->zero);
    const __m512i cd = _mm512_adds_epi16(_mm512_packs_epi32(c, d), e->zero);
    const __m512i all = _mm512_packs_epi16(ab, cd);
    return _mm512_min_epi8(_mm512_max_epi8(all, e->low), e->high);
}

/* ---- pixels by weights ------------------------------------------------------------------------------------------------------ */

typedef struct {
    const nst_host_sums *sums;
    nst_ends ends;
    const uint8_t *const *runs;
    int8_t *out;
    int32_t step, fours, first; /* pixels' bytes apart; of a run; channel */
    int64_t at;                 /* bytes from a run's beginning */
} nst_tile;

/* Answers of n pixels and 32 channels, or 16; the last of them may be fewer: `left`. */
static inline __attribute__((always_inline)) void tile(const nst_tile *t, const int32_t n, const int32_t vectors, int32_t left)
{
    const int32_t all = t->sums->runs * t->fours;
    const int8_t *w = t->sums->weights + t->first * all * 4;
    const int32_t *bias = t->sums->bias_of_bytes + t->first;
    const int64_t apart = (int64_t)all * 64, step = t->step, out_step = t->sums->channels;
    __m512i s[TILE][2];
    NST_EACH (i, n) {
        s[i][0] = _mm512_loadu_si512(bias);
        s[i][1] = vectors > 1 ? _mm512_loadu_si512(bias + 16) : s[i][0];
    }
    for (int32_t r = 0; r < t->sums->runs; r++) {
        const uint8_t *x = t->runs[r] + t->at, *x3 = x + 3 * (n > 3 ? step : 0), *x6 = x + 6 * (n > 6 ? step : 0);
        for (int32_t k = t->fours; k > 0; k--) {
            const __m512i w0 = _mm512_loadu_si512(w), w1 = vectors > 1 ? _mm512_loadu_si512(w + apart) : w0;
            NST_EACH (i, n) {
                const uint8_t *pixel = i < 3 ? x + i * step : i < 6 ? x3 + (i - 3) * step : x6 + (i - 6) * step;
                int32_t four;
                __builtin_memcpy(&four, pixel, 4);
                const __m512i some = _mm512_set1_epi32(four);
                s[i][0] = _mm512_dpbusd_epi32(s[i][0], some, w0);
                if (vectors > 1)
                    s[i][1] = _mm512_dpbusd_epi32(s[i][1], some, w1);
            }
            w += 64;
            x += 4;
            x3 += 4;
            x6 += 4;
        }
    }
    const int32_t *ends = t->sums->ends + t->first;
    const int32_t odd_ones = t->sums->odd_ones;
    const int64_t channels = (t->sums->channels + NST_GROUP - 1) / NST_GROUP * NST_GROUP;
    const __mmask32 some = (__mmask32)(~(uint32_t)0 >> (32 - left));
    /* of each 128 bits of two rows' bytes: four of the first row, four of its channels 16 on, then the second row's */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
#pragma GCC unroll 4
    for (int32_t i = 0; i < n; i += 2) {
        const int32_t j = i + 1 < n ? i + 1 : i;
        const __m512i a = nearest(s[i][0], ends, channels, odd_ones), c = nearest(s[j][0], ends, channels, odd_ones);
        const __m512i b = vectors > 1 ? nearest(s[i][1], ends + 16, channels, odd_ones) : a;
        const __m512i d = vectors > 1 ? nearest(s[j][1], ends + 16, channels, odd_ones) : c;
        const __m512i both = _mm512_permutexvar_epi32(order, bytes(a, b, c, d, &t->ends));
        int8_t *out = t->out + i * out_step;
        if (left == 32) {
            _mm256_storeu_si256((__m256i *)out, _mm512_castsi512_si256(both));
            if (i + 1 < n)
                _mm256_storeu_si256((__m256i *)(out + out_step), _mm512_extracti64x4_epi64(both, 1));
        } else {
            _mm256_mask_storeu_epi8(out, some, _mm512_castsi512_si256(both));
            if (i + 1 < n)
                _mm256_mask_storeu_epi8(out + out_step, some, _mm512_extracti64x4_epi64(both, 1));
        }
    }
}

static inline __attribute__((always_inline)) void tiles(nst_tile *t, int32_t pixels, const int32_t vectors, int32_t left)
{
    for (; pixels >= TILE; pixels -= TILE) {
        tile(t, TILE, vectors, left);
        t->at += TILE * t->step;
        t->out += TILE * t->sums->channels;
    }
    switch (pixels) {
    case 7: tile(t, 7, vectors, left); break;
    case 6: tile(t, 6, vectors, left); break;
    case 5: tile(t, 5, vectors, left); break;
    case 4: tile(t, 4, vectors, left); break;
    case 3: tile(t, 3, vectors, left); break;
    case 2: tile(t, 2, vectors, left); break;
    case 1: tile(t, 1, vectors, left); break;
    default: break;
    }
}

static void products(const uint8_t *const *runs, int32_t step, int32_t pixels, const nst_host_sums *sums, int8_t *out)
{
    for (int32_t first = 0; first < sums->channels; first += 32) {
        const int32_t left = sums->channels - first;
        nst_tile t = {sums, ends_of(&sums->output), runs, out + first, step, (sums->depth + 3) / 4, first, 0};
        if (left > NST_GROUP)
            tiles(&t, pixels, 2, left < 32 ? left : 32);
        else
            tiles(&t, pixels, 1, left);
    }
}

/* ---- depthwise -------------------------------------------------------------------------------------------------------------- */

/* Bytes of four taps side by side: of each 128 bits four channels of a, b, c and d, then the next four ... */
static inline __attribute__((always_inline)) void side_by_side(__m512i a, __m512i b, __m512i c, __m512i d, __m512i y[4])
{
    const __m512i ab = _mm512_unpacklo_epi8(a, b), cd = _mm512_unpacklo_epi8(c, d);
    const __m512i ab_high = _mm512_unpackhi_epi8(a, b), cd_high = _mm512_unpackhi_epi8(c, d);
    y[0] = _mm512_unpacklo_epi16(ab, cd);
    y[1] = _mm512_unpackhi_epi16(ab, cd);
    y[2] = _mm512_unpacklo_epi16(ab_high, cd_high);
    y[3] = _mm512_unpackhi_epi16(ab_high, cd_high);
}

/* Bytes of a block's biases and ends. */
static inline int32_t ends_bytes(const nst_host_sums *sums)
{
    return 256 * (3 + sums->odd_ones);
}

/* Of a block of 64 answers: [4] biases, [4] factors, [4] addends, [odd_ones][4] odd sums, then for each four taps [4] weights, in the
 * order of side_by_side. */
static void ready(const nst_host_sums *sums, void *given)
{
    const int32_t channels = sums->channels, period = nst_period(channels), taps = sums->runs;
    const int32_t step = (channels + NST_GROUP - 1) / NST_GROUP * NST_GROUP;
    int8_t *y = given;
    for (int32_t first = 0; first < period; first += NST_BLOCK) {
        for (int32_t i = 0; i < 16; i++, y += 16) {
            const int32_t o = (first + i % 4 * 16 + i / 4 * 4) % channels;
            __builtin_memcpy(y, sums->bias_of_bytes + o, 16);
            for (int32_t k = 0; k < 2 + sums->odd_ones; k++)
                __builtin_memcpy(y + 256 * (k + 1), sums->ends + k * step + o, 16);
        }
        y += ends_bytes(sums) - 256;
        for (int32_t t = 0; t < taps; t += 4, y += 256) {
            int8_t w[4][NST_BLOCK] = {{0}};
            for (int32_t i = 0; i < 4 && t + i < taps; i++)
                for (int32_t c = 0; c < NST_BLOCK; c += 8)
                    __builtin_memcpy(w[i] + c, sums->weights + (t + i) * channels + (first + c) % channels, 8);
            __m512i some[4];
            side_by_side(_mm512_loadu_si512(w[0]), _mm512_loadu_si512(w[1]), _mm512_loadu_si512(w[2]), _mm512_loadu_si512(w[3]),
                         some);
            for (int32_t i = 0; i < 4; i++)
                _mm512_storeu_si512(y + 64 * i, some[i]);
        }
    }
}

static inline __attribute__((always_inline)) __m512i block(const uint8_t *const *taps, int32_t at, const nst_host_sums *sums,
                                                           const int8_t *ready, const nst_ends *e)
{
    const int32_t count = sums->runs;
    __m512i s[4];
    const int8_t *w = ready + ends_bytes(sums);
    NST_EACH (i, 4)
        s[i] = _mm512_loadu_si512(ready + 64 * i);
    int32_t t = 0;
    for (; t + 4 <= count; t += 4, w += 256) {
        __m512i x[4];
        side_by_side(_mm512_loadu_si512(taps[t] + at), _mm512_loadu_si512(taps[t + 1] + at), _mm512_loadu_si512(taps[t + 2] + at),
                     _mm512_loadu_si512(taps[t + 3] + at), x);
        NST_EACH (i, 4)
            s[i] = _mm512_dpbusd_epi32(s[i], x[i], _mm512_loadu_si512(w + 64 * i));
    }
    if (t < count) {
        __m512i x[4];
        side_by_side(_mm512_loadu_si512(taps[t] + at), _mm512_loadu_si512(taps[t + 1 < count ? t + 1 : t] + at),
                     _mm512_loadu_si512(taps[t + 2 < count ? t + 2 : t] + at), _mm512_loadu_si512(taps[t] + at), x);
        NST_EACH (i, 4)
            s[i] = _mm512_dpbusd_epi32(s[i], x[i], _mm512_loadu_si512(w + 64 * i));
    }
    NST_EACH (i, 4)
        s[i] = nearest(s[i], (const int32_t *)(const void *)(ready + 256) + 16 * i, 64, sums->odd_ones);
    return bytes(s[0], s[1], s[2], s[3], e);
}

static void depthwise(const uint8_t *const *taps, const nst_host_sums *sums, const void *given, int32_t count, int8_t *out)
{
    const int32_t a_block = ends_bytes(sums) + (sums->runs + 3) / 4 * 256, blocks = nst_period(sums->channels) / NST_BLOCK;
    const nst_ends e = ends_of(&sums->output);
    for (int32_t b = 0; b < blocks; b++) {
        const int8_t *own = (const int8_t *)given + b * a_block;
        int32_t at = b * NST_BLOCK;
        for (; at + NST_BLOCK <= count; at += blocks * NST_BLOCK)
            _mm512_storeu_si512(out + at, block(taps, at, sums, own, &e));
        if (at < count)
            _mm512_mask_storeu_epi8(out + at, ~(uint64_t)0 >> (NST_BLOCK - (count - at)), block(taps, at, sums, own, &e));
    }
}

static void lookup(const int8_t *in, int32_t count, const int8_t *table, int8_t *out)
{
    const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
    const __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
    for (int32_t i = 0; i < count; i += 64) {
        const __mmask64 some = ~(uint64_t)0 >> (count - i < 64 ? 64 - (count - i) : 0);
        const __m512i x = _mm512_maskz_loadu_epi8(some, in + i); /* two's complement: from t2 on without a sign */
        const __m512i low = _mm512_permutex2var_epi8(t0, x, t1), high = _mm512_permutex2var_epi8(t2, x, t3);
        _mm512_mask_storeu_epi8(out + i, some, _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), high, low));
    }
}

/* ---- blocks ----------------------------------------------------------------------------------------------------------------- */

/* Of 16 * n pixels. */
static inline __attribute__((always_inline)) void blocks_of(const uint8_t *x, const int32_t n, const nst_blocks *b,
                                                            const nst_host_sums *sums, int32_t o, int8_t *out)
{
    const nst_ends e = ends_of(&sums->output);
    const int32_t step = (sums->channels + NST_GROUP - 1) / NST_GROUP * NST_GROUP;
    __m512i s[4];
    NST_EACH (i, n)
        s[i] = _mm512_set1_epi32(sums->bias_of_bytes[o]);
    for (int32_t k = 0; k < b->count; k++) {
        const uint8_t *from = x + b->places[k] * NST_BLOCK * 4;
        int32_t four;
        __builtin_memcpy(&four, b->weights + 4 * k, 4);
        NST_EACH (i, n)
            s[i] = _mm512_dpbusd_epi32(s[i], _mm512_loadu_si512(from + 64 * i), _mm512_set1_epi32(four));
    }
    int32_t ends[2 + NST_MOST_ODD][16];
    _mm512_storeu_si512(ends[0], _mm512_set1_epi32(sums->ends[o]));
    _mm512_storeu_si512(ends[1], _mm512_set1_epi32(sums->ends[step + o]));
    for (int32_t i = 2; i < 2 + sums->odd_ones; i++)
        _mm512_storeu_si512(ends[i], _mm512_set1_epi32(sums->ends[i * step + o]));
    NST_EACH (i, n)
        s[i] = nearest(s[i], ends[0], 16, sums->odd_ones);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i all = bytes(s[0], s[n > 1 ? 1 : 0], s[n > 2 ? 2 : 0], s[n > 3 ? 3 : 0], &e);
    _mm512_storeu_si512(out, _mm512_permutexvar_epi32(order, all));
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

const nst_kit nst_kit_avx512vnni = {"avx512vnni", 1, 128, numbers, products, ready, depthwise, NST_LOOPS, lookup, blocks};

NST_END_FOR
#endif
