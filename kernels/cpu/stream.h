/*
 * stream.h - stores that go past the caches. A plain store to a line that no cache holds reads the line first; a stream
 * of whole lines does not: from L2 to memory one core of a Zen 5 writes 42 GB/s so, and 33 with plain stores. For what
 * is not read again before it would have left the caches anyway; a line that is in a cache is thrown out of it.
 */
#ifndef SAG_CPU_STREAM_H
#define SAG_CPU_STREAM_H

#include "kernels/cpu/cpu.h"

#if CPU_LANES < 16 && defined(__SSE2__)
#include <immintrin.h>
#endif

#define CPU_STREAM_FROM (4 * 1024 * 1024) /* bytes of an output */

/* p is aligned to a vector. */
static inline void cpu_stream(float *p, cpu_vec v)
{
#if CPU_LANES == 16
    _mm512_stream_ps(p, (__m512)v);
#elif CPU_LANES == 8
    _mm256_stream_ps(p, (__m256)v);
#elif defined(__SSE2__)
    _mm_stream_ps(p, (__m128)v);
#else
    cpu_store(p, v);
#endif
}

/* Before other threads may read: at the end of each thread's part of a parallel region. */
static inline void cpu_stream_end(void)
{
#ifdef __SSE2__
    _mm_sfence();
#endif
}

/* Floats from p to the next line, at most n: what plain stores write first. */
static inline int64_t cpu_stream_head(const float *p, int64_t n)
{
    return cpu_min64((int64_t)(-((uintptr_t)p / sizeof *p) & 15), n);
}

#endif
