/* Start-up, SysTick and semihosting of Cortex-M machines. Source: Armv7-M and Armv8-M Architecture Reference Manuals. */
#include "board.h"
#include "semihosting.h"

#ifndef SYSTICK_RELOAD
#define SYSTICK_RELOAD 0xffffffu /* the counter has 24 bits */
#endif

static volatile uint32_t *const SYST_CSR = (volatile uint32_t *)0xe000e010u; /* control and status */
static volatile uint32_t *const SYST_RVR = (volatile uint32_t *)0xe000e014u; /* reload value */
static volatile uint32_t *const SYST_CVR = (volatile uint32_t *)0xe000e018u; /* current value, counts down */
static volatile uint32_t *const ICSR = (volatile uint32_t *)0xe000ed04u;     /* which exceptions wait */
static volatile uint32_t *const CPACR = (volatile uint32_t *)0xe000ed88u;    /* who may use the coprocessors */

extern const uint32_t board_data_load[]; /* from the linker script */
extern uint32_t board_data_start[], board_data_end[], board_bss_start[], board_bss_end[];
extern void board_stack_top(void); /* an address; a function's type makes it an entry of the table below */

int main(void);
void board_reset(void);

static volatile uint32_t wraps;

void board_start(void)
{
    wraps = 0;
    *SYST_RVR = SYSTICK_RELOAD;
    *SYST_CVR = 0;
    *SYST_CSR = 7; /* on, with its interrupt, counting the processor's clock */
}

/* Each time round the counter ends in an interrupt; while one waits, the counter is ahead of `wraps`. */
uint64_t board_ticks(void)
{
    uint32_t before, value;
    do {
        before = wraps;
        value = *SYST_CVR;
    } while (before != wraps || (*ICSR & 1u << 26));
    return (uint64_t)before * (SYSTICK_RELOAD + 1u) + (value ? SYSTICK_RELOAD + 1u - value : 0u);
}

void board_loop(uint32_t rounds)
{
    __asm__ volatile("1: subs %0, #1\n\tbne 1b" : "+l"(rounds) : : "cc");
}

intptr_t semihosting(intptr_t operation, const void *argument)
{
    register intptr_t first __asm__("r0") = operation;
    register const void *second __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(first) : "r"(second) : "memory");
    return first;
}

static void count_wrap(void)
{
    wraps = wraps + 1;
}

static void fault(void)
{
    board_print("{\"error\": \"the processor stopped with a fault\"}\n");
    semihosting_exit(125);
}

__attribute__((noinline, noreturn)) static void run(void)
{
    const uint32_t *from = board_data_load;
    for (uint32_t *to = board_data_start; to < board_data_end; to++)
        *to = *from++;
    for (uint32_t *to = board_bss_start; to < board_bss_end; to++)
        *to = 0;
    semihosting_exit(main());
}

void board_reset(void)
{
    *CPACR |= 0xfu << 20; /* floating point and vectors, before anything could use them */
    __asm__ volatile("dsb\n\tisb" : : : "memory");
    run();
}

typedef void (*Handler)(void);
__attribute__((section(".vectors"), used)) static const Handler vectors[16] = {
    board_stack_top, board_reset, fault, fault, fault, fault, fault, fault, 0, 0, 0, fault, fault, 0, fault, count_wrap,
};
