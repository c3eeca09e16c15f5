/*
 * blas.cuh - matrix products by cuBLAS, which is loaded at the first one: a program that never multiplies on a card needs
 * no cuBLAS, and starts without it.
 */
#ifndef SAG_CUDA_BLAS_CUH
#define SAG_CUDA_BLAS_CUH

#include "kernels/cuda/cuda.cuh"

/*
 * y[i] = op(a[i]) op(b[i]) (+ y[i]) for i < batch, row-major: op(a) {m,k}, op(b) {k,n}, y {m,n}. ld*: elements from one
 * stored row to the next. a and b of one type, f32 or bf16; y f32 or that type. Sums in f32; f32 products by tf32 if env->tf32.
 * SAG_KERNEL_UNSUPPORTED: there is no cuBLAS (or SAGAN_CUBLAS=0 is set), or a size is beyond it; the caller has another way.
 */
typedef struct cuda_product {
    const void *a, *b;
    void *y;
    sag_dtype in, out;
    int trans_a, trans_b, accumulate;
    int64_t m, n, k, lda, ldb, ldy;
    int64_t batch, stride_a, stride_b, stride_y;
} cuda_product;

extern "C" int cuda_blas_multiply(sag_kernel_env *env, const cuda_product *p);

#endif
