/* Photographs in a folder per class, and which of them are learned from. The twin of nestling/data/folders.py, with the rule of
 * nestling/data/split.py.
 *
 * data/good/a.bmp  data/bad/b.bmp                          a folder a class
 * data/train/good/a.bmp  data/val/...  data/test/...       the parts given (val, test or both may be missing; see layout.h)
 */
#ifndef FOLDER_H
#define FOLDER_H

#include <stdint.h>

#include "layout.h"

enum { FINGERPRINT = 8 }; /* bytes: the first of the SHA-256 of a file's content */

typedef struct {
    char *path;
    uint32_t label; /* index into classes */
    uint8_t fingerprint[FINGERPRINT];
    part given; /* where the folders say it, else NOT_GIVEN */
    part part;  /* see folder_divide */
} photograph;

typedef struct {
    char **classes; /* names, sorted */
    uint32_t class_count;
    photograph *photographs; /* sorted by path; of copies only the first */
    uint32_t count;
} folder;

typedef walk_note folder_note; /* called for each file that is not used */

/* Finds every image: files are judged by content, at any depth in a class folder; hidden ones are ignored, links followed. A photograph
 * that stands in two classes is left out of both; one that stands in two given parts stays in test rather than val, in val rather
 * than train. knows (may be 0): whether a class is expected, for folders that can be read in two ways.
 * Returns 0, or 1 with the reason in `said`, one or two lines. */
int folder_scan(const char *root, layout_knows *knows, const void *of, folder *found, folder_note *left_out, char *said,
                uint32_t said_bytes);

/* Sets the parts: what the file split_csv ("fingerprint,part" lines; it may be missing) says, else what the folders say; the others of
 * a class are divided among themselves, a fifth for test and for val each; fewer than three are all learned from.
 * Returns 0, or 1 with the reason in `said`. */
int folder_divide(folder *found, const char *split_csv, uint64_t seed, char *said, uint32_t said_bytes);

void folder_free(folder *found);

#endif
