/* Photographs from files: BMP (24 and 32 bits, 8 bits with a palette, uncompressed) and PPM, PGM (P6, P5, at most 8 bits). */
#ifndef IMAGES_H
#define IMAGES_H

#include <stddef.h>
#include <stdint.h>

#define IMAGES_MOST_PIXELS 100000000u

typedef struct {
    uint32_t width, height, channels; /* channels: 1 grey, 3 red, green and blue */
    uint8_t *pixels;                  /* [height][width][channels], of malloc */
} image;

/* 0 where the file's header is that of an image that can be read, else the reason, in words that fit behind its name.
 * Damage further on shows in image_decode. */
const char *image_why_not(const uint8_t *file, size_t bytes);

/* The name of a format that nestling reads and this does not ("JPEG"), by the file's first bytes, else 0. */
const char *image_foreign(const uint8_t *file, size_t bytes);

/* 0 and the image, or the reason why there is none. A grey image has one channel. */
const char *image_decode(const uint8_t *file, size_t bytes, image *made);

#endif
