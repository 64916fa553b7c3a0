#include "nst_mve_products.h"
#include "nst_part.h"

/* Some bytes of an image through the table; places: 256 times the channel of each, which are as many as the table has. */
NST_INLINE void look_up(int8_t *to, const int8_t *from, int32_t count, const int8_t *table, const uint16_t *places)
{
#if NST_MVE
    __asm__ volatile(
        "wlstp.16 lr, %[count], 2f\n"
        "1: vldrb.u16 q0, [%[from]], #8\n\t"
        "vldrh.u16 q1, [%[places]], #16\n\t"
        "vadd.i16 q0, q0, q1\n\t"
        "vldrb.u16 q1, [%[table], q0]\n\t"
        "vstrb.16 q1, [%[to]], #8\n\t"
        "letp lr, 1b\n"
        "2:"
        : [to] "+l"(to), [from] "+l"(from), [places] "+l"(places)
        : [count] "r"(count), [table] "l"(table)
        : "lr", "q0", "q1", "memory");
#else
    for (int32_t i = 0; i < count; i++)
        to[i] = table[places[i] + (uint8_t)from[i]];
#endif
}

/* What does not change from patch to patch. table: of an image, else 0. */
typedef struct {
    const int8_t *in, *table;
    const uint16_t *places;
    nst_shape map;
    nst_window window;
    int32_t zero;
} nst_source;

NST_INLINE void bring(const nst_source *s, int8_t *to, const int8_t *from, int32_t count)
{
    if (s->table)
        look_up(to, from, count, s->table, s->places);
    else
        nst_mve_copy(to, from, count);
}

/* A patch that reaches beyond the map, or whose columns are not side by side. */
NST_APART void gather_at_edge(const nst_source *s, int32_t top, int32_t left, int8_t *patch)
{
    const nst_window w = s->window;
    const int32_t depth = s->map.channels, piece = w.dilation.width == 1 ? w.size.width : 1;
    for (int32_t row = 0; row < w.size.height; row++) {
        const int32_t y = top + row * w.dilation.height, width = y >= 0 && y < s->map.height ? s->map.width : 0;
        for (int32_t column = 0; column < w.size.width; column += piece) {
            const int32_t x = left + column * w.dilation.width;
            const int32_t begin = nst_smaller(nst_larger(-x, 0), piece), end = nst_smaller(nst_larger(width - x, begin), piece);
            nst_mve_fill(patch, s->zero, begin * depth);
            if (begin < end)
                bring(s, patch + begin * depth, s->in + (y * width + x + begin) * depth, (end - begin) * depth);
            nst_mve_fill(patch + end * depth, s->zero, (piece - end) * depth);
            patch += piece * depth;
        }
    }
}

/* The patch whose first pixel is (top, left) of the map: [height][width][depth]. What lies outside the map is the input's zero. */
NST_INLINE void gather(const nst_source *s, int32_t top, int32_t left, int8_t *patch)
{
    const nst_window *w = &s->window;
    const int32_t depth = s->map.channels, bottom = top + (w->size.height - 1) * w->dilation.height;
    if (top < 0 || left < 0 || bottom >= s->map.height || left + w->size.width > s->map.width || w->dilation.width > 1) {
        gather_at_edge(s, top, left, patch);
        return;
    }
    const int32_t count = w->size.width * depth, down = w->dilation.height * s->map.width * depth;
    const int8_t *from = s->in + (top * s->map.width + left) * depth;
    for (int32_t row = w->size.height; row > 0; row--, from += down, patch += count)
        bring(s, patch, from, count);
}

/* Pixels of a row in pairs. */
NST_INLINE void convolve(const int8_t *in, const int8_t *table, const nst_conv_mve_layer *layer, int8_t *out, int8_t *scratch,
                         const nst_part *part)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const int32_t whole = nst_mve_whole(layer->sums.depth), step = layer->out.channels;
    uint16_t *places = (uint16_t *)(void *)(scratch + 2 * whole);
    const nst_source source = {in, table, places, layer->in, layer->window, layer->in_zero};
    nst_mve_work work = nst_mve_ready(scratch, &layer->sums, p.channels, step);
    for (int32_t i = 0; table && i < layer->window.size.width * layer->in.channels; i++)
        places[i] = (uint16_t)(i % layer->in.channels * 256);
    out += p.rows.first * layer->out.width * step + p.channels.first;
    for (int32_t y = p.rows.first; y < p.rows.end; y++) {
        const int32_t top = y * layer->window.stride.height - layer->window.pad.height;
        int32_t left = -layer->window.pad.width;
        for (int32_t x = layer->out.width; x > 0; x -= 2, out += 2 * step) {
            const int32_t n = x < 2 ? 1 : 2;
            for (int32_t i = 0; i < n; i++, left += layer->window.stride.width)
                gather(&source, top, left, scratch + i * whole);
            nst_mve_products(&work, n, out);
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
