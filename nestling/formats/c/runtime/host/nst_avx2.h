/* What the kits with vectors of 256 bits share: the ends, and the frame of a depthwise layer. To be included behind NST_FOR. */
#ifndef NST_AVX2_H
#define NST_AVX2_H

#define NST_FLAT static inline __attribute__((always_inline))

typedef struct {
    __m256i zero, low, high;
} nst_ends;

NST_FLAT nst_ends ends_of(const nst_output *y)
{
    const nst_ends e = {_mm256_set1_epi16((int16_t)y->zero), _mm256_set1_epi8((char)y->low), _mm256_set1_epi8((char)y->high)};
    return e;
}

NST_FLAT __m256i load(const void *p)
{
    return _mm256_loadu_si256(p);
}

/* Eight sums to whole numbers, zero not yet added. ends: where their channels' factors, addends and odd sums lie, `step` apart. */
NST_FLAT __m256i nearest(__m256i sum, const int32_t *ends, int64_t step, int32_t odd_ones)
{
    const __m256i sign = _mm256_and_si256(sum, _mm256_set1_epi32(INT32_MIN)), addend = _mm256_or_si256(sign, load(ends + step));
    const __m256 value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_castsi256_ps(load(ends)), _mm256_castsi256_ps(addend));
    __m256i y = _mm256_cvtps_epi32(value);
    for (int32_t i = 0; i < odd_ones; i++) {
        const __m256i odd = _mm256_cmpeq_epi32(sum, load(ends + (2 + i) * step));
        y = _mm256_add_epi32(y, _mm256_and_si256(odd, _mm256_or_si256(_mm256_srai_epi32(sum, 31), _mm256_set1_epi32(1))));
    }
    return y;
}

/* Four vectors of answers as bytes: of each 128 bits first a's four, then b's, c's and d's. */
NST_FLAT __m256i bytes(__m256i a, __m256i b, __m256i c, __m256i d, const nst_ends *e)
{
    const __m256i ab = _mm256_adds_epi16(_mm256_packs_epi32(a, b), e->zero);
    const __m256i cd = _mm256_adds_epi16(_mm256_packs_epi32(c, d), e->zero);
    const __m256i all = _mm256_packs_epi16(ab, cd);
    return _mm256_min_epi8(_mm256_max_epi8(all, e->low), e->high);
}

/* The first `left` bytes of sixteen. */
NST_FLAT void put(__m128i y, int32_t left, int8_t *out)
{
    if (left == 16) {
        _mm_storeu_si128((__m128i *)out, y);
        return;
    }
    if (left & 8) {
        _mm_storel_epi64((__m128i *)out, y);
        y = _mm_unpackhi_epi64(y, y);
        out += 8;
    }
    if (left & 7) {
        int8_t rest[16];
        _mm_storeu_si128((__m128i *)rest, y);
        for (int32_t i = 0; i < (left & 7); i++)
            out[i] = rest[i];
    }
}

/* What becomes of sums of sixteen channels, or of eight. left: how many of them there are. */
typedef struct {
    const int32_t *ends, *next; /* of the first eight, of the others */
    int64_t step;
    int32_t odd_ones, left;
} nst_put;

NST_FLAT nst_put put_of(const nst_host_sums *sums, int32_t first, const int32_t eights, int32_t left)
{
    const int32_t *ends = sums->ends + first;
    const nst_put p = {ends, eights > 1 ? ends + 8 : ends, (sums->channels + NST_GROUP - 1) / NST_GROUP * NST_GROUP, sums->odd_ones,
                       left};
    return p;
}

/* Answers of a pixel's sums, a's eight and b's, and of another's, c and d. y1: 0 where there is none. */
NST_FLAT void put_pixels(__m256i a, __m256i b, __m256i c, __m256i d, const nst_put *p, const nst_ends *e, int8_t *y0, int8_t *y1)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* a pixel's fours side by side */
    const __m256i all = bytes(nearest(a, p->ends, p->step, p->odd_ones), nearest(b, p->next, p->step, p->odd_ones),
                              nearest(c, p->ends, p->step, p->odd_ones), nearest(d, p->next, p->step, p->odd_ones), e);
    const __m256i both = _mm256_permutevar8x32_epi32(all, order);
    put(_mm256_castsi256_si128(both), p->left, y0);
    if (y1)
        put(_mm256_extracti128_si256(both, 1), p->left, y1);
}

/* ---- blocks ----------------------------------------------------------------------------------------------------------------- */

/* A channel's answers of 32 pixels, from their sums. */
NST_FLAT void put_channel(__m256i a, __m256i b, __m256i c, __m256i d, const nst_host_sums *sums, int32_t o, int8_t *out)
{
    const nst_ends e = ends_of(&sums->output);
    const int32_t step = (sums->channels + NST_GROUP - 1) / NST_GROUP * NST_GROUP, odd_ones = sums->odd_ones;
    int32_t ends[2 + NST_MOST_ODD][8];
    _mm256_storeu_si256((__m256i *)ends[0], _mm256_set1_epi32(sums->ends[o]));
    _mm256_storeu_si256((__m256i *)ends[1], _mm256_set1_epi32(sums->ends[step + o]));
    for (int32_t i = 2; i < 2 + sums->odd_ones; i++)
        _mm256_storeu_si256((__m256i *)ends[i], _mm256_set1_epi32(sums->ends[i * step + o]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i all = bytes(nearest(a, ends[0], 8, odd_ones), nearest(b, ends[0], 8, odd_ones), nearest(c, ends[0], 8, odd_ones),
                              nearest(d, ends[0], 8, odd_ones), &e);
    _mm256_storeu_si256((__m256i *)out, _mm256_permutevar8x32_epi32(all, order));
}

/* ---- depthwise -------------------------------------------------------------------------------------------------------------- */

enum { AT_ONCE = 32 }; /* answers: four vectors of sums */

/* Eight channels' weights of `some` taps (0 where there are none), as they lie in two quarters of vectors. */
typedef void nst_eight(const int8_t *const *taps, __m128i y[2]);

/* Bytes of AT_ONCE answers' biases and ends. */
NST_FLAT int32_t ends_bytes(const nst_host_sums *sums)
{
    return 128 * (3 + sums->odd_ones);
}

/* Of each AT_ONCE answers: [4] biases, [4] factors, [4] addends, [odd_ones][4] odd sums, then for each `some` taps [4] weights. The i-th
 * eight channels of them lie in 16 bytes of one vector and 16 of the next, from across * (i % 2) + down * (i / 2) on. */
NST_FLAT void ready_by(nst_eight *eight, const int32_t some, const int32_t across, const int32_t down, const int32_t *bias,
                       const nst_host_sums *sums, int8_t *y)
{
    static const int8_t zeros[8] = {0};
    const int32_t channels = sums->channels, period = nst_period(channels), depth = sums->runs;
    const int32_t step = (channels + NST_GROUP - 1) / NST_GROUP * NST_GROUP, ends = ends_bytes(sums);
    const int32_t all = ends + (depth + some - 1) / some * 128;
    for (int32_t first = 0; first < period; first += AT_ONCE, y += all) {
        for (int32_t i = 0; i < 4; i++) {
            const int32_t o = (first + 8 * i) % channels;
            int8_t *place = y + across * (i % 2) + down * (i / 2);
            for (int32_t half = 0; half < 2; half++) {
                __builtin_memcpy(place + 32 * half, bias + o + 4 * half, 16);
                for (int32_t k = 0; k < 2 + sums->odd_ones; k++)
                    __builtin_memcpy(place + 32 * half + 128 * (k + 1), sums->ends + k * step + o + 4 * half, 16);
            }
            place += ends;
            for (int32_t t = 0; t < depth; t += some) {
                const int8_t *taps[4];
                __m128i w[2];
                for (int32_t k = 0; k < some; k++)
                    taps[k] = t + k < depth ? sums->weights + (t + k) * channels + o : zeros;
                eight(taps, w);
                _mm_storeu_si128((__m128i *)place, w[0]);
                _mm_storeu_si128((__m128i *)(place + 32), w[1]);
                place += 128;
            }
        }
    }
}

/* AT_ONCE answers from the at-th on. */
typedef __m256i nst_block(const uint8_t *const *taps, int32_t at, const nst_host_sums *sums, const int8_t *ready,
                          const nst_ends *e);

NST_FLAT void depthwise_by(nst_block *block, const int32_t some, const uint8_t *const *taps, const nst_host_sums *sums,
                           const int8_t *ready, int32_t count, int8_t *out)
{
    const int32_t all = ends_bytes(sums) + (sums->runs + some - 1) / some * 128, period = nst_period(sums->channels);
    const nst_ends e = ends_of(&sums->output);
    for (int32_t first = 0; first < period; first += AT_ONCE, ready += all) {
        int32_t at = first;
        for (; at + AT_ONCE <= count; at += period)
            _mm256_storeu_si256((__m256i *)(out + at), block(taps, at, sums, ready, &e));
        if (at < count) {
            int8_t rest[AT_ONCE];
            _mm256_storeu_si256((__m256i *)rest, block(taps, at, sums, ready, &e));
            __builtin_memcpy(out + at, rest, (size_t)(count - at));
        }
    }
}

/* A block's answers from its sums. */
NST_FLAT __m256i block_of(__m256i a, __m256i b, __m256i c, __m256i d, const nst_host_sums *sums, const int8_t *ready,
                          const nst_ends *e)
{
    const int32_t *ends = (const int32_t *)(const void *)(ready + 128), odd_ones = sums->odd_ones;
    return bytes(nearest(a, ends, 32, odd_ones), nearest(b, ends + 8, 32, odd_ones), nearest(c, ends + 16, 32, odd_ones),
                 nearest(d, ends + 24, 32, odd_ones), e);
}

#endif
