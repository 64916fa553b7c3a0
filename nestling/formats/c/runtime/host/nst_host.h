/* Kernels for processors with an operating system: 64-bit x86 and Arm. Each divides its layer among a crew's threads, and leaves the
 * arithmetic to the crew's kit. The answers are those of nst_kernels.h's; out never lies over in but where that is said. */
#ifndef NST_HOST_H
#define NST_HOST_H

#include "nst_crew.h"
#include "nst_kernels.h"

enum { NST_GROUP = 16, NST_ROWS = 32 }; /* channels that lie side by side; pixels that are made ready at once */

/* What turns numbers into answers: y[o] = clamp(zero + scaled(bias[o] + sum over r and k of x[r][k] * w[o][r][k])), r being one of `runs`
 * runs of `depth` numbers that lie side by side: a window's rows.
 *
 * Short way: the whole number nearest to (float)sum * factor + addend, the addend with the sum's sign (0 has none), fused, halves to
 * even; then zero is added and the whole is clamped. The generator has proven for each channel that this is the same byte for every
 * sum but a few odd ones, for which it is one further from zero. Where even that is not so, factor is 0, and multiplier and shift say the long way
 * (see nst_scaled() in nst_fixed.h); long_ones: how many such channels there are. No product is 2^30 or more.
 *
 * bias_of_bytes: bias for inputs that are counted from -128, x + 128.
 * ends: [2 + odd_ones][channels], a factor's and an addend's bits, then odd sums, INT32_MIN where a channel has fewer.
 * All arrays have as many channels as there are, rounded up to a multiple of 16; what is behind them is 0. */
typedef struct {
    int32_t runs, depth, channels;
    const int8_t *weights;
    const int32_t *bias, *bias_of_bytes, *ends;
    int32_t odd_ones, long_ones;
    const int32_t *multiplier;
    const int8_t *shift;
    nst_output output;
} nst_host_sums;

/* Whether a channel goes the long way. */
static inline int nst_is_long(const nst_host_sums *sums, int32_t o)
{
    return sums->ends[o] == 0;
}

/* 1x1, stride 1. weights: [(channels + 15) / 16][runs][(depth + 3) / 4][16][4], zeros where there are none.
 * scratch: NST_ROWS * 2 * (depth rounded up to 4) + 64 bytes. */
typedef struct {
    nst_shape out;
    nst_host_sums sums;
} nst_conv_1x1_host_layer;

void nst_conv_1x1_host(const int8_t *in, const nst_conv_1x1_host_layer *layer, int8_t *out, void *scratch, const nst_crew *crew);

/* 1x1 of weights that are mostly zeros: of each channel only those blocks of four neighbours, counted from its first weight, that are not
 * all zero. sums.weights: the blocks, channel after channel; channel o's are those from begins[o] to before begins[o + 1]. places: of
 * each block, which it is. No channel goes the long way. scratch: see nst_conv_1x1_blocks_host.c. */
typedef struct {
    nst_shape out;
    nst_host_sums sums;
    const int32_t *begins; /* [channels + 1] */
    const int16_t *places;
} nst_conv_1x1_blocks_host_layer;

void nst_conv_1x1_blocks_host(const int8_t *in, const nst_conv_1x1_blocks_host_layer *layer, int8_t *out, void *scratch,
                              const nst_crew *crew);

/* Any convolution of one group; weights as for 1x1. runs: [size.height], depth [size.width][in.channels]; of windows whose columns are
 * not side by side (dilation) [size.height][size.width] and [in.channels].
 * scratch: see nst_conv_host.c. */
typedef struct {
    nst_shape in, out;
    nst_window window;
    int32_t in_zero;
    nst_host_sums sums;
} nst_conv_host_layer;

void nst_conv_host(const int8_t *in, const nst_conv_host_layer *layer, int8_t *out, void *scratch, const nst_crew *crew);

/* From the image's bytes, through table: int8 [in.channels][256]. */
typedef struct {
    const int8_t *table;
    nst_conv_host_layer conv;
} nst_conv_image_host_layer;

void nst_conv_image_host(const uint8_t *image, const nst_conv_image_host_layer *layer, int8_t *out, void *scratch,
                         const nst_crew *crew);

/* A channel a group, as many out as in, a multiple of 8. weights: [runs][channels], runs = size.height * size.width, depth 1.
 * scratch: see nst_depthwise_host.c. */
typedef struct {
    nst_shape in, out;
    nst_window window;
    int32_t in_zero;
    nst_host_sums sums;
} nst_depthwise_host_layer;

void nst_depthwise_host(const int8_t *in, const nst_depthwise_host_layer *layer, int8_t *out, void *scratch, const nst_crew *crew);

/* ---- element by element: out may be a, or b, where that is as large as out ------------------------------------------------- */

/* Two activations of one shape: clamp((a * a_factor + b * b_factor + addend >> shift) + low), and odd_more[i] more for the i-th of
 * odd_ones pairs of bytes, odd_a[i] and odd_b[i]. The generator has tried all pairs. */
typedef struct {
    int32_t count, a_factor, b_factor, addend, shift, low, high, odd_ones;
    int32_t odd_a[8], odd_b[8], odd_more[8];
} nst_add_host_layer;

void nst_add_host(const int8_t *a, const int8_t *b, const nst_add_host_layer *layer, int8_t *out, const nst_crew *crew);

/* The whole number nearest to (float)((a - a_zero) * (b - b_zero)) * factor, halves to even, is divided by 2^right, halves away from
 * zero, moved to the zero point and clamped: the generator has proven that this is the same byte, whether or not the product is rounded
 * on its way. factor < 1. b: as many as a, or one for each of b_count channels; scratch is then nst_period(b_count) bytes. */
typedef struct {
    int32_t count, b_count, a_zero, b_zero;
    float factor;
    int32_t right;
    nst_output output;
} nst_mul_host_layer;

void nst_mul_host(const int8_t *a, const int8_t *b, const nst_mul_host_layer *layer, int8_t *out, void *scratch,
                  const nst_crew *crew);

void nst_lookup_host(const int8_t *in, const int8_t table[256], int32_t count, int8_t *out, const nst_crew *crew);

/* ---- pools: see nst_kernels.h ---------------------------------------------------------------------------------------------- */

/* Halves away from zero, at most 4096 places. */
void nst_average_pool_host(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_crew *crew);
void nst_max_pool_host(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_crew *crew);

/* Of rows: size[3] is 1. */
void nst_mean_host(const int8_t *in, const nst_mean_layer *layer, int8_t *out, const nst_crew *crew);

#endif
