/*
 * spectral_norm.c - an estimate of the largest singular value of every layer's matrix in a slab, and the gradient of
 * dividing by it.
 *
 * W {rows, cols} of each layer, n(x) = x / s, s = |x| + eps or max(|x|, eps), t = 1..k from u_0:
 *   a_t = W^T u_{t-1},  v_t = n(a_t),  b_t = W v_t,  u_t = n(b_t);   sigma = u_k . b_k.
 * k = 0 takes the u and v that are there. A layer with |sigma| < SAG_TINY_SIGMA (all weights zero) is divided by 1, keeps
 * its u and v, and has no gradient by way of sigma.
 *
 * Gradient, h = dL/dsigma:
 *   u, v constants (Miyato et al. 2018, eq. 12): sigma = u^T W v, so dW += h u v^T.
 *   through: the steps are differentiated too (Google's SAGAN code has no stop-gradient there). With y = n(x),
 *   r = |x| the Jacobian is dy/dx = I/s - y y^T / r, symmetric: J g = g/s - y (y . g) / r (I/s where s does not depend on
 *   x, below eps of the maximum). Then
 *     sigma = u_k . W v_k:
 *       dW += h u_k v_k^T,   du_k = h b_k,   dv_k = h W^T u_k,   and for t = k..1:
 *       db_t = J(b_t) du_t,   dW += db_t v_t^T,       dv_t += W^T db_t      (b_t = W v_t)
 *       da_t = J(a_t) dv_t,   dW += u_{t-1} da_t^T,   du_{t-1} = W da_t     (a_t = W^T u_{t-1})
 *     The two terms of dv_k share one product W^T (h u_k + db_k). u_0 is a buffer: its gradient goes nowhere. At an
 *     exact singular pair every J kills its argument and both forms agree.
 *   sigma_bwd: of W / sigma, G = dL/d(W / sigma): dW = G / sigma, h = -<G, W> / sigma^2.
 *
 * Norms, sigma and h are summed in f64. Tiles and products: spectral_plan.c.
 */
#include "kernels/cpu/spectral_plan.h"

#define PIECE 16384 /* of sigma_bwd: its sums are added in this order */

static double dot(const float *x, const float *y, int64_t n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)y[i];
    return sum;
}

static double divisor(const spectral_norm_args *a, double r)
{
    const double eps = (double)a->eps;
    return !a->eps_max ? r + eps : r > eps ? r : eps;
}

/* y = x / s; returns |x|. */
static double normalise(float *y, const float *x, int64_t n, const spectral_norm_args *a)
{
    const double r = sqrt(dot(x, x, n));
    const float inverse = (float)(1.0 / divisor(a, r));
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * inverse;
    return r;
}

/* g <- J g at y = x / s, |x| = r. */
static void normalise_bwd(float *g, const float *y, int64_t n, double r, const spectral_norm_args *a)
{
    if (r == 0) {
        memset(g, 0, (size_t)n * sizeof *g);
        return;
    }
    const double inverse = 1.0 / divisor(a, r);
    const double along = a->eps_max && r <= (double)a->eps ? 0 : dot(y, g, n) / r;
    for (int64_t i = 0; i < n; i++) g[i] = (float)((double)g[i] * inverse - (double)y[i] * along);
}

/* ----------------------------------------------------------------------------------------- forward */

/* The power iterations of a run's layers, from u; keeps what backward and the next call need. */
static void find_sigma(sag_kernel_env *env, const sn_plan *p, const sn_run *run, float *u, float *v, float *b)
{
    const spectral_norm_args *a = p->a;
    const int64_t end = run->layer + run->layers;
    for (int step = 0; step < a->iterations; step++) {
        CPU_ISA(spectral_product_t)(env, p, run, v, u);
        for (int64_t i = run->layer; i < end; i++)
            normalise(v + p->layers[i].v, v + p->layers[i].v, p->layers[i].cols, a);
        CPU_ISA(spectral_product)(env, p, run, b, v);
        for (int64_t i = run->layer; i < end; i++)
            normalise(u + p->layers[i].u, b + p->layers[i].u, p->layers[i].rows, a);
    }
    if (a->iterations < 1) CPU_ISA(spectral_product)(env, p, run, b, v);
    for (int64_t i = run->layer; i < end; i++) {
        const sn_layer *l = &p->layers[i];
        const float sigma = (float)dot(u + l->u, b + l->u, l->rows);
        const bool tiny = fabsf(sigma) < SAG_TINY_SIGMA;
        a->sigma[i] = sigma;
        a->divisor[i] = tiny ? 1.0f : sigma;
        if (a->sigma_used) a->sigma_used[i] = sigma;
        if (!a->update || tiny) continue;
        memcpy(a->u + l->u, u + l->u, (size_t)l->rows * sizeof *u);
        memcpy(a->v + l->v, v + l->v, (size_t)l->cols * sizeof *v);
    }
}

static int cpu_spectral_norm_fwd(sag_kernel_env *env, const spectral_norm_args *a)
{
    sn_plan p;
    const int planned = CPU_ISA(spectral_plan)(env, a, &p);
    if (planned != SAG_KERNEL_OK) return planned;
    float *u = a->u_used ? a->u_used : env->scratch(env, (size_t)a->n_u * sizeof *u);
    float *v = a->v_used ? a->v_used : env->scratch(env, (size_t)a->n_v * sizeof *v);
    float *b = env->scratch(env, (size_t)a->n_u * sizeof *b);
    if (!u || !v || !b) return SAG_KERNEL_NO_MEMORY;
    memcpy(u, a->u, (size_t)a->n_u * sizeof *u);
    memcpy(v, a->v, (size_t)a->n_v * sizeof *v);
    if (a->u_start) memcpy(a->u_start, a->u, (size_t)a->n_u * sizeof *u);
    for (int64_t k = 0; k < p.n_runs; k++) find_sigma(env, &p, &p.runs[k], u, v, b);
    return SAG_KERNEL_OK;
}

/* ---------------------------------------------------------------------------------------- backward */

/* Rank-one terms: dw += sum_t left_t right_t^T, slabs like u and v. */
typedef struct sn_terms {
    float **left, **right; /* `count` slabs each */
    int64_t count;
} sn_terms;

static void apply_tile(const sn_plan *p, const sn_tile *t, const sn_terms *terms)
{
    const sn_layer *l = &p->layers[t->layer];
    for (int64_t r = t->row; r < t->row + t->rows; r++) {
        float *restrict to = p->a->dw + l->offset + r * l->cols;
        for (int64_t k = 0; k < terms->count; k++) {
            const float *restrict right = terms->right[k] + l->v, left = terms->left[k][l->u + r];
#pragma omp simd
            for (int64_t c = 0; c < l->cols; c++) to[c] += left * right[c];
        }
    }
}

static void apply_terms(sag_kernel_env *env, const sn_plan *p, const sn_terms *terms)
{
#pragma omp parallel num_threads(env->threads) if (p->all.threaded)
    {
        const cpu_share own = cpu_share_of(p->n_tiles);
        for (int64_t i = own.first; i < own.end; i++) apply_tile(p, &p->tiles[i], terms);
    }
}

/* Recomputes the steps, then walks them backwards; see the head of the file. */
static int terms_through(sag_kernel_env *env, const sn_plan *p, const double *h, sn_terms *terms)
{
    const spectral_norm_args *a = p->a;
    const int64_t steps = a->iterations, n_u = a->n_u, n_v = a->n_v, count = a->n_layers;
    float *u = env->scratch(env, (size_t)((steps + 1) * n_u) * sizeof *u);
    float *v = env->scratch(env, (size_t)((steps + 1) * n_v) * sizeof *v);
    float *du = env->scratch(env, (size_t)((steps + 1) * n_u) * sizeof *du);
    float *da = env->scratch(env, (size_t)((steps + 1) * n_v) * sizeof *da);
    float *db = env->scratch(env, (size_t)n_u * sizeof *db);
    double *norm_a = env->scratch(env, (size_t)(steps * count) * sizeof *norm_a);
    double *norm_b = env->scratch(env, (size_t)(steps * count) * sizeof *norm_b);
    terms->left = env->scratch(env, (size_t)(2 * steps) * sizeof *terms->left);
    terms->right = env->scratch(env, (size_t)(2 * steps) * sizeof *terms->right);
    if (!u || !v || !du || !da || !db || !norm_a || !norm_b || !terms->left || !terms->right)
        return SAG_KERNEL_NO_MEMORY;
    memcpy(u, a->u_start, (size_t)n_u * sizeof *u);
    for (int64_t t = 1; t <= steps; t++) {
        float *ut = u + t * n_u, *vt = v + t * n_v;
        CPU_ISA(spectral_product_t)(env, p, &p->all, vt, ut - n_u);
        for (int64_t i = 0; i < count; i++)
            norm_a[(t - 1) * count + i] =
                normalise(vt + p->layers[i].v, vt + p->layers[i].v, p->layers[i].cols, a);
        CPU_ISA(spectral_product)(env, p, &p->all, db, vt);
        for (int64_t i = 0; i < count; i++)
            norm_b[(t - 1) * count + i] =
                normalise(ut + p->layers[i].u, db + p->layers[i].u, p->layers[i].rows, a);
    }
    for (int64_t t = steps; t >= 1; t--) {
        float *ut = u + t * n_u, *dut = du + t * n_u, *dat = da + t * n_v;
        for (int64_t i = 0; i < count; i++) {
            const sn_layer *l = &p->layers[i];
            float *g = dut + l->u;
            if (t == steps) /* db still holds b_k */
                for (int64_t r = 0; r < l->rows; r++) g[r] = (float)(h[i] * (double)db[l->u + r]);
            normalise_bwd(g, ut + l->u, l->rows, norm_b[(t - 1) * count + i], a);
            if (t == steps)
                for (int64_t r = 0; r < l->rows; r++) g[r] += (float)(h[i] * (double)ut[l->u + r]);
        }
        CPU_ISA(spectral_product_t)(env, p, &p->all, dat, dut);
        for (int64_t i = 0; i < count; i++)
            normalise_bwd(dat + p->layers[i].v, v + t * n_v + p->layers[i].v, p->layers[i].cols,
                          norm_a[(t - 1) * count + i], a);
        if (t > 1) CPU_ISA(spectral_product)(env, p, &p->all, dut - n_u, dat);
        terms->left[terms->count] = dut;
        terms->right[terms->count++] = v + t * n_v;
        terms->left[terms->count] = ut - n_u;
        terms->right[terms->count++] = dat;
    }
    return SAG_KERNEL_OK;
}

static int cpu_spectral_norm_bwd(sag_kernel_env *env, const spectral_norm_args *a)
{
    sn_plan p;
    const int planned = CPU_ISA(spectral_plan)(env, a, &p);
    if (planned != SAG_KERNEL_OK) return planned;
    double *h = env->scratch(env, (size_t)a->n_layers * sizeof *h);
    float *left = env->scratch(env, (size_t)a->n_u * sizeof *left), *right = a->v_used;
    if (!h || !left) return SAG_KERNEL_NO_MEMORY;
    for (int64_t i = 0; i < a->n_layers; i++) h[i] = fabsf(a->sigma_used[i]) < SAG_TINY_SIGMA ? 0 : (double)a->ddivisor[i];
    sn_terms terms = {.left = &left, .right = &right, .count = 1};
    if (a->through && a->iterations > 0) {
        terms.count = 0;
        const int result = terms_through(env, &p, h, &terms);
        if (result != SAG_KERNEL_OK) return result;
    } else {
        for (int64_t i = 0; i < a->n_layers; i++) {
            const sn_layer *l = &p.layers[i];
            for (int64_t r = 0; r < l->rows; r++) left[l->u + r] = (float)(h[i] * (double)a->u_used[l->u + r]);
        }
    }
    apply_terms(env, &p, &terms);
    return SAG_KERNEL_OK;
}

/* <g, w> of a piece; dw (+)= g / sigma, g itself perhaps. */
static double divide_piece(const sigma_bwd_args *a, int64_t first, int64_t n, float factor)
{
    const float *g = a->g + first, *w = a->w + first;
    cpu_vec sum[4] = {0};
    for (int64_t i = 0, k = 0; i < n; i += CPU_LANES, k = (k + 1) % 4) {
        const int64_t left = cpu_min64(CPU_LANES, n - i);
        const cpu_vec x = cpu_load_part(g + i, left);
        sum[k] += x * cpu_load_part(w + i, left);
        if (!a->dw) continue;
        float *to = a->dw + first + i;
        cpu_store_part(to, (a->accumulate_dw ? cpu_load_part(to, left) : (cpu_vec){0}) + x * factor, left);
    }
    const cpu_vec lanes = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    double all = 0;
    for (int l = 0; l < CPU_LANES; l++) all += (double)lanes[l];
    return all;
}

static int cpu_sigma_bwd(sag_kernel_env *env, const sigma_bwd_args *a)
{
    const int64_t pieces = cpu_ceil_div(a->n, PIECE);
    double *share = env->scratch(env, (size_t)pieces * sizeof *share), sum = 0;
    if (!share) return SAG_KERNEL_NO_MEMORY;
    const float factor = 1.0f / a->sigma[0];
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->n > CPU_SMALL)
    for (int64_t i = 0; i < pieces; i++) share[i] = divide_piece(a, i * PIECE, cpu_min64(PIECE, a->n - i * PIECE), factor);
    if (!a->dsigma) return SAG_KERNEL_OK;
    for (int64_t i = 0; i < pieces; i++) sum += share[i];
    const float h = (float)(-sum / ((double)a->sigma[0] * (double)a->sigma[0]));
    a->dsigma[0] = a->accumulate_dsigma ? a->dsigma[0] + h : h;
    return SAG_KERNEL_OK;
}

void CPU_REGISTER(spectral_norm)(sag_kernel_table *t)
{
    t->spectral_norm_fwd = cpu_spectral_norm_fwd;
    t->spectral_norm_bwd = cpu_spectral_norm_bwd;
    t->sigma_bwd = cpu_sigma_bwd;
}
