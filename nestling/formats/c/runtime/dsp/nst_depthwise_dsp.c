/* What depthwise convolutions of all sizes share: the plane of a channel in scratch, bands of rows, and the long way. */
#include "nst_depthwise_dsp.h"

NST_APART void fill(int16_t *to, int32_t value, int32_t count)
{
    for (; count > 0; count--)
        *to++ = (int16_t)value;
}

NST_APART void move(int16_t *to, const int16_t *from, int32_t count)
{
    for (; count > 0; count--)
        *to++ = *from++;
}

/* Rows of a channel, of so many columns. rest: from behind one row in the plane to the next, over: the same in the map. */
typedef void copier(const int8_t *x, int16_t *to, int32_t channels, int32_t rows, int32_t columns, int32_t rest, int32_t over);

#if NST_DSP_ASSEMBLY

/* clang-format off */

/* Six columns at once, or one. */
NST_DSP_NAKED void copy(const int8_t *x, int16_t *to, int32_t channels, int32_t rows, int32_t columns, int32_t rest,
                                int32_t over)
{
    __asm__ volatile(
        "push {r4-r11, lr}\n"
        "add r4, r2, r2, lsl #1\n" /* three and five pixels */
        "add r5, r2, r2, lsl #2\n"
        "cmp r3, #0\n"
        "ble 6f\n"
        "1: ldr r6, [sp, #36]\n"
        "subs r6, #6\n"
        "blt 3f\n"
        "2: ldrsb r7, [r0]\n"
        "ldrsb r8, [r0, r2]\n"
        "ldrsb r9, [r0, r2, lsl #1]\n"
        "ldrsb r10, [r0, r4]\n"
        "ldrsb r11, [r0, r2, lsl #2]\n"
        "ldrsb r12, [r0, r5]\n"
        "strh r8, [r1, #2]\n"
        "strh r9, [r1, #4]\n"
        "strh r10, [r1, #6]\n"
        "strh r11, [r1, #8]\n"
        "strh r12, [r1, #10]\n"
        "strh r7, [r1], #12\n"
        "add r0, r0, r4, lsl #1\n"
        "subs r6, #6\n"
        "bge 2b\n"
        "3: adds r6, #6\n"
        "beq 5f\n"
        "4: ldrsb r7, [r0]\n"
        "add r0, r0, r2\n"
        "strh r7, [r1], #2\n"
        "subs r6, #1\n"
        "bne 4b\n"
        "5: ldrd r6, r7, [sp, #40]\n"
        "add r1, r1, r6, lsl #1\n"
        "add r0, r0, r7\n"
        "subs r3, #1\n"
        "bne 1b\n"
        "6: pop {r4-r11, pc}\n");
}

/* Four columns as two words in r7 and r8. */
#define FOUR(first, second, third, fourth)                                                                                 \
    "ldrsb r7, [r0" first "]\n"                                                                                                    \
    "ldrsb r8, [r0" second "]\n"                                                                                                   \
    "ldrsb r9, [r0" third "]\n"                                                                                                    \
    "ldrsb r10, [r0" fourth "]\n"                                                                                                  \
    "pkhbt r7, r7, r8, lsl #16\n"                                                                                                  \
    "pkhbt r8, r9, r10, lsl #16\n"

/* The same where rows begin in even columns of the plane: eight columns at once, four, two, or one. */
NST_DSP_NAKED void copy_words(const int8_t *x, int16_t *to, int32_t channels, int32_t rows, int32_t columns, int32_t rest,
                                      int32_t over)
{
    __asm__ volatile(
        "push {r4-r11, lr}\n"
        "add r4, r2, r2, lsl #1\n" /* three, five and seven pixels */
        "add r5, r2, r2, lsl #2\n"
        "rsb r11, r2, r2, lsl #3\n"
        "cmp r3, #0\n"
        "ble 7f\n"
        "1: ldr r6, [sp, #36]\n"
        "subs r6, #8\n"
        "blt 3f\n"
        "2: "
        FOUR("", ", r2", ", r2, lsl #1", ", r4")
        "strd r7, r8, [r1], #16\n"
        FOUR(", r2, lsl #2", ", r5", ", r4, lsl #1", ", r11")
        "strd r7, r8, [r1, #-8]\n"
        "add r0, r0, r2, lsl #3\n"
        "subs r6, #8\n"
        "bge 2b\n"
        "3: adds r6, #4\n" /* columns that are left, less four */
        "blt 4f\n"
        FOUR("", ", r2", ", r2, lsl #1", ", r4")
        "strd r7, r8, [r1], #8\n"
        "add r0, r0, r2, lsl #2\n"
        "subs r6, #4\n"
        "4: adds r6, #2\n" /* less two */
        "blt 5f\n"
        "ldrsb r7, [r0]\n"
        "ldrsb r8, [r0, r2]\n"
        "add r0, r0, r2, lsl #1\n"
        "pkhbt r7, r7, r8, lsl #16\n"
        "str r7, [r1], #4\n"
        "subs r6, #2\n"
        "5: adds r6, #2\n"
        "beq 6f\n"
        "ldrsb r7, [r0]\n"
        "add r0, r0, r2\n"
        "strh r7, [r1], #2\n"
        "6: ldrd r6, r7, [sp, #40]\n"
        "add r1, r1, r6, lsl #1\n"
        "add r0, r0, r7\n"
        "subs r3, #1\n"
        "bne 1b\n"
        "7: pop {r4-r11, pc}\n");
}

/* clang-format on */

#else
static void copy(const int8_t *x, int16_t *to, int32_t channels, int32_t rows, int32_t columns, int32_t rest, int32_t over)
{
    for (; rows > 0; rows--, to += rest, x += over)
        for (int32_t i = 0; i < columns; i++, x += channels)
            *to++ = *x;
}
#define copy_words copy
#endif

/* The plane in scratch: `band` rows of the answer at once read `height` rows of `width` columns, of which `columns` hold the map's. Behind
 * it lies `line`: `whole` bytes, six for every six outputs that a row has or begins. rest: of the plane's row behind these columns, over:
 * of the map's. */
typedef struct {
    int32_t whole, band, height, width, columns, rest, over;
    int16_t *numbers;
    int8_t *line;
    copier *copy;
} plane_of;

static plane_of plane_in(void *scratch, int32_t bytes, const nst_depthwise_dsp_layer *layer, int32_t rows)
{
    const nst_window w = layer->window;
    plane_of plane;
    plane.whole = (layer->out.width + NST_DSP_SIDE - 1) / NST_DSP_SIDE * NST_DSP_SIDE;
    plane.width = plane.whole * w.stride.width + w.size.width - 1;
    plane.columns = nst_smaller(plane.width - w.pad.width, layer->in.width);
    const int32_t most = (bytes - plane.whole) / (2 * plane.width);
    const int32_t band = nst_smaller((most - w.size.height) / w.stride.height + 1, rows), bands = (rows + band - 1) / band;
    plane.band = (rows + bands - 1) / bands;
    plane.height = (plane.band - 1) * w.stride.height + w.size.height;
    plane.rest = plane.width - plane.columns;
    plane.over = (layer->in.width - plane.columns) * layer->in.channels;
    plane.copy = w.pad.width % 2 ? copy : copy_words;
    plane.numbers = scratch;
    plane.line = (int8_t *)(plane.numbers + plane.height * plane.width);
    return plane;
}

/* From where in the map so many rows come, and where in the plane they begin. */
typedef struct {
    int32_t from, to, rows;
} inside_rows;

/* Rows of the map from `top` on, which may lie above it, into `height` rows of the plane from `at` on: those that there are. */
static inside_rows inside_of(const nst_depthwise_dsp_layer *layer, const plane_of *plane, int32_t at, int32_t top, int32_t height)
{
    const nst_shape map = layer->in;
    const int32_t above = nst_smaller(nst_larger(-top, 0), height);
    inside_rows inside;
    inside.rows = nst_larger(nst_smaller(map.height - top, height) - above, 0);
    inside.from = (top + above) * map.width * map.channels;
    inside.to = (at + above) * plane->width + layer->window.pad.width;
    return inside;
}

static void copy_rows(const int8_t *in, int32_t channels, const plane_of *plane, inside_rows inside)
{
    plane->copy(in + inside.from, plane->numbers + inside.to, channels, inside.rows, plane->columns, plane->rest, plane->over);
}

/* The weights of channel o; those of few bits are unpacked into `room`. */
NST_APART const int8_t *taps_of(const nst_depthwise_dsp_layer *layer, int32_t o, int8_t *room)
{
    const int32_t bits = layer->bits, count = layer->window.size.height * layer->window.size.width;
    const uint8_t *const weights = (const uint8_t *)layer->weights;
    uint32_t place = (uint32_t)(o * count * bits); /* in bits */
    if (bits == 8)
        return layer->weights + o * count;
    for (int8_t *to = room; to < room + count; to++, place += (uint32_t)bits) {
        const uint32_t highest = (uint32_t)weights[place / 8] << (32 - (uint32_t)bits - place % 8);
        *to = (int8_t)((int32_t)highest >> (32 - bits));
    }
    return room;
}

/* The same for a channel that is not proven, output by output. */
NST_APART void rows_long(const int16_t *plane, int8_t *out, const nst_depthwise_dsp_layer *layer, int32_t o, const int8_t *weights,
                         int32_t pitch, int32_t rows)
{
    const nst_window w = layer->window;
    const int32_t channels = layer->out.channels, columns = layer->out.width, size = w.size.width;
    for (int32_t row = 0; row < rows; row++, plane += pitch * w.stride.height) {
        for (int32_t column = 0; column < columns; column++, out += channels) {
            const int16_t *x = plane + column * w.stride.width;
            int32_t sum = layer->bias[o];
            for (int32_t y = 0; y < size; y++, x += pitch)
                for (int32_t k = 0; k < size; k++)
                    sum += x[k] * weights[y * size + k];
            const int32_t value = nst_scaled(sum, layer->multiplier[o], layer->addend[o], layer->output.zero);
            *out = nst_clamped(value, -128, 127);
        }
    }
}

/* So many rows of a channel, of its columns from `first` on: `whole` of them, which may be more than there are. Those write over the
 * beginning of the next row, which is computed later; rows from which they would reach behind the last one go through the line. */
NST_APART void strip(const plane_of *plane, int8_t *out, nst_dsp_channel *channel, const nst_depthwise_dsp_layer *layer,
                     int32_t rows, int32_t first, int32_t whole, nst_dsp_rows *kernel)
{
    const int32_t columns = layer->out.width, step = layer->out.channels, more = first + whole - columns;
    const int32_t direct = more > 0 ? nst_larger(rows - (more + columns - 1) / columns, 0) : rows;
    const int32_t down = plane->width * layer->window.stride.height;
    const int16_t *from = plane->numbers + first * layer->window.stride.width;
    channel->down = 2 * (down - whole * layer->window.stride.width);
    channel->back = (columns - whole) * step;
    channel->sixes = whole * step;
    channel->step = step;
    out += first * step;
    if (direct > 0)
        kernel(from, out, channel, out + direct * columns * step);
    from += direct * down, out += direct * columns * step;
    channel->back = 0;
    channel->sixes = whole;
    channel->step = 1;
    for (int32_t row = direct; row < rows; row++, from += down, out += columns * step) {
        kernel(from, plane->line, channel, plane->line + whole);
        for (int32_t i = 0; i < columns - first; i++)
            out[i * step] = plane->line[i];
    }
}

static int32_t fully(const nst_dsp_channel *channel)
{
    return channel->negative | channel->further ? NST_DSP_SIXES_FULLY : NST_DSP_SIXES;
}

/* Where a whole map lies in the plane and rows are sixes, all is said once. */
static void set(nst_dsp_channel *channel, const plane_of *plane, const nst_depthwise_dsp_layer *layer)
{
    const nst_pair stride = layer->window.stride;
    channel->pitch = 2 * plane->width;
    channel->down = 2 * (plane->width * stride.height - plane->whole * stride.width);
    channel->back = 0;
    channel->sixes = plane->whole * layer->out.channels;
    channel->step = layer->out.channels;
}

/* All columns: sixes, and up to three that are left over before them. */
static void answer(const plane_of *plane, int8_t *out, nst_dsp_channel *channel, const nst_depthwise_dsp_layer *layer, int32_t rows,
                   nst_dsp_rows *const kernels[3])
{
    const int32_t whole = plane->whole, left = whole - layer->out.width, threes = left >= NST_DSP_SIDE / 2;
    nst_dsp_rows *kernel = kernels[fully(channel)];
    if (threes)
        strip(plane, out, channel, layer, rows, whole - NST_DSP_SIDE, NST_DSP_SIDE / 2, kernels[NST_DSP_THREES]);
    if (!threes || whole > NST_DSP_SIDE)
        strip(plane, out, channel, layer, rows, 0, threes ? whole - NST_DSP_SIDE : whole, kernel);
}

static void clamp(int8_t *out, const nst_depthwise_dsp_layer *layer, const nst_part *p)
{
    const nst_output y = layer->output;
    const int32_t pixels = (p->rows.end - p->rows.first) * layer->out.width;
    for (int32_t i = 0; i < pixels; i++, out += layer->out.channels)
        for (int32_t o = p->channels.first; o < p->channels.end; o++)
            out[o] = nst_clamped(out[o], y.low, y.high);
}

/* One channel, band by band. */
NST_APART void in_bands(const int8_t *in, const nst_depthwise_dsp_layer *layer, int8_t *out, const plane_of *plane, nst_range rows,
                        int32_t o, nst_dsp_channel *channel, nst_dsp_rows *const kernels[3])
{
    const nst_window w = layer->window;
    const int32_t width = plane->width, again = nst_larger(w.size.height - w.stride.height, 0); /* rows that two bands read */
    int32_t kept = 0;
    for (int32_t row = rows.first; row < rows.end; row += plane->band, kept = again) {
        const int32_t count = nst_smaller(plane->band, rows.end - row), down = width * w.stride.height;
        const int32_t top = row * w.stride.height - w.pad.height + kept;
        const int32_t height = (count - 1) * w.stride.height + w.size.height - kept;
        const inside_rows inside = inside_of(layer, plane, kept, top, height);
        if (kept)
            move(plane->numbers, plane->numbers + plane->band * down, kept * width);
        const int32_t end = inside.to / width + inside.rows; /* rows before and behind those of the map are empty */
        fill(plane->numbers + kept * width, layer->in_zero, (inside.to / width - kept) * width);
        fill(plane->numbers + end * width, layer->in_zero, (kept + height - end) * width);
        copy_rows(in + o, layer->in.channels, plane, inside);
        if (layer->way[o] >= 0)
            answer(plane, out, channel, layer, count, kernels);
        else
            rows_long(plane->numbers, out, layer, o, channel->taps, width, count);
        out += count * layer->out.width * layer->out.channels;
    }
}

void nst_dsp_depthwise_by(const int8_t *in, const nst_depthwise_dsp_layer *layer, int8_t *out, void *scratch, const nst_part *part,
                          int32_t bytes, const nst_dsp_kernels *kernels)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const nst_pair stride = layer->window.stride;
    const int32_t rows = p.rows.end - p.rows.first, columns = layer->out.width, channels = layer->out.channels;
    if (rows <= 0)
        return;
    const plane_of plane = plane_in(scratch, bytes, layer, rows);
    const inside_rows inside = inside_of(layer, &plane, 0, p.rows.first * stride.height - layer->window.pad.height, plane.height);
    nst_dsp_rows *const *rows_of = kernels->rows[stride.width - 1];
    nst_dsp_taker *take = kernels->take[stride.width - 1];
    int8_t room[NST_DSP_LARGEST * NST_DSP_LARGEST];
    nst_dsp_channel channel;
    set(&channel, &plane, layer);
    fill(channel.weights, 0, NST_DSP_LARGEST * (NST_DSP_LARGEST + 1) * 2); /* some of them stay 0 */
    fill(plane.numbers, layer->in_zero, plane.height * plane.width);
    out += p.rows.first * columns * channels;
    const int8_t *last = out + rows * columns * channels;
    for (int32_t o = p.channels.first; o < p.channels.end; o++) {
        const int32_t way = layer->way[o];
        channel.taps = taps_of(layer, o, room);
        if (way >= 0)
            take(layer, o, &channel);
        if (way < 0 || plane.band < rows) {
            in_bands(in, layer, out + o, &plane, p.rows, o, &channel, rows_of);
        } else {
            copy_rows(in + o, channels, &plane, inside); /* the whole plane; around it nothing changes */
            if (plane.whole == columns)
                rows_of[fully(&channel)](plane.numbers, out + o, &channel, last + o);
            else
                answer(&plane, out + o, &channel, layer, rows, rows_of);
        }
    }
    if (layer->output.low > -128 || layer->output.high < 127)
        clamp(out, layer, &p);
}
