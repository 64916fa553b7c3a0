/* The heart of the convolutions: patches against all output channels. */
#ifndef NST_PRODUCTS_H
#define NST_PRODUCTS_H

#include "nst_kernels.h"

/* Some channels of a group, counted from its own first one. weights: [groups][(channels + 3) / 4][depth][4]. */
nst_sums nst_some_channels(const nst_sums *sums, int32_t group, nst_range channels);

/* Two patches of sums->depth bytes each, their answers `step` bytes apart, or one. weights: [(channels + 3) / 4][depth][4].
 * work: sums->depth numbers. Both patches are in it before an answer is written, so out may lie over them. */
void nst_products_2(const int8_t *x0, const int8_t *x1, const nst_sums *sums, int8_t *out, int32_t step, int32_t *work);
void nst_products_1(const int8_t *x, const nst_sums *sums, int8_t *out);

/* Four sums of one patch of `depth` bytes. w: [depth][4]. */
void nst_dot_1x4(const int8_t *x, const int8_t *w, int32_t depth, int32_t sums[4]);

/* What a zero point of the weights adds to every sum of a patch. */
int32_t nst_weight_zero_term(const int8_t *x, int32_t depth, int32_t weight_zero);

#endif
