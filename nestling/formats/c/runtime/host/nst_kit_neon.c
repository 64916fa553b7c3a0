/* The kit of every 64-bit Arm: two products of bytes are added up in 16 bits, then in 32. Numbers are inputs as they are. */
#include "nst_kit.h"

#if defined(__aarch64__)
#include "nst_neon.h"

/* Two products fit into 16 bits unless both weights and both inputs are -128: the generator leaves channels with such weights to the
 * long way. */

enum { TILE = 2, TILE_OF_8 = 4 };

/* The sums of a channel are in two lanes until the end. */
NST_ALWAYS void tile(const nst_tile *t, const int32_t n, const int32_t vectors)
{
    const int32x4_t zero = vdupq_n_s32(0);
    const int64_t step = t->step;
    const int8_t *w = t->weights;
    int32x4_t s[TILE_OF_8][4], s2[TILE_OF_8][4];
    NST_EACH (v, vectors) {
        const int32x4_t bias = vld1q_s32(t->bias + 4 * v);
        NST_EACH (i, n) {
            s[i][v] = vzip1q_s32(bias, zero);
            s2[i][v] = vzip2q_s32(bias, zero);
        }
    }
    for (int32_t r = 0; r < t->run_count; r++) {
        const int8_t *from = (const int8_t *)t->runs[r] + t->at;
        int8x16_t x[TILE_OF_8], y[TILE_OF_8];
        for (int32_t k = t->fours / 2; k > 0; k--, w += 128, from += 8) {
            NST_EACH (i, n) {
                x[i] = nst_four_times(from + i * step);
                y[i] = nst_four_times(from + i * step + 4);
            }
            NST_EACH (v, vectors) {
                const int8x16_t a = vld1q_s8(w + 16 * v), b = vld1q_s8(w + 64 + 16 * v);
                NST_EACH (i, n) {
                    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(x[i]));
                    s[i][v] = vpadalq_s16(s[i][v], vmlal_s8(low, vget_low_s8(b), vget_low_s8(y[i])));
                    s2[i][v] = vpadalq_s16(s2[i][v], vmlal_high_s8(vmull_high_s8(a, x[i]), b, y[i]));
                }
            }
        }
        if (t->fours % 2) {
            NST_EACH (i, n)
                x[i] = nst_four_times(from + i * step);
            NST_EACH (v, vectors) {
                const int8x16_t a = vld1q_s8(w + 16 * v);
                NST_EACH (i, n) {
                    s[i][v] = vpadalq_s16(s[i][v], vmull_s8(vget_low_s8(a), vget_low_s8(x[i])));
                    s2[i][v] = vpadalq_s16(s2[i][v], vmull_high_s8(a, x[i]));
                }
            }
            w += 64;
        }
    }
    NST_EACH (i, n)
        NST_EACH (v, vectors)
            s[i][v] = vpaddq_s32(s[i][v], s2[i][v]);
    nst_answers(s, n, vectors, &t->ends, t->out, t->channels, t->left);
}

static void products(const uint8_t *const *runs, int32_t step, int32_t pixels, const nst_host_sums *sums, int8_t *out)
{
    nst_tiles_of(tile, TILE, TILE_OF_8, runs, step, pixels, sums, out);
}

static void blocks(const uint8_t *x, int32_t pixels, const nst_blocks *b, const nst_host_sums *sums, int32_t o, int8_t *out)
{
    for (int32_t first = 0; first < pixels; first += 16) {
        int32x4_t s[4], s2[4];
        NST_EACH (v, 4) {
            s[v] = vsetq_lane_s32(sums->bias[o], vdupq_n_s32(0), 0);
            s[v] = vsetq_lane_s32(sums->bias[o], s[v], 2);
            s2[v] = s[v];
        }
        for (int32_t k = 0; k < b->count; k++) {
            const int8x16x4_t some = nst_four_vectors((const int8_t *)x + (b->places[k] * NST_BLOCK + first) * 4);
            const int8x16_t w = nst_four_times(b->weights + 4 * k);
            NST_EACH (v, 4) {
                s[v] = vpadalq_s16(s[v], vmull_s8(vget_low_s8(some.val[v]), vget_low_s8(w)));
                s2[v] = vpadalq_s16(s2[v], vmull_high_s8(some.val[v], w));
            }
        }
        NST_EACH (v, 4)
            s[v] = vpaddq_s32(s[v], s2[v]);
        nst_put_channel(s, sums, o, out + first);
    }
}

const nst_kit nst_kit_neon = {"neon",          1,     0, nst_as_they_are, products, nst_not_needed, nst_depthwise_neon, NST_LOOPS,
                              nst_lookup_neon, blocks};
#endif
