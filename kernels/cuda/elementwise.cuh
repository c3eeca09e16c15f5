/*
 * elementwise.cuh - one pass over memory, y[i] (+)= f(x0[i], x1[i], ...), and what such passes share: groups of elements
 * moved with 16-byte accesses, and division by a number that is known before the launch.
 *
 * Bound by memory: (inputs + 1, or + 2 when accumulating) * n * sizeof(T) bytes. A thread keeps 64 bytes of loads or more
 * in flight before its first store. y may be one of the inputs: an element is read and written by one thread alone.
 */
#ifndef SAG_CUDA_ELEMENTWISE_CUH
#define SAG_CUDA_ELEMENTWISE_CUH

#include "kernels/cuda/cuda.cuh"

enum { CUDA_BLOCK = 256 }; /* threads of a memory-bound block */

/* ------------------------------------------------------------------------------------------------ groups */

/* N neighbours to and from registers; p is aligned to N * sizeof(T) or to 16 bytes, whichever is less. */
template <int N, typename T> __device__ static inline void cuda_load_group(T (&v)[N], const T *p)
{
    if constexpr (N * sizeof(T) % 16 == 0) {
#pragma unroll
        for (int i = 0; i < (int)(N * sizeof(T) / 16); i++) {
            const uint4 w = reinterpret_cast<const uint4 *>(p)[i];
            memcpy((char *)v + 16 * i, &w, 16);
        }
    } else if constexpr (N * sizeof(T) == 8) {
        const uint2 w = *reinterpret_cast<const uint2 *>(p);
        memcpy(v, &w, 8);
    } else if constexpr (N * sizeof(T) == 4 && N > 1) {
        const uint32_t w = *reinterpret_cast<const uint32_t *>(p);
        memcpy(v, &w, 4);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = p[i];
    }
}
template <int N, typename T> __device__ static inline void cuda_store_group(T *p, const T (&v)[N])
{
    if constexpr (N * sizeof(T) % 16 == 0) {
#pragma unroll
        for (int i = 0; i < (int)(N * sizeof(T) / 16); i++) {
            uint4 w;
            memcpy(&w, (const char *)v + 16 * i, 16);
            reinterpret_cast<uint4 *>(p)[i] = w;
        }
    } else if constexpr (N * sizeof(T) == 8) {
        uint2 w;
        memcpy(&w, v, 8);
        *reinterpret_cast<uint2 *>(p) = w;
    } else if constexpr (N * sizeof(T) == 4 && N > 1) {
        uint32_t w;
        memcpy(&w, v, 4);
        *reinterpret_cast<uint32_t *>(p) = w;
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) p[i] = v[i];
    }
}

/* Elements of a 16-byte group. */
template <typename T> struct cuda_group {
    static constexpr int size = 16 / (int)sizeof(T);
};

static inline bool cuda_aligned(const void *p, size_t bytes)
{
    return ((uintptr_t)p & (bytes - 1)) == 0;
}
/* Whether rows of `length` elements from p on can all be moved in 16-byte groups. NULL is no obstacle. */
template <typename T> static inline bool cuda_rows_align(const T *p, int64_t length)
{
    return cuda_aligned(p, 16) && length % cuda_group<T>::size == 0;
}

/* ---------------------------------------------------------------------------------------------- division */

/*
 * x / d for 0 <= x < limit, d >= 1. Below 2^31 by a multiplication (Granlund and Montgomery, "Division by invariant integers
 * using multiplication", 1994): with s = ceil(log2 d), m = floor(2^32 (2^s - d) / d) + 1, x / d = (hi32(m x) + x) >> s.
 */
struct cuda_divisor {
    int64_t d;
    uint32_t magic;
    int shift; /* -1: the plain division */
    __device__ inline int64_t quotient(int64_t x) const
    {
        if (shift < 0) return x / d;
        const uint32_t n = (uint32_t)x;
        return (int64_t)(((uint32_t)((uint64_t)n * magic >> 32) + n) >> shift);
    }
    /* x becomes x mod d, the quotient is returned. */
    __device__ inline int64_t split(int64_t &x) const
    {
        const int64_t q = quotient(x);
        x -= q * d;
        return q;
    }
};

static inline cuda_divisor cuda_divisor_of(int64_t d, int64_t limit)
{
    cuda_divisor r = {d < 1 ? 1 : d, 0, -1};
    if (limit > ((int64_t)1 << 31) || r.d >= ((int64_t)1 << 31)) return r;
    r.shift = 0;
    while (((int64_t)1 << r.shift) < r.d) r.shift++;
    r.magic = (uint32_t)(((uint64_t)(((int64_t)1 << r.shift) - r.d) << 32) / (uint64_t)r.d + 1);
    return r;
}

/* ------------------------------------------------------------------------------------------------- passes */

/*
 * A pass over n elements with K inputs. f is a struct with
 *   void begin();                                       called once by a thread: fetch numbers from device memory
 *   float operator()(const float *x, int64_t i) const;  the result of element i from x[0..K-1]
 */
template <typename T, int K> struct cuda_pass {
    T *y;
    const T *x[K > 0 ? K : 1];
    int64_t n;
    int head; /* elements before the first whole group */
    int accumulate;
};

/* G groups of V elements, `apart` elements from one another, the first at i: all loads, then all stores. */
template <int V, int G, typename T, int K, typename F>
__device__ static inline void cuda_pass_groups(const cuda_pass<T, K> &p, const F &f, int64_t i, int64_t apart)
{
    T in[K > 0 ? K : 1][G][V], old[G][V];
#pragma unroll
    for (int g = 0; g < G; g++) {
#pragma unroll
        for (int k = 0; k < K; k++) cuda_load_group<V>(in[k][g], p.x[k] + i + g * apart);
    }
    if (p.accumulate) {
#pragma unroll
        for (int g = 0; g < G; g++) cuda_load_group<V>(old[g], p.y + i + g * apart);
    }
#pragma unroll
    for (int g = 0; g < G; g++) {
        T out[V];
#pragma unroll
        for (int v = 0; v < V; v++) {
            float x[K > 0 ? K : 1];
#pragma unroll
            for (int k = 0; k < K; k++) x[k] = cuda_float(in[k][g][v]);
            float r = f(x, i + g * apart + v);
            if (p.accumulate) r = cuda_float(old[g][v]) + r;
            cuda_store(&out[v], r);
        }
        cuda_store_group<V>(p.y + i + g * apart, out);
    }
}

template <int V, typename T, int K, typename F> __global__ void __launch_bounds__(CUDA_BLOCK) elementwise_kernel(cuda_pass<T, K> p, F f)
{
    constexpr int G = K > 1 ? 2 : 4;
    f.begin();
    const int64_t groups = (p.n - p.head) / V, tail = p.head + groups * V, t = threadIdx.x;
    if (V > 1 && blockIdx.x == 0) { /* the ragged ends, each shorter than a group */
        if (t < p.head) cuda_pass_groups<1, 1>(p, f, t, 0);
        if (tail + t < p.n) cuda_pass_groups<1, 1>(p, f, tail + t, 0);
    }
    const int64_t tile = (int64_t)CUDA_BLOCK * G, step = tile * gridDim.x;
    for (int64_t g = blockIdx.x * tile + t; g < groups; g += step) {
        if (g + (G - 1) * CUDA_BLOCK < groups) {
            cuda_pass_groups<V, G>(p, f, p.head + g * V, (int64_t)CUDA_BLOCK * V);
        } else {
            for (int64_t k = g; k < groups; k += CUDA_BLOCK) cuda_pass_groups<V, 1>(p, f, p.head + k * V, 0);
        }
    }
}

/* y[i] (+)= f(x[0][i], ..), i < n. Pointers may start anywhere; all equally far from a 16-byte boundary: 16-byte accesses. */
template <typename F, typename T, int K> static int cuda_elementwise(sag_kernel_env *env, cuda_pass<T, K> p, F f)
{
    constexpr int V = cuda_group<T>::size, G = K > 1 ? 2 : 4;
    if (p.n <= 0) return SAG_KERNEL_OK;
    const uintptr_t at = (uintptr_t)p.y & 15;
    bool together = at % sizeof(T) == 0;
    for (int k = 0; k < K; k++) together = together && ((uintptr_t)p.x[k] & 15) == at;
    p.head = together ? (int)((16 - at) % 16 / sizeof(T)) : 0;
    if (p.head > p.n) p.head = (int)p.n;
    if (together)
        return CUDA_LAUNCH(env, (elementwise_kernel<V, T, K, F>), cuda_blocks(p.n, CUDA_BLOCK * G * V), CUDA_BLOCK, 0, p, f);
    return CUDA_LAUNCH(env, (elementwise_kernel<1, T, K, F>), cuda_blocks(p.n, CUDA_BLOCK * G), CUDA_BLOCK, 0, p, f);
}

/* The usual ways to say it; x are `const void *` of dtype T. */
template <typename T, typename F> static int cuda_map0(sag_kernel_env *env, F f, void *y, int64_t n, int accumulate)
{
    return cuda_elementwise(env, cuda_pass<T, 0>{(T *)y, {NULL}, n, 0, accumulate}, f);
}
template <typename T, typename F>
static int cuda_map1(sag_kernel_env *env, F f, void *y, const void *x0, int64_t n, int accumulate)
{
    return cuda_elementwise(env, cuda_pass<T, 1>{(T *)y, {(const T *)x0}, n, 0, accumulate}, f);
}
template <typename T, typename F>
static int cuda_map2(sag_kernel_env *env, F f, void *y, const void *x0, const void *x1, int64_t n, int accumulate)
{
    return cuda_elementwise(env, cuda_pass<T, 2>{(T *)y, {(const T *)x0, (const T *)x1}, n, 0, accumulate}, f);
}
template <typename T, typename F>
static int cuda_map3(sag_kernel_env *env, F f, void *y, const void *x0, const void *x1, const void *x2, int64_t n, int accumulate)
{
    return cuda_elementwise(env, cuda_pass<T, 3>{(T *)y, {(const T *)x0, (const T *)x1, (const T *)x2}, n, 0, accumulate}, f);
}

/* y {outer, axis, inner} (+)= factor * x {outer, inner} repeated over the axis: the gradient of a sum. */
template <typename T> struct cuda_repeat_axis {
    const T *x;
    cuda_divisor inner, plane; /* inner, axis * inner */
    float factor;
    __device__ void begin()
    {
    }
    __device__ float operator()(const float *, int64_t i) const
    {
        const int64_t o = plane.split(i);
        inner.split(i);
        return cuda_float(x[o * inner.d + i]) * factor;
    }
};
template <typename T>
static int cuda_repeat(sag_kernel_env *env, void *y, const void *x, int64_t outer, int64_t axis, int64_t inner, float factor,
                       int accumulate)
{
    const int64_t n = outer * axis * inner;
    cuda_repeat_axis<T> f = {(const T *)x, cuda_divisor_of(inner, n), cuda_divisor_of(axis * inner, n), factor};
    return cuda_map0<T>(env, f, y, n, accumulate);
}

#endif
