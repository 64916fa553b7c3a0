/* Depthwise convolutions: a channel lies in scratch in strips, each [column][height] with its padding, which give the answers of some
 * rows each. Where the answers lie over the map a strip is written when the next ones that need its rows were read. */
#ifndef NST_DEPTHWISE_MVE_H
#define NST_DEPTHWISE_MVE_H

#include "nst_part.h"
#include "nst_products_mve.h"

enum { AT_ONCE = 8, MANY = 8, FEW = 7 }; /* answers; channels, the most and the fewest that are worth it */

/* How a channel's answers are made from its strips; the instructions read it in this order. mask: two bits for each of eight answers,
 * in the order of their places. */
typedef struct {
    uint16_t places[AT_ONCE]; /* of eight answers, behind out */
    int32_t loops;            /* eights before the last one of a row */
    uint32_t mask, last_mask;
    int32_t next_strip, next_rows; /* from where a row's last eight end */
    int32_t left;                  /* strips of a channel, while it is computed */
    int32_t step, back;            /* from eight to eight, of what is written and of what is read */
    const int8_t *stream;          /* of the next channel */
    int8_t *out;
    const uint8_t *weights;                 /* where in the channel's taps those of a strip's bytes are */
    int32_t strips, channels, next_channel; /* from where a channel's last strip ends */
    int32_t bias, multiplier, exponent, zero;
    int8_t *vectors, *end;          /* a channel's weights, spread */
    int32_t negative, stride, size; /* size: bytes of a channel in the stream */
    uint32_t half;                  /* the mask of one row of two */
} nst_rows;

/* What does not change from channel to channel. */
typedef struct {
    uint16_t offsets[8]; /* of eight of a strip's bytes in the map */
    nst_shape map;
    int32_t columns, left, pitch, zero;
    int32_t height, rows; /* of a strip; rows that count */
    int32_t top, down, strips, ahead,
        each; /* of all strips: the first one's row, from one to the next, how many, read ahead; answers */
} nst_source;

/* columns: of a strip, whose answers are `each` rows. */
NST_INLINE nst_source nst_source_of(const nst_depthwise_mve_layer *layer, nst_range rows, int32_t columns, int32_t height,
                                    int32_t each)
{
    const nst_window w = layer->window;
    nst_source s;
    for (int32_t i = 0; i < 8; i++)
        s.offsets[i] = (uint16_t)((i % height * layer->in.width + i / height) * layer->in.channels);
    s.map = layer->in;
    s.pitch = height * columns;
    s.left = w.pad.width;
    s.columns = nst_larger(nst_smaller(layer->in.width, columns - s.left), 0);
    s.zero = layer->in_zero;
    s.height = height;
    s.rows = w.size.height + (each - 1) * w.stride.height;
    s.top = rows.first * w.stride.height - w.pad.height;
    s.down = each * w.stride.height;
    s.strips = (rows.end - rows.first + each - 1) / each;
    s.ahead = layer->ahead;
    s.each = each;
    return s;
}

#if NST_MVE

/* Columns in times, all lanes or those of a mask. */
NST_INLINE void bring(int8_t *to, const int8_t *from, int32_t times, const nst_source *s)
{
    __asm__ volatile(
        "vldrb.8 q1, [%[offsets]]\n\t"
        "wls lr, %[times], 2f\n"
        "1: vldrb.u16 q0, [%[from], q1]\n\t"
        "add %[from], %[from], %[step]\n\t"
        "vstrb.16 q0, [%[to]], #8\n\t"
        "le lr, 1b\n"
        "2:"
        : [to] "+l"(to), [from] "+r"(from)
        : [times] "r"(times), [offsets] "r"(s->offsets), [step] "r"(8 / s->height * s->map.channels)
        : "lr", "q0", "q1", "memory");
}

NST_INLINE void bring_some(int8_t *to, const int8_t *from, int32_t times, const nst_source *s, uint32_t mask)
{
    __asm__ volatile(
        "vldrb.8 q1, [%[offsets]]\n\t"
        "vmsr p0, %[mask]\n\t"
        "wls lr, %[times], 2f\n"
        "1: vpstt\n\t"
        "vldrbt.u16 q0, [%[from], q1]\n\t"
        "vstrbt.16 q0, [%[to]], #8\n\t"
        "add %[from], %[from], %[step]\n\t"
        "le lr, 1b\n"
        "2:"
        : [to] "+l"(to), [from] "+r"(from)
        : [times] "r"(times), [offsets] "r"(s->offsets), [step] "r"(8 / s->height * s->map.channels), [mask] "r"(mask)
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
        "add %[to], %[to], %[height]\n\t"
        "le lr, 1b\n"
        "2:"
        : [to] "+r"(to), [from] "+l"(from)
        : [columns] "r"(s->columns), [places] "r"(places), [step] "r"(s->map.channels), [count] "r"(count), [height] "r"(s->height)
        : "lr", "q0", "q1", "memory");
}

#else

NST_INLINE void bring_some(int8_t *to, const int8_t *from, int32_t times, const nst_source *s, uint32_t mask)
{
    for (; times > 0; times--, to += 8, from += 8 / s->height * s->map.channels)
        for (int32_t i = 0; i < 8; i++)
            if (mask >> 2 * i & 1)
                to[i] = from[s->offsets[i]];
}

NST_INLINE void bring(int8_t *to, const int8_t *from, int32_t times, const nst_source *s)
{
    bring_some(to, from, times, s, 0xffff);
}

NST_INLINE void bring_row(int8_t *to, const int8_t *from, const nst_source *s, const uint16_t places[MANY], int32_t count)
{
    for (int32_t x = 0; x < s->columns; x++)
        for (int32_t i = 0; i < count; i++)
            to[s->height * x + places[i]] = from[x * s->map.channels + i];
}

#endif

/* Four or eight rows of a channel, from row `top` of the map on. What lies beside the map's columns is the input's zero already. */
NST_INLINE void nst_build(const int8_t *channel, const nst_source *s, int32_t top, int8_t *strip)
{
    const int32_t height = s->height, first = nst_larger(-top, 0), end = nst_smaller(s->map.height - top, height),
                  wide = 8 / height;
    const int8_t *from = channel + top * s->map.width * s->map.channels;
    const int32_t times = s->columns / wide, step = wide * s->map.channels;
    uint32_t mask = 0xffffu >> (16 - 2 * height);
    int8_t *to = strip + height * s->left;
    if (end - first < height) {
        nst_mve_fill(strip, s->zero, s->pitch);
        mask = end <= first ? 0 : (0xffffu >> (16 - 2 * end)) & (0xffffu << 2 * first);
        bring_some(to, from, times, s, wide > 1 ? mask | mask << 8 : mask);
    } else
        bring(to, from, times, s);
    if (s->columns % wide)
        bring_some(to + 8 * times, from + times * step, 1, s, mask);
}

/* The answers of p->strips strips of p->channels channels. */
typedef void nst_answers(const int8_t *strips, nst_rows *p);

/* So many strips' answers of some channels, whose strips lie one behind the other. half: the last strip has only one row of two. */
NST_INLINE void nst_answer_strips(const int8_t *strips, int32_t count, int32_t half, int32_t pitch, nst_rows how,
                                  nst_answers *answer)
{
    if (count > half) {
        nst_rows p = how;
        p.strips = count - half;
        p.next_channel = half * pitch;
        answer(strips, &p);
    }
    if (half) {
        how.out += (count - 1) * (how.next_rows + (how.loops + 1) * how.step);
        how.strips = 1;
        how.next_channel = (count - 1) * pitch;
        how.mask &= how.half;
        how.last_mask &= how.half;
        answer(strips + (count - 1) * pitch, &how);
    }
}

/* Some neighbouring channels' strips, all of them, each channel's behind the other's. What is not of the map is its zero already. */
NST_INLINE void nst_build_all(const int8_t *channels, const nst_source *s, int32_t count, int8_t *strips)
{
    uint16_t places[MANY];
    for (int32_t i = 0; i < MANY; i++)
        places[i] = (uint16_t)(i * s->strips * s->pitch);
    for (int32_t strip = 0; strip < s->strips; strip++) {
        const int32_t top = s->top + strip * s->down, end = nst_smaller(s->map.height - top, s->rows);
        for (int32_t row = nst_larger(-top, 0); row < end; row++) {
            const int8_t *from = channels + (top + row) * s->map.width * s->map.channels;
            bring_row(strips + strip * s->pitch + s->left * s->height + row, from, s, places, count);
        }
    }
}

/* A channel whose strips pass through scratch, as many at a time as have room: the last ones are kept while the next ones are read. */
NST_INLINE void nst_one_channel(const int8_t *in, const nst_source *s, int32_t fit, int8_t *strips, int32_t half, nst_rows how,
                                nst_answers *answer)
{
    const int32_t rows = how.next_rows + (how.loops + 1) * how.step;
    for (int32_t built = 0, done = 0; done < s->strips;) {
        for (; built < s->strips && built - done < fit; built++)
            nst_build(in, s, s->top + built * s->down, strips + (built - done) * s->pitch);
        const int32_t now = built - done - (built < s->strips ? s->ahead : 0);
        nst_answer_strips(strips, now, half && built == s->strips, s->pitch, how, answer);
        how.out += now * rows;
        done += now;
        if (done < s->strips)
            nst_mve_copy(strips, strips + now * s->pitch, s->ahead * s->pitch);
    }
}

/* A part of the layer. bytes: of scratch. Several channels at a time, if all their strips have room. */
NST_INLINE void nst_depthwise_by(const int8_t *in, const nst_depthwise_mve_layer *layer, int8_t *out, int8_t *strips, int32_t bytes,
                                 nst_part p, const nst_source *source, nst_rows how, nst_answers *answer)
{
    const int32_t width = layer->out.width, channels = layer->out.channels, copies = channels / layer->in.channels;
    const int32_t count = p.rows.end - p.rows.first, half = source->each > 1 && count % source->each;
    const int32_t fit = nst_smaller(bytes / source->pitch, source->strips * MANY);
    const int32_t many = copies > 1 || source->strips == 0 ? 0 : fit / source->strips, at_once = many < FEW ? 1 : many;
    out += p.rows.first * width * channels;
    nst_mve_fill(strips, source->zero, fit * source->pitch);
    for (int32_t o = p.channels.first; o < p.channels.end; o += at_once) {
        how.stream = layer->sums.stream + o * how.size;
        how.out = out + o;
        how.channels = nst_smaller(p.channels.end - o, at_once);
        if (many < FEW)
            nst_one_channel(in + o / copies, source, nst_smaller(fit, source->strips), strips, half, how, answer);
        else {
            nst_build_all(in + o, source, how.channels, strips);
            nst_answer_strips(strips, source->strips, half, source->pitch, how, answer);
        }
    }
    for (int32_t i = 0; i < count * width && (layer->sums.output.low > -128 || layer->sums.output.high < 127); i++)
        nst_mve_clamp(out + i * channels + p.channels.first, p.channels.end - p.channels.first, &layer->sums.output);
}

#endif
