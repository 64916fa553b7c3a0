#define _POSIX_C_SOURCE 200809L
#include "cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

enum { CRC = 4 };

/* What the embeddings are of. Without gaps, little-endian. */
typedef struct {
    char magic[8];
    uint32_t inputs, height, width, channels, interpolation, crc; /* crc: of the rest */
    double crop;
    uint8_t graph[32];
    char runtime[NESTLING_RUNTIME_BYTES];
} heading;

static uint32_t crc32_of(const uint8_t *bytes, size_t count)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static void put32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static int is_sound(const uint8_t *record, uint32_t bytes)
{
    uint8_t crc[CRC];
    put32(crc, crc32_of(record, bytes - CRC));
    return memcmp(crc, record + bytes - CRC, CRC) == 0;
}

static int by_fingerprint(const void *a, const void *b)
{
    return memcmp(a, b, FINGERPRINT);
}

static heading heading_of(const nestling_head_header *h, const char *runtime)
{
    heading made = {"NSTFEAT\n", h->inputs, h->image_height, h->image_width, h->image_channels, h->interpolation, 0, h->crop,
                    {0},         {0}};
    memcpy(made.graph, h->graph, sizeof made.graph);
    snprintf(made.runtime, sizeof made.runtime, "%s", runtime);
    made.crc = crc32_of((const uint8_t *)&made, sizeof made);
    return made;
}

/* 0, or errno. */
static int write_all(int file, const void *bytes, size_t count)
{
    const uint8_t *from = bytes;
    while (count) {
        const ssize_t written = write(file, from, count);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written ? errno : EIO;
        from += written;
        count -= (size_t)written;
    }
    return 0;
}

static void give_up(cache *c, const char *path, int problem, char *said, uint32_t said_bytes)
{
    snprintf(said, said_bytes, "%s cannot be kept (%s): embeddings are computed again next time.", path, strerror(problem));
    if (c->file >= 0)
        close(c->file);
    c->file = -1;
}

/* The records of a file of this heading, up to the first damaged one; the cache then owns the content. Returns how many bytes of it are
 * sound, 0 where it is another's. */
static size_t taken_from(cache *c, const heading *wanted, uint8_t *content, size_t bytes)
{
    if (bytes < sizeof *wanted || memcmp(content, wanted, sizeof *wanted) != 0)
        return 0;
    const size_t room = (bytes - sizeof *wanted) / c->record;
    const uint8_t *records = content + sizeof *wanted;
    while (c->count < room && is_sound(records + (size_t)c->count * c->record, c->record))
        c->count++;
    const size_t sound = (size_t)c->count * c->record;
    memmove(content, records, sound);
    c->records = content;
    if (c->count)
        qsort(c->records, c->count, c->record, by_fingerprint);
    return sizeof *wanted + sound;
}

cache cache_open(const char *path, const nestling_head_header *header, const char *runtime, char *said, uint32_t said_bytes)
{
    cache c = {.file = -1, .inputs = header->inputs, .record = FINGERPRINT + header->inputs + CRC};
    const heading wanted = heading_of(header, runtime);
    uint8_t *content = 0;
    size_t bytes = 0;
    said[0] = 0;
    errno = 0;
    const char *problem = read_whole(path, &content, &bytes);
    const size_t sound = problem ? 0 : taken_from(&c, &wanted, content, bytes);
    if (!sound)
        free(content);
    if (problem && errno != ENOENT) {
        give_up(&c, path, errno ? errno : EINVAL, said, said_bytes);
        return c;
    }
    c.file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    int failed = c.file < 0 ? errno : 0;
    if (!failed && (sound == 0 || sound < bytes)) {
        if (ftruncate(c.file, (off_t)sound))
            failed = errno;
        if (!failed && sound == 0)
            failed = write_all(c.file, &wanted, sizeof wanted);
        if (sound)
            snprintf(said, said_bytes, "%s was damaged behind its first %u embeddings; the rest is computed again.", path,
                     (unsigned)c.count);
    }
    if (failed)
        give_up(&c, path, failed, said, said_bytes);
    return c;
}

const int8_t *cache_find(const cache *from, const uint8_t fingerprint[FINGERPRINT])
{
    if (!from->count)
        return 0;
    const uint8_t *found = bsearch(fingerprint, from->records, from->count, from->record, by_fingerprint);
    return found ? (const int8_t *)(found + FINGERPRINT) : 0;
}

void cache_add(cache *to, const uint8_t fingerprint[FINGERPRINT], const int8_t *embedding)
{
    if (to->file < 0)
        return;
    uint8_t *record = enough(0, to->record);
    memcpy(record, fingerprint, FINGERPRINT);
    memcpy(record + FINGERPRINT, embedding, to->inputs);
    put32(record + to->record - CRC, crc32_of(record, to->record - CRC));
    if (write_all(to->file, record, to->record)) { /* a full disk: what is half written is cut off by the next start */
        close(to->file);
        to->file = -1;
    }
    free(record);
}

void cache_close(cache *done)
{
    if (done->file >= 0)
        close(done->file);
    free(done->records);
    *done = (cache){.file = -1};
}
