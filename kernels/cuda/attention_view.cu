/*
 * attention_view.cu - rows of the map for chosen queries, and the map's mean entropy and mean attended distance. In f32
 * whatever the dtype; the map as a whole is never in memory.
 */
#include "kernels/cuda/attention_simt.cuh"

/*
 * p {B,M,NK}: a block for each row, which serves as its own workspace: scores, then powers, then shares. A query outside the
 * map gives a row of zeros. Bound by reading k (D elements a key); a few rows are drawn, so it is never much.
 */
template <typename T>
__global__ void attention_map_kernel(float *p, const T *q, const T *k, const int32_t *queries, int64_t batch, int64_t m, int64_t nq,
                                     int64_t nk, int64_t d, float scale2)
{
    for (int64_t i = blockIdx.x; i < batch * m; i += gridDim.x) {
        const int64_t b = i / m, query = queries[i % m];
        const bool valid = query >= 0 && query < nq;
        const T *own = q + (b * nq + (valid ? query : 0)) * d, *keys = k + b * nk * d;
        float *row = p + i * nk, top = -INFINITY, sum = 0.0f;
        for (int64_t j = threadIdx.x; j < nk; j += blockDim.x) {
            float s = 0.0f;
            for (int64_t c = 0; c < d; c++) s = fmaf(cuda_float(own[c]), cuda_float(keys[j * d + c]), s);
            row[j] = s *= scale2;
            top = fmaxf(top, s);
        }
        top = cuda_block_max(top);
        for (int64_t j = threadIdx.x; j < nk; j += blockDim.x) sum += row[j] = attention_exp2(row[j] - top);
        const float inverse = 1.0f / cuda_block_sum(sum);
        for (int64_t j = threadIdx.x; j < nk; j += blockDim.x) row[j] = valid ? row[j] * inverse : 0.0f;
    }
}

template <typename T> static int launch_map(sag_kernel_env *env, const attention_map_args *a)
{
    if (a->batch * a->m < 1) return SAG_KERNEL_OK;
    return CUDA_LAUNCH(env, (attention_map_kernel<T>), cuda_blocks(a->batch * a->m, 1), 256, 0, a->p, (const T *)a->q, (const T *)a->k,
                       a->queries, a->batch, a->m, a->nq, a->nk, a->d, a->scale * ATTENTION_LOG2_E);
}

int cuda_attention_map(sag_kernel_env *env, const attention_map_args *a)
{
    return CUDA_BY_DTYPE(a->act, launch_map, env, a);
}

/*
 * sums {items,2}: of 64 queries each the entropies and the mean distances. With s in base 2 and m the running maximum a query
 * keeps l = sum 2^(s-m), t = sum 2^(s-m) (s - m), w = sum 2^(s-m) distance: entropy = ln 2 (log2 l - t / l), distance = w / l.
 * Keys lie on a grid `key_width` wide over the same square; a cell of it is 1 / ratio cells of the queries' grid.
 */
template <typename T>
__global__ void __launch_bounds__(SIMT_THREADS)
    attention_stats_kernel(double *sums, const T *q, const T *k, int64_t batch, int64_t nq, int64_t nk, int64_t d, int64_t width,
                           int64_t key_width, double ratio, float scale2)
{
    CUDA_SHARED(float, at, [SIMT_DEPTH][SIMT_ROW]);
    CUDA_SHARED(float, bt, [SIMT_DEPTH][SIMT_ROW]);
    const int i0 = (int)threadIdx.x / 16 * 4, tx = (int)threadIdx.x % 16;
    const int64_t blocks = (nq + SIMT_TILE - 1) / SIMT_TILE;
    for (int64_t item = blockIdx.x; item < batch * blocks; item += gridDim.x) {
        const int64_t image = item / blocks, row0 = item % blocks * SIMT_TILE, rows = nq - row0 < SIMT_TILE ? nq - row0 : SIMT_TILE;
        float top[4], l[4], t[4], w[4];
        for (int i = 0; i < 4; i++) {
            top[i] = -INFINITY;
            l[i] = t[i] = w[i] = 0.0f;
        }
        for (int64_t col0 = 0; col0 < nk; col0 += SIMT_TILE) {
            const int64_t cols = nk - col0 < SIMT_TILE ? nk - col0 : SIMT_TILE;
            float s[4][4], x[4], y[4];
            simt_products(s, at, bt, q + (image * nq + row0) * d, rows, k + (image * nk + col0) * d, cols, d);
            for (int j = 0; j < 4; j++) {
                const int64_t key = col0 + tx * 4 + j;
                x[j] = (float)(((double)(key % key_width) + 0.5) / ratio);
                y[j] = (float)(((double)(key / key_width) + 0.5) / ratio);
            }
            for (int i = 0; i < 4; i++) {
                const float own_x = (float)((row0 + i0 + i) % width) + 0.5f, own_y = (float)((row0 + i0 + i) / width) + 0.5f;
                float high = -INFINITY;
                for (int j = 0; j < 4; j++) {
                    s[i][j] *= scale2;
                    if (tx * 4 + j < cols) high = fmaxf(high, s[i][j]);
                }
                high = fmaxf(simt_row_max(high), top[i]);
                const float shrink = attention_exp2(top[i] - high);
                t[i] = shrink > 0.0f ? shrink * fmaf(l[i], top[i] - high, t[i]) : 0.0f;
                l[i] *= shrink;
                w[i] *= shrink;
                top[i] = high;
                for (int j = 0; j < 4; j++) {
                    if (tx * 4 + j >= cols) continue;
                    const float power = attention_exp2(s[i][j] - high), dx = x[j] - own_x, dy = y[j] - own_y;
                    l[i] += power;
                    t[i] = fmaf(power, s[i][j] - high, t[i]);
                    w[i] = fmaf(power, sqrtf(dx * dx + dy * dy), w[i]);
                }
            }
        }
        double entropy = 0.0, distance = 0.0;
        for (int i = 0; i < 4; i++) {
            const float total = simt_row_sum(l[i]), logs = simt_row_sum(t[i]), way = simt_row_sum(w[i]);
            if (tx != 0 || i0 + i >= rows) continue;
            entropy += (double)(ATTENTION_LN_2 * (log2f(total) - logs / total));
            distance += (double)(way / total);
        }
        entropy = cuda_block_sum(entropy);
        distance = cuda_block_sum(distance);
        if (threadIdx.x == 0) {
            sums[2 * item] = entropy;
            sums[2 * item + 1] = distance;
        }
    }
}

/* One block: stats = sums over the items / rows, in an order that depends on their number alone. */
__global__ void attention_stats_finish_kernel(float *stats, const double *sums, int64_t items, double rows)
{
    double entropy = 0.0, distance = 0.0;
    for (int64_t i = threadIdx.x; i < items; i += blockDim.x) {
        entropy += sums[2 * i];
        distance += sums[2 * i + 1];
    }
    entropy = cuda_block_sum(entropy);
    distance = cuda_block_sum(distance);
    if (threadIdx.x == 0) {
        stats[0] = (float)(entropy / rows);
        stats[1] = (float)(distance / rows);
    }
}

template <typename T> static int launch_stats(sag_kernel_env *env, const attention_map_args *a)
{
    const int64_t items = a->batch * cuda_ceil_div(a->nq, SIMT_TILE);
    const double ratio = sqrt((double)a->nk / (double)a->nq);
    const int64_t key_width = (int64_t)lround((double)a->width * ratio);
    double *sums = (double *)env->scratch(env, (size_t)(2 * items) * sizeof *sums);
    if (!sums) return SAG_KERNEL_NO_MEMORY;
    CUDA_TRY(CUDA_LAUNCH(env, (attention_stats_kernel<T>), cuda_blocks(items, 1), SIMT_THREADS, 0, sums, (const T *)a->q,
                         (const T *)a->k, a->batch, a->nq, a->nk, a->d, a->width, key_width, ratio, a->scale * ATTENTION_LOG2_E));
    return CUDA_LAUNCH(env, attention_stats_finish_kernel, 1, 256, 0, a->stats, sums, items, (double)(a->batch * a->nq));
}

int cuda_attention_stats(sag_kernel_env *env, const attention_map_args *a)
{
    return CUDA_BY_DTYPE(a->act, launch_stats, env, a);
}
