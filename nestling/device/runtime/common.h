/* What the files of net_runner share: memory, paths, whole files. */
#ifndef COMMON_H
#define COMMON_H

#include <stddef.h>
#include <stdint.h>

/* realloc, that ends the program with status 1 and a line on stderr where there is no memory. bytes > 0. */
void *enough(void *old, size_t bytes);

/* "folder/name", of malloc. */
char *joined(const char *folder, const char *name);

/* The path of `name` in the folder that `file` lies in, of malloc. */
char *beside(const char *file, const char *name);

/* The order of paths, as strcmp tells it: folder by folder, each name by its bytes, so that a folder's files stand together
 * (in/0.bmp before in-0.bmp). The twin of path_order in nestling/data/folders.py. */
int path_order(const char *a, const char *b);

/* The whole file, of malloc with a byte more, and 0; or the reason why it cannot be read. Larger ones than any image that is read are
 * refused; by read_at_most those of more than `most` bytes. */
const char *read_whole(const char *path, uint8_t **content, size_t *bytes);
const char *read_at_most(size_t most, const char *path, uint8_t **content, size_t *bytes);

/* The 16 hex digits, or fewer, of bytes; made: [2 * count + 1]. */
void as_hex(const uint8_t *bytes, uint32_t count, char *made);

/* A line on stderr, as printf's. What names of files and classes hold that would steer a terminal, and what is no UTF-8, is shown as
 * \x1b, \u202e; so is a line break, where no indented line follows. As shown() in nestling/printable.py. */
void complain(const char *format, ...);

#endif
