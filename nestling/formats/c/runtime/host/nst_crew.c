#include "nst_crew.h"

#include <stdlib.h>
#include <string.h>

#include "nst_kit.h"

#if defined(__x86_64__) && defined(__clang__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

/* All kits of this kind of processor, the best first. */
static const nst_kit *const kits[] = {
#if defined(__x86_64__)
    &nst_kit_avx512vnni,
#if NST_AVXVNNI
    &nst_kit_avxvnni,
#endif
    &nst_kit_avx2,
#elif defined(__aarch64__)
    &nst_kit_dotprod,
    &nst_kit_neon,
#endif
    &nst_kit_portable,
};

enum { KITS = sizeof kits / sizeof kits[0] };

/* Whether this processor and its operating system have what a kit takes. What the compiler's own library found out as the program began
 * is read here: to ask the processor itself is slow in a virtual machine. */

#if defined(__x86_64__)

#if NST_AVXVNNI
static int has_avxvnni(void)
{
#if defined(NST_AVXVNNI_AS_AVX512VL) /* see nst_kit_avxvnni.c */
    return __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
#elif defined(__clang__) /* whose library does not know of it in every version */
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1U << 4);
#else
    return __builtin_cpu_supports("avxvnni");
#endif
}
#endif

static int has(const nst_kit *kit)
{
    if (kit == &nst_kit_portable)
        return 1;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 0;
#if NST_AVXVNNI
    if (kit == &nst_kit_avxvnni)
        return has_avxvnni();
#endif
    if (kit == &nst_kit_avx512vnni)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
    return 1;
}

#elif defined(__aarch64__)

static int has(const nst_kit *kit)
{
#if defined(__APPLE__) || defined(__ARM_FEATURE_DOTPROD)
    return kit != 0;
#elif defined(__linux__)
    return kit != &nst_kit_dotprod || (getauxval(AT_HWCAP) & HWCAP_ASIMDDP);
#else
    return kit != &nst_kit_dotprod;
#endif
}

#else

static int has(const nst_kit *kit)
{
    return kit != 0;
}

#endif

const nst_kit *nst_kit_number(int32_t i)
{
    for (int32_t k = 0; k < KITS; k++)
        if (has(kits[k]) && i-- == 0)
            return kits[k];
    return 0;
}

const nst_kit *nst_kit_named(const char *name)
{
    for (int32_t k = 0; k < KITS; k++)
        if (strcmp(kits[k]->name, name) == 0)
            return has(kits[k]) ? kits[k] : 0;
    return 0;
}

const char *nst_kit_name(const nst_kit *kit)
{
    return kit->name;
}

nst_crew nst_alone(void)
{
    const char *name = getenv("NESTLING_ISA");
    const nst_kit *named = name ? nst_kit_named(name) : 0;
    const nst_crew crew = {named ? named : nst_kit_number(0), 0};
    return crew;
}
