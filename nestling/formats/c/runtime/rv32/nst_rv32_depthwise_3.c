#include "nst_bytes.h"
#include "nst_part.h"
#include "nst_rv32.h"
#include "nst_rv32_ending.h"

/* One channel of the map with its padding, as far as windows reach, and of as many more as round a row of answers up to four. */
typedef struct {
    int32_t height, width;
    int32_t top; /* the map's row that its first one is, which may lie above */
    int8_t *bytes;
} nst_plane;

/* What a channel's rows have in common. */
typedef struct {
    const int8_t *weights;
    nst_rv32_ending ending;
    nst_rv32_ends ends;
    int32_t columns, step; /* answers a row, and how far apart they are */
    int32_t down;          /* from a row of the plane to the one that the next answers begin in */
} nst_row;

static nst_plane plane_in(void *scratch, const nst_rv32_depthwise_layer *layer, nst_range rows)
{
    const nst_window w = layer->window;
    nst_plane plane;
    plane.top = rows.first * w.stride.height - w.pad.height;
    plane.height = (rows.end - rows.first - 1) * w.stride.height + 3;
    plane.width = ((layer->out.width + 3) / 4 * 4 - 1) * w.stride.width + 3;
    plane.bytes = scratch;
    return plane;
}

/* One channel of the map into the plane. The padding around it is there already. */
static void copy_channel(const int8_t *in, const nst_rv32_depthwise_layer *layer, const nst_plane *plane)
{
    const nst_shape map = layer->in;
    const int32_t left = layer->window.pad.width, columns = nst_smaller(plane->width - left, map.width), step = map.channels;
    const int32_t end = nst_smaller(plane->top + plane->height, map.height);
    for (int32_t y = nst_larger(plane->top, 0); y < end; y++) {
        const int8_t *from = in + y * map.width * step;
        int8_t *to = plane->bytes + (y - plane->top) * plane->width + left;
        int32_t x = columns;
        for (; x >= 4; x -= 4, to += 4) {
            to[0] = *from, from += step;
            to[1] = *from, from += step;
            to[2] = *from, from += step;
            to[3] = *from, from += step;
        }
        for (; x > 0; x--, from += step)
            *to++ = *from;
    }
}

/* Loads are not moved across: what is loaded long before it is needed takes a register from a weight. */
#if defined(__GNUC__)
#define IN_THIS_ORDER __asm__ volatile("" ::: "memory")
#else
#define IN_THIS_ORDER
#endif

/* Three products of a row to each of so many sums. */
NST_INLINE void three(int32_t *s, const int8_t *x, int32_t stride, int32_t count, int32_t a, int32_t b, int32_t c)
{
    s[0] += x[0] * a, s[0] += x[1] * b, s[0] += x[2] * c;
    s[1] += x[stride] * a, s[1] += x[stride + 1] * b, s[1] += x[stride + 2] * c;
    if (count < 4)
        return;
    s[2] += x[2 * stride] * a, s[2] += x[2 * stride + 1] * b, s[2] += x[2 * stride + 2] * c;
    s[3] += x[3 * stride] * a, s[3] += x[3 * stride + 1] * b, s[3] += x[3 * stride + 2] * c;
}

/* Rows of answers, four at a time and the last one or two as two. stride, quick (the channel has the shortest of endings): known to
 * the compiler. Where it is quick, weights and bias are shifted to the left before, not each sum. */
NST_INLINE void rows_of(const int8_t *plane, int32_t width, int32_t rows, const nst_row *row, int8_t *out, int32_t stride,
                        int32_t quick)
{
    const nst_rv32_ends ends = row->ends;
    const int32_t step = row->step, down = row->down, by = quick ? 1 << (row->ending.rest & 31) : 1;
    const int32_t a = row->weights[0] * by, b = row->weights[1] * by, c = row->weights[2] * by, d = row->weights[3] * by,
                  e = row->weights[4] * by, f = row->weights[5] * by, g = row->weights[6] * by, h = row->weights[7] * by,
                  i = row->weights[8] * by;
    nst_rv32_ending ending = row->ending;
    ending.bias *= by;
    if (quick)
        ending.rest = 0;
#define SUMS(n)                                                                                                                    \
    int32_t s[n] = {0};                                                                                                            \
    three(s, x, stride, n, a, b, c);                                                                                               \
    IN_THIS_ORDER;                                                                                                                 \
    three(s, y, stride, n, d, e, f);                                                                                               \
    IN_THIS_ORDER;                                                                                                                 \
    three(s, z, stride, n, g, h, i)
#define ANSWER(sum) (quick ? nst_rv32_short(sum, &ending, &ends, 0) : nst_rv32_answer(sum, &ending, &ends))
    for (; rows > 0; rows--, plane += down) {
        const int8_t *x = plane, *y = plane + width, *z = y + width;
        int32_t left = row->columns;
        for (; left > 2; left -= 4) {
            SUMS(4);
            x += 4 * stride, y += 4 * stride, z += 4 * stride;
            *out = ANSWER(s[0]), out += step;
            *out = ANSWER(s[1]), out += step;
            *out = ANSWER(s[2]), out += step;
            if (left > 3)
                *out = ANSWER(s[3]), out += step;
        }
        if (left > 0) {
            SUMS(2);
            *out = ANSWER(s[0]), out += step;
            if (left > 1)
                *out = ANSWER(s[1]), out += step;
        }
    }
}

NST_APART void quick_1(const int8_t *plane, int32_t width, int32_t rows, const nst_row *row, int8_t *out)
{
    rows_of(plane, width, rows, row, out, 1, 1);
}

NST_APART void quick_2(const int8_t *plane, int32_t width, int32_t rows, const nst_row *row, int8_t *out)
{
    rows_of(plane, width, rows, row, out, 2, 1);
}

NST_APART void any(const int8_t *plane, int32_t width, int32_t rows, const nst_row *row, int8_t *out, int32_t stride)
{
    rows_of(plane, width, rows, row, out, stride, 0);
}

void nst_rv32_depthwise_3(const int8_t *in, const nst_rv32_depthwise_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const nst_plane plane = plane_in(scratch, layer, p.rows);
    const int32_t copies = layer->out.channels / layer->in.channels, stride = layer->window.stride.width;
    const int32_t rows = p.rows.end - p.rows.first;
    nst_row row = {.ends = nst_rv32_ends_of(&layer->sums.output),
                   .columns = layer->out.width,
                   .step = layer->out.channels,
                   .down = layer->window.stride.height * plane.width};
    int32_t o = p.channels.first;
    out += p.rows.first * layer->out.width * layer->out.channels;
    nst_fill(plane.bytes, layer->in_zero, plane.height * plane.width);
    for (int32_t c = o / copies; o < p.channels.end; c++) {
        const int32_t end = nst_smaller((c + 1) * copies, p.channels.end);
        copy_channel(in + c, layer, &plane);
        for (; o < end; o++) {
            row.weights = layer->sums.weights + 9 * o;
            row.ending = nst_rv32_ending_of(layer->sums.endings + 3 * o, &row.ends);
            if (row.ending.rest & (NST_RV32_NEGATIVE | NST_RV32_LONG))
                any(plane.bytes, plane.width, rows, &row, out + o, stride);
            else if (stride == 1)
                quick_1(plane.bytes, plane.width, rows, &row, out + o);
            else
                quick_2(plane.bytes, plane.width, rows, &row, out + o);
        }
    }
}
