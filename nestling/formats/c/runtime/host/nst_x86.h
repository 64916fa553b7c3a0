/* Vectors of x86, for instructions that not every processor has: all between NST_FOR and NST_END_FOR is compiled for them. */
#ifndef NST_X86_H
#define NST_X86_H

#include <immintrin.h>

#define NST_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define NST_FOR(instructions) NST_PRAGMA(clang attribute push(__attribute__((target(instructions))), apply_to = function))
#define NST_END_FOR NST_PRAGMA(clang attribute pop)
#else
#define NST_FOR(instructions) NST_PRAGMA(GCC push_options) NST_PRAGMA(GCC target(instructions))
#define NST_END_FOR NST_PRAGMA(GCC pop_options)
#endif

#endif
