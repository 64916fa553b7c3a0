#if defined(__x86_64__)
#define nst_kit_portable nst_kit_avx2
#define NST_NAME "avx2"
#include "nst_kit_portable.c"
#endif
