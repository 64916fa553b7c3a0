/* Depthwise convolution, one channel at a time: its plane is copied into scratch with its padding, then four neighbouring outputs
 * take their products together, so that each byte of the plane and each weight is loaded once for several of them. */
#ifndef NST_DEPTHWISE_H
#define NST_DEPTHWISE_H

#include "nst_fixed.h"
#include "nst_kernels.h"
#include "nst_part.h"

/* Products of one row of the window: sums[i] += sum over k of x[i * stride + k * dilation] * w[k]. */
typedef void nst_taps(const int8_t *x, const int16_t *w, int32_t size, int32_t stride, int32_t dilation, int32_t sums[4]);

NST_INLINE void nst_any_taps(const int8_t *x, const int16_t *w, int32_t size, int32_t stride, int32_t dilation, int32_t sums[4])
{
    for (int32_t k = 0; k < size; k++) {
        sums[0] += x[0] * w[k];
        sums[1] += x[stride] * w[k];
        sums[2] += x[2 * stride] * w[k];
        sums[3] += x[3 * stride] * w[k];
        x += dilation;
    }
}

/* The same for three columns or five that are not dilated: straight-line code, since `size` is known to the compiler. */
NST_INLINE int32_t nst_three_or_five(const int8_t *x, const int16_t *w, int32_t size, int32_t sum)
{
    sum += x[0] * w[0];
    sum += x[1] * w[1];
    sum += x[2] * w[2];
    if (size == 5) {
        sum += x[3] * w[3];
        sum += x[4] * w[4];
    }
    return sum;
}

NST_INLINE void nst_few_taps(const int8_t *x, const int16_t *w, int32_t size, int32_t stride, int32_t dilation, int32_t sums[4])
{
    (void)dilation;
    sums[0] = nst_three_or_five(x, w, size, sums[0]);
    sums[1] = nst_three_or_five(x + stride, w, size, sums[1]);
    sums[2] = nst_three_or_five(x + 2 * stride, w, size, sums[2]);
    sums[3] = nst_three_or_five(x + 3 * stride, w, size, sums[3]);
}

/* The plane in scratch: what the windows of all outputs reach, and of as many more as round a row up to four. */
typedef struct {
    int32_t height, width;
    int32_t top;      /* the map's row that its first one is, which may lie above */
    int16_t *weights; /* of one channel, their zero point taken off: [size.height][size.width] */
    int8_t *bytes;    /* [height][width] */
} nst_plane;

NST_INLINE nst_plane nst_plane_in(void *scratch, const nst_depthwise_layer *layer, nst_range rows)
{
    const nst_window w = layer->window;
    nst_plane plane;
    plane.top = rows.first * w.stride.height - w.pad.height;
    plane.height = (rows.end - rows.first - 1) * w.stride.height + (w.size.height - 1) * w.dilation.height + 1;
    plane.width = ((layer->out.width + 3) / 4 * 4 - 1) * w.stride.width + (w.size.width - 1) * w.dilation.width + 1;
    plane.weights = scratch;
    plane.bytes = (int8_t *)(plane.weights + w.size.height * w.size.width);
    return plane;
}

/* One channel of the map into the plane. The padding around it is there already. */
NST_INLINE void nst_copy_channel(const int8_t *in, const nst_depthwise_layer *layer, const nst_plane *plane)
{
    const nst_shape map = layer->in;
    const int32_t left = layer->window.pad.width, columns = nst_smaller(plane->width - left, map.width);
    const int32_t end = nst_smaller(plane->top + plane->height, map.height);
    for (int32_t y = nst_larger(plane->top, 0); y < end; y++) {
        const int8_t *from = in + y * map.width * map.channels;
        int8_t *to = plane->bytes + (y - plane->top) * plane->width + left;
        for (int32_t x = 0; x < columns; x++) {
            *to++ = *from;
            from += map.channels;
        }
    }
}

/* So many rows of channel o from the plane. size, stride: of the window's columns, known to the compiler where a kernel is made for
 * some. */
NST_INLINE void nst_channel(const nst_depthwise_layer *layer, const nst_plane *plane, int32_t rows, int32_t o, int8_t *out,
                            int32_t size, int32_t stride, nst_taps *taps)
{
    const nst_window w = layer->window;
    const nst_ending ending = nst_ending_of(&layer->sums.output);
    const int32_t bias = layer->sums.bias[o], multiplier = layer->sums.multiplier[o], shift = layer->sums.shift[o];
    const int32_t columns = layer->out.width, step = layer->out.channels;
    const int32_t down = plane->width * w.dilation.height;
    for (int32_t row = 0; row < rows; row++) {
        const int8_t *x = plane->bytes + row * w.stride.height * plane->width;
        for (int32_t left = columns; left > 0; left -= 4) {
            int32_t sums[4] = {bias, bias, bias, bias};
            const int8_t *window_row = x;
            const int16_t *weights = plane->weights;
            for (int32_t k = w.size.height; k > 0; k--) {
                taps(window_row, weights, size, stride, w.dilation.width, sums);
                window_row += down;
                weights += size;
            }
            x += 4 * stride;
            if (left >= 4 && shift >= 0) {
                out[0] = nst_answer(sums[0], multiplier, shift, &ending);
                out[step] = nst_answer(sums[1], multiplier, shift, &ending);
                out[2 * step] = nst_answer(sums[2], multiplier, shift, &ending);
                out[3 * step] = nst_answer(sums[3], multiplier, shift, &ending);
                out += 4 * step;
                continue;
            }
            const int32_t rest[4] = {sums[0], sums[1], sums[2], sums[3]}, n = left < 4 ? left : 4;
            for (int32_t i = 0; i < n; i++, out += step)
                *out = shift < 0 ? nst_answer_long(rest[i], multiplier, shift, &ending)
                                 : nst_answer(rest[i], multiplier, shift, &ending);
        }
    }
}

/* The same for windows of three columns or of five, with code of their own for the strides that there mostly are. */
NST_INLINE void nst_channel_of(const nst_depthwise_layer *layer, const nst_plane *plane, int32_t rows, int32_t o, int8_t *out,
                               int32_t size)
{
    const int32_t stride = layer->window.stride.width;
    if (stride == 1)
        nst_channel(layer, plane, rows, o, out, size, 1, nst_few_taps);
    else if (stride == 2)
        nst_channel(layer, plane, rows, o, out, size, 2, nst_few_taps);
    else
        nst_channel(layer, plane, rows, o, out, size, stride, nst_few_taps);
}

typedef void nst_channel_kernel(const nst_depthwise_layer *layer, const nst_plane *plane, int32_t rows, int32_t o, int8_t *out);

/* A part of the layer. kernel: known to the compiler, so that it is called directly. */
NST_INLINE void nst_depthwise_by(const int8_t *in, const nst_depthwise_layer *layer, int8_t *out, void *scratch,
                                 const nst_part *part, nst_channel_kernel *kernel)
{
    const nst_part p = nst_part_of(part, &layer->out);
    const nst_plane plane = nst_plane_in(scratch, layer, p.rows);
    const int32_t depth = layer->sums.depth, copies = layer->out.channels / layer->in.channels;
    const int8_t *weights = layer->sums.weights + p.channels.first * depth;
    int32_t o = p.channels.first;
    out += p.rows.first * layer->out.width * layer->out.channels;
    for (int32_t i = 0; i < plane.height * plane.width; i++)
        plane.bytes[i] = (int8_t)layer->in_zero;
    for (int32_t c = o / copies; o < p.channels.end; c++) {
        const int32_t end = nst_smaller((c + 1) * copies, p.channels.end);
        nst_copy_channel(in + c, layer, &plane);
        for (; o < end; o++) {
            for (int32_t k = 0; k < depth; k++)
                plane.weights[k] = (int16_t)(*weights++ - layer->sums.weight_zero);
            kernel(layer, &plane, p.rows.end - p.rows.first, o, out + o);
        }
    }
}

#endif
