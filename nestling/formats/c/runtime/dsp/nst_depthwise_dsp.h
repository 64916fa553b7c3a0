/* Depthwise convolution, one channel at a time: rows of its plane are copied into scratch as 16-bit numbers with their padding, then six
 * neighbouring outputs take their products together, two columns of the window in one instruction.
 *
 * A window that begins in an even column of the plane takes the pairs (w0, w1), (w2, w3) ...; one that begins in an odd column reads the
 * same aligned words of the plane, and takes (0, w0), (w1, w2) ... With a stride of 2 all windows begin in even columns.
 *
 * Where scratch has no room for a whole plane, the channel is computed in bands of rows. What the next band reads once more is moved to
 * the top, so a channel that is written over its own input is read in time: see dsp_depthwise.py.
 */
#ifndef NST_DEPTHWISE_DSP_H
#define NST_DEPTHWISE_DSP_H

#include "nst_dsp.h"
#include "nst_fixed.h"
#include "nst_part.h"

#if defined(__thumb2__) && defined(__ARM_FEATURE_DSP) && defined(__ARM_FP)
#define NST_DSP_ASSEMBLY 1
#pragma GCC diagnostic ignored "-Wunused-parameter" /* arguments are in registers */
#define NST_DSP_NAKED static __attribute__((naked, noinline))
#else
#define NST_DSP_ASSEMBLY 0
#endif

enum { NST_DSP_SIDE = 6, NST_DSP_LARGEST = 7 }; /* outputs at once; the largest window's side */

/* What is computed of one channel, as the assembly reads it: strides in bytes.
 * weights: pairs of a row side by side, with a stride of 1 by turns those for even columns and those for odd ones. */
typedef struct {
    int32_t down;              /* from behind a row's last six outputs in the plane to the next row */
    int32_t back;              /* from behind them in the answer to the next row */
    int32_t sixes;             /* from a row's first output to behind its last six */
    int32_t negative, further; /* what is added where the sum is negative; bits that are less beside NST_DSP_BITS */
    int32_t pitch;             /* from one row of the plane to the next */
    int32_t step;              /* from one output to its neighbour */
    int32_t multiplier, addend, bias;
    int16_t weights[NST_DSP_LARGEST * (NST_DSP_LARGEST + 1) * 2];
    const int8_t *taps; /* the weights as they are, a byte each */
} nst_dsp_channel;

/* Rows of sixes, or of one three, up to where `last` says that the next row would begin. */
typedef void nst_dsp_rows(const int16_t *plane, int8_t *out, const nst_dsp_channel *channel, const int8_t *last);

/* The constants of channel o beside its taps; zeros among the weights are there already. */
typedef void nst_dsp_taker(const nst_depthwise_dsp_layer *layer, int32_t o, nst_dsp_channel *channel);

/* How a size is computed, [stride - 1]. rows: of sixes that take `negative` and `further` for 0, of sixes and of threes that do not. */
enum { NST_DSP_SIXES, NST_DSP_SIXES_FULLY, NST_DSP_THREES };
typedef struct {
    nst_dsp_rows *rows[2][3];
    nst_dsp_taker *take[2];
} nst_dsp_kernels;

/* A part of the layer. */
void nst_dsp_depthwise_by(const int8_t *in, const nst_depthwise_dsp_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                          int32_t bytes, const nst_dsp_kernels *kernels);

/* 16-bit numbers of the weights of a row. */
NST_INLINE int32_t nst_dsp_places(int32_t size, int32_t stride)
{
    return stride == 1 ? 2 * (size + 1) : size + 1;
}

/* What the assembly computes. All sums are taken modulo 2^32, which they never leave in the end. */
NST_INLINE void nst_dsp_rows_portable(const int16_t *plane, int8_t *out, const nst_dsp_channel *c, const int8_t *last, int32_t size,
                                      int32_t stride, int32_t at_once)
{
    const int32_t words = (size + 1) / 2, places = nst_dsp_places(size, stride), pitch = c->pitch / 2;
    for (; out != last; plane += c->down / 2, out += c->back) {
        const int8_t *end = out + c->sixes;
        for (; out != end; plane += at_once * stride) {
            for (int32_t i = 0; i < at_once; i++, out += c->step) {
                const int32_t odd = stride == 1 ? i % 2 : 0;
                uint32_t bits = (uint32_t)c->bias;
                for (int32_t y = 0; y < size; y++) {
                    const int16_t *x = plane + y * pitch + i * stride - odd;
                    const int16_t *w = c->weights + y * places + 2 * odd;
                    for (int32_t k = 0; k < words; k++, x += 2, w += 2 * (3 - stride))
                        bits += (uint32_t)(x[0] * w[0] + x[1] * w[1]);
                }
                const int32_t sum = (int32_t)bits;
                const int32_t value = (int32_t)(((int64_t)sum * c->multiplier) >> 32) + c->addend + (sum < 0 ? c->negative : 0);
                *out = nst_clamped(value >> c->further >> NST_DSP_BITS, -128, 127);
            }
        }
    }
}

/* One row of weights as pairs, see nst_dsp_channel; k: which weight. */
NST_INLINE void nst_dsp_pair(int16_t *to, int32_t k, int32_t weight, int32_t stride)
{
    if (stride == 2) {
        to[k] = (int16_t)weight;
    } else {
        to[k / 2 * 4 + k % 2] = (int16_t)weight;
        to[(k + 1) / 2 * 4 + 2 + (k + 1) % 2] = (int16_t)weight;
    }
}

/* A whole row, straight-line code for three columns. */
NST_INLINE void nst_dsp_pairs(int16_t *to, const int8_t *w, int32_t left, int32_t size, int32_t stride)
{
    nst_dsp_pair(to, 0, w[0] * (1 << left), stride);
    nst_dsp_pair(to, 1, w[1] * (1 << left), stride);
    nst_dsp_pair(to, 2, w[2] * (1 << left), stride);
    for (int32_t k = 3; k < size; k++)
        nst_dsp_pair(to, k, w[k] * (1 << left), stride);
}

/* The constants of channel o. size, stride: known to the compiler. */
NST_INLINE void nst_dsp_take(const nst_depthwise_dsp_layer *layer, int32_t o, nst_dsp_channel *channel, int32_t size,
                             int32_t stride)
{
    const int8_t *w = channel->taps;
    const int32_t way = layer->way[o], left = way % NST_DSP_FINE, places = nst_dsp_places(size, stride);
    channel->negative = way < NST_DSP_NEGATIVE ? 0 : -(1 << nst_larger(left - 1, 0));
    channel->further = way & NST_DSP_FINE ? NST_DSP_FURTHER : 0;
    channel->bias = (int32_t)((uint32_t)layer->bias[o] << left);
    channel->multiplier = layer->multiplier[o];
    channel->addend = layer->addend[o];
    int16_t *to = channel->weights;
    nst_dsp_pairs(to, w, left, size, stride);
    nst_dsp_pairs(to + places, w + size, left, size, stride);
    nst_dsp_pairs(to + 2 * places, w + 2 * size, left, size, stride);
    for (int32_t y = 3; y < size; y++)
        nst_dsp_pairs(to + y * places, w + y * size, left, size, stride);
}

#endif
