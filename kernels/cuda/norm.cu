/*
 * norm.cu - batch normalisation, plain and class-conditional, with an optional ReLU (batch_norm_args).
 *
 *   y = f((x - mean) * rstd * g + b),  g = gain + gain_offset (1 without gain), rstd = 1 / sqrt(var + eps)
 *
 * Three launches: moments of pieces, their combination (which also moves the running statistics), y. Each thread sums
 * d = x - p and d^2 about a pivot p near its own mean, in f32; threads and pieces are combined in f64 (Chan, Golub, LeVeque),
 * so a large mean costs no digits. Memory bounds it: x read twice, y written once. The last pass goes over the blocks backwards,
 * as the first left the end of x in the L2 cache. An image whose label has no row in the tables gives zeros.
 */
#include "kernels/cuda/norm.cuh"

int cuda_batch_norm_bwd(sag_kernel_env *env, const batch_norm_args *a);

/* mean {parts,c} and squares {parts,c} (sum (x - mean)^2) of each piece. */
template <typename T, int LANE>
__global__ void __launch_bounds__(NORM_THREADS, 3) norm_moments_kernel(double *mean, double *squares, const T *x, norm_grid g)
{
    CUDA_SHARED(float, pivots, [NORM_THREADS * LANE]);
    CUDA_SHARED(float, firsts, [NORM_THREADS * LANE]);
    CUDA_SHARED(float, seconds, [NORM_THREADS * LANE]);
    const int tid = (int)threadIdx.x, column = tid % g.wide, line = tid / g.wide, width = g.wide * LANE;
    for (int64_t item = blockIdx.x; item < g.parts * g.tiles; item += gridDim.x) {
        const int64_t part = item / g.tiles, c0 = item % g.tiles * width, c = c0 + column * LANE;
        const int64_t begin = part * g.part_rows, end = begin + g.part_rows < g.rows ? begin + g.part_rows : g.rows;
        float pivot[LANE] = {}, s1[LANE] = {}, s2[LANE] = {};
        if (c < g.c) {
            int64_t r = begin + line;
            int few = 0;
            for (int64_t i = r; few < NORM_AHEAD && i < end; i += g.step, few++) {
                norm_raw<LANE, T> raw;
                float v[LANE];
                raw.load(x + i * g.c + c);
                raw.unpack(v);
#pragma unroll
                for (int j = 0; j < LANE; j++) pivot[j] += v[j];
            }
#pragma unroll
            for (int j = 0; j < LANE; j++) pivot[j] = few > 0 ? pivot[j] / (float)few : 0.0f;
            for (; r < end; r += NORM_AHEAD * g.step) {
                norm_raw<LANE, T> raw[NORM_AHEAD];
#pragma unroll
                for (int k = 0; k < NORM_AHEAD; k++)
                    if (r + k * g.step < end) raw[k].load(x + (r + k * g.step) * g.c + c);
#pragma unroll
                for (int k = 0; k < NORM_AHEAD; k++) {
                    if (r + k * g.step >= end) continue;
                    float v[LANE];
                    raw[k].unpack(v);
#pragma unroll
                    for (int j = 0; j < LANE; j++) {
                        const float d = v[j] - pivot[j];
                        s1[j] += d;
                        s2[j] = fmaf(d, d, s2[j]);
                    }
                }
            }
        }
        __syncthreads();
#pragma unroll
        for (int j = 0; j < LANE; j++) {
            const int at = line * width + column * LANE + j;
            pivots[at] = pivot[j];
            firsts[at] = s1[j];
            seconds[at] = s2[j];
        }
        __syncthreads();
        for (int j = tid; j < width; j += NORM_THREADS) {
            if (c0 + j >= g.c) continue;
            double total = 0.0, spread = 0.0;
            for (int l = 0; l < g.step; l++) { /* line l has rows begin + l, begin + l + step, ... */
                const int64_t n = end - begin > l ? (end - begin - l + g.step - 1) / g.step : 0;
                total += (double)n * (double)pivots[l * width + j] + (double)firsts[l * width + j];
            }
            const double centre = total / (double)(end - begin);
            for (int l = 0; l < g.step; l++) {
                const int64_t n = end - begin > l ? (end - begin - l + g.step - 1) / g.step : 0;
                if (n == 0) continue;
                const double first = (double)firsts[l * width + j], off = (double)pivots[l * width + j] + first / (double)n - centre;
                spread += (double)seconds[l * width + j] - first * first / (double)n + (double)n * off * off;
            }
            mean[part * g.c + c0 + j] = centre;
            squares[part * g.c + c0 + j] = spread;
        }
    }
}

#define FINISH_CHANNELS 32
#define FINISH_LINES 32

/* mean = sum n_i mean_i / M, then var = sum (squares_i + n_i (mean_i - mean)^2) / M; or both from the running statistics. */
__global__ void __launch_bounds__(FINISH_CHANNELS * FINISH_LINES)
    norm_finish_kernel(batch_norm_args a, const double *mean, const double *squares, norm_grid g)
{
    CUDA_SHARED(double, table, [FINISH_LINES][FINISH_CHANNELS]);
    const int line = (int)threadIdx.x / FINISH_CHANNELS;
    for (int64_t c0 = (int64_t)blockIdx.x * FINISH_CHANNELS; c0 < a.c; c0 += (int64_t)gridDim.x * FINISH_CHANNELS) {
        const int64_t c = c0 + (int)threadIdx.x % FINISH_CHANNELS;
        const bool own = line == 0 && c < a.c;
        if (!a.train) {
            if (own) {
                a.mean[c] = a.running_mean[c];
                a.rstd[c] = (float)(1.0 / sqrt((double)a.running_var[c] + (double)a.eps));
            }
            continue;
        }
        const double rows = (double)g.rows;
        double total = 0.0, spread = 0.0;
        for (int64_t part = line; part < g.parts && c < a.c; part += FINISH_LINES) {
            const int64_t left = g.rows - part * g.part_rows, n = left < g.part_rows ? left : g.part_rows;
            total += (double)n * mean[part * a.c + c];
        }
        total = norm_over_lines<FINISH_CHANNELS, FINISH_LINES>(table, total) / rows;
        for (int64_t part = line; part < g.parts && c < a.c; part += FINISH_LINES) {
            const int64_t left = g.rows - part * g.part_rows, n = left < g.part_rows ? left : g.part_rows;
            const double off = mean[part * a.c + c] - total;
            spread += squares[part * a.c + c] + (double)n * off * off;
        }
        spread = norm_over_lines<FINISH_CHANNELS, FINISH_LINES>(table, spread);
        if (!own) continue;
        a.mean[c] = (float)total;
        a.rstd[c] = (float)(1.0 / sqrt(spread / rows + (double)a.eps));
        const double momentum = (double)a.momentum, unbiased = g.rows > 1 ? 1.0 / (rows - 1.0) : 1.0;
        if (a.running_mean) {
            const double r = (double)a.running_mean[c];
            a.running_mean[c] = (float)(r + momentum * (total - r));
        }
        if (a.running_var) {
            const double r = (double)a.running_var[c];
            a.running_var[c] = (float)(r + momentum * (spread * unbiased - r));
        }
    }
}

/* y; a thread keeps its channels' values until the image changes. */
template <typename T, int LANE>
__global__ void __launch_bounds__(NORM_THREADS, 3) norm_apply_kernel(batch_norm_args a, norm_grid g)
{
    const int column = (int)threadIdx.x % g.wide, line = (int)threadIdx.x / g.wide, width = g.wide * LANE;
    const T *x = (const T *)a.x;
    T *y = (T *)a.y;
    const int64_t items = g.parts * g.tiles;
    for (int64_t i = blockIdx.x; i < items; i += gridDim.x) {
        const int64_t item = items - 1 - i, c = item % g.tiles * width + column * LANE, begin = item / g.tiles * g.part_rows;
        const int64_t end = begin + g.part_rows < g.rows ? begin + g.part_rows : g.rows;
        if (c >= g.c) continue;
        norm_channels<LANE> own = {};
        for (int64_t r = begin + line; r < end; r += NORM_AHEAD * g.step) {
            norm_raw<LANE, T> raw[NORM_AHEAD];
#pragma unroll
            for (int k = 0; k < NORM_AHEAD; k++)
                if (r + k * g.step < end) raw[k].load(x + (r + k * g.step) * g.c + c);
#pragma unroll
            for (int k = 0; k < NORM_AHEAD; k++) {
                const int64_t row = r + k * g.step;
                if (row >= end) continue;
                own.follow(a, row, c);
                float v[LANE];
                raw[k].unpack(v);
#pragma unroll
                for (int j = 0; j < LANE; j++) {
                    const float f = own.affine(j, v[j] - own.mean[j]);
                    v[j] = own.label < 0 || (a.relu && f < 0.0f) ? 0.0f : f;
                }
                norm_raw<LANE, T>::store(y + row * g.c + c, v);
            }
        }
    }
}

template <typename T, int LANE> static int forward_lanes(sag_kernel_env *env, const batch_norm_args *a)
{
    const norm_grid g = norm_grid_of(1, a->n * a->spatial, a->c, LANE);
    const unsigned blocks = cuda_blocks(g.parts * g.tiles, 1);
    double *mean = NULL, *squares = NULL;
    if (a->train) {
        const size_t table = (size_t)(g.parts * a->c) * sizeof *mean;
        mean = (double *)env->scratch(env, table);
        squares = (double *)env->scratch(env, table);
        if (!mean || !squares) return SAG_KERNEL_NO_MEMORY;
        CUDA_TRY(CUDA_LAUNCH(env, (norm_moments_kernel<T, LANE>), blocks, NORM_THREADS, 0, mean, squares, (const T *)a->x, g));
    }
    CUDA_TRY(CUDA_LAUNCH(env, norm_finish_kernel, cuda_blocks(a->c, FINISH_CHANNELS), FINISH_CHANNELS * FINISH_LINES, 0, *a, mean, squares,
                         g));
    return CUDA_LAUNCH(env, (norm_apply_kernel<T, LANE>), blocks, NORM_THREADS, 0, *a, g);
}

template <typename T> static int forward(sag_kernel_env *env, const batch_norm_args *a)
{
    if (a->n * a->spatial < 1 || a->c < 1) return SAG_KERNEL_OK;
    if (norm_aligned<T>(a->c, a->x, a->y, NULL)) return forward_lanes<T, 16 / sizeof(T)>(env, a);
    return forward_lanes<T, 1>(env, a);
}

static int cuda_batch_norm_fwd(sag_kernel_env *env, const batch_norm_args *a)
{
    return CUDA_BY_DTYPE(a->act, forward, env, a);
}

CUDA_REGISTER(norm)
{
    t->batch_norm_fwd = cuda_batch_norm_fwd;
    t->batch_norm_bwd = cuda_batch_norm_bwd;
}
