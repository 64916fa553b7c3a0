/* Two hundred steps on embeddings made up from integers alone; then the sealed head goes into trace.bin. For any machine with a
 * board.h. */
#include "board.h"
#include "head_nst.h"
#include "nestling_head.h"

enum { STEPS = 200, ITEMS = 64, BATCH = 16, MOST_INPUTS = 256, MOST_CLASSES = 16 };

static uint64_t memory[(HEAD_NST_BYTES + 7) / 8];
static int8_t items[ITEMS][MOST_INPUTS];
static uint32_t labels[ITEMS], places[ITEMS], starts[MOST_CLASSES + 1];
static float work[BATCH * MOST_CLASSES];

int main(void)
{
    nestling_head head;
    nestling_sample batch[BATCH];
    board_start();
    for (uint32_t i = 0; i < HEAD_NST_BYTES; i++)
        ((uint8_t *)memory)[i] = head_nst[i];
    if (nestling_head_open(memory, HEAD_NST_BYTES, &head) != NESTLING_HEAD_WHOLE)
        return 1;
    nestling_head_header *header = head.header;
    if (header->inputs > MOST_INPUTS || header->max_classes > MOST_CLASSES || header->batch > BATCH)
        return 1;
    for (uint32_t i = 0; i < ITEMS; i++) {
        labels[i] = i * i % 7 % header->classes;
        for (uint32_t k = 0; k < header->inputs; k++)
            items[i][k] = (int8_t)((i * 37 + (k + 1) * (3 + labels[i]) * 5) % 251 - 125);
    }
    nestling_order order = {.items = ITEMS, .classes = header->classes, .labels = labels, .places = places, .starts = starts};
    order.balanced = (int)header->balanced;
    for (uint32_t step = 0; step < STEPS; step++) {
        nestling_order_make(&order, header->seed, header->epoch);
        uint32_t used = 0;
        for (; used < header->batch && header->position + used < order.length; used++) {
            const uint32_t item = nestling_order_item(&order, header->position + used);
            batch[used].embedding = items[item];
            batch[used].label = labels[item];
        }
        nestling_learn_step(&head, batch, used, work);
        header->position += used;
        if (header->position == order.length) {
            header->position = 0;
            header->epoch++;
        }
    }
    nestling_head_seal(&head);
    if (board_trace(memory, HEAD_NST_BYTES))
        return 1;
    board_print("{\"done\": true}\n");
    return 0;
}
