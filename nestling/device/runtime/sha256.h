/* SHA-256, FIPS 180-4. */
#ifndef SHA256_H
#define SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t state[8];
    uint64_t count;    /* bytes so far */
    uint8_t block[64]; /* its first count % 64 bytes wait to be taken in */
} sha256_hash;

void sha256_begin(sha256_hash *hash);
void sha256_add(sha256_hash *hash, const void *bytes, size_t count);
void sha256_end(sha256_hash *hash, uint8_t digest[32]);

#endif
