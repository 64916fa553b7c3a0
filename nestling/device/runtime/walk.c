#define _POSIX_C_SOURCE 200809L
#include "walk.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common.h"

typedef struct {
    dev_t device;
    ino_t number;
} place;

/* Folders: the first `above` are those that others lie in. */
typedef struct {
    place *at;
    uint32_t count, above;
} places;

typedef struct {
    places seen;
    walk_file *each;
    void *user;
    walk_note *left_out;
} walk;

static const char LOOP[] = "a link back to a folder above it";

/* ---- lists ------------------------------------------------------------------------------------------------------------------ */

void list_add(list *l, char *name)
{
    l->names = enough(l->names, (l->count + 1) * sizeof *l->names);
    l->names[l->count++] = name;
}

void list_free(list *l)
{
    for (uint32_t i = 0; i < l->count; i++)
        free(l->names[i]);
    free(l->names);
    *l = (list){0};
}

int list_has(const list *l, const char *name)
{
    for (uint32_t i = 0; i < l->count; i++)
        if (strcmp(l->names[i], name) == 0)
            return 1;
    return 0;
}

const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* ---- places ----------------------------------------------------------------------------------------------------------------- */

static int folder_at(const char *path, place *where)
{
    struct stat found;
    if (stat(path, &found) || !S_ISDIR(found.st_mode))
        return 0;
    *where = (place){found.st_dev, found.st_ino};
    return 1;
}

int walk_is_folder(const char *path)
{
    place where;
    return folder_at(path, &where);
}

static int same(place a, place b)
{
    return a.device == b.device && a.number == b.number;
}

static void remember(places *p, place where)
{
    p->at = enough(p->at, (p->count + 1) * sizeof *p->at);
    p->at[p->count++] = where;
}

/* Remembers a folder and all that it lies in: a link to one of them leads back. */
static void remember_above(places *p, const char *path)
{
    char *at = joined("", path);
    place here, last = {0};
    for (int first = 1; folder_at(at, &here) && (first || !same(here, last)); first = 0) {
        remember(p, last = here);
        char *up = joined(at, "..");
        free(at);
        at = up;
    }
    free(at);
    p->above = p->count;
}

/* Where the folder stands among those that were seen, or their count. */
static uint32_t position(const places *p, place where)
{
    uint32_t at = 0;
    while (at < p->count && !same(p->at[at], where))
        at++;
    return at;
}

/* ---- folders ---------------------------------------------------------------------------------------------------------------- */

static int by_path(const void *a, const void *b)
{
    return path_order(*(char *const *)a, *(char *const *)b);
}

int walk_listed(const char *path, list *made)
{
    *made = (list){0};
    DIR *opened = opendir(path);
    if (!opened)
        return errno;
    for (struct dirent *entry; (entry = readdir(opened));)
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, "__MACOSX") != 0)
            list_add(made, joined(path, entry->d_name));
    closedir(opened);
    if (made->count)
        qsort(made->names, made->count, sizeof *made->names, by_path);
    return 0;
}

int walk_folders(const char *path, list *made, walk_note *left_out)
{
    list all;
    places above = {0};
    *made = (list){0};
    const int problem = walk_listed(path, &all);
    if (problem)
        return problem;
    remember_above(&above, path);
    for (uint32_t i = 0; i < all.count; i++) {
        place where;
        if (!folder_at(all.names[i], &where))
            continue;
        if (position(&above, where) == above.count)
            list_add(made, joined("", all.names[i]));
        else if (left_out)
            left_out(all.names[i], LOOP);
    }
    free(above.at);
    list_free(&all);
    return 0;
}

/* ---- files ------------------------------------------------------------------------------------------------------------------ */

static int files_in(walk *w, const char *path)
{
    list paths;
    const int problem = walk_listed(path, &paths);
    if (problem && w->left_out)
        w->left_out(path, strerror(problem));
    int ended = 0;
    for (uint32_t i = 0; i < paths.count && !ended; i++) {
        place where;
        if (!folder_at(paths.names[i], &where)) {
            ended = w->each(w->user, paths.names[i]);
            continue;
        }
        const uint32_t at = position(&w->seen, where);
        if (at == w->seen.count) {
            remember(&w->seen, where);
            ended = files_in(w, paths.names[i]);
        } else if (w->left_out) {
            w->left_out(paths.names[i], at < w->seen.above ? LOOP : "a link to a folder that is read already");
        }
    }
    list_free(&paths);
    return ended;
}

int walk_files(const char *root, const char *folder, walk_file *each, void *user, walk_note *left_out)
{
    walk w = {.each = each, .user = user, .left_out = left_out};
    remember_above(&w.seen, root);
    remember_above(&w.seen, folder);
    const int ended = files_in(&w, folder);
    free(w.seen.at);
    return ended;
}
