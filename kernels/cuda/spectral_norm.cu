/*
 * spectral_norm.cu - an estimate of the largest singular value of every layer's matrix in a slab, and what to divide it by.
 *
 * W {rows, cols} of each layer, n(x) = x / s, s = |x| + eps or max(|x|, eps), t = 1..k from u_0:
 *   a_t = W^T u_{t-1},  v_t = n(a_t),  b_t = W v_t,  u_t = n(b_t);   sigma = u_k . b_k.
 * k = 0 takes the u and v that are there. The divisor of a layer is its sigma, or 1 where |sigma| < SAG_TINY_SIGMA (all weights
 * zero): that layer keeps its u and v.
 *
 * All layers of a network go through each launch together: one that cuts them into tiles, two a power iteration (W^T u and W v,
 * whose last block of a layer makes v, u and sigma; four if that had launches of its own): 3 in all for k = 1. Memory bounds it:
 * W is read twice an iteration. The order between phases is that of launches, so that it can be captured. Norms and sigma are
 * summed in f64.
 */
#include "kernels/cuda/spectral_norm.cuh"

/* ----------------------------------------------------------------------------------------------- tiles */

#define START_THREADS 256
#define MOST_FILLS (SN_MOST_FILLS + 1) /* the counters too */
#define BITS_OF_1 0x3f800000u

struct sn_fills {
    sn_fill one[MOST_FILLS]; /* n = 0: none */
};

__device__ static inline bool inside(int64_t offset, int64_t count, int64_t n)
{
    return offset >= 0 && count >= 1 && offset <= n && count <= n - offset;
}

/* The last block sums up the tiles of the layers, 256 at a time; the others fill vectors. */
__global__ void __launch_bounds__(START_THREADS) sn_start_kernel(sn_slab s, sn_fills fills)
{
    CUDA_SHARED(int64_t, scan, [3][START_THREADS]);
    const int tid = (int)threadIdx.x;
    if (blockIdx.x + 1 < gridDim.x) {
        const int64_t step = (int64_t)(gridDim.x - 1) * START_THREADS;
#pragma unroll
        for (int k = 0; k < MOST_FILLS; k++) {
            const uint32_t *from = (const uint32_t *)fills.one[k].from;
            for (int64_t i = (int64_t)blockIdx.x * START_THREADS + tid; i < fills.one[k].n; i += step)
                ((uint32_t *)fills.one[k].to)[i] = from ? from[i] : fills.one[k].bits;
        }
        return;
    }
    int64_t base[3] = {0, 0, 0};
    int64_t *const start[3] = {s.column_start, s.row_start, s.partial_start};
    for (int k = 0; k < 3; k++)
        if (tid == k) start[k][0] = 0;
    for (int64_t i0 = 0; i0 < s.n_layers; i0 += START_THREADS) {
        int64_t own[3] = {0, 0, 0};
        if (i0 + tid < s.n_layers) {
            const sn_layer l = sn_layer_at(s, i0 + tid);
            if (l.rows >= 1 && l.cols >= 1 && l.rows <= s.n && inside(l.offset, l.rows * l.cols, s.n) && inside(l.u, l.rows, s.n_u) &&
                inside(l.v, l.cols, s.n_v)) {
                const int64_t down = (l.rows + SN_COLUMN_ROWS - 1) / SN_COLUMN_ROWS;
                own[0] = down * ((l.cols + SN_COLUMN_COLS - 1) / SN_COLUMN_COLS);
                own[1] = (l.rows + SN_ROW_ROWS - 1) / SN_ROW_ROWS;
                own[2] = down * l.cols;
            }
        }
        for (int pass = 0; pass < 2; pass++) { /* the second after taking out what would overrun the scratch */
            for (int k = 0; k < 3; k++) scan[k][tid] = own[k];
            __syncthreads();
            for (int step = 1; step < START_THREADS; step *= 2) {
                int64_t more[3];
                for (int k = 0; k < 3; k++) more[k] = tid >= step ? scan[k][tid - step] : 0;
                __syncthreads();
                for (int k = 0; k < 3; k++) scan[k][tid] += more[k];
                __syncthreads();
            }
            if (pass == 0 && (base[0] + scan[0][tid] > s.column_tiles || base[2] + scan[2][tid] > s.partial_size))
                own[0] = own[1] = own[2] = 0;
            if (pass == 1) {
                if (i0 + tid < s.n_layers)
                    for (int k = 0; k < 3; k++) start[k][i0 + tid + 1] = base[k] + scan[k][tid];
                for (int k = 0; k < 3; k++) base[k] += scan[k][START_THREADS - 1];
            }
            __syncthreads();
        }
    }
}

int sn_start(sag_kernel_env *env, const spectral_norm_args *a, sn_slab *s, const sn_fill *fills, int count)
{
    *s = {};
    s->layers = a->layers;
    s->n = a->n, s->n_layers = a->n_layers, s->n_u = a->n_u, s->n_v = a->n_v;
    s->partial_size = a->n / SN_COLUMN_ROWS + a->n_v + 1; /* at least sum ceil(rows / SN_COLUMN_ROWS) cols */
    /* at least sum ceil(rows / SN_COLUMN_ROWS) ceil(cols / SN_COLUMN_COLS): of three quotients that are rounded down */
    s->column_tiles = a->n / (SN_COLUMN_ROWS * SN_COLUMN_COLS) + a->n_u / SN_COLUMN_ROWS + a->n_v / SN_COLUMN_COLS + a->n_layers + 2;
    const int64_t counters = a->n_layers + s->column_tiles;
    s->column_start = (int64_t *)env->scratch(env, (size_t)(3 * (a->n_layers + 1)) * sizeof(int64_t));
    s->partial = (float *)env->scratch(env, (size_t)s->partial_size * sizeof(float));
    s->layer_count = (unsigned *)env->scratch(env, (size_t)counters * sizeof(unsigned));
    if (!s->column_start || !s->partial || !s->layer_count) return SAG_KERNEL_NO_MEMORY;
    s->row_start = s->column_start + a->n_layers + 1;
    s->partial_start = s->row_start + a->n_layers + 1;
    s->strip_count = s->layer_count + a->n_layers;
    sn_fills list = {};
    list.one[0] = {s->layer_count, NULL, counters, 0};
    int64_t most = counters;
    int used = 1;
    for (int i = 0; i < count; i++) {
        if (!fills[i].to || fills[i].to == fills[i].from) continue;
        list.one[used++] = fills[i];
        most = fills[i].n > most ? fills[i].n : most;
    }
    return CUDA_LAUNCH(env, sn_start_kernel, 1 + cuda_blocks(most, START_THREADS, 256), START_THREADS, 0, *s, list);
}

/* --------------------------------------------------------------------------------------------- forward */

/* The last step: u = n(b) (moves: else u stays), sigma = u . b; keep_u, keep_v (or NULL) take u and v unless sigma is tiny. */
struct sn_end_sigma {
    sn_end_unit step;
    bool moves;
    float *sigma, *sigma_used, *divisor; /* sigma_used may be NULL */
    const float *v;
    float *keep_u, *keep_v;
    __device__ void operator()(const sn_layer &l, int64_t i) const
    {
        if (moves) step(l, i);
        const float found = (float)sn_dot(step.y + l.u, step.x + l.u, l.rows);
        const bool tiny = fabsf(found) < SAG_TINY_SIGMA;
        if (threadIdx.x == 0) {
            sigma[i] = found;
            if (sigma_used) sigma_used[i] = found;
            divisor[i] = tiny ? 1.0f : found;
        }
        if (!keep_u || tiny) return;
        for (int64_t r = threadIdx.x; r < l.rows; r += SN_ROW_THREADS) keep_u[l.u + r] = step.y[l.u + r];
#pragma unroll 4
        for (int64_t c = threadIdx.x; c < l.cols; c += SN_ROW_THREADS) keep_v[l.v + c] = v[l.v + c];
    }
};

static int cuda_spectral_norm_fwd(sag_kernel_env *env, const spectral_norm_args *a)
{
    if (a->n < 1) return SAG_KERNEL_OK;
    float *u = a->u_used ? a->u_used : (float *)env->scratch(env, (size_t)a->n_u * sizeof *u);
    float *v = a->v_used ? a->v_used : (float *)env->scratch(env, (size_t)a->n_v * sizeof *v);
    float *b = (float *)env->scratch(env, (size_t)a->n_u * sizeof *b);
    if (!u || !v || !b) return SAG_KERNEL_NO_MEMORY;
    /* no block ends a layer without tiles: its sigma is 0, its divisor 1 */
    const sn_fill fills[SN_MOST_FILLS] = {{u, a->u, a->n_u, 0},
                                          {v, a->v, a->n_v, 0},
                                          {a->u_start, a->u, a->n_u, 0},
                                          {a->sigma, NULL, a->n_layers, 0},
                                          {a->sigma_used, NULL, a->n_layers, 0},
                                          {a->divisor, NULL, a->n_layers, BITS_OF_1}};
    sn_slab s;
    CUDA_TRY(sn_start(env, a, &s, fills, SN_MOST_FILLS));
    const sn_unit unit = {(double)a->eps, a->eps_max};
    const sn_end_unit end_v = {unit, true, v, v, NULL}, end_u = {unit, false, u, b, NULL};
    const sn_end_sigma last = {end_u, a->iterations > 0,         a->sigma,                 a->sigma_used, a->divisor,
                               v,     a->update ? a->u : NULL, a->update ? a->v : NULL};
    for (int step = 1; step <= a->iterations; step++) {
        CUDA_TRY(sn_product_t(env, &s, a->w, u, v, end_v));
        if (step < a->iterations) CUDA_TRY(sn_product(env, &s, a->w, b, v, end_u));
    }
    return sn_product(env, &s, a->w, b, v, last);
}

CUDA_REGISTER(spectral_norm)
{
    t->spectral_norm_fwd = cuda_spectral_norm_fwd;
    t->spectral_norm_bwd = cuda_spectral_norm_bwd;
    t->sigma_bwd = cuda_sigma_bwd;
}
