/*
 * softmax.c - softmax and its logarithm over the last dimension, rows x cols.
 *
 *   y = exp(x - m) / sum exp(x - m)      dx = y (dy - sum(dy y))
 *   y = (x - m) - log sum exp(x - m)     dx = dy - exp(y) sum(dy)       with m the row's maximum
 *
 * Backward reads y only. One row is one piece of work, summed in f32.
 */
#include "kernels/cpu/vec_math.h"

#define SERIAL_ELEMENTS 8192

static int cpu_softmax_fwd(sag_kernel_env *env, const softmax_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    const int64_t n = a->cols;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->rows * n > SERIAL_ELEMENTS)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *x = (const float *)a->x + r * n;
        float *y = (float *)a->y + r * n;
        float top = x[0], sum = 0;
#pragma omp simd reduction(max : top)
        for (int64_t c = 0; c < n; c++) top = x[c] > top ? x[c] : top;
        if (a->log) {
#pragma omp simd reduction(+ : sum)
            for (int64_t c = 0; c < n; c++) sum += cpu_exp1(x[c] - top);
            const float log_sum = cpu_log1(sum);
#pragma omp simd
            for (int64_t c = 0; c < n; c++) y[c] = (x[c] - top) - log_sum;
        } else {
#pragma omp simd reduction(+ : sum)
            for (int64_t c = 0; c < n; c++) {
                y[c] = cpu_exp1(x[c] - top);
                sum += y[c];
            }
            const float inverse = 1.0f / sum;
#pragma omp simd
            for (int64_t c = 0; c < n; c++) y[c] *= inverse;
        }
    }
    return SAG_KERNEL_OK;
}

static int cpu_softmax_bwd(sag_kernel_env *env, const softmax_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    const int64_t n = a->cols;
    const bool add = a->accumulate != 0;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->rows * n > SERIAL_ELEMENTS)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *y = (const float *)a->y_saved + r * n, *dy = (const float *)a->dy + r * n;
        float *dx = (float *)a->dx + r * n;
        float sum = 0;
        if (a->log) {
#pragma omp simd reduction(+ : sum)
            for (int64_t c = 0; c < n; c++) sum += dy[c];
#pragma omp simd
            for (int64_t c = 0; c < n; c++) dx[c] = (add ? dx[c] : 0) + (dy[c] - cpu_exp1(y[c]) * sum);
        } else {
#pragma omp simd reduction(+ : sum)
            for (int64_t c = 0; c < n; c++) sum += dy[c] * y[c];
#pragma omp simd
            for (int64_t c = 0; c < n; c++) dx[c] = (add ? dx[c] : 0) + y[c] * (dy[c] - sum);
        }
    }
    return SAG_KERNEL_OK;
}

void CPU_REGISTER(softmax)(sag_kernel_table *t)
{
    t->softmax_fwd = cpu_softmax_fwd;
    t->softmax_bwd = cpu_softmax_bwd;
}
