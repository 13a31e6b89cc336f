/* The kernels for both types and for each level of the processor that the compiler can compile for. The best one that
   the processor has is chosen when the module is loaded. */

#define JOIN_(name, level, type) name##_##level##type
#define JOIN(name, level, type) JOIN_(name, level, type)
#define TEXT_(token) #token
#define TEXT(token) TEXT_(token)

#define ALWAYS_INLINE inline __attribute__((always_inline))
/* What is written is either exactly what is read, or apart from it: interpreter.c sees to that. */
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Vectors of 16 bytes are what every processor of x86-64 and of 64-bit ARM has; elsewhere the compiler makes do.
   BASELINE_BYTES lets tests run the code for wider ones, such as those of AVX-512, on any processor. */
#define LEVEL baseline
#ifdef BASELINE_BYTES
#define VECTOR_BYTES BASELINE_BYTES
#else
#define VECTOR_BYTES 16
#endif
#if defined(__aarch64__) || defined(BASELINE_BYTES)
#define TILE_ROWS 8
#else
#define TILE_ROWS 4
#endif
/* Whatever else the compiler was told to compile for, or has to. */
#if defined(__aarch64__) || defined(__FMA__) || defined(__FP_FAST_FMA)
#define LEVEL_HAS_FMA 1
#else
#define LEVEL_HAS_FMA 0
#endif
#include "one_level.h"

#ifdef __x86_64__

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define LEVEL avx2
#define VECTOR_BYTES 32
#define TILE_ROWS 4
#define LEVEL_HAS_FMA 1
#include "one_level.h"
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(                                                                                         \
    __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"))),                                            \
    apply_to = function                                                                                               \
)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,prefer-vector-width=512")
#endif
#define LEVEL avx512
#define VECTOR_BYTES 64
#define TILE_ROWS 8
#define LEVEL_HAS_FMA 1
#include "one_level.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif

/* The levels of this processor, the best first; for each, the kernels for double and for float. */
static const Kernels *levels[3][2];
static int level_count;

static void find_levels(void) {
    level_count = 0;
#ifdef __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma")) {
        levels[level_count][0] = &kernels_avx512_double;
        levels[level_count++][1] = &kernels_avx512_float;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        levels[level_count][0] = &kernels_avx2_double;
        levels[level_count++][1] = &kernels_avx2_float;
    }
#endif
    levels[level_count][0] = &kernels_baseline_double;
    levels[level_count++][1] = &kernels_baseline_float;
}
