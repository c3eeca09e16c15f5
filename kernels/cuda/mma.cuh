/*
 * mma.cuh - the instructions of the tensor cores and of the asynchronous copy (PTX ISA, "mma.sync", "ldmatrix",
 * "cp.async"; sm_80 and newer), under names that the emulator has too. All lanes of a warp call together.
 */
#ifndef SAG_CUDA_MMA_CUH
#define SAG_CUDA_MMA_CUH

#include "kernels/cuda/cuda.cuh"

#ifdef SAGAN_CUDA_EMULATOR
#include "tests/cuda_emulator/emulated_mma.h"
#else

/* Whether this architecture has them: code for older ones is compiled, but must not be reached (cuda_tensor_cores()). */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define SAG_MMA_ASM(...) __trap()
#else
#define SAG_MMA_ASM(...) asm volatile(__VA_ARGS__)
#endif

/* d {16,8} += a {16,16} b {16,8}: bf16 pairs in, f32 sums. Fragments as the PTX ISA lays them out. */
__device__ static inline void mma_bf16_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    SAG_MMA_ASM("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* d {16,8} += a {16,8} b {8,8}: tf32 bits (to_tf32) in, f32 sums. */
__device__ static inline void mma_tf32_1688(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    SAG_MMA_ASM("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* Rounds to 10 bits of mantissa, to nearest, ties away. */
__device__ static inline uint32_t to_tf32(float x)
{
    uint32_t r = 0;
    SAG_MMA_ASM("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(r) : "f"(x));
    return r;
}
/* Both of a pair of bf16: 0 where negative; NaN stays NaN. */
__device__ static inline uint32_t relu_bf16x2(uint32_t x)
{
    uint32_t r = 0;
    SAG_MMA_ASM("max.NaN.bf16x2 %0, %1, %2;\n" : "=r"(r) : "r"(x), "r"(0u));
    return r;
}
/* Two f32 to a pair of bf16, `low` in the lower half; rounds to nearest even. */
__device__ static inline uint32_t pack_bf16(float low, float high)
{
    uint32_t r = 0;
    SAG_MMA_ASM("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
/* Four 8x8 matrices of 16-bit elements; lane i gives the address (16-byte aligned, shared memory) of row i % 8 of matrix i / 8. */
__device__ static inline void ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    SAG_MMA_ASM("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                : "r"((uint32_t)__cvta_generic_to_shared(row)));
}
__device__ static inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    SAG_MMA_ASM("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                : "r"((uint32_t)__cvta_generic_to_shared(row)));
}
/* 16 bytes from global to shared memory, or 16 zero bytes if not valid (`global` must be a legal address even then).
 * Cards older than sm_80 copy at once, so that plain kernels may use the three of these everywhere. */
__device__ static inline void cp_async_16(void *shared, const void *global, bool valid)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    *static_cast<uint4 *>(shared) = valid ? *static_cast<const uint4 *>(global) : make_uint4(0u, 0u, 0u, 0u);
#else
    SAG_MMA_ASM("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"((uint32_t)__cvta_generic_to_shared(shared)), "l"(global),
                "r"(valid ? 16 : 0));
#endif
}
__device__ static inline void cp_async_commit()
{
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    SAG_MMA_ASM("cp.async.commit_group;\n" ::);
#endif
}
/* Until at most `pending` of this thread's groups are under way; a barrier must follow before others read. */
template <int pending> __device__ static inline void cp_async_wait()
{
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    SAG_MMA_ASM("cp.async.wait_group %0;\n" ::"n"(pending));
#endif
}

#endif
#endif
