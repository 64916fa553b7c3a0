/* A call to the debugger or emulator that the program runs in. Source: Arm's "Semihosting for AArch32 and AArch64". */
#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stdint.h>

intptr_t semihosting(intptr_t operation, const void *argument);

/* Ends the emulator with this exit status. */
void semihosting_exit(int status) __attribute__((noreturn));

#endif
