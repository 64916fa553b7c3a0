/* A depthwise convolution row by row: with the map's rows in parts (see nst_rows.h) a tap of all of a row's answers is one run of
 * numbers, whatever the stride. */
#include "nst_long.h"
#include "nst_rows.h"

typedef struct {
    const nst_kit *kit;
    const nst_depthwise_host_layer *layer;
    const int8_t *in;
    int8_t *out;
} nst_job;

static void long_channels(const nst_kit *kit, const uint8_t *const *taps, const nst_host_sums *sums, int32_t count, int8_t *out)
{
    for (int32_t i = 0; i < count; i++) {
        const int32_t o = i % sums->channels;
        if (!nst_is_long(sums, o))
            continue;
        int32_t sum = sums->bias[o];
        for (int32_t t = 0; t < sums->runs; t++)
            sum += nst_input_of(kit, taps[t], i) * sums->weights[t * sums->channels + o];
        out[i] = nst_long_answer(sum, sums, o);
    }
}

static void some_rows(const void *given, int32_t first, int32_t end, void *scratch)
{
    const nst_job *job = given;
    const nst_depthwise_host_layer *layer = job->layer;
    const nst_host_sums *sums = &layer->sums;
    const nst_window *w = &layer->window;
    const int32_t stride = w->stride.width, pixel = layer->in.channels * job->kit->element,
                  count = layer->out.width * sums->channels;
    uint8_t *ready = nst_aligned(scratch);
    uint8_t *memory = ready + ((nst_ready_bytes(sums) + 63) & ~63);
    nst_rows rows = nst_rows_in(memory, job->kit, &layer->in, w, layer->out.width, stride, layer->in_zero);
    job->kit->ready(sums, ready);
    for (int32_t y = first; y < end; y++) {
        const uint8_t *taps[NST_MOST_RUNS];
        nst_take_rows(&rows, job->in, y);
        for (int32_t i = 0, t = 0; i < w->size.height; i++) {
            const uint8_t *row = nst_row(&rows, y * w->stride.height - w->pad.height + i * w->dilation.height);
            for (int32_t j = 0; j < w->size.width; j++, t++) {
                const int32_t x = j * w->dilation.width;
                taps[t] = row + x % stride * rows.part + x / stride * pixel;
            }
        }
        int8_t *out = job->out + y * count;
        job->kit->depthwise(taps, sums, ready, count, out);
        if (sums->long_ones)
            long_channels(job->kit, taps, sums, count, out);
    }
}

void nst_depthwise_host(const int8_t *in, const nst_depthwise_host_layer *layer, int8_t *out, void *scratch, const nst_crew *crew)
{
    const nst_job job = {crew->kit, layer, in, out};
    nst_share(crew, some_rows, &job, layer->out.height, 1, scratch);
}
