/* See nestling_head.h: the file head.nst. The parts: bounds, what is checked, reading, sealing, a new class. */
#include <stddef.h>

#include "nestling_head_parts.h"

enum { HEADER_BYTES = 232, RUNTIMES_BYTES = NESTLING_RUNTIMES * NESTLING_RUNTIME_BYTES, CRC_BYTES = 4 };
enum { NAMES = 32 }; /* that are compared with the others at a time */

typedef char the_header_has_no_gaps[sizeof(nestling_head_header) == HEADER_BYTES ? 1 : -1];

/* ---- bounds: docs/head-file.md and head_format.py have the same table; a test compares the three ----------------------------- */

typedef enum { UINT32, INT32, UINT64, FLOAT32, FLOAT64 } field_type;

typedef struct {
    const char *name;
    double least, most; /* both included */
    uint16_t place;     /* in the header */
    uint16_t type;
} bound;

#define BOUND(type, name, least, most) {#name, least, most, offsetof(nestling_head_header, name), type}
#define COUNTED 281474976710656.0             /* 2^48, which none that is counted gets to */
#define SMALLEST 1.1754943508222875079687e-38 /* 2^-126, the smallest float32 with all its digits */
#define BELOW_1 0.999999940395355224609375    /* the largest float32 below 1 */
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

static double value_of(const nestling_head_header *header, const bound *of)
{
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

int nestling_head_outside(const nestling_head_header *header, nestling_head_bound *which)
{
    for (uint32_t i = 0; i < BOUNDS; i++) {
        const double value = value_of(header, bounds + i);
        if (value >= bounds[i].least && value <= bounds[i].most)
            continue; /* what is no number is neither */
        *which = (nestling_head_bound){bounds[i].name, value, bounds[i].least, bounds[i].most};
        return 1;
    }
    return 0;
}

/* What the fields say of each other, the sizes aside. */
static int fields_fit(const nestling_head_header *header)
{
    const uint64_t turns = header->balanced ? header->classes : 1; /* the longest order that there can be: of one class mostly */
    const uint32_t height = header->image_height, width = header->image_width, longest = height > width ? height : width;
    if (header->image_channels == 2 || (double)longest / header->crop > LONGEST)
        return 0;
    if (header->items && header->position > turns * header->items)
        return 0; /* 0: a firmware that counts none */
    return header->began <= header->steps;
}

enum { ANY, NOT_NEGATIVE, ZERO };

/* Whether `count` numbers, float32 or (each: 2 bytes) bfloat16 of whatever alignment, are finite and of that kind. */
static int numbers_are_sound(const uint8_t *at, uint32_t count, uint32_t each, int kind)
{
    for (uint32_t i = 0; i < count; i++, at += each) {
        const uint32_t high = at[each - 1], next = at[each - 2], rest = each == 4 ? (uint32_t)(at[0] | at[1]) : 0;
        if ((high & 0x7fu) == 0x7fu && next & 0x80u)
            return 0; /* infinite, or no number */
        const int zero = !((high & 0x7fu) | next | rest);
        if (!zero && (kind == ZERO || (kind == NOT_NEGATIVE && high & 0x80u)))
            return 0;
    }
    return 1;
}

/* Bytes of the UTF-8 character (RFC 3629) at a place that `left` bytes follow; 0 where there is none. */
static uint32_t character_at(const char *place, uint32_t left)
{
    const uint8_t *at = (const uint8_t *)place;
    if (at[0] < 0x80)
        return 1;
    const uint32_t bytes = at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : at[0] < 0xf5 ? 4 : 0;
    if (!bytes || bytes > left)
        return 0;
    for (uint32_t i = 1; i < bytes; i++) {
        if ((at[i] & 0xc0u) != 0x80u)
            return 0;
    }
    if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90)) /* longer than need be */
        return 0;
    return (at[0] == 0xed && at[1] > 0x9f) || (at[0] == 0xf4 && at[1] > 0x8f) ? 0 : bytes; /* half a pair; beyond Unicode */
}

/* ---- the file --------------------------------------------------------------------------------------------------------------- */

/* CRC-32 as in IEEE 802.3 (zlib's), half a byte at a time. */
static uint32_t crc32(const uint8_t *bytes, uint32_t count)
{
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

static uint64_t up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

static uint32_t stride_of(const nestling_head_header *header)
{
    return (uint32_t)up(sizeof(nestling_replay_entry) + (uint64_t)header->inputs, 4);
}

static uint64_t moment_bytes(const nestling_head_header *header)
{
    const uint64_t each = header->moment_type == NESTLING_BFLOAT16 ? 2 : 4;
    return up(each * header->max_classes * header->inputs, 8);
}

uint32_t nestling_head_bytes(const nestling_head_header *header)
{
    nestling_head_bound wrong;
    const uint64_t inputs = header->inputs, rows = header->max_classes;
    if (nestling_head_outside(header, &wrong) || header->classes > rows || header->label_bytes % 8)
        return 0;
    if (header->optimizer == NESTLING_ADAM && header->moment_type != NESTLING_FLOAT32)
        return 0;
    if (header->replay_count > header->replay_capacity || header->replay_count > header->replay_seen)
        return 0;
    uint64_t bytes = HEADER_BYTES + header->label_bytes + RUNTIMES_BYTES + 4 * (inputs + rows * inputs + rows);
    bytes += moment_bytes(header) + 4 * rows + (header->optimizer == NESTLING_ADAM ? 4 * (rows * inputs + rows) : 0);
    bytes += (uint64_t)header->replay_capacity * stride_of(header) + CRC_BYTES;
    return bytes <= NESTLING_HEAD_MOST_BYTES ? (uint32_t)bytes : 0;
}

static void lay_out(uint8_t *memory, nestling_head *head)
{
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
static int same_name(const char *one, const char *other)
{
    while (*one == *other && *one != '\n')
        one++, other++;
    return *one == *other;
}

/* Whether no name comes twice: each that is held is compared with all that follow it, by a hash (FNV-1a) first. */
static int names_differ(const char *labels, uint32_t count)
{
    const char *held[NAMES], *next = labels;
    uint32_t hashes[NAMES];
    for (uint32_t first = 0; first < count; first += NAMES) {
        const char *at = next;
        uint32_t used = 0;
        for (uint32_t c = first; c < count; c++) {
            const char *name = at;
            uint32_t hash = 2166136261u;
            for (; *at != '\n'; at++)
                hash = (hash ^ (uint8_t)*at) * 16777619u;
            for (uint32_t i = 0; i < used; i++) {
                if (hashes[i] == hash && same_name(held[i], name))
                    return 0;
            }
            at++;
            if (used == NAMES)
                continue;
            held[used] = name;
            hashes[used++] = hash;
            next = at;
        }
    }
    return 1;
}

/* Whether there are `classes` names in UTF-8, all different, each with "\n" after it, then zeros only. */
static int labels_are_sound(const char *labels, const nestling_head_header *header)
{
    const uint32_t bytes = header->label_bytes;
    uint32_t place = 0;
    for (uint32_t c = 0; c < header->classes; c++, place++) {
        const uint32_t begun = place;
        while (place < bytes && labels[place] && labels[place] != '\n') {
            const uint32_t step = character_at(labels + place, bytes - place);
            if (!step)
                return 0;
            place += step;
        }
        if (place == begun || place >= bytes || !labels[place])
            return 0;
    }
    for (; place < bytes; place++) {
        if (labels[place])
            return 0;
    }
    return names_differ(labels, header->classes);
}

/* How many names of runtimes there are, in UTF-8, each with zeros after it and none between them; -1 where it is not so. */
static int32_t runtimes_named(const char *runtimes)
{
    int32_t count = 0;
    for (int32_t r = 0; r < NESTLING_RUNTIMES; r++) {
        const char *name = runtimes + r * NESTLING_RUNTIME_BYTES;
        uint32_t length = 0;
        while (length < NESTLING_RUNTIME_BYTES && name[length]) {
            const uint32_t step = character_at(name + length, NESTLING_RUNTIME_BYTES - length);
            if (!step)
                return -1;
            length += step;
        }
        for (uint32_t i = length; i < NESTLING_RUNTIME_BYTES; i++) {
            if (name[i])
                return -1;
        }
        if (length == NESTLING_RUNTIME_BYTES || (length && count != r))
            return -1;
        count += length != 0;
    }
    return count;
}

static int replay_is_sound(const uint8_t *replay, const nestling_head_header *header, int32_t runtimes)
{
    for (uint32_t i = 0; i < header->replay_count; i++) {
        nestling_replay_entry entry;
        copy(&entry, replay + (uint64_t)i * stride_of(header), sizeof entry);
        if (entry.label >= header->classes || entry.runtime >= runtimes)
            return 0;
    }
    return 1;
}

/* Where a part of max_classes rows ends, of `columns` numbers each, if those in use are sound and the others 0; else 0. */
static const uint8_t *behind(const uint8_t *at, const nestling_head_header *header, uint32_t columns, uint32_t each, int kind)
{
    const uint32_t used = header->classes * columns, all = header->max_classes * columns;
    if (!at || !numbers_are_sound(at, used, each, kind) || !numbers_are_sound(at + used * each, all - used, each, ZERO))
        return 0;
    return at + all * each;
}

/* All but the header and the CRC. memory: of whatever alignment, as large as the header says. */
static nestling_head_state state_of_parts(const uint8_t *memory, const nestling_head_header *header)
{
    const char *labels = (const char *)memory + HEADER_BYTES, *runtimes = labels + header->label_bytes;
    const uint8_t *offset = (const uint8_t *)runtimes + RUNTIMES_BYTES, *weights = offset + 4 * header->inputs;
    const int32_t named = runtimes_named(runtimes);
    if (named < 0 || !labels_are_sound(labels, header))
        return NESTLING_HEAD_SHAPES;
    const uint8_t *moment = behind(behind(weights, header, header->inputs, 4, ANY), header, 1, 4, ANY);
    if (!moment || !numbers_are_sound(offset, header->inputs, 4, ANY))
        return NESTLING_HEAD_NUMBERS;
    const uint32_t each = header->moment_type == NESTLING_BFLOAT16 ? 2 : 4;
    const uint8_t *at = behind(moment, header, header->inputs, each, ANY) ? moment + moment_bytes(header) : 0;
    at = behind(at, header, 1, 4, ANY);
    if (header->optimizer == NESTLING_ADAM)
        at = behind(behind(at, header, header->inputs, 4, NOT_NEGATIVE), header, 1, 4, NOT_NEGATIVE);
    if (!at)
        return NESTLING_HEAD_NUMBERS;
    return replay_is_sound(at, header, named) ? NESTLING_HEAD_WHOLE : NESTLING_HEAD_SHAPES;
}

static nestling_head_state state_of_header(const nestling_head_header *header)
{
    nestling_head_bound wrong;
    if (header->version != NESTLING_HEAD_VERSION)
        return NESTLING_HEAD_VERSIONS;
    if (nestling_head_outside(header, &wrong))
        return NESTLING_HEAD_BOUNDS;
    const uint32_t size = nestling_head_bytes(header);
    return size && header->bytes == size && fields_fit(header) ? NESTLING_HEAD_WHOLE : NESTLING_HEAD_SHAPES;
}

nestling_head_state nestling_head_state_of(const uint8_t *memory, uint32_t bytes, nestling_head_header *header)
{
    static const char magic[] = "NSTHEAD\n";
    for (uint32_t i = 0; i < sizeof header->magic; i++) {
        if (i >= bytes || memory[i] != (uint8_t)magic[i])
            return NESTLING_HEAD_FOREIGN;
    }
    if (bytes < HEADER_BYTES)
        return NESTLING_HEAD_SHORT;
    copy(header, memory, HEADER_BYTES);
    const nestling_head_state state = state_of_header(header);
    if (state != NESTLING_HEAD_WHOLE)
        return state;
    if (bytes < header->bytes)
        return NESTLING_HEAD_SHORT;
    const uint8_t *end = memory + header->bytes - CRC_BYTES;
    const uint32_t crc = (uint32_t)end[0] | (uint32_t)end[1] << 8 | (uint32_t)end[2] << 16 | (uint32_t)end[3] << 24;
    return crc32(memory, header->bytes - CRC_BYTES) == crc ? state_of_parts(memory, header) : NESTLING_HEAD_DAMAGED;
}

nestling_head_state nestling_head_open(void *memory, uint32_t bytes, nestling_head *head)
{
    nestling_head_header header;
    const nestling_head_state state = nestling_head_state_of(memory, bytes, &header);
    if (state == NESTLING_HEAD_WHOLE)
        lay_out(memory, head);
    return state;
}

const char *nestling_head_said(nestling_head_state state)
{
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

nestling_head_state nestling_head_seal(nestling_head *head)
{
    uint8_t *memory = (uint8_t *)head->header;
    head->header->saves++;
    const uint32_t size = head->header->bytes - CRC_BYTES, crc = crc32(memory, size);
    for (uint32_t i = 0; i < CRC_BYTES; i++)
        memory[size + i] = (uint8_t)(crc >> (8 * i));
    const nestling_head_state state = state_of_header(head->header);
    return state == NESTLING_HEAD_WHOLE ? state_of_parts(memory, head->header) : state;
}

int32_t nestling_head_add_class(nestling_head *head, const char *label)
{
    nestling_head_header *header = head->header;
    uint32_t used = 0, length = 0;
    while (label[length] && label[length] != '\n') {
        const uint32_t step = character_at(label + length, 4); /* a NUL before its end is no part of it */
        if (!step)
            return -1;
        length += step;
    }
    if (!length || label[length])
        return -1;
    for (uint32_t c = 0; c < header->classes; c++, used++) {
        const uint32_t begun = used;
        while (used - begun < length && head->labels[used] == label[used - begun])
            used++;
        if (used - begun == length && head->labels[used] == '\n')
            return -1;
        while (head->labels[used] != '\n')
            used++;
    }
    if (header->classes == header->max_classes || length >= header->label_bytes - used)
        return -1;
    copy(head->labels + used, label, length);
    head->labels[used + length] = '\n';
    return (int32_t)header->classes++;
}
