/* Rows of a map as numbers, with the border that windows reach over: what nst_conv_host.c and nst_depthwise_host.c slide over.
 *
 * Of the rows that a row of answers needs as many as are new are made ready, each in the place of one that is not needed any more. A row
 * lies in `phases` parts, pixel x with its border in part x % phases: a window's column then finds what all answers need of it side by
 * side. */
#ifndef NST_ROWS_H
#define NST_ROWS_H

#include "nst_kit.h"
#include "nst_part.h"

#include <string.h>

typedef struct {
    const nst_kit *kit;
    nst_shape in;
    nst_window window;
    int32_t zero;        /* the border's */
    int32_t phases;      /* parts of a row */
    int32_t part, bytes; /* of a part, of a row */
    int32_t kept;        /* rows */
    int32_t next;        /* the first row of the map that was not made ready yet */
    const int8_t *table; /* of an image: [channels][256], else 0 */
    uint8_t *border;     /* a row of zeros */
    uint8_t *rows;       /* [kept] */
    uint8_t *whole;      /* a row before it is divided, or of an image as int8 */
} nst_rows;

/* Bytes of a part of a row: the answers' pixels, and as many more as windows reach. */
NST_INLINE int32_t nst_part_bytes(const nst_kit *kit, const nst_window *w, int32_t answers, int32_t channels, int32_t phases)
{
    const int32_t reach = (w->size.width - 1) * w->dilation.width;
    const int32_t pixels = phases > 1 ? answers + reach / phases : (answers - 1) * w->stride.width + reach + 1;
    return (pixels * channels * kit->element + NST_BLOCK * 2 + 63) & ~63;
}

/* count numbers of one value. */
NST_INLINE void nst_filled(const nst_kit *kit, uint8_t *out, int32_t count, int32_t value)
{
    int8_t some[NST_BLOCK];
    memset(some, value, sizeof some);
    for (int32_t i = 0; i < count; i += NST_BLOCK)
        kit->numbers(some, nst_smaller(count - i, NST_BLOCK), out + i * kit->element);
}

/* All rows begin as borders: what is written into them later leaves the borders as they are. */
NST_INLINE nst_rows nst_rows_in(uint8_t *memory, const nst_kit *kit, const nst_shape *in, const nst_window *w, int32_t answers,
                                int32_t phases, int32_t zero)
{
    const int32_t part = nst_part_bytes(kit, w, answers, in->channels, phases), bytes = part * phases;
    const int32_t kept = (w->size.height - 1) * w->dilation.height + 1;
    const nst_rows rows =
        {kit, *in, *w, zero, phases, part, bytes, kept, 0, 0, memory, memory + bytes, memory + (kept + 1) * bytes};
    for (int32_t i = 0; i <= kept; i++)
        nst_filled(kit, memory + i * bytes, bytes / kit->element, zero);
    return rows;
}

/* Row y of the map, from -pad on, or the border. */
NST_INLINE const uint8_t *nst_row(const nst_rows *r, int32_t y)
{
    return y < 0 || y >= r->in.height ? r->border : r->rows + y % r->kept * r->bytes;
}

/* A pixel's numbers, a multiple of 8 bytes, to another place. */
NST_INLINE void nst_pixel(const uint8_t *from, int32_t bytes, uint8_t *to)
{
    int32_t i = 0;
    for (; i + 32 <= bytes; i += 32)
        memcpy(to + i, from + i, 32);
    for (; i < bytes; i += 8)
        memcpy(to + i, from + i, 8);
}

/* One row of the map into its place. */
NST_INLINE void nst_take_row(const nst_rows *r, const int8_t *row, uint8_t *place)
{
    const int32_t channels = r->in.channels, element = r->kit->element, left = r->window.pad.width;
    const int32_t held = r->part / element / channels; /* pixels in a part */
    if (r->phases == 1) {
        r->kit->numbers(row, nst_larger(nst_smaller(r->in.width, held - left), 0) * channels, place + left * channels * element);
        return;
    }
    r->kit->numbers(row, r->in.width * channels, r->whole);
    for (int32_t phase = 0; phase < r->phases; phase++) {
        int32_t at = left / r->phases + (left % r->phases > phase); /* the first that is not border */
        for (int32_t x = at * r->phases + phase - left; x < r->in.width && at < held; x += r->phases, at++)
            nst_pixel(r->whole + x * channels * element, channels * element, place + phase * r->part + at * channels * element);
    }
}

/* Makes ready what the answers' row y needs. map: int8, or an image's bytes where there is a table. */
NST_INLINE void nst_take_rows(nst_rows *r, const void *map, int32_t y)
{
    const int32_t top = y * r->window.stride.height - r->window.pad.height, size = r->in.width * r->in.channels;
    const int32_t end = nst_smaller(top + r->kept, r->in.height);
    for (int32_t row = nst_larger(nst_larger(top, r->next), 0); row < end; row++) {
        const int8_t *from = (const int8_t *)map + row * size;
        if (r->table) {
            const uint8_t *bytes = (const uint8_t *)map + row * size;
            for (int32_t c = 0; c < r->in.channels; c++)
                for (int32_t i = c; i < size; i += r->in.channels)
                    r->whole[i] = (uint8_t)r->table[256 * c + bytes[i]];
            from = (const int8_t *)r->whole;
        }
        nst_take_row(r, from, r->rows + row % r->kept * r->bytes);
    }
    r->next = nst_larger(r->next, end);
}

#endif
