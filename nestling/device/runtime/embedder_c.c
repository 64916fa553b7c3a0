/* The network as printed by `nestling export --to c`, compiled with NESTLING_TRACE for embedder_watch. */
#include "embedder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "nestling_model.h"

enum { ALIGNMENT = 64, PIXELS = NESTLING_INPUT_HEIGHT * NESTLING_INPUT_WIDTH * NESTLING_INPUT_CHANNELS, DIGEST = 32 };

typedef struct {
    int least, most;
} range;

const char embedder_name[] = "c";

static uint8_t *arena;
static embedder_watcher *watching;
static range of_image, of_layer[NESTLING_LAYERS];

int embedder_open(const char *head_path, const nestling_head_header *header, char *said, uint32_t said_bytes)
{
    char wanted[2 * DIGEST + 1], here[2 * DIGEST + 1];
    as_hex(header->graph, DIGEST, wanted);
    as_hex(nestling_graph, DIGEST, here);
    if (memcmp(header->graph, nestling_graph, DIGEST) != 0) {
        snprintf(said, said_bytes,
                 "%s is for the network %s, this program runs %s.\n  pack head and program together:  nestling pack my8.nest",
                 head_path, wanted, here);
        return 1;
    }
    if (header->inputs != NESTLING_EMBEDDING || header->image_height != NESTLING_INPUT_HEIGHT ||
        header->image_width != NESTLING_INPUT_WIDTH || header->image_channels != NESTLING_INPUT_CHANNELS) {
        snprintf(said, said_bytes, "%s has %u inputs and takes images %ux%ux%u; the network gives %d and takes %dx%dx%d.",
                 head_path, (unsigned)header->inputs, (unsigned)header->image_height, (unsigned)header->image_width,
                 (unsigned)header->image_channels, NESTLING_EMBEDDING, NESTLING_INPUT_HEIGHT, NESTLING_INPUT_WIDTH,
                 NESTLING_INPUT_CHANNELS);
        return 1;
    }
    if (!arena) {
        uint8_t *memory = enough(0, NESTLING_ARENA_BYTES + ALIGNMENT); /* kept until the program ends */
        arena = memory + (ALIGNMENT - (uintptr_t)memory % ALIGNMENT);
    }
    return 0;
}

const int8_t *embedder_run(const uint8_t *image)
{
    if (watching) {
        of_image = (range){255, 0};
        for (uint32_t i = 0; i < PIXELS; i++) {
            if (image[i] < of_image.least)
                of_image.least = image[i];
            if (image[i] > of_image.most)
                of_image.most = image[i];
        }
    }
    return nestling_features(arena, image);
}

void embedder_watch(embedder_watcher *watcher)
{
    watching = watcher;
}

static range wider(range a, range b)
{
    return (range){a.least < b.least ? a.least : b.least, a.most > b.most ? a.most : b.most};
}

/* Called by the network. */
void nestling_layer_done(int layer, const void *output, uint32_t bytes)
{
    if (!watching || layer < 0)
        return;
    const nestling_layer_info *info = nestling_layers + layer;
    const int8_t *answer = output;
    range wrote = {127, -128}, read = {255, -128};
    if (bytes != (uint32_t)(info->height * info->width * info->channels))
        return; /* not int8 */
    for (uint32_t i = 0; i < bytes; i++) {
        if (answer[i] < wrote.least)
            wrote.least = answer[i];
        if (answer[i] > wrote.most)
            wrote.most = answer[i];
    }
    of_layer[layer] = wrote;
    for (int32_t i = 0; i < info->read_count; i++)
        read = wider(read, info->reads[i] < 0 ? of_image : of_layer[info->reads[i]]);
    const embedder_layer seen = {layer, info->name, info->kind, read.least, read.most, wrote.least, wrote.most};
    watching(&seen);
}
