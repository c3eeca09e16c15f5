/*
 * spectral_norm.cu - divides every layer's matrix in a slab by an estimate of its largest singular value.
 *
 * W {rows, cols} of each layer, n(x) = x / s, s = |x| + eps or max(|x|, eps), t = 1..k from u_0:
 *   a_t = W^T u_{t-1},  v_t = n(a_t),  b_t = W v_t,  u_t = n(b_t);   sigma = u_k . b_k;   wn = W / sigma.
 * k = 0 takes the u and v that are there. A layer with |sigma| < SN_TINY_SIGMA (all weights zero) is copied and keeps its u
 * and v.
 *
 * All layers of a network go through each launch together: one that cuts them into tiles, four a power iteration (W^T u in
 * shares, v, W v, u), one for wn. Memory bounds it: W is read twice an iteration and once more for wn, which is written. The
 * order between phases is that of launches, so that it can be captured. Norms and sigma are summed in f64.
 */
#include "kernels/cuda/spectral_norm.cuh"

/* ----------------------------------------------------------------------------------------------- tiles */

#define START_THREADS 256
#define MOST_COPIES 3

struct sn_copies {
    sn_copy one[MOST_COPIES]; /* n = 0: none */
};

__device__ static inline bool inside(int64_t offset, int64_t count, int64_t n)
{
    return offset >= 0 && count >= 1 && offset <= n && count <= n - offset;
}

/* The last block sums up the tiles of the layers, 256 at a time; the others copy vectors. */
__global__ void __launch_bounds__(START_THREADS) sn_start_kernel(sn_slab s, sn_copies copies)
{
    CUDA_SHARED(int64_t, scan, [3][START_THREADS]);
    const int tid = (int)threadIdx.x;
    if (blockIdx.x + 1 < gridDim.x) {
        const int64_t step = (int64_t)(gridDim.x - 1) * START_THREADS;
#pragma unroll
        for (int k = 0; k < MOST_COPIES; k++)
            for (int64_t i = (int64_t)blockIdx.x * START_THREADS + tid; i < copies.one[k].n; i += step)
                copies.one[k].to[i] = copies.one[k].from[i];
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
        for (int pass = 0; pass < 2; pass++) { /* the second after taking out what would overrun `partial` */
            for (int k = 0; k < 3; k++) scan[k][tid] = own[k];
            __syncthreads();
            for (int step = 1; step < START_THREADS; step *= 2) {
                int64_t more[3];
                for (int k = 0; k < 3; k++) more[k] = tid >= step ? scan[k][tid - step] : 0;
                __syncthreads();
                for (int k = 0; k < 3; k++) scan[k][tid] += more[k];
                __syncthreads();
            }
            if (pass == 0 && base[2] + scan[2][tid] > s.partial_size) own[0] = own[1] = own[2] = 0;
            if (pass == 1) {
                if (i0 + tid < s.n_layers)
                    for (int k = 0; k < 3; k++) start[k][i0 + tid + 1] = base[k] + scan[k][tid];
                for (int k = 0; k < 3; k++) base[k] += scan[k][START_THREADS - 1];
            }
            __syncthreads();
        }
    }
}

int sn_start(sag_kernel_env *env, const spectral_norm_args *a, sn_slab *s, const sn_copy *copies, int n_copies)
{
    *s = {};
    s->layers = a->layers;
    s->n = a->n, s->n_layers = a->n_layers, s->n_u = a->n_u, s->n_v = a->n_v;
    s->partial_size = a->n / SN_COLUMN_ROWS + a->n_v + 1; /* at least sum ceil(rows / SN_COLUMN_ROWS) cols */
    s->column_start = (int64_t *)env->scratch(env, (size_t)(3 * (a->n_layers + 1)) * sizeof(int64_t));
    s->partial = (float *)env->scratch(env, (size_t)s->partial_size * sizeof(float));
    if (!s->column_start || !s->partial) return SAG_KERNEL_NO_MEMORY;
    s->row_start = s->column_start + a->n_layers + 1;
    s->partial_start = s->row_start + a->n_layers + 1;
    sn_copies list = {};
    int64_t most = 0;
    int count = 0;
    for (int i = 0; i < n_copies; i++) {
        if (!copies[i].to || copies[i].to == copies[i].from) continue;
        list.one[count++] = copies[i];
        most = copies[i].n > most ? copies[i].n : most;
    }
    return CUDA_LAUNCH(env, sn_start_kernel, 1 + cuda_blocks(most, START_THREADS, 256), START_THREADS, 0, *s, list);
}

/* -------------------------------------------------------------------------------------------- products */

/* A warp has every fourth row of the tile, a lane 4 columns; the four shares are added in order. */
__global__ void __launch_bounds__(128) sn_product_t_kernel(sn_slab s, const float *w, const float *u)
{
    CUDA_SHARED(float, share, [4][SN_COLUMN_COLS]);
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    const int64_t tiles = s.column_start[s.n_layers];
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int64_t i = sn_find(s.column_start, s.n_layers, tile), own = tile - s.column_start[i];
        const sn_layer l = sn_layer_at(s, i);
        const int64_t across = (l.cols + SN_COLUMN_COLS - 1) / SN_COLUMN_COLS, row0 = own / across * SN_COLUMN_ROWS;
        const int64_t col0 = own % across * SN_COLUMN_COLS, left = l.cols - col0 - lane * 4;
        const int rows = l.rows - row0 < SN_COLUMN_ROWS ? (int)(l.rows - row0) : SN_COLUMN_ROWS;
        const float *from = w + l.offset + row0 * l.cols + col0 + lane * 4;
        float sum[4] = {};
        if (left > 0) {
#pragma unroll 4
            for (int r = warp; r < rows; r += 4) {
                float x[4];
                const float factor = u[l.u + row0 + r];
                sn_load4(x, from + r * l.cols, left);
                for (int j = 0; j < 4; j++) sum[j] = fmaf(x[j], factor, sum[j]);
            }
        }
        __syncthreads();
        for (int j = 0; j < 4; j++) share[warp][lane * 4 + j] = sum[j];
        __syncthreads();
        const int c = (int)threadIdx.x;
        if (col0 + c < l.cols)
            s.partial[s.partial_start[i] + row0 / SN_COLUMN_ROWS * l.cols + col0 + c] =
                (share[0][c] + share[1][c]) + (share[2][c] + share[3][c]);
    }
}

int sn_product_t(sag_kernel_env *env, const sn_slab *s, const float *w, const float *u)
{
    const int64_t tiles = s->n / (SN_COLUMN_ROWS * SN_COLUMN_COLS) + s->n_u / SN_COLUMN_ROWS + s->n_v / SN_COLUMN_COLS + s->n_layers;
    return CUDA_LAUNCH(env, sn_product_t_kernel, cuda_blocks(tiles, 1), 128, 0, *s, w, u);
}

/* to (a slab like u): <x, y> of each row of each layer; y: rows too, or one vector for all rows of a layer, in a slab like v. */
__global__ void __launch_bounds__(32 * SN_ROW_ROWS) sn_dots_kernel(sn_slab s, float *to, const float *x, const float *y, bool y_has_rows)
{
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    const int64_t tiles = s.row_start[s.n_layers];
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int64_t i = sn_find(s.row_start, s.n_layers, tile), r = (tile - s.row_start[i]) * SN_ROW_ROWS + warp;
        const sn_layer l = sn_layer_at(s, i);
        if (r >= l.rows) continue;
        const int64_t at = l.offset + r * l.cols, other = y_has_rows ? at : l.v;
        float sum = 0.0f;
#pragma unroll 4
        for (int64_t c = lane * 4; c < l.cols; c += 128) {
            float p[4], q[4];
            sn_load4(p, x + at + c, l.cols - c);
            sn_load4(q, y + other + c, l.cols - c);
            for (int j = 0; j < 4; j++) sum = fmaf(p[j], q[j], sum);
        }
        sum = cuda_warp_sum(sum);
        if (lane == 0) to[l.u + r] = sum;
    }
}

int sn_product(sag_kernel_env *env, const sn_slab *s, const float *w, float *to, const float *v)
{
    return CUDA_LAUNCH(env, sn_dots_kernel, sn_row_blocks(s), 32 * SN_ROW_ROWS, 0, *s, to, w, v, false);
}

int sn_row_dots(sag_kernel_env *env, const sn_slab *s, float *dots, const float *x, const float *y)
{
    return CUDA_LAUNCH(env, sn_dots_kernel, sn_row_blocks(s), 32 * SN_ROW_ROWS, 0, *s, dots, x, y, true);
}

/* ------------------------------------------------------------------------------- vectors, a block for each layer */

__global__ void __launch_bounds__(SN_LAYER_THREADS) sn_normalise_v_kernel(sn_slab s, float *v, double *norm, double eps, int eps_max)
{
    for (int64_t i = blockIdx.x; i < s.n_layers; i += gridDim.x) {
        if (!sn_has_tiles(s, i)) continue;
        const sn_layer l = sn_layer_at(s, i);
        const float *partial = s.partial + s.partial_start[i];
        const int64_t shares = (l.rows + SN_COLUMN_ROWS - 1) / SN_COLUMN_ROWS;
        float *to = v + l.v;
        double squares = 0.0;
        for (int64_t c = threadIdx.x; c < l.cols; c += SN_LAYER_THREADS) {
            float sum = 0.0f;
#pragma unroll 4
            for (int64_t k = 0; k < shares; k++) sum += partial[k * l.cols + c];
            to[c] = sum;
            squares += (double)sum * (double)sum;
        }
        const double r = sqrt(cuda_block_sum(squares));
        const float inverse = (float)(1.0 / sn_divisor(eps, eps_max, r));
        for (int64_t c = threadIdx.x; c < l.cols; c += SN_LAYER_THREADS) to[c] *= inverse;
        if (threadIdx.x == 0 && norm) norm[i] = r;
    }
}

int sn_normalise_v(sag_kernel_env *env, const sn_slab *s, const spectral_norm_args *a, float *v, double *norm)
{
    return CUDA_LAUNCH(env, sn_normalise_v_kernel, cuda_blocks(s->n_layers, 1), SN_LAYER_THREADS, 0, *s, v, norm, (double)a->eps,
                       a->eps_max);
}

/* moves: u = n(b). sigma (NULL: not the last step) = u . b; keep_u, keep_v (may be NULL) take u and v unless sigma is tiny. */
__global__ void __launch_bounds__(SN_LAYER_THREADS)
    sn_normalise_u_kernel(sn_slab s, float *u, const float *b, const float *v, double *norm, double eps, int eps_max, int moves,
                          float *sigma, float *sigma_used, float *keep_u, float *keep_v)
{
    for (int64_t i = blockIdx.x; i < s.n_layers; i += gridDim.x) {
        if (!sn_has_tiles(s, i)) {
            if (threadIdx.x == 0 && sigma) sigma[i] = 0.0f;
            if (threadIdx.x == 0 && sigma && sigma_used) sigma_used[i] = 0.0f;
            continue;
        }
        const sn_layer l = sn_layer_at(s, i);
        if (moves) {
            double squares = 0.0;
            for (int64_t r = threadIdx.x; r < l.rows; r += SN_LAYER_THREADS) squares += (double)b[l.u + r] * (double)b[l.u + r];
            const double length = sqrt(cuda_block_sum(squares));
            const float inverse = (float)(1.0 / sn_divisor(eps, eps_max, length));
            for (int64_t r = threadIdx.x; r < l.rows; r += SN_LAYER_THREADS) u[l.u + r] = b[l.u + r] * inverse;
            if (threadIdx.x == 0 && norm) norm[i] = length;
        }
        if (!sigma) continue;
        double along = 0.0;
        for (int64_t r = threadIdx.x; r < l.rows; r += SN_LAYER_THREADS) along += (double)u[l.u + r] * (double)b[l.u + r];
        const float found = (float)cuda_block_sum(along);
        if (threadIdx.x == 0) {
            sigma[i] = found;
            if (sigma_used) sigma_used[i] = found;
        }
        if (!keep_u || fabsf(found) < SN_TINY_SIGMA) continue;
        for (int64_t r = threadIdx.x; r < l.rows; r += SN_LAYER_THREADS) keep_u[l.u + r] = u[l.u + r];
        for (int64_t c = threadIdx.x; c < l.cols; c += SN_LAYER_THREADS) keep_v[l.v + c] = v[l.v + c];
    }
}

int sn_normalise_u(sag_kernel_env *env, const sn_slab *s, const spectral_norm_args *a, float *u, const float *b, const float *v,
                   double *norm, bool moves, bool last)
{
    return CUDA_LAUNCH(env, sn_normalise_u_kernel, cuda_blocks(s->n_layers, 1), SN_LAYER_THREADS, 0, *s, u, b, v, norm, (double)a->eps,
                       a->eps_max, (int)moves, last ? a->sigma : (float *)NULL, last ? a->sigma_used : (float *)NULL,
                       last && a->update ? a->u : (float *)NULL, last && a->update ? a->v : (float *)NULL);
}

/* ---------------------------------------------------------------------------------- the slab, element by element */

/*
 * Each block has SN_RANGE elements, a thread 4 x 4 of them, and lists the layers that meet its range. GAPS: what no layer
 * covers, to (+)= from; else to = from / sigma of its layer, from itself elsewhere.
 */
template <bool GAPS>
__global__ void __launch_bounds__(256) sn_range_kernel(sn_slab s, float *to, const float *from, const float *sigma, int accumulate)
{
    CUDA_SHARED(int64_t, begins, [256]);
    CUDA_SHARED(int64_t, ends, [256]);
    CUDA_SHARED(float, factors, [256]);
    CUDA_SHARED(int, counts, [8]);
    const int tid = (int)threadIdx.x, lane = tid & 31, warp = tid >> 5;
    for (int64_t base = (int64_t)blockIdx.x * SN_RANGE; base < s.n; base += (int64_t)gridDim.x * SN_RANGE) {
        float factor[4][4];
        for (int q = 0; q < 4; q++)
            for (int j = 0; j < 4; j++) factor[q][j] = 1.0f;
        for (int64_t i0 = 0; i0 < s.n_layers; i0 += 256) {
            sn_layer l = {};
            bool meets = i0 + tid < s.n_layers && sn_has_tiles(s, i0 + tid);
            if (meets) {
                l = sn_layer_at(s, i0 + tid);
                meets = l.offset < base + SN_RANGE && l.offset + l.rows * l.cols > base;
            }
            const unsigned met = __ballot_sync(0xffffffffu, meets);
            __syncthreads();
            if (lane == 0) counts[warp] = __popc(met);
            __syncthreads();
            int before = __popc(met & ((1u << lane) - 1u)), count = 0;
            for (int k = 0; k < 8; k++) {
                before += k < warp ? counts[k] : 0;
                count += counts[k];
            }
            if (meets) {
                begins[before] = l.offset;
                ends[before] = l.offset + l.rows * l.cols;
                factors[before] = GAPS ? 0.0f : sn_factor(sigma[i0 + tid]);
            }
            __syncthreads();
            for (int k = 0; k < count; k++)
                for (int q = 0; q < 4; q++)
                    for (int j = 0; j < 4; j++) {
                        const int64_t at = base + (q * 256 + tid) * 4 + j;
                        if (at >= begins[k] && at < ends[k]) factor[q][j] = factors[k];
                    }
        }
        for (int q = 0; q < 4; q++) {
            const int64_t at = base + (q * 256 + tid) * 4;
            if (at >= s.n) continue;
            if (GAPS) {
                for (int j = 0; j < 4; j++)
                    if (at + j < s.n && factor[q][j] != 0.0f) cuda_put(to + at + j, from[at + j], accumulate);
            } else {
                float x[4];
                sn_load4(x, from + at, s.n - at);
                for (int j = 0; j < 4; j++) x[j] *= factor[q][j];
                sn_store4(to + at, x, s.n - at);
            }
        }
    }
}

int sn_copy_gaps(sag_kernel_env *env, const sn_slab *s, float *to, const float *from, int accumulate)
{
    return CUDA_LAUNCH(env, sn_range_kernel<true>, cuda_blocks(s->n, SN_RANGE), 256, 0, *s, to, from, (const float *)NULL, accumulate);
}
int sn_divide(sag_kernel_env *env, const sn_slab *s, float *wn, const float *w, const float *sigma)
{
    return CUDA_LAUNCH(env, sn_range_kernel<false>, cuda_blocks(s->n, SN_RANGE), 256, 0, *s, wn, w, sigma, 0);
}

/* --------------------------------------------------------------------------------------------- forward */

static int cuda_spectral_norm_fwd(sag_kernel_env *env, const spectral_norm_args *a)
{
    if (a->n < 1) return SAG_KERNEL_OK;
    float *u = a->u_used ? a->u_used : (float *)env->scratch(env, (size_t)a->n_u * sizeof *u);
    float *v = a->v_used ? a->v_used : (float *)env->scratch(env, (size_t)a->n_v * sizeof *v);
    float *b = (float *)env->scratch(env, (size_t)a->n_u * sizeof *b);
    if (!u || !v || !b) return SAG_KERNEL_NO_MEMORY;
    const sn_copy copies[] = {{a->u, u, a->n_u}, {a->v, v, a->n_v}, {a->u, a->u_start, a->n_u}};
    sn_slab s;
    CUDA_TRY(sn_start(env, a, &s, copies, 3));
    for (int step = 1; step <= a->iterations; step++) {
        CUDA_TRY(sn_product_t(env, &s, a->w, u));
        CUDA_TRY(sn_normalise_v(env, &s, a, v, NULL));
        CUDA_TRY(sn_product(env, &s, a->w, b, v));
        CUDA_TRY(sn_normalise_u(env, &s, a, u, b, v, NULL, true, step == a->iterations));
    }
    if (a->iterations < 1) {
        CUDA_TRY(sn_product(env, &s, a->w, b, v));
        CUDA_TRY(sn_normalise_u(env, &s, a, u, b, v, NULL, false, true));
    }
    return sn_divide(env, &s, a->wn, a->w, a->sigma);
}

CUDA_REGISTER(spectral_norm)
{
    t->spectral_norm_fwd = cuda_spectral_norm_fwd;
    t->spectral_norm_bwd = cuda_spectral_norm_bwd;
}
