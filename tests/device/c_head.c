/* What the tests ask of the C: its own numbers, its view of a header, and a header that it has filled. Two files of the learner
 * are included, for some of what is asked is static there; the others are linked. */
#include "nestling_head_format.c"
#include "nestling_head_learn.c"

#include <stdio.h>

enum { EXPONENTIAL, LOGARITHM, ROOT };

void numbers(int which, const float *in, float *out, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        out[i] = which == EXPONENTIAL ? exponential(in[i]) : which == LOGARITHM ? logarithm(in[i]) : root(in[i]);
    }
}

void as_bfloat16(const float *in, uint16_t *out, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        out[i] = to_bfloat16(in[i]);
}

/* A line a field: name and value, integers in decimal, floats in hexadecimal. Then where each part begins, in bytes. */
int describe(const nestling_head *head, char *text, uint32_t bytes)
{
    const nestling_head_header *h = head->header;
    const char *begin = (const char *)h;
    int used =
        snprintf(text, bytes,
                 "version %u\nbytes %u\ninputs %u\nclasses %u\nmax_classes %u\nlabel_bytes %u\noptimizer %u\nmoment_type %u\n"
                 "replay_capacity %u\nreplay_count %u\nreplay_seen %llu\nrate %a\nmomentum %a\nbeta2 %a\nepsilon %a\ndecay %a\n"
                 "input_scale %a\nembedding_scale %a\nembedding_zero %d\nseed %llu\nsteps %llu\nbegan %llu\nepoch %u\nposition %u\n"
                 "items %u\nbalanced %u\nbatch %u\nsaves %u\nlowest_loss %a\nbest_accuracy %a\nimage_height %u\nimage_width %u\n"
                 "image_channels %u\ninterpolation %u\ncrop %a\n",
                 h->version, h->bytes, h->inputs, h->classes, h->max_classes, h->label_bytes, h->optimizer, h->moment_type,
                 h->replay_capacity, h->replay_count, (unsigned long long)h->replay_seen, (double)h->rate, (double)h->momentum,
                 (double)h->beta2, (double)h->epsilon, (double)h->decay, (double)h->input_scale, (double)h->embedding_scale,
                 h->embedding_zero, (unsigned long long)h->seed, (unsigned long long)h->steps, (unsigned long long)h->began,
                 h->epoch, h->position, h->items, h->balanced, h->batch, h->saves, (double)h->lowest_loss, (double)h->best_accuracy,
                 h->image_height, h->image_width, h->image_channels, h->interpolation, h->crop);
    used += snprintf(text + used, bytes - (uint32_t)used,
                     "@labels %td\n@runtimes %td\n@offset %td\n@weights %td\n@bias %td\n@moment %td\n@bias_moment %td\n"
                     "@square %td\n@bias_square %td\n@replay %td\n@replay_stride %u\n",
                     head->labels - begin, head->runtimes - begin, (char *)head->offset - begin, (char *)head->weights - begin,
                     (char *)head->bias - begin, (char *)head->moment - begin, (char *)head->bias_moment - begin,
                     head->square ? (char *)head->square - begin : 0, head->bias_square ? (char *)head->bias_square - begin : 0,
                     (char *)head->replay - begin, head->replay_stride);
    return used;
}

/* The i-th field that has bounds: its name, where and what it is, and they. 0 where there are no more. */
const char *bound_of(uint32_t i, uint32_t *place, uint32_t *type, double *least, double *most)
{
    if (i >= BOUNDS)
        return 0;
    *place = bounds[i].place, *type = bounds[i].type, *least = bounds[i].least, *most = bounds[i].most;
    return bounds[i].name;
}

uint32_t most_bytes(void)
{
    return NESTLING_HEAD_MOST_BYTES;
}

uint32_t longest(void)
{
    return LONGEST;
}

/* The field of a header that is out of its bounds, 0 where none is. */
const char *outside(const nestling_head_header *header)
{
    nestling_head_bound which;
    return nestling_head_outside(header, &which) ? which.name : 0;
}

/* Every field that says no size gets a value of its own, and so does every part. */
void fill(nestling_head *head)
{
    nestling_head_header *h = head->header;
    const uint32_t cells = h->inputs * h->classes; /* unused rows stay 0 */
    h->rate = 0.375f, h->momentum = 0.8125f, h->beta2 = 0.96875f, h->epsilon = 0x1p-20f, h->decay = 0x1p-9f;
    h->input_scale = 0.0078125f, h->embedding_scale = 0.09375f, h->embedding_zero = -77;
    h->seed = 0xfedcba9876543210u, h->steps = 5000000001u, h->began = 4000000002u, h->epoch = 31, h->position = 32, h->items = 33;
    h->balanced = 1, h->batch = 34, h->saves = 35, h->lowest_loss = 0.0625f, h->best_accuracy = 0.875f;
    h->image_height = 41, h->image_width = 42, h->image_channels = 1, h->interpolation = NESTLING_BILINEAR, h->crop = 0.8;
    for (uint32_t i = 0; i < 32; i++)
        h->graph[i] = (uint8_t)(i + 1), h->data[i] = (uint8_t)(200 - i);
    for (uint32_t k = 0; k < h->inputs; k++)
        head->offset[k] = (float)k + 0.25f;
    for (uint32_t i = 0; i < cells; i++) {
        head->weights[i] = (float)i + 0.5f;
        if (h->moment_type == NESTLING_BFLOAT16) {
            ((uint16_t *)head->moment)[i] = to_bfloat16((float)(i % 256) * -0.5f);
        } else {
            ((float *)head->moment)[i] = (float)(i % 256) * -0.5f;
        }
        if (head->square)
            head->square[i] = (float)i * 0.125f;
    }
    for (uint32_t c = 0; c < h->classes; c++) {
        head->bias[c] = (float)c + 100.0f, head->bias_moment[c] = (float)c + 200.0f;
        if (head->square)
            head->bias_square[c] = (float)c + 300.0f;
    }
    head->runtimes[0] = 'c';
    h->replay_count = h->replay_capacity, h->replay_seen = h->replay_capacity + 70000000000u;
    for (uint32_t e = 0; e < h->replay_capacity; e++) {
        uint8_t *entry = head->replay + e * head->replay_stride;
        ((nestling_replay_entry *)(void *)entry)->label = (uint16_t)(e % h->classes);
        for (uint32_t k = 0; k < h->inputs; k++)
            entry[4 + k] = (uint8_t)(e + 3 * k);
    }
}
