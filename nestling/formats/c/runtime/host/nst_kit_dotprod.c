#if defined(__aarch64__)
#define nst_kit_portable nst_kit_dotprod
#define NST_NAME "dotprod"
#include "nst_kit_portable.c"
#endif
