/*
 * cuda_emulator.h - takes the place of the CUDA headers when kernels/cuda is compiled for the host: the words of the
 * language, vectors, and a block's threads as fibers. Blocks run one after another on the calling thread; a thread runs
 * until it has to wait for others. runtime_api.h has the host calls, device_functions.h the intrinsics.
 *
 * Where the checker is on (checker.cpp) it sees every load and store of a kernel.
 */
#ifndef SAG_CUDA_EMULATOR_H
#define SAG_CUDA_EMULATOR_H

#include <functional>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__

/* ------------------------------------------------------------------------------------------------- vectors */

#define CUDA_EMULATOR_VECTORS(T, type)                                                    \
    struct alignas(2 * sizeof(type)) T##2 { type x, y; };                                 \
    struct T##3 { type x, y, z; };                                                        \
    struct alignas(4 * sizeof(type) < 16 ? 4 * sizeof(type) : 16) T##4 { type x, y, z, w; }; \
    static inline T##2 make_##T##2(type x, type y) { return T##2{x, y}; }                 \
    static inline T##3 make_##T##3(type x, type y, type z) { return T##3{x, y, z}; }      \
    static inline T##4 make_##T##4(type x, type y, type z, type w) { return T##4{x, y, z, w}; }
CUDA_EMULATOR_VECTORS(char, signed char)
CUDA_EMULATOR_VECTORS(uchar, unsigned char)
CUDA_EMULATOR_VECTORS(short, short)
CUDA_EMULATOR_VECTORS(ushort, unsigned short)
CUDA_EMULATOR_VECTORS(int, int)
CUDA_EMULATOR_VECTORS(uint, unsigned)
CUDA_EMULATOR_VECTORS(float, float)
CUDA_EMULATOR_VECTORS(longlong, long long)
CUDA_EMULATOR_VECTORS(ulonglong, unsigned long long)
CUDA_EMULATOR_VECTORS(double, double)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};

/* --------------------------------------------------------------------------------------- the running thread */

extern const uint3 *cuda_emulator_thread;
extern uint3 cuda_emulator_block;
extern dim3 cuda_emulator_block_dim, cuda_emulator_grid_dim;
#define threadIdx (*cuda_emulator_thread)
#define blockIdx cuda_emulator_block
#define blockDim cuda_emulator_block_dim
#define gridDim cuda_emulator_grid_dim
#define warpSize 32

/* Where the source calls; with it a wait of one thread is told from that of another. */
struct cuda_emulator_site {
    const char *file;
    int line;
};
/* Two default arguments: the compiler evaluates one of a struct where the function is declared. */
#define CUDA_EMULATOR_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define CUDA_EMULATOR_SITE (cuda_emulator_site{file, line})

/* __shared__ arrays: one address for all threads of a block, found again by the slot. */
struct cuda_emulator_slot {
    uint64_t launch;
    void *at;
};
void *cuda_emulator_shared(cuda_emulator_slot *slot, const char *name, size_t bytes);
void *cuda_emulator_dynamic_shared();
#define CUDA_EMULATOR_SHARED(type, name, dims) \
    typedef type name##_shape dims;            \
    static cuda_emulator_slot name##_slot;     \
    name##_shape &name = *(name##_shape *)cuda_emulator_shared(&name##_slot, #name, sizeof(name##_shape))

#include "tests/cuda_emulator/runtime_api.h"
#include "tests/cuda_emulator/device_functions.h"

/* ------------------------------------------------------------------------------------------------- launching */

/* How many blocks a kernel that strides may have: `most`, or what SAGAN_EMULATOR_BLOCKS says if that is less, so that it strides
 * over small shapes as it would over ones of billions. */
int64_t cuda_emulator_blocks(int64_t most);

cudaError_t cuda_emulator_submit(const char *name, dim3 grid, dim3 block, size_t dynamic, cudaStream_t stream,
                                 std::function<void()> body);

template <typename... P, typename... A>
static inline cudaError_t cuda_emulator_launch(const char *name, dim3 grid, dim3 block, size_t dynamic, cudaStream_t stream,
                                               void (*kernel)(P...), A... args)
{
    return cuda_emulator_submit(name, grid, block, dynamic, stream, [=] { kernel(static_cast<P>(args)...); });
}

#endif
