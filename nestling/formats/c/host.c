/* What host.py needs beside a folder's C: the sizes of nestling_model.h as numbers, and a way to watch the layers. */
#include "nestling_model.h"

typedef void nestling_watcher(int layer, const void *output, uint32_t bytes);

#ifndef NESTLING_SCRATCH_BYTES /* no crew computes it */
#define NESTLING_SCRATCH_BYTES 0
#endif

const int32_t nestling_sizes[] = {
    NESTLING_ARENA_BYTES,    NESTLING_INPUT_HEIGHT, NESTLING_INPUT_WIDTH, NESTLING_INPUT_CHANNELS, NESTLING_EMBEDDING,
    NESTLING_EMBEDDING_ZERO, NESTLING_CLASSES,      NESTLING_LAYERS,      NESTLING_SCRATCH_BYTES,
};
const float nestling_embedding_scale = NESTLING_EMBEDDING_SCALE;

static nestling_watcher *watcher;

void nestling_watch(nestling_watcher *called_after_each_layer)
{
    watcher = called_after_each_layer;
}

void nestling_layer_done(int layer, const void *output, uint32_t bytes)
{
    if (watcher)
        watcher(layer, output, bytes);
}
