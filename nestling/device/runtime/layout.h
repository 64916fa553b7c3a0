/* Which folders are classes and which are parts (train, val, test): told by their names together with what they hold.
 * The twin of nestling/data/layout.py, whose rule it is. */
#ifndef LAYOUT_H
#define LAYOUT_H

#include <stdint.h>

#include "walk.h"

typedef enum { TRAIN, VAL, TEST, PARTS, NOT_GIVEN = PARTS } part;

/* The folder of a class. given: the part of the folder above it, else NOT_GIVEN. */
typedef struct {
    char *path;
    part given;
} class_folder;

typedef struct {
    class_folder *folders; /* sorted */
    uint32_t count;
} layout;

/* Whether a class of this name is expected. */
typedef int layout_knows(const void *of, const char *name);

/* Where one reading alone gives classes that are expected, it is that one; where it cannot be told, it is refused.
 * Returns 0, or 1 with the reason in `said`. */
int layout_read(const char *root, layout_knows *knows, const void *of, layout *made, walk_note *left_out, char *said,
                uint32_t said_bytes);

void layout_free(layout *made);

#endif
