/* What a machine gives to a program that measures: a timer, a way to speak, the depth of the stack. main() returns the exit status. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

/* Ticks since board_start(). How many instructions (or nanoseconds) a tick is, is found with board_loop(). */
void board_start(void);
uint64_t board_ticks(void);

/* Runs 2 * rounds instructions (on a hosted system: about so many). rounds > 0. */
void board_loop(uint32_t rounds);

/* To standard output. */
void board_print(const char *text);

/* Appends to the file trace.bin beside the program. Returns 0, or 1 where it cannot be written. */
int board_trace(const void *bytes, uint32_t count);

/* Fills the free stack with a pattern; later tells how many bytes of it, at most, were in use at once: 0 where that is not known. */
void board_paint(void);
uint32_t board_painted(void);

#endif
