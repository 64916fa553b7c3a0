/* flash_cuts HEAD STEPS SAVE_EVERY CUTS SEED: learns with two slots of flash while the power goes CUTS times, after a random number
 * of bytes that were erased or written; the byte at which it goes becomes any byte. With no cuts left it goes on to STEPS.
 *
 * Each start prints a line: steps found, steps of the last save that was finished, steps of the save that was cut (0: none).
 * At the end the head goes into HEAD. Exit status: 0, or 1 where a start found no head or something failed. */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nestling_head.h"

enum { ITEMS = 12, BATCH = 4 };

typedef struct {
    uint8_t *slots[2];
    uint32_t bytes;
    uint64_t random, left; /* bytes until the power goes; UINT64_MAX: it stays */
    jmp_buf off;
} board;

static uint32_t draw(board *b, uint32_t below)
{
    b->random = b->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(b->random >> 33) % below;
}

static void touch(board *b, uint8_t *byte, uint8_t value)
{
    if (b->left == 0) {
        *byte = (uint8_t)draw(b, 256);
        longjmp(b->off, 1);
    }
    if (b->left != UINT64_MAX)
        b->left--;
    *byte = value;
}

static const void *slot_at(void *user, int slot)
{
    return ((board *)user)->slots[slot];
}

static int erase(void *user, int slot)
{
    board *b = user;
    for (uint32_t i = 0; i < b->bytes; i++)
        touch(b, b->slots[slot] + i, 0xff);
    return 0;
}

static int write(void *user, int slot, uint32_t offset, const void *bytes, uint32_t count)
{
    board *b = user;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *byte = b->slots[slot] + offset + i;
        if (*byte != 0xff)
            return 1; /* it was not erased */
        touch(b, byte, ((const uint8_t *)bytes)[i]);
    }
    return 0;
}

static void step(nestling_head *head, float *work)
{
    static int8_t items[BATCH][64];
    nestling_sample batch[BATCH];
    for (uint32_t i = 0; i < BATCH; i++) {
        const uint32_t item = (uint32_t)(head->header->steps * BATCH + i) % ITEMS;
        batch[i].label = item % head->header->classes;
        batch[i].embedding = items[i];
        for (uint32_t k = 0; k < head->header->inputs; k++) {
            items[i][k] = (int8_t)((item * 37 + k * (3 + item % 5) * 5) % 251 - 125);
        }
    }
    nestling_learn_step(head, batch, BATCH, work);
}

int main(int count, char **arguments)
{
    if (count != 6)
        return 2;
    const uint64_t steps = strtoull(arguments[2], 0, 10), every = strtoull(arguments[3], 0, 10);
    static uint64_t packed[4096], memory[4096];
    static float work[BATCH * 32];
    static board b;
    volatile uint64_t finished = 0, cut = 0;
    volatile int cuts = atoi(arguments[4]);
    FILE *file = fopen(arguments[1], "rb");
    if (!file)
        return 1;
    b.bytes = (uint32_t)fread(packed, 1, sizeof packed, file);
    fclose(file);
    b.random = strtoull(arguments[5], 0, 10);
    for (int s = 0; s < 2; s++) {
        b.slots[s] = malloc(b.bytes);
        if (!b.slots[s])
            return 1;
        memset(b.slots[s], 0xff, b.bytes);
    }
    memcpy(b.slots[0], packed, b.bytes); /* as the factory left it */
    const nestling_flash flash = {&b, slot_at, erase, write};
    nestling_head head;
    if (setjmp(b.off))
        cuts = cuts - 1;
    b.left = cuts > 0 ? draw(&b, 5 * b.bytes) : UINT64_MAX;
    memset(memory, 0x5a, sizeof memory); /* RAM forgets */
    if (nestling_flash_load(&flash, memory, sizeof memory, &head) < 0 || head.header->inputs > 64)
        return 1;
    printf("%llu %llu %llu\n", (unsigned long long)head.header->steps, (unsigned long long)finished, (unsigned long long)cut);
    finished = head.header->steps;
    while (head.header->steps < steps) {
        step(&head, work);
        if (head.header->steps % every && head.header->steps != steps)
            continue;
        cut = head.header->steps;
        if (nestling_flash_save(&flash, &head))
            return 1;
        finished = head.header->steps;
        cut = 0;
        if (finished == steps && cuts > 0)
            break;
    }
    file = fopen(arguments[1], "wb");
    if (!file || fwrite(memory, 1, head.header->bytes, file) != head.header->bytes || fclose(file))
        return 1;
    free(b.slots[0]);
    free(b.slots[1]);
    return 0;
}
