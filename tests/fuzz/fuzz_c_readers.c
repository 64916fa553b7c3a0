/* fuzz_c_readers SEEDS WORK SEED FIRST COUNT SECONDS: damaged heads, images and whole folders, given to the C that reads them.
 *
 * To be compiled with the runtime (net_runner.c with -Dmain=net_runner) under the address and undefined-behaviour sanitizers, which end
 * the program where they find something; fuzz_c_readers.py does it. SEEDS: files head-*, image-*. WORK: an empty folder.
 * Case number i of a seed is always the same damage. The number of the case that is being read stands in WORK/progress.
 * Ends after COUNT cases or SECONDS; prints the number of cases, of those whose file was read all the same, and of the runs that
 * ended well. */
#define _XOPEN_SOURCE 700
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common.h"
#include "embedder.h"
#include "fuzz_damage.h"
#include "images.h"
#include "nestling_head.h"
#include "resize.h"

enum { MOST_SEEDS = 64, MOST_WORDS = 20, ROOM = 1200 };

int net_runner(int count, char **words);

static struct {
    content heads[MOST_SEEDS], images[MOST_SEEDS], trained[MOST_SEEDS], features[MOST_SEEDS], split;
    uint32_t head_count, image_count;
} seeds;

static const char *work; /* the folder */

/* ---- files ------------------------------------------------------------------------------------------------------------------ */

static void path_of(char *path, const char *name)
{
    snprintf(path, ROOM, "%s/%s", work, name);
}

static void put(const char *name, const content *of)
{
    char path[ROOM];
    path_of(path, name);
    FILE *file = fopen(path, "wb");
    if (!file || (of->size && fwrite(of->bytes, of->size, 1, file) != 1) || fclose(file))
        abort();
}

static content got(const char *path)
{
    content made = {0};
    if (read_whole(path, &made.bytes, &made.size))
        abort();
    return made;
}

static int removed(const char *path, const struct stat *about, int kind, struct FTW *where)
{
    (void)about, (void)kind;
    return where->level ? remove(path) : 0;
}

/* Empties a folder of WORK, or makes it. */
static void cleared(const char *name)
{
    char path[ROOM];
    path_of(path, name);
    if (mkdir(path, 0777))
        nftw(path, removed, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- a head in memory --------------------------------------------------------------------------------------------------------- */

static uint8_t *slots[2]; /* flash, of whatever alignment */
static uint32_t slot_bytes;

static const void *slot_at(void *user, int slot)
{
    (void)user;
    return slots[slot];
}

static int erase(void *user, int slot)
{
    (void)user;
    memset(slots[slot], 0xff, slot_bytes);
    return 0;
}

static int write_slot(void *user, int slot, uint32_t offset, const void *bytes, uint32_t count)
{
    (void)user;
    memcpy(slots[slot] + offset, bytes, count);
    return 0;
}

static void through_flash(nestling_head *head)
{
    const nestling_flash flash = {0, slot_at, erase, write_slot};
    nestling_head found;
    slot_bytes = head->header->bytes;
    uint8_t *memory = malloc(slot_bytes), *raw[2];
    for (int i = 0; i < 2; i++) {
        const size_t odd = below(8);
        raw[i] = malloc(slot_bytes + odd);
        slots[i] = raw[i] + odd;
        memcpy(slots[i], head->header, slot_bytes); /* as it was before it learned: its checksum may be wrong */
    }
    if (!nestling_flash_save(&flash, head) && nestling_flash_load(&flash, memory, slot_bytes, &found) < 0)
        abort();
    for (int i = 0; i < 2; i++)
        free(raw[i]);
    free(memory);
}

static void order_of(const nestling_head *head)
{
    nestling_order order = {.items = 1 + below(40), .classes = head->header->classes, .balanced = chance(50)};
    uint32_t *labels = malloc(order.items * sizeof *labels);
    for (uint32_t i = 0; i < order.items; i++)
        labels[i] = below(order.classes);
    order.labels = labels;
    order.places = malloc(order.items * sizeof *order.places);
    order.starts = malloc(((size_t)order.classes + 1) * sizeof *order.starts);
    nestling_order_make(&order, head->header->seed, head->header->epoch);
    for (uint32_t place = 0; place < order.length && place < 500; place++)
        if (nestling_order_item(&order, place) >= order.items)
            abort();
    free(labels);
    free(order.places);
    free(order.starts);
}

static void learned(nestling_head *head)
{
    const uint32_t inputs = head->header->inputs, count = 1 + below(9);
    nestling_sample *samples = malloc(count * sizeof *samples);
    int8_t *rows = malloc((size_t)count * inputs);
    float *scores = malloc((size_t)count * head->header->max_classes * sizeof *scores);
    for (size_t i = 0; i < (size_t)count * inputs; i++)
        rows[i] = (int8_t)drawn();
    for (uint32_t i = 0; i < count; i++)
        samples[i] = (nestling_sample){rows + (size_t)i * inputs, below(head->header->classes)};
    nestling_head_logits(head, rows, scores);
    for (int step = 0; step < 3; step++)
        nestling_learn_step(head, samples, count, scores);
    free(samples);
    free(rows);
    free(scores);
}

static void resized(const image *source, const resize_target *target)
{
    uint8_t *out = malloc((size_t)target->height * target->width * target->channels);
    if (!out || resize(source, target, out))
        abort();
    free(out);
}

/* A photograph that is small, or long, to what the head takes. */
static void resized_for(const nestling_head_header *h)
{
    const resize_target target = {h->image_height, h->image_width, h->image_channels, h->interpolation == NESTLING_BICUBIC,
                                  h->crop};
    if ((uint64_t)target.height * target.width > 1u << 16 && !chance(2))
        return;
    image source = {1 + below(chance(20) ? 3000 : 40), 1 + below(chance(20) ? 3000 : 40), chance(50) ? 1 : 3, 0};
    if (source.width * source.height > 20000)
        source.height = 1 + below(5);
    const size_t bytes = (size_t)source.width * source.height * source.channels;
    source.pixels = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        source.pixels[i] = (uint8_t)drawn();
    resized(&source, &target);
    free(source.pixels);
}

static int head_case(void)
{
    content made = damaged_head(seeds.heads + below(seeds.head_count), 0);
    uint8_t *memory = malloc(made.size ? made.size : 1); /* exactly as much */
    memcpy(memory, made.bytes, made.size);
    free(made.bytes);
    nestling_head head;
    const int whole = nestling_head_open(memory, (uint32_t)made.size, &head) == NESTLING_HEAD_WHOLE;
    if (whole) {
        resized_for(head.header);
        order_of(&head);
        learned(&head);
        nestling_head_add_class(&head, chance(50) ? "new" : "\xc3");
        through_flash(&head);
        const int sound = nestling_head_seal(&head) == NESTLING_HEAD_WHOLE;
        if (sound != (nestling_head_open(memory, (uint32_t)made.size, &head) == NESTLING_HEAD_WHOLE))
            abort();
    }
    free(memory);
    return whole;
}

/* ---- an image in memory ------------------------------------------------------------------------------------------------------- */

static int image_case(void)
{
    content made = damaged(seeds.images + below(seeds.image_count), LARGE);
    uint8_t *file = malloc(made.size ? made.size : 1);
    memcpy(file, made.bytes, made.size);
    free(made.bytes);
    image decoded = {0};
    image_foreign(file, made.size);
    const char *header = image_why_not(file, made.size), *problem = image_decode(file, made.size, &decoded);
    if (header && !problem)
        abort();
    if (!problem) {
        const double crop = 0.05 + (double)below(951) / 1000;
        resized(&decoded, &(resize_target){8 + below(40), 8 + below(40), chance(50) ? 1 : 3, chance(50), crop < 1 ? crop : 1});
    }
    free(decoded.pixels);
    free(file);
    return !problem;
}

/* ---- the whole program, with a network that answers anything ------------------------------------------------------------------ */

const char embedder_name[] = "c";
static int8_t *answer;
static uint32_t answer_inputs;

int embedder_open(const char *head_path, const nestling_head_header *header, int32_t threads, char *said, uint32_t said_bytes)
{
    (void)head_path, (void)threads, (void)said, (void)said_bytes;
    answer_inputs = header->inputs;
    answer = enough(answer, header->inputs);
    return 0;
}

const char *embedder_isa(void)
{
    return "";
}

const int8_t *embedder_run(const uint8_t *image)
{
    for (uint32_t k = 0; k < answer_inputs; k++)
        answer[k] = (int8_t)(image[k % 64] + k);
    return answer;
}

void embedder_watch(embedder_watcher *watcher)
{
    (void)watcher;
}

static int run_with(const char *options)
{
    char text[ROOM], head[ROOM], data[ROOM], trained[ROOM];
    char *words[MOST_WORDS] = {"net_runner", "-f", head, "-d", data, "-o", trained};
    int count = 7;
    path_of(head, "run/head.nst");
    path_of(data, "run/data");
    path_of(trained, "run/trained.nst");
    snprintf(text, sizeof text, "%s", options);
    for (char *word = strtok(text, " "); word; word = strtok(0, " "))
        words[count++] = word;
    return net_runner(count, words);
}

/* Class folders, or parts of them, of whole and of damaged images, odd names and links; `times` entries. */
static void photographs(uint32_t times, int odd)
{
    static const char *const folders[] = {
        "a",
        "b",
        "c",
        "new",
        "a/deep",
        ".hidden",
        "\xc3\xbc",
        "train",
        "train/a",
        "train/b",
        "val",
        "val/a",
        "test",
        "test/b",
        "Training",
        "Training/a",
        "TEST",
        "TEST/a",
        "seg_train",
        "seg_train/seg_train",
        "seg_train/seg_train/a",
        "train-set_",
        "__MACOSX",
        "\xff",
        "line\nfeed",
        "\xed\xa0\x80",
    };
    static const uint32_t begins[] = {0, 0, 7, 14}; /* classes, or parts, alone or among others */
    static const char *const links[] = {".", "..", "a", "../a", "/dev/null", "nowhere", "../../data"};
    char name[ROOM], path[ROOM];
    cleared("run/data");
    const uint32_t begin = odd ? begins[below(4)] : 0,
                   known = odd ? sizeof folders / sizeof *folders - (chance(80) ? 3 : 0) : 3; /* the last ones are refused */
    for (uint32_t i = 0; i < times; i++) {
        const char *folder = odd ? folders[begin + below(known - begin)] : folders[i % known];
        snprintf(name, sizeof name, "run/data/%s", folder);
        path_of(path, name);
        if (mkdir(path, 0777) && odd && chance(5))
            continue;
        snprintf(name, sizeof name, "run/data/%s/%u%s", folder, (unsigned)i, odd && chance(5) ? "\x1b[31m" : "");
        path_of(path, name);
        if (odd && chance(6)) {
            if (symlink(links[below(sizeof links / sizeof *links)], path))
                continue;
        } else if (odd && chance(3)) {
            if (mkfifo(path, 0666))
                continue;
        } else {
            const content *of =
                seeds.images + (odd ? below(seeds.image_count) : i % (seeds.image_count - 1)); /* the last one ends a scan */
            content made = odd && chance(30) ? damaged(of, LARGE) : (content){of->bytes, of->size};
            FILE *file = fopen(path, "wb");
            if (file && made.size && fwrite(made.bytes, made.size, 1, file) != 1)
                abort();
            if (file && !odd && fputc((int)i, file) == EOF)
                abort(); /* so that each is another one */
            if (file)
                fclose(file);
            if (made.bytes != of->bytes)
                free(made.bytes);
        }
    }
}

static void put_damaged(const char *name, content made)
{
    put(name, &made);
    free(made.bytes);
}

static int run_case(void)
{
    static int pristine;
    char options[ROOM];
    const uint32_t which = below(seeds.head_count);
    const content *head = seeds.heads + which, *trained = seeds.trained + which;
    nestling_head_header header;
    memcpy(&header, head->bytes, sizeof header);
    const int odd = chance(30), plain = !odd && chance(50); /* plain: but for what is gone on with */
    if (odd || !pristine)
        photographs(odd ? 1 + below(16) : 18, odd);
    pristine = !odd;
    if (plain || chance(70))
        put("run/head.nst", head);
    else
        put_damaged("run/head.nst", damaged_head(head, 0));
    static const char *const saved[] = {"run/trained.nst", "run/trained.nst.previous", "run/trained.nst.part"};
    for (int i = 0; i < 3; i++) {
        char path[ROOM];
        path_of(path, saved[i]);
        unlink(path);
        if (chance(i ? 10 : 90))
            put_damaged(saved[i], damaged_head(trained, plain));
    }
    if (!plain && chance(60))
        put_damaged("run/split.csv", damaged(&seeds.split, LARGE));
    else
        put("run/split.csv", &seeds.split);
    if (plain)
        put("run/trained.nst.features", seeds.features + which);
    else
        put_damaged("run/trained.nst.features", damaged_features(seeds.features + which, header.inputs));
    if (plain)
        snprintf(options, sizeof options, "-c 12 -s 2 -b 4 -a 2 --resume");
    else
        snprintf(options, sizeof options, "-c %u -b %u -s %u%s%s -a %d", (unsigned)below(4) * 2, 1 + (unsigned)below(9),
                 1 + (unsigned)below(3), chance(80) ? " --resume" : "",
                 chance(10)   ? " --optimizer adam"
                 : chance(10) ? " --optimizer sgd"
                              : "",
                 chance(90) ? 2 : 0);
    return run_with(options) == 0;
}

/* ---- the seeds ---------------------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void read_seeds(const char *folder)
{
    char *names[2 * MOST_SEEDS];
    uint32_t count = 0;
    DIR *opened = opendir(folder);
    if (!opened)
        abort();
    for (struct dirent *entry; count < 2 * MOST_SEEDS && (entry = readdir(opened));)
        if (entry->d_name[0] != '.')
            names[count++] = joined(folder, entry->d_name);
    closedir(opened);
    qsort(names, count, sizeof *names, by_name);
    for (uint32_t i = 0; i < count; i++) {
        const int head = strstr(names[i], "/head-") != 0;
        if (head && seeds.head_count < MOST_SEEDS)
            seeds.heads[seeds.head_count++] = got(names[i]);
        if (!head && seeds.image_count < MOST_SEEDS)
            seeds.images[seeds.image_count++] = got(names[i]);
        free(names[i]);
    }
}

/* split.csv of the photographs that there are embeddings of. */
static content split_of(const content *features, uint32_t inputs)
{
    char *text = malloc(40 * features->size + 100);
    size_t used = (size_t)sprintf(text, "fingerprint,part\n");
    for (size_t at = 8 + 6 * 4 + 8 + 32 + NESTLING_RUNTIME_BYTES, i = 0; at + 8 <= features->size; at += 8 + inputs + CRC, i++) {
        as_hex(features->bytes + at, 8, text + used);
        used += 16;
        used += (size_t)sprintf(text + used, ",%s\n", i % 4 == 0 ? "val" : i % 4 == 1 ? "test" : "train");
    }
    return (content){(uint8_t *)text, used};
}

/* A training of each head: what it saves and the embeddings that it keeps. The first is done twice, for split.csv. */
static void make_seeds(void)
{
    char trained[ROOM], features[ROOM];
    nestling_head_header header;
    path_of(trained, "run/trained.nst");
    path_of(features, "run/trained.nst.features");
    cleared("run");
    photographs(18, 0);
    for (uint32_t i = 0; i < seeds.head_count; i++) {
        for (int again = i > 0; again < 2; again++) {
            unlink(trained);
            put("run/head.nst", seeds.heads + i);
            if (run_with("-c 4 -b 4 -s 2 -a 2"))
                abort();
            memcpy(&header, seeds.heads[i].bytes, sizeof header);
            seeds.features[i] = got(features);
            if (!again)
                seeds.split = split_of(seeds.features, header.inputs);
            put("run/split.csv", &seeds.split);
        }
        seeds.trained[i] = got(trained);
    }
}

int main(int count, char **words)
{
    if (count != 7)
        return 2;
    work = words[2];
    const uint64_t seed = strtoull(words[3], 0, 10), first = strtoull(words[4], 0, 10), cases = strtoull(words[5], 0, 10);
    const time_t until = time(0) + (time_t)atoll(words[6]);
    char path[ROOM];
    path_of(path, "progress");
    const int progress = open(path, O_RDWR | O_CREAT, 0666), out = dup(1);
    if (progress < 0 || out < 0 || !freopen("/dev/null", "w", stdout))
        return 2;
    read_seeds(words[1]);
    make_seeds();
    uint64_t done = 0, read[2] = {0};
    for (; done < cases && (done % 16 || time(0) < until); done++) {
        const uint64_t number = first + done;
        if (ftruncate(2, 0) == 0)
            lseek(2, 0, SEEK_SET); /* a file: what was said of the last case */
        if (pwrite(progress, &number, sizeof number, 0) != sizeof number)
            return 2;
        begin_with(seed * 0x9e3779b97f4a7c15u + number * 0xd1342543de82ef95u);
        const uint32_t kind = below(20);
        if (kind < 10)
            read[0] += (uint64_t)head_case();
        else if (kind < 18)
            read[0] += (uint64_t)image_case();
        else
            read[1] += (uint64_t)run_case();
    }
    dprintf(out, "%llu %llu %llu\n", (unsigned long long)done, (unsigned long long)read[0], (unsigned long long)read[1]);
    return 0;
}
