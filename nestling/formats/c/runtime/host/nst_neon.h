/* What the kits of 64-bit Arm share: from sums to bytes, how products are divided into tiles, and rows of depthwise layers. */
#ifndef NST_NEON_H
#define NST_NEON_H

#include "nst_kit.h"
#include "nst_loops.h"
#include "nst_part.h"

#include <arm_neon.h>
#include <string.h>

#define NST_ALWAYS static inline __attribute__((always_inline))

NST_ALWAYS int8x16x4_t nst_four_vectors(const int8_t *x)
{
#if defined(__clang__) || __GNUC__ >= 11
    return vld1q_s8_x4(x);
#else
    const int8x16x4_t four = {{vld1q_s8(x), vld1q_s8(x + 16), vld1q_s8(x + 32), vld1q_s8(x + 48)}};
    return four;
#endif
}

static void nst_as_they_are(const int8_t *in, int32_t count, void *out)
{
    memcpy(out, in, (size_t)count);
}

static void nst_not_needed(const nst_host_sums *sums, void *ready)
{
    (void)sums;
    (void)ready;
}

/* ---- sums to answers -------------------------------------------------------------------------------------------------------- */

/* Of up to 16 channels, what nst_scaled() is told, as these processors round in whole numbers just as the reference does: products in
 * their upper half, halves up, then divided by a power of two, halves away from zero. shift: the power, negative.
 * any_long: whether nst_scaled() must go the long way for one of them. */
typedef struct {
    const nst_output *y;
    const int32_t *multiplier;
    const int8_t *shifts;
    int32x4_t shift[4];
    int32_t any_long;
} nst_ends;

NST_ALWAYS nst_ends nst_ends_of(const nst_host_sums *sums, int32_t first)
{
    const int8x16_t shifts = vmvnq_s8(vld1q_s8(sums->shift + first)); /* -shift - 1 */
    const int16x8_t low = vmovl_s8(vget_low_s8(shifts)), high = vmovl_high_s8(shifts);
    const nst_ends e = {
        &sums->output,
        sums->multiplier + first,
        sums->shift + first,
        {vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)},
        vmaxvq_s8(shifts) >= 0,
    };
    return e;
}

static __attribute__((noinline)) void nst_long_ones(const int32_t *sums, const nst_ends *e, int8_t *out, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        out[i] = nst_clamped(nst_scaled(sums[i], e->multiplier[i], e->shifts[i], e->y->zero), e->y->low, e->y->high);
}

NST_ALWAYS int16x4_t nst_scaled_four(int32x4_t sum, int32x4_t multiplier, int32x4_t shift)
{
    const int32x4_t high = vqrdmulhq_s32(sum, multiplier);
    return vqmovn_s32(vrshlq_s32(vsraq_n_s32(high, high, 31), shift));
}

/* The first `count` answers of 4 * vectors sums, for n pixels. */
NST_ALWAYS void nst_answers(int32x4_t (*sums)[4], const int32_t n, const int32_t vectors, const nst_ends *e, int8_t *out,
                            int32_t channels, int32_t count)
{
    const int16x8_t zero = vdupq_n_s16((int16_t)e->y->zero);
    const int8x16_t least = vdupq_n_s8((int8_t)e->y->low), most = vdupq_n_s8((int8_t)e->y->high);
    int32x4_t multiplier[4], shift[4];
    int8x16_t y[4];
    if (e->any_long) {
        NST_EACH (i, n) {
            int32_t all[16];
            NST_EACH (v, vectors)
                vst1q_s32(all + 4 * v, sums[i][v]);
            nst_long_ones(all, e, out + i * channels, nst_smaller(count, 4 * vectors));
        }
        return;
    }
    NST_EACH (v, vectors) {
        multiplier[v] = vld1q_s32(e->multiplier + 4 * v);
        shift[v] = e->shift[v];
    }
    NST_EACH (i, n) {
        int16x4_t four[4];
        NST_EACH (v, vectors)
            four[v] = nst_scaled_four(sums[i][v], multiplier[v], shift[v]);
        const int16x8_t low = vqaddq_s16(vcombine_s16(four[0], four[1]), zero);
        const int16x8_t high = vectors > 2 ? vqaddq_s16(vcombine_s16(four[vectors - 2], four[vectors - 1]), zero) : low;
        y[i] = vminq_s8(vmaxq_s8(vqmovn_high_s16(vqmovn_s16(low), high), least), most);
    }
    if (count >= 16 && vectors > 2) {
        NST_EACH (i, n)
            vst1q_s8(out + i * channels, y[i]);
    } else if (count >= 8 && vectors == 2) {
        NST_EACH (i, n)
            vst1_s8(out + i * channels, vget_low_s8(y[i]));
    } else {
        NST_EACH (i, n) {
            int8_t some[16];
            vst1q_s8(some, y[i]);
            memcpy(out + i * channels, some, (size_t)count);
        }
    }
}

/* ---- blocks ----------------------------------------------------------------------------------------------------------------- */

/* A channel's answers of 16 pixels, from their sums. */
NST_ALWAYS void nst_put_channel(const int32x4_t sums[4], const nst_host_sums *layer, int32_t o, int8_t *out)
{
    const nst_output *y = &layer->output;
    const int32_t shift = layer->shift[o];
    if (shift < 0) {
        int32_t all[16];
        NST_EACH (v, 4)
            vst1q_s32(all + 4 * v, sums[v]);
        for (int32_t i = 0; i < 16; i++)
            out[i] = nst_clamped(nst_scaled(all[i], layer->multiplier[o], shift, y->zero), y->low, y->high);
        return;
    }
    const int32x4_t multiplier = vdupq_n_s32(layer->multiplier[o]), right = vdupq_n_s32(-shift - 1);
    const int16x8_t zero = vdupq_n_s16((int16_t)y->zero);
    int16x4_t four[4];
    NST_EACH (v, 4)
        four[v] = nst_scaled_four(sums[v], multiplier, right);
    const int16x8_t low = vqaddq_s16(vcombine_s16(four[0], four[1]), zero), high = vqaddq_s16(vcombine_s16(four[2], four[3]), zero);
    const int8x16_t all = vqmovn_high_s16(vqmovn_s16(low), high);
    vst1q_s8(out, vminq_s8(vmaxq_s8(all, vdupq_n_s8((int8_t)y->low)), vdupq_n_s8((int8_t)y->high)));
}

/* ---- runs by weights -------------------------------------------------------------------------------------------------------- */

NST_ALWAYS int8x16_t nst_four_times(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

/* n pixels and 4 * vectors channels. at: of the first pixel, from the beginning of a run. left: channels that there are. */
typedef struct {
    const uint8_t *const *runs;
    const int8_t *weights;
    const int32_t *bias;
    nst_ends ends;
    int8_t *out;
    int64_t at, step;
    int32_t run_count, fours, channels, left;
} nst_tile;

typedef void nst_tile_of(const nst_tile *t, int32_t n, int32_t vectors);

/* The last tile may lie over the one before it. */
NST_ALWAYS void nst_pixels_of(nst_tile_of *tile, const nst_tile *all, int32_t pixels, const int32_t n, const int32_t vectors)
{
    nst_tile t = *all;
    for (int32_t pixel = 0; pixel < pixels; pixel += n) {
        const int32_t first = nst_smaller(pixel, pixels - n);
        t.at = first * t.step;
        t.out = all->out + first * t.channels;
        tile(&t, n, vectors);
    }
}

/* In tiles of n pixels and 16 channels, or of n_of_8 pixels and 8. */
NST_ALWAYS void nst_tiles_of(nst_tile_of *tile, const int32_t n, const int32_t n_of_8, const uint8_t *const *runs, int32_t step,
                             int32_t pixels, const nst_host_sums *sums, int8_t *out)
{
    const int32_t fours = (sums->depth + 3) / 4, channels = sums->channels;
    for (int32_t first = 0; first < channels; first += NST_GROUP) {
        const int32_t left = channels - first;
        const int8_t *weights = sums->weights + first * sums->runs * fours * 4;
        const nst_tile t =
            {runs, weights, sums->bias + first, nst_ends_of(sums, first), out + first, 0, step, sums->runs, fours, channels, left};
        if (left > 8 && pixels >= n)
            nst_pixels_of(tile, &t, pixels, n, 4);
        else if (left > 8)
            nst_pixels_of(tile, &t, pixels, 1, 4);
        else if (pixels >= n_of_8)
            nst_pixels_of(tile, &t, pixels, n_of_8, 2);
        else
            nst_pixels_of(tile, &t, pixels, 1, 2);
    }
}

/* ---- depthwise -------------------------------------------------------------------------------------------------------------- */

enum { NST_PIXELS = 4 };

/* n pixels of 4 * vectors channels from number `at` on. Two products are added up in 16 bits: the generator leaves channels whose
 * weights are both -128 to the long way. */
NST_ALWAYS void nst_pixels(const uint8_t *const *taps, int32_t at, const nst_host_sums *sums, int32_t o, const nst_ends *e,
                           int8_t *out, const int32_t n, const int32_t vectors)
{
    const int32_t channels = sums->channels;
    const int8_t *w = sums->weights + o;
    int32x4_t s[NST_PIXELS][4];
    NST_EACH (i, n)
        NST_EACH (v, vectors)
            s[i][v] = vld1q_s32(sums->bias + o + 4 * v);
    int32_t t = 0;
    for (; t + 2 <= sums->runs; t += 2, w += 2 * channels) {
        const int8_t *x = (const int8_t *)taps[t] + at, *y = (const int8_t *)taps[t + 1] + at;
        const int8x16_t a = vectors > 2 ? vld1q_s8(w) : vcombine_s8(vld1_s8(w), vdup_n_s8(0));
        const int8x16_t b = vectors > 2 ? vld1q_s8(w + channels) : vcombine_s8(vld1_s8(w + channels), vdup_n_s8(0));
        NST_EACH (i, n) {
            const int8x16_t p = vld1q_s8(x + i * channels), q = vld1q_s8(y + i * channels);
            const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(p), vget_low_s8(a)), vget_low_s8(q), vget_low_s8(b));
            s[i][0] = vaddw_s16(s[i][0], vget_low_s16(low));
            s[i][1] = vaddw_high_s16(s[i][1], low);
            if (vectors > 2) {
                const int16x8_t high = vmlal_high_s8(vmull_high_s8(p, a), q, b);
                s[i][2] = vaddw_s16(s[i][2], vget_low_s16(high));
                s[i][3] = vaddw_high_s16(s[i][3], high);
            }
        }
    }
    if (t < sums->runs) {
        const int8_t *x = (const int8_t *)taps[t] + at;
        const int8x16_t a = vectors > 2 ? vld1q_s8(w) : vcombine_s8(vld1_s8(w), vdup_n_s8(0));
        NST_EACH (i, n) {
            const int8x16_t p = vld1q_s8(x + i * channels);
            const int16x8_t low = vmull_s8(vget_low_s8(p), vget_low_s8(a));
            s[i][0] = vaddw_s16(s[i][0], vget_low_s16(low));
            s[i][1] = vaddw_high_s16(s[i][1], low);
            if (vectors > 2) {
                const int16x8_t high = vmull_high_s8(p, a);
                s[i][2] = vaddw_s16(s[i][2], vget_low_s16(high));
                s[i][3] = vaddw_high_s16(s[i][3], high);
            }
        }
    }
    nst_answers(s, n, vectors, e, out + at, channels, 4 * vectors);
}

/* All pixels of 4 * vectors channels; the last four may lie over the ones before them. */
NST_ALWAYS void nst_channels(const uint8_t *const *taps, const nst_host_sums *sums, int32_t o, int32_t count, int8_t *out,
                             const int32_t vectors)
{
    const nst_ends ends = nst_ends_of(sums, o), *e = &ends;
    const int32_t channels = sums->channels, pixels = count / channels;
    if (pixels < NST_PIXELS)
        for (int32_t i = 0; i < pixels; i++)
            nst_pixels(taps, i * channels + o, sums, o, e, out, 1, vectors);
    else
        for (int32_t i = 0; i < pixels; i += NST_PIXELS)
            nst_pixels(taps, nst_smaller(i, pixels - NST_PIXELS) * channels + o, sums, o, e, out, NST_PIXELS, vectors);
}

static void nst_depthwise_neon(const uint8_t *const *taps, const nst_host_sums *sums, const void *ready, int32_t count, int8_t *out)
{
    int32_t o = 0;
    (void)ready;
    for (; o + 16 <= sums->channels; o += 16)
        nst_channels(taps, sums, o, count, out, 4);
    if (o < sums->channels)
        nst_channels(taps, sums, o, count, out, 2);
}

/* ---- tables ----------------------------------------------------------------------------------------------------------------- */

static void nst_lookup_neon(const int8_t *in, int32_t count, const int8_t *table, int8_t *out)
{
    const int8x16x4_t t0 = nst_four_vectors(table), t1 = nst_four_vectors(table + 64);
    const int8x16x4_t t2 = nst_four_vectors(table + 128), t3 = nst_four_vectors(table + 192);
    const uint8x16_t from = vdupq_n_u8(128), quarter = vdupq_n_u8(64);
    for (int32_t i = 0; i < count; i += 16) {
        int8_t rest[16] = {0};
        const int32_t n = count - i;
        const int8x16_t x = vld1q_s8(n < 16 ? memcpy(rest, in + i, (size_t)n) : in + i);
        const uint8x16_t a = veorq_u8(vreinterpretq_u8_s8(x), from), b = vsubq_u8(a, quarter), c = vsubq_u8(b, quarter);
        const int8x16_t low = vqtbx4q_s8(vqtbl4q_s8(t0, a), t1, b); /* a place that a table has not leaves what there is */
        const int8x16_t y = vqtbx4q_s8(vqtbx4q_s8(low, t2, c), t3, vsubq_u8(c, quarter));
        vst1q_s8(n < 16 ? rest : out + i, y);
        if (n < 16)
            memcpy(out + i, rest, (size_t)n);
    }
}

#endif
