/* Speaking and files through semihosting, and the painted stack: the same on every machine without an operating system. */
#include "semihosting.h"

#include "board.h"

enum { OPEN = 0x01, WRITE = 0x05, EXIT_EXTENDED = 0x20 };
enum { WRITE_TEXT = 4, WRITE_BYTES = 5 }; /* modes of OPEN: "w", "wb" */
enum { APPLICATION_EXIT = 0x20026 };
enum { PAINT = 0xa5, SPARED = 64 }; /* SPARED: bytes below board_paint()'s frame, for what it calls */

extern uint8_t board_stack_low[]; /* from the linker script */
static uint8_t *painted_from;

static uint32_t length(const char *text)
{
    uint32_t count = 0;
    while (text[count])
        count++;
    return count;
}

static intptr_t open_file(const char *name, intptr_t mode)
{
    const intptr_t argument[3] = {(intptr_t)name, mode, (intptr_t)length(name)};
    return semihosting(OPEN, argument);
}

static int write_all(intptr_t file, const void *bytes, uint32_t count)
{
    const intptr_t argument[3] = {file, (intptr_t)bytes, (intptr_t)count};
    return file < 0 || semihosting(WRITE, argument) != 0; /* WRITE answers how many bytes are left */
}

void semihosting_exit(int status)
{
    const intptr_t argument[2] = {APPLICATION_EXIT, status};
    for (;;)
        semihosting(EXIT_EXTENDED, argument);
}

void board_print(const char *text)
{
    static intptr_t console = -1;
    if (console < 0)
        console = open_file(":tt", WRITE_TEXT);
    (void)write_all(console, text, length(text));
}

int board_trace(const void *bytes, uint32_t count)
{
    static intptr_t file = -1;
    if (file < 0)
        file = open_file("trace.bin", WRITE_BYTES);
    return write_all(file, bytes, count);
}

__attribute__((noinline)) void board_paint(void)
{
    painted_from = __builtin_frame_address(0);
    for (volatile uint8_t *byte = board_stack_low; byte < painted_from - SPARED; byte++)
        *byte = PAINT;
}

uint32_t board_painted(void)
{
    const volatile uint8_t *byte = board_stack_low;
    while (byte < painted_from && *byte == PAINT)
        byte++;
    return (uint32_t)(painted_from - byte);
}
