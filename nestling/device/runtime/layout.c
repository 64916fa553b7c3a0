#include "layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "images.h"

typedef enum { CLASSES, GIVEN, UNCLEAR } reading;

/* What a folder holds. path: where its class folders are. name: of the folder in the data set's own. given: the part that its name
 * speaks of; sure: the name says nothing else. inner: names of the folders in it that hold images, at any depth. direct: images lie
 * in the folder itself. */
typedef struct {
    char *path, *name;
    part given;
    int sure, direct;
    list inner;
} seen;

/* Some of the folders that were looked into. */
typedef struct {
    const seen **at;
    uint32_t count;
} some;

/* A reading under way. */
typedef struct {
    const char *root;
    layout_knows *knows;
    const void *of;
    walk_note *left_out;
    char *said;
    uint32_t said_bytes;
} task;

/* ---- names ------------------------------------------------------------------------------------------------------------------ */

static const char SEPARATORS[] = " _-.";

/* The part that `length` letters spell, or NOT_GIVEN. */
static part spelt(const char *letters, size_t length)
{
    static const struct {
        const char *name;
        part part;
    } known[] = {
        {"train", TRAIN}, {"training", TRAIN}, {"val", VAL},      {"valid", VAL}, {"validation", VAL},
        {"dev", VAL},     {"test", TEST},      {"testing", TEST}, {"eval", TEST}, {"evaluation", TEST},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].name) == length && memcmp(known[i].name, letters, length) == 0)
            return known[i].part;
    return NOT_GIVEN;
}

static int is_separator(char letter)
{
    return letter && strchr(SEPARATORS, letter) != 0;
}

/* The part that a folder's name speaks of; sure: whether it says nothing else. */
static part part_of(const char *name, int *sure)
{
    *sure = 0;
    char *lower = joined("", name), *text = lower;
    for (char *at = lower; *at; at++) {
        if ((uint8_t)*at >= 0x80) {
            free(lower);
            return NOT_GIVEN;
        }
        if (*at >= 'A' && *at <= 'Z')
            *at = (char)(*at - 'A' + 'a');
    }
    while (is_separator(*text))
        text++;
    size_t length = strlen(text);
    while (length && is_separator(text[length - 1]))
        length--;
    size_t bare = length;
    if (bare >= 3 && memcmp(text + bare - 3, "set", 3) == 0)
        bare -= 3;
    while (bare && is_separator(text[bare - 1]))
        bare--;
    part found = spelt(text, bare);
    *sure = found != NOT_GIVEN;
    int different = 0;
    for (size_t at = 0, end; !*sure && at < length; at = end + 1) {
        for (end = at; end < length && text[end] >= 'a' && text[end] <= 'z';)
            end++;
        const part word = spelt(text + at, end - at);
        if (word == NOT_GIVEN)
            continue;
        different |= found != NOT_GIVEN && found != word;
        found = word;
    }
    free(lower);
    return different ? NOT_GIVEN : found;
}

/* ---- what the folders hold -------------------------------------------------------------------------------------------------- */

static int is_image(void *user, const char *path)
{
    (void)user;
    uint8_t *content = 0;
    size_t bytes = 0;
    const int image = !read_whole(path, &content, &bytes) && (!image_why_not(content, bytes) || image_foreign(content, bytes));
    free(content);
    return image;
}

/* Whether images lie in the folder itself; they are noted, where left_out is not 0. */
static int images_in(const char *place, walk_note *left_out)
{
    list all;
    int found = 0;
    if (walk_listed(place, &all))
        return 0;
    for (uint32_t i = 0; i < all.count && (left_out || !found); i++) {
        if (walk_is_folder(all.names[i]) || !is_image(0, all.names[i]))
            continue;
        found = 1;
        if (left_out)
            left_out(all.names[i], "beside the class folders, in none of them");
    }
    list_free(&all);
    return found;
}

/* Looks into a folder of the data set. seg_train/seg_train, as archives have it, is one folder. */
static seen look(const char *root, const char *folder)
{
    seen one = {.path = joined("", folder), .name = joined("", name_of(folder))};
    list folders;
    one.given = part_of(one.name, &one.sure);
    for (;;) {
        walk_folders(one.path, &folders, 0);
        one.direct = images_in(one.path, 0);
        if (one.direct || one.given == NOT_GIVEN || folders.count != 1 || strcmp(name_of(folders.names[0]), one.name) != 0)
            break;
        free(one.path);
        one.path = joined("", folders.names[0]);
        list_free(&folders);
    }
    for (uint32_t i = 0; i < folders.count; i++)
        if (walk_files(root, folders.names[i], is_image, 0, 0))
            list_add(&one.inner, joined("", name_of(folders.names[i])));
    list_free(&folders);
    return one;
}

static seen *look_into(const char *root, const list *folders)
{
    seen *made = enough(0, (folders->count + 1) * sizeof *made);
    for (uint32_t i = 0; i < folders->count; i++)
        made[i] = look(root, folders->names[i]);
    return made;
}

static void forget(seen *all, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        free(all[i].path);
        free(all[i].name);
        list_free(&all[i].inner);
    }
    free(all);
}

static int holds(const seen *one)
{
    return one->inner.count || one->direct;
}

/* ---- the rule --------------------------------------------------------------------------------------------------------------- */

static void take(some *s, const seen *one)
{
    s->at = enough(s->at, (s->count + 1) * sizeof *s->at);
    s->at[s->count++] = one;
}

/* How many of the names are names of folders in some of those; of: in those of this part, PARTS for all. */
static uint32_t shared(const list *names, some with, part of)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < names->count; i++) {
        int found = 0;
        for (uint32_t k = 0; k < with.count; k++)
            found |= (of == PARTS || with.at[k]->given == of) && list_has(&with.at[k]->inner, names->names[i]);
        count += (uint32_t)found;
    }
    return count;
}

/* A bit for each part that is among them. */
static unsigned parts_of(some named)
{
    unsigned parts = 0;
    for (uint32_t i = 0; i < named.count; i++)
        parts |= 1u << named.at[i]->given;
    return parts;
}

static int is_one(unsigned parts)
{
    return !(parts & (parts - 1));
}

/* Whether train holds folders, and each other part that does holds some of these; of one of them `least` or more. */
static int agree(some named, uint32_t least)
{
    uint32_t train = 0, most = 0;
    for (uint32_t i = 0; i < named.count; i++) {
        const seen *one = named.at[i];
        if (one->given == TRAIN)
            train += one->inner.count;
        if (one->given == TRAIN || !one->inner.count)
            continue;
        const uint32_t same = shared(&one->inner, named, TRAIN);
        if (!same)
            return 0;
        if (same > most)
            most = same;
    }
    return train && most >= least;
}

/* It holds several folders of images and no image itself, as a part does and a class may. */
static int is_deep(const seen *one)
{
    return one->inner.count > 1 && !one->direct;
}

/* named: folders that are called like parts; others: those beside them. All of them hold images. */
static reading told_by(some named, some others)
{
    const unsigned parts = parts_of(named);
    uint32_t distinct = 0;
    for (unsigned left = parts; left; left &= left - 1)
        distinct++;
    if (agree(named, others.count ? 2 : 0))
        return distinct == named.count ? GIVEN : UNCLEAR; /* Train and train: which is it? */
    if (!others.count)
        return named.count == 1 && !named.at[0]->inner.count ? CLASSES : UNCLEAR;
    int deep = 0, apart = 1, none_shared = 1;
    for (uint32_t i = 0; i < named.count; i++)
        deep |= is_deep(named.at[i]);
    for (uint32_t i = 0; i < others.count; i++) {
        const int own = shared(&others.at[i]->inner, named, PARTS) == 0;
        apart &= own && is_deep(others.at[i]);
        none_shared &= own;
    }
    if (!deep && (is_one(parts) || !(parts & 1u << TRAIN)))
        return CLASSES; /* bus, car, train */
    if (is_one(parts) && apart)
        return CLASSES; /* bus/city bus/coach train/steam train/diesel */
    return is_one(parts) && !(parts & 1u << TRAIN) && none_shared ? CLASSES : UNCLEAR;
}

/* How the folders are to be read, as far as names and structure tell. */
static reading told(const seen *all, uint32_t count)
{
    some sure = {0}, rest = {0}, named = {0}, others = {0};
    for (uint32_t i = 0; i < count; i++) {
        if (!holds(all + i))
            continue;
        take(all[i].sure ? &sure : &rest, all + i);
        take(all[i].given != NOT_GIVEN ? &named : &others, all + i);
    }
    reading found = sure.count ? told_by(sure, rest) : CLASSES;
    const unsigned parts = parts_of(named);
    if (found == CLASSES && named.count > sure.count && (parts & 1u << TRAIN) && !is_one(parts)) {
        /* names that only contain a part's word decide nothing, but they may ask */
        if (told_by(named, others) != CLASSES && (!others.count || agree(named, 2)))
            found = UNCLEAR;
    }
    free(sure.at);
    free(rest.at);
    free(named.at);
    free(others.at);
    return found;
}

/* The parts, where the folders are read so: what is surely called so, and others for parts that there are not. */
static some part_folders(const seen *all, uint32_t count)
{
    some made = {0};
    unsigned sure = 0;
    for (uint32_t i = 0; i < count; i++)
        sure |= all[i].sure ? 1u << all[i].given : 0;
    for (uint32_t i = 0; i < count; i++)
        if (all[i].given != NOT_GIVEN && (all[i].sure || !(sure & 1u << all[i].given)))
            take(&made, all + i);
    return made;
}

static int knows_any(const task *t, const list *names)
{
    for (uint32_t i = 0; t->knows && i < names->count; i++)
        if (t->knows(t->of, names->names[i]))
            return 1;
    return 0;
}

/* The reading that alone gives classes that are expected, else what is told. */
static reading settled(const task *t, const seen *all, uint32_t count)
{
    int as_classes = 0, as_parts = 0;
    some parts = part_folders(all, count);
    for (uint32_t i = 0; t->knows && i < count; i++)
        as_classes |= t->knows(t->of, all[i].name);
    for (uint32_t i = 0; i < parts.count; i++)
        as_parts |= knows_any(t, &parts.at[i]->inner);
    free(parts.at);
    if (!as_classes == !as_parts)
        return told(all, count);
    return as_parts ? GIVEN : CLASSES;
}

/* ---- the two readings ------------------------------------------------------------------------------------------------------- */

static void add_folder(layout *made, const char *path, part given)
{
    made->folders = enough(made->folders, (made->count + 1) * sizeof *made->folders);
    made->folders[made->count++] = (class_folder){joined("", path), given};
}

static void take_parts(const task *t, const seen *all, uint32_t count, layout *made)
{
    some parts = part_folders(all, count);
    for (uint32_t i = 0, next = 0; i < count; i++) {
        if (next == parts.count || parts.at[next] != all + i) {
            if (holds(all + i)) {
                char *path = joined(t->root, all[i].name);
                t->left_out(path, "the whole folder, for it lies beside the parts and is none");
                free(path);
            }
            continue;
        }
        list inner;
        next++;
        images_in(all[i].path, t->left_out);
        walk_folders(all[i].path, &inner, t->left_out);
        for (uint32_t k = 0; k < inner.count; k++)
            add_folder(made, inner.names[k], all[i].given);
        list_free(&inner);
    }
    free(parts.at);
}

/* ---- words ------------------------------------------------------------------------------------------------------------------ */

static void say(const task *t, const char *text)
{
    const size_t length = strlen(t->said);
    snprintf(t->said + length, t->said_bytes - length, "%s", text);
}

static int unclear(const task *t, const seen *all, uint32_t count)
{
    t->said[0] = 0;
    say(t, t->root);
    say(t, ": it cannot be told whether its folders are parts (train, val, test) or classes:");
    for (uint32_t i = 0, told_of = 0; i < count; i++) {
        if (!holds(all + i))
            continue;
        say(t, told_of++ ? "; " : " ");
        say(t, all[i].name);
        say(t, !all[i].direct       ? " holds folders of images"
               : all[i].inner.count ? " holds folders of images and images"
                                    : " holds images");
    }
    say(t, ".\n  rename them: parts are called train, val and test, and hold a folder for each class");
    return 1;
}

/* archive/dataset/train/good: a folder further down was meant. Returns 1, having said so, where it was. */
static int wrapped(const task *t, const char *only)
{
    if (images_in(only, 0))
        return 0;
    list folders, names = {0};
    walk_folders(only, &folders, 0);
    seen *all = look_into(t->root, &folders);
    for (uint32_t i = 0; i < folders.count; i++)
        if (holds(all + i))
            list_add(&names, joined("", all[i].name));
    const int expected = t->knows && t->knows(t->of, name_of(only));
    int meant = told(all, folders.count) != CLASSES || (!expected && knows_any(t, &names));
    if (meant)
        snprintf(t->said, t->said_bytes, "%s holds one folder only, and the classes are further down.\n  name that one: %s",
                 t->root, only);
    else if (folders.count == 1)
        meant = wrapped(t, folders.names[0]);
    forget(all, folders.count);
    list_free(&names);
    list_free(&folders);
    return meant;
}

/* ---- the whole -------------------------------------------------------------------------------------------------------------- */

int layout_read(const char *root, layout_knows *knows, const void *of, layout *made, walk_note *left_out, char *said,
                uint32_t said_bytes)
{
    const task t = {root, knows, of, left_out, said, said_bytes};
    list top;
    *made = (layout){0};
    const int problem = walk_folders(root, &top, left_out);
    if (problem) {
        snprintf(said, said_bytes, "%s cannot be read (%s); expected a folder of photographs.", root, strerror(problem));
        return 1;
    }
    int named = 0;
    for (uint32_t i = 0; i < top.count; i++) {
        int sure;
        named |= part_of(name_of(top.names[i]), &sure) != NOT_GIVEN;
    }
    int stopped = !named && top.count == 1 && wrapped(&t, top.names[0]);
    reading found = CLASSES;
    seen *all = 0;
    if (named) {
        all = look_into(root, &top);
        found = settled(&t, all, top.count);
    }
    if (found == UNCLEAR)
        stopped = unclear(&t, all, top.count);
    if (!stopped)
        images_in(root, left_out);
    if (!stopped && found == GIVEN)
        take_parts(&t, all, top.count, made);
    for (uint32_t i = 0; !stopped && found == CLASSES && i < top.count; i++)
        add_folder(made, top.names[i], NOT_GIVEN);
    if (all)
        forget(all, top.count);
    list_free(&top);
    return stopped;
}

void layout_free(layout *made)
{
    for (uint32_t i = 0; i < made->count; i++)
        free(made->folders[i].path);
    free(made->folders);
    *made = (layout){0};
}
