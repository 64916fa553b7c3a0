#include "nst_pieces.h"

/* One value a channel is written out until channels and blocks begin anew together: pixels are then one after the other like any other
 * bytes, however many channels they have. */
static void some(const void *given, int32_t first, int32_t end, void *scratch)
{
    const nst_pieces *job = given;
    const nst_mul_host_layer *layer = job->layer;
    const int32_t channels = layer->b_count;
    if (channels == layer->count) {
        job->kit->mul(job->a + first, job->b + first, end - first, layer, job->out + first);
        return;
    }
    const int32_t period = nst_smaller(nst_period(channels), end - first);
    int8_t *b = scratch;
    for (int32_t i = 0; i < period; i += channels)
        memcpy(b + i, job->b, (size_t)channels);
    for (int32_t i = first; i < end; i += period)
        job->kit->mul(job->a + i, b, nst_smaller(period, end - i), layer, job->out + i);
}

void nst_mul_host(const int8_t *a, const int8_t *b, const nst_mul_host_layer *layer, int8_t *out, void *scratch,
                  const nst_crew *crew)
{
    const nst_pieces job = {crew->kit, layer, a, b, out};
    const int32_t period = nst_period(layer->b_count), whole = layer->b_count == layer->count;
    nst_share(crew, some, &job, layer->count, whole ? NST_WORTH : (NST_WORTH + period - 1) / period * period, scratch);
}
