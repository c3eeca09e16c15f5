/* transpose.h - a square of CPU_LANES x CPU_LANES floats, transposed in registers: one exchange for each bit of the
 * index. */
#ifndef SAG_CPU_TRANSPOSE_H
#define SAG_CPU_TRANSPOSE_H

#include "kernels/cpu/cpu.h"

/* Lane l of the first of a pair takes the pair's second where bit `s` of l is set, and the other way round. */
#define EXCHANGE_LOW(l, s) ((l) & (s) ? CPU_LANES + (l) - (s) : (l))
#define EXCHANGE_HIGH(l, s) ((l) & (s) ? CPU_LANES + (l) : (l) + (s))
#define EXCHANGE_4(f, l, s) f(l, s), f((l) + 1, s), f((l) + 2, s), f((l) + 3, s)
#if CPU_LANES == 16
#define EXCHANGE(f, s) ((cpu_ivec){EXCHANGE_4(f, 0, s), EXCHANGE_4(f, 4, s), EXCHANGE_4(f, 8, s), EXCHANGE_4(f, 12, s)})
#elif CPU_LANES == 8
#define EXCHANGE(f, s) ((cpu_ivec){EXCHANGE_4(f, 0, s), EXCHANGE_4(f, 4, s)})
#else
#define EXCHANGE(f, s) ((cpu_ivec){EXCHANGE_4(f, 0, s)})
#endif
#define EXCHANGE_STAGE(v, s)                                                                                           \
    _Pragma("GCC unroll 16") for (int i_ = 0; i_ < CPU_LANES; i_++)                                                    \
    {                                                                                                                  \
        if (i_ & (s)) continue;                                                                                        \
        cpu_vec a_ = v[i_], b_ = v[i_ + (s)];                                                                          \
        v[i_] = __builtin_shuffle(a_, b_, EXCHANGE(EXCHANGE_LOW, s));                                                  \
        v[i_ + (s)] = __builtin_shuffle(a_, b_, EXCHANGE(EXCHANGE_HIGH, s));                                           \
    }

/* dst[j * dst_ld + i] = src[i * src_ld + j] */
static inline void transpose_square(const float *src, int64_t src_ld, float *dst, int64_t dst_ld)
{
    cpu_vec v[CPU_LANES];
#pragma GCC unroll 16
    for (int i = 0; i < CPU_LANES; i++) v[i] = cpu_load(src + i * src_ld);
    EXCHANGE_STAGE(v, 1)
    EXCHANGE_STAGE(v, 2)
#if CPU_LANES >= 8
    EXCHANGE_STAGE(v, 4)
#endif
#if CPU_LANES >= 16
    EXCHANGE_STAGE(v, 8)
#endif
#pragma GCC unroll 16
    for (int i = 0; i < CPU_LANES; i++) cpu_store(dst + i * dst_ld, v[i]);
}

#endif
