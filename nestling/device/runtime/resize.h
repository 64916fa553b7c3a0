/* From a photograph to what a network takes: the bytes of nestling.preprocess.image.load, which resizes with Pillow. */
#ifndef RESIZE_H
#define RESIZE_H

#include "images.h"

typedef struct {
    uint32_t height, width, channels; /* of the answer; channels: 1 or 3 */
    int bicubic;                      /* 0: bilinear */
    double crop;                      /* share of the side that is kept, 0.05 to 1 */
} resize_target;

/* out: [height][width][channels]. The shorter side becomes side / crop, antialiased, then the centre is cut out.
 * Returns 0, or -1 where memory is missing. */
int resize(const image *in, const resize_target *target, uint8_t *out);

#endif
