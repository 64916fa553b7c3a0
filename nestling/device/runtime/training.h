/* A training run of net_runner: batches, accuracies, checkpoints, resuming. */
#ifndef TRAINING_H
#define TRAINING_H

#include "embedding.h"
#include "folder.h"
#include "nestling_head.h"

/* What is learned from, in its order: photographs by (label, fingerprint), then replayed embeddings. Or what is asked. */
typedef struct {
    uint32_t count;
    nestling_sample *samples; /* [count] */
    uint32_t photographs;     /* the first of them; the rest is replayed */
    uint8_t digest[32];       /* SHA-256 of what they are */
    int8_t *replayed;         /* their embeddings, copied: the head's memory may be another one later */
} items;

/* Of one part, those that have an embedding. replay: with those embeddings of the head's store that are no copies of them. */
items items_of(const folder *from, const embeddings *of, part part, const nestling_head *head, int replay);
void items_free(items *some);

/* A head and the memory that it lies in, of malloc. */
typedef struct {
    void *memory;
    nestling_head head;
} held_head;

typedef struct {
    const char *output;
    uint32_t cycles, save_every;
    float stop_accuracy;
} run_settings;

/* The share of items that the head answers rightly. items > 0. */
float accuracy(const nestling_head *head, const items *asked);

/* Makes the head ready to begin a training on these items: moments and position begin anew. optimizer: NESTLING_SGD or NESTLING_ADAM.
 * added: classes that it did not know are among them, so that the classes take turns. Returns 0, or 1 where it would be too large. */
int training_begin(held_head *held, const items *train, uint32_t optimizer, float rate, uint32_t batch, int added);

/* Where `output` holds a whole training of the same items with the same settings, that takes the place of the head. What happened is told
 * on stderr. */
void training_resume(held_head *held, const char *output);

/* Cycles of about ten epochs, at least 300. */
uint32_t training_enough(const nestling_head *head, const items *train);

/* Learns and prints, until the cycles are over, val is good enough, or told() says so; saves on the way and at the end.
 * Returns 0, or 1 with a line on stderr where the head cannot be saved. */
int training_run(nestling_head *head, const items *train, const items *val, const run_settings *settings, int (*told)(void));

#endif
