#include "nst_blocks.h"

/* Two pixels in one number, the second one's byte 16 bits above the first one's: a product with it is both products. A block's sums
 * stay within 16 bits (see nst_kernels.h), so both can be told from their sum; all blocks' numbers together are one 32-bit sum, whatever
 * passes its end, from which the first pixel's follows when the second one's is known. */
enum { APART = 16, HALF = 1 << (APART - 1) };

NST_INLINE int32_t *both_pairs(const int8_t *a, const int8_t *b, const int8_t *c, const int8_t *d, int32_t *to)
{
    to[0] = *a + *b * (1 << APART);
    to[1] = *c + *d * (1 << APART);
    return to + 2;
}

/* [(depth + 3) / 4 * 4][2 pairs of pixels] */
static void nst_tile_pixels(const int8_t *const x[4], int32_t depth, void *scratch)
{
    const int8_t *a = x[0], *b = x[1], *c = x[2], *d = x[3], *const end = a + depth;
    int32_t *to = scratch;
    for (; end - a >= 4; a += 4, b += 4, c += 4, d += 4) {
        to = both_pairs(a, b, c, d, to);
        to = both_pairs(a + 1, b + 1, c + 1, d + 1, to);
        to = both_pairs(a + 2, b + 2, c + 2, d + 2, to);
        to = both_pairs(a + 3, b + 3, c + 3, d + 3, to);
    }
    for (int32_t k = 0; depth & 3 && k < 4; k++) {
        to[0] = to[1] = 0;
        to = a < end ? both_pairs(a++, b++, c++, d++, to) : to + 2;
    }
}

/* pairs: 2, or 1 where the others are not wanted. */
NST_INLINE void tile_sums(nst_tile *t, int32_t pairs, int32_t sums[4])
{
    const int32_t *x = t->x;
    const int32_t bias = t->stream[0];
    const uint8_t *place = (const uint8_t *)t->places, *const end = place + nst_blocks_of(t->stream);
    const int8_t *w = (const int8_t *)(t->stream + 2);
    uint32_t both0 = 0, both1 = 0;
    int32_t high0 = 0, high1 = 0;
    do { /* there is one */
        x += 8 * *place++;
        const int32_t a = x[0] * w[0] + x[2] * w[1] + x[4] * w[2] + x[6] * w[3];
        both0 += (uint32_t)a, high0 += (a + HALF) >> APART;
        if (pairs == 2) {
            const int32_t b = x[1] * w[0] + x[3] * w[1] + x[5] * w[2] + x[7] * w[3];
            both1 += (uint32_t)b, high1 += (b + HALF) >> APART;
        }
        w += 4;
    } while (place != end);
    t->stream = (const int32_t *)w;
    t->places = (const int8_t *)place;
    sums[0] = (int32_t)(both0 - ((uint32_t)high0 << APART)) + bias, sums[1] = high0 + bias;
    sums[2] = (int32_t)(both1 - ((uint32_t)high1 << APART)) + bias, sums[3] = high1 + bias;
}

static void nst_tile_sums(nst_tile *tile, int32_t sums[4])
{
    tile_sums(tile, 2, sums);
}

NST_INLINE void tile_answers(nst_tile *tile, const nst_output *output, int32_t pairs, int32_t below)
{
    const nst_output y = *output;
    nst_tile t = *tile;
    for (; t.out != t.end; t.out++) {
        const int32_t left = t.stream[1] & 31;
        int32_t s[4];
        tile_sums(&t, pairs, s);
        const int32_t multiplier = t.stream[0], addend = t.stream[1], negative = below ? t.stream[2] : 0;
        if (pairs == 2) {
            t.out[t.step[2]] = nst_answer_short(s[3], left, multiplier, addend, negative, &y);
            t.out[t.step[1]] = nst_answer_short(s[2], left, multiplier, addend, negative, &y);
        }
        t.out[t.step[0]] = nst_answer_short(s[1], left, multiplier, addend, negative, &y);
        t.out[0] = nst_answer_short(s[0], left, multiplier, addend, negative, &y);
        t.stream += below ? 3 : 2;
    }
    *tile = t;
}

static void nst_tile_answers(nst_tile *tile, const nst_block_sums *sums)
{
    const int32_t pairs = nst_at_most_two(tile) ? 1 : 2;
    if (pairs == 2 && sums->below)
        tile_answers(tile, &sums->output, 2, 1);
    else if (pairs == 2)
        tile_answers(tile, &sums->output, 2, 0);
    else
        tile_answers(tile, &sums->output, 1, sums->below);
}

void nst_conv_1x1_blocks(const int8_t *in, const nst_conv_1x1_blocks_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    nst_conv_1x1_in_tiles(in, layer, out, scratch, part);
}
