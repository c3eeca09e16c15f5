/*
 * matmul.cu - batched matrix products y[b] = op(a[b]) op(b[b]) + bias, and sums of columns.
 *
 * Products go to cuBLAS (f32 sums; bf16 operands on tensor cores, f32 ones too where env->tf32 allows it); where the two
 * operands differ in dtype, the f32 one is rounded to bf16 into scratch first. A bias is added by a pass of its own, to f32
 * sums, so that a bf16 result is rounded once. Our own kernels take over where the library is
 * not there or sizes do not fit it, and where a side has at most 8 rows or columns: such a product is bound by reading the
 * larger operand once, (m k + k n) elements, which is all that `thin` and `dots` do. `tiles` is bound by arithmetic:
 * 2 m n k FLOP on plain multiply-adds.
 *
 * Results have the same bits at every run of one build on one card; cuBLAS promises no more between its versions.
 */
#include "kernels/cuda/blas.cuh"
#include "kernels/cuda/sums.cuh"

/*
 * A product as strides: element (i, k) of the left operand at l[i * li + k * lk], (k, j) of the right one at
 * r[k * rk + j * rj], y at y[i * yi + j * yj]. Turning a product round (y^T = b^T a^T) is an exchange of names.
 */
template <typename L, typename R, typename Y> struct product {
    const L *l;
    const R *r;
    const float *bias;
    Y *y;
    int64_t rows, cols, k, li, lk, rk, rj, yi, yj;
    int64_t batch, stride_l, stride_r, stride_y;
    int accumulate, bias_by_row;
};

template <typename L, typename R, typename Y>
__device__ static inline void put_product(const product<L, R, Y> &p, int64_t b, int64_t i, int64_t j, float sum)
{
    if (p.bias) sum += p.bias[p.bias_by_row ? i : j];
    cuda_put(p.y + b * p.stride_y + i * p.yi + j * p.yj, sum, p.accumulate);
}

/* ------------------------------------------------------------------------------------ a few rows: thin, dots */

enum { FEW = 8, THIN_COLS = 32, THIN_PARTS = CUDA_BLOCK / THIN_COLS };

/*
 * rows <= 8, r's columns are neighbours (rj = 1): a thread to a column, all rows in its registers, k shared out to eight
 * warps whose sums meet in shared memory in order.
 */
template <typename L, typename R, typename Y> __global__ void __launch_bounds__(CUDA_BLOCK) matmul_thin_kernel(product<L, R, Y> p, int64_t tiles)
{
    CUDA_SHARED(float, part, [FEW][THIN_PARTS][THIN_COLS]);
    const int c = (int)threadIdx.x % THIN_COLS, w = (int)threadIdx.x / THIN_COLS;
    for (int64_t unit = blockIdx.x; unit < tiles * p.batch; unit += gridDim.x) {
        const int64_t b = unit / tiles, j = (unit - b * tiles) * THIN_COLS + c;
        const L *l = p.l + b * p.stride_l;
        const R *r = p.r + b * p.stride_r + j;
        float sum[FEW];
#pragma unroll
        for (int i = 0; i < FEW; i++) sum[i] = 0.0f;
        if (j < p.cols) {
#pragma unroll 4
            for (int64_t k = w; k < p.k; k += THIN_PARTS) {
                const float x = cuda_float(r[k * p.rk]);
#pragma unroll
                for (int i = 0; i < FEW; i++) {
                    if (i < p.rows) sum[i] = fmaf(cuda_float(l[i * p.li + k * p.lk]), x, sum[i]);
                }
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < FEW; i++) part[i][w][c] = sum[i];
        __syncthreads();
        if (w < p.rows && j < p.cols) { /* warp w finishes row w */
            float s = part[w][0][c];
#pragma unroll
            for (int q = 1; q < THIN_PARTS; q++) s += part[w][q][c];
            put_product(p, b, w, j, s);
        }
    }
}

/* rows <= 8, otherwise: a warp to a column, its lanes along k. */
template <typename L, typename R, typename Y> __global__ void __launch_bounds__(CUDA_BLOCK) matmul_dots_kernel(product<L, R, Y> p)
{
    const int lane = (int)threadIdx.x & 31, warps = CUDA_BLOCK / 32;
    const int64_t total = p.cols * p.batch;
    for (int64_t unit = (int64_t)blockIdx.x * warps + ((int)threadIdx.x >> 5); unit < total; unit += (int64_t)gridDim.x * warps) {
        const int64_t b = unit / p.cols, j = unit - b * p.cols;
        const L *l = p.l + b * p.stride_l;
        const R *r = p.r + b * p.stride_r + j * p.rj;
        float sum[FEW];
#pragma unroll
        for (int i = 0; i < FEW; i++) sum[i] = 0.0f;
#pragma unroll 4
        for (int64_t k = lane; k < p.k; k += 32) {
            const float x = cuda_float(r[k * p.rk]);
#pragma unroll
            for (int i = 0; i < FEW; i++) {
                if (i < p.rows) sum[i] = fmaf(cuda_float(l[i * p.li + k * p.lk]), x, sum[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < FEW; i++) {
            const float s = cuda_warp_sum(sum[i]);
            if (lane == 0 && i < p.rows) put_product(p, b, i, j, s);
        }
    }
}

/* -------------------------------------------------------------------------------------------------- tiles */

enum { TILE = 64, DEPTH = 16, EACH = 4, SIDE_LOADS = TILE * DEPTH / CUDA_BLOCK };

/*
 * A TILE x DEPTH piece of an operand: element (i, k) at p[i * by_i + k * by_k], zeros outside. Neighbouring threads read along
 * the dimension whose elements are neighbours.
 */
template <typename T>
__device__ static inline void fetch_tile(float (&v)[SIDE_LOADS], const T *p, int64_t i0, int64_t count, int64_t k0, int64_t k1, int64_t by_i, int64_t by_k)
{
    const int t = (int)threadIdx.x;
#pragma unroll
    for (int s = 0; s < SIDE_LOADS; s++) {
        const int e = t + s * CUDA_BLOCK, i = by_k == 1 ? e / DEPTH : e % TILE, k = by_k == 1 ? e % DEPTH : e / TILE;
        v[s] = i0 + i < count && k0 + k < k1 ? cuda_float(p[(i0 + i) * by_i + (k0 + k) * by_k]) : 0.0f;
    }
}
__device__ static inline void keep_tile(float (*tile)[TILE + 4], const float (&v)[SIDE_LOADS], bool along_k)
{
    const int t = (int)threadIdx.x;
#pragma unroll
    for (int s = 0; s < SIDE_LOADS; s++) {
        const int e = t + s * CUDA_BLOCK, i = along_k ? e / DEPTH : e % TILE, k = along_k ? e % DEPTH : e / TILE;
        tile[k][i] = v[s];
    }
}

/*
 * A block makes 64 x 64 of y, a thread 4 x 4 of that; k goes by in steps of 16 through two buffers, the next step's numbers on
 * their way into registers while this one's are multiplied.
 */
template <typename L, typename R, typename Y> __global__ void __launch_bounds__(CUDA_BLOCK) matmul_tiles_kernel(product<L, R, Y> p, int64_t across, int64_t down)
{
    CUDA_SHARED(float, left, [2][DEPTH][TILE + 4]);
    CUDA_SHARED(float, right, [2][DEPTH][TILE + 4]);
    const int ti = (int)threadIdx.x / 16 * EACH, tj = (int)threadIdx.x % 16 * EACH;
    for (int64_t unit = blockIdx.x; unit < across * down * p.batch; unit += gridDim.x) {
        const int64_t b = unit / (across * down), tile = unit - b * across * down, i0 = tile / across * TILE, j0 = tile % across * TILE;
        const L *l = p.l + b * p.stride_l;
        const R *r = p.r + b * p.stride_r;
        float next_l[SIDE_LOADS], next_r[SIDE_LOADS], sum[EACH][EACH];
#pragma unroll
        for (int i = 0; i < EACH; i++) {
#pragma unroll
            for (int j = 0; j < EACH; j++) sum[i][j] = 0.0f;
        }
        fetch_tile(next_l, l, i0, p.rows, 0, p.k, p.li, p.lk);
        fetch_tile(next_r, r, j0, p.cols, 0, p.k, p.rj, p.rk);
        __syncthreads(); /* the last unit's readers are done */
        keep_tile(left[0], next_l, p.lk == 1);
        keep_tile(right[0], next_r, p.rk == 1);
        __syncthreads();
        int now = 0;
        for (int64_t k0 = 0; k0 < p.k; k0 += DEPTH, now ^= 1) {
            const bool more = k0 + DEPTH < p.k;
            if (more) {
                fetch_tile(next_l, l, i0, p.rows, k0 + DEPTH, p.k, p.li, p.lk);
                fetch_tile(next_r, r, j0, p.cols, k0 + DEPTH, p.k, p.rj, p.rk);
            }
#pragma unroll
            for (int k = 0; k < DEPTH; k++) {
                float a[EACH], c[EACH];
                cuda_load_group<EACH>(a, &left[now][k][ti]);
                cuda_load_group<EACH>(c, &right[now][k][tj]);
#pragma unroll
                for (int i = 0; i < EACH; i++) {
#pragma unroll
                    for (int j = 0; j < EACH; j++) sum[i][j] = fmaf(a[i], c[j], sum[i][j]);
                }
            }
            if (more) {
                keep_tile(left[now ^ 1], next_l, p.lk == 1);
                keep_tile(right[now ^ 1], next_r, p.rk == 1);
                __syncthreads();
            }
        }
#pragma unroll
        for (int i = 0; i < EACH; i++) {
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                if (i0 + ti + i < p.rows && j0 + tj + j < p.cols) put_product(p, b, i0 + ti + i, j0 + tj + j, sum[i][j]);
            }
        }
    }
}

/* --------------------------------------------------------------------------------------------------- host */

template <typename L, typename R, typename Y> static int few_rows(sag_kernel_env *env, const product<L, R, Y> &p)
{
    if (p.rj == 1 && p.rk != 1) {
        const int64_t tiles = cuda_ceil_div(p.cols, THIN_COLS);
        return CUDA_LAUNCH(env, (matmul_thin_kernel<L, R, Y>), cuda_blocks(tiles * p.batch, 1), CUDA_BLOCK, 0, p, tiles);
    }
    return CUDA_LAUNCH(env, (matmul_dots_kernel<L, R, Y>), cuda_blocks(p.cols * p.batch, CUDA_BLOCK / 32), CUDA_BLOCK, 0, p);
}

template <typename A, typename B, typename Y> static int plain_product(sag_kernel_env *env, const matmul_args *a)
{
    const product<A, B, Y> p = {(const A *)a->a, (const B *)a->b, a->bias, (Y *)a->y, a->m, a->n, a->k,
                                a->trans_a ? 1 : a->k, a->trans_a ? a->m : 1, a->trans_b ? 1 : a->n, a->trans_b ? a->k : 1, a->n, 1,
                                a->batch, a->stride_a, a->stride_b, a->stride_y, a->accumulate, 0};
    if (a->m <= FEW && a->m <= a->n) return few_rows(env, p);
    if (a->n <= FEW) {
        const product<B, A, Y> turned = {p.r, p.l, p.bias, p.y, p.cols, p.rows, p.k, p.rj, p.rk, p.lk, p.li, p.yj, p.yi,
                                         p.batch, p.stride_r, p.stride_l, p.stride_y, p.accumulate, 1};
        return few_rows(env, turned);
    }
    const int64_t across = cuda_ceil_div(a->n, TILE), down = cuda_ceil_div(a->m, TILE);
    return CUDA_LAUNCH(env, (matmul_tiles_kernel<A, B, Y>), cuda_blocks(across * down * a->batch, 1), CUDA_BLOCK, 0, p, across, down);
}

template <typename A, typename B> static int plain_to(sag_kernel_env *env, const matmul_args *a)
{
    return a->act_y == SAG_F32 ? plain_product<A, B, float>(env, a) : plain_product<A, B, cuda_bf16>(env, a);
}
static int plain(sag_kernel_env *env, const matmul_args *a)
{
    if (a->act_a == SAG_F32) return a->act_b == SAG_F32 ? plain_to<float, float>(env, a) : plain_to<float, cuda_bf16>(env, a);
    return a->act_b == SAG_F32 ? plain_to<cuda_bf16, float>(env, a) : plain_to<cuda_bf16, cuda_bf16>(env, a);
}

/* ------------------------------------------------------------------------------------------------- cuBLAS */

__global__ void __launch_bounds__(CUDA_BLOCK) round_kernel(int64_t n, const float *x, cuda_bf16 *y)
{
    for (int64_t i = (int64_t)blockIdx.x * CUDA_BLOCK + threadIdx.x; i < n; i += (int64_t)gridDim.x * CUDA_BLOCK) cuda_store(y + i, x[i]);
}

/* y (+)= sums + bias. Sums {batch, m, n} f32, perhaps y itself; y's batches stride_y apart. */
template <typename Y>
__global__ void __launch_bounds__(CUDA_BLOCK)
    add_bias_kernel(int64_t total, cuda_divisor plane, cuda_divisor row, const float *sums, int64_t stride_s, const float *bias, Y *y, int64_t stride_y, int accumulate)
{
    for (int64_t at = (int64_t)blockIdx.x * CUDA_BLOCK + threadIdx.x; at < total; at += (int64_t)gridDim.x * CUDA_BLOCK) {
        int64_t i = at;
        const int64_t b = plane.split(i);
        int64_t j = i;
        row.split(j);
        cuda_put(y + b * stride_y + i, sums[b * stride_s + i] + bias[j], accumulate);
    }
}

/* An operand of a mixed product: f32 {count} rounded to bf16 in scratch. NULL when there is none. */
static const void *rounded(sag_kernel_env *env, const void *x, int64_t count, int *result)
{
    cuda_bf16 *y = (cuda_bf16 *)env->scratch(env, (size_t)count * sizeof *y);
    *result = y ? CUDA_LAUNCH(env, round_kernel, cuda_blocks(count, 4 * CUDA_BLOCK), CUDA_BLOCK, 0, count, (const float *)x, y) : (int)SAG_KERNEL_NO_MEMORY;
    return y;
}

static int library_product(sag_kernel_env *env, const matmul_args *a)
{
    cuda_product p = {a->a, a->b, a->y, a->act_a, a->act_y, a->trans_a, a->trans_b, a->accumulate,
                      a->m, a->n, a->k, a->trans_a ? a->m : a->k, a->trans_b ? a->k : a->n, a->n,
                      a->batch, a->stride_a, a->stride_b, a->stride_y};
    int result = SAG_KERNEL_OK;
    if (a->act_a != a->act_b) {
        p.in = SAG_BF16;
        if (a->act_a == SAG_F32) p.a = rounded(env, a->a, (a->batch - 1) * a->stride_a + a->m * a->k, &result);
        else p.b = rounded(env, a->b, (a->batch - 1) * a->stride_b + a->k * a->n, &result);
        CUDA_TRY(result);
    }
    if (!a->bias) return cuda_blas_multiply(env, &p);
    const int64_t plane = a->m * a->n, total = a->batch * plane;
    const cuda_divisor by_plane = cuda_divisor_of(plane, total), by_row = cuda_divisor_of(a->n, total);
    const unsigned blocks = cuda_blocks(total, 4 * CUDA_BLOCK);
    if (a->act_y == SAG_F32) {
        float *y = (float *)a->y;
        CUDA_TRY(cuda_blas_multiply(env, &p));
        return CUDA_LAUNCH(env, (add_bias_kernel<float>), blocks, CUDA_BLOCK, 0, total, by_plane, by_row, y, a->stride_y, a->bias, y, a->stride_y, 0);
    }
    float *sums = (float *)env->scratch(env, (size_t)total * sizeof *sums);
    if (!sums) return SAG_KERNEL_NO_MEMORY;
    p.y = sums;
    p.out = SAG_F32;
    p.stride_y = plane;
    p.accumulate = 0;
    CUDA_TRY(cuda_blas_multiply(env, &p));
    return CUDA_LAUNCH(env, (add_bias_kernel<cuda_bf16>), blocks, CUDA_BLOCK, 0, total, by_plane, by_row, sums, plane, a->bias, (cuda_bf16 *)a->y, a->stride_y, a->accumulate);
}

/* Whether the library takes it; SAG_KERNEL_UNSUPPORTED from it means that it is not there, or that a size is beyond it. */
static bool for_library(const matmul_args *a)
{
    const bool bf16 = a->act_a == SAG_BF16 || a->act_b == SAG_BF16;
    return a->m > FEW && a->n > FEW && a->k > 0 && (bf16 || a->act_y == SAG_F32);
}

static int cuda_matmul(sag_kernel_env *env, const matmul_args *a)
{
    const bool known = (a->act_a == SAG_F32 || a->act_a == SAG_BF16) && (a->act_b == SAG_F32 || a->act_b == SAG_BF16) &&
                       (a->act_y == SAG_F32 || a->act_y == SAG_BF16);
    if (!known) return SAG_KERNEL_UNSUPPORTED;
    if (a->batch <= 0 || a->m <= 0 || a->n <= 0) return SAG_KERNEL_OK;
    if (for_library(a)) {
        const int result = library_product(env, a);
        if (result != SAG_KERNEL_UNSUPPORTED) return result;
    }
    return plain(env, a);
}

template <typename T> static int column_sum(sag_kernel_env *env, const column_sum_args *a)
{
    return cuda_sums<T>(env, a->x, NULL, 1, a->rows, a->cols, cuda_sum_plain{}, cuda_sum_put<float>{a->y, 1.0, a->accumulate});
}
static int cuda_column_sum(sag_kernel_env *env, const column_sum_args *a)
{
    return CUDA_BY_DTYPE(a->act, column_sum, env, a);
}

CUDA_REGISTER(matmul)
{
    t->matmul = cuda_matmul;
    t->column_sum = cuda_column_sum;
}
