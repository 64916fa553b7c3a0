#define _POSIX_C_SOURCE 200809L
#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common.h"
#include "images.h"
#include "sha256.h"

/* Names in a folder, or paths. */
typedef struct {
    char **names;
    uint32_t count;
} list;

typedef struct {
    dev_t device;
    ino_t number;
} place;

/* A scan under way. */
typedef struct {
    folder *found;
    uint32_t room; /* for photographs */
    folder_note *left_out;
    place *seen;      /* folders of the class that is being read, after those that it and the root lie in */
    uint32_t seen_count, above; /* above: how many of the latter */
    char *said;
    uint32_t said_bytes;
    const char *root;
} scan;

static int failed(scan *s, const char *path, const char *reason) {
    snprintf(s->said, s->said_bytes, "%s %s", path, reason);
    return 1;
}

/* ---- folders ---------------------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void append(list *l, char *name) {
    l->names = enough(l->names, (l->count + 1) * sizeof *l->names);
    l->names[l->count++] = name;
}

static void let_go(list *l) {
    for (uint32_t i = 0; i < l->count; i++) free(l->names[i]);
    free(l->names);
    *l = (list){0};
}

/* The paths in a folder that are not hidden, sorted. Returns 0 or errno. */
static int listed(const char *path, list *made) {
    *made = (list){0};
    DIR *opened = opendir(path);
    if (!opened) return errno;
    for (struct dirent *entry; (entry = readdir(opened));)
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, "__MACOSX") != 0) append(made, joined(path, entry->d_name));
    closedir(opened);
    if (made->count) qsort(made->names, made->count, sizeof *made->names, by_name);
    return 0;
}

static const char *name_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int is_folder(const char *path, place *where) {
    struct stat found;
    if (stat(path, &found) || !S_ISDIR(found.st_mode)) return 0;
    *where = (place){found.st_dev, found.st_ino};
    return 1;
}

/* The folders among paths, in their order. */
static list folders_in(const char *path) {
    list all, made = {0};
    place where;
    if (listed(path, &all)) return made;
    for (uint32_t i = 0; i < all.count; i++)
        if (is_folder(all.names[i], &where)) append(&made, joined("", all.names[i]));
    let_go(&all);
    return made;
}

/* ---- files ------------------------------------------------------------------------------------------------------------------ */

static int read_photograph(scan *s, const char *path, uint32_t label, part given) {
    uint8_t *content = 0, digest[32];
    size_t bytes = 0;
    const char *problem = read_whole(path, &content, &bytes);
    const char *foreign = problem ? 0 : image_foreign(content, bytes);
    if (!problem) problem = image_why_not(content, bytes);
    if (!problem) {
        sha256_hash hash;
        sha256_begin(&hash);
        sha256_add(&hash, content, bytes);
        sha256_end(&hash, digest);
    }
    free(content);
    if (foreign) {
        snprintf(s->said, s->said_bytes,
                 "%s is a %s file; BMP, PPM and PGM are read here.\n  nestling data prepare %s --format bmp -o %s-bmp", path, foreign,
                 s->root, s->root);
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
    *made = (photograph){.path = joined("", path), .label = label, .given = given, .part = NOT_GIVEN};
    memcpy(made->fingerprint, digest, FINGERPRINT);
    return 0;
}

static int same(place a, place b) { return a.device == b.device && a.number == b.number; }

static void remember(scan *s, place where) {
    s->seen = enough(s->seen, (s->seen_count + 1) * sizeof *s->seen);
    s->seen[s->seen_count++] = where;
}

/* Remembers a folder and all that it lies in: a link to one of them leads back. */
static void remember_above(scan *s, const char *path) {
    char *at = joined("", path);
    place here, last = {0};
    for (int first = 1; is_folder(at, &here) && (first || !same(here, last)); first = 0) {
        remember(s, last = here);
        char *up = joined(at, "..");
        free(at);
        at = up;
    }
    free(at);
}

/* Why this folder is not read (again) for this class, or 0; then it is remembered. */
static const char *not_again(scan *s, place where) {
    for (uint32_t i = 0; i < s->seen_count; i++)
        if (same(s->seen[i], where)) return i < s->above ? "a link back to a folder above it" : "a link to a folder that is read already";
    remember(s, where);
    return 0;
}

static int read_class(scan *s, const char *path, uint32_t label, part given) {
    list paths;
    const int problem = listed(path, &paths);
    if (problem) s->left_out(path, strerror(problem));
    int stopped = 0;
    for (uint32_t i = 0; i < paths.count && !stopped; i++) {
        place where;
        const int deeper = is_folder(paths.names[i], &where);
        const char *why_not = deeper ? not_again(s, where) : 0;
        if (why_not) s->left_out(paths.names[i], why_not);
        else if (deeper) stopped = read_class(s, paths.names[i], label, given);
        else stopped = read_photograph(s, paths.names[i], label, given);
    }
    let_go(&paths);
    return stopped;
}

/* ---- classes ---------------------------------------------------------------------------------------------------------------- */

static part part_of_folder(const char *name) {
    static const struct {
        const char *name;
        part part;
    } known[] = {{"train", TRAIN}, {"val", VAL}, {"valid", VAL}, {"validation", VAL}, {"test", TEST}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i].name) == 0) return known[i].part;
    return NOT_GIVEN;
}

/* Whether the folders are train/ and at most val/ and test/, and hold the classes. */
static int parts_are_given(const list *top) {
    int trains = 0;
    for (uint32_t i = 0; i < top->count; i++) {
        if (part_of_folder(name_of(top->names[i])) == NOT_GIVEN) return 0;
        if (strcmp(name_of(top->names[i]), "train") != 0) continue;
        list inside = folders_in(top->names[i]);
        trains = inside.count > 0;
        let_go(&inside);
    }
    return trains;
}

/* UTF-8 (RFC 3629), without control characters: a label is a line of a file. */
static int can_be_a_label(const char *name) {
    const uint8_t *at = (const uint8_t *)name;
    while (*at) {
        const int more = *at < 0x80 ? 0 : *at >= 0xc2 && *at < 0xe0 ? 1 : (*at & 0xf0) == 0xe0 ? 2 : *at >= 0xf0 && *at < 0xf5 ? 3 : -1;
        if (more < 0 || *at < 0x20) return 0;
        if ((*at == 0xe0 && at[1] < 0xa0) || (*at == 0xed && at[1] > 0x9f)) return 0; /* too long; a surrogate */
        if ((*at == 0xf0 && at[1] < 0x90) || (*at == 0xf4 && at[1] > 0x8f)) return 0; /* too long; beyond Unicode */
        for (int i = 1; i <= more; i++)
            if ((at[i] & 0xc0) != 0x80) return 0;
        at += more + 1;
    }
    return 1;
}

static uint32_t label_of(const folder *f, const char *name) {
    uint32_t label = 0;
    while (label < f->class_count && strcmp(f->classes[label], name) != 0) label++;
    return label;
}

/* ---- copies ----------------------------------------------------------------------------------------------------------------- */

static int by_path(const void *a, const void *b) { return path_order(((const photograph *)a)->path, ((const photograph *)b)->path); }

static int by_fingerprint(const void *a, const void *b) {
    const photograph *x = *(photograph *const *)a, *y = *(photograph *const *)b;
    const int order = memcmp(x->fingerprint, y->fingerprint, FINGERPRINT);
    return order ? order : path_order(x->path, y->path);
}

/* Photographs [0, count) are one photograph; those that are not to be used lose their path. */
static void one_side_each(photograph **same, uint32_t count, folder_note *left_out) {
    part last = same[0]->given;
    int classes = 1;
    for (uint32_t i = 1; i < count; i++) {
        classes += same[i]->label != same[0]->label;
        if (same[i]->given > last) last = same[i]->given;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        const int other_part = same[i]->given != last;
        if (classes > 1) left_out(same[i]->path, "the same photograph is also in another class");
        else if (other_part) left_out(same[i]->path, "the same photograph is also in test, or in val");
        if (classes == 1 && !other_part && kept++ == 0) continue;
        free(same[i]->path);
        same[i]->path = 0;
    }
}

static void without_copies(folder *f, folder_note *left_out) {
    if (!f->count) return;
    qsort(f->photographs, f->count, sizeof *f->photographs, by_path);
    photograph **sorted = enough(0, f->count * sizeof *sorted);
    for (uint32_t i = 0; i < f->count; i++) sorted[i] = f->photographs + i;
    qsort(sorted, f->count, sizeof *sorted, by_fingerprint);
    for (uint32_t i = 0, next; i < f->count; i = next) {
        for (next = i + 1; next < f->count && !memcmp(sorted[i]->fingerprint, sorted[next]->fingerprint, FINGERPRINT);) next++;
        if (next - i > 1) one_side_each(sorted + i, next - i, left_out);
    }
    free(sorted);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < f->count; i++)
        if (f->photographs[i].path) f->photographs[kept++] = f->photographs[i];
    f->count = kept;
}

/* ---- the whole -------------------------------------------------------------------------------------------------------------- */

static int scan_parts(scan *s, const list *parts, const part *given) {
    folder *f = s->found;
    list names = {0};
    for (uint32_t i = 0; i < parts->count; i++) append(&names, joined("", name_of(parts->names[i])));
    if (names.count) qsort(names.names, names.count, sizeof *names.names, by_name);
    f->classes = enough(0, (names.count + 1) * sizeof *f->classes);
    for (uint32_t i = 0; i < names.count; i++)
        if (i == 0 || strcmp(names.names[i], names.names[i - 1]) != 0) f->classes[f->class_count++] = joined("", names.names[i]);
    let_go(&names);
    for (uint32_t i = 0; i < f->class_count; i++)
        if (!can_be_a_label(f->classes[i]))
            return failed(s, s->root, "has a class folder whose name is not UTF-8 or has a control character in it; rename it.");
    int stopped = 0;
    for (uint32_t i = 0; i < parts->count && !stopped; i++) {
        place where;
        const char *why_not = 0;
        s->seen_count = 0;
        remember_above(s, s->root); /* a link up there would put all classes into one */
        s->above = s->seen_count;
        if (is_folder(parts->names[i], &where)) why_not = not_again(s, where);
        if (why_not) s->left_out(parts->names[i], why_not);
        else {
            remember_above(s, parts->names[i]);
            s->above = s->seen_count;
            stopped = read_class(s, parts->names[i], label_of(f, name_of(parts->names[i])), given[i]);
        }
    }
    return stopped;
}

int folder_scan(const char *root, folder *found, folder_note *left_out, char *said, uint32_t said_bytes) {
    *found = (folder){0};
    scan s = {.found = found, .left_out = left_out, .said = said, .said_bytes = said_bytes, .root = root};
    list top, classes = {0};
    const int problem = listed(root, &top);
    let_go(&top);
    if (problem) return failed(&s, root, problem == ENOENT ? "does not exist; expected a folder of photographs." : strerror(problem));
    top = folders_in(root);
    const int given = parts_are_given(&top);
    part *parts = enough(0, sizeof *parts);
    for (uint32_t i = 0; i < top.count; i++) {
        list inside = {0};
        if (given) inside = folders_in(top.names[i]);
        else append(&inside, joined("", top.names[i]));
        for (uint32_t k = 0; k < inside.count; k++) {
            parts = enough(parts, (classes.count + 1) * sizeof *parts);
            parts[classes.count] = given ? part_of_folder(name_of(top.names[i])) : NOT_GIVEN;
            append(&classes, joined("", inside.names[k]));
        }
        let_go(&inside);
    }
    int stopped = scan_parts(&s, &classes, parts);
    if (!stopped) without_copies(found, left_out);
    if (!stopped && !found->count)
        stopped = failed(&s, root, "holds no usable image; put those of each class into a folder of its own:  good/  bad/");
    let_go(&classes);
    let_go(&top);
    free(parts);
    free(s.seen);
    return stopped;
}

void folder_free(folder *found) {
    for (uint32_t i = 0; i < found->class_count; i++) free(found->classes[i]);
    for (uint32_t i = 0; i < found->count; i++) free(found->photographs[i].path);
    free(found->classes);
    free(found->photographs);
    *found = (folder){0};
}
