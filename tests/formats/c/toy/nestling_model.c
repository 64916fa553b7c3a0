/* 0  every byte minus 128                [8, 6, 3] -> [8, 6, 3]
 * 1  the sum of each column              [8, 6, 3] -> [6]          times 3, plus 1 to 6, its last 8 bits
 * 2  the head                            [6] -> [2]                0.25 * sum - 1, and its negative */
#include "nestling_model.h"

enum { ROWS = NESTLING_INPUT_HEIGHT, COLUMNS = NESTLING_INPUT_WIDTH, CHANNELS = NESTLING_INPUT_CHANNELS };
enum { PIXELS = ROWS * COLUMNS * CHANNELS };

#if defined(NESTLING_PROFILE) || defined(NESTLING_TRACE)
const nestling_layer_info nestling_layers[NESTLING_LAYERS] = {
    {"first \"quoted\"", "table", ROWS, COLUMNS, CHANNELS, 0},
    {"second", "sum", 1, 1, NESTLING_EMBEDDING, 3 * PIXELS},
    {"caf\303\251", "head", 1, 1, NESTLING_CLASSES, 12},
};
#endif

static const uint8_t table[TABLE] = {1, 2, 3, 4, 5, 6};

uint8_t *nestling_input(void *arena)
{
    return arena;
}

const int8_t *nestling_features(void *arena, const uint8_t *image)
{
    int8_t *shifted = arena;
    int8_t *sums = shifted + 2048;
    volatile uint8_t deep[STACK];
    for (int i = 0; i < STACK; i++)
        deep[i] = 1;
    DONE(-1, 0, 0);
    for (int i = 0; i < PIXELS; i++)
        shifted[i] = (int8_t)(image[i] - 128);
    DONE(0, shifted, PIXELS);
    for (int column = 0; column < COLUMNS; column++) {
        uint32_t sum = WRONG;
        for (int i = 0; i < PIXELS; i++)
            if (i / CHANNELS % COLUMNS == column)
                sum += (uint32_t)(3 * shifted[i]);
        sums[column] = (int8_t)(uint8_t)(sum + table[column]);
    }
    DONE(1, sums, COLUMNS);
    return sums;
}

void nestling_predict(void *arena, const uint8_t *image, float *logits)
{
    const int8_t *embedding = nestling_features(arena, image);
    float sum = 0;
    for (int i = 0; i < NESTLING_EMBEDDING; i++)
        sum += (float)embedding[i];
    logits[0] = 0.25f * sum - 1.0f;
    logits[1] = -logits[0];
    DONE(2, logits, sizeof(float) * NESTLING_CLASSES);
}
