/* The kernels that a network's layers are calls of.
 *
 * A map is int8 [height, width, channels], an image uint8 of the same layout; a value q stands for scale * (q - zero point).
 * Every kernel takes what it reads, a constant that says all about the layer, and where its answer goes. Nothing is kept between
 * two calls. Pointers need no alignment but scratch, which wants 4 bytes. The answers are those of TFLite's reference kernels;
 * each kernel here has a naive twin, nst_..._reference(), that says the same in fewer words.
 */
#ifndef NST_KERNELS_H
#define NST_KERNELS_H

#include <stdint.h>

typedef struct {
    int32_t height, width, channels;
} nst_shape;

typedef struct {
    int32_t height, width;
} nst_pair;

/* pad: rows above and columns left of the map. What stands below and to the right follows from the output's shape. */
typedef struct {
    nst_pair size, stride, dilation, pad;
} nst_window;

/* The output's zero point, and its smallest and largest value. */
typedef struct {
    int32_t zero, low, high;
} nst_output;

/* From the first to before the end. */
typedef struct {
    int32_t first, end;
} nst_range;

/* What is computed of an answer: these channels of these rows. Kernels that slide a window take one, so that a layer can be shared by
 * threads, or be computed tile by tile; 0 is the whole layer. `in` and `out` are whole maps all the same, of which no other byte is
 * written, and scratch, one for each that computes at the same time, is as large as for the whole.
 *
 * Where weights lie four output channels side by side, channels.first is a multiple of four, counted from the first channel of its
 * group; it is any channel in depthwise convolutions and pools.
 * Parts that do not overlap may be computed in any order and at the same time. Over their own input they only may where the kernel
 * says so.
 */
typedef struct {
    nst_range rows, channels;
} nst_part;

/* What turns patches into answers: y[o] = clamp(zero + scaled(bias[o] + sum over k of x[k] * (w[o][k] - weight_zero))).
 *
 * bias: that of the network, with what the input's zero point adds to every sum.
 * multiplier, shift: see nst_scaled() in nst_fixed.h. No sum leaves 32 bits: the generator has made sure.
 */
typedef struct {
    int32_t depth;    /* products a sum */
    int32_t channels; /* answers a patch */
    const int8_t *weights;
    int32_t weight_zero; /* 0 but in old uint8 networks */
    const int32_t *bias;
    const int32_t *multiplier;
    const int8_t *shift;
    nst_output output;
} nst_sums;

/* How two operands become one array: size from the outermost side in; a step of 0 repeats the operand along a side. */
typedef struct {
    int32_t size[3];
    int32_t a_step[3], b_step[3];
} nst_broadcast;

/* ---- convolutions ---------------------------------------------------------------------------------------------------------- */

/* 1x1, stride 1: every pixel is a patch. weights: [(channels + 3) / 4][depth][4], four output channels side by side.
 * out may be in, for parts of all channels: these in any order where there are as many channels as before, else one after the other,
 * with fewer channels from the top down, with more from the bottom up. scratch: 4 * depth bytes. */
typedef struct {
    nst_shape out;
    nst_sums sums;
} nst_conv_1x1_layer;

void nst_conv_1x1(const int8_t *in, const nst_conv_1x1_layer *layer, int8_t *out, void *scratch, const nst_part *part);

/* The same of weights that are mostly zeros: of each channel only those blocks of four neighbours, counted from its first weight, that
 * are not all zero; the last one is filled up with zeros, and a channel has at least one (but see below).
 *
 * stream, channel after channel, in words whose first byte is the lowest:
 *     bias, (blocks - 1) * 256 + left, a word of four weights a block, multiplier, addend, and if `below` negative.
 *     The answer is ((sum << left) * multiplier >> 32) + addend - (negative if sum < 0) >> 14, clamped, sum being with bias. Where
 *     left's bit of 128 is set, it is scaled the long way instead: by multiplier and 2^(left - 192).
 * places: a byte a block, without a sign: how many blocks it lies behind the one before; the first, behind the channel's first weight.
 * out may be in as for nst_conv_1x1, and so are parts. scratch: 8 bytes for each of depth, rounded up to a multiple of 4. */
typedef struct {
    int32_t depth, channels;
    const int32_t *stream;
    const int8_t *places;
    int32_t long_ones; /* channels that are scaled the long way */
    int32_t below;     /* whether answers below the zero point are wanted */
    nst_output output;
} nst_block_sums;

typedef struct {
    nst_shape out;
    nst_block_sums sums;
} nst_conv_1x1_blocks_layer;

/* No block's weights are more than 255 together, without their signs: such a block lies there as several of the same place. A channel
 * that gives one answer to everything may have no blocks, left 0 and multiplier 0. With twice the scratch eight pixels are computed at
 * once instead of four; room: bytes of scratch. */
void nst_conv_1x1_blocks(const int8_t *in, const nst_conv_1x1_blocks_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                         int32_t room);

/* Any convolution. weights: [groups][(channels + 3) / 4][depth][4], channels and depth being a group's, depth in the order
 * [size.height][size.width][in.channels / groups]. scratch: 6 * depth bytes.
 * With one group out may lie over in (and over the image), if it begins so early that no row of it ends behind the first row of in that
 * the windows of that row read; parts are then of all channels, from the top down. */
typedef struct {
    nst_shape in, out;
    nst_window window;
    int32_t in_zero, groups;
    nst_sums sums;
} nst_conv_layer;

void nst_conv(const int8_t *in, const nst_conv_layer *layer, int8_t *out, void *scratch, const nst_part *part);

/* The first convolution, from the image's bytes, which pass through table: int8 [in.channels][256] on their way. One group. */
typedef struct {
    const int8_t *table;
    nst_conv_layer conv;
} nst_conv_image_layer;

void nst_conv_image(const uint8_t *image, const nst_conv_image_layer *layer, int8_t *out, void *scratch, const nst_part *part);

/* Each output channel reads one input channel, o / (out.channels / in.channels). weights: [out.channels][size.height * size.width].
 *
 * scratch: a plane, see nst_depthwise.h. A channel is copied into it as a whole before its answers are written, so out may be in
 * where both have as many channels, for parts of all rows in any order.
 */
typedef struct {
    nst_shape in, out;
    nst_window window;
    int32_t in_zero;
    nst_sums sums;
} nst_depthwise_layer;

void nst_depthwise(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch, const nst_part *part);
/* 3 columns, and 5, that are not dilated */
void nst_depthwise_3(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch, const nst_part *part);
void nst_depthwise_5(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch, const nst_part *part);

/* weights: [(channels + 3) / 4][depth][4]. Unlike a convolution's, a sum is scaled by a float64 and rounded once.
 * factor: one for all channels, or (per_channel) one each. */
typedef struct {
    int32_t depth, channels;
    const int8_t *weights;
    int32_t weight_zero;
    const int32_t *bias;
    const double *factor;
    int32_t per_channel;
    nst_output output;
} nst_fully_connected_layer;

void nst_fully_connected(const int8_t *in, const nst_fully_connected_layer *layer, int8_t *out);

/* ---- element by element: out may be a, or b, where that is as large as out ------------------------------------------------- */

/* Both terms on the scale 2 * a's scale / 2^20, a being the operand of the larger scale: a's term is then (a - a_zero) * 2^19. */
typedef struct {
    nst_broadcast shape;
    int32_t a_zero, b_zero;
    int32_t b_left, b_multiplier, b_shift; /* b's term: nst_scaled((b - b_zero) << b_left, ...) */
    int32_t multiplier, shift;
    nst_output output;
} nst_add_layer;

void nst_add(const int8_t *a, const int8_t *b, const nst_add_layer *layer, int8_t *out);

typedef struct {
    nst_broadcast shape;
    int32_t a_zero, b_zero;
    int32_t multiplier, shift;
    nst_output output;
} nst_mul_layer;

void nst_mul(const int8_t *a, const int8_t *b, const nst_mul_layer *layer, int8_t *out);

/* out[i] = table[in[i] + 128]: logistic, hard-swish, gelu and whatever else turns one byte into another. */
void nst_lookup(const int8_t *in, const int8_t table[256], int32_t count, int8_t *out);

/* The image's normalisation where no convolution takes it in. table: int8 [channels][256]. out may be image. */
void nst_table(const uint8_t *image, const int8_t *table, int32_t pixels, int32_t channels, int8_t *out);

/* ---- pools ----------------------------------------------------------------------------------------------------------------- */

/* Only places inside the map count. out may be in where there is no padding above and to the left: no channel looks at another, and
 * parts of one are computed from the top down. */
typedef struct {
    nst_shape in, out;
    nst_window window; /* dilation 1 */
    int32_t upwards;   /* average: halves are rounded upwards (old uint8 networks), not away from zero */
    nst_output output;
} nst_pool_layer;

void nst_average_pool(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part);
void nst_max_pool(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part);

/* in: [kept][summed][kept][summed][kept], each of these sizes may be 1. out: the three that are kept. */
typedef struct {
    int32_t size[5];
    int32_t in_zero;
    int32_t multiplier, shift; /* scaling and division at once */
    nst_output output;
} nst_mean_layer;

void nst_mean(const int8_t *in, const nst_mean_layer *layer, int8_t *out);

/* ---- moving bytes ---------------------------------------------------------------------------------------------------------- */

/* Rows of zeros (in_zero) above, below, left and right. */
typedef struct {
    nst_shape in, out;
    nst_pair pad;
    int32_t in_zero;
} nst_pad_layer;

void nst_pad(const int8_t *in, const nst_pad_layer *layer, int8_t *out);

/* Row r of out holds of row rows[r] of in the places columns[0], columns[1], ... */
typedef struct {
    nst_shape in, out;
    const int32_t *rows, *columns;
} nst_resize_nearest_layer;

void nst_resize_nearest(const int8_t *in, const nst_resize_nearest_layer *layer, int8_t *out);

/* Side by side: `rows` times sizes[0] bytes of the first part, sizes[1] of the second ...
 * tables: 256 bytes for a part of another scale than the output's, 0 for the others. */
typedef struct {
    int32_t rows, parts;
    const int32_t *sizes;
    const int8_t *const *tables;
} nst_concat_layer;

void nst_concat(const int8_t *const *in, const nst_concat_layer *layer, int8_t *out);

/* Of each of `rows` rows of in_size bytes, `size` from `first` on. */
typedef struct {
    int32_t rows, in_size, first, size;
} nst_slice_layer;

void nst_slice(const int8_t *in, const nst_slice_layer *layer, int8_t *out);

/* ---- ends ------------------------------------------------------------------------------------------------------------------ */

/* Along rows of `depth`. exponentials: int32 [256], e^(-d * input scale * beta) * 2^31 for the differences d to a row's largest.
 * The output's scale is 1 / 256, its zero point -128. */
typedef struct {
    int32_t rows, depth;
    const int32_t *exponentials;
} nst_softmax_layer;

void nst_softmax(const int8_t *in, const nst_softmax_layer *layer, int8_t *out);

void nst_dequantize(const int8_t *in, int32_t count, int32_t zero, float scale, float *out);

/* The head, in float32: out[c] = bias[c] + scale * sum over k of weights[c][k] * (in[k] - zero). */
typedef struct {
    int32_t depth, classes;
    int32_t zero;
    float scale;
    const float *weights; /* [classes][depth] */
    const float *bias;
} nst_head_layer;

void nst_head(const int8_t *in, const nst_head_layer *layer, float *out);

#endif
