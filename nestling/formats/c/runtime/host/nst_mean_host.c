#include "nst_pieces.h"

static void some_columns(const void *given, int32_t first, int32_t end, void *scratch)
{
    const nst_pieces *job = given;
    const nst_mean_layer *layer = job->layer;
    const int32_t columns = layer->size[2] * layer->size[4], rows = layer->size[1];
    const nst_output y = layer->output;
    (void)scratch;
    for (int32_t a = 0; a < layer->size[0]; a++) {
        for (int32_t c = first; c < end; c += NST_SOME) {
            const int32_t at = nst_begin(c, columns);
            int32_t sums[NST_SOME] = {0};
            job->kit->sums(job->a + a * rows * columns + at, columns, rows, sums);
            for (int32_t i = nst_larger(first - at, 0); i < NST_SOME; i++) { /* those before are another thread's */
                const int32_t sum = sums[i] - layer->in_zero * rows;
                job->out[a * columns + at + i] =
                    nst_clamped(nst_scaled(sum, layer->multiplier, layer->shift, y.zero), y.low, y.high);
            }
        }
    }
}

void nst_mean_host(const int8_t *in, const nst_mean_layer *layer, int8_t *out, const nst_crew *crew)
{
    const nst_pieces job = {crew->kit, layer, in, 0, out};
    const int32_t worth = NST_WORTH / layer->size[1] / NST_SOME + 1;
    nst_share(crew, some_columns, &job, layer->size[2] * layer->size[4], worth * NST_SOME, 0);
}
