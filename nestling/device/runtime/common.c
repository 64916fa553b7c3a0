#define _POSIX_C_SOURCE 200809L
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LARGEST = 500000000 }; /* bytes: 100 megapixels of 32 bits, and a header */

void *enough(void *old, size_t bytes)
{
    void *made = realloc(old, bytes);
    if (made)
        return made;
    fprintf(stderr, "net_runner: there is no memory left for %zu bytes more.\n", bytes);
    exit(1);
}

char *joined(const char *folder, const char *name)
{
    const size_t bytes = strlen(folder) + strlen(name) + 2;
    const int bare = !*folder || folder[strlen(folder) - 1] == '/';
    char *made = enough(0, bytes);
    snprintf(made, bytes, bare ? "%s%s" : "%s/%s", folder, name);
    return made;
}

char *beside(const char *file, const char *name)
{
    const char *slash = strrchr(file, '/');
    const size_t kept = slash ? (size_t)(slash - file) + 1 : 0;
    char *made = enough(0, kept + strlen(name) + 1);
    memcpy(made, file, kept);
    strcpy(made + kept, name);
    return made;
}

/* Where a byte of a path comes: its end, then the end of a name, then the names' bytes. */
static int rank(char byte)
{
    return !byte ? 0 : byte == '/' ? 1 : 1 + (uint8_t)byte;
}

int path_order(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return rank(*a) - rank(*b);
}

static const char *contents(int file, size_t most, uint8_t **content, size_t *bytes)
{
    struct stat said;
    if (fstat(file, &said))
        return strerror(errno);
    if (!S_ISREG(said.st_mode))
        return "not a file"; /* a pipe would wait for ever */
    if (said.st_size < 0 || (uint64_t)said.st_size > most)
        return "too large";
    *content = enough(0, (size_t)said.st_size + 1);
    for (*bytes = 0; *bytes < (size_t)said.st_size;) {
        const ssize_t count = read(file, *content + *bytes, (size_t)said.st_size - *bytes);
        if (count == 0)
            break;
        if (count > 0)
            *bytes += (size_t)count;
        if (count < 0 && errno != EINTR) {
            free(*content);
            *content = 0;
            return "it cannot be read";
        }
    }
    return 0;
}

const char *read_at_most(size_t most, const char *path, uint8_t **content, size_t *bytes)
{
    const int file = open(path, O_RDONLY | O_NONBLOCK);
    if (file < 0)
        return strerror(errno);
    const char *problem = contents(file, most, content, bytes);
    close(file);
    return problem;
}

const char *read_whole(const char *path, uint8_t **content, size_t *bytes)
{
    return read_at_most(LARGEST, path, content, bytes);
}

void as_hex(const uint8_t *bytes, uint32_t count, char *made)
{
    static const char digits[] = "0123456789abcdef";
    for (uint32_t i = 0; i < count; i++) {
        made[2 * i] = digits[bytes[i] >> 4];
        made[2 * i + 1] = digits[bytes[i] & 15];
    }
    made[2 * count] = 0;
}

/* ---- words for whoever watches -------------------------------------------------------------------------------------------------- */

/* The bytes of the letter at text, 0 where there is none in UTF-8. code: its number. */
static size_t letter_of(const uint8_t *text, size_t left, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t first = text[0];
    const size_t bytes = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (!bytes || bytes > left)
        return 0;
    *code = bytes == 1 ? first : first & (0x7fu >> bytes);
    for (size_t i = 1; i < bytes; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        *code = *code << 6 | (text[i] & 0x3fu);
    }
    return *code < least[bytes] || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000) ? 0 : bytes;
}

static int printable(uint32_t code)
{
    static const uint32_t others[][2] = {
        {0x0, 0x1f},      {0x7f, 0x9f},       {0xad, 0xad},       {0x61c, 0x61c},     {0x180e, 0x180e},
        {0x200b, 0x200f}, {0x2028, 0x202e},   {0x2060, 0x206f},   {0xfeff, 0xfeff},   {0xfff9, 0xfffb},
        {0xfffe, 0xffff}, {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe007f},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (code >= others[i][0] && code <= others[i][1])
            return 0;
    return 1;
}

static void show(const char *text, size_t bytes)
{
    for (size_t at = 0, length; at < bytes; at += length) {
        uint32_t code;
        length = letter_of((const uint8_t *)text + at, bytes - at, &code);
        if (!length)
            code = (uint8_t)text[at];
        const int goes_on = text[at] == '\n' && strncmp(text + at + 1, "  ", 2) == 0;
        if (length && (printable(code) || goes_on))
            fwrite(text + at, 1, length, stderr);
        else if (text[at] == '\n' || text[at] == '\r' || text[at] == '\t')
            fprintf(stderr, "\\%c", text[at] == '\n' ? 'n' : text[at] == '\r' ? 'r' : 't');
        else
            fprintf(stderr, code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)code);
        length = length ? length : 1;
    }
}

void complain(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    const int length = vsnprintf(0, 0, format, values);
    va_end(values);
    if (length < 0)
        return;
    char *text = enough(0, (size_t)length + 1);
    va_start(values, format);
    vsnprintf(text, (size_t)length + 1, format, values);
    va_end(values);
    show(text, (size_t)length);
    fputc('\n', stderr);
    free(text);
}
