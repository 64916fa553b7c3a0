/* Runs the network on one image and prints JSON, a line at a time: the timer's calibration, the answers, then each layer's ticks.
 *
 * With BENCH_IMAGE the image is that of bench_image.h, otherwise a pattern. With NESTLING_PROFILE or NESTLING_TRACE there is a line
 * a layer; with NESTLING_TRACE each layer's bytes also go into trace.bin, one after the other.
 * The exit status is 0, or 1 where the trace could not be written.
 */
#include "board.h"
#include "nestling_model.h"

#ifndef BENCH_RUNS
#define BENCH_RUNS 1
#endif

enum { IMAGE_BYTES = NESTLING_INPUT_HEIGHT * NESTLING_INPUT_WIDTH * NESTLING_INPUT_CHANNELS };
enum { CALIBRATION_ROUNDS = 5000000 }; /* of two instructions */

#ifdef BENCH_IMAGE
#include "bench_image.h"
typedef char bench_image_must_have_the_size_that_the_network_takes[sizeof bench_image == IMAGE_BYTES ? 1 : -1];
#endif

static uint8_t arena[NESTLING_ARENA_BYTES] __attribute__((aligned(16)));

/* ---- printing ------------------------------------------------------------------------------------------------------------- */

static void print_number(uint64_t value)
{
    char text[24];
    char *digit = text + sizeof text - 1;
    *digit = 0;
    do {
        *--digit = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    board_print(digit);
}

static void print_field(const char *name, uint64_t value)
{
    board_print(", \"");
    board_print(name);
    board_print("\": ");
    print_number(value);
}

static void print_hex(const void *bytes, uint32_t count)
{
    static const char digits[] = "0123456789abcdef";
    char text[65];
    for (uint32_t done = 0; done < count;) {
        uint32_t used = 0;
        for (; used < 64 && done < count; done++) {
            const uint8_t byte = ((const uint8_t *)bytes)[done];
            text[used++] = digits[byte >> 4];
            text[used++] = digits[byte & 15];
        }
        text[used] = 0;
        board_print(text);
    }
}

/* ---- layers --------------------------------------------------------------------------------------------------------------- */

#if defined(NESTLING_PROFILE) || defined(NESTLING_TRACE)

static uint64_t took[NESTLING_LAYERS][BENCH_RUNS];
static uint32_t written[NESTLING_LAYERS];
static uint8_t known[NESTLING_LAYERS];
static uint64_t last;
static uint32_t run;
static int failed;

/* Only what features and head did first is kept: the second call of this run may go through the same layers again. */
void nestling_layer_done(int layer, const void *output, uint32_t bytes)
{
    const uint64_t now = board_ticks();
    if (layer >= 0 && known[layer] == run) {
        known[layer] = (uint8_t)(run + 1);
        took[layer][run] = now - last;
        written[layer] = bytes;
#ifdef NESTLING_TRACE
        failed |= board_trace(output, bytes);
#endif
    }
    (void)output;
    last = board_ticks();
}

static void print_text(const char *text)
{
    static const char digits[] = "0123456789abcdef";
    char escaped[7] = {'\\', 'u', '0', '0', 0, 0, 0};
    char plain[2] = {0, 0};
    for (; *text; text++) {
        const uint8_t byte = (uint8_t)*text;
        escaped[4] = digits[byte >> 4];
        escaped[5] = digits[byte & 15];
        plain[0] = *text;
        board_print(byte < ' ' || byte == '"' || byte == '\\' ? escaped : plain);
    }
}

static void print_layer(int layer)
{
    const nestling_layer_info *info = nestling_layers + layer;
    board_print("{\"layer\": ");
    print_number((uint64_t)layer);
    board_print(", \"name\": \"");
    print_text(info->name);
    board_print("\", \"kind\": \"");
    print_text(info->kind);
    board_print("\"");
    print_field("height", (uint64_t)info->height);
    print_field("width", (uint64_t)info->width);
    print_field("channels", (uint64_t)info->channels);
    print_field("macs", (uint64_t)info->macs);
    print_field("bytes", written[layer]);
    board_print(", \"ticks\": [");
    for (uint32_t i = 0; i < BENCH_RUNS; i++) {
        if (i)
            board_print(", ");
        print_number(took[layer][i]);
    }
    board_print("]}\n");
}

#endif

/* ---- the run -------------------------------------------------------------------------------------------------------------- */

static const uint8_t *fresh_image(void)
{
    uint8_t *image = nestling_input(arena);
    for (uint32_t i = 0; i < IMAGE_BYTES; i++) {
#ifdef BENCH_IMAGE
        image[i] = bench_image[i];
#else
        image[i] = (uint8_t)(i * 37u + (i >> 6));
#endif
    }
    return image;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static void calibrate(void)
{
    const uint64_t begun = board_ticks();
    board_loop(CALIBRATION_ROUNDS);
    const uint64_t ended = board_ticks();
    const uint64_t read_again = board_ticks();
    board_print("{\"calibration\": {\"instructions\": ");
    print_number(2 * CALIBRATION_ROUNDS);
    print_field("ticks", ended - begun);
    print_field("reading", read_again - ended);
    board_print("}}\n");
}

int main(void)
{
    static float logits[NESTLING_CLASSES];
    uint32_t stack = 0;
    board_start();
    calibrate();
    for (uint32_t i = 0; i < BENCH_RUNS; i++) {
#if defined(NESTLING_PROFILE) || defined(NESTLING_TRACE)
        run = i;
#endif
        const uint8_t *image = fresh_image();
        board_paint();
        const int8_t *embedding = nestling_features(arena, image);
        stack = larger(stack, board_painted());
        if (i == 0) {
            board_print("{\"embedding\": \"");
            print_hex(embedding, NESTLING_EMBEDDING);
            board_print("\"}\n");
        }
        image = fresh_image();
        board_paint();
        nestling_predict(arena, image, logits);
        stack = larger(stack, board_painted());
    }
    board_print("{\"logits\": \"");
    print_hex(logits, sizeof logits);
    board_print("\"");
    print_field("stack", stack);
    board_print("}\n");
#if defined(NESTLING_PROFILE) || defined(NESTLING_TRACE)
    for (int layer = 0; layer < NESTLING_LAYERS; layer++)
        print_layer(layer);
    return failed;
#else
    return 0;
#endif
}
