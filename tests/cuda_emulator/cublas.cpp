/* cublas.cpp - a strided batch of column-major products by plain loops, run where the stream's other work runs. */
#include "kernels/cuda/mma.cuh"
#include "tests/cuda_emulator/cublas.h"
#include "tests/cuda_emulator/emulator.h"

struct cublasContext {
    cudaStream_t stream;
    bool workspace;
};

namespace {

struct matrix {
    const void *data;
    cudaDataType_t type;
    int64_t row, column, stride; /* elements from one to the next */
};

float load(const matrix &m, int64_t batch, int64_t i, int64_t j)
{
    int64_t at = batch * m.stride + i * m.row + j * m.column;
    return m.type == CUDA_R_16BF ? cuda_float(((const cuda_bf16 *)m.data)[at]) : ((const float *)m.data)[at];
}

float as_tf32(float x)
{
    uint32_t u = to_tf32(x);
    memcpy(&x, &u, sizeof x);
    return x;
}

struct product {
    matrix a, b, c;
    float alpha, beta;
    int m, n, k, batch;
    bool tf32;
};

void run(const product &p)
{
    std::vector<float> column((size_t)p.k);
    for (int64_t batch = 0; batch < p.batch; batch++) {
        for (int64_t j = 0; j < p.n; j++) {
            for (int64_t l = 0; l < p.k; l++) column[(size_t)l] = p.tf32 ? as_tf32(load(p.b, batch, l, j)) : load(p.b, batch, l, j);
            for (int64_t i = 0; i < p.m; i++) {
                float sum = 0;
                for (int64_t l = 0; l < p.k; l++) {
                    float x = load(p.a, batch, i, l);
                    sum += (p.tf32 ? as_tf32(x) : x) * column[(size_t)l];
                }
                sum *= p.alpha;
                if (p.beta != 0) sum += p.beta * load(p.c, batch, i, j);
                int64_t at = batch * p.c.stride + i + j * p.c.column;
                if (p.c.type == CUDA_R_16BF) {
                    cuda_store((cuda_bf16 *)p.c.data + at, sum);
                } else {
                    ((float *)p.c.data)[at] = sum;
                }
            }
        }
    }
}

/* From the first to the last element that the product touches. */
bool within(const matrix &m, int rows, int columns, int batch)
{
    if (rows < 1 || columns < 1) return true;
    int64_t last = (batch - 1) * m.stride + (rows - 1) * m.row + (columns - 1) * m.column;
    return emulator::in_allocation(m.data, (size_t)(last + 1) * (m.type == CUDA_R_16BF ? 2 : 4));
}

} // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle)
{
    *handle = new cublasContext{};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream)
{
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t bytes)
{
    handle->workspace = emulator::in_allocation(workspace, bytes);
    return handle->workspace ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t trans_a, cublasOperation_t trans_b, int m, int n, int k,
                                          const void *alpha, const void *a, cudaDataType_t type_a, int lda, long long stride_a, const void *b,
                                          cudaDataType_t type_b, int ldb, long long stride_b, const void *beta, void *c,
                                          cudaDataType_t type_c, int ldc, long long stride_c, int batch, cublasComputeType_t compute,
                                          cublasGemmAlgo_t)
{
    const bool ta = trans_a == CUBLAS_OP_T, tb = trans_b == CUBLAS_OP_T;
    if (m < 0 || n < 0 || k < 0 || batch < 0 || lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m) return CUBLAS_STATUS_INVALID_VALUE;
    if (type_a != type_b || (type_c != type_a && type_c != CUDA_R_32F)) return CUBLAS_STATUS_INVALID_VALUE;
    product p = {{a, type_a, ta ? lda : 1, ta ? 1 : lda, stride_a},
                 {b, type_b, tb ? ldb : 1, tb ? 1 : ldb, stride_b},
                 {c, type_c, 1, ldc, stride_c},
                 *(const float *)alpha,
                 *(const float *)beta,
                 m, n, k, batch, compute == CUBLAS_COMPUTE_32F_FAST_TF32};
    if (!within(p.a, m, k, batch) || !within(p.b, k, n, batch) || !within(p.c, m, n, batch)) return CUBLAS_STATUS_EXECUTION_FAILED;
    cudaError_t e = cuda_emulator_enqueue(handle->stream, [=] { run(p); });
    return e == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

} // extern "C"
