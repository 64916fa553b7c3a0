#include "nst_blocks.h"
#include "nst_bytes.h"
#include "nst_mve.h"

/* Pixels lie in scratch as they are, one after the other, each rounded up to whole blocks. Four blocks at a time: their weights are a
 * vector, and what they are multiplied with is gathered from where they lie. */

#if defined(__ARM_FEATURE_MVE) && !defined(NST_PORTABLE)

#include <arm_mve.h>

static void nst_tile_pixels(const int8_t *const x[4], int32_t depth, void *scratch)
{
    int8_t *to = scratch;
    for (int32_t i = 0; i < 4; i++, to += (depth + 3) & -4)
        for (int32_t k = 0; k < depth; k += 16) {
            const mve_pred16_t some = vctp8q((uint32_t)(depth - k));
            vstrbq_p_s8(to + k, vldrbq_z_s8(x[i] + k, some), some);
        }
}

static void nst_tile_sums(nst_tile *t, int32_t sums[4])
{
    const int8_t *w = (const int8_t *)(t->stream + 2);
    for (int32_t i = 0; i < 4; i++)
        sums[i] = t->stream[0];
    for (int32_t fours = nst_blocks_of(t->stream) / 4; fours > 0; fours--) {
        const uint32x4_t where = vldrbq_u32((const uint8_t *)t->places);
        const int8x16_t weights = vldrbq_s8(w);
        for (int32_t i = 0; i < 4; i++) {
            const int32x4_t x = vldrwq_gather_shifted_offset_s32((const int32_t *)t->x + i * t->blocks, where);
            sums[i] = vmladavaq_s8(sums[i], weights, vreinterpretq_s8_s32(x));
        }
        w += 16, t->places += 4;
    }
    t->stream = (const int32_t *)w;
}

/* ---- a loop that takes all registers, which a compiler does not find ------------------------------------------------------------ */

#define FUNCTION(NAME, BODY)                                                                                                       \
    __asm__(".pushsection .text." NAME ", \"ax\", %progbits\n .syntax unified\n .thumb\n .align 2\n .global " NAME                 \
            "\n"                                                                                                                   \
            ".type " NAME ", %function\n .thumb_func\n" NAME ":\n" BODY ".size " NAME ", .-" NAME "\n .popsection\n")

/* r5 r7 r9 r11 pixels, r0 r2 r4 r6 their sums, r1 stream, r3 places. */
#define PIXEL(PRODUCTS, SUM, X) " vldrw.u32 q2, [" X ", q0, uxtw #2]\n " PRODUCTS ".s8 " SUM ", q1, q2\n"
#define BLOCKS(PRODUCTS)                                                                                                           \
    " vldrb.u32 q0, [r3], #4\n vldrw.32 q1, [r1], #16\n" PIXEL(PRODUCTS, "r0", "r5") PIXEL(PRODUCTS, "r2", "r7")                   \
        PIXEL(PRODUCTS, "r4", "r9") PIXEL(PRODUCTS, "r6", "r11")

/* q4 high, q5 low, q6 step, r8 out, r10 bias, r12 blocks and left, at whose lowest byte VSHL looks. VQDMULH doubles its product.
 * (VQSHRN would be the last shift and a clamp at once, but GNU's assembler 2.40 writes VQRSHRN in its place, which rounds.) */
#define ANSWERS(SIGN, LESS)                                                                                                        \
    " push {r0, r4-r11, lr}\n vpush {d8-d13}\n vldrw.32 q6, [r1]\n ldrd r2, r3, [r1, #16]\n vdup.8 q5, r2\n vdup.8 q4, r3\n"       \
    " ldr r8, [r0]\n ldrd r10, r5, [r0, #16]\n ldrd r1, r3, [r0, #24]\n ldr r4, [r0, #32]\n push {r2, r10}\n"                      \
    " add r7, r5, r4, lsl #2\n add r9, r7, r4, lsl #2\n add r11, r9, r4, lsl #2\n"                                                 \
    "2: ldrd r10, r12, [r1], #8\n lsr lr, r12, #10\n" BLOCKS("vmladav") " wls lr, lr, 3f\n"                                        \
    "1:" BLOCKS("vmladava") " le lr, 1b\n"                                                                                         \
    "3: vmov q0[2], q0[0], r0, r4\n vmov q0[3], q0[1], r2, r6\n vadd.i32 q0, q0, r10\n vshl.s32 q0, r12\n" SIGN                    \
    " ldrd r0, r2, [r1], #8\n vqdmulh.s32 q0, q0, r0\n vadd.i32 q0, q0, r2\n" LESS                                                 \
    " vshr.s32 q0, q0, #14\n vqmovnb.s32 q0, q0\n vqmovnb.s16 q0, q0\n vmax.s8 q0, q0, q5\n vmin.s8 q0, q0, q4\n"                  \
    " vstrb.32 q0, [r8, q6]\n ldr r0, [sp, #4]\n add r8, #1\n cmp r8, r0\n bne 2b\n"                                               \
    " add sp, #8\n vpop {d8-d13}\n pop {r0}\n str r8, [r0]\n strd r1, r3, [r0, #24]\n pop {r4-r11, pc}\n"

/* Of a tile; limits: 0, step, low, high. The second one with `negative`. */
void nst_tile_answers_mve(nst_tile *tile, const int32_t limits[6]);
void nst_tile_answers_below_mve(nst_tile *tile, const int32_t limits[6]);
FUNCTION("nst_tile_answers_mve", ANSWERS("", ""));
FUNCTION("nst_tile_answers_below_mve", ANSWERS(" vshr.s32 q1, q0, #31\n", " ldr r4, [r1], #4\n vmla.s32 q0, q1, r4\n"));

static void nst_tile_answers(nst_tile *t, const nst_block_sums *sums)
{
    const int32_t limits[6] = {0, t->step[0], t->step[1], t->step[2], sums->output.low, sums->output.high};
    if (sums->below)
        nst_tile_answers_below_mve(t, limits);
    else
        nst_tile_answers_mve(t, limits);
}

#else

/* ---- the same in C ----------------------------------------------------------------------------------------------------------- */

static void nst_tile_pixels(const int8_t *const x[4], int32_t depth, void *scratch)
{
    int8_t *to = scratch;
    for (int32_t i = 0; i < 4; i++)
        to = nst_fill(nst_copy(to, x[i], depth), 0, -depth & 3);
}

static void nst_tile_sums(nst_tile *t, int32_t sums[4])
{
    const int32_t *const begin = t->stream + 2, blocks = nst_blocks_of(t->stream);
    const uint8_t *place = (const uint8_t *)t->places;
    for (int32_t i = 0; i < 4; i++) {
        const int8_t *x = (const int8_t *)t->x + 4 * i * t->blocks, *w = (const int8_t *)begin;
        sums[i] = t->stream[0];
        for (int32_t k = 0; k < 4 * blocks; k++)
            sums[i] += x[4 * place[k / 4] + k % 4] * w[k];
    }
    t->stream = begin + blocks;
    t->places += blocks;
}

static void nst_tile_answers(nst_tile *t, const nst_block_sums *sums)
{
    nst_tile_answers_in_c(t, sums, 1);
}

#endif

void nst_conv_1x1_blocks_mve(const int8_t *in, const nst_conv_1x1_blocks_layer *layer, int8_t *out, void *scratch,
                             const nst_part *part)
{
    nst_conv_1x1_in_tiles(in, layer, out, scratch, part);
}
