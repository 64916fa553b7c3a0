/* Embeddings that were computed before, in a file that only grows: of one graph, one runtime and one way to make the input.
 * A header; then a record for each: fingerprint (8 bytes), embedding (int8 [inputs]), CRC-32 of both (little-endian). */
#ifndef CACHE_H
#define CACHE_H

#include <stdint.h>

#include "folder.h"
#include "nestling_head.h"

typedef struct {
    int file;                       /* -1 where it cannot be written */
    uint32_t inputs, count, record; /* record: bytes of one */
    uint8_t *records;               /* [count][record], sorted by fingerprint */
} cache;

/* Opens the file, or begins it anew where it is of something else; what is damaged at its end is cut off. A file that cannot be used is
 * no error: then said tells why, else it is "". */
cache cache_open(const char *path, const nestling_head_header *header, const char *runtime, char *said, uint32_t said_bytes);

/* The embedding, [inputs], or 0 where there is none from before cache_open. */
const int8_t *cache_find(const cache *from, const uint8_t fingerprint[FINGERPRINT]);

void cache_add(cache *to, const uint8_t fingerprint[FINGERPRINT], const int8_t *embedding);

void cache_close(cache *done);

#endif
