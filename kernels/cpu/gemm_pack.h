/*
 * gemm_pack.h - the packed form of B {K,N}: blocks of `depth` (a multiple of 4) along k, in each block strips of
 * GEMM_NR columns, in each strip [k][column] with zeros up to whole vectors; the last strip may have its own layout
 * (gemm_tile.h).
 */
#ifndef SAG_CPU_GEMM_PACK_H
#define SAG_CPU_GEMM_PACK_H

#include "kernels/cpu/gemm.h"

static inline int64_t round_up(int64_t a, int64_t to)
{
    return cpu_ceil_div(a, to) * to;
}
static inline int64_t packed_floats(int64_t n, int64_t k)
{
    return round_up(round_up(k, 4) * round_up(n, CPU_LANES), 16);
}
/* Of strip `strip` in the block that starts at k0 and is `depth` long (less than the others at the end). */
static inline int64_t packed_offset(int64_t n, int64_t k0, int64_t depth, int64_t strip)
{
    return k0 * round_up(n, CPU_LANES) + strip * GEMM_NR * round_up(depth, 4);
}
static inline const float *packed_strip(const float *packed, int64_t n, int64_t k0, int64_t depth, int64_t strip)
{
    return packed + packed_offset(n, k0, depth, strip);
}

/* One strip of one block: columns n0 .. n0+cols of k0 .. k0+depth to dst. */
void CPU_ISA(gemm_pack_strip)(const gemm_b *b, int64_t k0, int64_t depth, int64_t n0, int64_t cols, float *dst);
void CPU_ISA(gemm_pack)(const gemm_b *b, int64_t n, int64_t k, int64_t depth, float *packed, int threads);

#endif
