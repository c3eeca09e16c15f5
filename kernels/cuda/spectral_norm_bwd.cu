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
 * Launches: tiles, <G, wn> by rows (whose last block of a layer makes h), dW, copies of what no layer covers: 4. through: also two
 * a step again and two a step back, but for u_0: 3 + 4 k (4 + 8 k if what a layer's last block does had launches of its own).
 * Memory bounds it: G read twice, wn once, dW written; through: W twice a step, both ways.
 */
#include "kernels/cuda/spectral_norm.cuh"

/* h {L} from the rows' dots; left (a slab like u, or NULL) = h u. */
struct sn_end_h {
    double *h;
    float *left;
    const float *dots, *sigma, *u;
    __device__ void operator()(const sn_layer &l, int64_t i) const
    {
        const double sum = sn_dot(dots + l.u, NULL, l.rows);
        const double own = fabsf(sigma[i]) < SN_TINY_SIGMA ? 0.0 : -sum / (double)sigma[i];
        if (threadIdx.x == 0) h[i] = own;
        for (int64_t r = threadIdx.x; left && r < l.rows; r += SN_ROW_THREADS) left[l.u + r] = (float)(own * (double)u[l.u + r]);
    }
};

/* Slabs for t = 1..steps, that of t at index t - 1 (u: u_{t-1}): dw += du_t v_t^T and, if there is a da, u_{t-1} da_t^T. */
struct sn_terms {
    const float *du, *v, *u, *da;
    int steps;
};

/* dw (+)= G / sigma + terms; a warp for each row. */
__global__ void __launch_bounds__(SN_ROW_THREADS)
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

/* The last step again, which also begins the way back: u_k = n(b_k), du = db_k + h u_k from du_k = h b_k. */
struct sn_end_turn {
    sn_unit unit;
    float *u, *du;
    const float *b;
    const double *h;
    __device__ void operator()(const sn_layer &l, int64_t i) const
    {
        float *g = du + l.u;
        const double r = unit.normalise(u + l.u, b + l.u, l.rows);
        for (int64_t k = threadIdx.x; k < l.rows; k += SN_ROW_THREADS) g[k] = (float)(h[i] * (double)b[l.u + k]);
        unit.normalise_bwd(g, u + l.u, l.rows, r);
        __syncthreads();
        for (int64_t k = threadIdx.x; k < l.rows; k += SN_ROW_THREADS) g[k] += (float)(h[i] * (double)u[l.u + k]);
    }
};
/* g becomes J g, where y = n(x) and norm = |x|: du_t becomes db_t, dv_t = W^T db_t becomes da_t. */
struct sn_end_jacobian {
    sn_unit unit;
    bool columns;
    float *g;
    const float *y;
    const double *norm;
    __device__ void operator()(const sn_layer &l, int64_t i) const
    {
        const int64_t at = sn_at(l, columns);
        unit.normalise_bwd(g + at, y + at, sn_length(l, columns), norm[i]);
    }
};

/* Recomputes the steps, then walks them backwards. u: u_0..u_k, of which the first is there. */
static int walk_back(sag_kernel_env *env, const spectral_norm_args *a, const sn_slab *s, const double *h, float *u, sn_terms *terms)
{
    const int64_t steps = a->iterations, last = steps - 1, n_u = a->n_u, n_v = a->n_v, count = a->n_layers;
    float *v = (float *)env->scratch(env, (size_t)(steps * n_v) * sizeof *v);
    float *du = (float *)env->scratch(env, (size_t)(steps * n_u) * sizeof *du);
    float *da = (float *)env->scratch(env, (size_t)(steps * n_v) * sizeof *da);
    float *b = (float *)env->scratch(env, (size_t)n_u * sizeof *b);
    double *norm_a = (double *)env->scratch(env, (size_t)(steps * count) * sizeof *norm_a);
    double *norm_b = (double *)env->scratch(env, (size_t)(steps * count) * sizeof *norm_b); /* of the last step: not needed */
    if (!v || !du || !da || !b || !norm_a || !norm_b) return SAG_KERNEL_NO_MEMORY;
    const sn_unit unit = {(double)a->eps, a->eps_max};
    for (int64_t t = 0; t < steps; t++) {
        float *own_v = v + t * n_v, *next_u = u + (t + 1) * n_u;
        CUDA_TRY(sn_product_t(env, s, a->w, u + t * n_u, own_v, sn_end_unit{unit, true, own_v, own_v, norm_a + t * count}));
        if (t < last) CUDA_TRY(sn_product(env, s, a->w, b, own_v, sn_end_unit{unit, false, next_u, b, norm_b + t * count}));
    }
    CUDA_TRY(sn_product(env, s, a->w, b, v + last * n_v, sn_end_turn{unit, u + steps * n_u, du + last * n_u, b, h}));
    for (int64_t t = last; t >= 0; t--) {
        float *own_da = da + t * n_v, *before = du + (t - 1) * n_u;
        const sn_end_jacobian of_a = {unit, true, own_da, v + t * n_v, norm_a + t * count};
        const sn_end_jacobian of_b = {unit, false, before, u + t * n_u, norm_b + (t - 1) * count};
        CUDA_TRY(sn_product_t(env, s, a->w, du + t * n_u, own_da, of_a));
        if (t > 0) CUDA_TRY(sn_product(env, s, a->w, before, own_da, of_b));
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
    const sn_fill fill = {through ? u : NULL, a->u_start, a->n_u};
    sn_slab s;
    CUDA_TRY(sn_start(env, a, &s, &fill, 1));
    CUDA_TRY(sn_row_dots(env, &s, dots, a->dwn, a->wn_saved, sn_end_h{h, through ? NULL : u, dots, a->sigma_used, a->u_used}));
    sn_terms terms = {u, a->v_used, NULL, NULL, 1};
    if (through) CUDA_TRY(walk_back(env, a, &s, h, u, &terms));
    CUDA_TRY(CUDA_LAUNCH(env, sn_apply_kernel, sn_row_blocks(&s), SN_ROW_THREADS, 0, s, a->dw, a->dwn, (const float *)a->sigma_used,
                         terms, a->accumulate));
    return sn_copy_gaps(env, &s, a->dw, a->dwn, a->accumulate);
}
