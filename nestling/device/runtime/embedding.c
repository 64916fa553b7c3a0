#define _POSIX_C_SOURCE 200809L
#include "embedding.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common.h"
#include "embedder.h"
#include "images.h"
#include "resize.h"

typedef struct {
    double begun, said; /* seconds */
    uint32_t done, of;
    int drawn; /* a line that is drawn over */
} progress;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void show(progress *p)
{
    const double now = seconds(), pause = isatty(2) ? 0.2 : 10;
    p->done++;
    if (now - p->begun < 2 || (now - p->said < pause && p->done < p->of))
        return;
    p->drawn = isatty(2);
    fprintf(stderr, p->drawn ? "\rembedding %u of %u" : "embedding %u of %u\n", (unsigned)p->done, (unsigned)p->of);
    p->said = now;
}

/* The image as the network takes it, or the reason why there is none. */
static const char *input_of(const char *path, const nestling_head_header *h, uint8_t *input)
{
    const resize_target target = {h->image_height, h->image_width, h->image_channels, h->interpolation == NESTLING_BICUBIC,
                                  h->crop};
    uint8_t *content = 0;
    size_t bytes = 0;
    image decoded = {0};
    const char *problem = read_whole(path, &content, &bytes);
    if (!problem)
        problem = image_decode(content, bytes, &decoded);
    free(content);
    if (!problem && resize(&decoded, &target, input))
        problem = "too large for the memory that is left";
    free(decoded.pixels);
    return problem;
}

static void print_layer(const embedder_layer *layer)
{
    printf("%3d  %-28s in %d..%d  out %d..%d  %s\n", layer->number, layer->kind, layer->read_least, layer->read_most, layer->least,
           layer->most, layer->name);
}

int embed(const folder *from, const nestling_head_header *header, const int *wanted, cache *known, folder_note *left_out,
          int verbose, int (*told)(void), embeddings *made)
{
    const size_t inputs = header->inputs;
    uint8_t *input = enough(0, (size_t)header->image_height * header->image_width * header->image_channels);
    *made = (embeddings){enough(0, (from->count + 1) * inputs), enough(0, from->count + 1)};
    memset(made->have, 0, from->count + 1);
    progress p = {seconds(), 0, 0, 0, 0};
    for (uint32_t i = 0; i < from->count; i++)
        p.of += wanted[from->photographs[i].part] != 0;
    int ended = 0;
    for (uint32_t i = 0; i < from->count && !ended; i++) {
        const photograph *one = from->photographs + i;
        if (!wanted[one->part])
            continue;
        if (told()) {
            ended = 1;
            break;
        }
        const int8_t *row = verbose ? 0 : cache_find(known, one->fingerprint);
        const int computed = !row;
        const char *problem = computed ? input_of(one->path, header, input) : 0;
        if (problem)
            left_out(one->path, problem);
        if (computed && !problem) {
            embedder_watch(verbose ? print_layer : 0);
            row = embedder_run(input);
            ended = !row;
            verbose = 0;
        }
        if (row) {
            memcpy(made->rows + i * inputs, row, inputs);
            made->have[i] = 1;
            if (computed && !cache_find(known, one->fingerprint))
                cache_add(known, one->fingerprint, row);
        }
        show(&p);
    }
    if (p.drawn)
        fputc('\n', stderr);
    free(input);
    return ended;
}
