/*
 * spectral_norm.c - divides every layer's matrix in a slab by an estimate of its largest singular value.
 *
 * W {rows, cols} of each layer, n(x) = x / s, s = |x| + eps or max(|x|, eps), t = 1..k from u_0:
 *   a_t = W^T u_{t-1},  v_t = n(a_t),  b_t = W v_t,  u_t = n(b_t);   sigma = u_k . b_k;   wn = W / sigma.
 * k = 0 takes the u and v that are there. A layer with |sigma| < TINY_SIGMA (all weights zero) is copied, keeps its u
 * and v, and passes its gradient on.
 *
 * Gradient, G = dL/dwn, inverse = 1 / sigma:
 *   u, v constants (Miyato et al. 2018, eq. 12): sigma = u^T W v, so dW = (G - <G, wn> u v^T) / sigma.
 *   through: the steps are differentiated too (Google's SAGAN code has no stop-gradient there). With y = n(x),
 *   r = |x| the Jacobian is dy/dx = I/s - y y^T / r, symmetric: J g = g/s - y (y . g) / r (I/s where s does not depend on
 *   x, below eps of the maximum). Then
 *     h = dL/dsigma = -<G, wn> / sigma,  sigma = u_k . W v_k:
 *       dW = G / sigma + h u_k v_k^T,   du_k = h b_k,   dv_k = h W^T u_k,   and for t = k..1:
 *       db_t = J(b_t) du_t,   dW += db_t v_t^T,       dv_t += W^T db_t      (b_t = W v_t)
 *       da_t = J(a_t) dv_t,   dW += u_{t-1} da_t^T,   du_{t-1} = W da_t     (a_t = W^T u_{t-1})
 *     The two terms of dv_k share one product W^T (h u_k + db_k). u_0 is a buffer: its gradient goes nowhere. At an
 *     exact singular pair every J kills its argument and both forms agree.
 *
 * Norms, sigma and h are summed in f64. Tiles and products: spectral_plan.c.
 */
#include "kernels/cpu/spectral_plan.h"

#define TINY_SIGMA 1e-30f
#define COPY_BLOCK 65536

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

static float factor_of(float sigma)
{
    return fabsf(sigma) < TINY_SIGMA ? 1.0f : 1.0f / sigma;
}

static void copy_gaps(sag_kernel_env *env, const sn_plan *p, float *to, const float *from, bool accumulate)
{
    for (int64_t g = 0; g < p->n_gaps; g++) {
        const int64_t begin = p->gaps[2 * g], end = p->gaps[2 * g + 1];
#pragma omp parallel for num_threads(env->threads) schedule(static) if (end - begin > COPY_BLOCK)
        for (int64_t at = begin; at < end; at += COPY_BLOCK) {
            const int64_t stop = cpu_min64(at + COPY_BLOCK, end);
#pragma omp simd
            for (int64_t i = at; i < stop; i++) to[i] = (accumulate ? to[i] : 0) + from[i];
        }
    }
}

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
        a->sigma[i] = sigma;
        if (a->sigma_used) a->sigma_used[i] = sigma;
        if (!a->update || fabsf(sigma) < TINY_SIGMA) continue;
        memcpy(a->u + l->u, u + l->u, (size_t)l->rows * sizeof *u);
        memcpy(a->v + l->v, v + l->v, (size_t)l->cols * sizeof *v);
    }
}

/* wn = W / sigma */
static void divide(sag_kernel_env *env, const sn_plan *p, const sn_run *run)
{
    const spectral_norm_args *a = p->a;
#pragma omp parallel num_threads(env->threads) if (run->threaded)
    {
        const cpu_share own = cpu_share_of(run->tiles);
        for (int64_t i = run->tile + own.first; i < run->tile + own.end; i++) {
            const sn_layer *l = &p->layers[p->tiles[i].layer];
            const int64_t at = p->tiles[i].row * l->cols, count = p->tiles[i].rows * l->cols;
            const float *restrict from = l->w + at, factor = factor_of(a->sigma[p->tiles[i].layer]);
            float *restrict to = a->wn + l->offset + at;
#pragma omp simd
            for (int64_t k = 0; k < count; k++) to[k] = from[k] * factor;
        }
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
    for (int64_t k = 0; k < p.n_runs; k++) {
        find_sigma(env, &p, &p.runs[k], u, v, b);
        divide(env, &p, &p.runs[k]);
    }
    copy_gaps(env, &p, a->wn, a->w, false);
    return SAG_KERNEL_OK;
}

/* ---------------------------------------------------------------------------------------- backward */

/* Rank-one terms that are added to dwn / sigma: dw += sum_t left_t right_t^T, slabs like u and v. */
typedef struct sn_terms {
    float **left, **right; /* `count` slabs each */
    int64_t count;
} sn_terms;

static void apply_tile(const sn_plan *p, const sn_tile *t, const sn_terms *terms)
{
    const spectral_norm_args *a = p->a;
    const sn_layer *l = &p->layers[t->layer];
    const float factor = factor_of(a->sigma_used[t->layer]);
    for (int64_t r = t->row; r < t->row + t->rows; r++) {
        const float *restrict from = a->dwn + l->offset + r * l->cols, *restrict right = terms->right[0] + l->v;
        float *restrict to = a->dw + l->offset + r * l->cols;
        const float left = terms->left[0][l->u + r];
        if (a->accumulate) {
#pragma omp simd
            for (int64_t c = 0; c < l->cols; c++) to[c] += from[c] * factor + left * right[c];
        } else {
#pragma omp simd
            for (int64_t c = 0; c < l->cols; c++) to[c] = from[c] * factor + left * right[c];
        }
        for (int64_t k = 1; k < terms->count; k++) {
            const float *restrict more = terms->right[k] + l->v;
            const float x = terms->left[k][l->u + r];
#pragma omp simd
            for (int64_t c = 0; c < l->cols; c++) to[c] += x * more[c];
        }
    }
}

static void apply_terms(sag_kernel_env *env, const sn_plan *p, const sn_run *run, const sn_terms *terms)
{
#pragma omp parallel num_threads(env->threads) if (run->threaded)
    {
        const cpu_share own = cpu_share_of(run->tiles);
        for (int64_t i = own.end - 1; i >= own.first; i--) apply_tile(p, &p->tiles[run->tile + i], terms);
    }
}

/* h = dL/dsigma = -<dwn, wn> / sigma of a run's layers; 0 where a layer was copied. share: one element for each tile.
 */
static void sigma_gradients(sag_kernel_env *env, const sn_plan *p, const sn_run *run, double *share, double *h)
{
    const spectral_norm_args *a = p->a;
#pragma omp parallel num_threads(env->threads) if (run->threaded)
    {
        const cpu_share own = cpu_share_of(run->tiles);
        for (int64_t i = run->tile + own.first; i < run->tile + own.end; i++) {
            const sn_tile *t = &p->tiles[i];
            const sn_layer *l = &p->layers[t->layer];
            double sum = 0;
            for (int64_t r = t->row; r < t->row + t->rows; r++) {
                const float *x = a->dwn + l->offset + r * l->cols, *y = a->wn_saved + l->offset + r * l->cols;
                float row = 0;
#pragma omp simd reduction(+ : row)
                for (int64_t c = 0; c < l->cols; c++) row += x[c] * y[c];
                sum += (double)row;
            }
            share[i] = sum;
        }
    }
    for (int64_t i = run->layer; i < run->layer + run->layers; i++) {
        const sn_layer *l = &p->layers[i];
        double sum = 0;
        for (int64_t k = 0; k < l->n_tiles; k++) sum += share[l->first_tile + k];
        h[i] = fabsf(a->sigma_used[i]) < TINY_SIGMA ? 0 : -sum / (double)a->sigma_used[i];
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
    double *share = env->scratch(env, (size_t)p.n_tiles * sizeof *share);
    float *left = env->scratch(env, (size_t)a->n_u * sizeof *left), *right = a->v_used;
    if (!h || !share || !left) return SAG_KERNEL_NO_MEMORY;
    if (a->through && a->iterations > 0) {
        sn_terms terms = {.count = 0};
        sigma_gradients(env, &p, &p.all, share, h);
        const int result = terms_through(env, &p, h, &terms);
        if (result != SAG_KERNEL_OK) return result;
        apply_terms(env, &p, &p.all, &terms);
    } else {
        const sn_terms terms = {.left = &left, .right = &right, .count = 1};
        for (int64_t k = 0; k < p.n_runs; k++) {
            const sn_run *run = &p.runs[k];
            sigma_gradients(env, &p, run, share, h);
            for (int64_t i = run->layer; i < run->layer + run->layers; i++) {
                const sn_layer *l = &p.layers[i];
                for (int64_t r = 0; r < l->rows; r++) left[l->u + r] = (float)(h[i] * (double)a->u_used[l->u + r]);
            }
            apply_terms(env, &p, run, &terms);
        }
    }
    copy_gaps(env, &p, a->dw, a->dwn, a->accumulate != 0);
    return SAG_KERNEL_OK;
}

void CPU_REGISTER(spectral_norm)(sag_kernel_table *t)
{
    t->spectral_norm_fwd = cpu_spectral_norm_fwd;
    t->spectral_norm_bwd = cpu_spectral_norm_bwd;
}
