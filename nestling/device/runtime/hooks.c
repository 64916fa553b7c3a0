#include "net_runner.h"

int should_continue(void)
{
    return 1;
}
