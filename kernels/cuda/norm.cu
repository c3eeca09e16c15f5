/*
 * norm.cu - batch normalisation, plain and class-conditional, with an optional ReLU (batch_norm_args).
 *
 *   y = f((x - mean) * rstd * g + b),  g = gain + gain_offset (1 without gain), rstd = 1 / sqrt(var + eps)
 *
 * Two launches: moments of pieces, which its last blocks combine (they also move the running statistics), and y; not train: the
 * running statistics, and y. Each thread sums d = x - p and d^2 about a pivot p near its own mean, in f32; threads and pieces
 * are combined in f64 (Chan, Golub, LeVeque), so a large mean costs no digits. Memory bounds it: x read twice, y written once.
 * The last pass goes over the blocks backwards, as the first left the end of x in the L2 cache. An image whose label has no
 * row in the tables gives zeros.
 */
#include "kernels/cuda/norm.cuh"

int cuda_batch_norm_bwd(sag_kernel_env *env, const batch_norm_args *a);

/* mean {parts,c} and squares {parts,c} (sum (x - mean)^2) of each piece; behind them those of the groups. */
struct norm_moments {
    double *mean, *squares;
};

/* Of the units first .. end - 1, each of `unit_rows` rows but the last one of all, for channel c: about the mean of the first. */
__device__ static inline void moments_of_units(double *mean, double *squares, const norm_moments &m, int64_t first, int64_t end,
                                               int64_t unit_rows, const norm_grid &g, int64_t c)
{
    const double pivot = m.mean[first * g.c + c];
    double sum = 0.0, spread = 0.0;
#pragma unroll 8
    for (int64_t i = first; i < end; i++) {
        const int64_t left = g.rows - i * unit_rows;
        const double n = (double)(left < unit_rows ? left : unit_rows), off = m.mean[i * g.c + c] - pivot;
        sum += n * off;
        spread += m.squares[i * g.c + c] + n * off * off;
    }
    const double rows = (double)((end * unit_rows < g.rows ? end * unit_rows : g.rows) - first * unit_rows);
    *mean = pivot + sum / rows;
    *squares = spread - sum * sum / rows;
}

/* What the batch's mean and sum of squares about it are to forward, backward and later evaluation. */
__device__ static inline void keep_moments(const batch_norm_args &a, int64_t c, double mean, double squares, double rows)
{
    a.mean[c] = (float)mean;
    a.rstd[c] = (float)(1.0 / sqrt(squares / rows + (double)a.eps));
    const double momentum = (double)a.momentum, unbiased = rows > 1.0 ? 1.0 / (rows - 1.0) : 1.0;
    if (a.running_mean) {
        const double r = (double)a.running_mean[c];
        a.running_mean[c] = (float)(r + momentum * (mean - r));
    }
    if (a.running_var) {
        const double r = (double)a.running_var[c];
        a.running_var[c] = (float)(r + momentum * (squares * unbiased - r));
    }
}

template <typename T, int LANE>
__global__ void __launch_bounds__(NORM_THREADS, 3)
    norm_moments_kernel(batch_norm_args a, norm_moments of_parts, norm_moments of_groups, norm_grid g, norm_groups groups)
{
    const T *x = (const T *)a.x;
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
            of_parts.mean[part * g.c + c0 + j] = centre;
            of_parts.squares[part * g.c + c0 + j] = spread;
        }
        const int64_t own = c0 + tid; /* a channel a thread: a tile has no more channels than threads */
        const bool adds = tid < width && own < g.c;
        norm_gather(
            groups, part, item % g.tiles,
            [&](int64_t group, int64_t first, int64_t behind) {
                const int64_t at = group * g.c + own;
                if (adds) moments_of_units(of_groups.mean + at, of_groups.squares + at, of_parts, first, behind, g.part_rows, g, own);
            },
            [&] {
                double mean, squares;
                if (!adds) return;
                moments_of_units(&mean, &squares, of_groups, 0, groups.groups, groups.size * g.part_rows, g, own);
                keep_moments(a, own, mean, squares, (double)g.rows);
            });
    }
}

/* mean and rstd from the running statistics. */
__global__ void __launch_bounds__(NORM_THREADS) norm_running_kernel(batch_norm_args a)
{
    for (int64_t c = (int64_t)blockIdx.x * NORM_THREADS + threadIdx.x; c < a.c; c += (int64_t)gridDim.x * NORM_THREADS) {
        a.mean[c] = a.running_mean[c];
        a.rstd[c] = (float)(1.0 / sqrt((double)a.running_var[c] + (double)a.eps));
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
    if (a->train && !a->resumed) {
        norm_groups groups;
        if (!norm_groups_of(env, g.parts, g.tiles, &groups)) return SAG_KERNEL_UNSUPPORTED;
        const int64_t parts = g.parts * a->c, all = parts + groups.groups * a->c;
        double *table = (double *)env->scratch(env, (size_t)(2 * all) * sizeof *table);
        if (!table) return SAG_KERNEL_NO_MEMORY;
        const norm_moments of_parts = {table, table + all}, of_groups = {table + parts, table + all + parts};
        CUDA_TRY(CUDA_LAUNCH(env, (norm_moments_kernel<T, LANE>), blocks, NORM_THREADS, 0, *a, of_parts, of_groups, g, groups));
    } else if (!a->resumed) {
        CUDA_TRY(CUDA_LAUNCH(env, norm_running_kernel, cuda_blocks(a->c, NORM_THREADS), NORM_THREADS, 0, *a));
    }
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
