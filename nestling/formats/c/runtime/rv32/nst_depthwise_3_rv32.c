#include "nst_bytes.h"
#include "nst_ending_rv32.h"
#include "nst_part.h"
#include "nst_rv32.h"

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

static nst_plane plane_in(void *scratch, const nst_depthwise_rv32_layer *layer, nst_range rows)
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
static void copy_channel(const int8_t *in, const nst_depthwise_rv32_layer *layer, const nst_plane *plane)
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

/* A row of the window against so many neighbouring answers. */
NST_INLINE void three(int32_t *s, const int8_t *x, int32_t stride, int32_t count, int32_t a, int32_t b, int32_t c)
{
    for (int32_t n = 0; n < count; n++)
        s[n] += x[n * stride] * a + x[n * stride + 1] * b + x[n * stride + 2] * c;
}

/* Nine weights, row by row, and the rows that they meet. */
typedef struct {
    int32_t a, b, c, d, e, f, g, h, i;
} nst_nine;

#if defined(__riscv) && !defined(NST_NO_ASSEMBLY)

/* Each byte is loaded once and meets its products at once, so that two registers are enough beside the sums: a compiler loads more of
 * them before, and has none left for the weights. */
#define LOAD(place, row) "lb %[t], " #place "(%[" #row "])\n\t"
#define BEGIN(s, w) "mul %[" #s "], %[t], %[" #w "]\n\t"
#define MORE(s, w) "mul %[p], %[t], %[" #w "]\n\tadd %[" #s "], %[" #s "], %[p]\n\t"
#define ROW_1(FIRST, x, a, b, c)                                                                                                   \
    LOAD(0, x)                                                                                                                     \
    FIRST(s0, a)                                                                                                                   \
    LOAD(1, x)                                                                                                                     \
    MORE(s0, b)                                                                                                                    \
    FIRST(s1, a)                                                                                                                   \
    LOAD(2, x)                                                                                                                     \
    MORE(s0, c)                                                                                                                    \
    MORE(s1, b)                                                                                                                    \
    FIRST(s2, a)                                                                                                                   \
    LOAD(3, x)                                                                                                                     \
    MORE(s1, c)                                                                                                                    \
    MORE(s2, b)                                                                                                                    \
    FIRST(s3, a)                                                                                                                   \
    LOAD(4, x)                                                                                                                     \
    MORE(s2, c)                                                                                                                    \
    MORE(s3, b)                                                                                                                    \
    LOAD(5, x)                                                                                                                     \
    MORE(s3, c)
#define ROW_2(FIRST, x, a, b, c)                                                                                                   \
    LOAD(0, x)                                                                                                                     \
    FIRST(s0, a)                                                                                                                   \
    LOAD(1, x)                                                                                                                     \
    MORE(s0, b)                                                                                                                    \
    LOAD(2, x)                                                                                                                     \
    MORE(s0, c)                                                                                                                    \
    FIRST(s1, a)                                                                                                                   \
    LOAD(3, x)                                                                                                                     \
    MORE(s1, b)                                                                                                                    \
    LOAD(4, x)                                                                                                                     \
    MORE(s1, c)                                                                                                                    \
    FIRST(s2, a)                                                                                                                   \
    LOAD(5, x)                                                                                                                     \
    MORE(s2, b)                                                                                                                    \
    LOAD(6, x)                                                                                                                     \
    MORE(s2, c)                                                                                                                    \
    FIRST(s3, a)                                                                                                                   \
    LOAD(7, x)                                                                                                                     \
    MORE(s3, b)                                                                                                                    \
    LOAD(8, x)                                                                                                                     \
    MORE(s3, c)
#define FOUR(ROW)                                                                                                                  \
    __asm__ volatile(ROW(BEGIN, x, a, b, c) ROW(MORE, y, d, e, f) ROW(MORE, z, g, h, i)                                            \
                     : [s0] "=&r"(s[0]), [s1] "=&r"(s[1]), [s2] "=&r"(s[2]), [s3] "=&r"(s[3]), [t] "=&r"(t), [p] "=&r"(p)          \
                     : [x] "r"(x), [y] "r"(y), [z] "r"(z), [a] "r"(w->a), [b] "r"(w->b), [c] "r"(w->c), [d] "r"(w->d),             \
                       [e] "r"(w->e), [f] "r"(w->f), [g] "r"(w->g), [h] "r"(w->h), [i] "r"(w->i)                                   \
                     : "memory")

NST_INLINE void four_sums(int32_t s[4], const int8_t *x, const int8_t *y, const int8_t *z, int32_t stride, const nst_nine *w)
{
    int32_t t, p;
    if (stride == 1)
        FOUR(ROW_1);
    else
        FOUR(ROW_2);
}

#else

NST_INLINE void four_sums(int32_t s[4], const int8_t *x, const int8_t *y, const int8_t *z, int32_t stride, const nst_nine *w)
{
    s[0] = s[1] = s[2] = s[3] = 0;
    three(s, x, stride, 4, w->a, w->b, w->c);
    three(s, y, stride, 4, w->d, w->e, w->f);
    three(s, z, stride, 4, w->g, w->h, w->i);
}

#endif

/* Rows of answers, four at a time and the last one or two as two. stride, quick (the channel has the shortest of endings): known to
 * the compiler. Where it is quick, weights and bias are shifted to the left before, not each sum. */
NST_INLINE void rows_of(const int8_t *plane, int32_t width, int32_t rows, const nst_row *row, int8_t *out, int32_t stride,
                        int32_t quick)
{
    const nst_rv32_ends ends = row->ends;
    const int32_t step = row->step, down = row->down, by = quick ? 1 << (row->ending.rest & 31) : 1;
    const int8_t *v = row->weights;
    const nst_nine w = {v[0] * by, v[1] * by, v[2] * by, v[3] * by, v[4] * by, v[5] * by, v[6] * by, v[7] * by, v[8] * by};
    nst_rv32_ending ending = row->ending;
    ending.bias *= by;
    if (quick)
        ending.rest = 0;
#define ANSWER(sum) (quick ? nst_rv32_short(sum, &ending, &ends, 0) : nst_rv32_answer(sum, &ending, &ends))
    for (; rows > 0; rows--, plane += down) {
        const int8_t *x = plane, *y = plane + width, *z = y + width;
        int32_t left = row->columns;
        for (; left > 2; left -= 4) {
            int32_t s[4];
            four_sums(s, x, y, z, stride, &w);
            x += 4 * stride, y += 4 * stride, z += 4 * stride;
            *out = ANSWER(s[0]), out += step;
            *out = ANSWER(s[1]), out += step;
            *out = ANSWER(s[2]), out += step;
            if (left > 3)
                *out = ANSWER(s[3]), out += step;
        }
        if (left > 0) {
            int32_t s[2] = {0, 0};
            three(s, x, stride, 2, w.a, w.b, w.c);
            three(s, y, stride, 2, w.d, w.e, w.f);
            three(s, z, stride, 2, w.g, w.h, w.i);
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

void nst_depthwise_3_rv32(const int8_t *in, const nst_depthwise_rv32_layer *layer, int8_t *out, void *scratch, const nst_part *part)
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
