#include "nst_mve_products.h"
#include "nst_part.h"

/* A channel lies in scratch in strips, each [column][4 rows] with its padding: 16 bytes of it are four columns of four rows. At stride
 * 1 they give the answers of two rows and two columns, which have the channel's weights in four places; at stride 2 they give one.
 * Where the answers lie over the map a strip is written when the next one was read. */
enum {
    ROWS = 4,
    AT_ONCE = 8,
    MANY = 8,
    FEW = 7,
    TAPS = 12,
    CHANNEL = TAPS + 3 * 4
}; /* bytes of a channel's taps, and with its three numbers */

/* Where each of 16 bytes has its weight; 9 is a weight of 0. One place at stride 2, else by column and row. */
static const uint8_t PLACES[4][16] = {
    {0, 3, 6, 9, 1, 4, 7, 9, 2, 5, 8, 9, 9, 9, 9, 9},
    {9, 9, 9, 9, 0, 3, 6, 9, 1, 4, 7, 9, 2, 5, 8, 9},
    {9, 0, 3, 6, 9, 1, 4, 7, 9, 2, 5, 8, 9, 9, 9, 9},
    {9, 9, 9, 9, 9, 0, 3, 6, 9, 1, 4, 7, 9, 2, 5, 8},
};

/* How a channel's answers are made from its strips; the instructions read it in this order. mask: two bits for each of eight answers,
 * in the order of their places. */
typedef struct {
    uint16_t places[AT_ONCE]; /* of eight answers, behind out */
    int32_t loops;            /* eights before the last one of a row */
    uint32_t mask, last_mask;
    int32_t next_strip, next_rows; /* from where a row's last eight end */
    int32_t left, step, zero;      /* left: strips of a channel, while it is computed */
    const int8_t *stream;          /* of the next channel */
    int8_t *out;
    const uint8_t *weights;                 /* PLACES */
    int32_t strips, channels, next_channel; /* from where a channel's last strip ends */
    int32_t negative, stride;
} nst_rows;

/* What does not change from channel to channel. */
typedef struct {
    uint16_t offsets[8]; /* of two columns of four rows of the map */
    nst_shape map;
    int32_t columns, left, pitch, zero;
    int32_t top, down, strips, rows; /* of all strips: the first one's row, from one to the next, how many, rows that count */
} nst_source;

#if NST_MVE

/* Columns in twos, all lanes or those of a mask. */
NST_INLINE void bring(int8_t *to, const int8_t *from, int32_t twos, const nst_source *s)
{
    __asm__ volatile(
        "vldrb.8 q1, [%[offsets]]\n\t"
        "wls lr, %[twos], 2f\n"
        "1: vldrb.u16 q0, [%[from], q1]\n\t"
        "add %[from], %[from], %[step]\n\t"
        "vstrb.16 q0, [%[to]], #8\n\t"
        "le lr, 1b\n"
        "2:"
        : [to] "+l"(to), [from] "+r"(from)
        : [twos] "r"(twos), [offsets] "r"(s->offsets), [step] "r"(2 * s->map.channels)
        : "lr", "q0", "q1", "memory");
}

NST_INLINE void bring_some(int8_t *to, const int8_t *from, int32_t twos, const nst_source *s, uint32_t mask)
{
    __asm__ volatile(
        "vldrb.8 q1, [%[offsets]]\n\t"
        "vmsr p0, %[mask]\n\t"
        "wls lr, %[twos], 2f\n"
        "1: vpstt\n\t"
        "vldrbt.u16 q0, [%[from], q1]\n\t"
        "vstrbt.16 q0, [%[to]], #8\n\t"
        "add %[from], %[from], %[step]\n\t"
        "le lr, 1b\n"
        "2:"
        : [to] "+l"(to), [from] "+r"(from)
        : [twos] "r"(twos), [offsets] "r"(s->offsets), [step] "r"(2 * s->map.channels), [mask] "r"(mask)
        : "lr", "q0", "q1", "memory");
}

/* A row of up to eight channels, a byte for each column of each channel's strip. places: of the channels' strips. */
NST_INLINE void bring_row(int8_t *to, const int8_t *from, const nst_source *s, const uint16_t places[MANY], int32_t count)
{
    __asm__ volatile(
        "vctp.16 %[count]\n\t"
        "vldrb.8 q1, [%[places]]\n\t"
        "wls lr, %[columns], 2f\n"
        "1: vpstt\n\t"
        "vldrbt.u16 q0, [%[from]]\n\t"
        "vstrbt.16 q0, [%[to], q1]\n\t"
        "add %[from], %[from], %[step]\n\t"
        "adds %[to], %[to], #4\n\t"
        "le lr, 1b\n"
        "2:"
        : [to] "+r"(to), [from] "+l"(from)
        : [columns] "r"(s->columns), [places] "r"(places), [step] "r"(s->map.channels), [count] "r"(count)
        : "lr", "q0", "q1", "cc", "memory");
}

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
                     "ldrd %[step], %[zero], [%[p], #40]\n"                                                                        \
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

NST_INLINE void bring_some(int8_t *to, const int8_t *from, int32_t twos, const nst_source *s, uint32_t mask)
{
    for (; twos > 0; twos--, to += 8, from += 2 * s->map.channels)
        for (int32_t i = 0; i < 8; i++)
            if (mask >> 2 * i & 1)
                to[i] = from[s->offsets[i]];
}

NST_INLINE void bring(int8_t *to, const int8_t *from, int32_t twos, const nst_source *s)
{
    bring_some(to, from, twos, s, 0xffff);
}

NST_INLINE void bring_row(int8_t *to, const int8_t *from, const nst_source *s, const uint16_t places[MANY], int32_t count)
{
    for (int32_t x = 0; x < s->columns; x++)
        for (int32_t i = 0; i < count; i++)
            to[ROWS * x + places[i]] = from[x * s->map.channels + i];
}

static int32_t word(const int8_t *bytes)
{
    const uint8_t *b = (const uint8_t *)bytes;
    return (int32_t)(b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24);
}

static int8_t one_answer(const int8_t *x, const int8_t *w, const uint8_t *places, const nst_rows *p)
{
    int32_t sum = word(w + TAPS);
    for (int32_t i = 0; i < 16; i++)
        sum += x[i] * w[places[i]];
    return nst_clamped(nst_mve_scaled(sum, word(w + TAPS + 4), word(w + TAPS + 8), p->negative) + p->zero, -128, 127);
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

/* Four rows of a channel, from row `top` of the map on. What lies beside the map's columns is the input's zero already. */
static void build(const int8_t *channel, const nst_source *s, int32_t top, int8_t *strip)
{
    const int32_t first = nst_larger(-top, 0), end = nst_smaller(s->map.height - top, ROWS);
    const int8_t *from = channel + top * s->map.width * s->map.channels;
    const int32_t twos = s->columns / 2;
    uint32_t mask = 0xff;
    int8_t *to = strip + ROWS * s->left;
    if (end - first < ROWS) {
        nst_mve_fill(strip, s->zero, s->pitch);
        mask = end <= first ? 0 : (0xffu >> (8 - 2 * end)) & (0xffu << 2 * first);
        bring_some(to, from, twos, s, mask | mask << 8);
    } else
        bring(to, from, twos, s);
    if (s->columns % 2)
        bring_some(to + 8 * twos, from + 2 * twos * s->map.channels, 1, s, mask);
}

static nst_source source_of(const nst_depthwise_mve_layer *layer, nst_range rows)
{
    const nst_window w = layer->window;
    const int32_t stride = w.stride.height, width = layer->out.width, each = stride == 1 ? 2 : 1;
    nst_source s;
    for (int32_t i = 0; i < 8; i++)
        s.offsets[i] = (uint16_t)((i % ROWS * layer->in.width + i / ROWS) * layer->in.channels);
    s.map = layer->in;
    s.pitch = ROWS * (stride == 1 ? (width + 3) / 4 * 4 + 2 : (width + 7) / 8 * 16 + 2);
    s.left = w.pad.width;
    s.columns = nst_smaller(layer->in.width, s.pitch / ROWS - s.left);
    s.zero = layer->in_zero;
    s.top = rows.first * stride - w.pad.height;
    s.down = each * stride;
    s.strips = (rows.end - rows.first + each - 1) / each;
    s.rows = stride == 1 ? ROWS : ROWS - 1;
    return s;
}

/* In a row's last eight the columns that there are; in both the rows that there are. */
static nst_rows rows_of(const nst_depthwise_mve_layer *layer, int32_t pitch)
{
    const int32_t stride = layer->window.stride.height, channels = layer->out.channels, width = layer->out.width;
    const int32_t wide = stride == 1 ? 4 : 8, rows = stride == 1 ? 2 : 1, eights = (width + wide - 1) / wide;
    nst_rows p;
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
    return p;
}

/* So many strips' answers of some channels, whose strips lie one behind the other. half: the last strip has only one row of two. */
static void answer_strips(const int8_t *strips, int32_t count, int32_t half, int32_t pitch, nst_rows how)
{
    if (count > half) {
        nst_rows p = how;
        p.strips = count - half;
        p.next_channel = half * pitch;
        answer(strips, &p);
    }
    if (half) { /* answers 4 to 7 are of the second row */
        how.out += (count - 1) * (how.next_rows + (how.loops + 1) * how.step);
        how.strips = 1;
        how.next_channel = (count - 1) * pitch;
        how.mask &= 0xff;
        how.last_mask &= 0xff;
        answer(strips + (count - 1) * pitch, &how);
    }
}

/* Some neighbouring channels' strips, all of them, each channel's behind the other's. What is not of the map is its zero already. */
static void build_all(const int8_t *channels, const nst_source *s, int32_t count, int8_t *strips)
{
    uint16_t places[MANY];
    for (int32_t i = 0; i < MANY; i++)
        places[i] = (uint16_t)(i * s->strips * s->pitch);
    for (int32_t strip = 0; strip < s->strips; strip++) {
        const int32_t top = s->top + strip * s->down, end = nst_smaller(s->map.height - top, s->rows);
        for (int32_t row = nst_larger(-top, 0); row < end; row++) {
            const int8_t *from = channels + (top + row) * s->map.width * s->map.channels;
            bring_row(strips + strip * s->pitch + s->left * ROWS + row, from, s, places, count);
        }
    }
}

/* A channel whose strips pass through scratch, as many at a time as have room: the last one is kept while the next ones are read. */
static void channel(const int8_t *in, const nst_source *s, int32_t fit, int8_t *strips, int32_t half, nst_rows how)
{
    const int32_t rows = how.next_rows + (how.loops + 1) * how.step;
    for (int32_t built = 0, done = 0; done < s->strips;) {
        for (; built < s->strips && built - done < fit; built++)
            build(in, s, s->top + built * s->down, strips + (built - done) * s->pitch);
        const int32_t now = built - done - (built < s->strips);
        answer_strips(strips, now, half && built == s->strips, s->pitch, how);
        how.out += now * rows;
        done += now;
        if (done < s->strips)
            nst_mve_copy(strips, strips + now * s->pitch, s->pitch);
    }
}

/* Several channels at a time, if all their strips have room. */
void nst_depthwise_3_mve(const int8_t *in, const nst_depthwise_mve_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                         int32_t bytes)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const int32_t width = layer->out.width, channels = layer->out.channels, copies = channels / layer->in.channels;
    const int32_t count = p.rows.end - p.rows.first;
    nst_source source = source_of(layer, p.rows);
    nst_rows how = rows_of(layer, source.pitch);
    const int32_t fit = nst_smaller(bytes / source.pitch, source.strips * MANY), half = source.rows == ROWS && count % 2;
    const int32_t many = copies > 1 || source.strips == 0 ? 0 : fit / source.strips;
    int8_t *strips = scratch;
    const int32_t at_once = many < FEW ? 1 : many;
    out += p.rows.first * width * channels;
    nst_mve_fill(strips, source.zero, fit * source.pitch);
    for (int32_t o = p.channels.first; o < p.channels.end; o += at_once) {
        how.stream = layer->sums.stream + o * CHANNEL;
        how.out = out + o;
        how.channels = nst_smaller(p.channels.end - o, at_once);
        if (many < FEW)
            channel(in + o / copies, &source, nst_smaller(fit, source.strips), strips, half, how);
        else {
            build_all(in + o, &source, how.channels, strips);
            answer_strips(strips, source.strips, half, source.pitch, how);
        }
    }
    for (int32_t i = 0; i < count * width && (layer->sums.output.low > -128 || layer->sums.output.high < 127); i++)
        nst_mve_clamp(out + i * channels + p.channels.first, p.channels.end - p.channels.first, &layer->sums.output);
}
