/* Images from standard input through the network; their logits to standard output. The arena is just as large as it must be. */
#include <stdio.h>
#include <stdlib.h>

#include "nestling_model.h"

int main(void)
{
    enum { BYTES = NESTLING_INPUT_HEIGHT * NESTLING_INPUT_WIDTH * NESTLING_INPUT_CHANNELS };
    static uint8_t image[BYTES];
    static float logits[NESTLING_CLASSES];
    void *arena = malloc(NESTLING_ARENA_BYTES);
    while (arena && fread(image, 1, BYTES, stdin) == BYTES) {
        nestling_predict(arena, image, logits);
        fwrite(logits, sizeof *logits, NESTLING_CLASSES, stdout);
    }
    free(arena);
    return arena == 0;
}
