/*
 * random.cu - tensors of Philox numbers and the step clock: the bits of the CPU (kernels/philox.h, which both compile). A thread
 * makes the four numbers of a Philox block. Writes 4 n bytes; ten rounds of two wide products a block of four numbers, and for
 * normal numbers two polynomials each: near the balance of arithmetic and memory.
 */
#include "kernels/cuda/elementwise.cuh"
#include "kernels/philox.h"

struct uniform_of {
    float low, width, below;
    typedef float number;
    __device__ float operator()(uint32_t word) const
    {
        return sag_philox_uniform(word, low, width, below);
    }
};
struct normal_of {
    sag_philox_gauss gauss;
    float mean, std, bound;
    typedef float number;
    __device__ float operator()(uint32_t word) const
    {
        float z = sag_philox_normal(word, gauss);
        z = z < bound ? z : bound; /* the quantile is an approximation: its last digit must not step over the bound */
        z = z > -bound ? z : -bound;
        return fmaf(std, z, mean);
    }
};
struct integer_of {
    int64_t low;
    uint64_t range;
    typedef int32_t number;
    __device__ int32_t operator()(uint32_t word) const
    {
        return (int32_t)sag_philox_integer(word, low, range);
    }
};

template <bool ALIGNED, typename F>
__global__ void __launch_bounds__(CUDA_BLOCK)
    random_fill_kernel(int64_t n, uint32_t stream, uint32_t key0, uint32_t key1, const int32_t *clock, typename F::number *x, F f)
{
    const uint32_t c2 = (uint32_t)clock[0], c3 = (uint32_t)clock[1];
    const int64_t blocks = (n + 3) / 4;
    for (int64_t b = (int64_t)blockIdx.x * CUDA_BLOCK + threadIdx.x; b < blocks; b += (int64_t)gridDim.x * CUDA_BLOCK) {
        const sag_philox_block p = sag_philox((uint32_t)b, stream, c2, c3, key0, key1);
        const typename F::number y[4] = {f(p.w0), f(p.w1), f(p.w2), f(p.w3)};
        if (ALIGNED && b * 4 + 4 <= n) {
            cuda_store_group<4>(x + b * 4, y);
        } else {
#pragma unroll
            for (int k = 0; k < 4; k++) {
                if (b * 4 + k < n) x[b * 4 + k] = y[k];
            }
        }
    }
}

template <typename F> static int fill_with(sag_kernel_env *env, const random_args *a, F f)
{
    typedef typename F::number number;
    if (a->n <= 0) return SAG_KERNEL_OK;
    const unsigned blocks = cuda_blocks(a->n, 4 * CUDA_BLOCK);
    const uint32_t key0 = (uint32_t)a->seed, key1 = (uint32_t)(a->seed >> 32);
    number *x = (number *)a->x;
    if (cuda_aligned(x, 16)) return CUDA_LAUNCH(env, (random_fill_kernel<true, F>), blocks, CUDA_BLOCK, 0, a->n, a->stream, key0, key1, a->clock, x, f);
    return CUDA_LAUNCH(env, (random_fill_kernel<false, F>), blocks, CUDA_BLOCK, 0, a->n, a->stream, key0, key1, a->clock, x, f);
}

static int cuda_random_fill(sag_kernel_env *env, const random_args *a)
{
    switch (a->kind) {
    case SAG_RANDOM_UNIFORM: return fill_with(env, a, uniform_of{a->a, a->b - a->a, nextafterf(a->b, a->a)});
    case SAG_RANDOM_NORMAL:
        return fill_with(env, a, normal_of{sag_philox_gauss_of((double)a->bound), a->a, a->b, a->bound > 0.0f ? a->bound : 100.0f});
    case SAG_RANDOM_INT: return fill_with(env, a, integer_of{a->low, (uint64_t)(a->high - a->low)});
    }
    return SAG_KERNEL_UNSUPPORTED;
}

__global__ void tick_kernel(int32_t *clock, uint64_t by)
{
    uint64_t t = (uint64_t)(uint32_t)clock[0] | (uint64_t)(uint32_t)clock[1] << 32;
    t += by;
    clock[0] = (int32_t)(uint32_t)t;
    clock[1] = (int32_t)(uint32_t)(t >> 32);
}

static int cuda_tick(sag_kernel_env *env, const tick_args *a)
{
    return CUDA_LAUNCH(env, tick_kernel, 1, 1, 0, a->clock, (uint64_t)a->by);
}

CUDA_REGISTER(random)
{
    t->random_fill = cuda_random_fill;
    t->tick = cuda_tick;
}
