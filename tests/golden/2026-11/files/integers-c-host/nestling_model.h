/* nestling: 0.09 million multiply-accumulates, printed by nestling.
 *
 * All memory is yours: an arena of NESTLING_ARENA_BYTES, aligned to 16 bytes. Nothing is kept between two calls but what lies
 * in it, so several arenas may be used at once.
 */
#ifndef NESTLING_MODEL_H
#define NESTLING_MODEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NESTLING_ARENA_BYTES 2048
#define NESTLING_INPUT_HEIGHT 16
#define NESTLING_INPUT_WIDTH 16
#define NESTLING_INPUT_CHANNELS 3
#define NESTLING_EMBEDDING 16
#define NESTLING_EMBEDDING_SCALE 0.022050912f /* value = scale * (q - zero) */
#define NESTLING_EMBEDDING_ZERO (-31)
#define NESTLING_CLASSES 2
#define NESTLING_LAYERS 19

extern const char *const nestling_labels[NESTLING_CLASSES];

/* SHA-256 of the int8 Graph that makes the embedding: a head.nst says for which one it is. Zeros where that is not known. */
extern const uint8_t nestling_graph[32];

/* Where the image, uint8 [height, width, channels], may be written in the arena. It is overwritten on the way. */
uint8_t *nestling_input(void *arena);

/* The embedding, int8 [NESTLING_EMBEDDING], what the last dense layer reads; in the arena, until the next call.
 * image: anywhere, or nestling_input(arena). */
const int8_t *nestling_features(void *arena, const uint8_t *image);

/* logits: [NESTLING_CLASSES], the scores before a softmax. */
void nestling_predict(void *arena, const uint8_t *image, float *logits);

#if defined(NESTLING_TRACE) || defined(NESTLING_PROFILE)

typedef struct {
    const char *name, *kind;
    int32_t height, width, channels; /* of the answer */
    int32_t macs;
    int32_t read_count;
    const int16_t *reads; /* [read_count]: the layers whose answers it reads, -1 for the image */
} nestling_layer_info;

extern const nestling_layer_info nestling_layers[NESTLING_LAYERS];

/* Yours: called with layer -1 before the first one, then after each with its answer. */
void nestling_layer_done(int layer, const void *output, uint32_t bytes);

#endif

#ifdef __cplusplus
}
#endif
#endif
