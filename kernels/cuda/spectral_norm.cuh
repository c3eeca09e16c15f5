/*
 * spectral_norm.cuh - the layers of a slab, cut into tiles on the device: the host does not know their sizes, as the table of
 * layers lies in device memory. A first launch counts tiles and sums the counts up; later ones let each block find its tile
 * by a binary search, and a grid that the host bounds walks over all of them. Tiles depend on the table only, and sums over
 * tiles are added in order.
 *
 *   column tile  COLUMN_ROWS rows x COLUMN_COLS columns: shares of W^T u, one row of `partial` for COLUMN_ROWS rows
 *   row tile     ROW_ROWS whole rows, a warp for each: W v, dot products of rows, what is added to rows
 *
 * A row of the table that leaves w, u or v (the CPU refuses it) has no tiles: its elements are copied.
 */
#ifndef SAG_CUDA_SPECTRAL_NORM_CUH
#define SAG_CUDA_SPECTRAL_NORM_CUH

#include "kernels/cuda/cuda.cuh"

#define SN_TINY_SIGMA 1e-30f
#define SN_COLUMN_ROWS 64
#define SN_COLUMN_COLS 128
#define SN_ROW_ROWS 8
#define SN_LAYER_THREADS 512
#define SN_RANGE 4096 /* elements of the slab for a block of 256 threads */

struct sn_layer {
    int64_t offset, rows, cols, u, v;
};

/* What every kernel needs of the slab. */
struct sn_slab {
    const int32_t *layers;
    int64_t n, n_layers, n_u, n_v;
    int64_t *column_start, *row_start, *partial_start; /* {L+1} each; scratch */
    float *partial;
    int64_t partial_size;
};

__device__ static inline sn_layer sn_layer_at(const sn_slab &s, int64_t i)
{
    const int32_t *t = s.layers + 5 * i;
    return {t[0], t[1], t[2], t[3], t[4]};
}
__device__ static inline bool sn_has_tiles(const sn_slab &s, int64_t i)
{
    return s.row_start[i + 1] > s.row_start[i];
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
__host__ __device__ static inline float sn_factor(float sigma)
{
    return fabsf(sigma) < SN_TINY_SIGMA ? 1.0f : 1.0f / sigma;
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

/* Fills the slab's scratch and its tables; copies `copies` vectors {from, to, n} on the way (NULL: none). */
struct sn_copy {
    const float *from;
    float *to;
    int64_t n;
};
int sn_start(sag_kernel_env *env, const spectral_norm_args *a, sn_slab *s, const sn_copy *copies, int n_copies);
/* to (a slab like u) = W v. */
int sn_product(sag_kernel_env *env, const sn_slab *s, const float *w, float *to, const float *v);
/* dots (a slab like u): <x, y> of each row of two slabs like w. */
int sn_row_dots(sag_kernel_env *env, const sn_slab *s, float *dots, const float *x, const float *y);
/* partial = shares of W^T u. */
int sn_product_t(sag_kernel_env *env, const sn_slab *s, const float *w, const float *u);
/* v = W^T u / s from the shares; norm {L} (or NULL) = |W^T u|. */
int sn_normalise_v(sag_kernel_env *env, const sn_slab *s, const spectral_norm_args *a, float *v, double *norm);
/* u = b / s; norm {L} (or NULL) = |b|. steps 0: u stays. last: sigma = u . b, and u, v move on if a->update. */
int sn_normalise_u(sag_kernel_env *env, const sn_slab *s, const spectral_norm_args *a, float *u, const float *b, const float *v,
                   double *norm, bool moves, bool last);
/* Elements of no layer: to (+)= from. */
int sn_copy_gaps(sag_kernel_env *env, const sn_slab *s, float *to, const float *from, int accumulate);
/* wn = w / sigma, a copy elsewhere. */
int sn_divide(sag_kernel_env *env, const sn_slab *s, float *wn, const float *w, const float *sigma);

int cuda_spectral_norm_bwd(sag_kernel_env *env, const spectral_norm_args *a);

/* What x is divided by, of length r. */
__device__ static inline double sn_divisor(double eps, int eps_max, double r)
{
    return !eps_max ? r + eps : r > eps ? r : eps;
}

static inline unsigned sn_row_blocks(const sn_slab *s)
{
    return cuda_blocks(cuda_ceil_div(s->n_u, SN_ROW_ROWS) + s->n_layers, 1);
}

#endif
