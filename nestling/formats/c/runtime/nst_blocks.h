/* What the kernels share that skip blocks of zeros (nst_conv_1x1_blocks_layer): four pixels at once pass through scratch, and what is
 * read of a channel's blocks serves all of them. Whoever includes this says how pixels lie in scratch, and what becomes of them. */
#ifndef NST_BLOCKS_H
#define NST_BLOCKS_H

#include "nst_part.h"
#include "nst_stream.h"

/* Four pixels' answers from a channel on. Where there are fewer pixels, the last one takes the places of the others, too: the same
 * byte is written more than once. */
typedef struct {
    int8_t *out;           /* the first pixel's answer */
    int32_t step[3];       /* from there to the others' */
    int8_t *end;           /* where out ends */
    const void *x;         /* scratch */
    const int32_t *stream; /* of the channel that is next */
    const int8_t *places;
    int32_t blocks; /* of a pixel */
} nst_tile;

/* Pixels into scratch, zeros behind them up to a multiple of four. */
static void nst_tile_pixels(const int8_t *const x[4], int32_t depth, void *scratch);

/* One channel's sums with bias. Goes on to the channel's constants. */
static void nst_tile_sums(nst_tile *tile, int32_t sums[4]);

/* The answers of channels that take the short way, up to tile->end. Goes on to the channel behind them. */
static void nst_tile_answers(nst_tile *tile, const nst_block_sums *sums);

/* The same in C. less: bits that the kernel's constants move a sum less to the left, since its product is doubled. */
NST_INLINE void nst_tile_answers_in_c(nst_tile *t, const nst_block_sums *sums, int32_t less)
{
    for (; t->out != t->end; t->out++) {
        const int32_t left = (t->stream[1] & 31) + less;
        int32_t s[4];
        nst_tile_sums(t, s);
        const int32_t *c = t->stream, negative = sums->below ? c[2] : 0;
        for (int32_t i = 3; i >= 0; i--)
            t->out[i > 0 ? t->step[i - 1] : 0] = nst_answer_short(s[i], left, c[0], c[1], negative, &sums->output);
        t->stream += nst_constants(sums) - 2;
    }
}

/* Whether there are no more pixels than two. */
NST_INLINE int32_t nst_at_most_two(const nst_tile *tile)
{
    return tile->step[0] == tile->step[1];
}

NST_APART void nst_tile_long(nst_tile *t, const nst_block_sums *sums)
{
    const nst_output *y = &sums->output;
    const int32_t exponent = (t->stream[1] & 255) - NST_LONG_FROM;
    int32_t s[4];
    nst_tile_sums(t, s);
    for (int32_t i = 3; i >= 0; i--) {
        const int32_t value = nst_rescale(s[i], t->stream[0], exponent) + y->zero;
        t->out[i > 0 ? t->step[i - 1] : 0] = nst_clamped(value, y->low, y->high);
    }
    t->out++;
    t->stream += nst_constants(sums) - 2;
}

NST_INLINE void nst_tile_channels(nst_tile *t, const nst_block_sums *sums, int32_t channels)
{
    int8_t *const end = t->out + channels;
    while (t->out != end) {
        t->end = sums->long_ones ? t->out + nst_short_ones(t->stream, sums, (int32_t)(end - t->out)) : end;
        if (t->out != t->end)
            nst_tile_answers(t, sums);
        else
            nst_tile_long(t, sums);
    }
}

/* The whole kernel. Where out is in, pixels go from the last to the first if they grow, as in nst_conv_1x1. */
NST_INLINE void nst_conv_1x1_in_tiles(const int8_t *in, const nst_conv_1x1_blocks_layer *layer, int8_t *out, void *scratch,
                                      const nst_part *part)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const nst_block_sums *sums = &layer->sums;
    const int32_t depth = sums->depth, channels = layer->out.channels, width = layer->out.width;
    const int32_t first = p.rows.first * width, end = p.rows.end * width;
    const int32_t backwards = in == out && channels > depth;
    nst_tile begin = {0, {0, 0, 0}, 0, scratch, sums->stream, sums->places, (depth + 3) / 4};
    for (int32_t o = 0; o < p.channels.first; o++) {
        const int32_t blocks = nst_blocks_of(begin.stream);
        begin.stream += blocks + nst_constants(sums);
        begin.places += blocks;
    }
    for (int32_t done = first; done < end; done += 4) {
        const int32_t n = nst_smaller(end - done, 4), pixel = backwards ? first + end - done - n : done;
        nst_tile tile = begin;
        const int8_t *x[4] = {in + pixel * depth};
        tile.out = out + pixel * channels + p.channels.first;
        for (int32_t i = 1; i < 4; i++) {
            x[i] = x[0] + nst_smaller(i, n - 1) * depth;
            tile.step[i - 1] = nst_smaller(i, n - 1) * channels;
        }
        nst_tile_pixels(x, depth, scratch);
        nst_tile_channels(&tile, sums, p.channels.end - p.channels.first);
    }
}

#endif
