/* See nestling_file.h. */
#define _POSIX_C_SOURCE 200809L
#include "nestling_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PLAIN, PREVIOUS, PART, FILES };
static const char *const suffixes[FILES] = {"", ".previous", ".part"};

/* One of the three files. why: why it is no whole head, "" where there is no such file. memory: of the newest whole one, else 0. */
typedef struct {
    char *name;
    int whole;
    uint32_t saves;
    void *memory;
    uint32_t bytes;
    nestling_head head;
    char why[160];
} candidate;

/* ---- reading ---------------------------------------------------------------------------------------------------------------- */

/* The whole file in memory from malloc, or 0 with errno set. */
static void *read_file(const char *name, uint32_t *bytes)
{
    struct stat status;
    const int file = open(name, O_RDONLY | O_NONBLOCK); /* a pipe would wait for ever */
    if (file < 0)
        return 0;
    void *memory = 0;
    int said = EFBIG;
    if (fstat(file, &status)) {
        said = errno;
    } else if (!S_ISREG(status.st_mode)) {
        said = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
    } else if ((uint64_t)status.st_size <= NESTLING_HEAD_MOST_BYTES) {
        size_t done = 0;
        const size_t size = (size_t)status.st_size;
        memory = malloc(size + 1);
        said = memory ? 0 : ENOMEM;
        while (memory && done < size) {
            const ssize_t count = read(file, (char *)memory + done, size - done);
            if (count < 0 && errno == EINTR)
                continue;
            if (count <= 0)
                break; /* what is missing then shows in nestling_head_open */
            done += (size_t)count;
        }
        *bytes = (uint32_t)done;
    }
    close(file);
    errno = said;
    return memory;
}

static void forget(candidate *one)
{
    free(one->memory);
    one->memory = 0;
}

static void look_at(candidate *one)
{
    nestling_head_bound wrong;
    one->memory = read_file(one->name, &one->bytes);
    if (!one->memory) {
        if (errno != ENOENT)
            snprintf(one->why, sizeof one->why, "%s", strerror(errno));
        return;
    }
    const nestling_head_state state = nestling_head_open(one->memory, one->bytes, &one->head);
    one->whole = state == NESTLING_HEAD_WHOLE && one->head.header->bytes == one->bytes;
    if (one->whole) {
        one->saves = one->head.header->saves;
        return;
    }
    if (state == NESTLING_HEAD_BOUNDS && nestling_head_outside(one->memory, &wrong)) {
        snprintf(one->why, sizeof one->why, "damaged: %s is %.10g and should be from %.10g to %.10g", wrong.name, wrong.value,
                 wrong.least, wrong.most);
    } else {
        snprintf(one->why, sizeof one->why, "%s", state == NESTLING_HEAD_WHOLE ? "longer than it says" : nestling_head_said(state));
    }
    forget(one);
}

static void let_go(candidate *files)
{
    for (int i = 0; i < FILES; i++) {
        free(files[i].name);
        forget(files + i);
    }
}

/* Reads all three. Returns the newest whole one's number, or -1; -2 where there is no memory for their names. */
static int look_at_all(const char *path, candidate *files)
{
    int newest = -1, lacking = 0;
    memset(files, 0, FILES * sizeof *files);
    for (int i = 0; i < FILES; i++) {
        const size_t room = strlen(path) + strlen(suffixes[i]) + 1;
        files[i].name = malloc(room);
        if (files[i].name)
            snprintf(files[i].name, room, "%s%s", path, suffixes[i]);
        lacking |= !files[i].name;
    }
    if (lacking)
        return -2;
    for (int i = 0; i < FILES; i++) {
        look_at(files + i);
        if (!files[i].whole)
            continue;
        const int older = newest >= 0 && files[i].saves <= files[newest].saves;
        if (older || newest >= 0)
            forget(files + (older ? i : newest)); /* two in memory are enough */
        if (!older)
            newest = i;
    }
    return newest;
}

/* Appends, cut to what fits. */
static void append(char *said, uint32_t said_bytes, const char *text)
{
    const size_t used = strlen(said);
    snprintf(said + used, said_bytes - used, "%s", text);
}

static void say(const candidate *files, int newest, char *said, uint32_t said_bytes)
{
    char steps[40];
    said[0] = 0;
    for (int i = 0; i < FILES; i++) {
        const int missing = !files[i].whole && !*files[i].why;
        if ((missing && i != PLAIN) || i == newest || (files[i].whole && i != PLAIN))
            continue;
        append(said, said_bytes, files[i].name);
        append(said, said_bytes, files[i].whole ? " is older" : missing ? " is not there" : ": ");
        append(said, said_bytes, files[i].why);
        append(said, said_bytes, "; ");
    }
    if (newest > PLAIN) {
        snprintf(steps, sizeof steps, ", %llu steps", (unsigned long long)files[newest].head.header->steps);
        append(said, said_bytes, "taken: ");
        append(said, said_bytes, files[newest].name);
        append(said, said_bytes, steps);
    } else if (said[0]) {
        const size_t length = strlen(said);
        if (length >= 2 && strcmp(said + length - 2, "; ") == 0)
            said[length - 2] = 0;
    }
}

int nestling_file_load(const char *path, void **memory, uint32_t *bytes, nestling_head *head, char *said, uint32_t said_bytes)
{
    candidate files[FILES];
    const int newest = look_at_all(path, files);
    if (newest == -2) {
        snprintf(said, said_bytes, "%s", strerror(ENOMEM));
    } else {
        say(files, newest, said, said_bytes);
    }
    if (newest >= 0) {
        *memory = files[newest].memory;
        *bytes = files[newest].bytes;
        *head = files[newest].head;
        files[newest].memory = 0;
    }
    let_go(files);
    return newest < 0;
}

/* ---- saving ----------------------------------------------------------------------------------------------------------------- */

/* 0, or errno, the file then removed. */
static int write_file(const char *name, const uint8_t *content, uint32_t bytes)
{
    const int file = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (file < 0)
        return errno;
    uint32_t done = 0;
    int said = 0;
    while (!said && done < bytes) {
        const ssize_t count = write(file, content + done, bytes - done);
        if (count > 0) {
            done += (uint32_t)count;
        } else if (count == 0 || errno != EINTR) {
            said = count ? errno : EIO;
        }
    }
    if (!said && fsync(file))
        said = errno;
    if (close(file) && !said)
        said = errno;
    if (said)
        unlink(name);
    return said;
}

static int sync_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    const size_t length = slash ? (size_t)(slash - path) + 1 : 1;
    char *folder = malloc(length + 1);
    if (!folder)
        return ENOMEM;
    memcpy(folder, slash ? path : ".", length);
    folder[length] = 0;
    const int opened = open(folder, O_RDONLY);
    int said = opened < 0 ? errno : 0;
    if (!said && fsync(opened) && errno != EINVAL)
        said = errno; /* EINVAL: a file system that has no such thing */
    if (opened >= 0)
        close(opened);
    free(folder);
    return said;
}

/* keep: X is whole and becomes X.previous; a damaged one does not take the place of a whole one before it. */
static int put_in_place(const candidate *files, int keep)
{
    const char *path = files[PLAIN].name, *previous = files[PREVIOUS].name;
    if (keep) {
        if (unlink(previous) && errno != ENOENT)
            return errno;
        if (link(path, previous) && rename(path, previous))
            return errno; /* rename: a file system without links */
    }
    if (rename(files[PART].name, path))
        return errno;
    return sync_folder_of(path);
}

/* A rename would put a file in place of a pipe or of /dev/null. A link is replaced, not followed. */
static int taken_by_no_file(const char *path)
{
    struct stat found;
    if (lstat(path, &found) || S_ISREG(found.st_mode) || S_ISLNK(found.st_mode))
        return 0;
    return S_ISDIR(found.st_mode) ? EISDIR : EINVAL;
}

int nestling_file_save(const char *path, nestling_head *head)
{
    candidate files[FILES];
    const int newest = look_at_all(path, files);
    int whole = newest >= 0 && files[PLAIN].whole, said = newest == -2 ? ENOMEM : taken_by_no_file(path);
    if (newest >= 0)
        forget(files + newest);
    if (!said && newest >= 0 && files[newest].saves > head->header->saves)
        head->header->saves = files[newest].saves;
    const nestling_head_state state = said ? NESTLING_HEAD_WHOLE : nestling_head_seal(head);
    if (state != NESTLING_HEAD_WHOLE)
        said = state == NESTLING_HEAD_NUMBERS ? EDOM : EOVERFLOW;
    if (!said && newest == PART) { /* a save that was stopped before its rename: it is finished first */
        said = put_in_place(files, whole);
        whole = 1;
    }
    if (!said)
        said = write_file(files[PART].name, (const uint8_t *)head->header, head->header->bytes);
    if (!said)
        said = put_in_place(files, whole);
    let_go(files);
    return said;
}
