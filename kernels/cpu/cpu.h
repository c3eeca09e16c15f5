/* cpu.h - what every CPU kernel file shares. Each file is compiled once per SIMD level; CPU_ISA keeps the names apart. */
#ifndef SAG_CPU_H
#define SAG_CPU_H

#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "kernels/kernel_table.h"

/* Where constant arguments decide what is left of a function. */
#define CPU_INLINE __attribute__((always_inline)) static inline

#if defined(__AVX512F__)
#define CPU_ISA(name) name##_avx512
#define CPU_LANES 16
#elif defined(__AVX2__)
#define CPU_ISA(name) name##_avx2
#define CPU_LANES 8
#else
#define CPU_ISA(name) name##_generic /* SSE2 on x86-64, NEON on AArch64 */
#define CPU_LANES 4
#endif

#define CPU_REGISTER(family) CPU_ISA(cpu_register_##family)

/* Vectors of the level's width; unaligned loads and stores go through cpu_load/cpu_store. */
typedef float cpu_vec __attribute__((vector_size(CPU_LANES * 4)));
typedef int32_t cpu_ivec __attribute__((vector_size(CPU_LANES * 4)));

static inline cpu_vec cpu_load(const float *p)
{
    cpu_vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void cpu_store(float *p, cpu_vec v)
{
    memcpy(p, &v, sizeof v);
}
/* The first n <= CPU_LANES floats, zeros behind them; and their way back. All of them, as a constant, is a plain access. */
CPU_INLINE cpu_vec cpu_load_part(const float *p, int64_t n)
{
    if (n == CPU_LANES) return cpu_load(p);
#if CPU_LANES == 16
    return (cpu_vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p);
#else
    float x[CPU_LANES] = {0};
    for (int64_t i = 0; i < n; i++) x[i] = p[i];
    return cpu_load(x);
#endif
}
CPU_INLINE void cpu_store_part(float *p, cpu_vec v, int64_t n)
{
    if (n == CPU_LANES) {
        cpu_store(p, v);
        return;
    }
#if CPU_LANES == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), (__m512)v);
#else
    float x[CPU_LANES];
    cpu_store(x, v);
    for (int64_t i = 0; i < n; i++) p[i] = x[i];
#endif
}
static inline cpu_vec cpu_splat(float x)
{
    return x - (cpu_vec){0};
}

/* max(x, 0), and its gradient from d: NaN passes both. */
CPU_INLINE cpu_vec cpu_relu(cpu_vec x)
{
#if CPU_LANES == 16
    return (cpu_vec)_mm512_max_ps(_mm512_setzero_ps(), (__m512)x); /* the second where one is NaN or both are 0 */
#else
    return (cpu_vec)((cpu_ivec)x & ~(x < 0.0f));
#endif
}
CPU_INLINE cpu_vec cpu_relu_gradient(cpu_vec x, cpu_vec d)
{
#if CPU_LANES == 16
    return (cpu_vec)_mm512_maskz_mov_ps(_mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_NLE_UQ), (__m512)d);
#else
    return (cpu_vec)((cpu_ivec)d & ~(x <= 0.0f));
#endif
}

/* What a convolution's sums are multiplied by, as its w is divided by sigma. */
static inline float cpu_inverse_sigma(const conv_args *a)
{
    return a->sigma ? 1.0f / a->sigma[0] : 1.0f;
}

static inline int64_t cpu_min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static inline int64_t cpu_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Every family fills its slots of the table; the list is in backend.c. */
#define CPU_FAMILIES(X)                                                                                          \
    X(conv) X(matmul) X(pointwise) X(norm) X(pool) X(shape) X(reduce) X(softmax) X(attention) X(spectral_norm)   \
    X(embedding) X(loss) X(random) X(optim) X(pixels)
#define CPU_DECLARE(family) void CPU_REGISTER(family)(sag_kernel_table * t);
CPU_FAMILIES(CPU_DECLARE)
#undef CPU_DECLARE

#endif
