#include "nst_part.h"
#include "nst_stream.h"

/* Two pixels in one number, the second one's byte 16 bits above the first one's: a product with it is both products. A block's sums
 * stay within 16 bits (see nst_kernels.h), so both can be told from their sum; all blocks' numbers together are one 32-bit sum, whatever
 * passes its end, from which the first pixel's follows when the second one's is known.
 *
 * Up to four such pairs of pixels share what is read of a block. They lie in scratch as [(depth + 3) / 4 blocks][pairs][4]. */
enum { APART = 16, HALF = 1 << (APART - 1) };

/* Some pixels' answers from a channel on: 2 * pairs of them. */
typedef struct {
    int8_t *out;   /* the first pixel's answer */
    int8_t *end;   /* where out ends */
    int32_t step;  /* from a pixel's answer to the next one's */
    int32_t last;  /* the same to the last one's: 0 where the one before stands there again */
    int32_t pairs; /* 1, 2 or 4 */
    const int32_t *x;
    const int32_t *stream; /* of the channel that is next */
    const int8_t *places;
} nst_pixels;

/* A pair's sums with bias: all products of both, which wraps, and the second pixel's; from these follows the first one's. */
typedef struct {
    uint32_t both;
    int32_t upper;
} nst_pair_sums;

NST_INLINE nst_pair_sums with_block(nst_pair_sums s, const int32_t *x, const int8_t *w)
{
    const int32_t block = x[0] * w[0] + x[1] * w[1] + x[2] * w[2] + x[3] * w[3];
    const nst_pair_sums more = {s.both + (uint32_t)block, s.upper + ((block + HALF) >> APART)};
    return more;
}

/* One channel's. There is a block, or more. Goes on to the channel's constants. */
NST_INLINE void channel_sums(nst_pixels *t, int32_t pairs, nst_pair_sums sums[4])
{
    const int32_t *x = t->x;
    const uint8_t *place = (const uint8_t *)t->places, *const end = place + nst_blocks_of(t->stream);
    const int8_t *w = (const int8_t *)(t->stream + 2);
    const int32_t bias = t->stream[0];
    const nst_pair_sums begin = {(uint32_t)bias + ((uint32_t)bias << APART), bias};
    nst_pair_sums s0 = begin, s1 = begin, s2 = begin, s3 = begin;
    for (; place != end; w += 4) {
        x += 4 * pairs * *place++;
        s0 = with_block(s0, x, w);
        s1 = pairs > 1 ? with_block(s1, x + 4, w) : s1;
        s2 = pairs > 2 ? with_block(s2, x + 8, w) : s2;
        s3 = pairs > 2 ? with_block(s3, x + 12, w) : s3;
    }
    t->stream = (const int32_t *)w;
    t->places = (const int8_t *)place;
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
}

NST_INLINE int32_t lower(nst_pair_sums sums)
{
    return (int32_t)(sums.both - ((uint32_t)sums.upper << APART));
}

/* ---- endings ---------------------------------------------------------------------------------------------------------------- */

/* A channel's way from a sum to its byte, counted from low: distance is high - low. */
typedef struct {
    int32_t left, multiplier, addend, negative, distance, low;
} nst_way;

NST_INLINE nst_way way_of(const int32_t *constants, int32_t left, const nst_output *y, int32_t below)
{
    const int32_t addend = (int32_t)((uint32_t)constants[1] - ((uint32_t)y->low << NST_SHIFT));
    const nst_way way = {left, constants[0], addend, below ? constants[2] : 0, y->high - y->low, y->low};
    return way;
}

NST_INLINE int8_t byte_of(int32_t value, const nst_way *way)
{
    value >>= NST_SHIFT;
    if ((uint32_t)value > (uint32_t)way->distance)
        value = way->distance & ~(value >> 31);
    return (int8_t)(value + way->low);
}

NST_INLINE int8_t answer(int32_t sum, const nst_way *way, int32_t below)
{
    const int32_t wide = (int32_t)((uint32_t)sum << way->left);
    const int32_t value = (int32_t)((int64_t)wide * way->multiplier >> 32) + way->addend;
    return byte_of(below ? value - (way->negative & (sum >> 31)) : value, way);
}

/* The same byte, a channel that has no blocks. */
NST_INLINE void constants(const nst_pixels *t, const nst_way *way, int32_t pairs)
{
    const int8_t byte = byte_of(way->addend, way);
    int8_t *out = t->out;
    for (int32_t i = 2 * pairs - 1; i > 0; i--) {
        *out = byte;
        out += i > 1 ? t->step : t->last;
    }
    *out = byte;
}

NST_INLINE void channel_answers(const nst_pixels *t, const nst_pair_sums s[4], const nst_way *way, int32_t pairs, int32_t below)
{
    const int32_t step = t->step;
    int8_t *out = t->out;
    *out = answer(lower(s[0]), way, below);
    if (pairs > 1) {
        out += step, *out = answer(s[0].upper, way, below);
        out += step, *out = answer(lower(s[1]), way, below);
    }
    if (pairs > 2) {
        out += step, *out = answer(s[1].upper, way, below);
        out += step, *out = answer(lower(s[2]), way, below);
        out += step, *out = answer(s[2].upper, way, below);
        out += step, *out = answer(lower(s[3]), way, below);
    }
    out[t->last] = answer(s[pairs - 1].upper, way, below);
}

/* Of channels that take the short way, up to tile->end. Goes on to the channel behind them. */
NST_INLINE void short_ones(nst_pixels *pixels, const nst_output *y, int32_t pairs, int32_t below)
{
    nst_pixels t = *pixels;
    for (; t.out != t.end; t.out++) {
        const int32_t head = t.stream[1];
        if (head < 0) {
            const nst_way way = way_of(t.stream + 2, 0, y, 0);
            t.stream += below ? 5 : 4;
            constants(&t, &way, pairs);
            continue;
        }
        nst_pair_sums s[4];
        channel_sums(&t, pairs, s);
        const nst_way way = way_of(t.stream, head & 31, y, below);
        t.stream += below ? 3 : 2;
        channel_answers(&t, s, &way, pairs, below);
    }
    *pixels = t;
}

/* The same of one that takes the long way. */
NST_APART void long_one(nst_pixels *t, const nst_block_sums *sums)
{
    const nst_output *y = &sums->output;
    const int32_t exponent = (t->stream[1] & 255) - NST_LONG_FROM;
    nst_pair_sums s[4];
    channel_sums(t, t->pairs, s);
    const int32_t multiplier = t->stream[0];
    int8_t *out = t->out++;
    for (int32_t i = 0; i < 2 * t->pairs; i++) {
        const int32_t sum = i & 1 ? s[i / 2].upper : lower(s[i / 2]);
        *out = nst_clamped(nst_rescale(sum, multiplier, exponent) + y->zero, y->low, y->high);
        out += i < 2 * t->pairs - 2 ? t->step : t->last;
    }
    t->stream += nst_constants(sums) - 2;
}

NST_INLINE void all_channels(nst_pixels *t, const nst_block_sums *sums, int32_t channels)
{
    const nst_output *y = &sums->output;
    int8_t *const end = t->out + channels;
    while (t->out != end) {
        t->end = sums->long_ones ? t->out + nst_short_ones(t->stream, sums, (int32_t)(end - t->out)) : end;
        if (t->out == t->end)
            long_one(t, sums);
        else if (t->pairs == 4 && sums->below)
            short_ones(t, y, 4, 1);
        else if (t->pairs == 4)
            short_ones(t, y, 4, 0);
        else if (t->pairs == 2)
            short_ones(t, y, 2, sums->below);
        else
            short_ones(t, y, 1, sums->below);
    }
}

/* ---- pixels ----------------------------------------------------------------------------------------------------------------- */

/* Two pixels into every `pairs`th four of scratch, zeros behind them up to a multiple of four. */
NST_INLINE void pair_up(const int8_t *a, const int8_t *b, int32_t depth, int32_t pairs, int32_t *to)
{
    const int8_t *const end = a + depth;
    for (; end - a >= 4; a += 4, b += 4, to += 4 * pairs) {
        to[0] = a[0] + b[0] * (1 << APART);
        to[1] = a[1] + b[1] * (1 << APART);
        to[2] = a[2] + b[2] * (1 << APART);
        to[3] = a[3] + b[3] * (1 << APART);
    }
    for (int32_t k = 0; depth & 3 && k < 4; k++)
        to[k] = a + k < end ? a[k] + b[k] * (1 << APART) : 0;
}

/* How many pairs of so many pixels are computed at once. */
NST_INLINE int32_t pairs_of(int32_t pixels, int32_t four)
{
    return four && pixels > 6 ? 4 : pixels > 2 ? 2 : 1;
}

void nst_conv_1x1_blocks(const int8_t *in, const nst_conv_1x1_blocks_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                         int32_t room)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const nst_block_sums *sums = &layer->sums;
    const int32_t depth = sums->depth, channels = layer->out.channels, width = layer->out.width;
    const int32_t first = p.rows.first * width, end = p.rows.end * width;
    const int32_t backwards = in == out && channels > depth, four = room >= 16 * ((depth + 3) & -4);
    nst_pixels begin = {0, 0, channels, 0, 0, scratch, sums->stream, sums->places};
    for (int32_t o = 0; o < p.channels.first; o++) {
        const int32_t blocks = nst_blocks_of(begin.stream);
        begin.stream += blocks + nst_constants(sums);
        begin.places += blocks;
    }
    for (int32_t done = first, n; done < end; done += n) {
        nst_pixels now = begin;
        now.pairs = pairs_of(end - done, four);
        n = nst_smaller(end - done, 2 * now.pairs);
        now.last = n < 2 * now.pairs ? 0 : channels;
        const int32_t pixel = backwards ? first + end - done - n : done;
        const int8_t *x = in + pixel * depth;
        for (int32_t i = 0; i < now.pairs; i++, x += 2 * depth)
            pair_up(x, 2 * i + 1 < n ? x + depth : x, depth, now.pairs, (int32_t *)scratch + 4 * i);
        now.out = out + pixel * channels + p.channels.first;
        all_channels(&now, sums, p.channels.end - p.channels.first);
    }
}
