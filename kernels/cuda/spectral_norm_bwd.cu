/*
 * spectral_norm_bwd.cu - the gradient of spectral normalisation, in its two forms.
 *
 * G = dL/dwn, h = dL/dsigma = -<G, wn> / sigma (0 where forward copied the layer):
 *   u, v constants (Miyato et al. 2018, eq. 12): dW = G / sigma + h u v^T.
 *   through: the steps are differentiated too (Google's SAGAN code has no stop-gradient there). With y = n(x), r = |x| the
 *   Jacobian is J g = g / s - y (y . g) / r (g / s where s does not depend on x, below eps of the maximum; 0 at x = 0), and
 *       dW = G / sigma + h u_k v_k^T,   du_k = h b_k,   dv_k = h W^T u_k,   and for t = k..1:
 *       db_t = J(b_t) du_t,   dW += db_t v_t^T,       dv_t += W^T db_t      (b_t = W v_t)
 *       da_t = J(a_t) dv_t,   dW += u_{t-1} da_t^T,   du_{t-1} = W da_t     (a_t = W^T u_{t-1})
 *   The two terms of dv_k share one product W^T (h u_k + db_k). u_0 is a buffer: its gradient goes nowhere.
 *
 * Launches: tiles, <G, wn> by rows, h, dW, copies of what no layer covers; through: also four a step again and four a step
 * back. Memory bounds it: G read twice, wn once, dW written; through: W twice a step, both ways.
 */
#include "kernels/cuda/spectral_norm.cuh"

/* h {L}; left (a slab like u, or NULL) = h u. */
__global__ void __launch_bounds__(SN_LAYER_THREADS)
    sn_sigma_gradient_kernel(sn_slab s, double *h, float *left, const float *dots, const float *sigma, const float *u)
{
    for (int64_t i = blockIdx.x; i < s.n_layers; i += gridDim.x) {
        if (!sn_has_tiles(s, i)) continue;
        const sn_layer l = sn_layer_at(s, i);
        double sum = 0.0;
        for (int64_t r = threadIdx.x; r < l.rows; r += SN_LAYER_THREADS) sum += (double)dots[l.u + r];
        sum = cuda_block_sum(sum);
        const double own = fabsf(sigma[i]) < SN_TINY_SIGMA ? 0.0 : -sum / (double)sigma[i];
        if (threadIdx.x == 0) h[i] = own;
        for (int64_t r = threadIdx.x; left && r < l.rows; r += SN_LAYER_THREADS) left[l.u + r] = (float)(own * (double)u[l.u + r]);
    }
}

/* Slabs for t = 1..steps, that of t at index t - 1 (u: u_{t-1}): dw += du_t v_t^T and, if there is a da, u_{t-1} da_t^T. */
struct sn_terms {
    const float *du, *v, *u, *da;
    int steps;
};

/* dw (+)= G / sigma + terms; a warp for each row. */
__global__ void __launch_bounds__(32 * SN_ROW_ROWS)
    sn_apply_kernel(sn_slab s, float *dw, const float *dwn, const float *sigma, sn_terms terms, int accumulate)
{
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    const int64_t tiles = s.row_start[s.n_layers];
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int64_t i = sn_find(s.row_start, s.n_layers, tile), r = (tile - s.row_start[i]) * SN_ROW_ROWS + warp;
        const sn_layer l = sn_layer_at(s, i);
        if (r >= l.rows) continue;
        const int64_t at = l.offset + r * l.cols;
        const float factor = sn_factor(sigma[i]);
        for (int64_t c = lane * 4; c < l.cols; c += 128) {
            float x[4], y[4];
            sn_load4(x, dwn + at + c, l.cols - c);
            for (int j = 0; j < 4; j++) x[j] *= factor;
            for (int t = terms.steps - 1; t >= 0; t--) {
                const float du = terms.du[t * s.n_u + l.u + r];
                sn_load4(y, terms.v + t * s.n_v + l.v + c, l.cols - c);
                for (int j = 0; j < 4; j++) x[j] = fmaf(du, y[j], x[j]);
                if (!terms.da) continue;
                const float u = terms.u[t * s.n_u + l.u + r];
                sn_load4(y, terms.da + t * s.n_v + l.v + c, l.cols - c);
                for (int j = 0; j < 4; j++) x[j] = fmaf(u, y[j], x[j]);
            }
            if (accumulate) {
                sn_load4(y, dw + at + c, l.cols - c);
                for (int j = 0; j < 4; j++) x[j] += y[j];
            }
            sn_store4(dw + at + c, x, l.cols - c);
        }
    }
}

/* ------------------------------------------------------------------------------------------ through the steps */

/* g <- J g at y = x / s, |x| = r; by a block. */
__device__ static inline void normalise_bwd(float *g, const float *y, int64_t n, double r, double eps, int eps_max)
{
    double along = 0.0;
    for (int64_t i = threadIdx.x; i < n; i += SN_LAYER_THREADS) along += (double)y[i] * (double)g[i];
    along = cuda_block_sum(along);
    along = r == 0.0 || (eps_max && r <= eps) ? 0.0 : along / r;
    const double inverse = r == 0.0 ? 0.0 : 1.0 / sn_divisor(eps, eps_max, r);
    for (int64_t i = threadIdx.x; i < n; i += SN_LAYER_THREADS)
        g[i] = r == 0.0 ? 0.0f : (float)((double)g[i] * inverse - (double)y[i] * along);
}

/* du_t becomes db_t; in the last step (b not NULL) du = h b before, and h u is added after. */
__global__ void __launch_bounds__(SN_LAYER_THREADS)
    sn_step_u_kernel(sn_slab s, float *du, const float *u, const float *b, const double *h, const double *norm, double eps, int eps_max)
{
    for (int64_t i = blockIdx.x; i < s.n_layers; i += gridDim.x) {
        if (!sn_has_tiles(s, i)) continue;
        const sn_layer l = sn_layer_at(s, i);
        float *g = du + l.u;
        for (int64_t r = threadIdx.x; b && r < l.rows; r += SN_LAYER_THREADS) g[r] = (float)(h[i] * (double)b[l.u + r]);
        normalise_bwd(g, u + l.u, l.rows, norm[i], eps, eps_max);
        for (int64_t r = threadIdx.x; b && r < l.rows; r += SN_LAYER_THREADS) g[r] += (float)(h[i] * (double)u[l.u + r]);
    }
}

/* da_t = J(a_t) dv_t with dv_t from the shares of W^T db_t. */
__global__ void __launch_bounds__(SN_LAYER_THREADS)
    sn_step_v_kernel(sn_slab s, float *da, const float *v, const double *norm, double eps, int eps_max)
{
    for (int64_t i = blockIdx.x; i < s.n_layers; i += gridDim.x) {
        if (!sn_has_tiles(s, i)) continue;
        const sn_layer l = sn_layer_at(s, i);
        const float *partial = s.partial + s.partial_start[i];
        const int64_t shares = (l.rows + SN_COLUMN_ROWS - 1) / SN_COLUMN_ROWS;
        for (int64_t c = threadIdx.x; c < l.cols; c += SN_LAYER_THREADS) {
            float sum = 0.0f;
            for (int64_t k = 0; k < shares; k++) sum += partial[k * l.cols + c];
            da[l.v + c] = sum;
        }
        normalise_bwd(da + l.v, v + l.v, l.cols, norm[i], eps, eps_max);
    }
}

/* Recomputes the steps, then walks them backwards. u: u_0..u_k, of which the first is there. */
static int walk_back(sag_kernel_env *env, const spectral_norm_args *a, const sn_slab *s, const double *h, float *u, sn_terms *terms)
{
    const int64_t steps = a->iterations, n_u = a->n_u, n_v = a->n_v, count = a->n_layers;
    float *v = (float *)env->scratch(env, (size_t)(steps * n_v) * sizeof *v);
    float *du = (float *)env->scratch(env, (size_t)(steps * n_u) * sizeof *du);
    float *da = (float *)env->scratch(env, (size_t)(steps * n_v) * sizeof *da);
    float *b = (float *)env->scratch(env, (size_t)n_u * sizeof *b);
    double *norm_a = (double *)env->scratch(env, (size_t)(steps * count) * sizeof *norm_a);
    double *norm_b = (double *)env->scratch(env, (size_t)(steps * count) * sizeof *norm_b);
    if (!v || !du || !da || !b || !norm_a || !norm_b) return SAG_KERNEL_NO_MEMORY;
    for (int64_t t = 0; t < steps; t++) {
        CUDA_TRY(sn_product_t(env, s, a->w, u + t * n_u));
        CUDA_TRY(sn_normalise_v(env, s, a, v + t * n_v, norm_a + t * count));
        CUDA_TRY(sn_product(env, s, a->w, b, v + t * n_v));
        CUDA_TRY(sn_normalise_u(env, s, a, u + (t + 1) * n_u, b, v, norm_b + t * count, true, false));
    }
    const unsigned blocks = cuda_blocks(count, 1);
    const double eps = (double)a->eps;
    for (int64_t t = steps - 1; t >= 0; t--) {
        CUDA_TRY(CUDA_LAUNCH(env, sn_step_u_kernel, blocks, SN_LAYER_THREADS, 0, *s, du + t * n_u, (const float *)(u + (t + 1) * n_u),
                             t == steps - 1 ? (const float *)b : (const float *)NULL, h, (const double *)(norm_b + t * count), eps,
                             a->eps_max));
        CUDA_TRY(sn_product_t(env, s, a->w, du + t * n_u));
        CUDA_TRY(CUDA_LAUNCH(env, sn_step_v_kernel, blocks, SN_LAYER_THREADS, 0, *s, da + t * n_v, (const float *)(v + t * n_v),
                             (const double *)(norm_a + t * count), eps, a->eps_max));
        if (t > 0) CUDA_TRY(sn_product(env, s, a->w, du + (t - 1) * n_u, da + t * n_v));
    }
    terms->du = du, terms->v = v, terms->u = u, terms->da = da, terms->steps = (int)steps;
    return SAG_KERNEL_OK;
}

int cuda_spectral_norm_bwd(sag_kernel_env *env, const spectral_norm_args *a)
{
    if (a->n < 1) return SAG_KERNEL_OK;
    const bool through = a->through && a->iterations > 0;
    double *h = (double *)env->scratch(env, (size_t)a->n_layers * sizeof *h);
    float *dots = (float *)env->scratch(env, (size_t)a->n_u * sizeof *dots);
    /* u_0..u_k, or h u */
    float *u = (float *)env->scratch(env, (size_t)(through ? (a->iterations + 1) * a->n_u : a->n_u) * sizeof *u);
    if (!h || !dots || !u) return SAG_KERNEL_NO_MEMORY;
    const sn_copy copy = {a->u_start, through ? u : NULL, a->n_u};
    sn_slab s;
    CUDA_TRY(sn_start(env, a, &s, &copy, 1));
    CUDA_TRY(sn_row_dots(env, &s, dots, a->dwn, a->wn_saved));
    CUDA_TRY(CUDA_LAUNCH(env, sn_sigma_gradient_kernel, cuda_blocks(a->n_layers, 1), SN_LAYER_THREADS, 0, s, h,
                         through ? (float *)NULL : u, (const float *)dots, (const float *)a->sigma_used, (const float *)a->u_used));
    sn_terms terms = {u, a->v_used, NULL, NULL, 1};
    if (through) CUDA_TRY(walk_back(env, a, &s, h, u, &terms));
    CUDA_TRY(CUDA_LAUNCH(env, sn_apply_kernel, sn_row_blocks(&s), 32 * SN_ROW_ROWS, 0, s, a->dw, a->dwn, (const float *)a->sigma_used,
                         terms, a->accumulate));
    return sn_copy_gaps(env, &s, a->dw, a->dwn, a->accumulate);
}
