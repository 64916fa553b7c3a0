/* Layers of the host's kernels from standard input, each by every kit that the processor has; answers to standard output.
 *
 * A layer: six int32 (the kernel; bytes of the input, the answer, the scratch and the struct; pointers), the input, the struct, then of
 * each pointer its place in the struct, its bytes, and they. Whatever a kernel is given ends where a page begins that it must not touch.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "nst_host.h"
#include "nst_kit.h"

enum { PAGE = 65536, ALIGNED = 16 };

static void *room(int32_t bytes)
{
    const size_t all = ((size_t)bytes + PAGE - 1) / PAGE * PAGE;
    int8_t *memory = mmap(0, all + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + all, PAGE, PROT_NONE))
        exit(2);
    return memory + all - bytes;
}

static void *taken(int32_t bytes)
{
    void *memory = room(bytes);
    if (fread(memory, 1, (size_t)bytes, stdin) != (size_t)bytes)
        exit(3);
    return memory;
}

int main(void)
{
    struct {
        int32_t kernel, in, out, scratch, layer, pointers;
    } size;
    for (int32_t i = 0; nst_kit_number(i); i++)
        fprintf(stderr, "%s ", nst_kit_name(nst_kit_number(i)));
    fprintf(stderr, "alone %s\n", nst_kit_name(nst_alone().kit));
    while (fread(&size, sizeof size, 1, stdin) == 1) {
        int8_t *in = taken(size.in), *layer = taken((size.layer + ALIGNED - 1) / ALIGNED * ALIGNED), *out = room(size.out);
        for (int32_t i = 0; i < size.pointers; i++) {
            const int32_t *where = taken(8);
            const void *array = taken(where[1]);
            memcpy(layer + where[0], &array, sizeof array);
        }
        for (int32_t i = 0; nst_kit_number(i); i++) {
            const nst_crew crew = {nst_kit_number(i), 0};
            void *scratch = room(size.scratch);
            memset(out, 0x5a, (size_t)size.out);
            if (size.kernel == 0)
                nst_conv_1x1_host(in, (void *)layer, out, scratch, &crew);
            else if (size.kernel == 1)
                nst_conv_host(in, (void *)layer, out, scratch, &crew);
            else
                nst_depthwise_host(in, (void *)layer, out, scratch, &crew);
            fwrite(out, 1, (size_t)size.out, stdout);
        }
    }
    return 0;
}
