#include "nst_depthwise_mve.h"

/* Strips of eight rows: 16 bytes of one are two columns. They give the answers of two rows, or of one, and of four columns at a time;
 * a channel's weights stand in `vectors`, two columns of the window's first row of answers and then of the second's. */
enum { ROWS = 8, BLOCK = 16, WIDE = 4, MOST = 8 }; /* MOST: rows and columns of a window */

#if NST_MVE

#include <arm_mve.h>

/* Weights, of which each of 16 bytes has its place among the channel's taps. */
NST_INLINE void vector(int8_t *to, const int8_t *taps, const uint8_t *places)
{
    vst1q_s8(to, vldrbq_gather_offset_s8(taps, vld1q_u8(places)));
}

/* Two columns of the window for eight answers. A, B, C: from the place behind them to the second, third and fourth answer's. */
#define COLUMN(MLA, LOAD, FIRST, SECOND)                                                                                           \
    "vldrb.8 q4, [%[x]" LOAD "\n\t" MLA ".s8 " FIRST ", q0, q4\n\t" MLA ".s8 " SECOND ", q3, q4\n\t"
#define COLUMNS(MLA, A, B, C)                                                                                                      \
    "vldrb.8 q0, [%[w]], #16\n\t"                                                                                                  \
    "vldrb.8 q3, [%[w]], #16\n\t" COLUMN(MLA, "], #16", "r0", "r8") COLUMN(MLA, ", #" A "]", "r2", "r10")                          \
        COLUMN(MLA, ", #" B "]", "r4", "r12") COLUMN(MLA, ", #" C "]", "r6", "lr")
#define LESS_IF_NEGATIVE                                                                                                           \
    "vshr.s32 q0, q1, #31\n\t"                                                                                                     \
    "vadd.i32 q1, q1, q0\n\t"                                                                                                      \
    "vshr.s32 q0, q2, #31\n\t"                                                                                                     \
    "vadd.i32 q2, q2, q0\n\t"
#define STRIPS(A, B, C, FIX)                                                                                                       \
    __asm__ volatile(                                                                                                              \
        "vldrb.8 q7, [%[p]]\n"                                                                                                     \
        "1: ldrd %[n], r0, [%[p], #16]\n\t"                                                                                        \
        "vmsr p0, r0\n\t"                                                                                                          \
        "add %[n], %[n], #1\n"                                                                                                     \
        "2: ldrd %[w], %[end], [%[p], #88]\n\t"                                                                                    \
        "subs %[n], %[n], #1\n\t"                                                                                                  \
        "bne 4f\n\t"                                                                                                               \
        "ldr r0, [%[p], #24]\n\t"                                                                                                  \
        "vmsr p0, r0\n"                                                                                                            \
        "4: " COLUMNS("vmladav", A, B, C) "3: " COLUMNS("vmladava", A, B, C) /* */                                                 \
        "cmp %[w], %[end]\n\t"                                                                                                     \
        "bne 3b\n\t"                                                                                                               \
        "vmov q1[2], q1[0], r0, r4\n\t"                                                                                            \
        "vmov q1[3], q1[1], r2, r6\n\t"                                                                                            \
        "vmov q2[2], q2[0], r8, r12\n\t"                                                                                           \
        "vmov q2[3], q2[1], r10, lr\n\t"                                                                                           \
        "ldrd r0, r2, [%[p], #72]\n\t"                                                                                             \
        "ldrd r4, r6, [%[p], #80]\n\t"                                                                                             \
        "vadd.i32 q1, q1, r0\n\t"                                                                                                  \
        "vadd.i32 q2, q2, r0\n\t"                                                                                                  \
        "vqrdmulh.s32 q1, q1, r2\n\t"                                                                                              \
        "vqrdmulh.s32 q2, q2, r2\n\t" FIX                                                                                          \
        "vrshl.s32 q1, r4\n\t"                                                                                                     \
        "vrshl.s32 q2, r4\n\t"                                                                                                     \
        "vqmovnb.s32 q0, q1\n\t"                                                                                                   \
        "vqmovnt.s32 q0, q2\n\t"                                                                                                   \
        "vqadd.s16 q0, q0, r6\n\t"                                                                                                 \
        "vqmovnb.s16 q0, q0\n\t"                                                                                                   \
        "vpst\n\t"                                                                                                                 \
        "vstrbt.16 q0, [%[out], q7]\n\t"                                                                                           \
        "ldrd r2, r0, [%[p], #40]\n\t"                                                                                             \
        "add %[x], %[x], r0\n\t"                                                                                                   \
        "add %[out], %[out], r2\n\t"                                                                                               \
        "cmp %[n], #0\n\t"                                                                                                         \
        "bne 2b\n\t"                                                                                                               \
        "ldrd r0, r2, [%[p], #28]\n\t"                                                                                             \
        "add %[x], %[x], r0\n\t"                                                                                                   \
        "add %[out], %[out], r2\n\t"                                                                                               \
        "ldr r0, [%[p], #36]\n\t"                                                                                                  \
        "subs r0, r0, #1\n\t"                                                                                                      \
        "str r0, [%[p], #36]\n\t"                                                                                                  \
        "bne 1b"                                                                                                                   \
        : [x] "+r"(x), [out] "+r"(out), [w] "=&r"(w), [end] "=&r"(end), [n] "=&r"(n)                                               \
        : [p] "r"(p)                                                                                                               \
        : "r0", "r2", "r4", "r6", "r8", "r10", "r12", "lr", "q0", "q1", "q2", "q3", "q4", "q7", "cc", "memory")

static const int8_t *answer_strips(const int8_t *x, int8_t *out, nst_rows *p)
{
    const int8_t *w, *end;
    int32_t n;
    if (p->stride == 1 && p->negative)
        STRIPS("-8", "0", "8", LESS_IF_NEGATIVE);
    else if (p->stride == 1)
        STRIPS("-8", "0", "8", "");
    else if (p->negative)
        STRIPS("0", "16", "32", LESS_IF_NEGATIVE);
    else
        STRIPS("0", "16", "32", "");
    return x;
}

#else

NST_INLINE void vector(int8_t *to, const int8_t *taps, const uint8_t *places)
{
    for (int32_t i = 0; i < BLOCK; i++)
        to[i] = taps[places[i]];
}

static const int8_t *answer_strips(const int8_t *x, int8_t *out, nst_rows *p)
{
    const int32_t blocks = (int32_t)(p->end - p->vectors) / BLOCK / 2;
    for (; p->left > 0; p->left--, x += p->next_strip, out += p->next_rows) {
        for (int32_t n = p->loops; n >= 0; n--, out += p->step, x += BLOCK * blocks + p->back) {
            for (int32_t i = 0; i < AT_ONCE; i++) {
                int32_t sum = p->bias;
                for (int32_t k = 0; k < BLOCK * blocks; k++)
                    sum += x[i / 2 * ROWS * p->stride + k] * p->vectors[k / BLOCK * 2 * BLOCK + i % 2 * BLOCK + k % BLOCK];
                const int32_t value = nst_mve_scaled(sum, p->multiplier, p->exponent, p->negative) + p->zero;
                if ((n ? p->mask : p->last_mask) >> 2 * i & 1)
                    out[p->places[i]] = nst_clamped(value, -128, 127);
            }
        }
    }
    return x;
}

#endif

/* Channel by channel: its weights into their vectors, its numbers to the others. */
static void answer(const int8_t *strips, nst_rows *p)
{
    const int32_t vectors = (int32_t)(p->end - p->vectors) / BLOCK;
    for (; p->channels > 0; p->channels--, p->stream += p->size, p->out++) {
        const int8_t *numbers = p->stream + p->size - 12;
        for (int32_t i = 0; i < vectors; i++)
            vector(p->vectors + i * BLOCK, p->stream, p->weights + i * BLOCK);
        p->bias = nst_word(numbers);
        p->multiplier = nst_word(numbers + 4);
        p->exponent = nst_word(numbers + 8);
        p->left = p->strips;
        strips = answer_strips(strips, p->out, p) + p->next_channel;
    }
}

/* Of every byte of the vectors its place among a channel's taps; the one behind them all is 0. */
static void places_of(const nst_window *w, int32_t vectors, uint8_t *places)
{
    for (int32_t i = 0; i < vectors * BLOCK; i++) {
        const int32_t column = i / (2 * BLOCK) * 2 + i % BLOCK / ROWS, row = i % ROWS - i / BLOCK % 2 * w->stride.height;
        const int32_t inside = row >= 0 && row < w->size.height && column < w->size.width;
        places[i] = (uint8_t)(inside ? row * w->size.width + column : w->size.height * w->size.width);
    }
}

void nst_depthwise_mve(const int8_t *in, const nst_depthwise_mve_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                       int32_t bytes)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const nst_window w = layer->window;
    const int32_t stride = w.stride.height, channels = layer->out.channels, width = layer->out.width;
    const int32_t vectors = (w.size.width + 1) / 2 * 2, fours = (width + WIDE - 1) / WIDE, taps = w.size.height * w.size.width;
    const int32_t each = w.size.height + stride <= ROWS ? 2 : 1, columns = (WIDE * fours - 1) * stride + vectors;
    const nst_source source = nst_source_of(layer, p.rows, columns, ROWS, each);
    int8_t *to = scratch, *strips = to + 2 * vectors * BLOCK;
    uint8_t *places = (uint8_t *)to + vectors * BLOCK;
    nst_rows how;
    places_of(&w, vectors, places);
    how.loops = fours - 1;
    how.half = 0x3333;
    how.mask = how.last_mask = 0;
    for (int32_t i = 0; i < AT_ONCE; i++) {
        how.places[i] = (uint16_t)((i % 2 * width + i / 2) * channels);
        how.mask |= 3u << 2 * i;
        if (how.loops * WIDE + i / 2 < width)
            how.last_mask |= 3u << 2 * i;
    }
    if (each == 1) {
        how.mask &= how.half;
        how.last_mask &= how.half;
    }
    how.next_strip = source.pitch - fours * WIDE * ROWS * stride;
    how.next_rows = (each * width - fours * WIDE) * channels;
    how.step = WIDE * channels;
    how.back = WIDE * ROWS * stride - vectors / 2 * BLOCK;
    how.zero = layer->sums.output.zero;
    how.weights = places;
    how.vectors = to;
    how.end = to + vectors * BLOCK;
    how.size = (taps / 4 + 1) * 4 + 12;
    how.negative = layer->sums.negative;
    how.stride = stride;
    nst_depthwise_by(in, layer, out, strips, bytes - 2 * vectors * BLOCK, p, &source, how, answer);
}
