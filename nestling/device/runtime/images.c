#include "images.h"

#include <stdlib.h>
#include <string.h>

/* Where a file's pixels lie and what they mean. */
typedef struct {
    uint32_t width, height, channels;
    uint32_t pixel;         /* bytes of one in the file */
    uint64_t offset;        /* of the first row in the file */
    uint64_t stride;        /* bytes from a row to the next one */
    int upwards;            /* the file's first row is the lowest one */
    int swapped;            /* blue comes first */
    const uint8_t *palette; /* [colours][entry]: blue, green, red; 0 where pixels are no numbers of colours */
    uint32_t colours, entry;
    uint32_t largest; /* value, which becomes 255 */
} layout;

static const char *const SHORT = "truncated";

static uint32_t u16(const uint8_t *b)
{
    return (uint32_t)(b[0] | b[1] << 8);
}

static uint32_t u32(const uint8_t *b)
{
    return u16(b) | u16(b + 2) << 16;
}

static const char *claims(uint64_t width, uint64_t height)
{
    if (width == 0 || height == 0)
        return "its header claims no pixels";
    return width * height > IMAGES_MOST_PIXELS ? "its header claims more than 100 megapixels" : 0; /* each has 32 bits */
}

/* ---- BMP ------------------------------------------------------------------------------------------------------------------- */

enum { FILE_HEADER = 14, OLD_HEADER = 12, HEADER = 40 };

static int known_header(uint32_t size)
{
    static const uint32_t sizes[] = {OLD_HEADER, HEADER, 52, 56, 64, 108, 124};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (size == sizes[i])
            return 1;
    return 0;
}

static const char *bmp(const uint8_t *file, size_t bytes, layout *found)
{
    if (bytes < FILE_HEADER + 4)
        return SHORT;
    const uint8_t *header = file + FILE_HEADER;
    const uint32_t size = u32(header);
    if (!known_header(size))
        return "damaged (a BMP with a header of a size that no version has)";
    if (bytes < FILE_HEADER + (size_t)size)
        return SHORT;
    const int old = size == OLD_HEADER;
    const uint32_t tall = old ? u16(header + 6) : u32(header + 8);
    const uint32_t bits = old ? u16(header + 10) : u16(header + 14);
    const int downwards = !old && tall >> 24 == 0xff; /* a negative height */
    found->width = old ? u16(header + 4) : u32(header + 4);
    found->height = downwards ? 0u - tall : tall;
    const char *problem = claims(found->width, found->height);
    if (problem)
        return problem;
    if (!old && u32(header + 16) != 0)
        return "a compressed BMP, or one with bit fields; uncompressed ones are read";
    if (bits != 8 && bits != 24 && bits != 32)
        return "a BMP of fewer than 8 or of 16 bits; 8, 24 and 32 are read";
    found->pixel = bits / 8;
    found->channels = 3;
    found->stride = ((uint64_t)found->width * bits + 31) / 32 * 4;
    found->upwards = !downwards;
    found->swapped = 1;
    found->largest = 255;
    uint64_t after = FILE_HEADER + (uint64_t)size; /* the header */
    found->offset = u32(file + 10);
    if (bits == 8) {
        found->entry = old ? 3 : 4;
        const uint32_t colours = old ? 0 : u32(header + 32);
        if (colours > 256)
            return "damaged (a palette of more than 256 colours)";
        found->colours = colours ? colours : 256;
        if (found->offset == after)
            found->offset = 0; /* some writers forget the palette there */
        found->palette = file + after;
        after += found->colours * found->entry;
        if (bytes < after)
            return SHORT;
    }
    if (!found->offset)
        found->offset = after;
    return 0;
}

/* ---- PPM, PGM -------------------------------------------------------------------------------------------------------------- */

static int space(uint8_t letter)
{
    return letter == ' ' || (letter >= '\t' && letter <= '\r');
}

/* The next number of the header, comments skipped; *at: behind the one byte that ends it. 0 where there is none. */
static uint32_t number(const uint8_t *file, size_t bytes, size_t *at)
{
    uint32_t value = 0;
    int digits = 0;
    for (; *at < bytes; ++*at) {
        const uint8_t letter = file[*at];
        if (letter == '#') {
            while (*at + 1 < bytes && file[*at] != '\n' && file[*at] != '\r')
                ++*at;
        } else if (letter >= '0' && letter <= '9') {
            if (++digits > 9)
                return 0;
            value = 10 * value + (uint32_t)(letter - '0');
        } else if (!space(letter)) {
            return 0;
        } else if (digits) {
            ++*at;
            return value;
        }
    }
    return 0;
}

static const char *ppm(const uint8_t *file, size_t bytes, layout *found)
{
    size_t at = 2;
    found->width = number(file, bytes, &at);
    found->height = number(file, bytes, &at);
    found->largest = number(file, bytes, &at);
    const char *problem = claims(found->width, found->height);
    if (problem)
        return problem;
    if (found->largest == 0 || found->largest > 255)
        return "a PPM with more than 8 bits, or a damaged header; 8 bits are read";
    found->channels = found->pixel = file[1] == '6' ? 3 : 1;
    found->offset = at;
    found->stride = (uint64_t)found->width * found->pixel;
    return 0;
}

/* ---- either ---------------------------------------------------------------------------------------------------------------- */

static const char *header_of(const uint8_t *file, size_t bytes, layout *found)
{
    memset(found, 0, sizeof *found);
    if (bytes == 0)
        return "empty, 0 bytes";
    if (bytes >= 2 && memcmp(file, "BM", 2) == 0)
        return bmp(file, bytes, found);
    if (bytes >= 3 && file[0] == 'P' && (file[1] == '5' || file[1] == '6') && space(file[2]))
        return ppm(file, bytes, found);
    return "not an image: no header of a BMP, PPM or PGM";
}

const char *image_why_not(const uint8_t *file, size_t bytes)
{
    layout found;
    return header_of(file, bytes, &found);
}

/* A header as the format has it, field by field: there is no mark to know it by. The twin of _is_tga in preprocess/kinds.py. */
static int is_tga(const uint8_t *file, size_t bytes)
{
    if (bytes < 18 || file[17] >> 6 || u16(file + 12) == 0 || u16(file + 14) == 0)
        return 0;
    const uint32_t kind = file[2] & ~8u, first = u16(file + 3), colours = u16(file + 5), entry = file[7], depth = file[16];
    switch (kind) {
    case 1: return file[1] == 1 && depth == 8 && colours && first + colours <= 256 && (entry == 16 || entry == 24 || entry == 32);
    case 2: return !file[1] && !first && !colours && !entry && (depth == 16 || depth == 24 || depth == 32);
    case 3: return !file[1] && !first && !colours && !entry && (depth == 1 || depth == 8 || depth == 16);
    default: return 0;
    }
}

/* PBM; any of these in letters; PPM and PGM of 16 bits. */
static int is_other_ppm(const uint8_t *file, size_t bytes)
{
    layout found = {0};
    if (bytes < 3 || file[0] != 'P' || !space(file[2]))
        return 0;
    if (file[1] >= '1' && file[1] <= '4')
        return 1;
    return (file[1] == '5' || file[1] == '6') && ppm(file, bytes, &found) && found.largest > 255 && found.largest < 65536;
}

const char *image_foreign(const uint8_t *file, size_t bytes)
{
    static const struct {
        const char *name, *magic;
        size_t at, count;
    } formats[] = {
        {"JPEG", "\xff\xd8\xff", 0, 3},
        {"PNG", "\x89PNG\r\n\x1a\n", 0, 8},
        {"GIF", "GIF8", 0, 4},
        {"TIFF", "II*\0", 0, 4},
        {"TIFF", "MM\0*", 0, 4},
        {"WebP", "WEBPVP8", 8, 7},
        {"JPEG 2000", "\0\0\0\x0cjP  ", 0, 8},
        {"JPEG 2000", "\xff\x4f\xff\x51", 0, 4},
        {"AVIF", "ftypavi", 4, 7},
        {"HEIC", "ftyphei", 4, 7},
        {"HEIC", "ftyphev", 4, 7},
        {"HEIC", "ftypmif1", 4, 8},
        {"HEIC", "ftypmsf1", 4, 8},
    };
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (bytes >= formats[i].at + formats[i].count && memcmp(file + formats[i].at, formats[i].magic, formats[i].count) == 0)
            return formats[i].name;
    return is_other_ppm(file, bytes) ? "PPM of 16 bits or in letters" : is_tga(file, bytes) ? "TGA" : 0;
}

static void row_of(const layout *l, const uint8_t *from, const uint8_t colour[256][3], uint8_t *to)
{
    if (l->palette) {
        for (uint32_t x = 0; x < l->width; x++)
            memcpy(to + 3 * (size_t)x, colour[from[x]], 3);
    } else if (l->swapped) {
        for (uint32_t x = 0; x < l->width; x++, from += l->pixel, to += 3) {
            to[0] = from[2];
            to[1] = from[1];
            to[2] = from[0];
        }
    } else {
        for (size_t i = 0; i < l->stride; i++)
            to[i] = colour[from[i]][0];
    }
}

/* What a byte of the file stands for: a colour of the palette; or a value, brought to 0..255, halves to even, as Pillow does. */
static void table_of(const layout *l, uint8_t colour[256][3])
{
    for (uint32_t i = 0; i < 256; i++) {
        const double value = l->largest ? (double)i / l->largest * 255 : 0;
        const uint32_t whole = value < 255 ? (uint32_t)value : 255;
        const double rest = value < 255 ? value - whole : 0;
        memset(colour[i], (int)(whole + (rest > 0.5 || (rest == 0.5 && whole % 2 == 1))), 3);
    }
    int grey = 1; /* a palette where each number stands for itself; of another one, numbers behind its end are black */
    for (uint32_t i = 0; i < 3 * l->colours; i++)
        grey &= l->palette[i / 3 * l->entry + i % 3] == i / 3;
    for (uint32_t i = 0; l->palette && i < 256 && !grey; i++)
        for (uint32_t c = 0; c < 3; c++)
            colour[i][c] = i < l->colours ? l->palette[i * l->entry + 2 - c] : 0;
}

const char *image_decode(const uint8_t *file, size_t bytes, image *made)
{
    layout l;
    const char *problem = header_of(file, bytes, &l);
    if (problem)
        return problem;
    const uint64_t row = (uint64_t)l.width * l.pixel; /* without the padding behind it, which the last row may lack */
    if (l.offset > bytes || bytes - l.offset < l.stride * (l.height - 1) + row)
        return SHORT;
    uint8_t colour[256][3];
    table_of(&l, colour);
    *made = (image){l.width, l.height, l.channels, 0};
    const size_t side = (size_t)l.width * l.channels;
    made->pixels = malloc(side * l.height);
    if (!made->pixels)
        return "too large for the memory that is left";
    for (uint32_t y = 0; y < l.height; y++) {
        const uint32_t from = l.upwards ? l.height - 1 - y : y;
        row_of(&l, file + l.offset + l.stride * from, (const uint8_t (*)[3])colour, made->pixels + side * y);
    }
    return 0;
}
