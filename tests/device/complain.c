/* complain TEXT...: each on stderr, as net_runner says it. */
#include "common.h"

int main(int count, char **words)
{
    for (int i = 1; i < count; i++)
        complain("%s", words[i]);
    return 0;
}
