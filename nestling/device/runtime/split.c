/* folder_divide: which photographs are learned from, watched and tested on. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "folder.h"
#include "sha256.h"

enum {
    DIGITS = 2 * FINGERPRINT,
    LEAST = 3,
    MOST_BYTES = 1 << 26
}; /* LEAST: photographs that can be divided; MOST_BYTES: of split.csv */

/* A line of split.csv. */
typedef struct {
    char digits[DIGITS]; /* the fingerprint */
    part part;
} known;

/* A photograph that is to be divided. */
typedef struct {
    uint8_t key[32];
    photograph *of;
} keyed;

static const char *const names[PARTS] = {"train", "val", "test"};

/* ---- split.csv -------------------------------------------------------------------------------------------------------------- */

static int by_digits(const void *a, const void *b)
{
    return memcmp(((const known *)a)->digits, ((const known *)b)->digits, DIGITS);
}

/* Whether `text`, a line of `length`, is 16 hex digits, a comma and a part. */
static int parsed(const char *text, size_t length, known *line)
{
    if (length < DIGITS + 1 || strspn(text, "0123456789abcdef") != DIGITS || text[DIGITS] != ',')
        return 0;
    memcpy(line->digits, text, DIGITS);
    for (int i = 0; i < PARTS; i++) {
        line->part = (part)i;
        if (strlen(names[i]) == length - DIGITS - 1 && memcmp(names[i], text + DIGITS + 1, length - DIGITS - 1) == 0)
            return 1;
    }
    return 0;
}

/* The file's lines, sorted, of malloc. Returns 0, or the number of the first line that is none. */
static uint32_t lines_of(char *text, known **made, uint32_t *count)
{
    static const char heading[] = "fingerprint,part";
    uint32_t number = 0, room = 0;
    for (char *line = text, *next; *line; line = next) {
        const size_t length = strcspn(line, "\n"), bare = length && line[length - 1] == '\r' ? length - 1 : length;
        next = line + length + (line[length] == '\n');
        if (++number == 1) {
            if (bare != sizeof heading - 1 || memcmp(line, heading, bare) != 0)
                return 1;
            continue;
        }
        if (*count == room) {
            room = 2 * room + 64;
            *made = enough(*made, room * sizeof **made);
        }
        if (!parsed(line, bare, *made + *count))
            return number;
        ++*count;
    }
    if (!number)
        return 1;
    if (*count)
        qsort(*made, *count, sizeof **made, by_digits);
    return 0;
}

/* The first line whose photograph another line puts into another part, of sorted ones; 0 where there is none. */
static const known *contradiction(const known *lines, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++)
        if (lines[i].part != lines[i - 1].part && !by_digits(lines + i, lines + i - 1))
            return lines + i;
    return 0;
}

static int read_split(const char *path, known **made, uint32_t *count, char *said, uint32_t said_bytes)
{
    uint8_t *content = 0;
    size_t bytes = 0;
    errno = 0;
    const char *problem = read_at_most(MOST_BYTES, path, &content, &bytes);
    if (problem && errno == ENOENT)
        return 0;
    uint32_t line = 0;
    if (!problem) {
        content[bytes] = 0;
        line = strlen((char *)content) != bytes ? 1 : lines_of((char *)content, made, count);
        free(content);
    }
    if (problem)
        snprintf(said, said_bytes, "%s cannot be read (%s).\n  pack the package again", path, problem);
    if (line == 1)
        snprintf(said, said_bytes, "%s does not begin with the line 'fingerprint,part'.\n  pack the package again", path);
    if (line > 1) {
        snprintf(said, said_bytes, "%s, line %u, is not a fingerprint and train, val or test.\n  pack the package again", path,
                 (unsigned)line);
    }
    const known *twice = problem || line ? 0 : contradiction(*made, *count);
    if (twice) {
        snprintf(said, said_bytes, "%s puts the photograph %.*s into two parts.\n  pack the package again", path, (int)DIGITS,
                 twice->digits);
    }
    return problem || line || twice;
}

/* ---- the rule --------------------------------------------------------------------------------------------------------------- */

static int by_key(const void *a, const void *b)
{
    return memcmp(((const keyed *)a)->key, ((const keyed *)b)->key, 32);
}

/* SHA-256 of the ASCII text "SEED:FINGERPRINT". */
static void key_of(uint64_t seed, const char *digits, uint8_t key[32])
{
    char text[24 + DIGITS];
    const int length = snprintf(text, sizeof text, "%llu:%.16s", (unsigned long long)seed, digits);
    sha256_hash hash;
    sha256_begin(&hash);
    sha256_add(&hash, text, (size_t)length);
    sha256_end(&hash, key);
}

/* missing: parts that the folders do not give, test before val. */
static void divide(keyed *some, uint32_t count, const part *missing, uint32_t missing_count)
{
    if (count)
        qsort(some, count, sizeof *some, by_key);
    const uint32_t fair = (count + 2) / (3 + missing_count);
    const uint32_t share = count < LEAST ? 0 : fair ? fair : 1;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t taken = share ? i / share : missing_count;
        some[i].of->part = taken < missing_count ? missing[taken] : TRAIN;
    }
}

int folder_divide(folder *found, const char *split_csv, uint64_t seed, char *said, uint32_t said_bytes)
{
    known *lines = 0;
    uint32_t line_count = 0, given[PARTS + 1] = {0}, missing_count = 0;
    if (read_split(split_csv, &lines, &line_count, said, said_bytes)) {
        free(lines);
        return 1;
    }
    for (uint32_t i = 0; i < found->count; i++)
        given[found->photographs[i].given]++;
    part missing[2];
    if (!given[TEST])
        missing[missing_count++] = TEST;
    if (!given[VAL])
        missing[missing_count++] = VAL;
    keyed *some = enough(0, (found->count + 1) * sizeof *some);
    for (uint32_t label = 0; label < found->class_count; label++) {
        uint32_t count = 0;
        for (uint32_t i = 0; i < found->count; i++) {
            photograph *one = found->photographs + i;
            if (one->label != label)
                continue;
            char digits[DIGITS + 1];
            as_hex(one->fingerprint, FINGERPRINT, digits);
            known wanted;
            memcpy(wanted.digits, digits, DIGITS);
            const known *line = line_count ? bsearch(&wanted, lines, line_count, sizeof *lines, by_digits) : 0;
            if (line) {
                one->part = line->part;
            } else if (one->given == VAL || one->given == TEST) {
                one->part = one->given;
            } else {
                some[count].of = one;
                key_of(seed, digits, some[count++].key);
            }
        }
        divide(some, count, missing, missing_count);
    }
    free(some);
    free(lines);
    return 0;
}
