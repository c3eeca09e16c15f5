/*
 * reduce.cu - sums, means, norm, extremes, counts, and the place of the largest. x is {outer, axis, inner}. Sums go through
 * sums.cuh (f32 in pieces, f64 across them); everything reads its input once and is bound by that: n * sizeof(T) bytes.
 */
#include "kernels/cuda/sums.cuh"

/* --------------------------------------------------------------------------------- sum, mean, norm, count */

template <typename T> struct put_root {
    T *y;
    __device__ void operator()(int64_t, double s) const
    {
        cuda_store(y, (float)sqrt(s));
    }
};

struct nonfinite : cuda_sum_plain {
    __device__ float operator()(float x, float) const
    {
        return fabsf(x) < INFINITY ? 0.0f : 1.0f; /* NaN compares false */
    }
};

/* dx = dy x / |x|, 0 where |x| is 0. */
template <typename T> struct norm_grad {
    const T *dy, *norm;
    float factor;
    __device__ void begin()
    {
        const float n = cuda_float(*norm);
        factor = n == 0.0f ? 0.0f : cuda_float(*dy) / n;
    }
    __device__ float operator()(const float *in, int64_t) const
    {
        return in[0] * factor;
    }
};

/* ----------------------------------------------------------------------------------------------- extremes */

/* The larger of both, NaN if one is. */
__device__ static inline float larger(float a, float b)
{
    return a > b || a != a ? a : b;
}
/* The same over a warp and a block, in every thread. */
__device__ static inline float block_larger(float x)
{
    CUDA_SHARED(float, part, [32]);
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    for (int step = 16; step > 0; step >>= 1) x = larger(x, __shfl_xor_sync(0xffffffffu, x, step));
    __syncthreads();
    if (lane == 0) part[warp] = x;
    __syncthreads();
    x = part[lane < CUDA_BLOCK / 32 ? lane : 0];
    for (int step = 16; step > 0; step >>= 1) x = larger(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

/* part[block] = the largest of sign * x over the block's share; the order does not matter to it. */
template <int V, typename T, typename Y>
__global__ void __launch_bounds__(CUDA_BLOCK) extreme_kernel(int64_t n, const T *x, float sign, Y *part, float sign_out)
{
    float best[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    const int64_t groups = n / V, step = (int64_t)gridDim.x * CUDA_BLOCK, t = (int64_t)blockIdx.x * CUDA_BLOCK + threadIdx.x;
    int64_t g = t;
    for (; g + 3 * step < groups; g += 4 * step) {
        T v[4][V];
#pragma unroll
        for (int k = 0; k < 4; k++) cuda_load_group<V>(v[k], x + (g + k * step) * V);
#pragma unroll
        for (int k = 0; k < 4; k++) {
#pragma unroll
            for (int j = 0; j < V; j++) best[k] = larger(best[k], sign * cuda_float(v[k][j]));
        }
    }
    for (; g < groups; g += step) {
        T v[V];
        cuda_load_group<V>(v, x + g * V);
#pragma unroll
        for (int j = 0; j < V; j++) best[0] = larger(best[0], sign * cuda_float(v[j]));
    }
    if (groups * V + t < n) best[1] = larger(best[1], sign * cuda_float(x[groups * V + t]));
    const float all = block_larger(larger(larger(best[0], best[1]), larger(best[2], best[3])));
    if (threadIdx.x == 0) cuda_store(part + blockIdx.x, sign_out * all);
}

template <typename T> static int extreme_fwd(sag_kernel_env *env, const reduce_args *a)
{
    constexpr int V = cuda_group<T>::size;
    const T *x = (const T *)a->x;
    T *y = (T *)a->y;
    const int64_t n = a->outer * a->axis * a->inner;
    const float sign = a->kind == SAG_REDUCE_MIN ? -1.0f : 1.0f;
    const bool aligned = cuda_aligned(x, 16);
    const unsigned blocks = cuda_blocks(n, CUDA_BLOCK * V * 4, 1024);
    if (blocks == 1) {
        if (aligned) return CUDA_LAUNCH(env, (extreme_kernel<V, T, T>), 1, CUDA_BLOCK, 0, n, x, sign, y, sign);
        return CUDA_LAUNCH(env, (extreme_kernel<1, T, T>), 1, CUDA_BLOCK, 0, n, x, sign, y, sign);
    }
    float *part = (float *)env->scratch(env, blocks * sizeof *part);
    if (!part) return SAG_KERNEL_NO_MEMORY;
    if (aligned) CUDA_TRY(CUDA_LAUNCH(env, (extreme_kernel<V, T, float>), blocks, CUDA_BLOCK, 0, n, x, sign, part, 1.0f));
    else CUDA_TRY(CUDA_LAUNCH(env, (extreme_kernel<1, T, float>), blocks, CUDA_BLOCK, 0, n, x, sign, part, 1.0f));
    return CUDA_LAUNCH(env, (extreme_kernel<4, float, T>), 1, CUDA_BLOCK, 0, (int64_t)blocks, part, 1.0f, y, sign);
}

/* ------------------------------------------------------------------------------------------------- argmax */

struct place {
    float x;
    int32_t at;
};
/* Whether b comes before a: larger, or NaN where a is a number; the first of equals. */
__device__ static inline bool before(place b, place a)
{
    const bool na = a.x != a.x, nb = b.x != b.x;
    if (na || nb) return nb && (!na || b.at < a.at);
    return b.x > a.x || (b.x == a.x && b.at < a.at);
}
__device__ static inline place warp_first(place p)
{
    for (int step = 16; step > 0; step >>= 1) {
        const place q = {__shfl_xor_sync(0xffffffffu, p.x, step), __shfl_xor_sync(0xffffffffu, p.at, step)};
        if (before(q, p)) p = q;
    }
    return p;
}

/* A warp to a row, or (long rows) a block. */
template <bool LONG, typename T>
__global__ void __launch_bounds__(CUDA_BLOCK) argmax_kernel(int64_t rows, int64_t cols, const T *x, int32_t *y)
{
    CUDA_SHARED(place, part, [CUDA_BLOCK / 32]);
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5, warps = CUDA_BLOCK / 32;
    const int64_t first = LONG ? blockIdx.x : (int64_t)blockIdx.x * warps + warp, step = LONG ? gridDim.x : (int64_t)gridDim.x * warps;
    for (int64_t r = first; r < rows; r += step) {
        const T *row = x + r * cols;
        place best = {-INFINITY, INT32_MAX};
#pragma unroll 4
        for (int64_t c = LONG ? threadIdx.x : lane; c < cols; c += LONG ? CUDA_BLOCK : 32) {
            const place p = {cuda_float(row[c]), (int32_t)c};
            if (before(p, best)) best = p;
        }
        best = warp_first(best);
        if (LONG) {
            __syncthreads();
            if (lane == 0) part[warp] = best;
            __syncthreads();
            best = warp_first(part[lane % warps]);
        }
        if (LONG ? threadIdx.x == 0 : lane == 0) y[r] = best.at;
    }
}

template <typename T> static int argmax(sag_kernel_env *env, const reduce_args *a)
{
    const T *x = (const T *)a->x;
    int32_t *y = (int32_t *)a->y;
    if (a->outer <= 0) return SAG_KERNEL_OK;
    if (a->axis >= 2048)
        return CUDA_LAUNCH(env, (argmax_kernel<true, T>), cuda_blocks(a->outer, 1), CUDA_BLOCK, 0, a->outer, a->axis, x, y);
    return CUDA_LAUNCH(env, (argmax_kernel<false, T>), cuda_blocks(a->outer, CUDA_BLOCK / 32), CUDA_BLOCK, 0, a->outer, a->axis, x, y);
}

/* -------------------------------------------------------------------------------------------------- slots */

template <typename T> static int reduce_fwd(sag_kernel_env *env, const reduce_args *a)
{
    const int64_t n = a->outer * a->axis * a->inner;
    switch (a->kind) {
    case SAG_REDUCE_SUM:
    case SAG_REDUCE_MEAN: {
        const cuda_sum_put<T> put = {(T *)a->y, a->kind == SAG_REDUCE_MEAN ? 1.0 / (double)a->axis : 1.0, 0};
        return cuda_sums<T>(env, a->x, NULL, a->outer, a->axis, a->inner, cuda_sum_plain{}, put);
    }
    case SAG_REDUCE_NORM: return cuda_sums<T>(env, a->x, NULL, 1, n, 1, cuda_sum_square{}, put_root<T>{(T *)a->y});
    case SAG_REDUCE_MAX:
    case SAG_REDUCE_MIN: return extreme_fwd<T>(env, a);
    case SAG_REDUCE_COUNT_NONFINITE:
        return cuda_sums<T>(env, a->x, NULL, 1, n, 1, nonfinite{}, cuda_sum_put<float>{(float *)a->y, 1.0, 0});
    }
    return SAG_KERNEL_UNSUPPORTED;
}

template <typename T> static int reduce_bwd(sag_kernel_env *env, const reduce_args *a)
{
    if (a->kind == SAG_REDUCE_NORM) {
        const norm_grad<T> f = {(const T *)a->dy, (const T *)a->y_saved, 0};
        return cuda_map1<T>(env, f, a->dx, a->x, a->outer * a->axis * a->inner, a->accumulate);
    }
    const float factor = a->kind == SAG_REDUCE_MEAN ? (float)(1.0 / (double)a->axis) : 1.0f;
    return cuda_repeat<T>(env, a->dx, a->dy, a->outer, a->axis, a->inner, factor, a->accumulate);
}

static int cuda_reduce_fwd(sag_kernel_env *env, const reduce_args *a)
{
    return CUDA_BY_DTYPE(a->act, reduce_fwd, env, a);
}
static int cuda_reduce_bwd(sag_kernel_env *env, const reduce_args *a)
{
    return CUDA_BY_DTYPE(a->act, reduce_bwd, env, a);
}
static int cuda_argmax(sag_kernel_env *env, const reduce_args *a)
{
    return CUDA_BY_DTYPE(a->act, argmax, env, a);
}

CUDA_REGISTER(reduce)
{
    t->reduce_fwd = cuda_reduce_fwd;
    t->reduce_bwd = cuda_reduce_bwd;
    t->argmax = cuda_argmax;
}
