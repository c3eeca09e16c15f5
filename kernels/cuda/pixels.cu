/*
 * pixels.cu - between stored pictures and activations, and between dtypes; the bits of the CPU (rules: kernels/cpu/pixels.c).
 * Bound by memory: pictures 5 bytes an element, casts the sizes of both dtypes. A thread takes four neighbouring numbers of a
 * picture (one Philox block of noise), of a cast as many as fill 16 bytes of the wider dtype.
 */
#include "kernels/cuda/elementwise.cuh"
#include "kernels/philox.h"

/* ---------------------------------------------------------------------------------------------- pictures */

struct pixels_map {
    int64_t n; /* numbers in all */
    int64_t line;
    cuda_divisor image, row, pixel; /* h * w * c, w * c, c */
    uint32_t stream, key0, key1;
    int flip;
    float dequantize;
};

__device__ static inline float float_of_pixel(uint8_t x)
{
    return ((float)x - 127.5f) / 127.5f; /* 0 and 255 are exactly -1 and 1 */
}

/* ALIGNED: x to 4 bytes, y to 16. */
template <bool ALIGNED>
__global__ void __launch_bounds__(CUDA_BLOCK) pixels_to_float_kernel(pixels_map m, const int32_t *clock, const uint8_t *x, float *y)
{
    const int64_t groups = (m.n + 3) / 4;
    uint32_t c2 = 0, c3 = 0;
    if (m.flip || m.dequantize > 0.0f) {
        c2 = (uint32_t)clock[0];
        c3 = (uint32_t)clock[1];
    }
    int64_t image = -1; /* whose flip is known */
    bool mirrored = false;
    for (int64_t g = (int64_t)blockIdx.x * CUDA_BLOCK + threadIdx.x; g < groups; g += (int64_t)gridDim.x * CUDA_BLOCK) {
        const int64_t first = g * 4;
        const int count = m.n - first < 4 ? (int)(m.n - first) : 4;
        float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (!m.flip) {
            if (ALIGNED && count == 4) {
                uint8_t u[4];
                cuda_load_group<4>(u, x + first);
#pragma unroll
                for (int k = 0; k < 4; k++) v[k] = float_of_pixel(u[k]);
            } else {
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    if (k < count) v[k] = float_of_pixel(x[first + k]);
                }
            }
        } else {
#pragma unroll
            for (int k = 0; k < 4; k++) {
                if (k >= count) continue;
                int64_t at = first + k;
                const int64_t i = m.image.split(at);
                if (i != image) {
                    image = i;
                    mirrored = (sag_philox((uint32_t)i, m.stream, c2, c3, m.key0, m.key1).w0 & 1u) != 0u;
                }
                int64_t from = first + k;
                if (mirrored) { /* to the other end of its row, channels in order */
                    m.row.split(at);
                    int64_t channel = at;
                    m.pixel.split(channel);
                    from += m.line - m.pixel.d - 2 * (at - channel);
                }
                v[k] = float_of_pixel(x[from]);
            }
        }
        if (m.dequantize > 0.0f) {
            const sag_philox_block p = sag_philox((uint32_t)g, m.stream + 1, c2, c3, m.key0, m.key1);
            v[0] = fmaf(sag_philox_unit(p.w0), m.dequantize, v[0]);
            v[1] = fmaf(sag_philox_unit(p.w1), m.dequantize, v[1]);
            v[2] = fmaf(sag_philox_unit(p.w2), m.dequantize, v[2]);
            v[3] = fmaf(sag_philox_unit(p.w3), m.dequantize, v[3]);
        }
        if (ALIGNED && count == 4) {
            cuda_store_group<4>(y + first, v);
        } else {
#pragma unroll
            for (int k = 0; k < 4; k++) {
                if (k < count) y[first + k] = v[k];
            }
        }
    }
}

static int cuda_pixels_to_float(sag_kernel_env *env, const pixels_args *a)
{
    const int64_t line = a->w_in * a->c, plane = a->h * line, n = a->n * plane;
    if (n <= 0) return SAG_KERNEL_OK;
    const pixels_map m = {n, line, cuda_divisor_of(plane, n), cuda_divisor_of(line, n), cuda_divisor_of(a->c, n),
                          a->stream, (uint32_t)a->seed, (uint32_t)(a->seed >> 32), a->flip, a->dequantize};
    const uint8_t *x = (const uint8_t *)a->x;
    float *y = (float *)a->y;
    if (cuda_aligned(x, 4) && cuda_aligned(y, 16))
        return CUDA_LAUNCH(env, (pixels_to_float_kernel<true>), cuda_blocks(n, 4 * CUDA_BLOCK), CUDA_BLOCK, 0, m, a->clock, x, y);
    return CUDA_LAUNCH(env, (pixels_to_float_kernel<false>), cuda_blocks(n, 4 * CUDA_BLOCK), CUDA_BLOCK, 0, m, a->clock, x, y);
}

/* ------------------------------------------------------------------------------------------------- casts */

__device__ static inline float clip(float x, float low, float high)
{
    x = x == x ? x : 0.0f;
    x = x > low ? x : low;
    return x < high ? x : high;
}
__device__ static inline void convert(float x, float *y)
{
    *y = x;
}
__device__ static inline void convert(float x, cuda_bf16 *y)
{
    cuda_store(y, x);
}
__device__ static inline void convert(float x, int32_t *y)
{
    const int32_t v = (int32_t)clip(x, -2147483648.0f, 2147483520.0f); /* the largest float below 2^31 */
    *y = x >= 2147483648.0f ? INT32_MAX : v;
}
__device__ static inline void convert(float x, uint8_t *y)
{
    *y = (uint8_t)(int32_t)clip(x, 0.0f, 255.0f);
}
/* bf16 goes through f32, and whole numbers reach both through it. */
template <typename Y> __device__ static inline void convert(cuda_bf16 x, Y *y)
{
    convert(cuda_float(x), y);
}
template <typename Y> __device__ static inline void convert(uint8_t x, Y *y)
{
    convert((float)x, y);
}
__device__ static inline void convert(uint8_t x, int32_t *y)
{
    *y = x;
}
__device__ static inline void convert(int32_t x, float *y)
{
    *y = (float)x;
}
__device__ static inline void convert(int32_t x, cuda_bf16 *y)
{
    cuda_store(y, (float)x);
}
__device__ static inline void convert(int32_t x, uint8_t *y)
{
    *y = (uint8_t)(x < 0 ? 0 : x > 255 ? 255 : x);
}
/* f32 in [-1,1] to a picture: floor(x * 127.5 + 128), clipped, NaN to 0. A type of its own, so that it is a cast too. */
struct pixel {
    uint8_t x;
};
__device__ static inline void convert(float x, pixel *y)
{
    float t = fmaf(x, 127.5f, 128.0f);
    t = t > 0.0f ? t : 0.0f;
    t = t < 255.0f ? t : 255.0f;
    y->x = (uint8_t)(int32_t)t;
}

/* V at a time, four of them in flight. */
template <int V, typename X, typename Y> __global__ void __launch_bounds__(CUDA_BLOCK) cast_kernel(int64_t n, const X *x, Y *y)
{
    const int64_t groups = n / V, tile = 4 * CUDA_BLOCK;
    for (int64_t first = blockIdx.x * tile + threadIdx.x; first < groups; first += tile * gridDim.x) {
        X in[4][V];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (first + k * CUDA_BLOCK < groups) cuda_load_group<V>(in[k], x + (first + k * CUDA_BLOCK) * V);
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (first + k * CUDA_BLOCK >= groups) continue;
            Y out[V];
#pragma unroll
            for (int v = 0; v < V; v++) convert(in[k][v], &out[v]);
            cuda_store_group<V>(y + (first + k * CUDA_BLOCK) * V, out);
        }
    }
    const int64_t rest = groups * V + threadIdx.x;
    if (V > 1 && blockIdx.x == 0 && rest < n) {
        Y out;
        convert(x[rest], &out);
        y[rest] = out;
    }
}

template <typename X, typename Y> static int cast_of(sag_kernel_env *env, int64_t n, const void *x_, void *y_)
{
    constexpr int V = 16 / (int)(sizeof(X) > sizeof(Y) ? sizeof(X) : sizeof(Y));
    const X *x = (const X *)x_;
    Y *y = (Y *)y_;
    if (n <= 0) return SAG_KERNEL_OK;
    if (cuda_aligned(x, V * sizeof(X)) && cuda_aligned(y, V * sizeof(Y)))
        return CUDA_LAUNCH(env, (cast_kernel<V, X, Y>), cuda_blocks(n, 4 * CUDA_BLOCK * V), CUDA_BLOCK, 0, n, x, y);
    return CUDA_LAUNCH(env, (cast_kernel<1, X, Y>), cuda_blocks(n, 4 * CUDA_BLOCK), CUDA_BLOCK, 0, n, x, y);
}

static int cuda_float_to_pixels(sag_kernel_env *env, const pixels_args *a)
{
    return cast_of<float, pixel>(env, a->n * a->h * a->w_in * a->c, a->x, a->y);
}

/* To its own dtype: a copy, NaN and all. */
template <typename X> struct same {
    X x;
};
template <typename X> __device__ static inline void convert(same<X> x, same<X> *y)
{
    *y = x;
}

#define CASTS(X)                                                                                                     \
    X(F32, F32, same<float>, same<float>) X(F32, BF16, float, cuda_bf16) X(F32, U8, float, uint8_t)                  \
    X(F32, I32, float, int32_t) X(BF16, F32, cuda_bf16, float) X(BF16, BF16, same<uint16_t>, same<uint16_t>)         \
    X(BF16, U8, cuda_bf16, uint8_t) X(BF16, I32, cuda_bf16, int32_t) X(U8, F32, uint8_t, float)                      \
    X(U8, BF16, uint8_t, cuda_bf16) X(U8, U8, same<uint8_t>, same<uint8_t>) X(U8, I32, uint8_t, int32_t)             \
    X(I32, F32, int32_t, float) X(I32, BF16, int32_t, cuda_bf16) X(I32, U8, int32_t, uint8_t)                        \
    X(I32, I32, same<int32_t>, same<int32_t>)
#define CAST(from_, to_, X, Y) if (a->from == SAG_##from_ && a->to == SAG_##to_) return cast_of<X, Y>(env, a->n, a->x, a->y);

static int cuda_cast(sag_kernel_env *env, const cast_args *a)
{
    CASTS(CAST)
    return SAG_KERNEL_UNSUPPORTED;
}

CUDA_REGISTER(pixels)
{
    t->pixels_to_float = cuda_pixels_to_float;
    t->float_to_pixels = cuda_float_to_pixels;
    t->cast = cuda_cast;
}
