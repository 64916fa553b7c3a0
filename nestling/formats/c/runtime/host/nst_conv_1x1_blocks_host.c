/* Zeros are skipped by computing many pixels at once: a block's place is read once for NST_BLOCK of them, whose four numbers there lie side
 * by side. Answers come channel by channel, and are turned sixteen by sixteen. scratch: of NST_BLOCK pixels the numbers, twice, and the
 * answers of 16 channels; 64 bytes to align it. */
#include "nst_long.h"

#include <string.h>

typedef struct {
    const nst_kit *kit;
    const nst_conv_1x1_blocks_host_layer *layer;
    const int8_t *in;
    int8_t *out;
} nst_job;

typedef uint8_t nst_sixteen __attribute__((vector_size(16)));

#if defined(__clang__)
#define NST_SHUFFLED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else /* before version 12 GCC knows this name alone */
#define NST_SHUFFLED(a, b, ...) __builtin_shuffle(a, b, (nst_sixteen){__VA_ARGS__})
#endif
/* The first or second halves of two vectors' bytes, in turns. */
#define NST_ZIPPED(a, b, from)                                                                                                     \
    NST_SHUFFLED(a, b, from, from + 16, from + 1, from + 17, from + 2, from + 18, from + 3, from + 19, from + 4, from + 20,        \
                 from + 5, from + 21, from + 6, from + 22, from + 7, from + 23)

/* Sixteen rows of sixteen bytes, NST_BLOCK apart, become columns. */
static void turned(const int8_t *rows, nst_sixteen *y)
{
    nst_sixteen some[NST_GROUP];
    for (int32_t i = 0; i < NST_GROUP; i++)
        memcpy(&some[i], rows + i * NST_BLOCK, sizeof some[i]);
    for (int32_t turn = 0; turn < 4; turn++) {
        NST_EACH (i, NST_GROUP / 2) {
            y[2 * i] = NST_ZIPPED(some[i], some[i + NST_GROUP / 2], 0);
            y[2 * i + 1] = NST_ZIPPED(some[i], some[i + NST_GROUP / 2], 8);
        }
        memcpy(some, y, sizeof some);
    }
}

/* Answers [NST_GROUP][NST_BLOCK] to the pixels that there are. */
static void put(const int8_t *answers, int32_t pixels, int32_t left, int8_t *out, int32_t channels)
{
    for (int32_t first = 0; first < pixels; first += NST_GROUP) {
        nst_sixteen y[NST_GROUP];
        turned(answers + first, y);
        for (int32_t i = 0; i < NST_GROUP && first + i < pixels; i++) {
            if (left == NST_GROUP)
                memcpy(out + (first + i) * channels, y + i, NST_GROUP);
            else
                memcpy(out + (first + i) * channels, y + i, (size_t)left);
        }
    }
}

static void some_pixels(const void *given, int32_t first, int32_t end, void *scratch)
{
    const nst_job *job = given;
    const nst_kit *kit = job->kit;
    const nst_conv_1x1_blocks_host_layer *layer = job->layer;
    const nst_host_sums *sums = &layer->sums;
    const int32_t fours = (sums->depth + 3) / 4, four = 4 * kit->element, channels = sums->channels;
    uint8_t *rows = nst_aligned(scratch), *x = rows + NST_BLOCK * fours * four;
    int8_t *answers = (int8_t *)x + NST_BLOCK * fours * four;
    for (int32_t pixel = first; pixel < end; pixel += NST_BLOCK) {
        const int32_t n = nst_smaller(end - pixel, NST_BLOCK);
        for (int32_t i = 0; i < n; i++)
            kit->numbers(job->in + (pixel + i) * sums->depth, sums->depth, rows + i * fours * four);
        for (int32_t k = 0; k < fours; k++) {
            uint8_t *to = x + k * NST_BLOCK * four;
            for (int32_t i = 0; i < n; i++) {
                if (four == 4)
                    memcpy(to + 4 * i, rows + (i * fours + k) * 4, 4);
                else
                    memcpy(to + 8 * i, rows + (i * fours + k) * 8, 8);
            }
        }
        for (int32_t o = 0; o < channels; o++) {
            const int32_t begin = layer->begins[o];
            const nst_blocks own = {sums->weights + 4 * begin, layer->places + begin, layer->begins[o + 1] - begin};
            kit->blocks(x, n, &own, sums, o, answers + o % NST_GROUP * NST_BLOCK);
            if (o % NST_GROUP == NST_GROUP - 1 || o == channels - 1) {
                const int32_t group = o / NST_GROUP * NST_GROUP;
                put(answers, n, o - group + 1, job->out + pixel * channels + group, channels);
            }
        }
    }
}

void nst_conv_1x1_blocks_host(const int8_t *in, const nst_conv_1x1_blocks_host_layer *layer, int8_t *out, void *scratch,
                              const nst_crew *crew)
{
    const nst_job job = {crew->kit, layer, in, out};
    nst_share(crew, some_pixels, &job, layer->out.height * layer->out.width, NST_GROUP, scratch);
}
