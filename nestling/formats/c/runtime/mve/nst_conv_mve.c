#include "nst_part.h"
#include "nst_products_mve.h"

/* What does not change from patch to patch. table: of an image, else 0; places: 256 times the channel of each byte of a window's row. */
typedef struct {
    const int8_t *in, *table;
    const uint16_t *places;
    nst_shape map;
    nst_window window;
    int32_t zero, down, across; /* down, across: bytes from row to row of the window, in the map and in the patch */
} nst_source;

/* Some rows of a window, `count` bytes of each. */
NST_INLINE void copy_rows(int8_t *to, const int8_t *from, int32_t rows, int32_t count, const nst_source *s)
{
#if NST_MVE
    const int32_t whole = nst_mve_whole(count);
    __asm__ volatile(
        "1: wlstp.8 lr, %[count], 3f\n"
        "2: vldrb.8 q0, [%[from]], #16\n\t"
        "vstrb.8 q0, [%[to]], #16\n\t"
        "letp lr, 2b\n"
        "3: add %[from], %[from], %[down]\n\t"
        "add %[to], %[to], %[across]\n\t"
        "subs %[rows], %[rows], #1\n\t"
        "bne 1b"
        : [to] "+r"(to), [from] "+r"(from), [rows] "+r"(rows)
        : [count] "r"(count), [down] "r"(s->down - whole), [across] "r"(s->across - whole)
        : "lr", "q0", "cc", "memory");
#else
    for (; rows > 0; rows--, to += s->across, from += s->down)
        nst_mve_copy(to, from, count);
#endif
}

/* The same of an image, through the table. */
NST_INLINE void look_up_rows(int8_t *to, const int8_t *from, int32_t rows, int32_t count, const nst_source *s)
{
#if NST_MVE
    const int32_t whole = (count + 7) & -8;
    const uint16_t *places = s->places;
    __asm__ volatile(
        "1: wlstp.16 lr, %[count], 3f\n"
        "2: vldrb.u16 q0, [%[from]], #8\n\t"
        "vldrh.u16 q1, [%[places]], #16\n\t"
        "vadd.i16 q0, q0, q1\n\t"
        "vldrb.u16 q1, [%[table], q0]\n\t"
        "vstrb.16 q1, [%[to]], #8\n\t"
        "letp lr, 2b\n"
        "3: add %[from], %[from], %[down]\n\t"
        "add %[to], %[to], %[across]\n\t"
        "sub %[places], %[places], %[back]\n\t"
        "subs %[rows], %[rows], #1\n\t"
        "bne 1b"
        : [to] "+l"(to), [from] "+l"(from), [rows] "+r"(rows), [places] "+r"(places)
        : [count] "r"(count), [down] "r"(s->down - whole), [across] "r"(s->across - whole), [back] "r"(2 * whole),
          [table] "r"(s->table)
        : "lr", "q0", "q1", "cc", "memory");
#else
    for (; rows > 0; rows--, to += s->across, from += s->down)
        for (int32_t i = 0; i < count; i++)
            to[i] = s->table[s->places[i] + (uint8_t)from[i]];
#endif
}

NST_INLINE void bring(const nst_source *s, int8_t *to, const int8_t *from, int32_t rows, int32_t count)
{
    if (s->table)
        look_up_rows(to, from, rows, count, s);
    else
        copy_rows(to, from, rows, count, s);
}

/* A patch that reaches beyond the map, whose zero there stands for it, or whose columns are not side by side. */
NST_APART void gather_at_edge(const nst_source *s, int32_t top, int32_t left, int8_t *patch)
{
    const nst_window w = s->window;
    const int32_t depth = s->map.channels, piece = w.dilation.width == 1 ? w.size.width : 1;
    int32_t first = 0, end = w.size.height;
    nst_mve_fill(patch, s->zero, s->across * end);
    while (first < end && top + first * w.dilation.height < 0)
        first++;
    while (first < end && top + (end - 1) * w.dilation.height >= s->map.height)
        end--;
    for (int32_t column = 0; first < end && column < w.size.width; column += piece) {
        const int32_t x = left + column * w.dilation.width;
        const int32_t begin = nst_larger(-x, 0), stop = nst_smaller(s->map.width - x, piece);
        if (begin < stop)
            bring(s, patch + first * s->across + (column + begin) * depth,
                  s->in + ((top + first * w.dilation.height) * s->map.width + x + begin) * depth, end - first,
                  (stop - begin) * depth);
    }
}

/* Pixels of a row in pairs, each of whose patches is gathered: [height][width][depth]. */
NST_INLINE void convolve(const int8_t *in, const int8_t *table, const nst_conv_mve_layer *layer, int8_t *out, int8_t *scratch,
                         const nst_part *part)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const int32_t whole = nst_mve_whole(layer->sums.depth), step = layer->out.channels;
    uint16_t *places = (uint16_t *)(void *)(scratch + 2 * whole);
    const int32_t row = layer->window.dilation.height * layer->in.width * layer->in.channels;
    const nst_source source =
        {in, table, places, layer->in, layer->window, layer->in_zero, row, layer->window.size.width * layer->in.channels};
    nst_mve_work work = nst_mve_ready(scratch, &layer->sums, p.channels, step);
    for (int32_t i = 0; table && i < layer->window.size.width * layer->in.channels; i++)
        places[i] = (uint16_t)(i % layer->in.channels * 256);
    out += p.rows.first * layer->out.width * step + p.channels.first;
    const int32_t last = layer->in.width - layer->window.size.width, depth = layer->in.channels;
    for (int32_t y = p.rows.first; y < p.rows.end; y++) {
        const int32_t top = y * layer->window.stride.height - layer->window.pad.height;
        const int32_t bottom = top + (layer->window.size.height - 1) * layer->window.dilation.height;
        const int32_t inside = top >= 0 && bottom < layer->in.height && layer->window.dilation.width == 1 ? last : -1;
        const int8_t *first = in + top * layer->in.width * depth;
        int32_t left = -layer->window.pad.width;
        for (int32_t x = layer->out.width; x > 0; x -= 2, out += 2 * step) {
            const int32_t n = x < 2 ? 1 : 2;
            for (int32_t i = 0; i < n; i++, left += layer->window.stride.width) {
                int8_t *patch = scratch + i * whole;
                if (left < 0 || left > inside)
                    gather_at_edge(&source, top, left, patch);
                else if (table)
                    look_up_rows(patch, first + left * depth, layer->window.size.height, source.across, &source);
                else
                    copy_rows(patch, first + left * depth, layer->window.size.height, source.across, &source);
            }
            nst_products_mve(&work, n, out);
        }
        out -= layer->out.width % 2 * step;
    }
}

void nst_conv_mve(const int8_t *in, const nst_conv_mve_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    convolve(in, 0, layer, out, scratch, part);
}

void nst_conv_image_mve(const uint8_t *image, const nst_conv_image_mve_layer *layer, int8_t *out, void *scratch,
                        const nst_part *part)
{
    convolve((const int8_t *)image, layer->table, &layer->conv, out, scratch, part);
}
