#if defined(__aarch64__)
#define nst_kit_portable nst_kit_neon
#define NST_NAME "neon"
#include "nst_kit_portable.c"
#endif
