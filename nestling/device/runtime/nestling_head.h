/* A head that learns: logits = W x + b over int8 embeddings, trained by SGD or Adam on softmax cross-entropy.
 *
 * C99, no libraries, no heap. All memory is the caller's. A head in memory is the file head.nst itself, byte for byte (little-
 * endian, docs/head-file.md): to load, read it into memory and nestling_head_open(); to save, nestling_head_seal() and write it.
 * The arithmetic is float32 in one fixed order, compiled with -ffp-contract=off: the same bits on every machine.
 */
#ifndef NESTLING_HEAD_H
#define NESTLING_HEAD_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NESTLING_HEAD_VERSION 1
#define NESTLING_RUNTIMES 4                 /* names of those that made embeddings of the replay store */
#define NESTLING_RUNTIME_BYTES 32           /* of a name, NUL at the end */
#define NESTLING_HEAD_MOST_BYTES 536870912u /* of a file: 512 MiB */

enum { NESTLING_SGD, NESTLING_ADAM };
enum { NESTLING_FLOAT32, NESTLING_BFLOAT16 };
enum { NESTLING_BILINEAR, NESTLING_BICUBIC };

typedef struct {
    char magic[8];            /* "NSTHEAD\n" */
    uint32_t version;         /* NESTLING_HEAD_VERSION */
    uint32_t bytes;           /* of the whole file, the CRC at its end included */
    uint32_t inputs;          /* D: length of an embedding */
    uint32_t classes;         /* rows in use, one a label */
    uint32_t max_classes;     /* rows that there is room for */
    uint32_t label_bytes;     /* room for the labels; a multiple of 8 */
    uint32_t optimizer;       /* NESTLING_SGD or NESTLING_ADAM */
    uint32_t moment_type;     /* of SGD's velocity: NESTLING_FLOAT32 or NESTLING_BFLOAT16; Adam's are float32 */
    uint32_t replay_capacity; /* embeddings that the replay store has room for */
    uint32_t replay_count;
    uint64_t replay_seen;  /* embeddings that were offered to it */
    float rate;            /* learning rate */
    float momentum;        /* SGD's momentum, Adam's beta1 */
    float beta2, epsilon;  /* Adam's */
    float decay;           /* loss + decay / 2 * |W|^2; the bias does not decay */
    float input_scale;     /* x[k] = input_scale * q[k] - offset[k], q the int8 embedding */
    float embedding_scale; /* a runtime's real embedding is embedding_scale * (q - embedding_zero) */
    int32_t embedding_zero;
    uint64_t seed;            /* of the order of the data */
    uint64_t steps;           /* that were taken, ever */
    uint64_t began;           /* steps that had been taken when this training began */
    uint32_t epoch, position; /* what the next batch begins with: place `position` in the order of `epoch` */
    uint32_t items;           /* that the order is of */
    uint32_t balanced;        /* 1: each class comes as often as the largest one */
    uint32_t batch;
    uint32_t saves;                   /* times that this head was saved: of two whole slots, the newest has more */
    float lowest_loss, best_accuracy; /* of this training; lowest_loss is infinite before the first step */
    uint32_t image_height, image_width, image_channels;
    uint32_t interpolation; /* NESTLING_BILINEAR or NESTLING_BICUBIC */
    double crop;            /* share of the side that is kept */
    uint8_t graph[32];      /* SHA-256 of the canonical int8 Graph that makes the embeddings */
    uint8_t data[32];       /* SHA-256 of the training items, in their order; zeros before the first training */
} nestling_head_header;

/* An embedding that is kept for later trainings. After it inputs bytes, then zeros up to a multiple of 4. */
typedef struct {
    uint16_t label;
    uint8_t runtime; /* which of the head's runtimes made it */
    uint8_t zero;
} nestling_replay_entry;

/* Where the parts of a file in memory lie, in the file's order. */
typedef struct {
    nestling_head_header *header;
    char *labels;           /* [label_bytes]: names, each with "\n" after it, then zeros */
    char *runtimes;         /* [NESTLING_RUNTIMES][NESTLING_RUNTIME_BYTES] */
    float *offset;          /* [inputs] */
    float *weights;         /* [max_classes][inputs]; rows from `classes` on are 0 and stay so */
    float *bias;            /* [max_classes] */
    void *moment;           /* velocity, or Adam's m: [max_classes][inputs] float32 or bfloat16, zeros up to a multiple of 8 */
    float *bias_moment;     /* [max_classes] */
    float *square;          /* Adam's v, [max_classes][inputs]; 0 with SGD, which has none in the file */
    float *bias_square;     /* [max_classes]; 0 with SGD */
    uint8_t *replay;        /* [replay_capacity][replay_stride] */
    uint32_t replay_stride; /* bytes */
} nestling_head;

/* What is wrong with a file; NESTLING_HEAD_WHOLE is 0. */
typedef enum {
    NESTLING_HEAD_WHOLE,
    NESTLING_HEAD_SHORT,    /* fewer bytes than it says */
    NESTLING_HEAD_FOREIGN,  /* no head.nst */
    NESTLING_HEAD_VERSIONS, /* of another version */
    NESTLING_HEAD_SHAPES,   /* sizes, names or places that do not fit each other */
    NESTLING_HEAD_DAMAGED,  /* the CRC differs */
    NESTLING_HEAD_BOUNDS,   /* a field out of its bounds, which are in docs/head-file.md */
    NESTLING_HEAD_NUMBERS,  /* weights or moments that are not finite, or not 0 in a row that no class uses */
} nestling_head_state;

const char *nestling_head_said(nestling_head_state state);

/* A field of the header and its bounds, both included. */
typedef struct {
    const char *name;
    double value, least, most;
} nestling_head_bound;

/* 1 and the first field that is out of its bounds; 0 where none is. */
int nestling_head_outside(const nestling_head_header *header, nestling_head_bound *which);

/* Bytes of a file with the sizes of `header` (its field `bytes` is not read); 0 where they, or other fields, are impossible. */
uint32_t nestling_head_bytes(const nestling_head_header *header);

/* memory: aligned to 8 bytes, `bytes` of it a file as it was read. Nothing is changed. */
nestling_head_state nestling_head_open(void *memory, uint32_t bytes, nestling_head *head);

/* Counts the save and writes the CRC: then header->bytes bytes from head->header on are the file. Returns what a reader of it will say:
 * a training that has diverged leaves NESTLING_HEAD_NUMBERS, and such a file is not to take the place of another. */
nestling_head_state nestling_head_seal(nestling_head *head);

/* logits: [classes]. */
void nestling_head_logits(const nestling_head *head, const int8_t *embedding, float *logits);

typedef struct {
    const int8_t *embedding; /* [inputs] */
    uint32_t label;          /* < classes */
} nestling_sample;

/* One step on a batch of `count` samples, at least 1. work: [count][max_classes].
 * Counts the step and keeps the lowest loss in the header; epoch and position are the caller's.
 * Returns the mean cross-entropy of the batch as it was before the step, which is not finite where the training has diverged. */
float nestling_learn_step(nestling_head *head, const nestling_sample *samples, uint32_t count, float *work);

/* A new class: its row is 0. Returns its number, or -1 where there is no room for it or its label, or where that is empty, not UTF-8,
 * a class already, or holds "\n". */
int32_t nestling_head_add_class(nestling_head *head, const char *label);

/* ---- the order of the data ------------------------------------------------------------------------------------------------- */

/* An epoch's order of `items` items, the same for the same seed and epoch in C and in Python. */
typedef struct {
    uint32_t items, classes;
    uint32_t length;        /* of the epoch: items; of a balanced one the largest class's count times the classes that have items */
    const uint32_t *labels; /* [items], < classes; only read where the order is balanced */
    uint32_t *places;       /* [items], memory of the caller's */
    uint32_t *starts;       /* [classes + 1], memory of the caller's; where each class that has items begins, where balanced */
    int balanced;
    uint32_t present; /* classes that have items, where balanced; set by nestling_order_make */
} nestling_order;

/* Makes the order of header->epoch. items > 0. order: items, classes, labels, places, starts and balanced are set by the caller. */
void nestling_order_make(nestling_order *order, uint64_t seed, uint32_t epoch);

/* The item at a place of the epoch, place < order->length. */
uint32_t nestling_order_item(const nestling_order *order, uint32_t place);

/* ---- flash: two slots, so that a power cut finds one of them whole ----------------------------------------------------------- */

typedef struct {
    void *user;
    const void *(*slot)(void *user, int slot); /* slot 0 or 1 as readable memory, at least as many bytes as the head */
    int (*erase)(void *user, int slot);        /* 0: done */
    int (*write)(void *user, int slot, uint32_t offset, const void *bytes, uint32_t count); /* 0: done; offsets ascend */
} nestling_flash;

/* Writes the head into the slot that does not hold the newest whole one. Returns 0, or 1: the hooks said that they failed; or it holds
 * what no file may (nestling_head_seal), and then neither slot was touched. */
int nestling_flash_save(const nestling_flash *flash, nestling_head *head);

/* Copies the newest whole head into memory (aligned to 8, `bytes` of it) and opens it. Returns its slot, -1 where there is none. */
int nestling_flash_load(const nestling_flash *flash, void *memory, uint32_t bytes, nestling_head *head);

#ifdef __cplusplus
}
#endif
#endif
