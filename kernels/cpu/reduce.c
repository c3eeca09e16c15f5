/*
 * reduce.c - sums, means, norm, extremes, counts. x is {outer, axis, inner}. Sums are f32 within pieces of fixed size and
 * f64 across them (columns.h); each kernel reads its input once.
 */
#include "kernels/cpu/columns.h"
#include "kernels/cpu/vec_math.h"

/* ------------------------------------------------------------------------------------------ sum and mean */

/* Sum of a short row: four vectors side by side, then their tree. */
static float row_sum(const float *x, int64_t n)
{
    cpu_vec s[4] = {0};
    int64_t i = 0;
    for (; i + 4 * CPU_LANES <= n; i += 4 * CPU_LANES) {
        for (int k = 0; k < 4; k++) s[k] += cpu_load(x + i + k * CPU_LANES);
    }
    for (int k = 0; i < n; i += CPU_LANES, k++) s[k] += cpu_load_part(x + i, cpu_min64(CPU_LANES, n - i));
    return cpu_lane_sum((s[0] + s[1]) + (s[2] + s[3]));
}

static int sum_fwd(sag_kernel_env *env, const reduce_args *a)
{
    const float *x = a->x;
    float *y = a->y;
    double factor = a->kind == SAG_REDUCE_MEAN ? 1.0 / (double)a->axis : 1.0;
    if (a->inner == 1 && a->axis <= CPU_WIDE) {
        int64_t rows = cpu_ceil_div(CPU_PIECE, a->axis);
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->outer * a->axis > CPU_SMALL)
        for (int64_t first = 0; first < a->outer; first += rows) {
            int64_t end = cpu_min64(first + rows, a->outer);
            for (int64_t o = first; o < end; o++) y[o] = (float)((double)row_sum(x + o * a->axis, a->axis) * factor);
        }
        return SAG_KERNEL_OK;
    }
    double *s = CPU_ISA(cpu_column_sums)(env, x, NULL, a->outer, a->axis, a->inner);
    if (!s) return SAG_KERNEL_NO_MEMORY;
    for (int64_t i = 0; i < a->outer * a->inner; i++) y[i] = (float)(s[i] * factor);
    return SAG_KERNEL_OK;
}

static int norm_fwd(sag_kernel_env *env, const reduce_args *a)
{
    double *s = CPU_ISA(cpu_column_sums)(env, a->x, a->x, 1, a->outer * a->axis * a->inner, 1);
    if (!s) return SAG_KERNEL_NO_MEMORY;
    ((float *)a->y)[0] = (float)sqrt(s[0]);
    return SAG_KERNEL_OK;
}

/* dx = dy * factor repeated over the axis. */
static int sum_bwd(sag_kernel_env *env, const reduce_args *a)
{
    const float *dy = a->dy;
    float *dx = a->dx, factor = a->kind == SAG_REDUCE_MEAN ? (float)(1.0 / (double)a->axis) : 1.0f;
    int64_t rows = a->outer * a->axis, group = cpu_ceil_div(CPU_PIECE, a->inner);
    if (a->inner == 1) { /* rows of the axis: one value each; cut across the whole of x */
        int64_t n = rows;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (n > CPU_SMALL)
        for (int64_t first = 0; first < n; first += CPU_PIECE) {
            int64_t end = cpu_min64(first + CPU_PIECE, n);
            for (int64_t i = first; i < end;) {
                int64_t stop = cpu_min64((i / a->axis + 1) * a->axis, end);
                float v = dy[i / a->axis] * factor;
                if (a->accumulate) {
#pragma omp simd
                    for (int64_t j = i; j < stop; j++) dx[j] += v;
                } else {
#pragma omp simd
                    for (int64_t j = i; j < stop; j++) dx[j] = v;
                }
                i = stop;
            }
        }
        return SAG_KERNEL_OK;
    }
#pragma omp parallel for num_threads(env->threads) schedule(static) if (rows * a->inner > CPU_SMALL)
    for (int64_t first = 0; first < rows; first += group) {
        int64_t end = cpu_min64(first + group, rows);
        for (int64_t r = first; r < end; r++) {
            const float *from = dy + r / a->axis * a->inner;
            float *to = dx + r * a->inner;
            if (a->accumulate) {
#pragma omp simd
                for (int64_t j = 0; j < a->inner; j++) to[j] += from[j] * factor;
            } else {
#pragma omp simd
                for (int64_t j = 0; j < a->inner; j++) to[j] = from[j] * factor;
            }
        }
    }
    return SAG_KERNEL_OK;
}

/* dx = dy x / |x|, 0 where |x| is 0. */
static int norm_bwd(sag_kernel_env *env, const reduce_args *a)
{
    const float *x = a->x, norm = ((const float *)a->y_saved)[0], dy = ((const float *)a->dy)[0];
    float *dx = a->dx, factor = norm == 0.0f ? 0.0f : dy / norm;
    int64_t n = a->outer * a->axis * a->inner;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (n > CPU_SMALL)
    for (int64_t first = 0; first < n; first += CPU_PIECE) {
        int64_t end = cpu_min64(first + CPU_PIECE, n);
        if (a->accumulate) {
#pragma omp simd
            for (int64_t i = first; i < end; i++) dx[i] += x[i] * factor;
        } else {
#pragma omp simd
            for (int64_t i = first; i < end; i++) dx[i] = x[i] * factor;
        }
    }
    return SAG_KERNEL_OK;
}

/* -------------------------------------------------------------------------------------- extremes, counts */

/* Largest of sign * x over a piece, NaN if there is one. */
static float piece_max(const float *x, int64_t n, float sign)
{
    cpu_vec best = cpu_splat(-INFINITY), odd = {0};
    int64_t i = 0;
    for (; i + CPU_LANES <= n; i += CPU_LANES) {
        cpu_vec v = cpu_load(x + i) * sign;
        odd += (cpu_vec)((cpu_ivec)(v != v) & (cpu_ivec)v); /* 0 or NaN */
        best = cpu_select(v > best, v, best);
    }
    float r = cpu_lane_max(best), nan = cpu_lane_sum(odd);
    for (; i < n; i++) {
        if (x[i] * sign > r) r = x[i] * sign;
        if (x[i] != x[i]) nan = x[i];
    }
    return nan != nan ? nan : r;
}

static int64_t piece_count(const float *x, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, x + i, sizeof u);
        count += (u & 0x7f800000u) == 0x7f800000u;
    }
    return count;
}

static int extreme_fwd(sag_kernel_env *env, const reduce_args *a)
{
    const float *x = a->x;
    int64_t n = a->outer * a->axis * a->inner, pieces = cpu_ceil_div(n, CPU_PIECE);
    float sign = a->kind == SAG_REDUCE_MIN ? -1.0f : 1.0f, *part = env->scratch(env, (size_t)pieces * sizeof *part);
    if (!part) return SAG_KERNEL_NO_MEMORY;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (n > CPU_SMALL)
    for (int64_t p = 0; p < pieces; p++) part[p] = piece_max(x + p * CPU_PIECE, cpu_min64(CPU_PIECE, n - p * CPU_PIECE), sign);
    ((float *)a->y)[0] = sign * piece_max(part, pieces, 1.0f);
    return SAG_KERNEL_OK;
}

static int count_fwd(sag_kernel_env *env, const reduce_args *a)
{
    const float *x = a->x;
    int64_t n = a->outer * a->axis * a->inner, total = 0;
#pragma omp parallel for num_threads(env->threads) schedule(static) reduction(+ : total) if (n > CPU_SMALL)
    for (int64_t i = 0; i < n; i += CPU_PIECE) total += piece_count(x + i, cpu_min64(CPU_PIECE, n - i));
    ((float *)a->y)[0] = (float)total;
    return SAG_KERNEL_OK;
}

/* The first of equal values; a NaN is larger than all. */
static int32_t row_argmax(const float *x, int64_t n)
{
    int64_t at = 0;
    for (int64_t i = 1; i < n && x[at] == x[at]; i++) {
        if (x[i] > x[at] || x[i] != x[i]) at = i;
    }
    return (int32_t)at;
}

static int cpu_argmax(sag_kernel_env *env, const reduce_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    const float *x = a->x;
    int32_t *y = a->y;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->outer * a->axis > CPU_SMALL)
    for (int64_t o = 0; o < a->outer; o++) y[o] = row_argmax(x + o * a->axis, a->axis);
    return SAG_KERNEL_OK;
}

static int cpu_reduce_fwd(sag_kernel_env *env, const reduce_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    switch (a->kind) {
    case SAG_REDUCE_SUM:
    case SAG_REDUCE_MEAN: return sum_fwd(env, a);
    case SAG_REDUCE_NORM: return norm_fwd(env, a);
    case SAG_REDUCE_MAX:
    case SAG_REDUCE_MIN: return extreme_fwd(env, a);
    case SAG_REDUCE_COUNT_NONFINITE: return count_fwd(env, a);
    }
    return SAG_KERNEL_UNSUPPORTED;
}

static int cpu_reduce_bwd(sag_kernel_env *env, const reduce_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    return a->kind == SAG_REDUCE_NORM ? norm_bwd(env, a) : sum_bwd(env, a);
}

void CPU_REGISTER(reduce)(sag_kernel_table *t)
{
    t->reduce_fwd = cpu_reduce_fwd;
    t->reduce_bwd = cpu_reduce_bwd;
    t->argmax = cpu_argmax;
}
