/*
 * conv.c - conv2d in its three directions, each one matrix product over patches (gemm.c, outer.c), unless winograd.c or
 * few_channels.c has a faster way.
 *
 * fwd:   y[m][k] = b[k] + sum over (r, s, c) of (patch of x at m) * w[k][r][s][c]
 *
 * bwd_x: the pixels of dx fall into stride x stride phases; within a phase every pixel sees the same taps of w, so dx
 * is a stride-1 convolution of dy with them, in reverse order.
 *
 * bwd_w: dw[k] = sum over m of dy[m][k] * (patch of x at m)
 *
 * With relu x is copied as max(x, 0), and the gradient masked in a pass of its own; with sigma the weights are copied as
 * w / sigma: winograd.c, which most such layers go by, does all three on the way.
 */
#include "kernels/cpu/few_channels.h"
#include "kernels/cpu/patches.h"
#include "kernels/cpu/winograd.h"

#define PIECE 8192

static int64_t numbers_of_x(const conv_args *a)
{
    return a->n * a->h * a->w_in * a->c;
}

/* max(x, 0) in scratch where the product reads it so, else x; NULL when there is no memory. */
static const float *rectified(sag_kernel_env *env, const conv_args *a)
{
    if (!a->relu) return a->x;
    int64_t n = numbers_of_x(a);
    const float *x = a->x;
    float *y = env->scratch(env, (size_t)n * sizeof *y);
    if (!y) return NULL;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (n > 4 * PIECE)
    for (int64_t first = 0; first < n; first += PIECE)
        for (int64_t i = first, end = cpu_min64(n, first + PIECE); i < end; i += CPU_LANES) {
            int64_t left = cpu_min64(CPU_LANES, end - i);
            cpu_store_part(y + i, cpu_relu(cpu_load_part(x + i, left)), left);
        }
    return y;
}

/* w / sigma in scratch, w itself without sigma; NULL when there is no memory. */
static const float *divided(sag_kernel_env *env, const conv_args *a)
{
    if (!a->sigma) return a->w;
    int64_t n = a->k * a->r * a->s * a->c;
    const float *w = a->w, factor = cpu_inverse_sigma(a);
    float *y = env->scratch(env, (size_t)n * sizeof *y);
    if (!y) return NULL;
#pragma omp parallel for simd num_threads(env->threads) schedule(static) if (parallel : n > 4 * PIECE)
    for (int64_t i = 0; i < n; i++) y[i] = w[i] * factor;
    return y;
}

/* The residual of which each number is for 2x2 pixels, by pixels of y. */
typedef struct halved_map {
    float *map;
    int64_t p, q, k;
} halved_map;

static void place_halved(const void *c, int64_t m0, int64_t rows, float **row)
{
    const halved_map *r = c;
    for (int64_t m = m0; m < m0 + rows; m++) {
        int64_t line = m / r->q; /* of all images; their heights are even */
        row[m - m0] = r->map + (line / 2 * (r->q / 2) + m % r->q / 2) * r->k;
    }
}

/* relu and residual are passes of their own: networks have neither at their first and last layers. */
static int few_forward(sag_kernel_env *env, const conv_args *a)
{
    conv_args plain = *a;
    if (!(plain.x = rectified(env, a)) || !(plain.w = divided(env, a))) return SAG_KERNEL_NO_MEMORY;
    int result = CPU_ISA(few_fwd)(env, &plain);
    if (!a->residual || result != SAG_KERNEL_OK) return result;
    int64_t pixels = a->n * a->p * a->q;
    halved_map halved = {(float *)(uintptr_t)a->residual, a->p, a->q, a->k};
#pragma omp parallel for num_threads(env->threads) schedule(static) if (pixels * a->k > 4 * PIECE)
    for (int64_t m = 0; m < pixels; m++) {
        float *y = (float *)a->y + m * a->k, *r = (float *)(uintptr_t)a->residual + m * a->k;
        if (a->residual_half) place_halved(&halved, m, 1, &r);
        for (int64_t k = 0; k < a->k; k++) y[k] += r[k];
    }
    return SAG_KERNEL_OK;
}

static int cpu_conv2d_fwd(sag_kernel_env *env, const conv_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (CPU_ISA(few_suits)(a, FEW_FWD)) return few_forward(env, a);
    if (CPU_ISA(winograd_suits)(env, a, WINO_FWD)) return CPU_ISA(winograd_fwd)(env, a);
    patches x = patches_of(a, rectified(env, a));
    const float *w = divided(env, a);
    if (!x.x || !w) return SAG_KERNEL_NO_MEMORY;
    gemm_rows pixels = {a->y, a->k}, rows = {(float *)(uintptr_t)x.x, a->c};
    gemm_rows residual = {(float *)(uintptr_t)a->residual, a->k};
    halved_map halved = {(float *)(uintptr_t)a->residual, a->p, a->q, a->k};
    gemm_job job = {.m = a->n * a->p * a->q,
                    .n = a->k,
                    .k = a->r * a->s * a->c,
                    .fetch = CPU_ISA(patches_fetch),
                    .a = &x,
                    .b = {.data = w, .row = 1, .column = a->r * a->s * a->c},
                    .place = CPU_ISA(gemm_place_rows),
                    .c = &pixels,
                    .bias = a->b};
    if (a->residual) {
        job.place_plus = a->residual_half ? place_halved : CPU_ISA(gemm_place_rows);
        job.plus = a->residual_half ? (const void *)&halved : &residual;
    }
    if (a->r == 1 && a->s == 1 && a->stride == 1 && a->pad_h == 0 && a->pad_w == 0) {
        job.fetch = CPU_ISA(gemm_fetch_rows);
        job.a = &rows;
    }
    return CPU_ISA(gemm)(env, &job);
}

/* Pixels of dx in phase `phase` of one dimension: h = phase + stride * h'. Of R taps those with
 * r = first + stride * t reach it, from p = h' + shift - t. */
typedef struct phase_taps {
    int64_t first, count, shift;
} phase_taps;

static phase_taps taps_of(int64_t phase, int64_t pad, int64_t stride, int64_t r)
{
    phase_taps t = {.first = (phase + pad) % stride, .shift = (phase + pad) / stride};
    t.count = t.first < r ? cpu_ceil_div(r - t.first, stride) : 0;
    return t;
}

static void clear_places(const places *p, int64_t n)
{
    for (int64_t m = 0; m < n; m++) {
        float *row;
        CPU_ISA(places_rows)(p, m, 1, &row);
        gemm_clear(row, p->c);
    }
}

static int bwd_x_phase(sag_kernel_env *env, const conv_args *a, int64_t top, int64_t left, int64_t *offset)
{
    phase_taps th = taps_of(top, a->pad_h, a->stride, a->r), tw = taps_of(left, a->pad_w, a->stride, a->s);
    int64_t rows = cpu_ceil_div(a->h - top, a->stride), cols = cpu_ceil_div(a->w_in - left, a->stride);
    places dx = {.map = a->dx,
                 .h = a->h,
                 .w = a->w_in,
                 .c = a->c,
                 .rows = rows,
                 .cols = cols,
                 .step = a->stride,
                 .top = top,
                 .left = left};
    if (rows <= 0 || cols <= 0) return SAG_KERNEL_OK;
    if (th.count == 0 || tw.count == 0) { /* stride larger than the kernel: pixels that no output saw */
        if (!a->accumulate) clear_places(&dx, a->n * rows * cols);
        return SAG_KERNEL_OK;
    }
    patches dy = {.x = a->dy,
                  .h = a->p,
                  .w = a->q,
                  .c = a->k,
                  .rows = rows,
                  .cols = cols,
                  .stride = 1,
                  .top = th.shift - th.count + 1,
                  .left = tw.shift - tw.count + 1,
                  .r = th.count,
                  .s = tw.count};
    int64_t *at = offset;
    for (int64_t u = th.count - 1; u >= 0; u--)
        for (int64_t v = tw.count - 1; v >= 0; v--)
            for (int64_t k = 0; k < a->k; k++)
                *at++ = ((k * a->r + th.first + a->stride * u) * a->s + tw.first + a->stride * v) * a->c;
    gemm_job job = {.m = a->n * rows * cols,
                    .n = a->c,
                    .k = th.count * tw.count * a->k,
                    .fetch = CPU_ISA(patches_fetch),
                    .a = &dy,
                    .b = {.data = a->w, .offset = offset, .column = 1},
                    .place = CPU_ISA(places_rows),
                    .c = &dx,
                    .accumulate = a->accumulate};
    return CPU_ISA(gemm)(env, &job);
}

static int direct_bwd_x(sag_kernel_env *env, const conv_args *a)
{
    if (CPU_ISA(few_suits)(a, FEW_BWD_X)) return CPU_ISA(few_bwd_x)(env, a);
    int64_t *offset = env->scratch(env, (size_t)(a->r * a->s * a->k) * sizeof *offset);
    if (!offset) return SAG_KERNEL_NO_MEMORY;
    for (int64_t top = 0; top < a->stride; top++)
        for (int64_t left = 0; left < a->stride; left++) {
            int result = bwd_x_phase(env, a, top, left, offset);
            if (result != SAG_KERNEL_OK) return result;
        }
    return SAG_KERNEL_OK;
}

/* dx (+)= d where x is above 0, else 0 */
static void mask_gradient(sag_kernel_env *env, const conv_args *a, const float *d)
{
    int64_t n = numbers_of_x(a);
    const float *x = a->x;
    float *dx = a->dx;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (n > 4 * PIECE)
    for (int64_t first = 0; first < n; first += PIECE)
        for (int64_t i = first, end = cpu_min64(n, first + PIECE); i < end; i += CPU_LANES) {
            int64_t left = cpu_min64(CPU_LANES, end - i);
            cpu_vec v = cpu_relu_gradient(cpu_load_part(x + i, left), cpu_load_part(d + i, left));
            cpu_store_part(dx + i, a->accumulate ? cpu_load_part(dx + i, left) + v : v, left);
        }
}

static int cpu_conv2d_bwd_x(sag_kernel_env *env, const conv_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (!CPU_ISA(few_suits)(a, FEW_BWD_X) && CPU_ISA(winograd_suits)(env, a, WINO_BWD_X))
        return CPU_ISA(winograd_bwd_x)(env, a);
    conv_args unmasked = *a;
    if (!(unmasked.w = divided(env, a))) return SAG_KERNEL_NO_MEMORY;
    if (!a->relu) return direct_bwd_x(env, &unmasked);
    unmasked.accumulate = 0;
    if (a->accumulate && !(unmasked.dx = env->scratch(env, (size_t)numbers_of_x(a) * sizeof(float))))
        return SAG_KERNEL_NO_MEMORY;
    int result = direct_bwd_x(env, &unmasked);
    if (result == SAG_KERNEL_OK) mask_gradient(env, a, unmasked.dx);
    return result;
}

static int cpu_conv2d_bwd_w(sag_kernel_env *env, const conv_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (a->dw && CPU_ISA(few_suits)(a, FEW_BWD_W)) {
        conv_args plain = *a;
        plain.x = rectified(env, a);
        return plain.x ? CPU_ISA(few_bwd_w)(env, &plain) : SAG_KERNEL_NO_MEMORY;
    }
    int64_t pixels = a->n * a->p * a->q;
    int result = SAG_KERNEL_OK;
    if (a->dw && CPU_ISA(winograd_suits)(env, a, WINO_BWD_W)) {
        result = CPU_ISA(winograd_bwd_w)(env, a);
    } else if (a->dw) {
        patches x = patches_of(a, rectified(env, a));
        if (!x.x) return SAG_KERNEL_NO_MEMORY;
        result = CPU_ISA(outer)(env, &x, pixels, a->dy, a->k, a->k, a->dw, a->accumulate_dw);
    }
    if (a->db && result == SAG_KERNEL_OK)
        result = CPU_ISA(column_sum)(env, a->dy, pixels, a->k, a->db, a->accumulate_db);
    return result;
}

void CPU_REGISTER(conv)(sag_kernel_table *t)
{
    t->conv2d_fwd = cpu_conv2d_fwd;
    t->conv2d_bwd_x = cpu_conv2d_bwd_x;
    t->conv2d_bwd_w = cpu_conv2d_bwd_w;
    CPU_ISA(upconv_fill)(t);
}
