/* A network small enough to be checked by hand, with the interface of those that are generated. */
#ifndef NESTLING_MODEL_H
#define NESTLING_MODEL_H

#include <stdint.h>

#define NESTLING_ARENA_BYTES 4096
#define NESTLING_INPUT_HEIGHT 8
#define NESTLING_INPUT_WIDTH 6
#define NESTLING_INPUT_CHANNELS 3
#define NESTLING_EMBEDDING 6
#define NESTLING_CLASSES 2
#define NESTLING_LAYERS 3

uint8_t *nestling_input(void *arena);
const int8_t *nestling_features(void *arena, const uint8_t *image);
void nestling_predict(void *arena, const uint8_t *image, float *logits);

/* What a test may ask for: bytes on the stack, bytes of a table, an error of the sums. */
#ifndef STACK
#define STACK 100
#endif
#ifndef TABLE
#define TABLE 6
#endif
#ifndef WRONG
#define WRONG 0
#endif

#if defined(NESTLING_PROFILE) || defined(NESTLING_TRACE)
typedef struct {
    const char *name, *kind;
    int32_t height, width, channels;
    uint32_t macs;
} nestling_layer_info;
extern const nestling_layer_info nestling_layers[NESTLING_LAYERS];
void nestling_layer_done(int layer, const void *output, uint32_t bytes);
#define DONE(layer, output, bytes) nestling_layer_done(layer, output, bytes)
#else
#define DONE(layer, output, bytes) ((void)0)
#endif

#endif
