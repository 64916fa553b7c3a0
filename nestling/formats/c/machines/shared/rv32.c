/* Start-up, instruction counter and semihosting of a 32-bit RISC-V machine. Sources: the RISC-V Privileged Architecture (minstret,
 * mtvec), RISC-V Semihosting (the call's three instructions). */
#include "board.h"
#include "semihosting.h"

extern uint32_t board_bss_start[], board_bss_end[]; /* from the linker script */

int main(void);
void board_fault(void);
void board_run(void);

static uint64_t begun;

/* The first instruction of the program; afterwards traps end in board_fault(). */
__asm__(
    ".section .start, \"ax\"\n"
    ".option push\n"
    ".option arch, +zicsr\n"
    ".globl board_reset\n"
    "board_reset:\n"
    ".option norelax\n"
    "la gp, __global_pointer$\n"
    "la sp, board_stack_top\n"
    "la t0, board_fault\n"
    "csrw mtvec, t0\n"
    "j board_run\n"
    ".option pop\n"
    ".text\n");

void board_run(void)
{
    for (uint32_t *to = board_bss_start; to < board_bss_end; to++)
        *to = 0;
    semihosting_exit(main());
}

__attribute__((aligned(4))) void board_fault(void)
{
    board_print("{\"error\": \"the processor stopped with a trap\"}\n");
    semihosting_exit(125);
}

static uint64_t retired(void)
{
    uint32_t high, low, again;
    do {
        __asm__ volatile(
            ".option push\n\t.option arch, +zicsr\n\tcsrr %0, minstreth\n\tcsrr %1, minstret\n\tcsrr %2, minstreth\n\t.option pop"
            : "=r"(high), "=r"(low), "=r"(again));
    } while (high != again);
    return (uint64_t)high << 32 | low;
}

void board_start(void)
{
    begun = retired();
}

uint64_t board_ticks(void)
{
    return retired() - begun;
}

void board_loop(uint32_t rounds)
{
    __asm__ volatile("1: addi %0, %0, -1\n\tbnez %0, 1b" : "+r"(rounds));
}

__attribute__((noinline)) intptr_t semihosting(intptr_t operation, const void *argument)
{
    register intptr_t first __asm__("a0") = operation;
    register const void *second __asm__("a1") = argument;
    /* these three, uncompressed and on one page */
    __asm__ volatile(
        ".option push\n\t.option norvc\n\t.balign 16\n\tslli zero, zero, 0x1f\n\tebreak\n\tsrai zero, zero, 7\n\t.option pop"
        : "+r"(first)
        : "r"(second)
        : "memory");
    return first;
}
