#include "nst_blocks.h"
#include "nst_dsp.h"

/* Pixels lie in scratch as 16-bit numbers, two in a word, four pixels side by side: [(depth + 3) / 4 blocks][4 pixels][2]; the first
 * word has a block's bytes 0 and 2, the second one its bytes 1 and 3. So SXTB16 leaves them, and a block's weights likewise. */

static void nst_tile_sums(nst_tile *t, int32_t sums[4])
{
    const int32_t *block = t->stream, *const end = block + 2 + nst_blocks_of(block);
    const int16_t *x = t->x;
    const uint8_t *place = (const uint8_t *)t->places;
    sums[0] = sums[1] = sums[2] = sums[3] = block[0];
    for (block += 2; block != end; block++) {
        const int8_t *w = (const int8_t *)block;
        x += 16 * *place++;
        for (int32_t i = 0; i < 4; i++)
            sums[i] += x[4 * i] * w[0] + x[4 * i + 1] * w[2] + x[4 * i + 2] * w[1] + x[4 * i + 3] * w[3];
    }
    t->stream = end;
    t->places = (const int8_t *)place;
}

NST_INLINE int16_t *widened(const int8_t x[4], int16_t *to)
{
    to[0] = x[0], to[1] = x[2], to[2] = x[1], to[3] = x[3];
    return to + 4;
}

#if defined(__ARM_FEATURE_DSP) && !defined(NST_PORTABLE)

/* ---- loops that take all fourteen registers, which a compiler does not find --------------------------------------------------- */

#define FUNCTION(NAME, BODY)                                                                                                       \
    __asm__(".pushsection .text." NAME ", \"ax\", %progbits\n .syntax unified\n .thumb\n .align 2\n .global " NAME                 \
            "\n"                                                                                                                   \
            ".type " NAME ", %function\n .thumb_func\n" NAME ":\n" BODY ".size " NAME ", .-" NAME "\n .popsection\n")

#define WIDEN(POINTER, EVEN, ODD) " ldr " ODD ", [" POINTER "], #4\n sxtb16 " EVEN ", " ODD "\n sxtb16 " ODD ", " ODD ", ror #8\n"

/* Four bytes of each pixel at a time, until the first pixel's end. */
void nst_widen_4_dsp(const int8_t *const x[4], int16_t *to, const int8_t *end);
FUNCTION("nst_widen_4_dsp", " push {r4-r11, lr}\n mov r12, r1\n mov lr, r2\n ldm r0, {r0-r3}\n"
                            "1:" WIDEN("r0", "r4", "r5") WIDEN("r1", "r6", "r7") WIDEN("r2", "r8", "r9") WIDEN("r3", "r10", "r11")
                            " stm r12!, {r4-r11}\n cmp r0, lr\n bne 1b\n"
                            " pop {r4-r11, pc}\n");

/* r4-r7 sums, r12 stream, r10 places, r11 where the block's pixels lie, and 16 bytes on, lr blocks and left; r0-r3 pixels, r8 r9 weights.
 * A, B: what products are added to. */
#define WEIGHTS " ldrb r8, [r10], #1\n ldr r9, [r12], #4\n add r11, r11, r8, lsl #5\n sxtb16 r8, r9\n sxtb16 r9, r9, ror #8\n"
#define FIRST_TWO(A, B)                                                                                                            \
    " ldmdb r11, {r0-r3}\n smlad r4, r0, r8, " A "\n smlad r5, r2, r8, " B "\n smlad r4, r1, r9, r4\n smlad r5, r3, r9, r5\n"
#define OTHER_TWO(A, B)                                                                                                            \
    " ldm r11, {r0-r3}\n smlad r6, r0, r8, " A "\n smlad r7, r2, r8, " B "\n smlad r6, r1, r9, r6\n smlad r7, r3, r9, r7\n"
#define TWO(WHAT) WHAT("r4") WHAT("r5")
#define FOUR(WHAT) TWO(WHAT) WHAT("r6") WHAT("r7")
#define LEFT(SUM) " lsl " SUM ", " SUM ", lr\n"
#define SCALE(SUM) " smmla " SUM ", " SUM ", r0, r1\n"                                       /* r0 multiplier, r1 addend */
#define LESS(SUM) " and r3, r2, " SUM ", asr #31\n" SCALE(SUM) " sub " SUM ", " SUM ", r3\n" /* r2 negative */
#define BYTE(SUM) " ssat " SUM ", #8, " SUM ", asr #14\n"
#define NEGATIVE " ldr r2, [r12], #4\n"

/* On the stack lie the tile's out, step, end and x, and behind them where the tile is. A block less is 256 less in lr; when no block is
 * left it is below 0, and its lowest byte, at which LSL looks, is what it was. */
#define ANSWERS(FIRST, NEXT, EACH, SCALED, STORED)                                                                                 \
    " push {r0, r4-r11, lr}\n sub sp, #24\n ldm r0, {r1-r8}\n mov r12, r7\n mov r10, r8\n add r6, #16\n stm sp, {r1-r6}\n"         \
    "2: ldrd r7, lr, [r12], #8\n ldr r11, [sp, #20]\n" WEIGHTS FIRST " subs lr, #256\n blo 3f\n"                                   \
    "1:" WEIGHTS NEXT " subs lr, #256\n bhs 1b\n"                                                                                  \
    "3: ldrd r0, r1, [r12], #8\n" EACH(LEFT) SCALED EACH(BYTE) " ldm sp, {r2, r3, r8, r9, r11}\n"                                   \
    " strb r5, [r2, r3]\n" STORED " strb r4, [r2], #1\n str r2, [sp]\n cmp r2, r11\n bne 2b\n"                                      \
    " ldr r0, [sp, #24]\n str r2, [r0]\n str r12, [r0, #24]\n str r10, [r0, #28]\n add sp, #28\n pop {r4-r11, pc}\n"
#define ANSWERS_4(SCALED)                                                                                                          \
    ANSWERS(FIRST_TWO("r7", "r7") OTHER_TWO("r7", "r7"), FIRST_TWO("r4", "r5") OTHER_TWO("r6", "r7"), FOUR, SCALED,                \
            " strb r6, [r2, r8]\n strb r7, [r2, r9]\n")
#define ANSWERS_2(SCALED) ANSWERS(FIRST_TWO("r7", "r7"), FIRST_TWO("r4", "r5"), TWO, SCALED, "")

/* nst_tile_answers() in int8's limits, of four pixels or two, without `negative` and with it. */
void nst_tile_answers_dsp_4(nst_tile *tile);
void nst_tile_answers_dsp_2(nst_tile *tile);
void nst_tile_answers_dsp_4_below(nst_tile *tile);
void nst_tile_answers_dsp_2_below(nst_tile *tile);
FUNCTION("nst_tile_answers_dsp_4", ANSWERS_4(FOUR(SCALE)));
FUNCTION("nst_tile_answers_dsp_2", ANSWERS_2(TWO(SCALE)));
FUNCTION("nst_tile_answers_dsp_4_below", ANSWERS_4(NEGATIVE FOUR(LESS)));
FUNCTION("nst_tile_answers_dsp_2_below", ANSWERS_2(NEGATIVE TWO(LESS)));

/* Four bytes. x, limit: where they are; SEL takes those of the larger ones, SSUB8 having said which they are. */
NST_INLINE uint32_t at_least(uint32_t x, uint32_t limit)
{
    uint32_t larger;
    __asm__("ssub8 %0, %1, %2\n sel %0, %1, %2" : "=&r"(larger) : "r"(x), "r"(limit));
    return larger;
}

NST_INLINE uint32_t at_most(uint32_t x, uint32_t limit)
{
    uint32_t smaller;
    __asm__("ssub8 %0, %1, %2\n sel %0, %2, %1" : "=&r"(smaller) : "r"(x), "r"(limit));
    return smaller;
}

static void clamp(int8_t *bytes, int32_t count, const nst_output *y)
{
    const uint32_t ones = 0x01010101, low = ones * (uint8_t)y->low, high = ones * (uint8_t)y->high;
    for (; count >= 4; count -= 4, bytes += 4) {
        uint32_t four;
        __asm__("ldr %0, %1" : "=r"(four) : "m"(*(const int8_t (*)[4])bytes)); /* at any address */
        four = at_most(at_least(four, low), high);
        __asm__("str %1, %0" : "=m"(*(int8_t (*)[4])bytes) : "r"(four));
    }
    for (; count > 0; count--, bytes++)
        *bytes = nst_clamped(*bytes, y->low, y->high);
}

static void nst_tile_answers(nst_tile *tile, const nst_block_sums *sums)
{
    int8_t *const first = tile->out;
    const nst_output *y = &sums->output;
    const int32_t pixels = nst_at_most_two(tile) ? 2 : 4;
    if (pixels == 4 && sums->below)
        nst_tile_answers_dsp_4_below(tile);
    else if (pixels == 4)
        nst_tile_answers_dsp_4(tile);
    else if (sums->below)
        nst_tile_answers_dsp_2_below(tile);
    else
        nst_tile_answers_dsp_2(tile);
    for (int32_t i = 0; i < pixels && (y->low > -128 || y->high < 127); i++)
        clamp(first + (i > 0 ? tile->step[i - 1] : 0), (int32_t)(tile->out - first), y);
}

#else

/* ---- the same in C ------------------------------------------------------------------------------------------------------------- */

static void nst_widen_4_dsp(const int8_t *const x[4], int16_t *to, const int8_t *end)
{
    for (int32_t k = 0; x[0] + k != end; k += 4)
        to = widened(x[3] + k, widened(x[2] + k, widened(x[1] + k, widened(x[0] + k, to))));
}

static void nst_tile_answers(nst_tile *t, const nst_block_sums *sums)
{
    nst_tile_answers_in_c(t, sums, 0);
}

#endif

/* ---- both ------------------------------------------------------------------------------------------------------------------------ */

static void nst_tile_pixels(const int8_t *const x[4], int32_t depth, void *scratch)
{
    const int32_t whole = depth & -4;
    int16_t *to = (int16_t *)scratch + 4 * whole;
    if (whole > 0)
        nst_widen_4_dsp(x, scratch, x[0] + whole);
    for (int32_t i = 0; whole != depth && i < 4; i++) {
        int8_t last[4] = {0, 0, 0, 0};
        for (int32_t k = whole; k < depth; k++)
            last[k - whole] = x[i][k];
        to = widened(last, to);
    }
}

void nst_conv_1x1_blocks_dsp(const int8_t *in, const nst_conv_1x1_blocks_layer *layer, int8_t *out, void *scratch,
                             const nst_part *part)
{
    nst_conv_1x1_in_tiles(in, layer, out, scratch, part);
}
