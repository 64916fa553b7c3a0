/* head.nst in a file system (POSIX): loading the newest whole one, and saving so that a power cut finds one.
 *
 * Beside a file X there may be X.previous, the one before it, and X.part, one that was being written. Of the three the whole one
 * with the most saves counts.
 */
#ifndef NESTLING_FILE_H
#define NESTLING_FILE_H

#include "nestling_head.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Reads the newest whole head of X, X.previous and X.part into memory that the caller frees. Returns 0, or 1 where there is none.
 * said: which was taken, and what is wrong with the others, or why there is none; "" where it is plainly X. Cut to said_bytes, at
 * least 1, its NUL included. */
int nestling_file_load(const char *path, void **memory, uint32_t *bytes, nestling_head *head, char *said, uint32_t said_bytes);

/* Seals the head, with more saves than any whole one of the three, and saves it: X.part written and fsynced, X.previous a link to
 * what was X, X.part renamed to X, the folder fsynced. Returns 0, or errno: then what was saved before is still there.
 * EDOM: its weights are not finite, as after a training that has diverged; EOVERFLOW: a field is out of its bounds. */
int nestling_file_save(const char *path, nestling_head *head);

#ifdef __cplusplus
}
#endif
#endif
