/*
 * spectral_norm_bwd.cu - the gradient of sigma in its two forms, and of dividing by sigma.
 *
 * h = dL/dsigma of a layer (0 where the divisor was not sigma):
 *   u, v constants (Miyato et al. 2018, eq. 12): dW += h u v^T.
 *   through: the steps are differentiated too (Google's SAGAN code has no stop-gradient there). With y = n(x), r = |x| the
 *   Jacobian is J g = g / s - y (y . g) / r (g / s where s does not depend on x, below eps of the maximum; 0 at x = 0), and
 *       dW += h u_k v_k^T,   du_k = h b_k,   dv_k = h W^T u_k,   and for t = k..1:
 *       db_t = J(b_t) du_t,   dW += db_t v_t^T,       dv_t += W^T db_t      (b_t = W v_t)
 *       da_t = J(a_t) dv_t,   dW += u_{t-1} da_t^T,   du_{t-1} = W da_t     (a_t = W^T u_{t-1})
 *   The two terms of dv_k share one product W^T (h u_k + db_k). u_0 is a buffer: its gradient goes nowhere.
 *   sigma_bwd: of W / sigma, G = dL/d(W / sigma): dW (+)= G / sigma, h (+)= -<G, W> / sigma^2.
 *
 * Launches: tiles, dW: 2. through: also two a step again and two a step back, but for u_0: 1 + 4 k (1 + 8 k if what a layer's last
 * block does had launches of its own). sigma_bwd: 1. Memory bounds it: dW read and written; through: W twice a step, both ways;
 * sigma_bwd: G and W read, dW written.
 */
#include "kernels/cuda/spectral_norm.cuh"

/* h {L} of layer i. */
struct sn_slope {
    const float *ddivisor, *sigma;
    __device__ float operator()(int64_t i) const
    {
        return fabsf(sigma[i]) < SAG_TINY_SIGMA ? 0.0f : ddivisor[i];
    }
};

/* Slabs for t = 1..steps, that of t at index t - 1 (u: u_{t-1}): dw += du_t v_t^T and, if there is a da, u_{t-1} da_t^T. scaled:
 * h du_t stands in place of du_t. */
struct sn_terms {
    const float *du, *v, *u, *da;
    int steps;
    bool scaled;
};

/* dw += terms; a warp for each row. */
__global__ void __launch_bounds__(SN_ROW_THREADS) sn_apply_kernel(sn_slab s, float *dw, sn_slope h, sn_terms terms)
{
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    const int64_t tiles = s.row_start[s.n_layers];
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int64_t i = sn_find(s.row_start, s.n_layers, tile), r = (tile - s.row_start[i]) * SN_ROW_ROWS + warp;
        const sn_layer l = sn_layer_at(s, i);
        if (r >= l.rows) continue;
        const float factor = terms.scaled ? h(i) : 1.0f;
        float *to = dw + l.offset + r * l.cols;
        for (int64_t c = lane * 4; c < l.cols; c += 128) {
            float x[4], y[4];
            sn_load4(x, to + c, l.cols - c);
            for (int t = terms.steps - 1; t >= 0; t--) {
                const float du = factor * terms.du[t * s.n_u + l.u + r];
                sn_load4(y, terms.v + t * s.n_v + l.v + c, l.cols - c);
                for (int j = 0; j < 4; j++) x[j] = fmaf(du, y[j], x[j]);
                if (!terms.da) continue;
                const float u = terms.u[t * s.n_u + l.u + r];
                sn_load4(y, terms.da + t * s.n_v + l.v + c, l.cols - c);
                for (int j = 0; j < 4; j++) x[j] = fmaf(u, y[j], x[j]);
            }
            sn_store4(to + c, x, l.cols - c);
        }
    }
}

/* ------------------------------------------------------------------------------------------ through the steps */

/* The last step again, which also begins the way back: u_k = n(b_k), du = db_k + h u_k from du_k = h b_k. */
struct sn_end_turn {
    sn_unit unit;
    float *u, *du;
    const float *b;
    sn_slope h;
    __device__ void operator()(const sn_layer &l, int64_t i) const
    {
        float *g = du + l.u;
        const float own = h(i);
        const double r = unit.normalise(u + l.u, b + l.u, l.rows);
        for (int64_t k = threadIdx.x; k < l.rows; k += SN_ROW_THREADS) g[k] = own * b[l.u + k];
        unit.normalise_bwd(g, u + l.u, l.rows, r);
        __syncthreads();
        for (int64_t k = threadIdx.x; k < l.rows; k += SN_ROW_THREADS) g[k] += own * u[l.u + k];
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
static int walk_back(sag_kernel_env *env, const spectral_norm_args *a, const sn_slab *s, sn_slope h, float *u, sn_terms *terms)
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
    *terms = {du, v, u, da, (int)steps, false};
    return SAG_KERNEL_OK;
}

int cuda_spectral_norm_bwd(sag_kernel_env *env, const spectral_norm_args *a)
{
    if (a->n < 1) return SAG_KERNEL_OK;
    const bool through = a->through && a->iterations > 0;
    const sn_slope h = {a->ddivisor, a->sigma_used};
    sn_terms terms = {a->u_used, a->v_used, NULL, NULL, 1, true};
    sn_fill fill = {};
    if (through) {
        float *u = (float *)env->scratch(env, (size_t)((a->iterations + 1) * a->n_u) * sizeof *u); /* u_0..u_k */
        if (!u) return SAG_KERNEL_NO_MEMORY;
        fill = {u, a->u_start, a->n_u, 0};
    }
    sn_slab s;
    CUDA_TRY(sn_start(env, a, &s, &fill, 1));
    if (through) CUDA_TRY(walk_back(env, a, &s, h, (float *)fill.to, &terms));
    return CUDA_LAUNCH(env, sn_apply_kernel, sn_row_blocks(&s), SN_ROW_THREADS, 0, s, a->dw, h, terms);
}

/* --------------------------------------------------------------------------------------------- the quotient */

#define SIGMA_THREADS 256
#define SIGMA_GROUPS 4
#define SIGMA_PIECE (SIGMA_THREADS * SIGMA_GROUPS * 4) /* elements; the sums of pieces are added in order, whatever the grid */

/* part {pieces}, or NULL: nobody asks for dsigma. The block that finishes as the last adds them up. */
__global__ void __launch_bounds__(SIGMA_THREADS) sigma_bwd_kernel(sigma_bwd_args a, double *part, int64_t pieces, unsigned *count)
{
    const float sigma = *a.sigma, factor = 1.0f / sigma;
    const bool adds = a.dw && a.accumulate_dw;
    for (int64_t piece = blockIdx.x; piece < pieces; piece += gridDim.x) {
        const int64_t first = piece * SIGMA_PIECE + (int64_t)threadIdx.x * 4;
        float g[SIGMA_GROUPS][4], w[SIGMA_GROUPS][4], dw[SIGMA_GROUPS][4];
#pragma unroll
        for (int q = 0; q < SIGMA_GROUPS; q++) {
            const int64_t at = first + q * SIGMA_THREADS * 4;
            sn_load4(g[q], a.g + at, a.n - at);
            if (part) sn_load4(w[q], a.w + at, a.n - at);
            if (adds) sn_load4(dw[q], a.dw + at, a.n - at);
        }
        double sum = 0.0;
#pragma unroll
        for (int q = 0; q < SIGMA_GROUPS; q++) {
            const int64_t at = first + q * SIGMA_THREADS * 4;
            float own = 0.0f;
            if (part) {
                for (int j = 0; j < 4; j++) own = fmaf(g[q][j], w[q][j], own);
            }
            sum += (double)own;
            if (!a.dw) continue;
            for (int j = 0; j < 4; j++) g[q][j] = adds ? fmaf(g[q][j], factor, dw[q][j]) : g[q][j] * factor;
            sn_store4(a.dw + at, g[q], a.n - at);
        }
        if (!part) continue;
        sum = cuda_block_sum(sum);
        if (threadIdx.x == 0) part[piece] = sum;
    }
    if (!part || !cuda_last_block(count, gridDim.x)) return;
    double sum = 0.0;
    for (int64_t p = threadIdx.x; p < pieces; p += SIGMA_THREADS) sum += part[p];
    sum = cuda_block_sum(sum);
    if (threadIdx.x == 0) cuda_put(a.dsigma, (float)(-sum / ((double)sigma * (double)sigma)), a.accumulate_dsigma);
}

int cuda_sigma_bwd(sag_kernel_env *env, const sigma_bwd_args *a)
{
    if (a->n < 1) return SAG_KERNEL_OK;
    const int64_t pieces = cuda_ceil_div(a->n, SIGMA_PIECE);
    double *part = NULL;
    unsigned *count = NULL;
    if (a->dsigma) {
        count = cuda_counters(env);
        if (!count) return SAG_KERNEL_UNSUPPORTED;
        part = (double *)env->scratch(env, (size_t)pieces * sizeof *part);
        if (!part) return SAG_KERNEL_NO_MEMORY;
    }
    return CUDA_LAUNCH(env, sigma_bwd_kernel, cuda_blocks(pieces, 1), SIGMA_THREADS, 0, *a, part, pieces, count);
}
