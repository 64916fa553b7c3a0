/* A microcontroller that learns: it embeds a few images, learns from them, saves into two slots, restarts, and goes on from there.
 *
 * An example to start a firmware from. Prints JSON, a line at a time. The exit status is 0, or 1 where something failed.
 * head_nst.h gives the head that was packed: HEAD_NST_BYTES and the bytes head_nst.
 * With LEARN_IMAGES, learn_images.h gives the images: LEARN_COUNT, learn_images [LEARN_COUNT][height * width * channels] uint8 and
 * learn_labels [LEARN_COUNT]; otherwise they are made up, stripes that differ from class to class.
 * Here the slots are arrays in RAM; a board has erase and write of its flash in their place, and reads its slots where they lie.
 */
#include "board.h"
#include "head_nst.h"
#include "nestling_head.h"
#include "nestling_model.h"

enum { IMAGE_BYTES = NESTLING_INPUT_HEIGHT * NESTLING_INPUT_WIDTH * NESTLING_INPUT_CHANNELS };
enum { STEPS = 20, SAVE_EVERY = 5, WORDS = (HEAD_NST_BYTES + 7) / 8 };
enum { MOST_CLASSES = HEAD_NST_BYTES / (6 * NESTLING_EMBEDDING) }; /* a row takes 4 bytes an input, and 2 or more for its moment */

#ifdef LEARN_IMAGES
#include "learn_images.h"
#else
enum { LEARN_COUNT = 8 };
#endif

static uint8_t arena[NESTLING_ARENA_BYTES] __attribute__((aligned(16)));
static uint64_t memory[WORDS], slots[2][WORDS];
static int8_t embeddings[LEARN_COUNT][NESTLING_EMBEDDING];
static float work[LEARN_COUNT * MOST_CLASSES];

/* ---- flash, or what stands for it -------------------------------------------------------------------------------------------- */

static const void *slot_at(void *user, int slot)
{
    (void)user;
    return slots[slot];
}

static int erase(void *user, int slot)
{
    (void)user;
    for (uint32_t i = 0; i < WORDS; i++)
        slots[slot][i] = UINT64_MAX;
    return 0;
}

static int write(void *user, int slot, uint32_t offset, const void *bytes, uint32_t count)
{
    (void)user;
    uint8_t *to = (uint8_t *)slots[slot] + offset;
    for (uint32_t i = 0; i < count; i++)
        to[i] = ((const uint8_t *)bytes)[i];
    return 0;
}

static const nestling_flash flash = {0, slot_at, erase, write};

/* ---- printing ---------------------------------------------------------------------------------------------------------------- */

static void print_field(const char *before, uint64_t value)
{
    char text[24];
    char *digit = text + sizeof text - 1;
    *digit = 0;
    do {
        *--digit = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    board_print(before);
    board_print(digit);
}

static int fail(const char *why)
{
    board_print("{\"error\": \"");
    board_print(why);
    board_print("\"}\n");
    return 1;
}

/* ---- the run ------------------------------------------------------------------------------------------------------------- */

/* The newest head that was saved, or where there is none the one that was packed. 0: done. */
static int start(nestling_head *head)
{
    const int slot = nestling_flash_load(&flash, memory, sizeof memory, head);
    if (slot < 0) {
        for (uint32_t i = 0; i < HEAD_NST_BYTES; i++)
            ((uint8_t *)memory)[i] = head_nst[i];
        if (nestling_head_open(memory, HEAD_NST_BYTES, head) != NESTLING_HEAD_WHOLE)
            return fail("the packed head is damaged");
    }
    if (head->header->inputs != NESTLING_EMBEDDING || head->header->max_classes > MOST_CLASSES)
        return fail("another head");
    for (uint32_t i = 0; i < sizeof nestling_graph; i++) {
        if (head->header->graph[i] != nestling_graph[i])
            return fail("the head belongs to another network");
    }
    print_field("{\"slot\": ", slot < 0 ? 2 : (uint64_t)slot);
    print_field(", \"steps\": ", head->header->steps);
    print_field(", \"saves\": ", head->header->saves);
    board_print("}\n");
    return 0;
}

/* Embeds image i into its row and returns its class. */
static uint32_t embed(uint32_t i, uint32_t classes)
{
    uint8_t *image = nestling_input(arena);
#ifdef LEARN_IMAGES
    const uint32_t label = learn_labels[i];
    for (uint32_t p = 0; p < IMAGE_BYTES; p++)
        image[p] = learn_images[i][p];
    (void)classes;
#else
    const uint32_t label = i % classes;
    for (uint32_t p = 0; p < IMAGE_BYTES; p++)
        image[p] = (uint8_t)(p * (3 + 5 * label) + i * 11);
#endif
    const int8_t *embedding = nestling_features(arena, image);
    for (uint32_t k = 0; k < NESTLING_EMBEDDING; k++)
        embeddings[i][k] = embedding[k];
    return label;
}

int main(void)
{
    nestling_head head;
    nestling_sample samples[LEARN_COUNT];
    board_start();
    if (start(&head))
        return 1;
    for (uint32_t i = 0; i < LEARN_COUNT; i++) {
        samples[i].label = embed(i, head.header->classes);
        samples[i].embedding = embeddings[i];
        if (samples[i].label >= head.header->classes)
            return fail("an image of a class that the head does not know");
    }
    for (uint32_t step = 1; step <= STEPS; step++) {
        const float loss = nestling_learn_step(&head, samples, LEARN_COUNT, work);
        if (step % SAVE_EVERY == 0 && nestling_flash_save(&flash, &head))
            return fail("the flash could not be written");
        print_field("{\"step\": ", head.header->steps);
        print_field(", \"loss_in_millionths\": ", (uint64_t)(loss * 1e6f));
        board_print("}\n");
    }
    for (uint32_t i = 0; i < WORDS; i++)
        memory[i] = 0; /* the power goes and comes back */
    return start(&head);
}
