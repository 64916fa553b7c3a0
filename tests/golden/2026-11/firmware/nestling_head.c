/* See nestling_head.h. The parts: numbers, bounds, the file, logits, learning, the order of the data, flash. */
#include "nestling_head.h"

#include <stddef.h>

enum { HEADER_BYTES = 232, RUNTIMES_BYTES = NESTLING_RUNTIMES * NESTLING_RUNTIME_BYTES, CRC_BYTES = 4 };
enum { TILE = 32, ROWS = 16, FOUR = 4, LANES = TILE / FOUR }; /* inputs and classes at a time; samples; sums side by side */
enum { NAMES = 32 };                                          /* that are compared with the others at a time */

typedef char the_header_has_no_gaps[sizeof(nestling_head_header) == HEADER_BYTES ? 1 : -1];

/* On x86-64 a step is compiled twice, for the vectors that every processor has and for wider ones: without fused multiply-adds both
 * give the same bits. INLINE: what becomes a part of both. */
#if defined(__GNUC__) && defined(__x86_64__) && __STDC_HOSTED__
#define WIDE __attribute__((target("avx2")))
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

INLINE uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* ---- numbers: within 1 unit in the last place, the same bits everywhere -------------------------------------------------- */

typedef union {
    float value;
    uint32_t bits;
} float_bits;

INLINE float from_bits(uint32_t bits) {
    const float_bits both = {.bits = bits};
    return both.value;
}

INLINE uint32_t to_bits(float value) {
    const float_bits both = {.value = value};
    return both.bits;
}

#define LN2_HIGH 0.693145751953125f /* 15 bits: a product with an exponent is exact */
#define LN2_LOW 1.428606765330187e-06f

/* e^x: x = n ln 2 + r, |r| <= ln 2 / 2, and Taylor's series of e^r, whose first term left out is 5e-9. Not a number gives 0. */
static float exponential(float x) {
    if (!(x > -104.0f)) return 0.0f;
    if (x > 88.73f) return from_bits(0x7f800000u);
    const int32_t n = (int32_t)(x * 1.44269504f + (x < 0 ? -0.5f : 0.5f));
    const float r = (x - (float)n * LN2_HIGH) - (float)n * LN2_LOW;
    const float tail = 1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040)));
    const float power = 1.0f + (r + r * r * (0.5f + r * (1.0f / 6 + r * tail)));
    const int32_t half = n / 2; /* 2^n in two factors, for it may be less or more than a float can be */
    return power * from_bits((uint32_t)(half + 127) << 23) * from_bits((uint32_t)(n - half + 127) << 23);
}

/* ln x, x > 0 and finite: x = 2^n m, m within sqrt(1/2) .. sqrt(2); ln m = 2 atanh(s), s = (m - 1) / (m + 1), as a series. */
static float logarithm(float x) {
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
INLINE float root(float x) {
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
static double power(double base, uint64_t exponent) {
    double made = 1;
    for (; exponent; exponent >>= 1, base *= base) {
        if (exponent & 1) made *= base;
    }
    return made;
}

/* A float32 as bfloat16, its upper half, rounded to the nearest, halves to even. */
INLINE uint16_t to_bfloat16(float value) {
    const uint32_t bits = to_bits(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

static void copy(void *to, const void *from, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
}

/* ---- bounds: docs/head-file.md and head_format.py have the same table; a test compares the three ----------------------------- */

typedef enum { UINT32, INT32, UINT64, FLOAT32, FLOAT64 } field_type;

typedef struct {
    const char *name;
    double least, most; /* both included */
    uint16_t place;     /* in the header */
    uint16_t type;
} bound;

#define BOUND(type, name, least, most) {#name, least, most, offsetof(nestling_head_header, name), type}
#define COUNTED 281474976710656.0                /* 2^48, which none that is counted gets to */
#define SMALLEST 1.1754943508222875079687e-38    /* 2^-126, the smallest float32 with all its digits */
#define BELOW_1 0.999999940395355224609375       /* the largest float32 below 1 */
#define INFINITE (1.0 / 0.0)

static const bound bounds[] = {
    BOUND(UINT32, version, NESTLING_HEAD_VERSION, NESTLING_HEAD_VERSION),
    BOUND(UINT32, inputs, 1, 16777216),
    BOUND(UINT32, classes, 1, 65535), /* a replay entry holds its label in 16 bits */
    BOUND(UINT32, max_classes, 1, 65535),
    BOUND(UINT32, label_bytes, 8, 16777216),
    BOUND(UINT32, optimizer, NESTLING_SGD, NESTLING_ADAM),
    BOUND(UINT32, moment_type, NESTLING_FLOAT32, NESTLING_BFLOAT16),
    BOUND(UINT32, replay_capacity, 0, 16777216),
    BOUND(UINT32, replay_count, 0, 16777216),
    BOUND(UINT64, replay_seen, 0, COUNTED),
    BOUND(FLOAT32, rate, 0, 1e9),
    BOUND(FLOAT32, momentum, 0, BELOW_1),
    BOUND(FLOAT32, beta2, 0, BELOW_1),
    BOUND(FLOAT32, epsilon, SMALLEST, 1e9),
    BOUND(FLOAT32, decay, 0, 1e9),
    BOUND(FLOAT32, input_scale, SMALLEST, 1e9),
    BOUND(FLOAT32, embedding_scale, SMALLEST, 1e9),
    BOUND(INT32, embedding_zero, -128, 127),
    BOUND(UINT64, steps, 0, COUNTED),
    BOUND(UINT64, began, 0, COUNTED),
    BOUND(UINT32, epoch, 0, 2147483647),
    BOUND(UINT32, position, 0, 2147483647),
    BOUND(UINT32, items, 0, 2147483647),
    BOUND(UINT32, balanced, 0, 1),
    BOUND(UINT32, batch, 1, 65536),
    BOUND(UINT32, saves, 0, 2147483647),
    BOUND(FLOAT32, lowest_loss, 0, INFINITE),
    BOUND(FLOAT32, best_accuracy, 0, 1),
    BOUND(UINT32, image_height, 8, 4096),
    BOUND(UINT32, image_width, 8, 4096),
    BOUND(UINT32, image_channels, 1, 3),
    BOUND(UINT32, interpolation, NESTLING_BILINEAR, NESTLING_BICUBIC),
    BOUND(FLOAT64, crop, 0.05, 1),
};
enum { BOUNDS = sizeof bounds / sizeof *bounds, LONGEST = 10000 }; /* LONGEST: side of an image before the crop */

static double value_of(const nestling_head_header *header, const bound *of) {
    const uint8_t *at = (const uint8_t *)header + of->place;
    union {
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        float f32;
        double f64;
    } field;
    copy(&field, at, of->type == UINT64 || of->type == FLOAT64 ? 8 : 4);
    switch ((field_type)of->type) {
        case UINT32: return (double)field.u32;
        case INT32: return (double)field.i32;
        case UINT64: return (double)field.u64;
        case FLOAT32: return (double)field.f32;
        case FLOAT64: break;
    }
    return field.f64;
}

int nestling_head_outside(const nestling_head_header *header, nestling_head_bound *which) {
    for (uint32_t i = 0; i < BOUNDS; i++) {
        const double value = value_of(header, bounds + i);
        if (value >= bounds[i].least && value <= bounds[i].most) continue; /* what is no number is neither */
        *which = (nestling_head_bound){bounds[i].name, value, bounds[i].least, bounds[i].most};
        return 1;
    }
    return 0;
}

/* What the fields say of each other, the sizes aside. */
static int fields_fit(const nestling_head_header *header) {
    const uint64_t turns = header->balanced ? header->classes : 1; /* the longest order that there can be: of one class mostly */
    const uint32_t height = header->image_height, width = header->image_width, longest = height > width ? height : width;
    if (header->image_channels == 2 || (double)longest / header->crop > LONGEST) return 0;
    if (header->items && header->position > turns * header->items) return 0; /* 0: a firmware that counts none */
    return header->began <= header->steps;
}

enum { ANY, NOT_NEGATIVE, ZERO };

/* Whether `count` numbers, float32 or (each: 2 bytes) bfloat16 of whatever alignment, are finite and of that kind. */
static int numbers_are_sound(const uint8_t *at, uint32_t count, uint32_t each, int kind) {
    for (uint32_t i = 0; i < count; i++, at += each) {
        const uint32_t high = at[each - 1], next = at[each - 2], rest = each == 4 ? (uint32_t)(at[0] | at[1]) : 0;
        if ((high & 0x7fu) == 0x7fu && next & 0x80u) return 0; /* infinite, or no number */
        const int zero = !((high & 0x7fu) | next | rest);
        if (!zero && (kind == ZERO || (kind == NOT_NEGATIVE && high & 0x80u))) return 0;
    }
    return 1;
}

/* Bytes of the UTF-8 character (RFC 3629) at a place that `left` bytes follow; 0 where there is none. */
static uint32_t character_at(const char *place, uint32_t left) {
    const uint8_t *at = (const uint8_t *)place;
    if (at[0] < 0x80) return 1;
    const uint32_t bytes = at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : at[0] < 0xf5 ? 4 : 0;
    if (!bytes || bytes > left) return 0;
    for (uint32_t i = 1; i < bytes; i++) {
        if ((at[i] & 0xc0u) != 0x80u) return 0;
    }
    if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90)) return 0; /* longer than need be */
    return (at[0] == 0xed && at[1] > 0x9f) || (at[0] == 0xf4 && at[1] > 0x8f) ? 0 : bytes; /* half a pair; beyond Unicode */
}

/* ---- the file --------------------------------------------------------------------------------------------------------------- */

/* CRC-32 as in IEEE 802.3 (zlib's), half a byte at a time. */
static uint32_t crc32(const uint8_t *bytes, uint32_t count) {
    static const uint32_t table[16] = {0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u,
                                       0x4db26158u, 0x5005713cu, 0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
                                       0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
    uint32_t crc = 0xffffffffu;
    for (uint32_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return ~crc;
}

static uint64_t up(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

static uint32_t stride_of(const nestling_head_header *header) {
    return (uint32_t)up(sizeof(nestling_replay_entry) + (uint64_t)header->inputs, 4);
}

static uint64_t moment_bytes(const nestling_head_header *header) {
    const uint64_t each = header->moment_type == NESTLING_BFLOAT16 ? 2 : 4;
    return up(each * header->max_classes * header->inputs, 8);
}

uint32_t nestling_head_bytes(const nestling_head_header *header) {
    nestling_head_bound wrong;
    const uint64_t inputs = header->inputs, rows = header->max_classes;
    if (nestling_head_outside(header, &wrong) || header->classes > rows || header->label_bytes % 8) return 0;
    if (header->optimizer == NESTLING_ADAM && header->moment_type != NESTLING_FLOAT32) return 0;
    if (header->replay_count > header->replay_capacity || header->replay_count > header->replay_seen) return 0;
    uint64_t bytes = HEADER_BYTES + header->label_bytes + RUNTIMES_BYTES + 4 * (inputs + rows * inputs + rows);
    bytes += moment_bytes(header) + 4 * rows + (header->optimizer == NESTLING_ADAM ? 4 * (rows * inputs + rows) : 0);
    bytes += (uint64_t)header->replay_capacity * stride_of(header) + CRC_BYTES;
    return bytes <= NESTLING_HEAD_MOST_BYTES ? (uint32_t)bytes : 0;
}

static void lay_out(uint8_t *memory, nestling_head *head) {
    nestling_head_header *header = (nestling_head_header *)(void *)memory;
    const uint32_t rows = header->max_classes, cells = rows * header->inputs;
    head->header = header;
    head->labels = (char *)memory + HEADER_BYTES;
    head->runtimes = head->labels + header->label_bytes;
    head->offset = (float *)(void *)(head->runtimes + RUNTIMES_BYTES);
    head->weights = head->offset + header->inputs;
    head->bias = head->weights + cells;
    head->moment = head->bias + rows;
    head->bias_moment = (float *)(void *)((uint8_t *)head->moment + moment_bytes(header));
    const int adam = header->optimizer == NESTLING_ADAM;
    float *after = head->bias_moment + rows;
    head->square = adam ? after : 0;
    head->bias_square = adam ? after + cells : 0;
    head->replay = (uint8_t *)(adam ? after + cells + rows : after);
    head->replay_stride = stride_of(header);
}

/* Whether two names, each with "\n" after it, are the same. */
static int same_name(const char *one, const char *other) {
    while (*one == *other && *one != '\n') one++, other++;
    return *one == *other;
}

/* Whether no name comes twice: each that is held is compared with all that follow it, by a hash (FNV-1a) first. */
static int names_differ(const char *labels, uint32_t count) {
    const char *held[NAMES], *next = labels;
    uint32_t hashes[NAMES];
    for (uint32_t first = 0; first < count; first += NAMES) {
        const char *at = next;
        uint32_t used = 0;
        for (uint32_t c = first; c < count; c++) {
            const char *name = at;
            uint32_t hash = 2166136261u;
            for (; *at != '\n'; at++) hash = (hash ^ (uint8_t)*at) * 16777619u;
            for (uint32_t i = 0; i < used; i++) {
                if (hashes[i] == hash && same_name(held[i], name)) return 0;
            }
            at++;
            if (used == NAMES) continue;
            held[used] = name;
            hashes[used++] = hash;
            next = at;
        }
    }
    return 1;
}

/* Whether there are `classes` names in UTF-8, all different, each with "\n" after it, then zeros only. */
static int labels_are_sound(const char *labels, const nestling_head_header *header) {
    const uint32_t bytes = header->label_bytes;
    uint32_t place = 0;
    for (uint32_t c = 0; c < header->classes; c++, place++) {
        const uint32_t begun = place;
        while (place < bytes && labels[place] && labels[place] != '\n') {
            const uint32_t step = character_at(labels + place, bytes - place);
            if (!step) return 0;
            place += step;
        }
        if (place == begun || place >= bytes || !labels[place]) return 0;
    }
    for (; place < bytes; place++) {
        if (labels[place]) return 0;
    }
    return names_differ(labels, header->classes);
}

/* How many names of runtimes there are, in UTF-8, each with zeros after it and none between them; -1 where it is not so. */
static int32_t runtimes_named(const char *runtimes) {
    int32_t count = 0;
    for (int32_t r = 0; r < NESTLING_RUNTIMES; r++) {
        const char *name = runtimes + r * NESTLING_RUNTIME_BYTES;
        uint32_t length = 0;
        while (length < NESTLING_RUNTIME_BYTES && name[length]) {
            const uint32_t step = character_at(name + length, NESTLING_RUNTIME_BYTES - length);
            if (!step) return -1;
            length += step;
        }
        for (uint32_t i = length; i < NESTLING_RUNTIME_BYTES; i++) {
            if (name[i]) return -1;
        }
        if (length == NESTLING_RUNTIME_BYTES || (length && count != r)) return -1;
        count += length != 0;
    }
    return count;
}

static int replay_is_sound(const uint8_t *replay, const nestling_head_header *header, int32_t runtimes) {
    for (uint32_t i = 0; i < header->replay_count; i++) {
        nestling_replay_entry entry;
        copy(&entry, replay + (uint64_t)i * stride_of(header), sizeof entry);
        if (entry.label >= header->classes || entry.runtime >= runtimes) return 0;
    }
    return 1;
}

/* Where a part of max_classes rows ends, of `columns` numbers each, if those in use are sound and the others 0; else 0. */
static const uint8_t *behind(const uint8_t *at, const nestling_head_header *header, uint32_t columns, uint32_t each, int kind) {
    const uint32_t used = header->classes * columns, all = header->max_classes * columns;
    if (!at || !numbers_are_sound(at, used, each, kind) || !numbers_are_sound(at + used * each, all - used, each, ZERO)) return 0;
    return at + all * each;
}

/* All but the header and the CRC. memory: of whatever alignment, as large as the header says. */
static nestling_head_state state_of_parts(const uint8_t *memory, const nestling_head_header *header) {
    const char *labels = (const char *)memory + HEADER_BYTES, *runtimes = labels + header->label_bytes;
    const uint8_t *offset = (const uint8_t *)runtimes + RUNTIMES_BYTES, *weights = offset + 4 * header->inputs;
    const int32_t named = runtimes_named(runtimes);
    if (named < 0 || !labels_are_sound(labels, header)) return NESTLING_HEAD_SHAPES;
    const uint8_t *moment = behind(behind(weights, header, header->inputs, 4, ANY), header, 1, 4, ANY);
    if (!moment || !numbers_are_sound(offset, header->inputs, 4, ANY)) return NESTLING_HEAD_NUMBERS;
    const uint32_t each = header->moment_type == NESTLING_BFLOAT16 ? 2 : 4;
    const uint8_t *at = behind(moment, header, header->inputs, each, ANY) ? moment + moment_bytes(header) : 0;
    at = behind(at, header, 1, 4, ANY);
    if (header->optimizer == NESTLING_ADAM) at = behind(behind(at, header, header->inputs, 4, NOT_NEGATIVE), header, 1, 4, NOT_NEGATIVE);
    if (!at) return NESTLING_HEAD_NUMBERS;
    return replay_is_sound(at, header, named) ? NESTLING_HEAD_WHOLE : NESTLING_HEAD_SHAPES;
}

static nestling_head_state state_of_header(const nestling_head_header *header) {
    nestling_head_bound wrong;
    if (header->version != NESTLING_HEAD_VERSION) return NESTLING_HEAD_VERSIONS;
    if (nestling_head_outside(header, &wrong)) return NESTLING_HEAD_BOUNDS;
    const uint32_t size = nestling_head_bytes(header);
    return size && header->bytes == size && fields_fit(header) ? NESTLING_HEAD_WHOLE : NESTLING_HEAD_SHAPES;
}

/* Whether memory, of whatever alignment, begins with a whole file of at most `bytes`; header: a copy of its header. */
static nestling_head_state state_of(const uint8_t *memory, uint32_t bytes, nestling_head_header *header) {
    static const char magic[] = "NSTHEAD\n";
    for (uint32_t i = 0; i < sizeof header->magic; i++) {
        if (i >= bytes || memory[i] != (uint8_t)magic[i]) return NESTLING_HEAD_FOREIGN;
    }
    if (bytes < HEADER_BYTES) return NESTLING_HEAD_SHORT;
    copy(header, memory, HEADER_BYTES);
    const nestling_head_state state = state_of_header(header);
    if (state != NESTLING_HEAD_WHOLE) return state;
    if (bytes < header->bytes) return NESTLING_HEAD_SHORT;
    const uint8_t *end = memory + header->bytes - CRC_BYTES;
    const uint32_t crc = (uint32_t)end[0] | (uint32_t)end[1] << 8 | (uint32_t)end[2] << 16 | (uint32_t)end[3] << 24;
    return crc32(memory, header->bytes - CRC_BYTES) == crc ? state_of_parts(memory, header) : NESTLING_HEAD_DAMAGED;
}

nestling_head_state nestling_head_open(void *memory, uint32_t bytes, nestling_head *head) {
    nestling_head_header header;
    const nestling_head_state state = state_of(memory, bytes, &header);
    if (state == NESTLING_HEAD_WHOLE) lay_out(memory, head);
    return state;
}

const char *nestling_head_said(nestling_head_state state) {
    switch (state) {
        case NESTLING_HEAD_WHOLE: return "whole";
        case NESTLING_HEAD_SHORT: return "cut short";
        case NESTLING_HEAD_FOREIGN: return "no head.nst";
        case NESTLING_HEAD_VERSIONS: return "of another version";
        case NESTLING_HEAD_BOUNDS: return "damaged: a number of its header is out of bounds";
        case NESTLING_HEAD_SHAPES: return "damaged: its numbers do not fit each other";
        case NESTLING_HEAD_NUMBERS: return "damaged: its weights or moments hold what is no finite number, or no moment";
        case NESTLING_HEAD_DAMAGED: return "damaged: its checksum differs";
    }
    return "unknown";
}

nestling_head_state nestling_head_seal(nestling_head *head) {
    uint8_t *memory = (uint8_t *)head->header;
    head->header->saves++;
    const uint32_t size = head->header->bytes - CRC_BYTES, crc = crc32(memory, size);
    for (uint32_t i = 0; i < CRC_BYTES; i++) memory[size + i] = (uint8_t)(crc >> (8 * i));
    const nestling_head_state state = state_of_header(head->header);
    return state == NESTLING_HEAD_WHOLE ? state_of_parts(memory, head->header) : state;
}

int32_t nestling_head_add_class(nestling_head *head, const char *label) {
    nestling_head_header *header = head->header;
    uint32_t used = 0, length = 0;
    while (label[length] && label[length] != '\n') {
        const uint32_t step = character_at(label + length, 4); /* a NUL before its end is no part of it */
        if (!step) return -1;
        length += step;
    }
    if (!length || label[length]) return -1;
    for (uint32_t c = 0; c < header->classes; c++, used++) {
        const uint32_t begun = used;
        while (used - begun < length && head->labels[used] == label[used - begun]) used++;
        if (used - begun == length && head->labels[used] == '\n') return -1;
        while (head->labels[used] != '\n') used++;
    }
    if (header->classes == header->max_classes || length >= header->label_bytes - used) return -1;
    copy(head->labels + used, label, length);
    head->labels[used + length] = '\n';
    return (int32_t)header->classes++;
}

/* ---- logits ----------------------------------------------------------------------------------------------------------------- */

/* x: [TILE], inputs k .. k + TILE - 1 of an embedding, 0 behind its end. */
INLINE void inputs_at(const nestling_head *head, const int8_t *embedding, uint32_t k, float *restrict x) {
    const float scale = head->header->input_scale;
    const float *restrict offset = head->offset + k;
    const int8_t *restrict q = embedding + k;
    const uint32_t width = least(TILE, head->header->inputs - k);
    if (width == TILE) {
        for (uint32_t i = 0; i < TILE; i++) x[i] = scale * (float)q[i] - offset[i];
    } else {
        for (uint32_t i = 0; i < width; i++) x[i] = scale * (float)q[i] - offset[i];
        for (uint32_t i = width; i < TILE; i++) x[i] = 0;
    }
}

/* TILE weights from input k on; behind the end of the row they are 0, in `space`. */
INLINE const float *weights_at(const nestling_head *head, uint32_t row, uint32_t k, float *space) {
    const uint32_t inputs = head->header->inputs;
    const float *w = head->weights + (uint64_t)row * inputs + k;
    if (inputs - k >= TILE) return w;
    for (uint32_t i = 0; i < TILE; i++) space[i] = i < inputs - k ? w[i] : 0;
    return space;
}

/* sum: [LANES], each a sum of every LANES-th product. */
INLINE void add_products(float *restrict sum, const float *restrict w, const float *restrict x) {
    const float *restrict w1 = w + LANES, *restrict w2 = w + 2 * LANES, *restrict w3 = w + 3 * LANES;
    const float *restrict x1 = x + LANES, *restrict x2 = x + 2 * LANES, *restrict x3 = x + 3 * LANES;
    for (uint32_t i = 0; i < LANES; i++) sum[i] += (w[i] * x[i] + w1[i] * x1[i]) + (w2[i] * x2[i] + w3[i] * x3[i]);
}

/* scores: [classes][count], the logits of a batch; FOUR samples are taken through the weights together. */
INLINE void batch_logits(const nestling_head *head, const nestling_sample *samples, uint32_t count, float *scores) {
    const uint32_t classes = head->header->classes, inputs = head->header->inputs;
    float x[FOUR][TILE], space[TILE];
    for (uint32_t b = 0; b < count; b += FOUR) {
        const uint32_t used = least(FOUR, count - b);
        for (uint32_t first = 0; first < classes; first += ROWS) {
            const uint32_t rows = least(ROWS, classes - first);
            float sum[ROWS][FOUR][LANES] = {{{0}}};
            for (uint32_t k = 0; k < inputs; k += TILE) {
                for (uint32_t i = 0; i < used; i++) inputs_at(head, samples[b + i].embedding, k, x[i]);
                for (uint32_t r = 0; r < rows; r++) {
                    const float *w = weights_at(head, first + r, k, space);
                    for (uint32_t i = 0; i < used; i++) add_products(sum[r][i], w, x[i]);
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

void nestling_head_logits(const nestling_head *head, const int8_t *embedding, float *logits) {
    const nestling_sample one = {embedding, 0};
    batch_logits(head, &one, 1, logits);
}

/* ---- learning --------------------------------------------------------------------------------------------------------------- */

/* scores: [classes][count], logits -> d loss / d logits. Returns the mean cross-entropy. */
static float softmax_gradient(float *scores, const nestling_sample *samples, uint32_t count, uint32_t classes) {
    const float share = 1.0f / (float)count;
    float loss = 0;
    for (uint32_t b = 0; b < count; b++) {
        float *score = scores + b, highest = *score, total = 0;
        for (uint32_t c = 1; c < classes; c++) highest = score[c * count] > highest ? score[c * count] : highest;
        const float right = score[samples[b].label * count] - highest;
        for (uint32_t c = 0; c < classes; c++) total += score[c * count] = exponential(score[c * count] - highest);
        loss += logarithm(total) - right;
        for (uint32_t c = 0; c < classes; c++) {
            score[c * count] = (score[c * count] / total - (float)(c == samples[b].label)) * share;
        }
    }
    return loss * share;
}

/* sum[i] += (d[0] x[0][i] + d[1] x[1][i]) + (d[2] x[2][i] + d[3] x[3][i]) for the inputs of a tile. */
INLINE void add_four(float *restrict sum, const float *restrict d, const float *restrict x) {
    const float d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3];
    const float *restrict x1 = x + TILE, *restrict x2 = x + 2 * TILE, *restrict x3 = x + 3 * TILE;
    for (uint32_t i = 0; i < TILE; i++) sum[i] += (d0 * x[i] + d1 * x1[i]) + (d2 * x2[i] + d3 * x3[i]);
}

/* What a step does with a gradient. rate: with Adam already divided by 1 - beta1^t; root2: sqrt(1 - beta2^t). */
typedef struct {
    float rate, momentum, beta2, epsilon, decay, root2;
} update;

/* One parameter tile, gradient sum[i] + decay w[i]. As PyTorch's SGD: v = momentum v + g; w -= rate v. */
INLINE void sgd(const update *how, const float *restrict sum, float *restrict w, float *restrict velocity, uint32_t count) {
    const float rate = how->rate, momentum = how->momentum, decay = how->decay;
    for (uint32_t i = 0; i < count; i++) {
        const float v = momentum * velocity[i] + (sum[i] + decay * w[i]);
        velocity[i] = v;
        w[i] -= rate * v;
    }
}

/* The same with the velocity in bfloat16; the step itself takes it before it is rounded. */
INLINE void sgd_bfloat16(const update *how, const float *restrict sum, float *restrict w, uint16_t *restrict velocity,
                         uint32_t count) {
    const float rate = how->rate, momentum = how->momentum, decay = how->decay;
    for (uint32_t i = 0; i < count; i++) {
        const float v = momentum * from_bits((uint32_t)velocity[i] << 16) + (sum[i] + decay * w[i]);
        velocity[i] = to_bfloat16(v);
        w[i] -= rate * v;
    }
}

/* As PyTorch's Adam (Kingma and Ba 2015, the decay in the gradient). */
INLINE void adam(const update *how, const float *restrict sum, float *restrict w, float *restrict m, float *restrict v,
                 uint32_t count) {
    const float rate = how->rate, beta1 = how->momentum, beta2 = how->beta2, epsilon = how->epsilon, decay = how->decay;
    const float rest1 = 1.0f - beta1, rest2 = 1.0f - beta2, root2 = how->root2;
    for (uint32_t i = 0; i < count; i++) {
        const float g = sum[i] + decay * w[i];
        m[i] = beta1 * m[i] + rest1 * g;
        v[i] = beta2 * v[i] + rest2 * (g * g);
        w[i] -= rate * (m[i] / (root(v[i]) / root2 + epsilon));
    }
}

static update update_of(const nestling_head_header *header) {
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
                       const float *gradient, uint32_t first, uint32_t k) {
    const uint32_t inputs = head->header->inputs, width = least(TILE, inputs - k);
    const uint32_t rows = least(ROWS, head->header->classes - first);
    float sum[ROWS][TILE] = {{0}}, x[FOUR][TILE] = {{0}};
    for (uint32_t b = 0; b < count; b += FOUR) {
        const uint32_t used = least(FOUR, count - b);
        for (uint32_t i = 0; i < used; i++) inputs_at(head, samples[b + i].embedding, k, x[i]);
        for (uint32_t r = 0; r < rows; r++) {
            const float *d = gradient + (uint64_t)(first + r) * count + b;
            float four[FOUR] = {0};
            for (uint32_t i = 0; i < used; i++) four[i] = d[i];
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

static void learn_bias(const nestling_head *head, update how, uint32_t count, const float *gradient) {
    how.decay = 0;
    for (uint32_t c = 0; c < head->header->classes; c++) {
        float sum = 0;
        for (uint32_t b = 0; b < count; b++) sum += gradient[(uint64_t)c * count + b];
        if (head->square) {
            adam(&how, &sum, head->bias + c, head->bias_moment + c, head->bias_square + c, 1);
        } else {
            sgd(&how, &sum, head->bias + c, head->bias_moment + c, 1);
        }
    }
}

INLINE float step(nestling_head *head, const nestling_sample *samples, uint32_t count, float *work) {
    const uint32_t classes = head->header->classes;
    const update how = update_of(head->header);
    batch_logits(head, samples, count, work);
    const float loss = softmax_gradient(work, samples, count, classes);
    for (uint32_t k = 0; k < head->header->inputs; k += TILE) {
        for (uint32_t first = 0; first < classes; first += ROWS) learn_tile(head, &how, samples, count, work, first, k);
    }
    learn_bias(head, how, count, work);
    return loss;
}

#ifdef WIDE
WIDE static float wide_step(nestling_head *head, const nestling_sample *samples, uint32_t count, float *work) {
    return step(head, samples, count, work);
}
#endif

float nestling_learn_step(nestling_head *head, const nestling_sample *samples, uint32_t count, float *work) {
#ifdef WIDE
    const int wide = __builtin_cpu_supports("avx2");
    const float loss = wide ? wide_step(head, samples, count, work) : step(head, samples, count, work);
#else
    const float loss = step(head, samples, count, work);
#endif
    head->header->steps++;
    if (loss < head->header->lowest_loss) head->header->lowest_loss = loss;
    return loss;
}

/* ---- the order of the data --------------------------------------------------------------------------------------------------- */

/* splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, with Vigna's constants. */
static uint64_t mixed(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform in 0 .. count - 1 without bias: Lemire, "Fast random integer generation in an interval", 2019. */
static uint32_t draw_below(uint64_t *state, uint32_t count) {
    const uint32_t refused = (uint32_t)(0u - count) % count;
    uint64_t product;
    do {
        *state += 0x9e3779b97f4a7c15u;
        product = (mixed(*state) >> 32) * count;
    } while ((uint32_t)product < refused);
    return (uint32_t)(product >> 32);
}

/* Fisher and Yates' shuffle, as Durstenfeld wrote it (Algorithm 235, 1964). */
static void shuffle(uint32_t *places, uint32_t count, uint64_t *state) {
    for (uint32_t last = count; last-- > 1;) {
        const uint32_t chosen = draw_below(state, last + 1), moved = places[last];
        places[last] = places[chosen];
        places[chosen] = moved;
    }
}

/* Sets places, grouped by class, and starts: of the classes that have items, in their order, and the end. Returns how many have. */
static uint32_t group(nestling_order *order) {
    uint32_t *starts = order->starts, present = 0;
    for (uint32_t c = 0; c <= order->classes; c++) starts[c] = 0;
    for (uint32_t i = 0; i < order->items; i++) starts[order->labels[i] + 1]++;
    for (uint32_t c = 0; c < order->classes; c++) starts[c + 1] += starts[c];
    for (uint32_t i = 0; i < order->items; i++) order->places[starts[order->labels[i]]++] = i; /* each start becomes its end */
    for (uint32_t c = 0, end = 0; c < order->classes; c++) {
        const uint32_t start = end;
        end = starts[c];
        if (end > start) starts[present++] = start;
    }
    starts[present] = order->items;
    return present;
}

void nestling_order_make(nestling_order *order, uint64_t seed, uint32_t epoch) {
    uint64_t state = mixed(mixed(seed + 0x9e3779b97f4a7c15u) + epoch);
    order->present = 0;
    order->length = order->items;
    if (!order->balanced) {
        for (uint32_t i = 0; i < order->items; i++) order->places[i] = i;
        shuffle(order->places, order->items, &state);
        return;
    }
    uint32_t largest = 0;
    order->present = group(order);
    for (uint32_t p = 0; p < order->present; p++) {
        const uint32_t count = order->starts[p + 1] - order->starts[p];
        shuffle(order->places + order->starts[p], count, &state);
        largest = count > largest ? count : largest;
    }
    const uint32_t most = 0xffffffffu / order->present;
    order->length = order->present * least(largest, most);
}

uint32_t nestling_order_item(const nestling_order *order, uint32_t place) {
    if (!order->balanced) return order->places[place];
    const uint32_t *start = order->starts + place % order->present;
    return order->places[start[0] + place / order->present % (start[1] - start[0])];
}

/* ---- flash ------------------------------------------------------------------------------------------------------------------ */

/* The slot with the newest whole head of at most `bytes`, -1 where there is none; header: a copy of its header. */
static int newest_slot(const nestling_flash *flash, uint32_t bytes, nestling_head_header *header) {
    int newest = -1;
    for (int slot = 0; slot < 2; slot++) {
        nestling_head_header other;
        if (state_of(flash->slot(flash->user, slot), bytes, &other) != NESTLING_HEAD_WHOLE) continue;
        if (newest < 0 || other.saves > header->saves) {
            newest = slot;
            *header = other;
        }
    }
    return newest;
}

int nestling_flash_save(const nestling_flash *flash, nestling_head *head) {
    nestling_head_header saved;
    const int newest = newest_slot(flash, head->header->bytes, &saved), slot = newest == 0;
    if (newest >= 0 && saved.saves > head->header->saves) head->header->saves = saved.saves;
    if (nestling_head_seal(head) != NESTLING_HEAD_WHOLE) return 1; /* what could not be read takes nobody's place */
    if (flash->erase(flash->user, slot)) return 1;
    return flash->write(flash->user, slot, 0, head->header, head->header->bytes) != 0;
}

int nestling_flash_load(const nestling_flash *flash, void *memory, uint32_t bytes, nestling_head *head) {
    nestling_head_header header;
    const int slot = newest_slot(flash, bytes, &header);
    if (slot < 0) return -1;
    copy(memory, flash->slot(flash->user, slot), header.bytes);
    return nestling_head_open(memory, bytes, head) == NESTLING_HEAD_WHOLE ? slot : -1;
}
