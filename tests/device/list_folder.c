/* list_folder DATA SPLIT_CSV SEED [KNOWN ...]: what folder.c and split.c say of a folder, a line each, with tabs; for a network that
 * knows some classes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "folder.h"

static void left_out(const char *path, const char *reason)
{
    printf("left out\t%s\t%s\n", path, reason);
}

/* of: words, the last of them 0. */
static int knows(const void *of, const char *name)
{
    for (char *const *word = of; *word; word++)
        if (strcmp(*word, name) == 0)
            return 1;
    return 0;
}

int main(int count, char **words)
{
    static const char *const names[] = {"train", "val", "test"};
    char said[1024], digits[2 * FINGERPRINT + 1];
    folder found;
    if (count < 4)
        return 2;
    int failed = folder_scan(words[1], knows, words + 4, &found, left_out, said, sizeof said);
    if (!failed)
        failed = folder_divide(&found, words[2], strtoull(words[3], 0, 10), said, sizeof said);
    for (uint32_t i = 0; i < found.class_count && !failed; i++)
        printf("class\t%s\n", found.classes[i]);
    for (uint32_t i = 0; i < found.count && !failed; i++) {
        const photograph *one = found.photographs + i;
        as_hex(one->fingerprint, FINGERPRINT, digits);
        printf("%s\t%s\t%s\t%s\n", names[one->part], digits, found.classes[one->label], one->path);
    }
    if (failed)
        printf("failed\t%s\n", said);
    folder_free(&found);
    return failed;
}
