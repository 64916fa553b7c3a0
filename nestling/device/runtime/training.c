#include "training.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "nestling_file.h"
#include "net_runner.h"
#include "sha256.h"

enum { WATCHED_EVERY = 20, EPOCHS = 10, LEAST_CYCLES = 300, CRC = 4, SAID = 1024 };

/* The rows of classes without photographs, which a training leaves as they are. */
typedef struct {
    uint32_t count;
    uint32_t *rows;
    float *weights, *bias; /* [count][inputs], [count] */
} frozen;

/* ---- items ------------------------------------------------------------------------------------------------------------------ */

typedef struct {
    const photograph *of;
    const int8_t *embedding;
} found_item;

static int by_label(const void *a, const void *b)
{
    const photograph *x = ((const found_item *)a)->of, *y = ((const found_item *)b)->of;
    if (x->label != y->label)
        return x->label < y->label ? -1 : 1;
    return memcmp(x->fingerprint, y->fingerprint, FINGERPRINT);
}

static int among(const items *photographs, const int8_t *embedding, uint32_t label, size_t inputs)
{
    for (uint32_t i = 0; i < photographs->photographs; i++) {
        const nestling_sample *other = photographs->samples + i;
        if (other->label == label && memcmp(other->embedding, embedding, inputs) == 0)
            return 1;
    }
    return 0;
}

static void digest_of(const found_item *photographs, items *made)
{
    char line[64], digits[2 * FINGERPRINT + 1];
    sha256_hash hash;
    sha256_begin(&hash);
    for (uint32_t i = 0; i < made->photographs; i++) {
        as_hex(photographs[i].of->fingerprint, FINGERPRINT, digits);
        sha256_add(&hash, line, (size_t)snprintf(line, sizeof line, "%u:%s\n", (unsigned)made->samples[i].label, digits));
    }
    const uint32_t replayed = made->count - made->photographs;
    if (replayed)
        sha256_add(&hash, line, (size_t)snprintf(line, sizeof line, "replay %u\n", (unsigned)replayed));
    sha256_end(&hash, made->digest);
}

items items_of(const folder *from, const embeddings *of, part part, const nestling_head *head, int replay)
{
    const nestling_head_header *header = head->header;
    const uint32_t kept = replay ? header->replay_count : 0;
    found_item *found = enough(0, (from->count + 1) * sizeof *found);
    items made = {.samples = enough(0, ((size_t)from->count + kept + 1) * sizeof *made.samples)};
    made.replayed = enough(0, (size_t)kept * header->inputs + 1);
    for (uint32_t i = 0; i < from->count; i++) {
        if (from->photographs[i].part != part || !of->have[i])
            continue;
        found[made.count++] = (found_item){from->photographs + i, of->rows + (size_t)i * header->inputs};
    }
    if (made.count)
        qsort(found, made.count, sizeof *found, by_label);
    for (uint32_t i = 0; i < made.count; i++)
        made.samples[i] = (nestling_sample){found[i].embedding, found[i].of->label};
    made.photographs = made.count;
    for (uint32_t i = 0; i < kept; i++) {
        const uint8_t *entry = head->replay + (size_t)i * head->replay_stride;
        nestling_replay_entry about;
        memcpy(&about, entry, sizeof about);
        const int8_t *embedding = (const int8_t *)(entry + sizeof about);
        if (among(&made, embedding, about.label, header->inputs))
            continue;
        int8_t *copy = made.replayed + (size_t)i * header->inputs;
        memcpy(copy, embedding, header->inputs);
        made.samples[made.count++] = (nestling_sample){copy, about.label};
    }
    digest_of(found, &made);
    free(found);
    return made;
}

void items_free(items *some)
{
    free(some->samples);
    free(some->replayed);
    *some = (items){0};
}

static uint32_t *labels_of(const items *some)
{
    uint32_t *labels = enough(0, (some->count + 1) * sizeof *labels);
    for (uint32_t i = 0; i < some->count; i++)
        labels[i] = some->samples[i].label;
    return labels;
}

/* 1 for each class that has a photograph; [classes], of malloc. */
static uint8_t *seen_classes(const nestling_head *head, const items *train)
{
    uint8_t *seen = enough(0, head->header->classes);
    memset(seen, 0, head->header->classes);
    for (uint32_t i = 0; i < train->photographs; i++)
        seen[train->samples[i].label] = 1;
    return seen;
}

/* Where nothing at all stands for a class, the others have no reason not to take its place. */
static void tell_forgotten(const nestling_head *head, const uint8_t *seen)
{
    const char *at = head->labels;
    for (uint32_t c = 0; c < head->header->classes; c++) {
        const int length = (int)strcspn(at, "\n");
        if (!seen[c]) {
            complain("nothing is kept of %.*s and there are no photographs of it: it will be forgotten", length, at);
        }
        at += length + 1;
    }
}

float accuracy(const nestling_head *head, const items *asked)
{
    const uint32_t classes = head->header->classes;
    float *logits = enough(0, classes * sizeof *logits);
    uint32_t right = 0;
    for (uint32_t i = 0; i < asked->count; i++) {
        uint32_t best = 0;
        nestling_head_logits(head, asked->samples[i].embedding, logits);
        for (uint32_t c = 1; c < classes; c++)
            if (logits[c] > logits[best])
                best = c;
        right += best == asked->samples[i].label;
    }
    free(logits);
    return (float)((double)right / asked->count);
}

/* ---- beginning -------------------------------------------------------------------------------------------------------------- */

/* The same head with room for another optimiser's moments, all of them 0. */
static int with_optimizer(held_head *held, uint32_t optimizer)
{
    const nestling_head old = held->head;
    nestling_head_header header = *old.header;
    header.optimizer = optimizer;
    if (optimizer == NESTLING_ADAM)
        header.moment_type = NESTLING_FLOAT32;
    header.bytes = nestling_head_bytes(&header);
    if (!header.bytes)
        return 1;
    uint8_t *memory = enough(0, header.bytes);
    const size_t before = (size_t)((uint8_t *)old.moment - (uint8_t *)old.header); /* all parts before the moments stay */
    const size_t replay = (size_t)header.replay_capacity * old.replay_stride;
    memset(memory, 0, header.bytes);
    memcpy(memory, old.header, before);
    memcpy(memory, &header, sizeof header);
    memcpy(memory + header.bytes - CRC - replay, old.replay, replay);
    nestling_head made = {.header = (nestling_head_header *)(void *)memory};
    made.header->saves--; /* sealing counts one, and this is none */
    if (nestling_head_seal(&made) != NESTLING_HEAD_WHOLE ||
        nestling_head_open(memory, header.bytes, &made) != NESTLING_HEAD_WHOLE) {
        free(memory);
        return 1;
    }
    free(held->memory);
    *held = (held_head){memory, made};
    return 0;
}

int training_begin(held_head *held, const items *train, uint32_t optimizer, float rate, uint32_t batch, int added)
{
    if (with_optimizer(held, optimizer))
        return 1;
    nestling_head_header *header = held->head.header;
    uint8_t *seen = seen_classes(&held->head, train);
    for (uint32_t c = 0; c < header->classes; c++)
        added |= !seen[c];
    for (uint32_t i = train->photographs; i < train->count; i++)
        seen[train->samples[i].label] = 1; /* replayed */
    tell_forgotten(&held->head, seen);
    free(seen);
    header->balanced |= added != 0;
    header->rate = rate;
    header->batch = batch;
    header->began = header->steps;
    header->epoch = header->position = 0;
    header->items = train->count;
    header->lowest_loss = INFINITY;
    header->best_accuracy = 0;
    memcpy(header->data, train->digest, sizeof header->data);
    return 0;
}

/* What another training differs in, 0 where it is the same one. */
static const char *difference(const nestling_head *a, const nestling_head *b)
{
    const nestling_head_header *x = a->header, *y = b->header;
    if (x->inputs != y->inputs || memcmp(x->graph, y->graph, sizeof x->graph) != 0)
        return "another network";
    if (x->classes != y->classes || x->max_classes != y->max_classes || x->label_bytes != y->label_bytes)
        return "other classes";
    if (memcmp(a->labels, b->labels, x->label_bytes) != 0)
        return "other classes";
    if (x->items != y->items || memcmp(x->data, y->data, sizeof x->data) != 0)
        return "other photographs";
    if (x->optimizer != y->optimizer || x->moment_type != y->moment_type)
        return "another optimiser";
    if (x->batch != y->batch || x->balanced != y->balanced || x->seed != y->seed)
        return "batches of another size or order";
    const float settings[] = {x->rate, x->momentum, x->beta2, x->epsilon, x->decay};
    const float others[] = {y->rate, y->momentum, y->beta2, y->epsilon, y->decay};
    return memcmp(settings, others, sizeof settings) != 0 ? "another rate or decay" : 0;
}

void training_resume(held_head *held, const char *output)
{
    held_head found = {0};
    char said[SAID];
    uint32_t bytes;
    if (nestling_file_load(output, &found.memory, &bytes, &found.head, said, sizeof said)) {
        complain("begun anew: %s", said);
        return;
    }
    if (said[0])
        complain("%s", said);
    const char *other = difference(&held->head, &found.head);
    if (other) {
        complain("begun anew: %s holds a training with %s", output, other);
        free(found.memory);
        return;
    }
    const nestling_head_header *header = found.head.header;
    complain("gone on from %s, %llu cycles", output, (unsigned long long)(header->steps - header->began));
    free(held->memory);
    *held = found;
}

/* ---- learning --------------------------------------------------------------------------------------------------------------- */

/* The order of the epoch that the head is in. */
static nestling_order order_of(const nestling_head *head, const items *train, uint32_t *labels)
{
    nestling_order order = {.items = train->count, .classes = head->header->classes, .labels = labels};
    order.balanced = (int)head->header->balanced;
    order.places = enough(0, (size_t)train->count * sizeof *order.places);
    order.starts = enough(0, ((size_t)order.classes + 1) * sizeof *order.starts);
    nestling_order_make(&order, head->header->seed, head->header->epoch);
    return order;
}

static void let_go(nestling_order *order)
{
    free(order->places);
    free(order->starts);
}

uint32_t training_enough(const nestling_head *head, const items *train)
{
    uint32_t *labels = labels_of(train);
    nestling_order order = order_of(head, train, labels);
    const uint64_t batches = ((uint64_t)order.length + head->header->batch - 1) / head->header->batch, cycles = EPOCHS * batches;
    let_go(&order);
    free(labels);
    return cycles > UINT32_MAX ? UINT32_MAX : cycles > LEAST_CYCLES ? (uint32_t)cycles : LEAST_CYCLES;
}

static frozen freeze(const nestling_head *head, const items *train)
{
    const size_t inputs = head->header->inputs, classes = head->header->classes;
    uint8_t *seen = seen_classes(head, train);
    frozen made = {0, enough(0, classes * sizeof *made.rows), 0, enough(0, classes * sizeof *made.bias)};
    made.weights = enough(0, classes * inputs * sizeof *made.weights);
    for (uint32_t c = 0; c < classes; c++) {
        if (seen[c])
            continue;
        memcpy(made.weights + made.count * inputs, head->weights + c * inputs, inputs * sizeof *made.weights);
        made.bias[made.count] = head->bias[c];
        made.rows[made.count++] = c;
    }
    free(seen);
    return made;
}

/* Takes back what a step did to the rows: as if their gradient had been 0. */
static void hold(const frozen *f, nestling_head *head)
{
    const size_t inputs = head->header->inputs, each = head->header->moment_type == NESTLING_BFLOAT16 ? 2 : 4;
    for (uint32_t i = 0; i < f->count; i++) {
        const size_t row = f->rows[i];
        memcpy(head->weights + row * inputs, f->weights + i * inputs, inputs * sizeof *f->weights);
        head->bias[row] = f->bias[i];
        memset((uint8_t *)head->moment + row * inputs * each, 0, inputs * each);
        head->bias_moment[row] = 0;
        if (head->square)
            memset(head->square + row * inputs, 0, inputs * sizeof *head->square);
        if (head->square)
            head->bias_square[row] = 0;
    }
}

static uint64_t cycles_done(const nestling_head *head)
{
    return head->header->steps - head->header->began;
}

/* From the end of an epoch, or from behind it, on to the next one. */
static void turn(nestling_head_header *header, nestling_order *order)
{
    if (header->position < order->length)
        return;
    header->epoch++;
    header->position = 0;
    nestling_order_make(order, header->seed, header->epoch);
}

/* One cycle: the next batch, never across two epochs. */
static float learn(nestling_head *head, const items *train, nestling_order *order, nestling_sample *batch, float *work)
{
    nestling_head_header *header = head->header;
    const uint32_t left = order->length - header->position, count = left < header->batch ? left : header->batch;
    for (uint32_t i = 0; i < count; i++)
        batch[i] = train->samples[nestling_order_item(order, header->position + i)];
    const float loss = nestling_learn_step(head, batch, count, work);
    header->position += count;
    turn(header, order);
    return loss;
}

static void watch(nestling_head *head, const items *val, int counts)
{
    if (!val->count)
        return;
    const float now = accuracy(head, val), best = now > head->header->best_accuracy ? now : head->header->best_accuracy;
    printf("accuracy on test data = %.4f max accuracy = %.4f\n", (double)now, (double)best);
    fflush(stdout);
    if (counts)
        head->header->best_accuracy = best;
}

static void diverged(const nestling_head *head)
{
    complain(
        "net_runner: the training has diverged: after %llu cycles its numbers are not finite. What was saved before is still there.\n"
        "  choose a lower rate than %g:  --rate %g",
        (unsigned long long)cycles_done(head), (double)head->header->rate, (double)head->header->rate / 10);
}

static int save(nestling_head *head, const char *output)
{
    const int problem = nestling_file_save(output, head);
    if (problem == EDOM)
        diverged(head);
    else if (problem)
        complain("net_runner: %s cannot be saved: %s. What was saved before is still there.", output, strerror(problem));
    return problem != 0;
}

int training_run(nestling_head *head, const items *train, const items *val, const run_settings *settings, int (*told)(void))
{
    nestling_head_header *header = head->header;
    uint32_t *labels = labels_of(train);
    nestling_order order = order_of(head, train, labels);
    turn(header, &order);
    frozen still = freeze(head, train);
    const size_t largest = header->batch < order.length ? header->batch : order.length;
    nestling_sample *batch = enough(0, largest * sizeof *batch);
    float *work = enough(0, largest * header->max_classes * sizeof *work);
    int failed = 0, watched = 0, saved = 0, stopped = 0;
    while (!failed && cycles_done(head) < settings->cycles && header->best_accuracy < settings->stop_accuracy) {
        stopped = told() || !should_continue();
        if (stopped)
            break;
        const float loss = learn(head, train, &order, batch, work);
        if (!isfinite(loss)) {
            diverged(head);
            failed = 1;
            break;
        }
        hold(&still, head);
        const uint64_t done = cycles_done(head);
        printf("%llu: Loss is %f [min=%f]\n", (unsigned long long)done, (double)loss, (double)header->lowest_loss);
        fflush(stdout);
        watched = done % WATCHED_EVERY == 0 || done == settings->cycles;
        saved = done % settings->save_every == 0;
        if (watched)
            watch(head, val, 1);
        if (saved)
            failed = save(head, settings->output);
    }
    if (!failed && !saved)
        failed = save(head, settings->output);
    if (!failed && !watched)
        watch(head, val, 0); /* ended early: the training may be gone on with as if this had not been asked */
    let_go(&order);
    free(labels);
    free(batch);
    free(work);
    free(still.rows);
    free(still.weights);
    free(still.bias);
    return failed;
}
