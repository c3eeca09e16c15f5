/*
 * matmul.c - batched matrix products over gemm.c, and sums of columns.
 * y[b] = op(a[b]) op(b[b]) + bias. Many batches: one thread each, with its own packing buffer; few: threads inside
 * each.
 */
#include "kernels/cpu/patches.h"
#include "kernels/cpu/transpose.h"

/* Rows of a transposed operand {K,M}: element (m, k) at base[k * stride + m]. */
static void fetch_columns(const void *a, int64_t m0, int64_t rows, int64_t k0, int64_t depth, float *panel, int64_t ld)
{
    const gemm_rows *s = a;
    for (int64_t i0 = 0; i0 < rows; i0 += CPU_LANES) {
        int64_t n = cpu_min64(CPU_LANES, rows - i0), k = 0;
        const float *src = s->base + k0 * s->stride + m0 + i0;
        float *dst = panel + i0 * ld;
        if (n == CPU_LANES)
            for (; k + CPU_LANES <= depth; k += CPU_LANES)
                transpose_square(src + k * s->stride, s->stride, dst + k, ld);
        for (; k < depth; k++)
            for (int64_t i = 0; i < n; i++) dst[i * ld + k] = src[k * s->stride + i];
    }
}

typedef struct batch_job {
    gemm_job job;
    gemm_rows a, y;
} batch_job;

static void batch_job_set(batch_job *j, const matmul_args *a, int64_t b)
{
    float *data = (float *)(uintptr_t)a->a; /* read only; gemm_rows serves both sides */
    j->a = (gemm_rows){data + b * a->stride_a, a->trans_a ? a->m : a->k};
    j->y = (gemm_rows){(float *)a->y + b * a->stride_y, a->n};
    j->job = (gemm_job){.m = a->m,
                        .n = a->n,
                        .k = a->k,
                        .fetch = a->trans_a ? fetch_columns : CPU_ISA(gemm_fetch_rows),
                        .a = &j->a,
                        .b = {.data = (const float *)a->b + b * a->stride_b,
                              .row = a->trans_b ? 1 : a->n,
                              .column = a->trans_b ? a->k : 1},
                        .place = CPU_ISA(gemm_place_rows),
                        .c = &j->y,
                        .bias = a->bias,
                        .accumulate = a->accumulate};
}

static int cpu_matmul(sag_kernel_env *env, const matmul_args *a)
{
    if (a->act_a != SAG_F32 || a->act_b != SAG_F32 || a->act_y != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    bool spread = a->batch >= env->threads && a->batch > 1;
    int threads = spread ? env->threads : 1, inner = spread ? 1 : env->threads;
    batch_job first;
    batch_job_set(&first, a, 0);
    int64_t each = CPU_ISA(gemm_bytes)(&first.job, inner);
    char *memory = env->scratch(env, (size_t)(each * threads));
    if (!memory) return SAG_KERNEL_NO_MEMORY;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && a->batch * a->m * a->n * a->k > 32768)
    for (int64_t b = 0; b < a->batch; b++) {
        batch_job j;
        batch_job_set(&j, a, b);
        CPU_ISA(gemm_run)(&j.job, memory + omp_get_thread_num() * each, inner);
    }
    return SAG_KERNEL_OK;
}

static int cpu_column_sum(sag_kernel_env *env, const column_sum_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    return CPU_ISA(column_sum)(env, a->x, a->rows, a->cols, a->y, a->accumulate);
}

void CPU_REGISTER(matmul)(sag_kernel_table *t)
{
    t->matmul = cpu_matmul;
    t->column_sum = cpu_column_sum;
}
