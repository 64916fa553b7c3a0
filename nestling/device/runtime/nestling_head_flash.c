/* See nestling_head.h: two slots of flash. Only the slot that does not hold the newest whole head is ever erased. */
#include "nestling_head_parts.h"

/* The slot with the newest whole head of at most `bytes`, -1 where there is none; header: a copy of its header. */
static int newest_slot(const nestling_flash *flash, uint32_t bytes, nestling_head_header *header)
{
    int newest = -1;
    for (int slot = 0; slot < 2; slot++) {
        nestling_head_header other;
        if (nestling_head_state_of(flash->slot(flash->user, slot), bytes, &other) != NESTLING_HEAD_WHOLE)
            continue;
        if (newest < 0 || other.saves > header->saves) {
            newest = slot;
            *header = other;
        }
    }
    return newest;
}

int nestling_flash_save(const nestling_flash *flash, nestling_head *head)
{
    nestling_head_header saved;
    const int newest = newest_slot(flash, head->header->bytes, &saved), slot = newest == 0;
    if (newest >= 0 && saved.saves > head->header->saves)
        head->header->saves = saved.saves;
    if (nestling_head_seal(head) != NESTLING_HEAD_WHOLE)
        return 1; /* what could not be read takes nobody's place */
    if (flash->erase(flash->user, slot))
        return 1;
    return flash->write(flash->user, slot, 0, head->header, head->header->bytes) != 0;
}

int nestling_flash_load(const nestling_flash *flash, void *memory, uint32_t bytes, nestling_head *head)
{
    nestling_head_header header = {.bytes = 0}; /* GCC does not see that a slot that is found has set it */
    const int slot = newest_slot(flash, bytes, &header);
    if (slot < 0)
        return -1;
    copy(memory, flash->slot(flash->user, slot), header.bytes);
    return nestling_head_open(memory, bytes, head) == NESTLING_HEAD_WHOLE ? slot : -1;
}
