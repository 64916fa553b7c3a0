/* learn_file HEAD STEPS SAVE_EVERY: goes on from the newest whole HEAD until STEPS, on made-up embeddings, saving on the way.
 *
 * What it says of the file goes to standard error, the steps that it begins with to standard output. Exit status: 0, or 1 where
 * something failed. With HALT_BEFORE_RENAME=n in the environment it kills itself instead of its n-th rename; the test links it with
 * -Wl,--wrap=rename and -DHALTING for that. */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nestling_file.h"

enum { ITEMS = 24, BATCH = 5 };

#ifdef HALTING
int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);

int __wrap_rename(const char *from, const char *to)
{
    static int left = -1;
    const char *halt = getenv("HALT_BEFORE_RENAME");
    if (left < 0)
        left = halt ? atoi(halt) : 0;
    if (left && --left == 0)
        raise(SIGKILL);
    return __real_rename(from, to);
}
#endif

int main(int count, char **arguments)
{
    char said[600];
    void *memory;
    uint32_t bytes, labels[ITEMS], places[ITEMS];
    nestling_head head;
    nestling_sample batch[BATCH];
    if (count != 4)
        return 2;
    const uint64_t steps = strtoull(arguments[2], 0, 10), every = strtoull(arguments[3], 0, 10);
    const int none = nestling_file_load(arguments[1], &memory, &bytes, &head, said, sizeof said);
    fprintf(stderr, "%s\n", said);
    if (none)
        return 1;
    nestling_head_header *header = head.header;
    printf("%llu\n", (unsigned long long)header->steps);
    fflush(stdout);
    int8_t *items = malloc(ITEMS * (size_t)header->inputs);
    float *work = malloc(BATCH * (size_t)header->max_classes * sizeof(float));
    if (!items || !work)
        return 1;
    for (uint32_t i = 0; i < ITEMS; i++) {
        labels[i] = i % header->classes;
        for (uint32_t k = 0; k < header->inputs; k++) {
            items[i * header->inputs + k] = (int8_t)((i * 37 + k * (3 + labels[i]) * 5) % 251 - 125);
        }
    }
    nestling_order order = {.items = ITEMS, .classes = header->classes, .labels = labels, .places = places};
    int failed = 0;
    while (!failed && header->steps < steps) {
        nestling_order_make(&order, header->seed, header->epoch);
        uint32_t used = 0;
        for (; used < BATCH && header->position + used < order.length; used++) {
            const uint32_t item = nestling_order_item(&order, header->position + used);
            batch[used].embedding = items + (size_t)item * header->inputs;
            batch[used].label = labels[item];
        }
        nestling_learn_step(&head, batch, used, work);
        header->position += used;
        if (header->position == order.length) {
            header->position = 0;
            header->epoch++;
        }
        if (header->steps % every == 0 || header->steps == steps)
            failed = nestling_file_save(arguments[1], &head);
    }
    if (failed)
        fprintf(stderr, "%s cannot be saved: %s\n", arguments[1], strerror(failed));
    free(items);
    free(work);
    free(memory);
    return failed != 0;
}
