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
#ifdef NESTLING_SCRATCH_BYTES /* a network whose kernels know instructions of this processor's own, and threads */
static nst_crew crew;
#endif
static embedder_watcher *watching;
static range of_image, of_layer[NESTLING_LAYERS];

/* Aligned memory that is kept until the program ends. */
static uint8_t *aligned(size_t bytes)
{
    uint8_t *memory = enough(0, bytes + ALIGNMENT);
    return memory + (ALIGNMENT - (uintptr_t)memory % ALIGNMENT);
}

#ifdef NESTLING_SCRATCH_BYTES

static int crew_open(int32_t threads, char *said, uint32_t said_bytes)
{
    const char *isa = getenv("NESTLING_ISA");
    crew = nst_alone();
    if (isa && *isa && !nst_kit_named(isa)) {
        int used = snprintf(said, said_bytes, "NESTLING_ISA is '%s', which this processor has not.\n  it has", isa);
        for (int32_t i = 0; nst_kit_number(i) && used > 0 && (uint32_t)used < said_bytes; i++)
            used += snprintf(said + used, said_bytes - (uint32_t)used, " %s", nst_kit_name(nst_kit_number(i)));
        return 1;
    }
    if (threads > 1) {
        crew.pool = nst_pool_open(aligned(nst_pool_bytes(threads, NESTLING_SCRATCH_BYTES)), threads, NESTLING_SCRATCH_BYTES);
        if (!crew.pool) {
            snprintf(said, said_bytes, "the system does not give %d threads.\n  ask for fewer:  --threads 1", (int)threads);
            return 1;
        }
    }
    return 0;
}

const char *embedder_isa(void)
{
    return nst_kit_name(crew.kit);
}

static const int8_t *features(const uint8_t *image)
{
    return nestling_features_by(&crew, arena, image);
}

#else

static int crew_open(int32_t threads, char *said, uint32_t said_bytes)
{
    (void)threads;
    (void)said;
    (void)said_bytes;
    return 0;
}

const char *embedder_isa(void)
{
    return "";
}

static const int8_t *features(const uint8_t *image)
{
    return nestling_features(arena, image);
}

#endif

int embedder_open(const char *head_path, const nestling_head_header *header, int32_t threads, char *said, uint32_t said_bytes)
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
    if (arena)
        return 0;
    if (crew_open(threads, said, said_bytes))
        return 1;
    arena = aligned(NESTLING_ARENA_BYTES);
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
    return features(image);
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
