#define _POSIX_C_SOURCE 200809L
#include "folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"
#include "images.h"
#include "sha256.h"

/* A scan under way; label, given: of the class folder that is being read. */
typedef struct {
    folder *found;
    uint32_t room; /* for photographs */
    folder_note *left_out;
    char *said;
    uint32_t said_bytes;
    const char *root;
    uint32_t label;
    part given;
} scan;

static int failed(scan *s, const char *path, const char *reason)
{
    snprintf(s->said, s->said_bytes, "%s %s", path, reason);
    return 1;
}

/* ---- files ------------------------------------------------------------------------------------------------------------------ */

static int read_photograph(void *user, const char *path)
{
    scan *s = user;
    uint8_t *content = 0, digest[32];
    size_t bytes = 0;
    const char *problem = read_whole(path, &content, &bytes);
    const char *foreign = problem ? 0 : image_foreign(content, bytes);
    if (!problem)
        problem = image_why_not(content, bytes);
    if (!problem) {
        sha256_hash hash;
        sha256_begin(&hash);
        sha256_add(&hash, content, bytes);
        sha256_end(&hash, digest);
    }
    free(content);
    if (foreign) {
        snprintf(s->said, s->said_bytes,
                 "%s is a %s file; BMP, PPM and PGM are read here.\n  nestling data prepare %s --format bmp -o %s-bmp", path,
                 foreign, s->root, s->root);
        return 1;
    }
    if (problem) {
        s->left_out(path, problem);
        return 0;
    }
    folder *f = s->found;
    if (f->count == s->room) {
        s->room = 2 * s->room + 64;
        f->photographs = enough(f->photographs, s->room * sizeof *f->photographs);
    }
    photograph *made = f->photographs + f->count++;
    *made = (photograph){.path = joined("", path), .label = s->label, .given = s->given, .part = NOT_GIVEN};
    memcpy(made->fingerprint, digest, FINGERPRINT);
    return 0;
}

/* ---- classes ---------------------------------------------------------------------------------------------------------------- */

/* UTF-8 (RFC 3629), without control characters: a label is a line of a file. */
static int can_be_a_label(const char *name)
{
    const uint8_t *at = (const uint8_t *)name;
    while (*at) {
        const int more = *at < 0x80                  ? 0
                         : *at >= 0xc2 && *at < 0xe0 ? 1
                         : (*at & 0xf0) == 0xe0      ? 2
                         : *at >= 0xf0 && *at < 0xf5 ? 3
                                                     : -1;
        if (more < 0 || *at < 0x20)
            return 0;
        if ((*at == 0xe0 && at[1] < 0xa0) || (*at == 0xed && at[1] > 0x9f))
            return 0; /* too long; a surrogate */
        if ((*at == 0xf0 && at[1] < 0x90) || (*at == 0xf4 && at[1] > 0x8f))
            return 0; /* too long; beyond Unicode */
        for (int i = 1; i <= more; i++)
            if ((at[i] & 0xc0) != 0x80)
                return 0;
        at += more + 1;
    }
    return 1;
}

static uint32_t label_of(const folder *f, const char *name)
{
    uint32_t label = 0;
    while (label < f->class_count && strcmp(f->classes[label], name) != 0)
        label++;
    return label;
}

/* ---- copies ----------------------------------------------------------------------------------------------------------------- */

static int by_path(const void *a, const void *b)
{
    return path_order(((const photograph *)a)->path, ((const photograph *)b)->path);
}

static int by_fingerprint(const void *a, const void *b)
{
    const photograph *x = *(photograph *const *)a, *y = *(photograph *const *)b;
    const int order = memcmp(x->fingerprint, y->fingerprint, FINGERPRINT);
    return order ? order : path_order(x->path, y->path);
}

/* Photographs [0, count) are one photograph; those that are not to be used lose their path. */
static void one_side_each(photograph **same, uint32_t count, folder_note *left_out)
{
    part last = same[0]->given;
    int classes = 1;
    for (uint32_t i = 1; i < count; i++) {
        classes += same[i]->label != same[0]->label;
        if (same[i]->given > last)
            last = same[i]->given;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        const int other_part = same[i]->given != last;
        if (classes > 1)
            left_out(same[i]->path, "the same photograph is also in another class");
        else if (other_part)
            left_out(same[i]->path, "the same photograph is also in test, or in val");
        if (classes == 1 && !other_part && kept++ == 0)
            continue;
        free(same[i]->path);
        same[i]->path = 0;
    }
}

static void without_copies(folder *f, folder_note *left_out)
{
    if (!f->count)
        return;
    qsort(f->photographs, f->count, sizeof *f->photographs, by_path);
    photograph **sorted = enough(0, f->count * sizeof *sorted);
    for (uint32_t i = 0; i < f->count; i++)
        sorted[i] = f->photographs + i;
    qsort(sorted, f->count, sizeof *sorted, by_fingerprint);
    for (uint32_t i = 0, next; i < f->count; i = next) {
        for (next = i + 1; next < f->count && !memcmp(sorted[i]->fingerprint, sorted[next]->fingerprint, FINGERPRINT);)
            next++;
        if (next - i > 1)
            one_side_each(sorted + i, next - i, left_out);
    }
    free(sorted);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < f->count; i++)
        if (f->photographs[i].path)
            f->photographs[kept++] = f->photographs[i];
    f->count = kept;
}

/* ---- the whole -------------------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names of the class folders, each once, sorted. */
static int name_classes(scan *s, const layout *l)
{
    folder *f = s->found;
    list names = {0};
    for (uint32_t i = 0; i < l->count; i++)
        list_add(&names, joined("", name_of(l->folders[i].path)));
    if (names.count)
        qsort(names.names, names.count, sizeof *names.names, by_name);
    f->classes = enough(0, (names.count + 1) * sizeof *f->classes);
    for (uint32_t i = 0; i < names.count; i++)
        if (i == 0 || strcmp(names.names[i], names.names[i - 1]) != 0)
            f->classes[f->class_count++] = joined("", names.names[i]);
    list_free(&names);
    for (uint32_t i = 0; i < f->class_count; i++)
        if (!can_be_a_label(f->classes[i]))
            return failed(s, s->root, "has a class folder whose name is not UTF-8 or has a control character in it; rename it.");
    return 0;
}

int folder_scan(const char *root, layout_knows *knows, const void *of, folder *found, folder_note *left_out, char *said,
                uint32_t said_bytes)
{
    *found = (folder){0};
    scan s = {.found = found, .left_out = left_out, .said = said, .said_bytes = said_bytes, .root = root};
    if (access(root, F_OK))
        return failed(&s, root, "does not exist; expected a folder of photographs.");
    layout l;
    int stopped = layout_read(root, knows, of, &l, left_out, said, said_bytes);
    if (!stopped)
        stopped = name_classes(&s, &l);
    for (uint32_t i = 0; i < l.count && !stopped; i++) {
        s.label = label_of(found, name_of(l.folders[i].path));
        s.given = l.folders[i].given;
        stopped = walk_files(root, l.folders[i].path, read_photograph, &s, left_out);
    }
    if (!stopped)
        without_copies(found, left_out);
    if (!stopped && !found->count)
        stopped = failed(&s, root, "holds no usable image; put those of each class into a folder of its own:  good/  bad/");
    layout_free(&l);
    return stopped;
}

void folder_free(folder *found)
{
    for (uint32_t i = 0; i < found->class_count; i++)
        free(found->classes[i]);
    for (uint32_t i = 0; i < found->count; i++)
        free(found->photographs[i].path);
    free(found->classes);
    free(found->photographs);
    *found = (folder){0};
}
