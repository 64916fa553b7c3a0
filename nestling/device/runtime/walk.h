/* Files and folders of a data set: in which order, and which count. The twin of nestling/data/walk.py. */
#ifndef WALK_H
#define WALK_H

#include <stdint.h>

/* Paths, or names; of malloc. */
typedef struct {
    char **names;
    uint32_t count;
} list;

/* Called for what is not used, with the reason, in words that fit behind its name. */
typedef void walk_note(const char *path, const char *reason);

/* Called for a file; what is not 0 ends the walk. */
typedef int walk_file(void *user, const char *path);

/* Takes over `name`, which is of malloc. */
void list_add(list *l, char *name);
void list_free(list *l);
int list_has(const list *l, const char *name);

/* What stands behind a path's last slash. */
const char *name_of(const char *path);

/* The paths in a folder, hidden ones aside, in path_order; of these the folders; of these without those that link back to it or above
 * it, which are noted (left_out may be 0). Each returns 0 or errno. */
int walk_listed(const char *place, list *made);
int walk_folders(const char *place, list *made, walk_note *left_out);

/* Whether a path, links followed, is a folder. */
int walk_is_folder(const char *path);

/* Every file below a folder of `root`, in path_order. A folder that several links lead to is read where it comes first.
 * Returns 0, or what `each` ended it with. left_out may be 0. */
int walk_files(const char *root, const char *folder, walk_file *each, void *user, walk_note *left_out);

#endif
