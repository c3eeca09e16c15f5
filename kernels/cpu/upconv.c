/*
 * upconv.c - upconv (nearest x2, then 3x3) and convpool (3x3, then 2x2 mean): 16 multiplies where the plain way has 36.
 *
 * Both are one folded 4x4 kernel F at stride 2, from either side. In one dimension, with the 3 taps w0 w1 w2:
 *   convpool  y[i] = sum_t x[2i - 1 + t] F[t],             F = (w0, w0 + w1, w1 + w2, w2) / 2
 *   upconv    y[2i - 1 + t] += x[i] F[t] (transposed),     F = (w2, w1 + w2, w0 + w1, w0)
 * "gather" below is the strided convolution (convpool fwd, upconv bwd_x). "spread" is the transposed one (upconv fwd,
 * convpool bwd_x), done as four phases of 2x2 taps: output 2h + a, a = 0 or 1, takes t = 3 - a - 2u from pixel
 * h - 1 + a + u, u = 0 and 1. The weight gradient is that of F, folded back. f32 sums.
 *
 * Where it is faster, winograd.c does it with 9 multiplies for a small pixel.
 */
#include "kernels/cpu/patches.h"
#include "kernels/cpu/winograd.h"

#define FOLD_UP 1
#define FOLD_POOL 0

/* F[t] = scale * sum of w[first .. last]. */
static const struct {
    int first[4], last[4];
    float scale;
} folds[2] = {{{0, 0, 1, 2}, {0, 1, 2, 2}, 0.25f}, {{2, 1, 0, 0}, {2, 2, 1, 0}, 1.0f}};

/* w {K,3,3,C} -> f {K,4,4,C} */
static void fold(int kind, const float *w, int64_t k, int64_t c, float *f, int threads)
{
    const int *first = folds[kind].first, *last = folds[kind].last;
    float scale = folds[kind].scale;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && k * c > 4096)
    for (int64_t o = 0; o < k; o++)
        for (int t = 0; t < 16; t++) {
            float *restrict d = f + (o * 16 + t) * c;
            int r0 = first[t / 4], r1 = last[t / 4], s0 = first[t % 4], s1 = last[t % 4];
            const float *a = w + (o * 9 + r0 * 3 + s0) * c, *b = w + (o * 9 + r0 * 3 + s1) * c;
            const float *p = w + (o * 9 + r1 * 3 + s0) * c, *q = w + (o * 9 + r1 * 3 + s1) * c;
            if (r0 == r1 && s0 == s1)
                for (int64_t i = 0; i < c; i++) d[i] = scale * a[i];
            else if (r0 == r1)
                for (int64_t i = 0; i < c; i++) d[i] = scale * (a[i] + b[i]);
            else if (s0 == s1)
                for (int64_t i = 0; i < c; i++) d[i] = scale * (a[i] + p[i]);
            else
                for (int64_t i = 0; i < c; i++) d[i] = scale * ((a[i] + b[i]) + (p[i] + q[i]));
        }
}

/* The four t that hold a tap: two in each dimension. */
static void holders(int kind, int tap, int *at)
{
    const int *first = folds[kind].first, *last = folds[kind].last;
    for (int t = 0; t < 16; t++)
        if (first[t / 4] <= tap / 3 && tap / 3 <= last[t / 4] && first[t % 4] <= tap % 3 && tap % 3 <= last[t % 4])
            *at++ = t;
}

/* df {K,4,4,C} -> dw {K,3,3,C} */
static void unfold(int kind, const float *df, int64_t k, int64_t c, float *dw, int accumulate, int threads)
{
    float scale = folds[kind].scale;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && k * c > 4096)
    for (int64_t o = 0; o < k; o++)
        for (int tap = 0; tap < 9; tap++) {
            int at[4];
            holders(kind, tap, at);
            const float *s = df + o * 16 * c, *p0 = s + at[0] * c, *p1 = s + at[1] * c, *p2 = s + at[2] * c,
                        *p3 = s + at[3] * c;
            float *restrict d = dw + (o * 9 + tap) * c;
            for (int64_t i = 0; i < c; i++) {
                float v = scale * ((p0[i] + p1[i]) + (p2[i] + p3[i]));
                d[i] = accumulate ? d[i] + v : v;
            }
        }
}

/* df {C,4,4,K} -> dw {K,3,3,C}, square by square: one side is strided whatever the order. */
static void unfold_transposed(int kind, const float *df, int64_t k, int64_t c, float *dw, int accumulate, int threads)
{
    enum { SIDE = 16 };
    float scale = folds[kind].scale;
    int64_t blocks = cpu_ceil_div(k, SIDE);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && k * c > 4096)
    for (int64_t b = 0; b < blocks * 9; b++) {
        int64_t o = b / 9 * SIDE, no = cpu_min64(SIDE, k - o), tap = b % 9;
        int at[4];
        holders(kind, (int)tap, at);
        for (int64_t i0 = 0; i0 < c; i0 += SIDE) {
            float square[SIDE][SIDE];
            int64_t ni = cpu_min64(SIDE, c - i0);
            for (int64_t i = 0; i < ni; i++) {
                const float *s = df + (i0 + i) * 16 * k + o, *p0 = s + at[0] * k, *p1 = s + at[1] * k,
                            *p2 = s + at[2] * k, *p3 = s + at[3] * k;
                for (int64_t j = 0; j < no; j++) square[i][j] = scale * ((p0[j] + p1[j]) + (p2[j] + p3[j]));
            }
            for (int64_t j = 0; j < no; j++) {
                float *d = dw + ((o + j) * 9 + tap) * c + i0;
                for (int64_t i = 0; i < ni; i++) d[i] = accumulate ? d[i] + square[i][j] : square[i][j];
            }
        }
    }
}

/* How F is read by a product whose inner index runs over (taps, `in` channels) and whose columns are the other side's.
 */
typedef struct side {
    int64_t in, in_step; /* inner channels and their distance in F */
    int64_t out, out_step;
    int64_t tap_step;
} side;

static void gather_offsets(const side *f, int64_t *offset)
{
    for (int t = 0; t < 16; t++)
        for (int64_t i = 0; i < f->in; i++) *offset++ = t * f->tap_step + i * f->in_step;
}

static void spread_offsets(const side *f, int top, int left, int64_t *offset)
{
    for (int u = 0; u < 2; u++)
        for (int v = 0; v < 2; v++)
            for (int64_t i = 0; i < f->in; i++)
                *offset++ = ((3 - top - 2 * u) * 4 + 3 - left - 2 * v) * f->tap_step + i * f->in_step;
}

/* small {N,h,w,out} = strided convolution of large {N,2h,2w,in} */
static int gather(sag_kernel_env *env, const side *f, const float *folded, const float *large, float *small, int64_t n,
                  int64_t h, int64_t w, const float *bias, int accumulate)
{
    int64_t *offset = env->scratch(env, (size_t)(16 * f->in) * sizeof *offset);
    if (!offset) return SAG_KERNEL_NO_MEMORY;
    gather_offsets(f, offset);
    patches x = {.x = large,
                 .h = 2 * h,
                 .w = 2 * w,
                 .c = f->in,
                 .rows = h,
                 .cols = w,
                 .stride = 2,
                 .top = -1,
                 .left = -1,
                 .r = 4,
                 .s = 4};
    gemm_rows pixels = {small, f->out};
    gemm_job job = {.m = n * h * w,
                    .n = f->out,
                    .k = 16 * f->in,
                    .fetch = CPU_ISA(patches_fetch),
                    .a = &x,
                    .b = {.data = folded, .offset = offset, .column = f->out_step},
                    .place = CPU_ISA(gemm_place_rows),
                    .c = &pixels,
                    .bias = bias,
                    .accumulate = accumulate};
    return CPU_ISA(gemm)(env, &job);
}

/* large {N,2h,2w,out} = transposed convolution of small {N,h,w,in} */
static int spread(sag_kernel_env *env, const side *f, const float *folded, const float *small, float *large, int64_t n,
                  int64_t h, int64_t w, const float *bias, int accumulate)
{
    int64_t *offset = env->scratch(env, (size_t)(4 * f->in) * sizeof *offset);
    if (!offset) return SAG_KERNEL_NO_MEMORY;
    void *memory = NULL;
    for (int phase = 0; phase < 4; phase++) {
        int top = phase / 2, left = phase % 2;
        spread_offsets(f, top, left, offset);
        patches x = {.x = small,
                     .h = h,
                     .w = w,
                     .c = f->in,
                     .rows = h,
                     .cols = w,
                     .stride = 1,
                     .top = top - 1,
                     .left = left - 1,
                     .r = 2,
                     .s = 2};
        places y = {.map = large,
                    .h = 2 * h,
                    .w = 2 * w,
                    .c = f->out,
                    .rows = h,
                    .cols = w,
                    .step = 2,
                    .top = top,
                    .left = left};
        gemm_job job = {.m = n * h * w,
                        .n = f->out,
                        .k = 4 * f->in,
                        .fetch = CPU_ISA(patches_fetch),
                        .a = &x,
                        .b = {.data = folded, .offset = offset, .column = f->out_step},
                        .place = CPU_ISA(places_rows),
                        .c = &y,
                        .bias = bias,
                        .accumulate = accumulate};
        if (!memory) memory = env->scratch(env, (size_t)CPU_ISA(gemm_bytes)(&job, env->threads));
        if (!memory) return SAG_KERNEL_NO_MEMORY;
        CPU_ISA(gemm_run)(&job, memory, env->threads);
    }
    return SAG_KERNEL_OK;
}

static float *folded_weights(sag_kernel_env *env, const conv_args *a, int kind)
{
    float *f = env->scratch(env, (size_t)(16 * a->k * a->c) * sizeof *f);
    if (f) fold(kind, a->w, a->k, a->c, f, env->threads);
    return f;
}

/* Products that sum over C and leave K, and the other way round. */
static side side_fwd(const conv_args *a)
{
    return (side){.in = a->c, .in_step = 1, .out = a->k, .out_step = 16 * a->c, .tap_step = a->c};
}
static side side_bwd(const conv_args *a)
{
    return (side){.in = a->k, .in_step = 16 * a->c, .out = a->c, .out_step = 1, .tap_step = a->c};
}

static int cpu_upconv_fwd(sag_kernel_env *env, const conv_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (CPU_ISA(winograd_suits)(env, a, WINO_UP, WINO_FWD)) return CPU_ISA(winograd_fwd)(env, a, WINO_UP);
    float *f = folded_weights(env, a, FOLD_UP);
    side s = side_fwd(a);
    return f ? spread(env, &s, f, a->x, a->y, a->n, a->h, a->w_in, a->b, 0) : SAG_KERNEL_NO_MEMORY;
}

static int cpu_upconv_bwd_x(sag_kernel_env *env, const conv_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (CPU_ISA(winograd_suits)(env, a, WINO_UP, WINO_BWD_X)) return CPU_ISA(winograd_bwd_x)(env, a, WINO_UP);
    float *f = folded_weights(env, a, FOLD_UP);
    side s = side_bwd(a);
    return f ? gather(env, &s, f, a->dy, a->dx, a->n, a->h, a->w_in, NULL, a->accumulate) : SAG_KERNEL_NO_MEMORY;
}

static int cpu_convpool_fwd(sag_kernel_env *env, const conv_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (CPU_ISA(winograd_suits)(env, a, WINO_POOL, WINO_FWD)) return CPU_ISA(winograd_fwd)(env, a, WINO_POOL);
    float *f = folded_weights(env, a, FOLD_POOL);
    side s = side_fwd(a);
    return f ? gather(env, &s, f, a->x, a->y, a->n, a->p, a->q, a->b, 0) : SAG_KERNEL_NO_MEMORY;
}

static int cpu_convpool_bwd_x(sag_kernel_env *env, const conv_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (CPU_ISA(winograd_suits)(env, a, WINO_POOL, WINO_BWD_X)) return CPU_ISA(winograd_bwd_x)(env, a, WINO_POOL);
    float *f = folded_weights(env, a, FOLD_POOL);
    side s = side_bwd(a);
    return f ? spread(env, &s, f, a->dy, a->dx, a->n, a->p, a->q, NULL, a->accumulate) : SAG_KERNEL_NO_MEMORY;
}

static int bias_gradient(sag_kernel_env *env, const conv_args *a)
{
    if (!a->db) return SAG_KERNEL_OK;
    return CPU_ISA(column_sum)(env, a->dy, a->n * a->p * a->q, a->k, a->db, a->accumulate_db);
}

/* Patches of the large map against pixels of the small one: of dy against x here, hence df {C,4,4,K}. */
static int cpu_upconv_bwd_w(sag_kernel_env *env, const conv_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (!a->dw) return bias_gradient(env, a);
    if (CPU_ISA(winograd_suits)(env, a, WINO_UP, WINO_BWD_W)) {
        int done = CPU_ISA(winograd_bwd_w)(env, a, WINO_UP);
        return done == SAG_KERNEL_OK ? bias_gradient(env, a) : done;
    }
    float *df = env->scratch(env, (size_t)(16 * a->k * a->c) * sizeof *df);
    if (!df) return SAG_KERNEL_NO_MEMORY;
    patches dy = {.x = a->dy,
                  .h = a->p,
                  .w = a->q,
                  .c = a->k,
                  .rows = a->h,
                  .cols = a->w_in,
                  .stride = 2,
                  .top = -1,
                  .left = -1,
                  .r = 4,
                  .s = 4};
    int result = CPU_ISA(outer)(env, &dy, a->n * a->h * a->w_in, a->x, a->c, a->c, df, 0);
    if (result != SAG_KERNEL_OK) return result;
    unfold_transposed(FOLD_UP, df, a->k, a->c, a->dw, a->accumulate_dw, env->threads);
    return bias_gradient(env, a);
}

static int cpu_convpool_bwd_w(sag_kernel_env *env, const conv_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (!a->dw) return bias_gradient(env, a);
    if (CPU_ISA(winograd_suits)(env, a, WINO_POOL, WINO_BWD_W)) {
        int done = CPU_ISA(winograd_bwd_w)(env, a, WINO_POOL);
        return done == SAG_KERNEL_OK ? bias_gradient(env, a) : done;
    }
    float *df = env->scratch(env, (size_t)(16 * a->k * a->c) * sizeof *df);
    if (!df) return SAG_KERNEL_NO_MEMORY;
    patches x = {.x = a->x,
                 .h = a->h,
                 .w = a->w_in,
                 .c = a->c,
                 .rows = a->p,
                 .cols = a->q,
                 .stride = 2,
                 .top = -1,
                 .left = -1,
                 .r = 4,
                 .s = 4};
    int result = CPU_ISA(outer)(env, &x, a->n * a->p * a->q, a->dy, a->k, a->k, df, 0);
    if (result != SAG_KERNEL_OK) return result;
    unfold(FOLD_POOL, df, a->k, a->c, a->dw, a->accumulate_dw, env->threads);
    return bias_gradient(env, a);
}

void CPU_ISA(upconv_fill)(sag_kernel_table *t)
{
    t->upconv_fwd = cpu_upconv_fwd;
    t->upconv_bwd_x = cpu_upconv_bwd_x;
    t->upconv_bwd_w = cpu_upconv_bwd_w;
    t->convpool_fwd = cpu_convpool_fwd;
    t->convpool_bwd_x = cpu_convpool_bwd_x;
    t->convpool_bwd_w = cpu_convpool_bwd_w;
}
