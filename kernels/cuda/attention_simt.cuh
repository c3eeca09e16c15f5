/*
 * attention_simt.cuh - a tile of 64 x 64 dot products by 256 threads, 4 x 4 each: thread t has rows 4 (t / 16) and on, columns
 * 4 (t % 16) and on. Any depth; operands pass through shared memory 16 deep, turned round so that a step reads two float4.
 */
#ifndef SAG_CUDA_ATTENTION_SIMT_CUH
#define SAG_CUDA_ATTENTION_SIMT_CUH

#include "kernels/cuda/attention.cuh"

#define SIMT_THREADS 256
#define SIMT_TILE 64
#define SIMT_DEPTH 16
#define SIMT_ROW (SIMT_TILE + 4) /* keeps float4 aligned and spreads the banks */

/* 64 rows, 16 of the depth: to[k][row]; zeros beyond `rows` and `depth`. */
template <typename T>
__device__ static inline void simt_load(float (*to)[SIMT_ROW], const T *from, int64_t rows, int64_t depth, int64_t k0)
{
    const int r = (int)threadIdx.x / 4, k = (int)threadIdx.x % 4 * 4;
    const T *p = from + r * depth + k0 + k;
    for (int i = 0; i < 4; i++) to[k + i][r] = r < rows && k0 + k + i < depth ? cuda_float(p[i]) : 0.0f;
}

/* s[i][j] = a_i . b_j of the thread's rows and columns; a {rows,depth}, b {cols,depth}. Starts with a barrier. */
template <typename T>
__device__ static inline void simt_products(float (&s)[4][4], float (*at)[SIMT_ROW], float (*bt)[SIMT_ROW], const T *a, int64_t rows,
                                            const T *b, int64_t cols, int64_t depth)
{
    const int i0 = (int)threadIdx.x / 16 * 4, j0 = (int)threadIdx.x % 16 * 4;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) s[i][j] = 0.0f;
    for (int64_t k0 = 0; k0 < depth; k0 += SIMT_DEPTH) {
        __syncthreads();
        simt_load(at, a, rows, depth, k0);
        simt_load(bt, b, cols, depth, k0);
        __syncthreads();
        const int n = depth - k0 < SIMT_DEPTH ? (int)(depth - k0) : SIMT_DEPTH;
        for (int k = 0; k < n; k++) {
            const float4 u = *(const float4 *)&at[k][i0], w = *(const float4 *)&bt[k][j0];
            const float x[4] = {u.x, u.y, u.z, u.w}, y[4] = {w.x, w.y, w.z, w.w};
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) s[i][j] = fmaf(x[i], y[j], s[i][j]);
        }
    }
}

/* Over the 16 threads that share rows. */
__device__ static inline float simt_row_max(float x)
{
    for (int step = 8; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}
__device__ static inline float simt_row_sum(float x)
{
    for (int step = 8; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

#endif
