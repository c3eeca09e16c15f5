/*
 * cuda.cuh - what every CUDA kernel file shares: launching, shared memory, f32 and bf16 access, reductions over a warp or
 * a block. The same sources are compiled by nvcc for a card and by a host compiler for the emulator
 * (tests/cuda_emulator), which takes the place of the CUDA headers; so kernels use only what both know:
 *
 *   CUDA_LAUNCH(env, (kernel<T>), grid, block, dynamic_bytes, args...)   instead of <<<>>>; a sag_kernel_result
 *   CUDA_SHARED(float, tile, [32][33]);                                  instead of __shared__ float tile[32][33];
 *   CUDA_DYNAMIC_SHARED(float, name);                                    instead of extern __shared__
 *
 * and threadIdx, blockIdx, blockDim, gridDim, __syncthreads, __syncwarp, __shfl_*_sync, __ballot_sync, __any_sync,
 * __all_sync, __threadfence, atomicAdd, atomicInc, atomicMax, atomicCAS, __ldg, the float functions of math.h, float2, float4,
 * uint2, uint4, int4.
 * Tensor-core products and asynchronous copies are in mma.cuh.
 *
 * Rules of DESIGN 3 that bind a kernel: no allocation but env->scratch, no read-back, no host synchronisation; results do
 * not depend on timing (no floating-point atomics; partial sums of fixed pieces are combined in a fixed order).
 */
#ifndef SAG_CUDA_CUH
#define SAG_CUDA_CUH

#ifdef SAGAN_CUDA_EMULATOR
#include "tests/cuda_emulator/cuda_emulator.h"
#else
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#endif

#include <math.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include "kernels/kernel_table.h"
}

/* ------------------------------------------------------------------------------------------------ launching */

/* Keeps what the driver said for backend->last_error(), with the kernel's name. backend.cu */
extern "C" int cuda_report(cudaError_t error, const char *what);
/* CUDA_COUNTERS of them, all 0, for cuda_last_block: kernels of one stream share them, as they run one after another, and leave
 * zeros behind. NULL without such memory. backend.cu */
#define CUDA_COUNTERS ((int64_t)1 << 16)
extern "C" unsigned *cuda_counters(const sag_kernel_env *env);
/* Whether the card has what mma.cuh asks for (sm_80 and newer). backend.cu */
extern "C" int cuda_tensor_cores(void);

#ifdef SAGAN_CUDA_EMULATOR
#define CUDA_LAUNCH(env, kernel, grid, block, shared, ...) \
    cuda_report(cuda_emulator_launch(#kernel, dim3(grid), dim3(block), (size_t)(shared), (cudaStream_t)(env)->stream, kernel, __VA_ARGS__), #kernel)
#define CUDA_SHARED(type, name, dims) CUDA_EMULATOR_SHARED(type, name, dims)
#define CUDA_DYNAMIC_SHARED(type, name) type *name = (type *)cuda_emulator_dynamic_shared()
#else
template <typename F> static inline void cuda_allow_shared(F *kernel, size_t bytes)
{
    if (bytes > ((size_t)48 << 10)) cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}
#define CUDA_LAUNCH(env, kernel, grid, block, shared, ...)                                                      \
    (cuda_allow_shared(kernel, (size_t)(shared)),                                                               \
     (kernel)<<<dim3(grid), dim3(block), (size_t)(shared), (cudaStream_t)(env)->stream>>>(__VA_ARGS__),         \
     cuda_report(cudaGetLastError(), #kernel))
#define CUDA_SHARED(type, name, dims) __shared__ __align__(16) type name dims
#define CUDA_DYNAMIC_SHARED(type, name)                         \
    extern __shared__ __align__(128) unsigned char cuda_dynamic[]; \
    type *name = reinterpret_cast<type *>(cuda_dynamic)
#endif

/* `return` on anything but SAG_KERNEL_OK. */
#define CUDA_TRY(expr)                          \
    do {                                        \
        int result_ = (expr);                   \
        if (result_ != SAG_KERNEL_OK) return result_; \
    } while (0)

/* How a family adds its kernels to the table; the list of families is in backend.cu. */
#define CUDA_REGISTER(family) extern "C" void cuda_register_##family(sag_kernel_table *t)

static inline int64_t cuda_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}
/* Blocks for n items at `per` items a block: at most `most`, the kernel strides over the rest. */
static inline unsigned cuda_blocks(int64_t n, int64_t per, int64_t most = 1 << 16)
{
    int64_t blocks = cuda_ceil_div(n, per);
#ifdef SAGAN_CUDA_EMULATOR
    most = cuda_emulator_blocks(most); /* a test may want fewer */
#endif
    return (unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

/* ------------------------------------------------------------------------------------------- f32 and bf16 */

/* A bf16 in memory. Arithmetic is in f32: cuda_float(x), cuda_store(p, f). Rounds to nearest even; NaN stays NaN. */
struct cuda_bf16 {
    uint16_t bits;
};

__host__ __device__ static inline float cuda_float(float x)
{
    return x;
}
__host__ __device__ static inline float cuda_float(cuda_bf16 x)
{
    uint32_t u = (uint32_t)x.bits << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
__host__ __device__ static inline void cuda_store(float *p, float x)
{
    *p = x;
}
__host__ __device__ static inline void cuda_store(cuda_bf16 *p, float x)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(p->bits) : "f"(x)); /* one instruction for six; NaN becomes the one NaN 0x7fff */
#else
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    u = (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
    p->bits = (uint16_t)u;
#endif
}
/* *p = x, or *p + x if accumulate. */
template <typename T> __host__ __device__ static inline void cuda_put(T *p, float x, int accumulate)
{
    cuda_store(p, accumulate ? cuda_float(*p) + x : x);
}

/* Calls f<float>(args) or f<cuda_bf16>(args) by dtype; other dtypes have no kernel. */
#define CUDA_BY_DTYPE(dtype, f, ...)                              \
    ((dtype) == SAG_F32    ? f<float>(__VA_ARGS__)                \
     : (dtype) == SAG_BF16 ? f<cuda_bf16>(__VA_ARGS__)            \
                           : (int)SAG_KERNEL_UNSUPPORTED)

/* ------------------------------------------------------------------------------------------- reductions */

/* The sum over a warp, in every lane; the order is fixed. */
template <typename T> __device__ static inline T cuda_warp_sum(T x)
{
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
__device__ static inline float cuda_warp_max(float x)
{
    for (int step = 16; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}
/* The sum over a block of whole warps (at most 1024 threads), in every thread. A barrier at its start and its end. */
template <typename T> __device__ static inline T cuda_block_sum(T x)
{
    CUDA_SHARED(T, part, [32]);
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5, warps = (int)blockDim.x >> 5;
    x = cuda_warp_sum(x);
    __syncthreads();
    if (lane == 0) part[warp] = x;
    __syncthreads();
    T sum = lane < warps ? part[lane] : T(0);
    return cuda_warp_sum(sum);
}
__device__ static inline float cuda_block_max(float x)
{
    CUDA_SHARED(float, part, [32]);
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5, warps = (int)blockDim.x >> 5;
    x = cuda_warp_max(x);
    __syncthreads();
    if (lane == 0) part[warp] = x;
    __syncthreads();
    return cuda_warp_max(lane < warps ? part[lane] : -INFINITY);
}

/*
 * Whether this block is the last of `blocks` to come here, told to every thread; what the others stored before they came is
 * then there to be read. So the last block can combine what all have found, in an order that does not depend on which it is.
 * *count is 0 before and after. Starts with a barrier.
 */
__device__ static inline bool cuda_last_block(unsigned *count, unsigned blocks)
{
    CUDA_SHARED(int, last, [1]);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last[0] = atomicInc(count, blocks - 1) == blocks - 1;
    __syncthreads();
    if (!last[0]) return false;
    __threadfence();
    return true;
}

#endif
