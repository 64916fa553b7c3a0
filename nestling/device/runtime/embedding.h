/* From photographs to embeddings. */
#ifndef EMBEDDING_H
#define EMBEDDING_H

#include "cache.h"
#include "folder.h"
#include "nestling_head.h"

typedef struct {
    int8_t *rows;  /* [photographs][inputs] */
    uint8_t *have; /* [photographs]: 1 where there is one */
} embeddings;

/* Embeddings of the photographs of the parts that are wanted, [PARTS], from the cache or by the embedder, which is open; those that cannot
 * be decoded are named by left_out. A line on stderr tells how far it is, where it takes longer than two seconds.
 * verbose: prints what each layer answers to the first photograph. told: asked before each photograph; nonzero ends it.
 * Returns 0; 1 where it was told to end or the embedder failed. */
int embed(const folder *from, const nestling_head_header *header, const int *wanted, cache *known, folder_note *left_out,
          int verbose, int (*told)(void), embeddings *made);

#endif
