/* What the kernels for packed weights share. */
#ifndef NST_PACKED_MVE_H
#define NST_PACKED_MVE_H

#include "nst_part.h"
#include "nst_products_mve.h"

/* How many of some channels can be computed at once where `bytes` are left for their stream: all, or a multiple of 4. */
int32_t nst_mve_at_once(const nst_mve_sums *sums, int32_t channels, int32_t bytes);

/* Some channels of sums, from a multiple of four on, their stream unpacked into `room`. */
nst_mve_sums nst_mve_unpacked(const nst_mve_sums *sums, nst_range channels, int32_t bits, int8_t *room);

#endif
