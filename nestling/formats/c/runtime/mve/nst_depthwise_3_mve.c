#include "nst_depthwise_mve.h"

/* Strips of four rows: 16 bytes of one are four columns. At stride 1 they give the answers of two rows and two columns, which have the
 * channel's weights in four places; at stride 2 they give one. */
enum { ROWS = 4, TAPS = 12, CHANNEL = TAPS + 3 * 4 }; /* bytes of a channel's taps, and with its three numbers */

/* Where each of 16 bytes has its weight; 9 is a weight of 0. One place at stride 2, else by column and row. */
static const uint8_t PLACES[4][16] = {
    {0, 3, 6, 9, 1, 4, 7, 9, 2, 5, 8, 9, 9, 9, 9, 9},
    {9, 9, 9, 9, 0, 3, 6, 9, 1, 4, 7, 9, 2, 5, 8, 9},
    {9, 0, 3, 6, 9, 1, 4, 7, 9, 2, 5, 8, 9, 9, 9, 9},
    {9, 9, 9, 9, 9, 0, 3, 6, 9, 1, 4, 7, 9, 2, 5, 8},
};

#if NST_MVE

#define FOUR_OF_ONE                                                                                                                \
    "vldrb.8 q0, [%[x]], #8\n\t"                                                                                                   \
    "vmladav.s8 r0, q0, q3\n\t"                                                                                                    \
    "vmladav.s8 r2, q0, q4\n\t"                                                                                                    \
    "vmladav.s8 r4, q0, q5\n\t"                                                                                                    \
    "vmladav.s8 r6, q0, q6\n\t"
#define ONE(R) "vldrb.8 q0, [%[x]], #8\n\tvmladav.s8 " R ", q0, q3\n\t"
#define FOUR_OF_FOUR ONE("r0") ONE("r2") ONE("r4") ONE("r6")
#define INTO(Q) "vmov " Q "[2], " Q "[0], r0, r4\n\tvmov " Q "[3], " Q "[1], r2, r6\n\t"
#define LESS_IF_NEGATIVE                                                                                                           \
    "vshr.s32 q0, q1, #31\n\t"                                                                                                     \
    "vadd.i32 q1, q1, q0\n\t"                                                                                                      \
    "vshr.s32 q0, q2, #31\n\t"                                                                                                     \
    "vadd.i32 q2, q2, q0\n\t"
#define EIGHT(FOUR, FIX)                                                                                                           \
    FOUR INTO("q1") FOUR INTO("q2") "vadd.i32 q1, q1, %[a]\n\t"                                                                    \
                                    "vadd.i32 q2, q2, %[a]\n\t"                                                                    \
                                    "vqrdmulh.s32 q1, q1, %[w]\n\t"                                                                \
                                    "vqrdmulh.s32 q2, q2, %[w]\n\t" FIX "vrshl.s32 q1, %[shift]\n\t"                               \
                                    "vrshl.s32 q2, %[shift]\n\t"                                                                   \
                                    "vqmovnb.s32 q0, q1\n\t"                                                                       \
                                    "vqmovnt.s32 q0, q2\n\t"                                                                       \
                                    "vqadd.s16 q0, q0, %[zero]\n\t"                                                                \
                                    "vqmovnb.s16 q0, q0\n\t"                                                                       \
                                    "vpst\n\t"                                                                                     \
                                    "vstrbt.16 q0, [%[out], q7]\n\t"                                                               \
                                    "add %[out], %[out], %[step]\n\t"
/* a: PLACES, then the bias; w: the channel's bytes, then its multiplier. */
#define STRIPS(FOUR, FIX)                                                                                                          \
    __asm__ volatile("vldrb.8 q7, [%[p]]\n\t"                                                                                      \
                     "ldr %[step], [%[p], #40]\n\t" \
                     "ldr %[zero], [%[p], #84]\n"                                                                        \
                     "4: ldrd %[w], %[out], [%[p], #48]\n\t"                                                                       \
                     "add r0, %[w], #24\n\t"                                                                                      \
                     "add r2, %[out], #1\n\t"                                                                                     \
                     "strd r0, r2, [%[p], #48]\n\t"                                                                               \
                     "ldrd %[a], r0, [%[p], #56]\n\t"                                                                             \
                     "str r0, [%[p], #36]\n\t"                                                                                    \
                     "vldrb.8 q0, [%[a]]\n\t"                                                                                     \
                     "vldrb.8 q3, [%[w], q0]\n\t"                                                                                 \
                     "vldrb.8 q0, [%[a], #16]\n\t"                                                                                \
                     "vldrb.8 q4, [%[w], q0]\n\t"                                                                                 \
                     "vldrb.8 q0, [%[a], #32]\n\t"                                                                                \
                     "vldrb.8 q5, [%[w], q0]\n\t"                                                                                 \
                     "vldrb.8 q0, [%[a], #48]\n\t"                                                                                \
                     "vldrb.8 q6, [%[w], q0]\n\t"                                                                                 \
                     "ldr %[a], [%[w], #12]\n\t"                                                                                  \
                     "ldr %[shift], [%[w], #20]\n\t"                                                                              \
                     "ldr %[w], [%[w], #16]\n"                                                                                    \
                     "1: ldrd r0, r2, [%[p], #16]\n\t"                                                                            \
                     "vmsr p0, r2\n\t"                                                                                            \
                     "wls lr, r0, 3f\n"                                                                                           \
                     "2: " EIGHT(FOUR, FIX) "le lr, 2b\n"                                                                         \
                                            "3: ldr r0, [%[p], #24]\n\t"                                                          \
                                            "vmsr p0, r0\n\t" EIGHT(FOUR, FIX) "ldrd r0, r2, [%[p], #28]\n\t"                    \
                                                                               "add %[x], %[x], r0\n\t"                           \
                                                                               "add %[out], %[out], r2\n\t"                       \
                                                                               "ldr r0, [%[p], #36]\n\t"                          \
                                                                               "subs r0, r0, #1\n\t"                              \
                                                                               "str r0, [%[p], #36]\n\t"                          \
                                                                               "bne 1b\n\t"                                       \
                                                                               "ldrd r0, r2, [%[p], #64]\n\t"                     \
                                                                               "add %[x], %[x], r2\n\t"                           \
                                                                               "subs r0, r0, #1\n\t"                              \
                                                                               "str r0, [%[p], #64]\n\t"                          \
                                                                               "bne 4b\n\t"                                       \
                     : [x] "+r"(x), [w] "=&r"(w), [out] "=&r"(out), [a] "=&r"(a), [shift] "=&r"(shift), [step] "=&r"(step),        \
                       [zero] "=&r"(zero)                                                                                          \
                     : [p] "r"(p)                                                                                                  \
                     : "r0", "r2", "r4", "r6", "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "cc", "memory")

static void answer(const int8_t *x, nst_rows *p)
{
    const uint8_t *a;
    const int8_t *w;
    int8_t *out;
    int32_t shift, step, zero;
    if (p->stride == 1 && p->negative)
        STRIPS(FOUR_OF_ONE, LESS_IF_NEGATIVE);
    else if (p->stride == 1)
        STRIPS(FOUR_OF_ONE, "");
    else if (p->negative)
        STRIPS(FOUR_OF_FOUR, LESS_IF_NEGATIVE);
    else
        STRIPS(FOUR_OF_FOUR, "");
}

#else

static int8_t one_answer(const int8_t *x, const int8_t *w, const uint8_t *places, const nst_rows *p)
{
    int32_t sum = nst_word(w + TAPS);
    for (int32_t i = 0; i < 16; i++)
        sum += x[i] * w[places[i]];
    return nst_clamped(nst_mve_scaled(sum, nst_word(w + TAPS + 4), nst_word(w + TAPS + 8), p->negative) + p->zero, -128, 127);
}

/* One row, or two, of a channel. */
static void answer_strip(const int8_t *x, int8_t *out, const nst_rows *p)
{
    for (int32_t left = p->loops; left >= 0; left--, out += p->step) {
        const uint32_t mask = left ? p->mask : p->last_mask;
        for (int32_t i = 0; i < AT_ONCE; i++) {
            const int32_t four = i % 2, of = i / 2; /* the first four and the second four, in turn */
            const int8_t *at = x + (p->stride == 1 ? 8 * four : 32 * four + 8 * of);
            if (mask >> 2 * i & 1)
                out[p->places[i]] = one_answer(at, p->stream, p->weights + (p->stride == 1 ? 16 * of : 0), p);
        }
        x += p->stride == 1 ? 16 : 64;
    }
}

static void answer(const int8_t *x, nst_rows *p)
{
    const int32_t pitch = p->next_strip + (p->loops + 1) * (p->stride == 1 ? 16 : 64);
    const int32_t rows = p->next_rows + (p->loops + 1) * p->step;
    for (; p->channels > 0; p->channels--, p->stream += CHANNEL, p->out++, x += p->next_channel)
        for (int32_t strip = 0; strip < p->strips; strip++, x += pitch)
            answer_strip(x, p->out + strip * rows, p);
}

#endif

/* In a row's last eight the columns that there are; in both the rows that there are. */
static nst_rows rows_of(const nst_depthwise_mve_layer *layer, int32_t pitch)
{
    const int32_t stride = layer->window.stride.height, channels = layer->out.channels, width = layer->out.width;
    const int32_t wide = stride == 1 ? 4 : 8, rows = stride == 1 ? 2 : 1, eights = (width + wide - 1) / wide;
    nst_rows p;
    p.size = CHANNEL;
    p.loops = eights - 1;
    p.mask = p.last_mask = 0;
    for (int32_t i = 0; i < AT_ONCE; i++) {
        const int32_t of = i / 2, column = stride == 1 ? of % 2 + i % 2 * 2 : of + i % 2 * 4, row = stride == 1 ? of / 2 : 0;
        p.places[i] = (uint16_t)((row * width + column) * channels);
        p.mask |= 3u << 2 * i;
        if (p.loops * wide + column < width)
            p.last_mask |= 3u << 2 * i;
    }
    p.next_strip = pitch - eights * AT_ONCE * (stride == 1 ? 2 : 8);
    p.next_rows = (rows * width - eights * wide) * channels;
    p.step = wide * channels;
    p.zero = layer->sums.output.zero;
    p.weights = PLACES[0];
    p.negative = layer->sums.negative;
    p.stride = stride;
    p.half = 0xff; /* answers 4 to 7 are of the second row */
    return p;
}

void nst_depthwise_3_mve(const int8_t *in, const nst_depthwise_mve_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                         int32_t bytes)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const int32_t one = layer->window.stride.height == 1, width = layer->out.width;
    const int32_t columns = one ? (width + 3) / 4 * 4 + 2 : (width + 7) / 8 * 16 + 2;
    const nst_source source = nst_source_of(layer, p.rows, columns, ROWS, one ? 2 : 1);
    nst_depthwise_by(in, layer, out, scratch, bytes, p, &source, rows_of(layer, source.pitch), answer);
}
