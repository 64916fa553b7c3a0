#if defined(__x86_64__)
#define nst_kit_portable nst_kit_avxvnni
#define NST_NAME "avxvnni"
#include "nst_kit_portable.c"
#endif
