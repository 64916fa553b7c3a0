/* read_images HEIGHT WIDTH CHANNELS FILE...: each file decoded and resized; a line each: the image's size, or why there is none. */
#include <stdio.h>
#include <stdlib.h>

#include "common.h"
#include "images.h"
#include "resize.h"

int main(int count, char **words)
{
    for (int i = 4; i < count; i++) {
        resize_target target = {(uint32_t)atoi(words[1]), (uint32_t)atoi(words[2]), (uint32_t)atoi(words[3]), i % 2, 0.875};
        uint8_t *content = 0, *exact, *input = malloc((size_t)target.height * target.width * target.channels);
        size_t bytes = 0;
        image made = {0};
        const char *problem = read_whole(words[i], &content, &bytes);
        if (problem) {
            puts(problem);
            free(input);
            continue;
        }
        exact = malloc(bytes); /* without the byte more that read_whole has, so that a sanitizer sees every step beyond it */
        for (size_t k = 0; k < bytes; k++)
            exact[k] = content[k];
        problem = image_foreign(exact, bytes);
        if (!problem)
            problem = image_decode(exact, bytes, &made);
        if (!problem && resize(&made, &target, input))
            problem = "no memory";
        if (problem)
            puts(problem);
        else
            printf("%u %u %u\n", (unsigned)made.height, (unsigned)made.width, (unsigned)made.channels);
        free(made.pixels);
        free(content);
        free(exact);
        free(input);
    }
    return 0;
}
