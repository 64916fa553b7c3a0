/* The board of a program with an operating system: standard output, files, and nanoseconds as ticks. */
#define _POSIX_C_SOURCE 199309L
#include "board.h"

#include <stdio.h>
#include <time.h>

static int64_t begun;

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void board_start(void)
{
    begun = nanoseconds();
}

uint64_t board_ticks(void)
{
    return (uint64_t)(nanoseconds() - begun);
}

void board_loop(uint32_t rounds)
{
    for (volatile uint32_t left = rounds; left; left = left - 1) {
    }
}

void board_print(const char *text)
{
    fputs(text, stdout);
    fflush(stdout);
}

int board_trace(const void *bytes, uint32_t count)
{
    static FILE *file;
    if (!file)
        file = fopen("trace.bin", "wb");
    return !file || fwrite(bytes, 1, count, file) != count || fflush(file) != 0;
}

void board_paint(void) {}

uint32_t board_painted(void)
{
    return 0;
}
