/* A convolution as products of patches: a window's rows are copied from the map's, side by side, NST_ROWS patches at a time. */
#include "nst_long.h"
#include "nst_rows.h"

typedef struct {
    const nst_kit *kit;
    const nst_conv_host_layer *layer;
    const void *in;
    const int8_t *table;
    int8_t *out;
} nst_job;

/* A window's numbers, in the weights' order. Copies sixteen bytes at a time, so some behind the end, which the next ones lie over. */
static void patch(const uint8_t *const *rows, const nst_window *w, int32_t pixel_bytes, int32_t x, uint8_t *out)
{
    const int32_t side_by_side = w->dilation.width == 1;
    const int32_t bytes = side_by_side ? w->size.width * pixel_bytes : pixel_bytes, pieces = side_by_side ? 1 : w->size.width;
    for (int32_t i = 0; i < w->size.height; i++) {
        for (int32_t j = 0; j < pieces; j++, out += bytes) {
            const uint8_t *from = rows[i] + (x + j * w->dilation.width) * pixel_bytes;
            for (int32_t k = 0; k < bytes; k += 16)
                memcpy(out + k, from + k, 16);
        }
    }
}

static void some_rows(const void *given, int32_t first, int32_t end, void *scratch)
{
    const nst_job *job = given;
    const nst_conv_host_layer *layer = job->layer;
    const nst_host_sums *sums = &layer->sums;
    const nst_window *w = &layer->window;
    const int32_t element = job->kit->element, step = (sums->depth + 3) / 4 * 4 * element, width = layer->out.width;
    uint8_t *patches = nst_aligned(scratch);
    nst_rows rows = nst_rows_in(patches + ((NST_ROWS * step + 127) & ~63), job->kit, &layer->in, w, width, 1, layer->in_zero);
    rows.table = (const uint8_t *)job->table;
    memset(patches, 0, (size_t)(NST_ROWS * step));
    for (int32_t y = first; y < end; y++) {
        const uint8_t *window_rows[NST_MOST_TAPS];
        nst_take_rows(&rows, job->in, y);
        for (int32_t i = 0; i < w->size.height; i++)
            window_rows[i] = nst_row(&rows, y * w->stride.height - w->pad.height + i * w->dilation.height);
        for (int32_t x = 0; x < width; x += NST_ROWS) {
            const int32_t n = nst_smaller(width - x, NST_ROWS);
            for (int32_t i = 0; i < n; i++)
                patch(window_rows, w, layer->in.channels * element, (x + i) * w->stride.width, patches + i * step);
            nst_products_of(job->kit, patches, step, n, sums, job->out + (y * width + x) * sums->channels);
        }
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
