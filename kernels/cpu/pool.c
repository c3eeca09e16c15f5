/*
 * pool.c - nearest upsampling, mean, max and global sum pooling on NHWC. Work is cut by image rows; the innermost loop
 * runs over channels. Backward gathers: each input element asks the windows that hold it, in order, so nothing is
 * written twice and the result does not depend on threads.
 */
#include "kernels/cpu/columns.h"

/* Pictures have 1 or 3 channels: with the count a constant a pixel is a few instructions and not a loop of its own. */
#define WITH_CHANNELS(c, body)                                                                                   \
    do {                                                                                                         \
        if ((c) == 3) body(3);                                                                                   \
        else if ((c) == 1) body(1);                                                                              \
        else body(c);                                                                                            \
    } while (0)

static inline void add_or_set(float *to, const float *v, int64_t n, int accumulate)
{
    if (accumulate) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) to[j] += v[j];
    } else {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) to[j] = v[j];
    }
}

/* ---------------------------------------------------------------------------------------------- upsample */

CPU_INLINE void double_pixels(float *restrict to, const float *restrict from, int64_t count, int64_t c, float factor,
                          int accumulate)
{
    for (int64_t i = 0; i < count; i++) {
        const float *p = from + i * c;
        float *left = to + 2 * i * c, *right = left + c;
        if (accumulate) {
#pragma omp simd
            for (int64_t j = 0; j < c; j++) {
                left[j] += p[j] * factor;
                right[j] += p[j] * factor;
            }
        } else {
#pragma omp simd
            for (int64_t j = 0; j < c; j++) left[j] = right[j] = p[j] * factor;
        }
    }
}

/* Each of `count` pixels twice, times factor. */
static void double_row(float *to, const float *from, int64_t count, int64_t c, float factor, int accumulate)
{
#define BODY(channels) double_pixels(to, from, count, channels, factor, accumulate)
    WITH_CHANNELS(c, BODY);
#undef BODY
}

static int cpu_upsample_fwd(sag_kernel_env *env, const pool_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    const float *x = a->x;
    float *y = a->y;
    int64_t rows = a->n * a->h, in = a->w_in * a->c, out = 2 * in;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (rows * 4 * in > CPU_SMALL)
    for (int64_t r = 0; r < rows; r++) {
        float *to = y + r * 2 * out;
        double_row(to, x + r * in, a->w_in, a->c, 1.0f, 0);
        memcpy(to + out, to, (size_t)out * sizeof *to);
    }
    return SAG_KERNEL_OK;
}

CPU_INLINE void square_pixels(float *restrict to, const float *restrict p, const float *restrict q, int64_t count, int64_t c,
                          float factor, int accumulate)
{
    for (int64_t i = 0; i < count; i++, to += c, p += 2 * c, q += 2 * c) {
        if (accumulate) {
#pragma omp simd
            for (int64_t j = 0; j < c; j++) to[j] += ((p[j] + p[c + j]) + (q[j] + q[c + j])) * factor;
        } else {
#pragma omp simd
            for (int64_t j = 0; j < c; j++) to[j] = ((p[j] + p[c + j]) + (q[j] + q[c + j])) * factor;
        }
    }
}

/* `count` pixels: factor * the sum of each 2 x 2 square of the rows p and q. */
static void square_row(float *to, const float *p, const float *q, int64_t count, int64_t c, float factor, int accumulate)
{
#define BODY(channels) square_pixels(to, p, q, count, channels, factor, accumulate)
    WITH_CHANNELS(c, BODY);
#undef BODY
}

static int cpu_upsample_bwd(sag_kernel_env *env, const pool_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    const float *dy = a->dy;
    float *dx = a->dx;
    int64_t rows = a->n * a->h, in = a->w_in * a->c, out = 2 * in;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (rows * 4 * in > CPU_SMALL)
    for (int64_t r = 0; r < rows; r++) {
        const float *p = dy + r * 2 * out;
        square_row(dx + r * in, p, p + out, a->w_in, a->c, 1.0f, a->accumulate);
    }
    return SAG_KERNEL_OK;
}

/* ------------------------------------------------------------------------------------------------- windows */

typedef struct span {
    int64_t from, to;
} span;

/* Positions of the input that window `o` covers, clipped to 0 .. length - 1. */
static inline span window(const pool_args *a, int64_t o, int64_t length)
{
    int64_t at = o * a->stride - a->pad;
    span s = {at > 0 ? at : 0, cpu_min64(at + a->size, length)};
    return s;
}
/* Windows that cover input position i, among 0 .. count - 1. */
static inline span holders(const pool_args *a, int64_t i, int64_t count)
{
    int64_t first = i + a->pad - a->size + 1;
    span s = {first > 0 ? cpu_ceil_div(first, a->stride) : 0, cpu_min64((i + a->pad) / a->stride + 1, count)};
    return s;
}
static inline float divisor(const pool_args *a, span v, span u)
{
    int64_t n = a->include_pad ? a->size * a->size : (v.to - v.from) * (u.to - u.from);
    return 1.0f / (float)n;
}
static inline bool is_halving(const pool_args *a)
{
    return a->size == 2 && a->stride == 2 && a->pad == 0;
}

/* ----------------------------------------------------------------------------------------------------- mean */

static int cpu_mean_pool_fwd(sag_kernel_env *env, const pool_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    int64_t rows = a->n * a->p, c = a->c, line = a->w_in * c;
    bool halving = is_halving(a);
#pragma omp parallel for num_threads(env->threads) schedule(static) if (rows * a->q * c * a->size * a->size > CPU_SMALL)
    for (int64_t r = 0; r < rows; r++) {
        const float *x = (const float *)a->x + r / a->p * a->h * line;
        float *y = (float *)a->y + r * a->q * c;
        span v = window(a, r % a->p, a->h);
        if (halving) {
            square_row(y, x + v.from * line, x + (v.from + 1) * line, a->q, c, 0.25f, 0);
            continue;
        }
        for (int64_t o = 0; o < a->q; o++, y += c) {
            span u = window(a, o, a->w_in);
            memset(y, 0, (size_t)c * sizeof *y);
            for (int64_t i = v.from; i < v.to; i++) {
                for (int64_t k = u.from; k < u.to; k++) add_or_set(y, x + i * line + k * c, c, 1);
            }
            float factor = divisor(a, v, u);
#pragma omp simd
            for (int64_t j = 0; j < c; j++) y[j] *= factor;
        }
    }
    return SAG_KERNEL_OK;
}

/* size 2, stride 2, no padding: a row of dx is a row of dy doubled; an odd last row or column belongs to no window. */
static void halving_row_bwd(const pool_args *a, int64_t r)
{
    int64_t c = a->c, line = a->w_in * c, i = r % a->h / 2, covered = i < a->p ? 2 * a->q * c : 0;
    float *dx = (float *)a->dx + r * line;
    const float *dy = (const float *)a->dy + (r / a->h * a->p + i) * a->q * c;
    if (covered > 0) double_row(dx, dy, a->q, c, 0.25f, a->accumulate);
    if (!a->accumulate) memset(dx + covered, 0, (size_t)(line - covered) * sizeof *dx);
}

static int cpu_mean_pool_bwd(sag_kernel_env *env, const pool_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    int64_t rows = a->n * a->h, c = a->c;
    bool halving = is_halving(a);
#pragma omp parallel for num_threads(env->threads) schedule(static) if (rows * a->w_in * c > CPU_SMALL)
    for (int64_t r = 0; r < rows; r++) {
        if (halving) {
            halving_row_bwd(a, r);
            continue;
        }
        const float *dy = (const float *)a->dy + r / a->h * a->p * a->q * c;
        float *dx = (float *)a->dx + r * a->w_in * c;
        span v = holders(a, r % a->h, a->p);
        for (int64_t i = 0; i < a->w_in; i++, dx += c) {
            span u = holders(a, i, a->q);
            if (!a->accumulate) memset(dx, 0, (size_t)c * sizeof *dx);
            for (int64_t p = v.from; p < v.to; p++) {
                for (int64_t q = u.from; q < u.to; q++) {
                    const float *from = dy + (p * a->q + q) * c;
                    float factor = divisor(a, window(a, p, a->h), window(a, q, a->w_in));
#pragma omp simd
                    for (int64_t j = 0; j < c; j++) dx[j] += from[j] * factor;
                }
            }
        }
    }
    return SAG_KERNEL_OK;
}

/* ------------------------------------------------------------------------------------------------------ max */

/* The first of equal values wins, and a NaN wins over numbers. */
static int cpu_max_pool_fwd(sag_kernel_env *env, const pool_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    int64_t rows = a->n * a->p, c = a->c, line = a->w_in * c;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (rows * a->q * c * a->size * a->size > CPU_SMALL)
    for (int64_t r = 0; r < rows; r++) {
        const float *x = (const float *)a->x + r / a->p * a->h * line;
        float *restrict y = (float *)a->y + r * a->q * c;
        int32_t *restrict winner = a->winner + r * a->q * c;
        span v = window(a, r % a->p, a->h);
        for (int64_t o = 0; o < a->q; o++, y += c, winner += c) {
            span u = window(a, o, a->w_in);
            int32_t start = (int32_t)(v.from * a->w_in + u.from);
            memcpy(y, x + start * c, (size_t)c * sizeof *y);
            for (int64_t j = 0; j < c; j++) winner[j] = start;
            for (int64_t i = v.from; i < v.to; i++) {
                for (int64_t k = u.from; k < u.to; k++) {
                    const float *from = x + i * line + k * c;
                    int32_t here = (int32_t)(i * a->w_in + k);
#pragma omp simd
                    for (int64_t j = 0; j < c; j++) {
                        bool better = from[j] > y[j] || (from[j] != from[j] && y[j] == y[j]);
                        y[j] = better ? from[j] : y[j];
                        winner[j] = better ? here : winner[j];
                    }
                }
            }
        }
    }
    return SAG_KERNEL_OK;
}

static int cpu_max_pool_bwd(sag_kernel_env *env, const pool_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    int64_t rows = a->n * a->h, c = a->c;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (rows * a->w_in * c > CPU_SMALL)
    for (int64_t r = 0; r < rows; r++) {
        int64_t plane = r / a->h * a->p * a->q * c;
        const float *dy = (const float *)a->dy + plane;
        const int32_t *winner = a->winner + plane;
        float *dx = (float *)a->dx + r * a->w_in * c;
        span v = holders(a, r % a->h, a->p);
        for (int64_t i = 0; i < a->w_in; i++, dx += c) {
            span u = holders(a, i, a->q);
            int32_t here = (int32_t)(r % a->h * a->w_in + i);
            if (!a->accumulate) memset(dx, 0, (size_t)c * sizeof *dx);
            for (int64_t p = v.from; p < v.to; p++) {
                for (int64_t q = u.from; q < u.to; q++) {
                    const float *from = dy + (p * a->q + q) * c;
                    const int32_t *w = winner + (p * a->q + q) * c;
#pragma omp simd
                    for (int64_t j = 0; j < c; j++) dx[j] += w[j] == here ? from[j] : 0.0f;
                }
            }
        }
    }
    return SAG_KERNEL_OK;
}

/* ----------------------------------------------------------------------------------------------- global sum */

static int cpu_global_sum_pool_fwd(sag_kernel_env *env, const pool_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    double *s = CPU_ISA(cpu_column_sums)(env, a->x, NULL, a->n, a->h * a->w_in, a->c);
    if (!s) return SAG_KERNEL_NO_MEMORY;
    float *y = a->y;
    for (int64_t i = 0; i < a->n * a->c; i++) y[i] = (float)s[i];
    return SAG_KERNEL_OK;
}

static int cpu_global_sum_pool_bwd(sag_kernel_env *env, const pool_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    int64_t rows = a->n * a->h, c = a->c;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (rows * a->w_in * c > CPU_SMALL)
    for (int64_t r = 0; r < rows; r++) {
        const float *dy = (const float *)a->dy + r / a->h * c;
        float *dx = (float *)a->dx + r * a->w_in * c;
        for (int64_t i = 0; i < a->w_in; i++) add_or_set(dx + i * c, dy, c, a->accumulate);
    }
    return SAG_KERNEL_OK;
}

void CPU_REGISTER(pool)(sag_kernel_table *t)
{
    t->upsample_fwd = cpu_upsample_fwd;
    t->upsample_bwd = cpu_upsample_bwd;
    t->mean_pool_fwd = cpu_mean_pool_fwd;
    t->mean_pool_bwd = cpu_mean_pool_bwd;
    t->max_pool_fwd = cpu_max_pool_fwd;
    t->max_pool_bwd = cpu_max_pool_bwd;
    t->global_sum_pool_fwd = cpu_global_sum_pool_fwd;
    t->global_sum_pool_bwd = cpu_global_sum_pool_bwd;
}
