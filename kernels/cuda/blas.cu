/* blas.cu - see blas.cuh. */
#include <stdlib.h>

#include "kernels/cuda/blas.cuh"
#include "kernels/cuda/device.cuh"

#ifdef SAGAN_CUDA_EMULATOR
#include "tests/cuda_emulator/cublas.h"
#else
#include <cublas_v2.h>
#include <dlfcn.h>
#endif

/* What cuBLAS asks for on Hopper; 4 MiB would do for older cards. */
static const size_t WORKSPACE = (size_t)32 << 20;

/* The C function; the header has an overload of its name. */
typedef cublasStatus_t (*multiply_fn)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void *, const void *,
                                      cudaDataType_t, int, long long, const void *, cudaDataType_t, int, long long, const void *, void *,
                                      cudaDataType_t, int, long long, int, cublasComputeType_t, cublasGemmAlgo_t);

static struct {
    decltype(&cublasCreate_v2) create;
    decltype(&cublasDestroy_v2) destroy;
    decltype(&cublasSetStream_v2) set_stream;
    decltype(&cublasSetWorkspace_v2) set_workspace;
    multiply_fn multiply;
} blas;

#ifdef SAGAN_CUDA_EMULATOR
static int load()
{
    blas = {cublasCreate_v2, cublasDestroy_v2, cublasSetStream_v2, cublasSetWorkspace_v2, cublasGemmStridedBatchedEx};
    return SAG_KERNEL_OK;
}
#else
#define CUDA_TEXT_(x) #x
#define CUDA_TEXT(x) CUDA_TEXT_(x)
#define CUBLAS_FILE "libcublas.so." CUDA_TEXT(CUBLAS_VER_MAJOR)

static int load()
{
    if (blas.multiply) return SAG_KERNEL_OK;
    void *so = dlopen(CUBLAS_FILE, RTLD_NOW | RTLD_LOCAL);
    if (!so) so = dlopen("/usr/local/cuda/lib64/" CUBLAS_FILE, RTLD_NOW | RTLD_LOCAL);
    if (!so) {
        cuda_fail("cuBLAS is missing: %s; install it (it is part of the CUDA toolkit), or put its folder into LD_LIBRARY_PATH", dlerror());
        return SAG_KERNEL_UNSUPPORTED;
    }
    blas.create = (decltype(blas.create))dlsym(so, "cublasCreate_v2");
    blas.destroy = (decltype(blas.destroy))dlsym(so, "cublasDestroy_v2");
    blas.set_stream = (decltype(blas.set_stream))dlsym(so, "cublasSetStream_v2");
    blas.set_workspace = (decltype(blas.set_workspace))dlsym(so, "cublasSetWorkspace_v2");
    multiply_fn multiply = (multiply_fn)dlsym(so, "cublasGemmStridedBatchedEx");
    if (!blas.create || !blas.destroy || !blas.set_stream || !blas.set_workspace || !multiply) {
        dlclose(so);
        return cuda_fail("%s lacks functions that it should have; is the installation whole?", CUBLAS_FILE);
    }
    blas.multiply = multiply;
    return SAG_KERNEL_OK;
}
#endif

/* SAG_KERNEL_UNSUPPORTED where there is no cuBLAS, which is found out once, or where SAGAN_CUBLAS=0 asks for none. */
static int handle_of(cuda_device *d, cublasHandle_t *handle)
{
    static bool missing;
    *handle = (cublasHandle_t)d->blas;
    if (*handle) return SAG_KERNEL_OK;
    const char *wanted = getenv("SAGAN_CUBLAS");
    if (missing || (wanted && strcmp(wanted, "0") == 0)) return SAG_KERNEL_UNSUPPORTED;
    if (d->capturing) return cuda_fail("the first matrix product cannot be part of a recording; run the step once before it is captured");
    const int found = load();
    missing = found == SAG_KERNEL_UNSUPPORTED;
    CUDA_TRY(found);
    CUDA_TRY(cuda_report(cudaMallocAsync(&d->workspace, WORKSPACE, d->stream), "cuBLAS's workspace"));
    cublasStatus_t s = blas.create(handle);
    if (s == CUBLAS_STATUS_SUCCESS) s = blas.set_stream(*handle, d->stream);
    if (s == CUBLAS_STATUS_SUCCESS) s = blas.set_workspace(*handle, d->workspace, WORKSPACE);
    if (s != CUBLAS_STATUS_SUCCESS) {
        if (*handle) blas.destroy(*handle);
        cudaFreeAsync(d->workspace, d->stream);
        d->workspace = NULL;
        return cuda_fail("cuBLAS cannot be opened (status %d)", (int)s);
    }
    d->blas = *handle;
    return SAG_KERNEL_OK;
}

void cuda_blas_close(cuda_device *d)
{
    if (d->blas) blas.destroy((cublasHandle_t)d->blas);
    if (d->workspace) cudaFreeAsync(d->workspace, d->stream);
    d->blas = d->workspace = NULL;
}

/* Row-major y = a b is column-major y^T = b^T a^T. */
extern "C" int cuda_blas_multiply(sag_kernel_env *env, const cuda_product *p)
{
    if (p->m < 1 || p->n < 1 || p->batch < 1) return SAG_KERNEL_OK;
    const int64_t most = INT32_MAX;
    if (p->m > most || p->n > most || p->k > most || p->lda > most || p->ldb > most || p->ldy > most || p->batch > most) {
        return SAG_KERNEL_UNSUPPORTED;
    }
    cublasHandle_t handle = NULL;
    CUDA_TRY(handle_of(cuda_device_of(env), &handle));
    const float one = 1, beta = p->accumulate ? 1.0f : 0.0f;
    const cudaDataType_t in = p->in == SAG_BF16 ? CUDA_R_16BF : CUDA_R_32F, out = p->out == SAG_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    const cublasComputeType_t sums = p->in == SAG_F32 && env->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasStatus_t s = blas.multiply(handle, p->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N, p->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N, (int)p->n,
                                     (int)p->m, (int)p->k, &one, p->b, in, (int)p->ldb, p->stride_b, p->a, in, (int)p->lda, p->stride_a,
                                     &beta, p->y, out, (int)p->ldy, p->stride_y, (int)p->batch, sums, CUBLAS_GEMM_DEFAULT);
    if (s != CUBLAS_STATUS_SUCCESS) {
        CUDA_TRY(cuda_report(cudaGetLastError(), "cublasGemmStridedBatchedEx"));
        return cuda_fail("cublasGemmStridedBatchedEx failed with status %d", (int)s);
    }
    return SAG_KERNEL_OK;
}
