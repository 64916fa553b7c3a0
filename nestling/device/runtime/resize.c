#include "resize.h"

#include <stdlib.h>
#include <string.h>

enum { BITS = 22 }; /* of the fraction of a coefficient, as in Pillow: 32 - 8 of a pixel - 2 for sums beyond its range */

/* Part of an image: what is left of it where it is cut. */
typedef struct {
    int64_t top, left, height, width;
} window;

/* For `count` pixels of the answer: the first pixel of the source that each takes, how many, and their weights. */
typedef struct {
    int32_t count, most;
    int32_t *first, *taken; /* [count] */
    int32_t *weights;       /* [count][most] */
} filter;

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The nearest whole number, halves to even; value >= 0. */
static int64_t nearest(double value)
{
    const int64_t whole = (int64_t)value;
    const double rest = value - (double)whole;
    return whole + (rest > 0.5 || (rest == 0.5 && whole % 2 == 1));
}

/* ---- where ----------------------------------------------------------------------------------------------------------------- */

/* The whole image after resizing and before the crop, in the roundings of nestling/preprocess/image.py. */
static void full_size(const resize_target *t, const window *w, int64_t *full_h, int64_t *full_w)
{
    const int64_t target_h = (int64_t)(t->height / t->crop), target_w = (int64_t)(t->width / t->crop);
    if (target_h != target_w) {
        const double down = (double)w->height / (double)target_h, across = (double)w->width / (double)target_w;
        const double ratio = across < down ? across : down;
        *full_h = nearest((double)w->height / ratio);
        *full_w = nearest((double)w->width / ratio);
        return;
    }
    const int64_t shorter = smaller(w->height, w->width), longer = w->height + w->width - shorter;
    const int64_t long_side = (int64_t)((double)(target_h * longer) / (double)shorter);
    *full_h = w->height > w->width ? long_side : target_h;
    *full_w = w->height > w->width ? target_h : long_side;
}

/* The middle part of an image a thousand times as long as wide, which enlarged as a whole would be too large for Pillow. */
static void cut_middle(const resize_target *t, double share, window *w)
{
    if (w->height * t->width > w->width * t->height) {
        const int64_t cut = (int64_t)((double)w->height * (1 - share) / 2);
        w->top += cut;
        w->height -= 2 * cut;
    } else {
        const int64_t cut = (int64_t)((double)w->width * (1 - share) / 2);
        w->left += cut;
        w->width -= 2 * cut;
    }
}

/* ---- weights --------------------------------------------------------------------------------------------------------------- */

/* Keys 1981 with a = -0.5; and the triangle. */
static double weight_at(int bicubic, double x)
{
    if (x < 0)
        x = -x;
    if (!bicubic)
        return x < 1 ? 1 - x : 0;
    if (x < 1)
        return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

static void forget(filter *f)
{
    free(f->first);
    free(f->taken);
    free(f->weights);
}

/* Pixels `from` to from + count of `full`, made of `side` pixels; the filter widens with the scale, so that all of them count. */
static int make_filter(int64_t side, int64_t full, int64_t from, int32_t count, int bicubic, filter *made)
{
    const double scale = (double)(float)side / (double)full, widened = scale < 1 ? 1 : scale, inverse = 1 / widened;
    const double support = (bicubic ? 2 : 1) * widened;
    *made = (filter){.count = count, .most = 2 * ((int32_t)support + 1) + 1};
    made->most = (int32_t)smaller(made->most, side);
    made->first = malloc((size_t)count * sizeof *made->first);
    made->taken = malloc((size_t)count * sizeof *made->taken);
    made->weights = malloc((size_t)count * (size_t)made->most * sizeof *made->weights);
    double *exact = malloc((size_t)made->most * sizeof *exact);
    const int failed = !made->first || !made->taken || !made->weights || !exact;
    for (int32_t i = 0; i < count && !failed; i++) {
        const double centre = ((double)(from + i) + 0.5) * scale;
        const double low = centre - support + 0.5, high = centre + support + 0.5;
        const int32_t first = low < 0 ? 0 : (int32_t)low, last = (int32_t)(high > (double)side ? (double)side : high);
        double sum = 0;
        for (int32_t x = first; x < last; x++) {
            exact[x - first] = weight_at(bicubic, (x - centre + 0.5) * inverse);
            sum += exact[x - first];
        }
        made->first[i] = first;
        made->taken[i] = last - first;
        for (int32_t x = 0; x < last - first; x++) {
            const double share = (sum != 0 ? exact[x] / sum : exact[x]) * (1 << BITS);
            made->weights[(int64_t)i * made->most + x] = (int32_t)(share < 0 ? share - 0.5 : share + 0.5);
        }
    }
    free(exact);
    return failed ? -1 : 0;
}

static uint8_t clipped(int32_t sum)
{
    const int32_t value = sum >> BITS; /* rounds down below 0 as well, as everywhere that has two's complement */
    return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

/* ---- passes ---------------------------------------------------------------------------------------------------------------- */

/* Rows of pixels that are beside each other in memory; `stride` bytes from a row to the next one. */
typedef struct {
    const uint8_t *pixels;
    size_t stride;
    int64_t height, width;
} plane;

/* [height][width][channels] -> [height][f->count][channels] */
static void across(const plane *in, const filter *f, uint32_t channels, uint8_t *to)
{
    for (int64_t y = 0; y < in->height; y++) {
        const uint8_t *row = in->pixels + (size_t)y * in->stride;
        for (int32_t i = 0; i < f->count; i++) {
            const int32_t *w = f->weights + (int64_t)i * f->most;
            for (uint32_t c = 0; c < channels; c++) {
                const uint8_t *x = row + (size_t)f->first[i] * channels + c;
                int32_t sum = 1 << (BITS - 1);
                for (int32_t k = 0; k < f->taken[i]; k++, x += channels)
                    sum += *x * w[k];
                *to++ = clipped(sum);
            }
        }
    }
}

/* [height][width][channels] -> [f->count][width][channels]. sums: [width][channels] */
static void down(const plane *in, const filter *f, uint32_t channels, int32_t *sums, uint8_t *to)
{
    const size_t line = (size_t)in->width * channels;
    for (int32_t i = 0; i < f->count; i++) {
        for (size_t x = 0; x < line; x++)
            sums[x] = 1 << (BITS - 1);
        for (int32_t k = 0; k < f->taken[i]; k++) {
            const uint8_t *row = in->pixels + (size_t)(f->first[i] + k) * in->stride;
            const int32_t w = f->weights[(int64_t)i * f->most + k];
            for (size_t x = 0; x < line; x++)
                sums[x] += row[x] * w;
        }
        for (size_t x = 0; x < line; x++)
            *to++ = clipped(sums[x]);
    }
}

/* Where the pixels that a filter takes begin, and how many they are. From then on it counts from there. */
static int64_t narrowed(filter *f, int64_t *count)
{
    const int32_t start = f->first[0], last = f->count - 1;
    *count = f->first[last] + f->taken[last] - start;
    for (int32_t i = 0; i < f->count; i++)
        f->first[i] -= start;
    return start;
}

/* Pillow (from 13 on) begins with the height where that shrinks much more than the width, else with the width. */
static int height_first(const window *w, int64_t full_h, int64_t full_w)
{
    return w->height > full_h && w->height - full_h > 2 * (w->width - full_w);
}

/* Both passes over the part of the source that the answer needs. out: [rows->count][columns->count][channels]. */
static int passes(plane source, filter *rows, filter *columns, uint32_t channels, int rows_first, uint8_t *out)
{
    int64_t height, width;
    source.pixels += (size_t)narrowed(rows, &height) * source.stride + (size_t)narrowed(columns, &width) * channels;
    source.height = height;
    source.width = width;
    const int64_t lines = rows_first ? rows->count : height, side = rows_first ? width : columns->count;
    const size_t line = (size_t)side * channels;
    uint8_t *between = malloc((size_t)lines * line);
    int32_t *sums = malloc(line * sizeof *sums);
    const int failed = !between || !sums;
    const plane middle = {between, line, lines, side};
    if (!failed && rows_first) {
        down(&source, rows, channels, sums, between);
        across(&middle, columns, channels, out);
    } else if (!failed) {
        across(&source, columns, channels, between);
        down(&middle, rows, channels, sums, out);
    }
    free(between);
    free(sums);
    return failed ? -1 : 0;
}

/* ---- the image ------------------------------------------------------------------------------------------------------------- */

/* ITU-R 601 luma with 16 bits of fraction, rounded. [count][3] -> [count]; 0 where memory is missing. */
static uint8_t *luma(const uint8_t *p, size_t count)
{
    uint8_t *grey = malloc(count);
    for (size_t i = 0; i < count && grey; i++, p += 3)
        grey[i] = (uint8_t)((p[0] * 19595u + p[1] * 38470u + p[2] * 7471u + 32768u) >> 16);
    return grey;
}

int resize(const image *in, const resize_target *t, uint8_t *out)
{
    window w = {0, 0, in->height, in->width};
    int64_t full_h, full_w;
    full_size(t, &w, &full_h, &full_w);
    const double most = IMAGES_MOST_PIXELS, pixels = (double)full_h * (double)full_w;
    if (pixels > most) {
        cut_middle(t, most / pixels, &w);
        full_size(t, &w, &full_h, &full_w);
    }
    uint8_t *grey = t->channels < in->channels ? luma(in->pixels, (size_t)in->width * in->height) : 0;
    if (t->channels < in->channels && !grey)
        return -1;
    const uint32_t channels = grey ? 1 : in->channels;
    const size_t stride = (size_t)in->width * channels;
    const plane source = {(grey ? grey : in->pixels) + (size_t)w.top * stride + (size_t)w.left * channels, stride, w.height,
                          w.width};
    const int64_t top = nearest((double)(full_h - t->height) / 2), left = nearest((double)(full_w - t->width) / 2);
    filter rows = {0}, columns = {0};
    const int failed = make_filter(w.height, full_h, top, (int32_t)t->height, t->bicubic, &rows) ||
                       make_filter(w.width, full_w, left, (int32_t)t->width, t->bicubic, &columns) ||
                       passes(source, &rows, &columns, channels, height_first(&w, full_h, full_w), out);
    if (!failed && channels < t->channels) /* grey was resized once: each value becomes three equal ones, from the end on */
        for (size_t i = (size_t)t->height * t->width; i-- > 0;)
            memset(out + i * t->channels, out[i], t->channels);
    forget(&rows);
    forget(&columns);
    free(grey);
    return failed ? -1 : 0;
}
