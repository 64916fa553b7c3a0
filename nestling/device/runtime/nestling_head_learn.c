/* See nestling_head.h: the learner. The parts: numbers, logits, learning. No other nestling_head_*.c computes with floats. */
#include "nestling_head_parts.h"

enum { TILE = 32, ROWS = 16, FOUR = 4, LANES = TILE / FOUR }; /* inputs and classes at a time; samples; sums side by side */

/* On x86-64 a step is compiled twice, for the vectors that every processor has and for wider ones: without fused multiply-adds both
 * give the same bits. INLINE: what becomes a part of both. */
#if defined(__GNUC__) && defined(__x86_64__) && __STDC_HOSTED__
#define WIDE __attribute__((target("avx2")))
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

/* ---- numbers: within 1 unit in the last place, the same bits everywhere -------------------------------------------------- */

typedef union {
    float value;
    uint32_t bits;
} float_bits;

INLINE float from_bits(uint32_t bits)
{
    const float_bits both = {.bits = bits};
    return both.value;
}

INLINE uint32_t to_bits(float value)
{
    const float_bits both = {.value = value};
    return both.bits;
}

#define LN2_HIGH 0.693145751953125f /* 15 bits: a product with an exponent is exact */
#define LN2_LOW 1.428606765330187e-06f

/* e^x: x = n ln 2 + r, |r| <= ln 2 / 2, and Taylor's series of e^r, whose first term left out is 5e-9. Not a number gives 0. */
static float exponential(float x)
{
    if (!(x > -104.0f))
        return 0.0f;
    if (x > 88.73f)
        return from_bits(0x7f800000u);
    const int32_t n = (int32_t)(x * 1.44269504f + (x < 0 ? -0.5f : 0.5f));
    const float r = (x - (float)n * LN2_HIGH) - (float)n * LN2_LOW;
    const float tail = 1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040)));
    const float power = 1.0f + (r + r * r * (0.5f + r * (1.0f / 6 + r * tail)));
    const int32_t half = n / 2; /* 2^n in two factors, for it may be less or more than a float can be */
    return power * from_bits((uint32_t)(half + 127) << 23) * from_bits((uint32_t)(n - half + 127) << 23);
}

/* ln x, x > 0 and finite: x = 2^n m, m within sqrt(1/2) .. sqrt(2); ln m = 2 atanh(s), s = (m - 1) / (m + 1), as a series. */
static float logarithm(float x)
{
    const int small = x < 1.17549435e-38f; /* subnormal */
    const uint32_t bits = to_bits(small ? x * 16777216.0f : x);
    const int32_t n = (int32_t)(bits - 0x3f3504f3u) >> 23;
    const float m = from_bits(bits - ((uint32_t)n << 23)) - 1.0f;
    const float exponent = (float)(n - (small ? 24 : 0));
    const float s = m / (2.0f + m), z = s * s;
    const float series = z * (2.0f / 3 + z * (2.0f / 5 + z * (2.0f / 7 + z * (2.0f / 9))));
    const float squared = 0.5f * m * m; /* 2 s = m - s m, and s m = m^2 / 2 - s m^2 / 2: the large term m stays exact */
    return exponent * LN2_HIGH + (m - (squared - (s * (squared + series) + exponent * LN2_LOW)));
}

/* Square root, x >= 0 and finite: three of Newton's steps for 1 / sqrt(x) from a guess in the bits, one for the root itself. */
INLINE float root(float x)
{
    const int small = x < 7.9e-31f; /* the guess wants normal numbers */
    const float scaled = small ? x * 18446744073709551616.0f : x;
    float y = from_bits(0x5f3759dfu - (to_bits(scaled) >> 1));
    y *= 1.5f - 0.5f * scaled * y * y;
    y *= 1.5f - 0.5f * scaled * y * y;
    y *= 1.5f - 0.5f * scaled * y * y;
    const float guess = scaled * y;
    const float better = guess + 0.5f * y * (scaled - guess * guess);
    return small ? better * 2.3283064365386963e-10f : better;
}

/* base^exponent by squaring. */
static double power(double base, uint64_t exponent)
{
    double made = 1;
    for (; exponent; exponent >>= 1, base *= base) {
        if (exponent & 1)
            made *= base;
    }
    return made;
}

/* A float32 as bfloat16, its upper half, rounded to the nearest, halves to even. */
INLINE uint16_t to_bfloat16(float value)
{
    const uint32_t bits = to_bits(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

/* ---- logits ----------------------------------------------------------------------------------------------------------------- */

/* x: [TILE], inputs k .. k + TILE - 1 of an embedding, 0 behind its end. */
INLINE void inputs_at(const nestling_head *head, const int8_t *embedding, uint32_t k, float *restrict x)
{
    const float scale = head->header->input_scale;
    const float *restrict offset = head->offset + k;
    const int8_t *restrict q = embedding + k;
    const uint32_t width = least(TILE, head->header->inputs - k);
    if (width == TILE) {
        for (uint32_t i = 0; i < TILE; i++)
            x[i] = scale * (float)q[i] - offset[i];
    } else {
        for (uint32_t i = 0; i < width; i++)
            x[i] = scale * (float)q[i] - offset[i];
        for (uint32_t i = width; i < TILE; i++)
            x[i] = 0;
    }
}

/* TILE weights from input k on; behind the end of the row they are 0, in `space`. */
INLINE const float *weights_at(const nestling_head *head, uint32_t row, uint32_t k, float *space)
{
    const uint32_t inputs = head->header->inputs;
    const float *w = head->weights + (uint64_t)row * inputs + k;
    if (inputs - k >= TILE)
        return w;
    for (uint32_t i = 0; i < TILE; i++)
        space[i] = i < inputs - k ? w[i] : 0;
    return space;
}

/* sum: [LANES], each a sum of every LANES-th product. */
INLINE void add_products(float *restrict sum, const float *restrict w, const float *restrict x)
{
    const float *restrict w1 = w + LANES, *restrict w2 = w + 2 * LANES, *restrict w3 = w + 3 * LANES;
    const float *restrict x1 = x + LANES, *restrict x2 = x + 2 * LANES, *restrict x3 = x + 3 * LANES;
    for (uint32_t i = 0; i < LANES; i++)
        sum[i] += (w[i] * x[i] + w1[i] * x1[i]) + (w2[i] * x2[i] + w3[i] * x3[i]);
}

/* scores: [classes][count], the logits of a batch; FOUR samples are taken through the weights together. */
INLINE void batch_logits(const nestling_head *head, const nestling_sample *samples, uint32_t count, float *scores)
{
    const uint32_t classes = head->header->classes, inputs = head->header->inputs;
    float x[FOUR][TILE], space[TILE];
    for (uint32_t b = 0; b < count; b += FOUR) {
        const uint32_t used = least(FOUR, count - b);
        for (uint32_t first = 0; first < classes; first += ROWS) {
            const uint32_t rows = least(ROWS, classes - first);
            float sum[ROWS][FOUR][LANES] = {{{0}}};
            for (uint32_t k = 0; k < inputs; k += TILE) {
                for (uint32_t i = 0; i < used; i++)
                    inputs_at(head, samples[b + i].embedding, k, x[i]);
                for (uint32_t r = 0; r < rows; r++) {
                    const float *w = weights_at(head, first + r, k, space);
                    for (uint32_t i = 0; i < used; i++)
                        add_products(sum[r][i], w, x[i]);
                }
            }
            for (uint32_t r = 0; r < rows; r++) {
                for (uint32_t i = 0; i < used; i++) {
                    const float *s = sum[r][i];
                    const float all = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
                    scores[(uint64_t)(first + r) * count + b + i] = head->bias[first + r] + all;
                }
            }
        }
    }
}

void nestling_head_logits(const nestling_head *head, const int8_t *embedding, float *logits)
{
    const nestling_sample one = {embedding, 0};
    batch_logits(head, &one, 1, logits);
}

/* ---- learning --------------------------------------------------------------------------------------------------------------- */

/* scores: [classes][count], logits -> d loss / d logits. Returns the mean cross-entropy. */
static float softmax_gradient(float *scores, const nestling_sample *samples, uint32_t count, uint32_t classes)
{
    const float share = 1.0f / (float)count;
    float loss = 0;
    for (uint32_t b = 0; b < count; b++) {
        float *score = scores + b, highest = *score, total = 0;
        for (uint32_t c = 1; c < classes; c++)
            highest = score[c * count] > highest ? score[c * count] : highest;
        const float right = score[samples[b].label * count] - highest;
        for (uint32_t c = 0; c < classes; c++)
            total += score[c * count] = exponential(score[c * count] - highest);
        loss += logarithm(total) - right;
        for (uint32_t c = 0; c < classes; c++) {
            score[c * count] = (score[c * count] / total - (float)(c == samples[b].label)) * share;
        }
    }
    return loss * share;
}

/* sum[i] += (d[0] x[0][i] + d[1] x[1][i]) + (d[2] x[2][i] + d[3] x[3][i]) for the inputs of a tile. */
INLINE void add_four(float *restrict sum, const float *restrict d, const float *restrict x)
{
    const float d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3];
    const float *restrict x1 = x + TILE, *restrict x2 = x + 2 * TILE, *restrict x3 = x + 3 * TILE;
    for (uint32_t i = 0; i < TILE; i++)
        sum[i] += (d0 * x[i] + d1 * x1[i]) + (d2 * x2[i] + d3 * x3[i]);
}

/* What a step does with a gradient. rate: with Adam already divided by 1 - beta1^t; root2: sqrt(1 - beta2^t). */
typedef struct {
    float rate, momentum, beta2, epsilon, decay, root2;
} update;

/* One parameter tile, gradient sum[i] + decay w[i]. As PyTorch's SGD: v = momentum v + g; w -= rate v. */
INLINE void sgd(const update *how, const float *restrict sum, float *restrict w, float *restrict velocity, uint32_t count)
{
    const float rate = how->rate, momentum = how->momentum, decay = how->decay;
    for (uint32_t i = 0; i < count; i++) {
        const float v = momentum * velocity[i] + (sum[i] + decay * w[i]);
        velocity[i] = v;
        w[i] -= rate * v;
    }
}

/* The same with the velocity in bfloat16; the step itself takes it before it is rounded. */
INLINE void sgd_bfloat16(const update *how, const float *restrict sum, float *restrict w, uint16_t *restrict velocity,
                         uint32_t count)
{
    const float rate = how->rate, momentum = how->momentum, decay = how->decay;
    for (uint32_t i = 0; i < count; i++) {
        const float v = momentum * from_bits((uint32_t)velocity[i] << 16) + (sum[i] + decay * w[i]);
        velocity[i] = to_bfloat16(v);
        w[i] -= rate * v;
    }
}

/* As PyTorch's Adam (Kingma and Ba 2015, the decay in the gradient). */
INLINE void adam(const update *how, const float *restrict sum, float *restrict w, float *restrict m, float *restrict v,
                 uint32_t count)
{
    const float rate = how->rate, beta1 = how->momentum, beta2 = how->beta2, epsilon = how->epsilon, decay = how->decay;
    const float rest1 = 1.0f - beta1, rest2 = 1.0f - beta2, root2 = how->root2;
    for (uint32_t i = 0; i < count; i++) {
        const float g = sum[i] + decay * w[i];
        m[i] = beta1 * m[i] + rest1 * g;
        v[i] = beta2 * v[i] + rest2 * (g * g);
        w[i] -= rate * (m[i] / (root(v[i]) / root2 + epsilon));
    }
}

static update update_of(const nestling_head_header *header)
{
    update how = {header->rate, header->momentum, header->beta2, header->epsilon, header->decay, 1.0f};
    if (header->optimizer == NESTLING_ADAM) {
        const uint64_t t = header->steps - header->began + 1;
        how.rate = (float)((double)how.rate / (1.0 - power((double)how.momentum, t)));
        how.root2 = root((float)(1.0 - power((double)how.beta2, t)));
    }
    return how;
}

/* The weights from input k on, of rows first .. first + rows - 1; gradient: [classes][count], sums in the order of the batch. */
INLINE void learn_tile(const nestling_head *head, const update *how, const nestling_sample *samples, uint32_t count,
                       const float *gradient, uint32_t first, uint32_t k)
{
    const uint32_t inputs = head->header->inputs, width = least(TILE, inputs - k);
    const uint32_t rows = least(ROWS, head->header->classes - first);
    float sum[ROWS][TILE] = {{0}}, x[FOUR][TILE] = {{0}};
    for (uint32_t b = 0; b < count; b += FOUR) {
        const uint32_t used = least(FOUR, count - b);
        for (uint32_t i = 0; i < used; i++)
            inputs_at(head, samples[b + i].embedding, k, x[i]);
        for (uint32_t r = 0; r < rows; r++) {
            const float *d = gradient + (uint64_t)(first + r) * count + b;
            float four[FOUR] = {0};
            for (uint32_t i = 0; i < used; i++)
                four[i] = d[i];
            add_four(sum[r], four, x[0]);
        }
    }
    for (uint32_t r = 0; r < rows; r++) {
        const uint64_t place = (uint64_t)(first + r) * inputs + k;
        float *w = head->weights + place;
        if (head->square) {
            adam(how, sum[r], w, (float *)head->moment + place, head->square + place, width);
        } else if (head->header->moment_type == NESTLING_BFLOAT16) {
            sgd_bfloat16(how, sum[r], w, (uint16_t *)head->moment + place, width);
        } else {
            sgd(how, sum[r], w, (float *)head->moment + place, width);
        }
    }
}

static void learn_bias(const nestling_head *head, update how, uint32_t count, const float *gradient)
{
    how.decay = 0;
    for (uint32_t c = 0; c < head->header->classes; c++) {
        float sum = 0;
        for (uint32_t b = 0; b < count; b++)
            sum += gradient[(uint64_t)c * count + b];
        if (head->square) {
            adam(&how, &sum, head->bias + c, head->bias_moment + c, head->bias_square + c, 1);
        } else {
            sgd(&how, &sum, head->bias + c, head->bias_moment + c, 1);
        }
    }
}

INLINE float step(nestling_head *head, const nestling_sample *samples, uint32_t count, float *work)
{
    const uint32_t classes = head->header->classes;
    const update how = update_of(head->header);
    batch_logits(head, samples, count, work);
    const float loss = softmax_gradient(work, samples, count, classes);
    for (uint32_t k = 0; k < head->header->inputs; k += TILE) {
        for (uint32_t first = 0; first < classes; first += ROWS)
            learn_tile(head, &how, samples, count, work, first, k);
    }
    learn_bias(head, how, count, work);
    return loss;
}

#ifdef WIDE
WIDE static float wide_step(nestling_head *head, const nestling_sample *samples, uint32_t count, float *work)
{
    return step(head, samples, count, work);
}
#endif

float nestling_learn_step(nestling_head *head, const nestling_sample *samples, uint32_t count, float *work)
{
#ifdef WIDE
    const int wide = __builtin_cpu_supports("avx2");
    const float loss = wide ? wide_step(head, samples, count, work) : step(head, samples, count, work);
#else
    const float loss = step(head, samples, count, work);
#endif
    head->header->steps++;
    if (loss < head->header->lowest_loss)
        head->header->lowest_loss = loss;
    return loss;
}
