#include "nst_pieces.h"
#include "nst_pool.h"

static void some_rows(const void *given, int32_t first, int32_t end, void *scratch)
{
    const nst_pieces *job = given;
    const nst_pool_layer *layer = job->layer;
    const int32_t width = layer->in.width, channels = layer->in.channels;
    const nst_output y = layer->output;
    int8_t *out = job->out + first * layer->out.width * channels;
    (void)scratch;
    for (int32_t row = first; row < end; row++) {
        for (int32_t column = 0; column < layer->out.width; column++, out += channels) {
            const nst_places w = nst_inside(layer, row, column);
            for (int32_t c = 0; c < channels; c += NST_SOME) {
                const int32_t at = nst_begin(c, channels);
                const int8_t *x = job->a + (w.top * width + w.left) * channels + at;
                int8_t largest[NST_SOME];
                memset(largest, y.low, sizeof largest);
                for (int32_t i = w.top; i < w.bottom; i++, x += width * channels)
                    job->kit->largest(x, channels, w.right - w.left, largest);
                for (int32_t i = 0; i < NST_SOME; i++)
                    largest[i] = (int8_t)nst_smaller(largest[i], y.high);
                memcpy(out + at, largest, sizeof largest);
            }
        }
    }
}

void nst_max_pool_host(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_crew *crew)
{
    const nst_pieces job = {crew->kit, layer, in, 0, out};
    nst_share(crew, some_rows, &job, layer->out.height, 1, 0);
}
