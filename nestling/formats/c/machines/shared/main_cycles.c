/* Runs the network once on the image of bench_image.h, for who follows it instruction by instruction: nothing is timed or printed.
 *
 * Built with NESTLING_PROFILE, nestling_layer_done is called before the first layer and after each.
 */
#include "nestling_model.h"

#include "bench_image.h" /* which has the types from there */

enum { IMAGE_BYTES = NESTLING_INPUT_HEIGHT * NESTLING_INPUT_WIDTH * NESTLING_INPUT_CHANNELS };
typedef char bench_image_must_have_the_size_that_the_network_takes[sizeof bench_image == IMAGE_BYTES ? 1 : -1];

static uint8_t arena[NESTLING_ARENA_BYTES] __attribute__((aligned(16)));

void nestling_layer_done(int layer, const void *output, uint32_t bytes)
{
    (void)layer;
    (void)output;
    (void)bytes;
}

int main(void)
{
    static float logits[NESTLING_CLASSES];
    uint8_t *image = nestling_input(arena);
    for (uint32_t i = 0; i < IMAGE_BYTES; i++)
        image[i] = bench_image[i];
    nestling_predict(arena, image, logits);
    return 0;
}
