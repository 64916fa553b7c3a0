#include "nst_pieces.h"
#include "nst_pool.h"

/* Averages of so many places, halves away from zero. What is divided is as far from the next whole answer as half a part of `count` at
 * least, much farther than floats are wrong. */
static void averages(const int32_t *sums, int32_t count, const nst_output *y, int8_t *out)
{
    const float part = 1.0f / (float)count, half = (float)(count / 2) + 0.5f;
    for (int32_t i = 0; i < NST_SOME; i++) {
        const int32_t size = sums[i] < 0 ? -sums[i] : sums[i], whole = (int32_t)(((float)size + half) * part);
        out[i] = nst_clamped(sums[i] < 0 ? -whole : whole, y->low, y->high);
    }
}

static void some_rows(const void *given, int32_t first, int32_t end, void *scratch)
{
    const nst_pieces *job = given;
    const nst_pool_layer *layer = job->layer;
    const int32_t width = layer->in.width, channels = layer->in.channels;
    int8_t *out = job->out + first * layer->out.width * channels;
    (void)scratch;
    for (int32_t row = first; row < end; row++) {
        for (int32_t column = 0; column < layer->out.width; column++, out += channels) {
            const nst_places w = nst_inside(layer, row, column);
            for (int32_t c = 0; c < channels; c += NST_SOME) {
                const int32_t at = nst_begin(c, channels);
                const int8_t *x = job->a + (w.top * width + w.left) * channels + at;
                int32_t sums[NST_SOME] = {0};
                for (int32_t i = w.top; i < w.bottom; i++, x += width * channels)
                    job->kit->sums(x, channels, w.right - w.left, sums);
                averages(sums, (w.bottom - w.top) * (w.right - w.left), &layer->output, out + at);
            }
        }
    }
}

void nst_average_pool_host(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_crew *crew)
{
    const nst_pieces job = {crew->kit, layer, in, 0, out};
    nst_share(crew, some_rows, &job, layer->out.height, 1, 0);
}
