/* Kernels for processors with Arm's DSP extension (Cortex-M4, M7): SMLAD, SMMLA, SSAT. The answers are those of nst_kernels.h. */
#ifndef NST_DSP_H
#define NST_DSP_H

#include "nst_kernels.h"

/* ---- convolutions ---------------------------------------------------------------------------------------------------------- */

/* What turns two patches into answers, four output channels (a group) after the others.
 *
 * A step is two products of each of four channels with each of two patches. A group's stream is, in numbers of 32 bits:
 *     starts      a channel's sum begins with: 4, but 8 where bits are 16: those of the four channels for one patch, then for the other
 *     weights     of so many bits each, 4 * steps numbers where they are 16, half as many where they are 8, and so on
 *     after       [4][after], see below
 * 16 bits: a number holds two weights of a channel, the step's first product in the lower half. A step is four numbers.
 * 8: it holds weights of two channels, from the lowest byte on the first channel's first one, the other's first one, the first channel's
 * second one, the other's second one.
 * 4 and 2: it holds what is one step there, or two, each weight with 2^(bits - 1) added: the lowest bits of both halves what is the
 * first number there, the next bits the second one, and so on.
 * All but those of 16 bits are widened into scratch when the layer is called.
 *
 * after: 3: left, multiplier, addend;             answer = ((sum << left) * multiplier >> 32) + addend >> 14
 *        4: left, negative, addend, multiplier    the same, with `negative` less in the addend where the sum is below 0
 *           (in both clamped to int8, then to output's low and high)
 * Channels that answer one byte to whatever comes may be left out. The groups are then of those that remain, in any order, and a
 * channel's place in the answer stands behind its other numbers: `after` is one more. This is so where `known` is not 0.
 * Groups in which the short way is not known to be right have multiplier and shift of nst_scaled() there instead, and 1 in long_way, an
 * array of one number a group that is 0 where there is none.
 */
typedef struct {
    int32_t depth;    /* products a sum */
    int32_t steps;    /* half as many; the weights of products that are not there are 0 */
    int32_t channels; /* answers a patch */
    int32_t groups;   /* of four channels, the last one may have fewer */
    int32_t bits;     /* of a weight: 16, 8, 4 or 2 */
    const int32_t *stream;
    int32_t after;
    const int8_t *long_way;
    const int8_t *known; /* an answer, of which only the channels that are in no group count; or 0 */
    nst_output output;
} nst_sums_dsp;

/* bytes: of scratch. It holds 8 * steps bytes for two patches and, unless weights are of 16 bits, those of four channels or more: as many
 * as there is room for are computed for all pixels, then the next ones. The more room, the less is done twice. */

/* As nst_conv_1x1. out may be in where weights are of 16 bits, or all have room at once. */
typedef struct {
    nst_shape out;
    nst_sums_dsp sums;
} nst_conv_1x1_dsp_layer;

void nst_conv_1x1_dsp(const int8_t *in, const nst_conv_1x1_dsp_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                      int32_t bytes);

/* As nst_conv of one group, from a strip of the map: the rows that a row of windows reaches, as numbers of 16 bits, with what stands
 * to the left and right of the map. A piece is what a window has side by side in a row: all of its columns, or one where they are
 * dilated. Products lie piece by piece, [size.height][pieces in a row][piece], with one of 0 behind a piece of an odd number.
 * Scratch holds the strip, too. out may lie over in as in nst_conv where weights are of 16 bits, or all have room at once. */
typedef struct {
    nst_shape in, out;
    nst_window window;
    int32_t in_zero;
    nst_pair strip; /* rows, and numbers a row: even, at least one more than a row of windows reaches */
    nst_sums_dsp sums;
} nst_conv_dsp_layer;

void nst_conv_dsp(const int8_t *in, const nst_conv_dsp_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                  int32_t bytes);

/* The same from the image's bytes, through table: int8 [in.channels][256]. */
typedef struct {
    const int8_t *table;
    nst_conv_dsp_layer conv;
} nst_conv_image_dsp_layer;

void nst_conv_image_dsp(const uint8_t *image, const nst_conv_image_dsp_layer *layer, int8_t *out, void *scratch,
                        const nst_part *part, int32_t bytes);

/* As nst_fully_connected, in integers. sums: of 8 bits, without a long way; no number of 16 bits is made beforehand. */
typedef struct {
    nst_sums_dsp sums;
} nst_fully_connected_dsp_layer;

void nst_fully_connected_dsp(const int8_t *in, const nst_fully_connected_dsp_layer *layer, int8_t *out);

/* ---- zeros skipped --------------------------------------------------------------------------------------------------------- */

/* As nst_conv_1x1_blocks, with blocks of any weights. */
void nst_conv_1x1_blocks_dsp(const int8_t *in, const nst_conv_1x1_blocks_layer *layer, int8_t *out, void *scratch,
                             const nst_part *part);

/* ---- depthwise convolutions and what goes byte by byte ---------------------------------------------------------------------- */

/* A depthwise convolution with as many channels as before. weights: [channels][size.height * size.width], of so many bits: 8, or 4 or 2,
 * two or four in a byte, the first one in its lowest bits, in two's complement.
 *
 * A channel that is proven (see rescaling.py) answers
 *     saturated(((sum + bias << left) * multiplier >> 32) + addend - (negative where sum + bias < 0) >> bits)
 * left being way % 16; bits NST_DSP_BITS, and NST_DSP_FURTHER more where way has NST_DSP_FINE; negative 0, and where way has
 * NST_DSP_NEGATIVE the power of two 2^(left - 1), at least 1. way is below 0 where the long way is gone: addend is then the shift of
 * nst_scaled().
 *
 * bytes: of scratch, at least what the rows of one window take, see nst_depthwise_dsp.h; it is quicker with a whole plane. out may be
 * in for parts of all rows in any order.
 */
#define NST_DSP_BITS 10
#define NST_DSP_FURTHER 4
#define NST_DSP_FINE 16
#define NST_DSP_NEGATIVE 32
typedef struct {
    nst_shape in, out;
    nst_window window;
    int32_t in_zero, bits;
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const int32_t *addend;
    const int8_t *way;
    nst_output output;
} nst_depthwise_dsp_layer;

/* Windows of 3x3, 5x5 and 7x7; strides of columns of 1 and 2. */
void nst_depthwise_3_dsp(const int8_t *in, const nst_depthwise_dsp_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                         int32_t bytes);
void nst_depthwise_5_dsp(const int8_t *in, const nst_depthwise_dsp_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                         int32_t bytes);
void nst_depthwise_7_dsp(const int8_t *in, const nst_depthwise_dsp_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                         int32_t bytes);

/* As nst_add of two arrays of one shape: saturated(((sum of terms << left) * multiplier >> 32) + addend >> 18), then clamped.
 * bytes: of scratch; with 1024 and more there is a table of b's terms. */
typedef struct {
    int32_t count;
    int32_t a_zero, b_zero;
    int32_t b_left, b_multiplier, b_shift;
    int32_t left, multiplier, addend;
    nst_output output;
} nst_add_dsp_layer;

void nst_add_dsp(const int8_t *a, const int8_t *b, const nst_add_dsp_layer *layer, int8_t *out, void *scratch, int32_t bytes);

/* Of windows of up to 255 places. */
void nst_average_pool_dsp(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part);
void nst_max_pool_dsp(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part);

/* Of up to 255 rows (size[1]), where nothing else is summed: size[3] is 1. */
void nst_mean_dsp(const int8_t *in, const nst_mean_layer *layer, int8_t *out);

#endif
