#define _POSIX_C_SOURCE 200809L
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LARGEST = 500000000 }; /* bytes: 100 megapixels of 32 bits, and a header */

void *enough(void *old, size_t bytes) {
    void *made = realloc(old, bytes);
    if (made) return made;
    fprintf(stderr, "net_runner: there is no memory left for %zu bytes more.\n", bytes);
    exit(1);
}

char *joined(const char *folder, const char *name) {
    const size_t bytes = strlen(folder) + strlen(name) + 2;
    const int bare = !*folder || folder[strlen(folder) - 1] == '/';
    char *made = enough(0, bytes);
    snprintf(made, bytes, bare ? "%s%s" : "%s/%s", folder, name);
    return made;
}

char *beside(const char *file, const char *name) {
    const char *slash = strrchr(file, '/');
    const size_t kept = slash ? (size_t)(slash - file) + 1 : 0;
    char *made = enough(0, kept + strlen(name) + 1);
    memcpy(made, file, kept);
    strcpy(made + kept, name);
    return made;
}

/* Where a byte of a path comes: its end, then the end of a name, then the names' bytes. */
static int rank(char byte) { return !byte ? 0 : byte == '/' ? 1 : 1 + (uint8_t)byte; }

int path_order(const char *a, const char *b) {
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return rank(*a) - rank(*b);
}

static const char *contents(int file, uint8_t **content, size_t *bytes) {
    struct stat said;
    if (fstat(file, &said)) return strerror(errno);
    if (!S_ISREG(said.st_mode)) return "not a file"; /* a pipe would wait for ever */
    if (said.st_size > LARGEST) return "too large for an image";
    *content = enough(0, (size_t)said.st_size + 1);
    for (*bytes = 0; *bytes < (size_t)said.st_size;) {
        const ssize_t count = read(file, *content + *bytes, (size_t)said.st_size - *bytes);
        if (count == 0) break;
        if (count > 0) *bytes += (size_t)count;
        if (count < 0 && errno != EINTR) {
            free(*content);
            *content = 0;
            return "it cannot be read";
        }
    }
    return 0;
}

const char *read_whole(const char *path, uint8_t **content, size_t *bytes) {
    const int file = open(path, O_RDONLY | O_NONBLOCK);
    if (file < 0) return strerror(errno);
    const char *problem = contents(file, content, bytes);
    close(file);
    return problem;
}

void as_hex(const uint8_t *bytes, uint32_t count, char *made) {
    static const char digits[] = "0123456789abcdef";
    for (uint32_t i = 0; i < count; i++) {
        made[2 * i] = digits[bytes[i] >> 4];
        made[2 * i + 1] = digits[bytes[i] & 15];
    }
    made[2 * count] = 0;
}
