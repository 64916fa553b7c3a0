#include "nst_products_dsp.h"

#include "nst_bytes.h"
#include "nst_part.h"

enum { UNROLLED = 16, STEP_BYTES = 44 }; /* steps of a round of the loop below, and bytes of code that each of them takes */

/* Numbers of 32 bits that a group's stream takes, widened. */
NST_INLINE int32_t wide_size(const nst_sums_dsp *sums)
{
    return 8 + 4 * sums->steps + 4 * sums->after;
}

/* The same of its weights as they lie in flash, where they have fewer than 16 bits. */
NST_INLINE int32_t narrow_weights(const nst_sums_dsp *sums)
{
    return (sums->steps * sums->bits + 3) / 4;
}

/* Weights of a step: two numbers of four bytes into four of two halves. */
NST_INLINE void widen_step(int32_t *to, const int32_t *from)
{
    for (int32_t i = 0; i < 2; i++) {
        *to++ = nst_halves(nst_byte(from[i], 0), nst_byte(from[i], 2));
        *to++ = nst_halves(nst_byte(from[i], 1), nst_byte(from[i], 3));
    }
}

#if NST_DSP

/* ---- Arm: instructions ------------------------------------------------------------------------------------------------------ */

/* Functions without a frame find their arguments in r0 .. r3 and on the stack. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define NAKED __attribute__((naked, noinline, aligned(4))) static

/* An instruction a line: */
/* clang-format off */

/* r0: stream, r1: columns. Four numbers of weights and two of patches make 16 products in r4 .. r7 (one patch) and r8 .. r11. */
#define STEP                        \
    "ldrd r2, r3, [r1], #8\n\t"     \
    "ldrd r12, lr, [r0], #8\n\t"    \
    "smlad r4, r2, r12, r4\n\t"     \
    "smlad r8, r3, r12, r8\n\t"     \
    "smlad r5, r2, lr, r5\n\t"      \
    "smlad r9, r3, lr, r9\n\t"      \
    "ldrd r12, lr, [r0], #8\n\t"    \
    "smlad r6, r2, r12, r6\n\t"     \
    "smlad r10, r3, r12, r10\n\t"   \
    "smlad r7, r2, lr, r7\n\t"      \
    "smlad r11, r3, lr, r11\n\t"
#define STEPS_4 STEP STEP STEP STEP

/* Two answers of a channel, their sums in A and B. r1, r2: where they go. */
#define SHORT(A, B)                        \
    "ldmia r0!, {r3, r12, lr}\n\t"         \
    "lsl " A ", " A ", r3\n\t"             \
    "lsl " B ", " B ", r3\n\t"             \
    "smmla " A ", " A ", r12, lr\n\t"      \
    "smmla " B ", " B ", r12, lr\n\t"      \
    "ssat " A ", #8, " A ", asr #14\n\t"   \
    "ssat " B ", #8, " B ", asr #14\n\t"   \
    "strb " A ", [r1], #1\n\t"             \
    "strb " B ", [r2], #1\n\t"
#define SHORT_OF_BOTH_SIGNS(A, B)          \
    "ldmia r0!, {r3, r12, lr}\n\t"         \
    "lsl " A ", " A ", r3\n\t"             \
    "lsl " B ", " B ", r3\n\t"             \
    "and r3, r12, " A ", asr #31\n\t"      \
    "and r12, r12, " B ", asr #31\n\t"     \
    "sub r3, lr, r3\n\t"                   \
    "sub r12, lr, r12\n\t"                 \
    "ldr lr, [r0], #4\n\t"                 \
    "smmla " A ", " A ", lr, r3\n\t"       \
    "smmla " B ", " B ", lr, r12\n\t"      \
    "ssat " A ", #8, " A ", asr #14\n\t"   \
    "ssat " B ", #8, " B ", asr #14\n\t"   \
    "strb " A ", [r1], #1\n\t"             \
    "strb " B ", [r2], #1\n\t"
#define SHORT_PLACED(A, B)                 \
    "ldmia r0!, {r3, r12, lr}\n\t"         \
    "lsl " A ", " A ", r3\n\t"             \
    "lsl " B ", " B ", r3\n\t"             \
    "smmla " A ", " A ", r12, lr\n\t"      \
    "smmla " B ", " B ", r12, lr\n\t"      \
    "ldr r3, [r0], #4\n\t"                 \
    "ssat " A ", #8, " A ", asr #14\n\t"   \
    "ssat " B ", #8, " B ", asr #14\n\t"   \
    "strb " A ", [r1, r3]\n\t"             \
    "strb " B ", [r2, r3]\n\t"

/* Answers of whole groups. Every register is taken, so that the rest lies on the stack: where the stream ends, where columns end,
 * where the loop is entered, columns, out0, out1. A round of the loop is UNROLLED steps; the first one is entered where as many are
 * left as make the whole number, `skipped` bytes of code from its beginning. No compiler finds this allocation. */
#define ANSWERS(NAME, ENDING)                                                                           \
    NAKED void NAME(const nst_groups_dsp *some, const int32_t *columns, int8_t *out0, int8_t *out1)     \
    {                                                                                                   \
        __asm__ volatile("push {r1-r11, lr}\n\t"                                                        \
                         "sub sp, #12\n\t"                                                              \
                         "ldmia r0, {r0, r4, r5, r6}\n\t"                                               \
                         "add r5, r5, r1\n\t"                                                           \
                         "adr.w r7, 2f\n\t"                                                             \
                         "orr r7, r7, #1\n\t" /* Thumb */                                               \
                         "add r6, r6, r7\n\t"                                                           \
                         "stmia sp, {r4, r5, r6}\n\t"                                                   \
                         "1: ldmia r0!, {r4-r11}\n\t"                                                   \
                         "ldr pc, [sp, #8]\n\t"                                                         \
                         "2: " STEPS_4 STEPS_4 STEPS_4 STEPS_4                                          \
                         "ldr r2, [sp, #4]\n\t"                                                         \
                         "cmp r1, r2\n\t"                                                               \
                         "bne 2b\n\t"                                                                   \
                         "ldrd r1, r2, [sp, #16]\n\t"                                                   \
                         ENDING("r4", "r8") ENDING("r5", "r9") ENDING("r6", "r10") ENDING("r7", "r11")  \
                         "ldr r3, [sp, #0]\n\t"                                                         \
                         "strd r1, r2, [sp, #16]\n\t"                                                   \
                         "cmp r0, r3\n\t"                                                               \
                         "ldr r1, [sp, #12]\n\t"                                                        \
                         "bne 1b\n\t"                                                                   \
                         "add sp, #24\n\t"                                                              \
                         "pop {r4-r11, pc}\n\t");                                                       \
    }

/* clang-format on */

ANSWERS(answers, SHORT)
ANSWERS(answers_of_both_signs, SHORT_OF_BOTH_SIGNS)
ANSWERS(placed_answers, SHORT_PLACED)

/* The eight sums of one group: [patch][channel]. */
NAKED void sums_of(const int32_t *stream, const int32_t *columns, int32_t steps, int32_t sums[8])
{
    __asm__ volatile(
        "push {r2-r11, lr}\n\t"
        "add r2, r1, r2, lsl #3\n\t"
        "str r2, [sp, #0]\n\t"
        "ldmia r0!, {r4-r11}\n\t"
        "1: " STEP
        "ldr r2, [sp, #0]\n\t"
        "cmp r1, r2\n\t"
        "bne 1b\n\t"
        "ldr r0, [sp, #4]\n\t"
        "stmia r0!, {r4-r11}\n\t"
        "add sp, #8\n\t"
        "pop {r4-r11, pc}\n\t");
}

NST_INLINE void short_answers(const nst_groups_dsp *some, const int32_t *columns, int8_t *out0, int8_t *out1)
{
    if (some->sums->known)
        placed_answers(some, columns, out0, out1);
    else if (some->sums->after == 3)
        answers(some, columns, out0, out1);
    else
        answers_of_both_signs(some, columns, out0, out1);
}

/* Both halves of a, less those of b. */
NST_INLINE int32_t halves_less(int32_t a, int32_t b)
{
    __asm__("ssub16 %0, %0, %1" : "+r"(a) : "r"(b));
    return a;
}

/* Pairs of steps of four channels, at least one: numbers of four bytes into twice as many of two halves. */
NAKED void widen_pairs(int32_t *to, const int32_t *from, const int32_t *end)
{
    __asm__ volatile(
        "push {r4-r11}\n\t"
        "1: ldmia r1!, {r9-r12}\n\t"
        "sxtb16 r3, r9\n\t"
        "sxtb16 r4, r9, ror #8\n\t"
        "sxtb16 r5, r10\n\t"
        "sxtb16 r6, r10, ror #8\n\t"
        "sxtb16 r7, r11\n\t"
        "sxtb16 r8, r11, ror #8\n\t"
        "sxtb16 r9, r12\n\t"
        "sxtb16 r10, r12, ror #8\n\t"
        "cmp r1, r2\n\t"
        "stmia r0!, {r3-r10}\n\t"
        "bne 1b\n\t"
        "pop {r4-r11}\n\t"
        "bx lr\n\t");
}

/* Four bytes, or more, of two patches. */
NAKED void columns_of_fours(const int8_t *a, const int8_t *b, const int8_t *end, int32_t *columns)
{
    __asm__ volatile(
        "push {r4-r8, lr}\n\t"
        "1: ldr r7, [r0], #4\n\t"
        "ldr r8, [r1], #4\n\t"
        "sxtb16 r4, r7\n\t"
        "sxtb16 r5, r8\n\t"
        "sxtb16 r6, r7, ror #8\n\t"
        "sxtb16 r7, r8, ror #8\n\t"
        "cmp r0, r2\n\t"
        "stmia r3!, {r4-r7}\n\t"
        "bne 1b\n\t"
        "pop {r4-r8, pc}\n\t");
}

#pragma GCC diagnostic pop

#else

/* ---- the same in plain C ---------------------------------------------------------------------------------------------------- */

NST_INLINE int32_t product_2(int32_t a, int32_t b)
{
    return (int16_t)(uint16_t)a * (int16_t)(uint16_t)b + (a >> 16) * (b >> 16);
}

static void sums_of(const int32_t *stream, const int32_t *columns, int32_t steps, int32_t sums[8])
{
    for (int32_t i = 0; i < 8; i++) {
        const int32_t *weights = stream + 8 + i % 4, *x = columns + i / 4;
        sums[i] = stream[i];
        for (int32_t step = 0; step < steps; step++)
            sums[i] += product_2(weights[4 * step], x[2 * step]);
    }
}

static void short_answers(const nst_groups_dsp *some, const int32_t *columns, int8_t *out0, int8_t *out1)
{
    const nst_sums_dsp *sums = some->sums;
    for (const int32_t *stream = some->stream; stream < some->end; stream += wide_size(sums)) {
        int32_t s[8];
        sums_of(stream, columns, sums->steps, s);
        for (int32_t i = 0; i < 4; i++) {
            const int32_t *numbers = stream + 8 + 4 * sums->steps + i * sums->after;
            const int32_t place = sums->known ? numbers[3] : i;
            out0[place] = nst_clamped(nst_short_way(s[i], numbers, sums), -128, 127);
            out1[place] = nst_clamped(nst_short_way(s[4 + i], numbers, sums), -128, 127);
        }
        out0 += sums->known ? 0 : 4;
        out1 += sums->known ? 0 : 4;
    }
}

NST_INLINE int32_t halves_less(int32_t a, int32_t b)
{
    return nst_halves(a - b, (a >> 16) - (b >> 16));
}

static void widen_pairs(int32_t *to, const int32_t *from, const int32_t *end)
{
    for (; from < end; from += 2, to += 4)
        widen_step(to, from);
}

static void columns_of_fours(const int8_t *a, const int8_t *b, const int8_t *end, int32_t *columns)
{
    for (; a < end; a += 4, b += 4) {
        *columns++ = nst_halves(a[0], a[2]);
        *columns++ = nst_halves(b[0], b[2]);
        *columns++ = nst_halves(a[1], a[3]);
        *columns++ = nst_halves(b[1], b[3]);
    }
}

#endif

/* ---- on both ---------------------------------------------------------------------------------------------------------------- */

NST_INLINE int32_t *copied(int32_t *to, const int32_t *from, int32_t count)
{
    for (; count > 0; count--)
        *to++ = *from++;
    return to;
}

/* Four weights of so many bits in each half of a number, from bit `first` on. */
NST_INLINE void unpack_step(int32_t *to, int32_t number, int32_t first, int32_t bits)
{
    const int32_t mask = ((1 << bits) - 1) * 0x10001, half = (1 << (bits - 1)) * 0x10001;
    for (int32_t i = 0; i < 4; i++)
        to[i] = halves_less((int32_t)((uint32_t)number >> (first + bits * i)) & mask, half);
}

/* Numbers of packed weights into as many of two halves as they hold: with 2 bits that may be a step more than there is. */
static void unpack(int32_t *to, const int32_t *from, const int32_t *end, int32_t bits)
{
    if (bits == 4)
        for (; from < end; from++, to += 4)
            unpack_step(to, *from, 0, 4);
    else
        for (; from < end; from++, to += 8) {
            unpack_step(to, *from, 0, 2);
            unpack_step(to + 4, *from, 8, 2);
        }
}

static void widen(int32_t *to, const int32_t *from, int32_t steps)
{
    const int32_t pairs = steps & -2;
    if (pairs)
        widen_pairs(to, from, from + 2 * pairs);
    if (pairs < steps)
        widen_step(to + 4 * pairs, from + 2 * pairs);
}

/* Behind a group's weights there are always as many numbers as `unpack` may write too much, and they are written later. */
static const int32_t *widened(const nst_sums_dsp *sums, nst_range groups, int32_t *room)
{
    const int32_t weights = narrow_weights(sums), after = 4 * sums->after;
    const int32_t *from = sums->stream + groups.first * (4 + weights + after);
    int32_t *to = room;
    if (sums->bits == 16)
        return sums->stream + groups.first * wide_size(sums);
    for (int32_t group = groups.first; group < groups.end; group++, from += after) {
        to = copied(copied(to, from, 4), from, 4);
        from += 4;
        if (sums->bits == 8)
            widen(to, from, sums->steps);
        else
            unpack(to, from, from + weights, sums->bits);
        from += weights;
        to = copied(to + 4 * sums->steps, from, after);
    }
    return room;
}

nst_range nst_groups_of(const nst_sums_dsp *sums, nst_range channels)
{
    const nst_range all = {0, sums->groups}, own = {channels.first / 4, (channels.end + 3) / 4};
    return sums->known ? all : own;
}

int32_t nst_at_once_dsp(const nst_sums_dsp *sums, nst_range groups, int32_t bytes)
{
    const int32_t room = bytes / (4 * wide_size(sums)), all = groups.end - groups.first;
    return sums->bits == 16 ? all : nst_smaller(room, all);
}

nst_groups_dsp nst_ready_groups(const nst_sums_dsp *sums, nst_range channels, nst_range groups, int32_t *room)
{
    const nst_output *y = &sums->output;
    const int32_t *stream = widened(sums, groups, room);
    const nst_range own = {4 * groups.first, nst_smaller(4 * groups.end, channels.end)};
    const nst_groups_dsp some = {
        stream,
        stream + (groups.end - groups.first) * wide_size(sums),
        8 * sums->steps,
        (-sums->steps & (UNROLLED - 1)) * STEP_BYTES,
        sums->long_way ? sums->long_way + groups.first : 0,
        sums->known ? channels : own,
        !sums->known && !sums->long_way && (own.end - own.first) % 4 == 0 && y->low == -128 && y->high == 127,
        groups.first == 0,
        sums,
    };
    return some;
}

/* Fewer than four bytes. */
static void last_columns(const int8_t *a, const int8_t *b, int32_t count, int32_t *columns)
{
    int8_t last[2][4] = {{0}};
    for (int32_t i = 0; i < count; i++) {
        last[0][i] = a[i];
        last[1][i] = b[i];
    }
    columns_of_fours(last[0], last[1], last[0] + 4, columns);
}

void nst_columns_2(const int8_t *a, const int8_t *b, int32_t count, int32_t *columns)
{
    const int32_t fours = count & -4;
    if (fours)
        columns_of_fours(a, b, a + fours, columns);
    if (fours < count)
        last_columns(a + fours, b + fours, count - fours, columns + fours);
}

/* The byte of any sum. numbers: behind the channel's weights. */
static int8_t answer(int32_t sum, const int32_t *numbers, int32_t long_way, const nst_sums_dsp *sums)
{
    const nst_output *y = &sums->output;
    const int32_t value =
        long_way ? nst_scaled(sum, numbers[0], numbers[1], y->zero) : nst_clamped(nst_short_way(sum, numbers, sums), -128, 127);
    return nst_clamped(value, y->low, y->high);
}

/* The first group's answers, one by one: those within channels, the first of which a group without places begins with. */
static void group_answers(const nst_groups_dsp *some, nst_range channels, const int32_t *columns, int8_t *out0, int8_t *out1)
{
    const nst_sums_dsp *sums = some->sums;
    const int32_t *numbers = some->stream + 8 + 4 * sums->steps;
    const int32_t long_way = some->long_way && *some->long_way;
    int32_t s[8];
    sums_of(some->stream, columns, sums->steps, s);
    for (int32_t i = 0; i < 4; i++, numbers += sums->after) {
        const int32_t o = sums->known ? numbers[3] : channels.first + i;
        if (channels.first <= o && o < channels.end) {
            out0[o] = answer(s[i], numbers, long_way, sums);
            out1[o] = answer(s[4 + i], numbers, long_way, sums);
        }
    }
}

static void clamp(int8_t *out, nst_range channels, const nst_output *y)
{
    for (int32_t o = channels.first; o < channels.end; o++)
        out[o] = nst_clamped(out[o], y->low, y->high);
}

/* Groups from the first on that take the short way after one another, and all of whose answers are wanted. */
static int32_t short_run(const nst_groups_dsp *some)
{
    const nst_sums_dsp *sums = some->sums;
    const int32_t wanted = some->channels.end - some->channels.first;
    const int32_t left = (int32_t)(some->end - some->stream) / wide_size(sums);
    const int32_t most = !sums->known ? wanted / 4 : wanted == sums->channels ? left : 0;
    int32_t run = 0;
    while (run < most && !(some->long_way && some->long_way[run]))
        run++;
    return run;
}

/* Run by run of groups that go the same way. */
static void mixed_answers(nst_groups_dsp some, const int32_t *columns, int8_t *out0, int8_t *out1)
{
    const int32_t placed = some.sums->known != 0;
    const int32_t *const end = some.end;
    while (some.stream < end) {
        const int32_t run = short_run(&some), groups = run ? run : 1, first = placed ? 0 : some.channels.first;
        some.end = some.stream + groups * wide_size(some.sums);
        if (run)
            short_answers(&some, columns, out0 + first, out1 + first);
        else
            group_answers(&some, some.channels, columns, out0, out1);
        some.stream = some.end;
        some.end = end;
        some.long_way = some.long_way ? some.long_way + groups : 0;
        some.channels.first += placed ? 0 : 4 * groups;
    }
}

/* The constants that are wanted, then all else over them. */
static void all_answers(const nst_groups_dsp *some, const int32_t *columns, int8_t *out0, int8_t *out1)
{
    const nst_sums_dsp *sums = some->sums;
    const nst_range channels = some->channels;
    if (sums->known && some->first) {
        nst_copy(out0 + channels.first, sums->known + channels.first, channels.end - channels.first);
        nst_copy(out1 + channels.first, sums->known + channels.first, channels.end - channels.first);
    }
    mixed_answers(*some, columns, out0, out1);
    if (sums->output.low > -128 || sums->output.high < 127) {
        clamp(out0, channels, &sums->output);
        clamp(out1, channels, &sums->output);
    }
}

void nst_answers_2(const nst_groups_dsp *some, const int32_t *columns, int8_t *out0, int8_t *out1)
{
    if (some->simple)
        short_answers(some, columns, out0 + some->channels.first, out1 + some->channels.first);
    else
        all_answers(some, columns, out0, out1);
}
