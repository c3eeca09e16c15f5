/*
 * pointwise.c - functions of one and of two tensors, and the gate of self-attention. One pass over memory each.
 * The forms and what backward reads are in kernel_args.h (unary_args, binary_args, gated_add_args).
 */
#include "kernels/cpu/columns.h"
#include "kernels/cpu/vec_math.h"

/* ------------------------------------------------------------------------------------------------- unary */

/* Each function works on one piece; v is the input, k what was kept, d the gradient of the output. */
#define UNARY(name, forward, backward)                                                                           \
    static void name##_piece(const float *x, float *y, int64_t n, float a, float b)                              \
    {                                                                                                            \
        (void)a, (void)b;                                                                                        \
        for (int64_t i = 0; i < n; i += CPU_LANES) {                                                             \
            int64_t left = n - i;                                                                                \
            cpu_vec v = left >= CPU_LANES ? cpu_load(x + i) : cpu_load_part(x + i, left);                        \
            cpu_vec r = (forward);                                                                               \
            if (left >= CPU_LANES)                                                                               \
                cpu_store(y + i, r);                                                                             \
            else                                                                                                 \
                cpu_store_part(y + i, r, left);                                                                  \
        }                                                                                                        \
    }                                                                                                            \
    static void name##_grad_piece(const float *x, const float *dy, float *dx, int64_t n, float a, int accumulate) \
    {                                                                                                            \
        (void)a, (void)x;                                                                                        \
        for (int64_t i = 0; i < n; i += CPU_LANES) {                                                             \
            int64_t left = n - i;                                                                                \
            bool whole = left >= CPU_LANES;                                                                      \
            cpu_vec k = {0};                                                                                     \
            if (x) k = whole ? cpu_load(x + i) : cpu_load_part(x + i, left);                                     \
            cpu_vec d = whole ? cpu_load(dy + i) : cpu_load_part(dy + i, left);                                  \
            cpu_vec r = (backward);                                                                              \
            (void)k;                                                                                             \
            if (accumulate) r += whole ? cpu_load(dx + i) : cpu_load_part(dx + i, left);                         \
            if (whole)                                                                                           \
                cpu_store(dx + i, r);                                                                            \
            else                                                                                                 \
                cpu_store_part(dx + i, r, left);                                                                 \
        }                                                                                                        \
    }

static inline cpu_vec vec_sqrt(cpu_vec v)
{
    for (int i = 0; i < CPU_LANES; i++) v[i] = sqrtf(v[i]);
    return v;
}
static inline cpu_vec vec_abs(cpu_vec v)
{
    return (cpu_vec)((cpu_ivec)v & 0x7fffffff);
}

#define ZERO ((cpu_vec){0})
UNARY(relu, cpu_relu(v), cpu_relu_gradient(k, d))
UNARY(leaky_relu, cpu_select(v > 0.0f, v, v *a), cpu_select(k > 0.0f, d, d *a))
UNARY(tanh, cpu_tanh(v), d *(1.0f - k * k))
UNARY(sigmoid, cpu_sigmoid(v), d *(k - k * k))
UNARY(softplus, cpu_softplus(v), d *cpu_sigmoid(k))
UNARY(exp, cpu_exp(v), d *k)
UNARY(log, cpu_log(v), d / k)
UNARY(sqrt, vec_sqrt(v), d * 0.5f / k)
UNARY(square, v *v, d *(k + k))
UNARY(abs, vec_abs(v), cpu_select(k > 0.0f, d, cpu_select(k < 0.0f, -d, k)))
UNARY(scale, v *a + b, d *a)

typedef void (*unary_piece)(const float *x, float *y, int64_t n, float a, float b);
typedef void (*unary_grad_piece)(const float *x, const float *dy, float *dx, int64_t n, float a, int accumulate);

#define KINDS(X)                                                                                                 \
    X(RELU, relu) X(LEAKY_RELU, leaky_relu) X(TANH, tanh) X(SIGMOID, sigmoid) X(SOFTPLUS, softplus) X(EXP, exp)  \
    X(LOG, log) X(SQRT, sqrt) X(SQUARE, square) X(ABS, abs) X(SCALE, scale)
#define FORWARD(kind, name) [SAG_UNARY_##kind] = name##_piece,
#define BACKWARD(kind, name) [SAG_UNARY_##kind] = name##_grad_piece,
static const unary_piece unary_pieces[] = {KINDS(FORWARD)};
static const unary_grad_piece unary_grad_pieces[] = {KINDS(BACKWARD)};

static int cpu_unary_fwd(sag_kernel_env *env, const unary_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    const float *x = a->x;
    float *y = a->y;
    unary_piece run = unary_pieces[a->kind];
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->n > CPU_SMALL)
    for (int64_t i = 0; i < a->n; i += CPU_PIECE) run(x + i, y + i, cpu_min64(CPU_PIECE, a->n - i), a->a, a->b);
    return SAG_KERNEL_OK;
}

static int cpu_unary_bwd(sag_kernel_env *env, const unary_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    const float *x = a->x, *dy = a->dy;
    float *dx = a->dx;
    unary_grad_piece run = unary_grad_pieces[a->kind];
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->n > CPU_SMALL)
    for (int64_t i = 0; i < a->n; i += CPU_PIECE)
        run(x ? x + i : NULL, dy + i, dx + i, cpu_min64(CPU_PIECE, a->n - i), a->a, a->accumulate);
    return SAG_KERNEL_OK;
}

/* ------------------------------------------------------------------------------------------------ binary */

/*
 * b as lines of a convenient length: itself if it is long, else repeated up to CPU_WIDE floats in scratch. `line` is a
 * multiple of nb, so a piece that starts at a multiple of `line` starts at b[0].
 */
typedef struct lines {
    const float *b;
    int64_t line; /* floats */
} lines;

static int lines_of(sag_kernel_env *env, const binary_args *a, lines *out)
{
    out->b = a->b;
    out->line = a->nb;
    if (a->nb <= CPU_WIDE / 2 && a->nb < a->n) {
        int64_t width = CPU_WIDE / a->nb * a->nb;
        float *wide = env->scratch(env, (size_t)width * sizeof *wide);
        if (!wide) return SAG_KERNEL_NO_MEMORY;
        cpu_repeat(wide, a->b, a->nb, width);
        out->b = wide;
        out->line = width;
    }
    return SAG_KERNEL_OK;
}

/* Calls body(i, b, n) for runs of elements i .. i + n - 1 that meet b[0 .. n - 1]. */
#define FOR_RUNS(env, total, l, body)                                                                            \
    do {                                                                                                         \
        int64_t total_ = (total), line_ = (l)->line, pieces_ = cpu_ceil_div(total_, CPU_PIECE);                  \
        _Pragma("omp parallel for num_threads((env)->threads) schedule(static) if (total_ > CPU_SMALL)")         \
        for (int64_t p_ = 0; p_ < pieces_; p_++) {                                                               \
            int64_t end_ = cpu_min64((p_ + 1) * CPU_PIECE, total_);                                              \
            for (int64_t i_ = p_ * CPU_PIECE; i_ < end_;) {                                                      \
                int64_t at_ = i_ % line_, n_ = cpu_min64(line_ - at_, end_ - i_);                                \
                body(i_, (l)->b + at_, n_);                                                                      \
                i_ += n_;                                                                                        \
            }                                                                                                    \
        }                                                                                                        \
    } while (0)

#define LOOP(expression)                                                                                         \
    do {                                                                                                         \
        _Pragma("omp simd") for (int64_t j = 0; j < n; j++) { expression; }                                      \
    } while (0)

static void binary_run(sag_binary kind, const float *restrict x, const float *restrict b, float *restrict y, int64_t n)
{
    switch (kind) {
    case SAG_BINARY_ADD: LOOP(y[j] = x[j] + b[j]); break;
    case SAG_BINARY_SUB: LOOP(y[j] = x[j] - b[j]); break;
    case SAG_BINARY_MUL: LOOP(y[j] = x[j] * b[j]); break;
    case SAG_BINARY_DIV: LOOP(y[j] = x[j] / b[j]); break;
    }
}

static int cpu_binary_fwd(sag_kernel_env *env, const binary_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    const float *x = a->a;
    float *y = a->y;
    lines l;
    int rc = lines_of(env, a, &l);
    if (rc != SAG_KERNEL_OK) return rc;
#define RUN(i, b_run, n) binary_run(a->kind, x + (i), (b_run), y + (i), (n))
    FOR_RUNS(env, a->n, &l, RUN);
#undef RUN
    return SAG_KERNEL_OK;
}

/* da (+)= dy * (1, 1, b, 1/b) */
static void binary_grad_a_run(sag_binary kind, const float *restrict dy, const float *restrict b, float *restrict da,
                              int64_t n, int accumulate)
{
    switch (kind) {
    case SAG_BINARY_ADD:
    case SAG_BINARY_SUB:
        if (accumulate) LOOP(da[j] += dy[j]);
        else LOOP(da[j] = dy[j]);
        break;
    case SAG_BINARY_MUL:
        if (accumulate) LOOP(da[j] += dy[j] * b[j]);
        else LOOP(da[j] = dy[j] * b[j]);
        break;
    case SAG_BINARY_DIV:
        if (accumulate) LOOP(da[j] += dy[j] / b[j]);
        else LOOP(da[j] = dy[j] / b[j]);
        break;
    }
}

/* db (+)= dy * (1, -1, a, -a / b^2), equal shapes */
static void binary_grad_b_run(sag_binary kind, const float *restrict dy, const float *restrict x,
                              const float *restrict b, float *restrict db, int64_t n, int accumulate)
{
    if (!accumulate) memset(db, 0, (size_t)n * sizeof *db); /* a piece: it stays in the cache */
    switch (kind) {
    case SAG_BINARY_ADD: LOOP(db[j] += dy[j]); break;
    case SAG_BINARY_SUB: LOOP(db[j] -= dy[j]); break;
    case SAG_BINARY_MUL: LOOP(db[j] += dy[j] * x[j]); break;
    case SAG_BINARY_DIV: LOOP(db[j] -= dy[j] * x[j] / (b[j] * b[j])); break;
    }
}

static int binary_grad_b_sums(sag_kernel_env *env, const binary_args *a)
{
    bool product = a->kind == SAG_BINARY_MUL || a->kind == SAG_BINARY_DIV;
    double *s = CPU_ISA(cpu_column_sums)(env, a->dy, product ? a->a : NULL, 1, a->n / a->nb, a->nb);
    if (!s) return SAG_KERNEL_NO_MEMORY;
    const float *b = a->b;
    float *db = a->db;
    for (int64_t j = 0; j < a->nb; j++) {
        double v = s[j];
        if (a->kind == SAG_BINARY_SUB) v = -v;
        if (a->kind == SAG_BINARY_DIV) v = -v / ((double)b[j] * (double)b[j]);
        db[j] = a->accumulate_b ? db[j] + (float)v : (float)v;
    }
    return SAG_KERNEL_OK;
}

static int cpu_binary_bwd(sag_kernel_env *env, const binary_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    const float *dy = a->dy, *x = a->a, *b = a->b;
    float *da = a->da, *db = a->db;
    if (da) {
        lines l = {.b = b, .line = a->nb};
        if (b) { /* add and sub do not look at it */
            int rc = lines_of(env, a, &l);
            if (rc != SAG_KERNEL_OK) return rc;
        } else {
            l.b = dy;
            l.line = a->n;
        }
#define RUN(i, b_run, n) binary_grad_a_run(a->kind, dy + (i), (b_run), da + (i), (n), a->accumulate_a)
        FOR_RUNS(env, a->n, &l, RUN);
#undef RUN
    }
    if (db && a->nb < a->n) return binary_grad_b_sums(env, a);
    if (db) {
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->n > CPU_SMALL)
        for (int64_t i = 0; i < a->n; i += CPU_PIECE)
            binary_grad_b_run(a->kind, dy + i, x ? x + i : NULL, b ? b + i : NULL, db + i,
                              cpu_min64(CPU_PIECE, a->n - i), a->accumulate_b);
    }
    return SAG_KERNEL_OK;
}

/* ------------------------------------------------------------------------------------------------- gated */

static int cpu_gated_add_fwd(sag_kernel_env *env, const gated_add_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    const float *x = a->x, *o = a->o;
    float *y = a->y, gamma = a->gamma[0];
#pragma omp parallel for simd num_threads(env->threads) schedule(static, CPU_PIECE) if (parallel : a->n > CPU_SMALL)
    for (int64_t i = 0; i < a->n; i++) y[i] = x[i] + gamma * o[i];
    return SAG_KERNEL_OK;
}

static int cpu_gated_add_bwd(sag_kernel_env *env, const gated_add_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    const float *dy = a->dy;
    if (a->dout_o) {
        float *d = a->dout_o, gamma = a->gamma[0];
        if (a->accumulate_o) {
#pragma omp parallel for simd num_threads(env->threads) schedule(static, CPU_PIECE) if (parallel : a->n > CPU_SMALL)
            for (int64_t i = 0; i < a->n; i++) d[i] += gamma * dy[i];
        } else {
#pragma omp parallel for simd num_threads(env->threads) schedule(static, CPU_PIECE) if (parallel : a->n > CPU_SMALL)
            for (int64_t i = 0; i < a->n; i++) d[i] = gamma * dy[i];
        }
    }
    if (a->dgamma) {
        double *s = CPU_ISA(cpu_column_sums)(env, dy, a->o, 1, a->n, 1);
        if (!s) return SAG_KERNEL_NO_MEMORY;
        a->dgamma[0] = a->accumulate_gamma ? a->dgamma[0] + (float)s[0] : (float)s[0];
    }
    return SAG_KERNEL_OK;
}

void CPU_REGISTER(pointwise)(sag_kernel_table *t)
{
    t->unary_fwd = cpu_unary_fwd;
    t->unary_bwd = cpu_unary_bwd;
    t->binary_fwd = cpu_binary_fwd;
    t->binary_bwd = cpu_binary_bwd;
    t->gated_add_fwd = cpu_gated_add_fwd;
    t->gated_add_bwd = cpu_gated_add_bwd;
}
