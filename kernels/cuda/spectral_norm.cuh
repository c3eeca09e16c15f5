/*
 * spectral_norm.cuh - the layers of a slab, cut into tiles on the device: the host does not know their sizes, as the table of
 * layers lies in device memory. A first launch counts tiles and sums the counts up; later ones let each block find its tile
 * by a binary search, and a grid that the host bounds walks over all of them. Tiles depend on the table only, and sums over
 * tiles are added in order.
 *
 *   column tile  COLUMN_ROWS rows x COLUMN_COLS columns: shares of W^T u, one row of `partial` for COLUMN_ROWS rows
 *   row tile     ROW_ROWS whole rows, a warp for each: W v, what is added to rows
 *
 * What a product is followed by needs no launch: the block that finishes a strip of column tiles as its last adds up the strip's
 * shares, the block that finishes a layer as its last does the rest (an `end`: a norm, sigma, a Jacobian). A strip at a time, as
 * one block would read all shares of a layer for longer than a launch takes.
 *
 * A row of the table that leaves w, u or v (the CPU refuses it) has no tiles: its sigma is 0, its divisor 1, and it has no gradient.
 */
#ifndef SAG_CUDA_SPECTRAL_NORM_CUH
#define SAG_CUDA_SPECTRAL_NORM_CUH

#include "kernels/cuda/cuda.cuh"

#define SN_COLUMN_ROWS 64
#define SN_COLUMN_COLS 128
#define SN_ROW_ROWS 8
#define SN_COLUMN_THREADS 128
#define SN_ROW_THREADS (32 * SN_ROW_ROWS)

struct sn_layer {
    int64_t offset, rows, cols, u, v;
};

/* What every kernel needs of the slab. */
struct sn_slab {
    const int32_t *layers;
    int64_t n, n_layers, n_u, n_v;
    int64_t *column_start, *row_start, *partial_start; /* {L+1} each; scratch */
    float *partial;
    int64_t partial_size, column_tiles; /* at least what a sound table needs */
    unsigned *layer_count;              /* {L}: the layer's tiles that are done; scratch, zeros between launches */
    unsigned *strip_count;              /* {column_tiles}: of strip c of layer i at column_start[i] + c */
};

__device__ static inline sn_layer sn_layer_at(const sn_slab &s, int64_t i)
{
    const int32_t *t = s.layers + 5 * i;
    return {t[0], t[1], t[2], t[3], t[4]};
}
/* The layer whose tiles include `tile`: the last i with start[i] <= tile. */
__device__ static inline int64_t sn_find(const int64_t *start, int64_t count, int64_t tile)
{
    int64_t low = 0, high = count;
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (start[middle] <= tile)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Four neighbours, zeros beyond `left`; 16 bytes at once where they lie so. */
__device__ static inline void sn_load4(float (&to)[4], const float *from, int64_t left)
{
    if (left >= 4 && (uintptr_t)from % 16 == 0) {
        const float4 v = *(const float4 *)from;
        to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    } else {
        for (int j = 0; j < 4; j++) to[j] = j < left ? from[j] : 0.0f;
    }
}
__device__ static inline void sn_store4(float *to, const float (&from)[4], int64_t left)
{
    if (left >= 4 && (uintptr_t)to % 16 == 0) {
        *(float4 *)to = make_float4(from[0], from[1], from[2], from[3]);
    } else {
        for (int j = 0; j < 4; j++)
            if (j < left) to[j] = from[j];
    }
}

/* to = from, or (from NULL) `bits` n times. */
struct sn_fill {
    void *to;
    const void *from;
    int64_t n; /* of 4 bytes */
    uint32_t bits;
};
/* Fills the slab's scratch and its tables, and `count` vectors on the way (at most SN_MOST_FILLS; to NULL or from: none). */
#define SN_MOST_FILLS 6
int sn_start(sag_kernel_env *env, const spectral_norm_args *a, sn_slab *s, const sn_fill *fills, int count);

/* spectral_norm_bwd.cu */
int cuda_spectral_norm_bwd(sag_kernel_env *env, const spectral_norm_args *a);
int cuda_sigma_bwd(sag_kernel_env *env, const sigma_bwd_args *a);

/* --------------------------------------------------------------------------------- a layer's vectors, by a block */

/*
 * <x, y> in f64, in every thread. Starts with a barrier. The order is one for all blocks: element i is in
 * run i % 512, four runs to each of the first 128 threads, and runs are added as cuda_block_sum adds 512 threads.
 */
__device__ static inline double sn_dot(const float *x, const float *y, int64_t n)
{
    CUDA_SHARED(double, part, [16]);
    const int tid = (int)threadIdx.x, lane = tid & 31;
    double sum[4] = {};
    __syncthreads();
    if (tid < 128) {
#pragma unroll 4
        for (int64_t i = tid * 4; i < n; i += 512) {
            float p[4], q[4];
            sn_load4(p, x + i, n - i);
            sn_load4(q, y + i, n - i);
            for (int j = 0; j < 4; j++) sum[j] += (double)p[j] * (double)q[j];
        }
    }
    for (int step = 4; step > 0; step >>= 1)
        for (int j = 0; j < 4; j++) sum[j] += __shfl_xor_sync(0xffffffffu, sum[j], step);
    if (tid < 128 && tid % 8 == 0) part[tid / 8] = (sum[0] + sum[2]) + (sum[1] + sum[3]);
    __syncthreads();
    return cuda_warp_sum(lane < 16 ? part[lane] : 0.0);
}

/* n(x) = x / s, s = |x| + eps or max(|x|, eps). */
struct sn_unit {
    double eps;
    int eps_max;

    __device__ double divisor(double r) const
    {
        return !eps_max ? r + eps : r > eps ? r : eps;
    }
    /* y = n(x), which may be x; |x|. */
    __device__ double normalise(float *y, const float *x, int64_t n) const
    {
        const double r = sqrt(sn_dot(x, x, n));
        const float inverse = (float)(1.0 / divisor(r));
        for (int64_t i = threadIdx.x * 4; i < n; i += blockDim.x * 4) {
            float p[4];
            sn_load4(p, x + i, n - i);
            for (int j = 0; j < 4; j++) p[j] *= inverse;
            sn_store4(y + i, p, n - i);
        }
        return r;
    }
    /* g <- J g at y = x / s, |x| = r. */
    __device__ void normalise_bwd(float *g, const float *y, int64_t n, double r) const
    {
        double along = sn_dot(y, g, n);
        along = r == 0.0 || (eps_max && r <= eps) ? 0.0 : along / r;
        const double inverse = r == 0.0 ? 0.0 : 1.0 / divisor(r);
        for (int64_t i = threadIdx.x * 4; i < n; i += blockDim.x * 4) {
            float p[4], q[4];
            sn_load4(p, g + i, n - i);
            sn_load4(q, y + i, n - i);
            for (int j = 0; j < 4; j++) p[j] = r == 0.0 ? 0.0f : (float)((double)p[j] * inverse - (double)q[j] * along);
            sn_store4(g + i, p, n - i);
        }
    }
};

/*
 * Ends of products, called as end(layer, its index) by the block that is the last of a layer. `columns`: the vectors lie in slabs
 * like v, else like u.
 */
__device__ static inline int64_t sn_at(const sn_layer &l, bool columns)
{
    return columns ? l.v : l.u;
}
__device__ static inline int64_t sn_length(const sn_layer &l, bool columns)
{
    return columns ? l.cols : l.rows;
}
struct sn_end_unit { /* y = n(x), which may be x; norm {L} (or NULL) = |x| */
    sn_unit unit;
    bool columns;
    float *y;
    const float *x;
    double *norm;
    __device__ void operator()(const sn_layer &l, int64_t i) const
    {
        const int64_t at = sn_at(l, columns);
        const double r = unit.normalise(y + at, x + at, sn_length(l, columns));
        if (threadIdx.x == 0 && norm) norm[i] = r;
    }
};

/* -------------------------------------------------------------------------------------------- products */

/* v (a slab like v) = W^T u, then end. A warp has every fourth row of the tile, a lane 4 columns; the four are added in order. */
template <typename End>
__global__ void __launch_bounds__(SN_COLUMN_THREADS) sn_product_t_kernel(sn_slab s, const float *w, const float *u, float *v, End end)
{
    CUDA_SHARED(float, share, [4][SN_COLUMN_COLS]);
    const int c = (int)threadIdx.x, lane = c & 31, warp = c >> 5;
    const int64_t tiles = s.column_start[s.n_layers];
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int64_t i = sn_find(s.column_start, s.n_layers, tile), own = tile - s.column_start[i];
        const sn_layer l = sn_layer_at(s, i);
        const int64_t across = (l.cols + SN_COLUMN_COLS - 1) / SN_COLUMN_COLS, down = (l.rows + SN_COLUMN_ROWS - 1) / SN_COLUMN_ROWS;
        const int64_t row0 = own / across * SN_COLUMN_ROWS, strip = own % across, col0 = strip * SN_COLUMN_COLS;
        const int64_t left = l.cols - col0 - lane * 4;
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
        const bool here = col0 + c < l.cols;
        float *partial = s.partial + s.partial_start[i] + col0 + c;
        if (here) partial[row0 / SN_COLUMN_ROWS * l.cols] = (share[0][c] + share[1][c]) + (share[2][c] + share[3][c]);
        if (!cuda_last_block(s.strip_count + s.column_start[i] + strip, (unsigned)down)) continue;
        if (here) {
            float all = 0.0f;
#pragma unroll 4
            for (int64_t k = 0; k < down; k++) all += partial[k * l.cols];
            v[l.v + col0 + c] = all;
        }
        if (cuda_last_block(s.layer_count + i, (unsigned)across)) end(l, i);
    }
}

/* b (a slab like u) = W v, then end. */
template <typename End>
__global__ void __launch_bounds__(SN_ROW_THREADS) sn_product_kernel(sn_slab s, const float *w, float *b, const float *v, End end)
{
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    const int64_t tiles = s.row_start[s.n_layers];
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int64_t i = sn_find(s.row_start, s.n_layers, tile), r = (tile - s.row_start[i]) * SN_ROW_ROWS + warp;
        const sn_layer l = sn_layer_at(s, i);
        if (r < l.rows) {
            const int64_t at = l.offset + r * l.cols;
            float sum = 0.0f;
#pragma unroll 4
            for (int64_t c = lane * 4; c < l.cols; c += 128) {
                float p[4], q[4];
                sn_load4(p, w + at + c, l.cols - c);
                sn_load4(q, v + l.v + c, l.cols - c);
                for (int j = 0; j < 4; j++) sum = fmaf(p[j], q[j], sum);
            }
            sum = cuda_warp_sum(sum);
            if (lane == 0) b[l.u + r] = sum;
        }
        if (cuda_last_block(s.layer_count + i, (unsigned)(s.row_start[i + 1] - s.row_start[i]))) end(l, i);
    }
}

static inline unsigned sn_row_blocks(const sn_slab *s)
{
    return cuda_blocks(cuda_ceil_div(s->n_u, SN_ROW_ROWS) + s->n_layers, 1);
}

/* v = W^T u, then end. */
template <typename End> static int sn_product_t(sag_kernel_env *env, const sn_slab *s, const float *w, const float *u, float *v, End end)
{
    return CUDA_LAUNCH(env, (sn_product_t_kernel<End>), cuda_blocks(s->column_tiles, 1), SN_COLUMN_THREADS, 0, *s, w, u, v, end);
}
/* b = W v, then end. */
template <typename End> static int sn_product(sag_kernel_env *env, const sn_slab *s, const float *w, float *b, const float *v, End end)
{
    return CUDA_LAUNCH(env, (sn_product_kernel<End>), sn_row_blocks(s), SN_ROW_THREADS, 0, *s, w, b, v, end);
}

#endif
