/* What the kernels for packed weights share. */
#ifndef NST_PACKED_RV32_H
#define NST_PACKED_RV32_H

#include "nst_part.h"
#include "nst_rv32.h"

/* Channels that are computed at once, from a multiple of four on. sums: theirs. next: where the next ones' packed weights begin. */
typedef struct {
    nst_rv32_sums sums;
    const int8_t *next;
} nst_rv32_some;

/* Where the packed weights of the four channels from `first` on lie. */
const int8_t *nst_rv32_packed_weights(const nst_rv32_sums *sums, int32_t first, int32_t bits);

/* These channels, whose packed weights lie there, unpacked into `room`. */
nst_rv32_some nst_rv32_unpacked(const nst_rv32_sums *sums, nst_range channels, const int8_t *packed, int32_t bits, int8_t *room);

#endif
