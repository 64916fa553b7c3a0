/* A convolution as products of a window's rows, which lie side by side in the map's. */
#include "nst_long.h"
#include "nst_rows.h"

typedef struct {
    const nst_kit *kit;
    const nst_conv_host_layer *layer;
    const void *in;
    const int8_t *table;
    int8_t *out;
} nst_job;

static void some_rows(const void *given, int32_t first, int32_t end, void *scratch)
{
    const nst_job *job = given;
    const nst_conv_host_layer *layer = job->layer;
    const nst_window *w = &layer->window;
    const int32_t pixel = layer->in.channels * job->kit->element, width = layer->out.width,
                  pieces = layer->sums.runs / w->size.height;
    nst_rows rows = nst_rows_in(nst_aligned(scratch), job->kit, &layer->in, w, width, 1, layer->in_zero);
    rows.table = job->table;
    for (int32_t y = first; y < end; y++) {
        const uint8_t *runs[NST_MOST_RUNS];
        nst_take_rows(&rows, job->in, y);
        for (int32_t i = 0; i < layer->sums.runs; i++) {
            const int32_t row = y * w->stride.height - w->pad.height + i / pieces * w->dilation.height;
            runs[i] = nst_row(&rows, row) + i % pieces * w->dilation.width * pixel;
        }
        nst_products_of(job->kit, runs, w->stride.width * pixel, width, &layer->sums, job->out + y * width * layer->sums.channels);
    }
}

void nst_conv_host(const int8_t *in, const nst_conv_host_layer *layer, int8_t *out, void *scratch, const nst_crew *crew)
{
    const nst_job job = {crew->kit, layer, in, 0, out};
    nst_share(crew, some_rows, &job, layer->out.height, 1, scratch);
}

void nst_conv_image_host(const uint8_t *image, const nst_conv_image_host_layer *layer, int8_t *out, void *scratch,
                         const nst_crew *crew)
{
    const nst_job job = {crew->kit, &layer->conv, image, layer->table, out};
    nst_share(crew, some_rows, &job, layer->conv.out.height, 1, scratch);
}
