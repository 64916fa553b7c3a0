#include "nst_long.h"

typedef struct {
    const nst_kit *kit;
    const nst_conv_1x1_host_layer *layer;
    const int8_t *in;
    int8_t *out;
} nst_job;

/* Pixels, NST_ROWS of them at a time. */
static void some_pixels(const void *given, int32_t first, int32_t end, void *scratch)
{
    const nst_job *job = given;
    const nst_host_sums *sums = &job->layer->sums;
    const int32_t depth = sums->depth, step = (depth + 3) / 4 * 4 * job->kit->element;
    uint8_t *x = nst_aligned(scratch);
    const uint8_t *const run = x;
    for (int32_t pixel = first; pixel < end; pixel += NST_ROWS) {
        const int32_t n = nst_smaller(end - pixel, NST_ROWS);
        if (depth % 4 == 0)
            job->kit->numbers(job->in + pixel * depth, n * depth, x);
        else
            for (int32_t i = 0; i < n; i++)
                job->kit->numbers(job->in + (pixel + i) * depth, depth, x + i * step);
        nst_products_of(job->kit, &run, step, n, sums, job->out + pixel * sums->channels);
    }
}

void nst_conv_1x1_host(const int8_t *in, const nst_conv_1x1_host_layer *layer, int8_t *out, void *scratch, const nst_crew *crew)
{
    const nst_job job = {crew->kit, layer, in, out};
    nst_share(crew, some_pixels, &job, layer->out.height * layer->out.width, 8, scratch);
}
