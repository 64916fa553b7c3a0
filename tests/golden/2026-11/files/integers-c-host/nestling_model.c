#include "nestling_model.h"

#include "nestling_weights.h"
#include "nst_kernels.h"

#if defined(NESTLING_TRACE) || defined(NESTLING_PROFILE)
#define DONE(layer, output, bytes) nestling_layer_done(layer, output, bytes)
#else
#define DONE(layer, output, bytes) (void)0
#endif

/* ---- the layers' parameters ------------------------------------------------------------------------------------------------ */

/* 0  conv 3x3 s2 of image   [16, 16, 3] -> [8, 8, 8]   in image -> out 1024   0.01 M MACs */
static const nst_conv_image_layer layer0 = {
    .table = nestling_layer0_table,
    .conv = {
        .in = {16, 16, 3},
        .out = {8, 8, 8},
        .window = {.size = {3, 3}, .stride = {2, 2}, .dilation = {1, 1}, .pad = {1, 1}},
        .in_zero = -26,
        .groups = 1,
        .sums = {
            .depth = 27,
            .channels = 8,
            .weights = nestling_layer0_weights,
            .weight_zero = 0,
            .bias = nestling_layer0_bias,
            .multiplier = nestling_layer0_multiplier,
            .shift = nestling_layer0_shift,
            .output = {.zero = 12, .low = -128, .high = 127},
        },
    },
};

/* 2  conv 1x1   [8, 8, 8] -> [8, 8, 16]   in 1024 -> out 0   relu6   0.01 M MACs */
static const nst_conv_1x1_layer layer2 = {
    .pixels = 64,
    .sums = {
        .depth = 8,
        .channels = 16,
        .weights = nestling_layer2_weights,
        .weight_zero = 0,
        .bias = nestling_layer2_bias,
        .multiplier = nestling_layer2_multiplier,
        .shift = nestling_layer2_shift,
        .output = {.zero = -128, .low = -128, .high = 127},
    },
};

/* 3  depthwise 3x3   [8, 8, 16] -> [8, 8, 16]   in 0 -> out 0   relu6   0.01 M MACs */
static const nst_depthwise_layer layer3 = {
    .in = {8, 8, 16},
    .out = {8, 8, 16},
    .window = {.size = {3, 3}, .stride = {1, 1}, .dilation = {1, 1}, .pad = {1, 1}},
    .in_zero = -128,
    .sums = {
        .depth = 9,
        .channels = 16,
        .weights = nestling_layer3_weights,
        .weight_zero = 0,
        .bias = nestling_layer3_bias,
        .multiplier = nestling_layer3_multiplier,
        .shift = nestling_layer3_shift,
        .output = {.zero = -128, .low = -128, .high = 127},
    },
};

/* 4  conv 1x1   [8, 8, 16] -> [8, 8, 8]   in 0 -> out 0   0.01 M MACs */
static const nst_conv_1x1_layer layer4 = {
    .pixels = 64,
    .sums = {
        .depth = 16,
        .channels = 8,
        .weights = nestling_layer4_weights,
        .weight_zero = 0,
        .bias = nestling_layer4_bias,
        .multiplier = nestling_layer4_multiplier,
        .shift = nestling_layer4_shift,
        .output = {.zero = -4, .low = -128, .high = 127},
    },
};

/* 5  add   [8, 8, 8] -> [8, 8, 8]   in 0 and 1024 -> out 0 */
static const nst_add_layer layer5 = {
    .shape = {.size = {1, 1, 512}, .a_step = {0, 0, 1}, .b_step = {0, 0, 1}},
    .a_zero = -4,
    .b_zero = -110,
    .b_left = 20,
    .b_multiplier = 2008299288,
    .b_shift = 1,
    .multiplier = 1091969191,
    .shift = 17,
    .output = {.zero = -14, .low = -128, .high = 127},
};

/* 6  mean   [8, 8, 8] -> [1, 1, 8]   in 0 -> out 544 */
static const nst_mean_layer layer6 = {
    .size = {1, 64, 8, 1, 1},
    .in_zero = -14,
    .multiplier = 1828148166,
    .shift = 4,
    .output = {.zero = -30, .low = -128, .high = 127},
};

/* 7  conv 1x1   [1, 1, 8] -> [1, 1, 4]   in 544 -> out 544   relu   0.00 M MACs */
static const nst_conv_1x1_layer layer7 = {
    .pixels = 1,
    .sums = {
        .depth = 8,
        .channels = 4,
        .weights = nestling_layer7_weights,
        .weight_zero = 0,
        .bias = nestling_layer7_bias,
        .multiplier = nestling_layer7_multiplier,
        .shift = nestling_layer7_shift,
        .output = {.zero = -128, .low = -128, .high = 127},
    },
};

/* 8  conv 1x1   [1, 1, 4] -> [1, 1, 8]   in 544 -> out 544   0.00 M MACs */
static const nst_conv_1x1_layer layer8 = {
    .pixels = 1,
    .sums = {
        .depth = 4,
        .channels = 8,
        .weights = nestling_layer8_weights,
        .weight_zero = 0,
        .bias = nestling_layer8_bias,
        .multiplier = nestling_layer8_multiplier,
        .shift = nestling_layer8_shift,
        .output = {.zero = -17, .low = -128, .high = 127},
    },
};

/* 10  mul   [8, 8, 8] -> [8, 8, 8]   in 0 and 544 -> out 0 */
static const nst_mul_layer layer10 = {
    .shape = {.size = {1, 64, 8}, .a_step = {0, 8, 1}, .b_step = {0, 0, 1}},
    .a_zero = -14,
    .b_zero = -128,
    .multiplier = 1332046464,
    .shift = 6,
    .output = {.zero = -29, .low = -128, .high = 127},
};

/* 11  conv 1x1   [8, 8, 8] -> [8, 8, 6]   in 0 -> out 512   0.00 M MACs */
static const nst_conv_1x1_layer layer11 = {
    .pixels = 64,
    .sums = {
        .depth = 8,
        .channels = 6,
        .weights = nestling_layer11_weights,
        .weight_zero = 0,
        .bias = nestling_layer11_bias,
        .multiplier = nestling_layer11_multiplier,
        .shift = nestling_layer11_shift,
        .output = {.zero = 36, .low = -128, .high = 127},
    },
};

/* 12  max pool 3x3   [8, 8, 6] -> [8, 8, 6]   in 512 -> out 1664 */
static const nst_pool_layer layer12 = {
    .in = {8, 8, 6},
    .out = {8, 8, 6},
    .window = {.size = {3, 3}, .stride = {1, 1}, .dilation = {1, 1}, .pad = {1, 1}},
    .upwards = 0,
    .output = {.zero = 36, .low = -128, .high = 127},
};

/* 13  conv 3x3   [8, 8, 8] -> [8, 8, 10]   in 0 -> out 1024   0.05 M MACs */
static const nst_conv_layer layer13 = {
    .in = {8, 8, 8},
    .out = {8, 8, 10},
    .window = {.size = {3, 3}, .stride = {1, 1}, .dilation = {1, 1}, .pad = {1, 1}},
    .in_zero = -29,
    .groups = 1,
    .sums = {
        .depth = 72,
        .channels = 10,
        .weights = nestling_layer13_weights,
        .weight_zero = 0,
        .bias = nestling_layer13_bias,
        .multiplier = nestling_layer13_multiplier,
        .shift = nestling_layer13_shift,
        .output = {.zero = 9, .low = -128, .high = 127},
    },
};

/* 15  concat   [8, 8, 6] -> [8, 8, 16]   in 1664 and 1024 -> out 0 */
static const nst_concat_layer layer15 = {
    .rows = 64,
    .parts = 2,
    .sizes = nestling_layer15_sizes,
    .tables = (const int8_t *const[]){0, 0},
};

/* 16  average pool 2x2 s2   [8, 8, 16] -> [4, 4, 16]   in 0 -> out 0 */
static const nst_pool_layer layer16 = {
    .in = {8, 8, 16},
    .out = {4, 4, 16},
    .window = {.size = {2, 2}, .stride = {2, 2}, .dilation = {1, 1}, .pad = {0, 0}},
    .upwards = 0,
    .output = {.zero = 36, .low = -128, .high = 127},
};

/* 17  mean   [4, 4, 16] -> [16]   in 0 -> out 256 */
static const nst_mean_layer layer17 = {
    .size = {1, 16, 16, 1, 1},
    .in_zero = 36,
    .multiplier = 2130849596,
    .shift = 2,
    .output = {.zero = -31, .low = -128, .high = 127},
};

/* 18  head in float   [16] -> [2]   in 256 -> out logits   0.00 M MACs   head */
static const nst_head_layer layer18 = {
    .depth = 16,
    .classes = 2,
    .zero = -31,
    .scale = 0.022050912f,
    .weights = nestling_layer18_weights,
    .bias = nestling_layer18_bias,
};

/* ---- the network ----------------------------------------------------------------------------------------------------------- */

uint8_t *nestling_input(void *arena)
{
    return (uint8_t *)arena + 0;
}

const int8_t *nestling_features(void *arena, const uint8_t *image)
{
    int8_t *const a = arena;
    DONE(-1, 0, 0);

    /* 0  conv 3x3 s2 of image   [16, 16, 3] -> [8, 8, 8]   in image -> out 1024   0.01 M MACs */
    nst_conv_image(image, &layer0, a + 1024, a + 768);
    DONE(0, a + 1024, 512);

    /* 1  hard-swish   [8, 8, 8] -> [8, 8, 8]   in 1024 -> out 1024 */
    nst_lookup(a + 1024, nestling_layer1_table, 512, a + 1024);
    DONE(1, a + 1024, 512);

    /* 2  conv 1x1   [8, 8, 8] -> [8, 8, 16]   in 1024 -> out 0   relu6   0.01 M MACs */
    nst_conv_1x1(a + 1024, &layer2, a + 0, a + 1536);
    DONE(2, a + 0, 1024);

    /* 3  depthwise 3x3   [8, 8, 16] -> [8, 8, 16]   in 0 -> out 0   relu6   0.01 M MACs */
    nst_depthwise_3(a + 0, &layer3, a + 0, a + 1536);
    DONE(3, a + 0, 1024);

    /* 4  conv 1x1   [8, 8, 16] -> [8, 8, 8]   in 0 -> out 0   0.01 M MACs */
    nst_conv_1x1(a + 0, &layer4, a + 0, a + 1536);
    DONE(4, a + 0, 512);

    /* 5  add   [8, 8, 8] -> [8, 8, 8]   in 0 and 1024 -> out 0 */
    nst_add(a + 0, a + 1024, &layer5, a + 0);
    DONE(5, a + 0, 512);

    /* 6  mean   [8, 8, 8] -> [1, 1, 8]   in 0 -> out 544 */
    nst_mean(a + 0, &layer6, a + 544);
    DONE(6, a + 544, 8);

    /* 7  conv 1x1   [1, 1, 8] -> [1, 1, 4]   in 544 -> out 544   relu   0.00 M MACs */
    nst_conv_1x1(a + 544, &layer7, a + 544, a + 512);
    DONE(7, a + 544, 4);

    /* 8  conv 1x1   [1, 1, 4] -> [1, 1, 8]   in 544 -> out 544   0.00 M MACs */
    nst_conv_1x1(a + 544, &layer8, a + 544, a + 512);
    DONE(8, a + 544, 8);

    /* 9  add, mul   [1, 1, 8] -> [1, 1, 8]   in 544 -> out 544 */
    nst_lookup(a + 544, nestling_layer9_table, 8, a + 544);
    DONE(9, a + 544, 8);

    /* 10  mul   [8, 8, 8] -> [8, 8, 8]   in 0 and 544 -> out 0 */
    nst_mul(a + 0, a + 544, &layer10, a + 0);
    DONE(10, a + 0, 512);

    /* 11  conv 1x1   [8, 8, 8] -> [8, 8, 6]   in 0 -> out 512   0.00 M MACs */
    nst_conv_1x1(a + 0, &layer11, a + 512, a + 896);
    DONE(11, a + 512, 384);

    /* 12  max pool 3x3   [8, 8, 6] -> [8, 8, 6]   in 512 -> out 1664 */
    nst_max_pool(a + 512, &layer12, a + 1664);
    DONE(12, a + 1664, 384);

    /* 13  conv 3x3   [8, 8, 8] -> [8, 8, 10]   in 0 -> out 1024   0.05 M MACs */
    nst_conv(a + 0, &layer13, a + 1024, a + 512);
    DONE(13, a + 1024, 640);

    /* 14  logistic, quantize   [8, 8, 10] -> [8, 8, 10]   in 1024 -> out 1024 */
    nst_lookup(a + 1024, nestling_layer14_table, 640, a + 1024);
    DONE(14, a + 1024, 640);

    /* 15  concat   [8, 8, 6] -> [8, 8, 16]   in 1664 and 1024 -> out 0 */
    nst_concat((const int8_t *const[]){a + 1664, a + 1024}, &layer15, a + 0);
    DONE(15, a + 0, 1024);

    /* 16  average pool 2x2 s2   [8, 8, 16] -> [4, 4, 16]   in 0 -> out 0 */
    nst_average_pool(a + 0, &layer16, a + 0);
    DONE(16, a + 0, 256);

    /* 17  mean   [4, 4, 16] -> [16]   in 0 -> out 256 */
    nst_mean(a + 0, &layer17, a + 256);
    DONE(17, a + 256, 16);

    return a + 256;
}

void nestling_predict(void *arena, const uint8_t *image, float *logits)
{
    int8_t *const a = arena;
    nestling_features(arena, image);

    /* 18  head in float   [16] -> [2]   in 256 -> out logits   0.00 M MACs   head */
    nst_head(a + 256, &layer18, logits);
    DONE(18, logits, 8);
}

const char *const nestling_labels[NESTLING_CLASSES] = {
    "bad \303\274",
    "good",
};

const uint8_t nestling_graph[32] = {219, 128, 67, 78, 194, 104, 232, 39, 158, 109, 207, 7, 45, 153, 205, 88, 108, 166, 196, 179, 240, 32, 199, 210, 113, 14, 224, 200, 247, 254, 3, 95};

#if defined(NESTLING_TRACE) || defined(NESTLING_PROFILE)
const nestling_layer_info nestling_layers[NESTLING_LAYERS] = {
    {"stem", "conv 3x3 s2 of image", 8, 8, 8, 13824,
     1, (const int16_t[]){-1}},
    {"hardswish", "hard-swish", 8, 8, 8, 0,
     1, (const int16_t[]){0}},
    {"wide", "conv 1x1", 8, 8, 16, 8192,
     1, (const int16_t[]){1}},
    {"deep", "depthwise 3x3", 8, 8, 16, 9216,
     1, (const int16_t[]){2}},
    {"narrow", "conv 1x1", 8, 8, 8, 8192,
     1, (const int16_t[]){3}},
    {"add", "add", 8, 8, 8, 0,
     2, (const int16_t[]){4, 1}},
    {"mean", "mean", 1, 1, 8, 0,
     1, (const int16_t[]){5}},
    {"squeeze", "conv 1x1", 1, 1, 4, 32,
     1, (const int16_t[]){6}},
    {"excite", "conv 1x1", 1, 1, 8, 32,
     1, (const int16_t[]){7}},
    {"hardsigmoid_2", "add, mul", 1, 1, 8, 0,
     1, (const int16_t[]){8}},
    {"mul", "mul", 8, 8, 8, 0,
     2, (const int16_t[]){5, 9}},
    {"one", "conv 1x1", 8, 8, 6, 3072,
     1, (const int16_t[]){10}},
    {"max_pool2d", "max pool 3x3", 8, 8, 6, 0,
     1, (const int16_t[]){11}},
    {"two", "conv 3x3", 8, 8, 10, 46080,
     1, (const int16_t[]){10}},
    {"sigmoid:rescaled", "logistic, quantize", 8, 8, 10, 0,
     1, (const int16_t[]){13}},
    {"cat", "concat", 8, 8, 16, 0,
     2, (const int16_t[]){12, 14}},
    {"avg_pool2d", "average pool 2x2 s2", 4, 4, 16, 0,
     1, (const int16_t[]){15}},
    {"mean_1", "mean", 1, 1, 16, 0,
     1, (const int16_t[]){16}},
    {"logits", "head in float", 1, 1, 2, 32,
     1, (const int16_t[]){17}},
};
#endif
