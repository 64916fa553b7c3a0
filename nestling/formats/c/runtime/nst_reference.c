/* Nothing here is quick. Every answer is computed on its own, from its formula, in 64 bits and in the order in which one would say
 * it; only the layout of the constants is the quick kernels'. */
#include "nst_reference.h"

/* value / 2^exponent to the nearest, halves away from zero. */
static int64_t divided(int64_t value, int32_t exponent)
{
    const int64_t half = ((int64_t)1 << exponent) / 2;
    return value < 0 ? -((-value + half) >> exponent) : (value + half) >> exponent;
}

/* value * multiplier * 2^(exponent - 31), rounded twice. */
static int64_t rescaled(int64_t value, int64_t multiplier, int32_t exponent)
{
    const int64_t wide = exponent > 0 ? (int64_t)(int32_t)((uint64_t)value << exponent) : value;
    const int64_t high = (wide * multiplier + ((int64_t)1 << 30)) >> 31;
    return divided(high, exponent < 0 ? -exponent : 0);
}

/* The exponent behind a shift; see nst_scaled(). */
static int32_t exponent_of(int32_t shift)
{
    return shift >= 0 ? -(shift + 1) : shift + 64;
}

static int8_t clamped(int64_t value, const nst_output *y)
{
    const int64_t whole = value + y->zero;
    return (int8_t)(whole < y->low ? y->low : whole > y->high ? y->high : whole);
}

static int8_t answer(int64_t sum, const nst_sums *sums, int32_t channel)
{
    const int64_t all = sum + sums->bias[channel];
    return clamped(rescaled(all, sums->multiplier[channel], exponent_of(sums->shift[channel])), &sums->output);
}

/* Whether the part has this channel of this row. */
static int has(const nst_part *part, int32_t row, int32_t channel)
{
    return !part ||
           (row >= part->rows.first && row < part->rows.end && channel >= part->channels.first && channel < part->channels.end);
}

/* ---- convolutions ---------------------------------------------------------------------------------------------------------- */

/* The byte at a place of the map, which may lie outside; through the table where there is one. */
static int32_t place(const int8_t *in, const int8_t *table, const nst_shape *map, int32_t zero, int32_t y, int32_t x, int32_t c)
{
    if (y < 0 || y >= map->height || x < 0 || x >= map->width)
        return zero;
    const int8_t byte = in[(y * map->width + x) * map->channels + c];
    return table ? table[256 * c + (uint8_t)byte] : byte;
}

static void convolve(const int8_t *in, const int8_t *table, const nst_conv_layer *layer, int8_t *out, const nst_part *part)
{
    const nst_window *w = &layer->window;
    const nst_sums *sums = &layer->sums;
    const int32_t depth = layer->in.channels / layer->groups, fours = (sums->channels + 3) / 4;
    for (int32_t y = 0; y < layer->out.height; y++)
        for (int32_t x = 0; x < layer->out.width; x++)
            for (int32_t o = 0; o < layer->out.channels; o++, out++) {
                const int32_t group = o / sums->channels, channel = o % sums->channels;
                int64_t sum = 0;
                for (int32_t k = 0; k < sums->depth; k++) {
                    const nst_pair tap = {k / depth / w->size.width, k / depth % w->size.width};
                    const int32_t row = y * w->stride.height - w->pad.height + tap.height * w->dilation.height;
                    const int32_t column = x * w->stride.width - w->pad.width + tap.width * w->dilation.width;
                    const int32_t at = place(in, table, &layer->in, layer->in_zero, row, column, group * depth + k % depth);
                    const int32_t four = group * fours + channel / 4;
                    sum += at * (sums->weights[(four * sums->depth + k) * 4 + channel % 4] - sums->weight_zero);
                }
                if (has(part, y, o))
                    *out = answer(sum, sums, o);
            }
}

void nst_conv_1x1_reference(const int8_t *in, const nst_conv_1x1_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    nst_conv_layer conv = {.out = layer->out, .window = {{1, 1}, {1, 1}, {1, 1}, {0, 0}}, .groups = 1, .sums = layer->sums};
    conv.in = layer->out;
    conv.in.channels = layer->sums.depth;
    nst_conv_reference(in, &conv, out, scratch, part);
}

void nst_conv_reference(const int8_t *in, const nst_conv_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    (void)scratch;
    convolve(in, 0, layer, out, part);
}

void nst_conv_image_reference(const uint8_t *image, const nst_conv_image_layer *layer, int8_t *out, void *scratch,
                              const nst_part *part)
{
    (void)scratch;
    convolve((const int8_t *)image, layer->table, &layer->conv, out, part);
}

void nst_depthwise_reference(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    const nst_window *w = &layer->window;
    const nst_sums *sums = &layer->sums;
    const int32_t copies = layer->out.channels / layer->in.channels;
    (void)scratch;
    for (int32_t y = 0; y < layer->out.height; y++)
        for (int32_t x = 0; x < layer->out.width; x++)
            for (int32_t o = 0; o < layer->out.channels; o++, out++) {
                int64_t sum = 0;
                for (int32_t k = 0; k < sums->depth; k++) {
                    const int32_t row = y * w->stride.height - w->pad.height + k / w->size.width * w->dilation.height;
                    const int32_t column = x * w->stride.width - w->pad.width + k % w->size.width * w->dilation.width;
                    const int32_t at = place(in, 0, &layer->in, layer->in_zero, row, column, o / copies);
                    sum += at * (sums->weights[o * sums->depth + k] - sums->weight_zero);
                }
                if (has(part, y, o))
                    *out = answer(sum, sums, o);
            }
}

void nst_depthwise_3_reference(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    nst_depthwise_reference(in, layer, out, scratch, part);
}

void nst_depthwise_5_reference(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch, const nst_part *part)
{
    nst_depthwise_reference(in, layer, out, scratch, part);
}

void nst_fully_connected_reference(const int8_t *in, const nst_fully_connected_layer *layer, int8_t *out)
{
    for (int32_t o = 0; o < layer->channels; o++) {
        int64_t sum = layer->bias[o];
        for (int32_t k = 0; k < layer->depth; k++)
            sum += in[k] * (layer->weights[(o / 4 * layer->depth + k) * 4 + o % 4] - layer->weight_zero);
        volatile double real = (double)sum * layer->factor[layer->per_channel ? o : 0]; /* volatile: rounded on its own */
        if (real > 1e6 || real < -1e6)
            real = real < 0 ? -1e6 : 1e6;
        out[o] = clamped(real < 0 ? -(int64_t)(0.5 - real) : (int64_t)(0.5 + real), &layer->output);
    }
}

/* ---- element by element ---------------------------------------------------------------------------------------------------- */

/* Where the operands of output number i stand. */
static void operands(const nst_broadcast *s, int32_t i, int32_t *a, int32_t *b)
{
    *a = *b = 0;
    for (int32_t side = 2; side >= 0; side--) {
        *a += i % s->size[side] * s->a_step[side];
        *b += i % s->size[side] * s->b_step[side];
        i /= s->size[side];
    }
}

void nst_add_reference(const int8_t *a, const int8_t *b, const nst_add_layer *layer, int8_t *out)
{
    const nst_broadcast *s = &layer->shape;
    for (int32_t i = 0; i < s->size[0] * s->size[1] * s->size[2]; i++) {
        int32_t of_a, of_b;
        operands(s, i, &of_a, &of_b);
        const int64_t first = ((int64_t)a[of_a] - layer->a_zero) * (1 << 19);
        const int64_t wide = ((int64_t)b[of_b] - layer->b_zero) * ((int64_t)1 << layer->b_left);
        const int64_t sum = first + rescaled(wide, layer->b_multiplier, exponent_of(layer->b_shift));
        out[i] = clamped(rescaled(sum, layer->multiplier, exponent_of(layer->shift)), &layer->output);
    }
}

void nst_mul_reference(const int8_t *a, const int8_t *b, const nst_mul_layer *layer, int8_t *out)
{
    const nst_broadcast *s = &layer->shape;
    for (int32_t i = 0; i < s->size[0] * s->size[1] * s->size[2]; i++) {
        int32_t of_a, of_b;
        operands(s, i, &of_a, &of_b);
        const int64_t product = ((int64_t)a[of_a] - layer->a_zero) * (b[of_b] - layer->b_zero);
        out[i] = clamped(rescaled(product, layer->multiplier, exponent_of(layer->shift)), &layer->output);
    }
}

void nst_lookup_reference(const int8_t *in, const int8_t table[256], int32_t count, int8_t *out)
{
    for (int32_t i = 0; i < count; i++)
        out[i] = table[in[i] + 128];
}

void nst_table_reference(const uint8_t *image, const int8_t *table, int32_t pixels, int32_t channels, int8_t *out)
{
    for (int32_t i = 0; i < pixels * channels; i++)
        out[i] = table[i % channels * 256 + image[i]];
}

/* ---- pools ----------------------------------------------------------------------------------------------------------------- */

/* The sum and the largest of the places of a window that lie inside the map, and how many they are. */
static void window_of(const int8_t *in, const nst_pool_layer *layer, int32_t i, int64_t *sum, int32_t *largest, int32_t *count)
{
    const nst_window *w = &layer->window;
    const int32_t c = i % layer->out.channels, x = i / layer->out.channels % layer->out.width;
    const int32_t y = i / layer->out.channels / layer->out.width;
    *sum = *count = 0;
    *largest = -128;
    for (int32_t k = 0; k < w->size.height * w->size.width; k++) {
        const int32_t row = y * w->stride.height - w->pad.height + k / w->size.width;
        const int32_t column = x * w->stride.width - w->pad.width + k % w->size.width;
        if (row < 0 || row >= layer->in.height || column < 0 || column >= layer->in.width)
            continue;
        const int32_t value = in[(row * layer->in.width + column) * layer->in.channels + c];
        *sum += value;
        *count += 1;
        *largest = value > *largest ? value : *largest;
    }
}

/* Pools keep their input's scale: the zero point is in the values already. */
static int8_t pooled(int64_t value, const nst_pool_layer *layer)
{
    return clamped(value - layer->output.zero, &layer->output);
}

void nst_average_pool_reference(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part)
{
    const nst_shape y = layer->out;
    for (int32_t i = 0; i < y.height * y.width * y.channels; i++) {
        int64_t sum;
        int32_t largest, count;
        window_of(in, layer, i, &sum, &largest, &count);
        const int64_t half = count / 2, bytes = sum + 128 * (int64_t)count;
        const int64_t upwards = (bytes + half) / count - 128, away = sum < 0 ? -((half - sum) / count) : (half + sum) / count;
        if (has(part, i / (y.width * y.channels), i % y.channels))
            out[i] = pooled(layer->upwards ? upwards : away, layer);
    }
}

void nst_max_pool_reference(const int8_t *in, const nst_pool_layer *layer, int8_t *out, const nst_part *part)
{
    const nst_shape y = layer->out;
    for (int32_t i = 0; i < y.height * y.width * y.channels; i++) {
        int64_t sum;
        int32_t largest, count;
        window_of(in, layer, i, &sum, &largest, &count);
        if (has(part, i / (y.width * y.channels), i % y.channels))
            out[i] = pooled(largest, layer);
    }
}

void nst_mean_reference(const int8_t *in, const nst_mean_layer *layer, int8_t *out)
{
    const int32_t *n = layer->size;
    for (int32_t o = 0; o < n[0] * n[2] * n[4]; o++) {
        const int32_t a = o / (n[2] * n[4]), b = o / n[4] % n[2], c = o % n[4];
        int64_t sum = 0;
        for (int32_t i = 0; i < n[1] * n[3]; i++)
            sum += in[(((a * n[1] + i / n[3]) * n[2] + b) * n[3] + i % n[3]) * n[4] + c] - layer->in_zero;
        out[o] = clamped(rescaled(sum, layer->multiplier, exponent_of(layer->shift)), &layer->output);
    }
}

/* ---- moving bytes ---------------------------------------------------------------------------------------------------------- */

void nst_pad_reference(const int8_t *in, const nst_pad_layer *layer, int8_t *out)
{
    for (int32_t y = 0; y < layer->out.height; y++)
        for (int32_t x = 0; x < layer->out.width; x++)
            for (int32_t c = 0; c < layer->out.channels; c++)
                *out++ = (int8_t)place(in, 0, &layer->in, layer->in_zero, y - layer->pad.height, x - layer->pad.width, c);
}

void nst_resize_nearest_reference(const int8_t *in, const nst_resize_nearest_layer *layer, int8_t *out)
{
    for (int32_t y = 0; y < layer->out.height; y++)
        for (int32_t x = 0; x < layer->out.width; x++)
            for (int32_t c = 0; c < layer->out.channels; c++)
                *out++ = in[(layer->rows[y] * layer->in.width + layer->columns[x]) * layer->in.channels + c];
}

void nst_concat_reference(const int8_t *const *in, const nst_concat_layer *layer, int8_t *out)
{
    for (int32_t row = 0; row < layer->rows; row++)
        for (int32_t part = 0; part < layer->parts; part++)
            for (int32_t i = 0; i < layer->sizes[part]; i++) {
                const int8_t byte = in[part][row * layer->sizes[part] + i];
                *out++ = layer->tables[part] ? layer->tables[part][byte + 128] : byte;
            }
}

/* ---- ends ------------------------------------------------------------------------------------------------------------------ */

/* a * b / 2^31, halves up. */
static int64_t high(int64_t a, int64_t b)
{
    return (a * b + ((int64_t)1 << 30)) >> 31;
}

void nst_slice_reference(const int8_t *in, const nst_slice_layer *layer, int8_t *out)
{
    for (int32_t row = 0; row < layer->rows; row++)
        for (int32_t i = 0; i < layer->size; i++)
            *out++ = in[row * layer->in_size + layer->first + i];
}

void nst_softmax_reference(const int8_t *in, const nst_softmax_layer *layer, int8_t *out)
{
    for (int32_t row = 0; row < layer->rows; row++, in += layer->depth, out += layer->depth) {
        int32_t largest = -128, zeros = 0;
        int64_t total = 0; /* 12 integer bits, 19 fractional ones */
        for (int32_t i = 0; i < layer->depth; i++)
            largest = in[i] > largest ? in[i] : largest;
        for (int32_t i = 0; i < layer->depth; i++)
            total += divided(layer->exponentials[largest - in[i]], 12);
        total = total > INT32_MAX ? INT32_MAX : total;
        while (total << zeros < (int64_t)1 << 31)
            zeros++;
        /* total = (1 + x) * 2^(12 - zeros); half is (1 + x) / 2, estimate nears its reciprocal, with 29 fractional bits */
        const int64_t half = total << zeros >> 1;
        int64_t estimate = 1515870810 + high(half, -1010580540);
        for (int32_t step = 0; step < 3; step++)
            estimate += 4 * high(estimate, ((int64_t)1 << 29) - high(half, estimate));
        const int64_t factor = 2 * estimate > INT32_MAX ? INT32_MAX : 2 * estimate;
        for (int32_t i = 0; i < layer->depth; i++) {
            const int64_t share = divided(high(layer->exponentials[largest - in[i]], factor), 12 - zeros + 23);
            out[i] = (int8_t)(share > 255 ? 127 : share - 128);
        }
    }
}

void nst_dequantize_reference(const int8_t *in, int32_t count, int32_t zero, float scale, float *out)
{
    for (int32_t i = 0; i < count; i++)
        out[i] = (float)((double)scale * (in[i] - zero));
}

void nst_head_reference(const int8_t *in, const nst_head_layer *layer, float *out)
{
    for (int32_t c = 0; c < layer->classes; c++) {
        double sum = 0;
        for (int32_t k = 0; k < layer->depth; k++)
            sum += (double)layer->weights[c * layer->depth + k] * ((double)layer->scale * (in[k] - layer->zero));
        out[c] = (float)(sum + layer->bias[c]);
    }
}
