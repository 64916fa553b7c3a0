/* A kit: what a set of instructions does for the kernels of nst_host.h. A kit's file is compiled for its instructions alone, and holds
 * nothing where the compiler is for another processor.
 *
 * "Numbers" are inputs as a kit's products take them: `element` bytes each, one (int8, or uint8 counted from -128) or two (int16).
 */
#ifndef NST_KIT_H
#define NST_KIT_H

#include "nst_fixed.h"
#include "nst_host.h"

#if defined(__clang__)
#define NST_UNROLLED _Pragma("clang loop unroll(full)")
#else
#define NST_UNROLLED _Pragma("GCC unroll 8")
#endif
/* for (int32_t i = 0; i < n; i++), unrolled, so that arrays of vectors are registers. n: 8 at most */
#define NST_EACH(i, n) NST_UNROLLED for (int32_t i = 0; i < (n); i++)

enum { NST_MOST_RUNS = 128, NST_BLOCK = 64 }; /* of a window; answers that a depthwise kit may compute at once */
enum { NST_SOME = 32, NST_MOST_ODD = 3 };     /* bytes that loops take at once */

/* A channel's blocks of four weights. places: of each, which four it is multiplied by. */
typedef struct {
    const int8_t *weights;
    const int16_t *places;
    int32_t count;
} nst_blocks;

struct nst_kit {
    const char *name;
    int32_t element;
    int32_t from; /* what numbers are more than the inputs: 0 or 128 */

    /* int8 inputs as numbers. Reads and writes no more than count. */
    void (*numbers)(const int8_t *in, int32_t count, void *out);

    /* Answers of `pixels` pixels, the first of whose runs begin at runs[0], runs[1], ..., those of the next one `step` bytes further:
     * out[pixel * channels + o]. A run is read up to a multiple of 4 numbers (what stands behind its depth has weights of 0). All
     * channels but those that go the long way, where anything may be written. */
    void (*products)(const uint8_t *const *runs, int32_t step, int32_t pixels, const nst_host_sums *sums, int8_t *out);

    /* A depthwise layer's weights and ends as `depthwise` wants them, in nst_ready_bytes() of memory aligned to 64. */
    void (*ready)(const nst_host_sums *sums, void *ready);

    /* One row of a depthwise layer: count answers, a multiple of the channels, the i-th being of channel i % channels and the sum over
     * taps t of taps[t] [i] * weights[t][channel]. Behind the last number of a tap stand NST_BLOCK more that may be read.
     * ready: as ready() left it. Channels of the long way as in products. */
    void (*depthwise)(const uint8_t *const *taps, const nst_host_sums *sums, const void *ready, int32_t count, int8_t *out);

    /* count answers of as many bytes of a and of b; out may be a, or b. See NST_LOOPS in nst_loops.h for these four. */
    void (*add)(const int8_t *a, const int8_t *b, int32_t count, const nst_add_host_layer *layer, int8_t *out);
    void (*mul)(const int8_t *a, const int8_t *b, int32_t count, const nst_mul_host_layer *layer, int8_t *out);

    /* NST_SOME columns: what stands at the places x, x + step ... is added to sums[NST_SOME], or the largest of it and of
     * largest[NST_SOME] kept. */
    void (*sums)(const int8_t *x, int32_t step, int32_t places, int32_t *sums);
    void (*largest)(const int8_t *x, int32_t step, int32_t places, int8_t *largest);

    /* out[i] = table[in[i] + 128]; out may be in. */
    void (*lookup)(const int8_t *in, int32_t count, const int8_t *table, int8_t *out);

    /* Channel o's answers of so many pixels, NST_BLOCK at most. x: numbers, [fours][NST_BLOCK][4], aligned to 64. Answers up to NST_BLOCK
     * may be written. */
    void (*blocks)(const uint8_t *x, int32_t pixels, const nst_blocks *blocks, const nst_host_sums *sums, int32_t o, int8_t *out);
};

/* GCC knows AVX-VNNI from version 11 on, clang from 12 on. */
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define NST_AVXVNNI 1
#else
#define NST_AVXVNNI 0
#endif

extern const nst_kit nst_kit_portable;
#if defined(__x86_64__)
extern const nst_kit nst_kit_avx2, nst_kit_avxvnni, nst_kit_avx512vnni;
#elif defined(__aarch64__)
extern const nst_kit nst_kit_neon, nst_kit_dotprod;
#endif

/* The period after which both channels and blocks begin anew: the least common multiple of the channels and NST_BLOCK. */
NST_INLINE int32_t nst_period(int32_t channels)
{
    int32_t shared = NST_BLOCK;
    while (channels % shared)
        shared /= 2;
    return channels / shared * NST_BLOCK;
}

/* Bytes that a kit's ready() may write: of each answer of a period of taps in fours their weights as int16, a bias and the ends. */
NST_INLINE int32_t nst_ready_bytes(const nst_host_sums *sums)
{
    return nst_period(sums->channels) * (2 * ((sums->runs + 3) & ~3) + 4 * (3 + sums->odd_ones));
}

/* An input, of numbers. */
NST_INLINE int32_t nst_input_of(const nst_kit *kit, const void *numbers, int32_t i)
{
    if (kit->element == 2)
        return ((const int16_t *)numbers)[i];
    return kit->from ? ((const uint8_t *)numbers)[i] - kit->from : ((const int8_t *)numbers)[i];
}

#endif
