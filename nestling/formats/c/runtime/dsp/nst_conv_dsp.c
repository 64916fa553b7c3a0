#include "nst_part.h"
#include "nst_products_dsp.h"

/* Where a map comes from: itself, or (table) an image. */
typedef struct {
    const int8_t *in;
    const int8_t *table;
    const nst_conv_dsp_layer *layer;
} nst_source;

/* How a window goes over the strip, in numbers of 16 bits but for `words`. */
typedef struct {
    int32_t rows;          /* of the window */
    int32_t words;         /* that a piece takes, two numbers each */
    int32_t next;          /* from the end of a row's first piece to the next row's */
    int32_t all;           /* numbers of the strip */
    int32_t pieces, right; /* of a row, and from one to the next */
    int32_t down;          /* from one row to the next */
} nst_walk;

/* Columns of two patches: of the first number of each, in a row of a strip that ends at `end`. */
static void pieces_side_by_side(const int16_t *a, const int16_t *b, const nst_walk *walk, int32_t *columns, const int16_t *end)
{
    const nst_walk w = *walk;
    for (int32_t row = 0; row < w.rows; row++) {
        for (int32_t piece = 0; piece < w.pieces; piece++)
            for (int32_t word = 0; word < w.words; word++) {
                const int32_t i = piece * w.right + 2 * word;
                *columns++ = nst_halves(a[i], a[i + 1]);
                *columns++ = nst_halves(b[i], b[i + 1]);
            }
        a += w.down, b += w.down;
        if (a >= end)
            a -= w.all, b -= w.all;
    }
}

#if NST_DSP

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define NAKED __attribute__((naked, noinline, aligned(4))) static

/* Fours of bytes, at least one, as numbers of 16 bits. */
NAKED void widen_fours(const int8_t *from, const int8_t *end, int16_t *to)
{
    __asm__ volatile(
        "push {r4, r5}\n\t"
        "1: ldr r3, [r0], #4\n\t"
        "cmp r0, r1\n\t"
        "sxtb16 r4, r3\n\t"
        "sxtb16 r5, r3, ror #8\n\t"
        "pkhbt r3, r4, r5, lsl #16\n\t"
        "pkhtb r5, r5, r4, asr #16\n\t"
        "str r3, [r2], #4\n\t"
        "str r5, [r2], #4\n\t"
        "bne 1b\n\t"
        "pop {r4, r5}\n\t"
        "bx lr\n\t");
}

/* An instruction a line: */
/* clang-format off */

/* Columns of two patches whose rows are one piece each: of the first number of each, in a row of a strip that ends at `end`. LOAD: two
 * numbers of 32 bits. r12: walk, lr: rows that are left, r2: numbers of 32 bits of a row that are left. */
#define SIDE_BY_SIDE(NAME, LOAD)                                                                        \
    NAKED void NAME(const int16_t *a, const int16_t *b, const nst_walk *walk, int32_t *columns,         \
                    const int16_t *end)                                                                 \
    {                                                                                                   \
        __asm__ volatile("push {r4-r11, lr}\n\t"                                                        \
                         "mov r12, r2\n\t"                                                              \
                         "ldr lr, [r12]\n\t"                                                            \
                         "1: ldr r2, [r12, #4]\n\t"                                                     \
                         "subs r2, #4\n\t"                                                              \
                         "bmi 3f\n\t"                                                                   \
                         "2: " LOAD("r4", "r6", "r0") LOAD("r5", "r7", "r1")                            \
                         LOAD("r8", "r10", "r0") LOAD("r9", "r11", "r1")                                \
                         "subs r2, #4\n\t"                                                              \
                         "stmia r3!, {r4-r11}\n\t"                                                      \
                         "bpl 2b\n\t"                                                                   \
                         "3: adds r2, #4\n\t"                                                           \
                         "beq 5f\n\t"                                                                   \
                         "4: ldr r4, [r0], #4\n\t"                                                      \
                         "ldr r5, [r1], #4\n\t"                                                         \
                         "subs r2, #1\n\t"                                                              \
                         "strd r4, r5, [r3], #8\n\t"                                                    \
                         "bne 4b\n\t"                                                                   \
                         "5: ldrd r4, r5, [r12, #8]\n\t"                                                \
                         "ldr r6, [sp, #36]\n\t"                                                        \
                         "add r0, r0, r4, lsl #1\n\t"                                                   \
                         "add r1, r1, r4, lsl #1\n\t"                                                   \
                         "cmp r0, r6\n\t"                                                               \
                         "itt hs\n\t"                                                                   \
                         "subhs r0, r0, r5, lsl #1\n\t"                                                 \
                         "subhs r1, r1, r5, lsl #1\n\t"                                                 \
                         "subs lr, #1\n\t"                                                              \
                         "bne 1b\n\t"                                                                   \
                         "pop {r4-r11, pc}\n\t");                                                       \
    }
#define LOAD_WORDS(A, B, FROM) "ldrd " A ", " B ", [" FROM "], #8\n\t"
#define LOAD_HALVES(A, B, FROM) "ldr " A ", [" FROM "], #4\n\t" "ldr " B ", [" FROM "], #4\n\t"

/* clang-format on */

SIDE_BY_SIDE(aligned_side_by_side, LOAD_WORDS)
SIDE_BY_SIDE(any_side_by_side, LOAD_HALVES)

NST_INLINE void side_by_side(const int16_t *a, const int16_t *b, const nst_walk *walk, int32_t *columns, const int16_t *end)
{
    if (((uintptr_t)a | (uintptr_t)b) & 2)
        any_side_by_side(a, b, walk, columns, end);
    else
        aligned_side_by_side(a, b, walk, columns, end);
}

#pragma GCC diagnostic pop

#else

static void widen_fours(const int8_t *from, const int8_t *end, int16_t *to)
{
    while (from < end)
        *to++ = *from++;
}

static void side_by_side(const int16_t *a, const int16_t *b, const nst_walk *walk, int32_t *columns, const int16_t *end)
{
    pieces_side_by_side(a, b, walk, columns, end);
}

#endif

/* ---- the strip -------------------------------------------------------------------------------------------------------------- */

NST_INLINE int16_t *fill(int16_t *to, int32_t value, int32_t count)
{
    for (; count > 0; count--)
        *to++ = (int16_t)value;
    return to;
}

static int16_t *widen_bytes(const int8_t *from, int32_t count, int16_t *to)
{
    const int32_t fours = count & -4;
    if (fours)
        widen_fours(from, from + fours, to);
    for (int32_t i = fours; i < count; i++)
        to[i] = from[i];
    return to + count;
}

/* Pixels through the table, [channels][256]; colours side by side, which is what there mostly is. */
NST_APART int16_t *look_up(const uint8_t *from, int32_t pixels, const int8_t *table, int32_t channels, int16_t *to)
{
    if (channels == 3) {
        for (; pixels > 0; pixels--, to += 3, from += 3) {
            to[0] = table[from[0]];
            to[1] = table[256 + from[1]];
            to[2] = table[512 + from[2]];
        }
        return to;
    }
    for (; pixels > 0; pixels--)
        for (int32_t c = 0; c < channels; c++)
            *to++ = table[256 * c + *from++];
    return to;
}

/* Row y of the map, or what stands above and below it, into the strip. */
NST_APART void read_row(const nst_source *source, int32_t y, int16_t *to)
{
    const nst_conv_dsp_layer *layer = source->layer;
    const nst_shape *map = &layer->in;
    const int32_t channels = map->channels, zero = layer->in_zero;
    const int32_t columns = (layer->strip.width - 1) / channels, before = nst_smaller(layer->window.pad.width, columns);
    const int32_t pixels = y >= 0 && y < map->height ? nst_smaller(map->width, columns - before) : 0;
    const int8_t *from = source->in + y * map->width * channels;
    to = fill(to, zero, before * channels);
    if (pixels && source->table)
        to = look_up((const uint8_t *)from, pixels, source->table, channels, to);
    else if (pixels)
        to = widen_bytes(from, pixels * channels, to);
    fill(to, zero, (columns - before - pixels) * channels);
}

/* ---- windows ---------------------------------------------------------------------------------------------------------------- */

static nst_walk walk_of(const nst_conv_dsp_layer *layer)
{
    const nst_window *window = &layer->window;
    const int32_t channels = layer->in.channels, whole = window->dilation.width == 1;
    const int32_t words = ((whole ? window->size.width : 1) * channels + 1) / 2,
                  down = window->dilation.height * layer->strip.width;
    const nst_walk walk = {
        window->size.height,
        words,
        down - 2 * words,
        layer->strip.height * layer->strip.width,
        whole ? 1 : window->size.width,
        window->dilation.width * channels,
        down,
    };
    return walk;
}

/* Some groups of all pixels of the rows, in pairs; an odd last one of a row is both of a pair. The strip's rows are numbered round
 * and round; each is read when the first window reaches it. */
static void convolve(const nst_source *source, int8_t *out, int32_t *columns, int16_t *strip, const nst_part *part,
                     const nst_groups_dsp *some)
{
    const nst_conv_dsp_layer *layer = source->layer;
    const int32_t height = layer->strip.height, step = layer->out.channels, pad = layer->window.pad.height;
    const nst_walk walk = walk_of(layer);
    const int32_t move = layer->window.stride.width * layer->in.channels;
    int32_t ready = part->rows.first * layer->window.stride.height; /* rows from above the padding on */
    out += part->rows.first * layer->out.width * step;
    for (int32_t y = part->rows.first; y < part->rows.end; y++) {
        const int32_t top = y * layer->window.stride.height;
        for (ready = nst_larger(ready, top); ready < top + height; ready++)
            read_row(source, ready - pad, strip + ready % height * layer->strip.width);
        const int16_t *row = strip + top % height * layer->strip.width;
        for (int32_t x = 0; x < layer->out.width; x += 2) {
            const int32_t two = x + 1 < layer->out.width;
            const int16_t *a = row + x * move, *b = a + two * move;
            if (walk.pieces == 1)
                side_by_side(a, b, &walk, columns, strip + walk.all);
            else
                pieces_side_by_side(a, b, &walk, columns, strip + walk.all);
            nst_answers_2(some, columns, out, out + two * step);
            out += (1 + two) * step;
        }
    }
}

static void convolve_in_parts(nst_source source, int8_t *out, int32_t *columns, const nst_part *part, int32_t bytes)
{
    const nst_conv_dsp_layer *layer = source.layer;
    const nst_part p = nst_part_of(part, &layer->out);
    const nst_sums_dsp *sums = &layer->sums;
    const nst_range all = nst_groups_of(sums, p.channels);
    const int32_t in_strip = layer->strip.height * layer->strip.width;
    const int32_t at_once = nst_at_once_dsp(sums, all, bytes - 8 * sums->steps - 2 * in_strip);
    int16_t *strip = (int16_t *)(columns + 2 * sums->steps);
    for (int32_t first = all.first; first < all.end; first += at_once) {
        const nst_range groups = {first, nst_smaller(first + at_once, all.end)};
        const nst_groups_dsp some = nst_ready_groups(sums, p.channels, groups, columns + 2 * sums->steps + in_strip / 2);
        convolve(&source, out, columns, strip, &p, &some);
    }
}

void nst_conv_dsp(const int8_t *in, const nst_conv_dsp_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                  int32_t bytes)
{
    const nst_source source = {in, 0, layer};
    convolve_in_parts(source, out, scratch, part, bytes);
}

void nst_conv_image_dsp(const uint8_t *image, const nst_conv_image_dsp_layer *layer, int8_t *out, void *scratch,
                        const nst_part *part, int32_t bytes)
{
    const nst_source source = {(const int8_t *)image, layer->table, &layer->conv};
    convolve_in_parts(source, out, scratch, part, bytes);
}
