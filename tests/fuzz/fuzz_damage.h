/* Chance, and damage that it does to files: for fuzz_c_readers.c. */
#ifndef FUZZ_DAMAGE_H
#define FUZZ_DAMAGE_H

#include <stddef.h>
#include <stdint.h>

enum { HEADER = 232, CRC = 4 }; /* bytes of a head */
enum { LARGE = 1 << 20 };       /* bytes that a damage may add, or more */

typedef struct {
    uint8_t *bytes;
    size_t size;
} content;

/* The same numbers follow from the same seed. */
void begin_with(uint64_t seed);

uint64_t drawn(void);
uint32_t below(uint64_t count);
int chance(uint32_t percent);

/* A copy with a few of: flips, extremes, pieces left out, put in twice or from the same file, cut. */
content damaged(const content *of, size_t most);

/* A head with fields, or what follows them, replaced; its size and its checksum are mostly made right again.
 * progress: only of what tells how far it is, which is what a training goes on with. */
content damaged_head(const content *of, int progress);

/* Features with a record changed, and its checksum made right; or damaged anyhow. */
content damaged_features(const content *of, uint32_t inputs);

#endif
