/*
 * pool.cu - nearest upsampling, mean, max and global sum pooling on NHWC. A thread takes one group of neighbouring channels
 * (16 bytes where the channels allow it) of one pixel: of x for upsampling, of y for windows forward, of dx for windows
 * backward, which gathers: an input element asks the windows that hold it, in order.
 *
 * Bound by memory: upsample 5 elements a pixel of x, 2 x 2 mean 5 a pixel of y, its gradient 1.25 a pixel of dx (dy comes
 * from the caches the other three times); accumulating adds a read.
 */
#include "kernels/cuda/sums.cuh"

/* What all kernels here know: sizes, and the way from a thread's number to (line of an image, pixel, group of channels). */
struct pool_map {
    int64_t n, lines, width, c, total; /* lines: images * height; of the side that threads walk; total: groups of channels */
    int64_t h, w, p, q;
    int size, stride, pad, include_pad, accumulate;
    cuda_divisor groups, by_width, by_height;
};

static pool_map map_of(const pool_args *a, int64_t height, int64_t width, int v)
{
    pool_map m = {a->n, a->n * height, width, a->c, a->n * height * width * (a->c / v),
                  a->h, a->w_in, a->p, a->q,
                  (int)a->size, (int)a->stride, (int)a->pad, a->include_pad, a->accumulate,
                  cuda_divisor_of(1, 1), cuda_divisor_of(1, 1), cuda_divisor_of(1, 1)};
    m.groups = cuda_divisor_of(a->c / v, m.total);
    m.by_width = cuda_divisor_of(width, m.total);
    m.by_height = cuda_divisor_of(height, m.total);
    return m;
}

/* Of thread number `at`: the line (images and rows together), the pixel of it, the first channel. */
struct pool_place {
    int64_t line, pixel, channel;
};
template <int V> __device__ static inline pool_place place_of(const pool_map &m, int64_t at)
{
    pool_place s;
    s.pixel = m.groups.split(at);
    s.channel = at * V;
    s.line = m.by_width.split(s.pixel);
    return s;
}

#define POOL_LOOP(m, at)                                                                                             \
    for (int64_t at = (int64_t)blockIdx.x * CUDA_BLOCK + threadIdx.x; at < (m).total; at += (int64_t)gridDim.x * CUDA_BLOCK)

/* to[0..V-1] = r, or += r */
template <int V, typename T> __device__ static inline void put_group(T *to, const float (&r)[V], int accumulate)
{
    T out[V];
    if (accumulate) cuda_load_group<V>(out, to);
#pragma unroll
    for (int v = 0; v < V; v++) cuda_put(out + v, r[v], accumulate);
    cuda_store_group<V>(to, out);
}
template <int V, typename T> __device__ static inline void add_group(float (&r)[V], const T *from)
{
    T x[V];
    cuda_load_group<V>(x, from);
#pragma unroll
    for (int v = 0; v < V; v++) r[v] += cuda_float(x[v]);
}

/* ---------------------------------------------------------------------------------------------- upsample */

/* y = x doubled */
template <int V, typename T> __global__ void __launch_bounds__(CUDA_BLOCK) upsample_kernel(pool_map m, const T *x, T *y)
{
    POOL_LOOP(m, at)
    {
        const pool_place s = place_of<V>(m, at);
        const int64_t right = m.c, below = 2 * m.w * m.c, to = s.line * 2 * below + 2 * s.pixel * m.c + s.channel;
        T v[V];
        cuda_load_group<V>(v, x + (s.line * m.w + s.pixel) * m.c + s.channel);
        cuda_store_group<V>(y + to, v);
        cuda_store_group<V>(y + to + right, v);
        cuda_store_group<V>(y + to + below, v);
        cuda_store_group<V>(y + to + below + right, v);
    }
}

/* to {lines, width} (+)= factor * the sum of each 2 x 2 square of `from`, whose images are `h` lines of `w` pixels. */
template <int V, typename T>
__global__ void __launch_bounds__(CUDA_BLOCK) squares_kernel(pool_map m, const T *from, T *to, int64_t h, int64_t w, float factor)
{
    POOL_LOOP(m, at)
    {
        const pool_place s = place_of<V>(m, at);
        int64_t row = s.line;
        const int64_t image = m.by_height.split(row), first = ((image * h + 2 * row) * w + 2 * s.pixel) * m.c + s.channel;
        T u[4][V];
#pragma unroll
        for (int k = 0; k < 4; k++) cuda_load_group<V>(u[k], from + first + (k & 1) * m.c + (k >> 1) * w * m.c);
        float r[V];
#pragma unroll
        for (int j = 0; j < V; j++)
            r[j] = ((cuda_float(u[0][j]) + cuda_float(u[1][j])) + (cuda_float(u[2][j]) + cuda_float(u[3][j]))) * factor;
        put_group<V>(to + (s.line * m.width + s.pixel) * m.c + s.channel, r, m.accumulate);
    }
}

/* ------------------------------------------------------------------------------------------------- windows */

struct span {
    int from, to;
};
/* Positions of the input that window `o` covers, clipped to 0 .. length - 1. */
__device__ static inline span window(const pool_map &m, int64_t o, int64_t length)
{
    const int at = (int)(o * m.stride) - m.pad, end = at + m.size;
    return {at > 0 ? at : 0, end < (int)length ? end : (int)length};
}
/* Windows that cover input position i, among 0 .. count - 1. */
__device__ static inline span holders(const pool_map &m, int64_t i, int64_t count)
{
    const int first = (int)i + m.pad - m.size + 1, last = ((int)i + m.pad) / m.stride + 1;
    return {first > 0 ? (first + m.stride - 1) / m.stride : 0, last < (int)count ? last : (int)count};
}
__device__ static inline float share(const pool_map &m, span v, span u)
{
    const int n = m.include_pad ? m.size * m.size : (v.to - v.from) * (u.to - u.from);
    return 1.0f / (float)n;
}

template <int V, typename T> __global__ void __launch_bounds__(CUDA_BLOCK) mean_pool_fwd_kernel(pool_map m, const T *x, T *y)
{
    POOL_LOOP(m, at)
    {
        const pool_place s = place_of<V>(m, at);
        int64_t p = s.line;
        const int64_t image = m.by_height.split(p);
        const span v = window(m, p, m.h), u = window(m, s.pixel, m.w);
        float r[V];
#pragma unroll
        for (int j = 0; j < V; j++) r[j] = 0.0f;
        for (int i = v.from; i < v.to; i++) {
#pragma unroll 4
            for (int k = u.from; k < u.to; k++) add_group<V>(r, x + ((image * m.h + i) * m.w + k) * m.c + s.channel);
        }
        const float factor = share(m, v, u);
#pragma unroll
        for (int j = 0; j < V; j++) r[j] *= factor;
        put_group<V>(y + (s.line * m.q + s.pixel) * m.c + s.channel, r, 0);
    }
}

template <int V, typename T> __global__ void __launch_bounds__(CUDA_BLOCK) mean_pool_bwd_kernel(pool_map m, const T *dy, T *dx)
{
    POOL_LOOP(m, at)
    {
        const pool_place s = place_of<V>(m, at);
        int64_t i = s.line;
        const int64_t image = m.by_height.split(i);
        const span v = holders(m, i, m.p), u = holders(m, s.pixel, m.q);
        float r[V];
#pragma unroll
        for (int j = 0; j < V; j++) r[j] = 0.0f;
        for (int p = v.from; p < v.to; p++) {
            for (int q = u.from; q < u.to; q++) {
                T d[V];
                cuda_load_group<V>(d, dy + ((image * m.p + p) * m.q + q) * m.c + s.channel);
                const float factor = share(m, window(m, p, m.h), window(m, q, m.w));
#pragma unroll
                for (int j = 0; j < V; j++) r[j] = fmaf(cuda_float(d[j]), factor, r[j]);
            }
        }
        put_group<V>(dx + (s.line * m.w + s.pixel) * m.c + s.channel, r, m.accumulate);
    }
}

/* size 2, stride 2, no padding: the gradient of a pixel is a quarter of one window's; an odd last row or column has none. */
template <int V, typename T> __global__ void __launch_bounds__(CUDA_BLOCK) halving_bwd_kernel(pool_map m, const T *dy, T *dx)
{
    POOL_LOOP(m, at)
    {
        const pool_place s = place_of<V>(m, at);
        int64_t i = s.line;
        const int64_t image = m.by_height.split(i), p = i >> 1, q = s.pixel >> 1;
        float r[V];
#pragma unroll
        for (int j = 0; j < V; j++) r[j] = 0.0f;
        if (p < m.p && q < m.q) {
            add_group<V>(r, dy + ((image * m.p + p) * m.q + q) * m.c + s.channel);
#pragma unroll
            for (int j = 0; j < V; j++) r[j] *= 0.25f;
        }
        put_group<V>(dx + (s.line * m.w + s.pixel) * m.c + s.channel, r, m.accumulate);
    }
}

/* The first of equal values wins, and a NaN wins over numbers. */
template <int V, typename T>
__global__ void __launch_bounds__(CUDA_BLOCK) max_pool_fwd_kernel(pool_map m, const T *x, T *y, int32_t *winner)
{
    POOL_LOOP(m, at)
    {
        const pool_place s = place_of<V>(m, at);
        int64_t p = s.line;
        const int64_t image = m.by_height.split(p), to = (s.line * m.q + s.pixel) * m.c + s.channel;
        const span v = window(m, p, m.h), u = window(m, s.pixel, m.w);
        T best[V], next[V];
        int32_t where[V];
        cuda_load_group<V>(best, x + ((image * m.h + v.from) * m.w + u.from) * m.c + s.channel);
#pragma unroll
        for (int j = 0; j < V; j++) where[j] = v.from * (int32_t)m.w + u.from;
        for (int i = v.from; i < v.to; i++) {
            for (int k = u.from; k < u.to; k++) {
                cuda_load_group<V>(next, x + ((image * m.h + i) * m.w + k) * m.c + s.channel);
#pragma unroll
                for (int j = 0; j < V; j++) {
                    const float a = cuda_float(best[j]), b = cuda_float(next[j]);
                    if (b > a || (b != b && a == a)) {
                        best[j] = next[j];
                        where[j] = i * (int32_t)m.w + k;
                    }
                }
            }
        }
        cuda_store_group<V>(y + to, best);
        cuda_store_group<V>(winner + to, where);
    }
}

template <int V, typename T>
__global__ void __launch_bounds__(CUDA_BLOCK) max_pool_bwd_kernel(pool_map m, const T *dy, const int32_t *winner, T *dx)
{
    POOL_LOOP(m, at)
    {
        const pool_place s = place_of<V>(m, at);
        int64_t i = s.line;
        const int64_t image = m.by_height.split(i);
        const span v = holders(m, i, m.p), u = holders(m, s.pixel, m.q);
        const int32_t here = (int32_t)(i * m.w + s.pixel);
        float r[V];
#pragma unroll
        for (int j = 0; j < V; j++) r[j] = 0.0f;
        for (int p = v.from; p < v.to; p++) {
            for (int q = u.from; q < u.to; q++) {
                const int64_t from = ((image * m.p + p) * m.q + q) * m.c + s.channel;
                T d[V];
                int32_t w[V];
                cuda_load_group<V>(d, dy + from);
                cuda_load_group<V>(w, winner + from);
#pragma unroll
                for (int j = 0; j < V; j++) r[j] += w[j] == here ? cuda_float(d[j]) : 0.0f;
            }
        }
        put_group<V>(dx + (s.line * m.w + s.pixel) * m.c + s.channel, r, m.accumulate);
    }
}

/* -------------------------------------------------------------------------------------------------- slots */

static bool halving(const pool_args *a)
{
    return a->size == 2 && a->stride == 2 && a->pad == 0;
}

/* Groups of 16 bytes if the channels and every address allow it. */
template <typename T> static bool in_groups(const pool_args *a)
{
    return a->c % cuda_group<T>::size == 0 && cuda_aligned(a->x, 16) && cuda_aligned(a->y, 16) && cuda_aligned(a->dx, 16) &&
           cuda_aligned(a->dy, 16) && cuda_aligned(a->winner, 16);
}

#define POOL_LAUNCH(env, kernel, m, ...)                                                                             \
    ((m).total > 0 ? CUDA_LAUNCH(env, kernel, cuda_blocks((m).total, CUDA_BLOCK), CUDA_BLOCK, 0, m, __VA_ARGS__) : (int)SAG_KERNEL_OK)

template <int V, typename T> struct pool {
    static int upsample_fwd(sag_kernel_env *env, const pool_args *a)
    {
        const pool_map m = map_of(a, a->h, a->w_in, V);
        return POOL_LAUNCH(env, (upsample_kernel<V, T>), m, (const T *)a->x, (T *)a->y);
    }
    static int upsample_bwd(sag_kernel_env *env, const pool_args *a)
    {
        const pool_map m = map_of(a, a->h, a->w_in, V);
        return POOL_LAUNCH(env, (squares_kernel<V, T>), m, (const T *)a->dy, (T *)a->dx, 2 * a->h, 2 * a->w_in, 1.0f);
    }
    static int mean_pool_fwd(sag_kernel_env *env, const pool_args *a)
    {
        pool_map m = map_of(a, a->p, a->q, V);
        m.accumulate = 0;
        if (halving(a)) return POOL_LAUNCH(env, (squares_kernel<V, T>), m, (const T *)a->x, (T *)a->y, a->h, a->w_in, 0.25f);
        return POOL_LAUNCH(env, (mean_pool_fwd_kernel<V, T>), m, (const T *)a->x, (T *)a->y);
    }
    static int mean_pool_bwd(sag_kernel_env *env, const pool_args *a)
    {
        const pool_map m = map_of(a, a->h, a->w_in, V);
        if (halving(a)) return POOL_LAUNCH(env, (halving_bwd_kernel<V, T>), m, (const T *)a->dy, (T *)a->dx);
        return POOL_LAUNCH(env, (mean_pool_bwd_kernel<V, T>), m, (const T *)a->dy, (T *)a->dx);
    }
    static int max_pool_fwd(sag_kernel_env *env, const pool_args *a)
    {
        const pool_map m = map_of(a, a->p, a->q, V);
        return POOL_LAUNCH(env, (max_pool_fwd_kernel<V, T>), m, (const T *)a->x, (T *)a->y, a->winner);
    }
    static int max_pool_bwd(sag_kernel_env *env, const pool_args *a)
    {
        const pool_map m = map_of(a, a->h, a->w_in, V);
        return POOL_LAUNCH(env, (max_pool_bwd_kernel<V, T>), m, (const T *)a->dy, (const int32_t *)a->winner, (T *)a->dx);
    }
};

#define SLOT(name)                                                                                                   \
    template <typename T> static int name(sag_kernel_env *env, const pool_args *a)                                   \
    {                                                                                                                \
        return in_groups<T>(a) ? pool<cuda_group<T>::size, T>::name(env, a) : pool<1, T>::name(env, a);              \
    }                                                                                                                \
    static int cuda_##name(sag_kernel_env *env, const pool_args *a)                                                  \
    {                                                                                                                \
        return CUDA_BY_DTYPE(a->act, name, env, a);                                                                  \
    }
SLOT(upsample_fwd)
SLOT(upsample_bwd)
SLOT(mean_pool_fwd)
SLOT(mean_pool_bwd)
SLOT(max_pool_fwd)
SLOT(max_pool_bwd)

template <typename T> static int global_sum_pool_fwd(sag_kernel_env *env, const pool_args *a)
{
    return cuda_sums<T>(env, a->x, NULL, a->n, a->h * a->w_in, a->c, cuda_sum_plain{}, cuda_sum_put<T>{(T *)a->y, 1.0, 0});
}
template <typename T> static int global_sum_pool_bwd(sag_kernel_env *env, const pool_args *a)
{
    return cuda_repeat<T>(env, a->dx, a->dy, a->n, a->h * a->w_in, a->c, 1.0f, a->accumulate);
}
static int cuda_global_sum_pool_fwd(sag_kernel_env *env, const pool_args *a)
{
    return CUDA_BY_DTYPE(a->act, global_sum_pool_fwd, env, a);
}
static int cuda_global_sum_pool_bwd(sag_kernel_env *env, const pool_args *a)
{
    return CUDA_BY_DTYPE(a->act, global_sum_pool_bwd, env, a);
}

CUDA_REGISTER(pool)
{
    t->upsample_fwd = cuda_upsample_fwd;
    t->upsample_bwd = cuda_upsample_bwd;
    t->mean_pool_fwd = cuda_mean_pool_fwd;
    t->mean_pool_bwd = cuda_mean_pool_bwd;
    t->max_pool_fwd = cuda_max_pool_fwd;
    t->max_pool_bwd = cuda_max_pool_bwd;
    t->global_sum_pool_fwd = cuda_global_sum_pool_fwd;
    t->global_sum_pool_bwd = cuda_global_sum_pool_bwd;
}
