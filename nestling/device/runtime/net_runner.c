/* net_runner: a head goes on learning on a device without Python, from folders of photographs. See USAGE. */
#define _GNU_SOURCE /* for sched_getaffinity, on Linux */
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache.h"
#include "common.h"
#include "embedder.h"
#include "embedding.h"
#include "folder.h"
#include "nestling_file.h"
#include "training.h"

enum { DONE, WORK_FAILED, WRONG_COMMAND, SAID = 2048, MOST = 1000000000, MOST_BATCH = 65536, MOST_THREADS = 64, USUAL_THREADS = 8 };

static const char USAGE[] =
    "net_runner -f HEAD -d DATA_DIR [-c CYCLES] [-v] [-s CHECKPOINT_EVERY] [-b BATCH] [-a STOP_ACCURACY]\n"
    "           [--optimizer sgd|adam] [--rate R] [--resume] [-o TRAINED] [--threads N] [--help]\n"
    "\n"
    "Learns the classes of a folder of photographs (BMP, PPM, PGM), a folder a class:  DATA_DIR/good  DATA_DIR/bad\n"
    "\n"
    "  -f HEAD               the head to begin with: head.nst as packed, or one that was trained\n"
    "  -d DATA_DIR           the photographs; a folder that the head does not know becomes a class\n"
    "  -c CYCLES             batches to learn; 0: only tell the accuracies, save nothing (default: 10 epochs, at least 300)\n"
    "  -v                    print what each layer reads and answers, for the first photograph\n"
    "  -s CHECKPOINT_EVERY   cycles between two saves (default 20)\n"
    "  -b BATCH              photographs in a batch (default: as the head says)\n"
    "  -a STOP_ACCURACY      end when the accuracy on test data is that high (default 0.9; above 1: never)\n"
    "  --optimizer sgd|adam  (default: as the head says)\n"
    "  --rate R              learning rate (default: as the head says)\n"
    "  --threads N           that compute a photograph together (default: a processor each, at most 8); the answers are the same\n"
    "  --resume              go on where TRAINED was left\n"
    "  -o TRAINED            where to save (default: trained.nst beside HEAD)\n"
    "\n"
    "Status: 0 done, 1 the work failed, 2 the command line is wrong.\n";

/* What was asked for; -1: as the head says. */
typedef struct {
    const char *head, *data, *output;
    double cycles, save_every, batch, stop_accuracy, rate, threads;
    int optimizer, verbose, resume, help;
} options;

/* ---- the command line ------------------------------------------------------------------------------------------------------- */

static int wrong(const char *option, const char *what)
{
    complain("net_runner: %s %s (see net_runner --help)", option, what);
    return WRONG_COMMAND;
}

/* The number that `text` is, within the bounds; NAN where it is none. */
static double number(const char *text, double least, double most, int whole)
{
    char *end;
    const double value = strtod(text, &end);
    const int sound = *text && !*end && value >= least && value <= most && (!whole || value == (double)(int64_t)value);
    return sound ? value : NAN;
}

static int parse(int count, char **words, options *o)
{
    *o = (options){.cycles = -1, .save_every = 20, .batch = -1, .stop_accuracy = 0.9, .rate = -1, .threads = -1, .optimizer = -1};
    const struct {
        const char *name;
        int *flag; /* one of these three */
        const char **text;
        double *number;
        double least, most;
        int whole;
        const char *wants;
    } known[] = {
        {"-f", 0, &o->head, 0, 0, 0, 0, 0},
        {"-d", 0, &o->data, 0, 0, 0, 0, 0},
        {"-o", 0, &o->output, 0, 0, 0, 0, 0},
        {"-c", 0, 0, &o->cycles, 0, MOST, 1, "wants a whole number, 0 or more"},
        {"-s", 0, 0, &o->save_every, 1, MOST, 1, "wants a whole number, 1 or more"},
        {"-b", 0, 0, &o->batch, 1, MOST_BATCH, 1, "wants a whole number from 1 to 65536"},
        {"-a", 0, 0, &o->stop_accuracy, 0, 1000, 0, "wants a number, 0 or more"},
        {"--rate", 0, 0, &o->rate, 1e-9, 1e9, 0, "wants a number above 0"},
        {"--threads", 0, 0, &o->threads, 1, MOST_THREADS, 1, "wants a whole number from 1 to 64"},
        {"-v", &o->verbose, 0, 0, 0, 0, 0, 0},
        {"--resume", &o->resume, 0, 0, 0, 0, 0, 0},
        {"--help", &o->help, 0, 0, 0, 0, 0, 0},
    };
    for (int i = 1; i < count; i++) {
        const int optimizer = strcmp(words[i], "--optimizer") == 0;
        size_t k = 0;
        while (k < sizeof known / sizeof *known && strcmp(words[i], known[k].name) != 0)
            k++;
        if (!optimizer && k == sizeof known / sizeof *known)
            return wrong(words[i], "is no option");
        if (!optimizer && known[k].flag) {
            *known[k].flag = 1;
            continue;
        }
        if (i + 1 == count)
            return wrong(words[i], "wants a value");
        const char *value = words[++i];
        if (optimizer) {
            o->optimizer = strcmp(value, "sgd") == 0 ? NESTLING_SGD : strcmp(value, "adam") == 0 ? NESTLING_ADAM : -1;
            if (o->optimizer < 0)
                return wrong("--optimizer", "is sgd or adam");
        } else if (known[k].text) {
            if (!*value)
                return wrong(known[k].name, "wants a path");
            *known[k].text = value;
        } else {
            *known[k].number = number(value, known[k].least, known[k].most, known[k].whole);
            if (isnan(*known[k].number))
                return wrong(known[k].name, known[k].wants);
        }
    }
    if (o->help)
        return DONE;
    return !o->head ? wrong("-f HEAD", "is missing") : !o->data ? wrong("-d DATA_DIR", "is missing") : DONE;
}

/* ---- stopping --------------------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t told_to_end;

static void end(int signal_number)
{
    (void)signal_number;
    told_to_end = 1;
}

static int told(void)
{
    return told_to_end;
}

/* The first signal ends a training after its step; a second one ends the program at once. */
static void heed_signals(void)
{
    struct sigaction action = {0};
    action.sa_handler = end;
    action.sa_flags = (int)SA_RESETHAND | SA_RESTART;
    sigaction(SIGINT, &action, 0);
    sigaction(SIGTERM, &action, 0);
}

/* ---- the run ---------------------------------------------------------------------------------------------------------------- */

static int failed(const char *said)
{
    complain("net_runner: %s", said);
    return WORK_FAILED;
}

static void left_out(const char *path, const char *reason)
{
    complain("left out: %s: %s", path, reason);
}

/* The number of a class by its name, -1 where the head does not know it. */
static int32_t label_of(const nestling_head *head, const char *name)
{
    const char *at = head->labels;
    for (uint32_t c = 0; c < head->header->classes; c++) {
        const size_t length = strcspn(at, "\n");
        if (length == strlen(name) && memcmp(at, name, length) == 0)
            return (int32_t)c;
        at += length + 1;
    }
    return -1;
}

static int knows(const void *head, const char *name)
{
    return label_of(head, name) >= 0;
}

/* Gives photographs the head's labels; classes that it does not know are added to it. Returns how many, or -1 with a reason. */
static int32_t relabel(folder *data, nestling_head *head, char *said, uint32_t said_bytes)
{
    uint32_t *label = enough(0, (data->class_count + 1) * sizeof *label);
    int32_t added = 0;
    for (uint32_t i = 0; i < data->class_count && added >= 0; i++) {
        int32_t known = label_of(head, data->classes[i]);
        if (known < 0) {
            known = nestling_head_add_class(head, data->classes[i]);
            added++;
        }
        if (known < 0) {
            snprintf(said, said_bytes,
                     "the head has no room for the class '%s': it holds %u of %u classes.\n"
                     "  pack it again with room:  nestling pack my8.nest --max-classes N -o pkg/",
                     data->classes[i], (unsigned)head->header->classes, (unsigned)head->header->max_classes);
            added = -1;
        }
        label[i] = (uint32_t)known;
    }
    for (uint32_t i = 0; i < data->count && added >= 0; i++)
        data->photographs[i].label = label[data->photographs[i].label];
    free(label);
    return added;
}

/* The rate where none is named: the head's, or where the optimiser is another one than the head's, one at which ten epochs are enough. */
static float rate_of(const nestling_head_header *header, uint32_t optimizer, double asked)
{
    if (asked > 0)
        return (float)asked;
    return optimizer == header->optimizer ? header->rate : optimizer == NESTLING_ADAM ? 0.005f : 0.5f;
}

static void print_watched(const nestling_head *head, const items *val)
{
    const double now = (double)accuracy(head, val);
    printf("accuracy on test data = %.4f max accuracy = %.4f\n", now, now);
}

static int train_on(const options *o, const char *output, held_head *held, const items *train, const items *val, int32_t added)
{
    if (!train->photographs)
        return failed("there are no photographs to learn from: the split puts them all into val and test.");
    const nestling_head_header *header = held->head.header;
    const uint32_t optimizer = o->optimizer < 0 ? header->optimizer : (uint32_t)o->optimizer;
    const uint32_t batch = o->batch < 0 ? header->batch : (uint32_t)o->batch;
    if (training_begin(held, train, optimizer, rate_of(header, optimizer, o->rate), batch, added > 0))
        return failed("the head is too large for that optimiser.");
    if (o->resume)
        training_resume(held, output);
    const uint32_t cycles = o->cycles < 0 ? training_enough(&held->head, train) : (uint32_t)o->cycles;
    const run_settings settings = {output, cycles, (uint32_t)o->save_every, (float)o->stop_accuracy};
    return training_run(&held->head, train, val, &settings, told) ? WORK_FAILED : DONE;
}

static int learn(const options *o, const char *output, held_head *held, const folder *data, const embeddings *of, int32_t added)
{
    items train = items_of(data, of, TRAIN, &held->head, 1), val = items_of(data, of, VAL, &held->head, 0);
    items test = items_of(data, of, TEST, &held->head, 0);
    if (!val.count)
        complain("there are no photographs to watch: no accuracy on test data");
    if (!test.count)
        complain("there are no photographs to test on: no accuracy on validation data");
    int status = DONE;
    if (o->cycles != 0)
        status = train_on(o, output, held, &train, &val, added);
    else if (val.count)
        print_watched(&held->head, &val);
    if (status == DONE && test.count)
        printf("accuracy on validation data = %.4f\n", (double)accuracy(&held->head, &test));
    items_free(&train);
    items_free(&val);
    items_free(&test);
    return status;
}

/* Processors that this program may use, as far as that can be told. */
static long processors(void)
{
#if defined(__linux__)
    cpu_set_t its;
    if (sched_getaffinity(0, sizeof its, &its) == 0)
        return CPU_COUNT(&its);
#endif
    return sysconf(_SC_NPROCESSORS_ONLN);
}

static int32_t threads_of(const options *o)
{
    const long usual = processors();
    if (o->threads > 0)
        return (int32_t)o->threads;
    return usual < 1 ? 1 : usual < USUAL_THREADS ? (int32_t)usual : USUAL_THREADS;
}

static int run(const options *o)
{
    char said[SAID];
    held_head held = {0};
    uint32_t bytes;
    folder data;
    if (nestling_file_load(o->head, &held.memory, &bytes, &held.head, said, sizeof said)) {
        complain("net_runner: %s\n  fetch it again, or pack it again:  nestling pack my8.nest -o pkg/", said);
        return WORK_FAILED;
    }
    if (said[0])
        complain("%s", said);
    char *output = o->output ? joined("", o->output) : beside(o->head, "trained.nst");
    char *split_csv = beside(o->head, "split.csv");
    if (embedder_open(o->head, held.head.header, threads_of(o), said, sizeof said))
        return failed(said);
    if (o->verbose && *embedder_isa())
        printf("the network runs by %s in %d threads\n", embedder_isa(), (int)threads_of(o));
    if (folder_scan(o->data, knows, &held.head, &data, left_out, said, sizeof said))
        return failed(said);
    if (folder_divide(&data, split_csv, held.head.header->seed, said, sizeof said))
        return failed(said);
    const int32_t added = relabel(&data, &held.head, said, sizeof said);
    if (added < 0)
        return failed(said);

    const size_t length = strlen(output) + sizeof ".features";
    char *kept = enough(0, length);
    snprintf(kept, length, "%s.features", output);
    cache known = cache_open(kept, held.head.header, embedder_name, said, sizeof said);
    if (said[0])
        complain("%s", said);
    const int wanted[PARTS] = {o->cycles != 0, 1, 1};
    embeddings of;
    const int ended = embed(&data, held.head.header, wanted, &known, left_out, o->verbose, told, &of);
    cache_close(&known);
    int status;
    if (ended)
        status =
            failed(told() ? "ended before the first cycle; the embeddings made so far are kept." : "the network could not be run.");
    else
        status = learn(o, output, &held, &data, &of, added);
    folder_free(&data);
    free(of.rows);
    free(of.have);
    free(held.memory);
    free(output);
    free(split_csv);
    free(kept);
    return status;
}

int main(int count, char **words)
{
    options o;
    const int status = parse(count, words, &o);
    if (status != DONE)
        return status;
    if (o.help) {
        fputs(USAGE, stdout);
        return DONE;
    }
    heed_signals();
    const int ended = run(&o);
    return fflush(stdout) ? WORK_FAILED : ended;
}
