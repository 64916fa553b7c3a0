#include "nst_products_dsp.h"

#if NST_DSP

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"

/* An instruction a line: */
/* clang-format off */

/* Two bytes of a patch, in X, with the four channels' weights for them. */
#define CHANNELS_4(X)                \
    "ldrd r10, r11, [r0], #8\n\t"    \
    "sxtb16 r12, r10\n\t"            \
    "sxtb16 r10, r10, ror #8\n\t"    \
    "smlad r4, r12, " X ", r4\n\t"   \
    "smlad r5, r10, " X ", r5\n\t"   \
    "sxtb16 r12, r11\n\t"            \
    "sxtb16 r11, r11, ror #8\n\t"    \
    "smlad r6, r12, " X ", r6\n\t"   \
    "smlad r7, r11, " X ", r7\n\t"

/* Adds to the sums of four channels what fours of bytes give, at least one. weights: [bytes / 2][2], of 8 bits. */
__attribute__((naked, noinline)) static void add_fours(const int32_t *weights, const int8_t *x, const int8_t *end, int32_t sums[4])
{
    __asm__ volatile("push {r4-r11, lr}\n\t"
                     "ldmia r3, {r4-r7}\n\t"
                     "1: ldr r9, [r1], #4\n\t"
                     "sxtb16 r8, r9\n\t"
                     "sxtb16 r9, r9, ror #8\n\t"
                     CHANNELS_4("r8")
                     CHANNELS_4("r9")
                     "cmp r1, r2\n\t"
                     "bne 1b\n\t"
                     "stmia r3!, {r4-r7}\n\t"
                     "pop {r4-r11, pc}\n\t");
}

/* clang-format on */

#pragma GCC diagnostic pop

#else

static void add_fours(const int32_t *weights, const int8_t *x, const int8_t *end, int32_t sums[4])
{
    for (; x < end; x += 4, weights += 4)
        for (int32_t channel = 0; channel < 4; channel++) {
            const int32_t *first = weights + channel / 2, *second = first + 2;
            sums[channel] += x[0] * nst_byte(*first, channel % 2) + x[2] * nst_byte(*first, channel % 2 + 2) +
                             x[1] * nst_byte(*second, channel % 2) + x[3] * nst_byte(*second, channel % 2 + 2);
        }
}

#endif

void nst_fully_connected_dsp(const int8_t *in, const nst_fully_connected_dsp_layer *layer, int8_t *out)
{
    const nst_sums_dsp *sums = &layer->sums;
    const int32_t depth = sums->depth, fours = depth & -4, after = sums->after;
    const int32_t *stream = sums->stream;
    int8_t last[4] = {0};
    for (int32_t k = fours; k < depth; k++)
        last[k - fours] = in[k];
    for (int32_t o = 0; o < sums->channels; o += 4) {
        int32_t s[4] = {stream[0], stream[1], stream[2], stream[3]};
        stream += 4;
        if (fours)
            add_fours(stream, in, in + fours, s);
        if (fours < depth)
            add_fours(stream + fours, last, last + 4, s);
        stream += 2 * sums->steps;
        for (int32_t i = 0; i < 4; i++, stream += after)
            if (o + i < sums->channels)
                *out++ = nst_clamped(nst_short_way(s[i], stream, sums), sums->output.low, sums->output.high);
    }
}
