/* The network of net_runner, from an image to its int8 embedding: embedder_c.c runs the network's printed C; another runtime's file
 * may take its place. There is one network in a program, and it computes one image at a time. */
#ifndef EMBEDDER_H
#define EMBEDDER_H

#include <stdint.h>

#include "nestling_head.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The runtime's name, shorter than NESTLING_RUNTIME_BYTES. Embeddings of two runtimes may differ in a few steps. */
extern const char embedder_name[];

/* Makes the network ready. head_path: of the head, for files that lie beside it; header: the head's, whose image, graph and length of the
 * embedding the network must have. threads: that compute an image together, for a runtime that leaves that to us. Returns 0, or 1 with
 * the reason in `said`. */
int embedder_open(const char *head_path, const nestling_head_header *header, int32_t threads, char *said, uint32_t said_bytes);

/* Of the processor's instructions those that compute the network, by the name that NESTLING_ISA has for them; "" where they are not told. */
const char *embedder_isa(void);

/* image: [image_height][image_width][image_channels] as the header says. Returns the embedding, [inputs], until the next call; 0 where
 * the network could not be run. */
const int8_t *embedder_run(const uint8_t *image);

/* A layer that was run: the least and the largest number that it read (of the image 0 to 255, else int8) and that it answered. */
typedef struct {
    int number;
    const char *name, *kind;
    int read_least, read_most, least, most;
} embedder_layer;

typedef void embedder_watcher(const embedder_layer *layer);

/* From now on embedder_run calls the watcher after each layer, in order; 0: no more. A runtime that cannot see its layers never does. */
void embedder_watch(embedder_watcher *watcher);

#ifdef __cplusplus
}
#endif
#endif
