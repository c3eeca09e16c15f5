/*
 * norm_bwd.cu - gradients of batch normalisation. With d = dy, masked by y > 0 if f is the ReLU, M rows, and sums over
 * them per channel:
 *   dbias = sum d,  dgain = sum d (x - mean) rstd
 *   dx = rstd (g d - A / M - (x - mean) rstd B / M),  A = sum g d,  B = sum g d (x - mean) rstd    (train)
 *   dx = rstd g d                                                                                  (running statistics)
 *
 * Two launches: sums of pieces, each inside one image so that it has one label, f32 within a thread and f64 beyond, which the
 * last blocks add up to A, B and, where there is one class, dgain and dbias; then dx, and beside it in the same launch the tables of
 * many classes, images of a class in order. Memory bounds it: x and dy read twice, dx written once; the last pass goes backwards
 * over the blocks, as the first left their end in the L2 cache. The mask comes from x, by the very expression that forward
 * uses. An image whose label has no row in the tables counts nowhere and gets zeros.
 */
#include "kernels/cuda/norm.cuh"

/* d of a channel; the comparison is turned so that NaN goes through. */
template <int LANE>
__device__ static inline float gradient(const norm_channels<LANE> &own, int j, float centred, float dy, int relu)
{
    return own.label < 0 || (relu && own.affine(j, centred) <= 0.0f) ? 0.0f : dy;
}

/* first {pieces,c} = sum d, second = sum d (x - mean). */
struct norm_sums {
    double *first, *second;
};

/* shift = rstd A / M, slope = rstd^2 B / M; NULL: not wanted. */
struct norm_slopes {
    float *shift, *slope;
};

/* The end of all sums: s1 = sum d, s2 = sum d (x - mean) of a channel, times each image's gain where images have labels. */
__device__ static inline void keep_sums(const batch_norm_args &a, const norm_slopes &to, int64_t c, double s1, double s2)
{
    const double rstd = (double)a.rstd[c], rows = (double)(a.n * a.spatial);
    double gain = 1.0;
    if (!a.labels) {
        gain = (double)norm_gain(a, 0, c);
        if (a.dbias) cuda_put(a.dbias + c, (float)s1, a.accumulate_dbias);
        if (a.dgain) cuda_put(a.dgain + c, (float)(rstd * s2), a.accumulate_dgain);
    }
    if (!to.shift) return;
    to.shift[c] = (float)(rstd * (gain * s1) / rows);
    to.slope[c] = (float)(rstd * rstd * (rstd * (gain * s2)) / rows);
}

/* The sums of each piece; behind them those of the groups (groups.pieces 0: nobody wants them). g: of one image. */
template <typename T, int LANE>
__global__ void __launch_bounds__(NORM_THREADS, 2)
    norm_gradient_sums_kernel(norm_sums of_pieces, norm_sums of_groups, batch_norm_args a, norm_slopes to, norm_grid g, int64_t images,
                              norm_groups groups)
{
    CUDA_SHARED(float, firsts, [NORM_THREADS * LANE]);
    CUDA_SHARED(float, seconds, [NORM_THREADS * LANE]);
    const int tid = (int)threadIdx.x, column = tid % g.wide, line = tid / g.wide, width = g.wide * LANE;
    for (int64_t item = blockIdx.x; item < images * g.parts * g.tiles; item += gridDim.x) {
        const int64_t c0 = item % g.tiles * width, c = c0 + column * LANE, piece = item / g.tiles, image = piece / g.parts;
        const int64_t begin = piece % g.parts * g.part_rows, end = begin + g.part_rows < g.rows ? begin + g.part_rows : g.rows;
        const T *x = (const T *)a.x + image * g.rows * g.c + c, *dy = (const T *)a.dy + image * g.rows * g.c + c;
        float s1[LANE] = {}, s2[LANE] = {};
        if (c < g.c) {
            norm_channels<LANE> own = {};
            own.load(a, image, c);
            for (int64_t r = begin + line; r < end; r += NORM_AHEAD * g.step) {
                norm_raw<LANE, T> raw_x[NORM_AHEAD], raw_dy[NORM_AHEAD];
#pragma unroll
                for (int k = 0; k < NORM_AHEAD; k++) {
                    if (r + k * g.step >= end) continue;
                    raw_x[k].load(x + (r + k * g.step) * g.c);
                    raw_dy[k].load(dy + (r + k * g.step) * g.c);
                }
#pragma unroll
                for (int k = 0; k < NORM_AHEAD; k++) {
                    if (r + k * g.step >= end) continue;
                    float v[LANE], d[LANE];
                    raw_x[k].unpack(v);
                    raw_dy[k].unpack(d);
#pragma unroll
                    for (int j = 0; j < LANE; j++) {
                        const float centred = v[j] - own.mean[j], grad = gradient(own, j, centred, d[j], a.relu);
                        s1[j] += grad;
                        s2[j] = fmaf(grad, centred, s2[j]);
                    }
                }
            }
        }
        __syncthreads();
#pragma unroll
        for (int j = 0; j < LANE; j++) {
            firsts[line * width + column * LANE + j] = s1[j];
            seconds[line * width + column * LANE + j] = s2[j];
        }
        __syncthreads();
        for (int j = tid; j < width; j += NORM_THREADS) {
            if (c0 + j >= g.c) continue;
            double sum1 = 0.0, sum2 = 0.0;
            for (int l = 0; l < g.step; l++) {
                sum1 += (double)firsts[l * width + j];
                sum2 += (double)seconds[l * width + j];
            }
            of_pieces.first[piece * g.c + c0 + j] = sum1;
            of_pieces.second[piece * g.c + c0 + j] = sum2;
        }
        if (groups.pieces == 0) continue;
        const int64_t own = c0 + tid; /* a channel a thread: a tile has no more channels than threads */
        const bool adds = tid < width && own < g.c;
        norm_gather(
            groups, piece, item % g.tiles,
            [&](int64_t group, int64_t from, int64_t behind) {
                if (!adds) return;
                double sum1 = 0.0, sum2 = 0.0;
#pragma unroll 8
                for (int64_t i = from; i < behind; i++) {
                    const int64_t label = a.labels ? norm_label(a, i / g.parts) : -1; /* without a row: sums of 0 */
                    const double gain = label < 0 ? 1.0 : (double)norm_gain(a, label, own);
                    sum1 += gain * of_pieces.first[i * g.c + own];
                    sum2 += gain * of_pieces.second[i * g.c + own];
                }
                of_groups.first[group * g.c + own] = sum1;
                of_groups.second[group * g.c + own] = sum2;
            },
            [&] {
                if (!adds) return;
                double sum1 = 0.0, sum2 = 0.0;
#pragma unroll 8
                for (int64_t i = 0; i < groups.groups; i++) {
                    sum1 += of_groups.first[i * g.c + own];
                    sum2 += of_groups.second[i * g.c + own];
                }
                keep_sums(a, to, own, sum1, sum2);
            });
    }
}

#define TABLE_CHANNELS 128
#define TABLE_LINES (NORM_THREADS / TABLE_CHANNELS) /* shares, which are added in order */

/* dgain and dbias of one class, for a tile of channels, from the sums of the pieces of its images, which the block lists. */
__device__ static void table_of_class(const batch_norm_args &a, const norm_sums &of_pieces, int64_t parts, int64_t label, int64_t tile)
{
    CUDA_SHARED(double, table, [TABLE_LINES][TABLE_CHANNELS]);
    CUDA_SHARED(int64_t, list, [NORM_THREADS]);
    CUDA_SHARED(int, counts, [NORM_THREADS / 32]);
    const int tid = (int)threadIdx.x, lane = tid & 31, warp = tid >> 5, line = tid / TABLE_CHANNELS;
    const int64_t c = tile * TABLE_CHANNELS + tid % TABLE_CHANNELS;
    double s1 = 0.0, s2 = 0.0;
    bool met = false;
    for (int64_t image0 = 0; image0 < a.n; image0 += NORM_THREADS) {
        const int64_t image = image0 + tid;
        const bool take = image < a.n && norm_label(a, image) == label;
        const unsigned taken = __ballot_sync(0xffffffffu, take);
        __syncthreads();
        if (lane == 0) counts[warp] = __popc(taken);
        __syncthreads();
        int before = 0, count = 0;
        for (int w = 0; w < NORM_THREADS / 32; w++) {
            before += w < warp ? counts[w] : 0;
            count += counts[w];
        }
        if (take) list[before + __popc(taken & ((1u << lane) - 1u))] = image;
        __syncthreads();
        met = met || count > 0;
        for (int64_t i = line; i < count * parts && c < a.c; i += TABLE_LINES) {
            const int64_t at = (list[i / parts] * parts + i % parts) * a.c + c;
            s1 += of_pieces.first[at];
            s2 += of_pieces.second[at];
        }
    }
    s1 = norm_over_lines<TABLE_CHANNELS, TABLE_LINES>(table, s1);
    s2 = norm_over_lines<TABLE_CHANNELS, TABLE_LINES>(table, s2);
    if (line != 0 || c >= a.c) return;
    if (a.dbias && (met || !a.accumulate_dbias)) cuda_put(a.dbias + label * a.c + c, (float)s1, a.accumulate_dbias);
    if (a.dgain && (met || !a.accumulate_dgain))
        cuda_put(a.dgain + label * a.c + c, (float)((double)a.rstd[c] * s2), a.accumulate_dgain);
}

/* The first `tables` items: dgain and dbias of a class and a tile of channels. The others: dx (+)= factor * d - shift -
 * (x - mean) * slope; shift NULL: without the last two. dx may be dy. g: of all rows; parts: pieces of an image. */
template <typename T, int LANE>
__global__ void __launch_bounds__(NORM_THREADS, 2)
    norm_dx_kernel(batch_norm_args a, norm_slopes from, norm_grid g, norm_sums of_pieces, int64_t parts, int64_t tables)
{
    const int column = (int)threadIdx.x % g.wide, line = (int)threadIdx.x / g.wide, width = g.wide * LANE;
    const T *x = (const T *)a.x, *dy = (const T *)a.dy;
    T *dx = (T *)a.dx;
    const int64_t items = a.dx ? g.parts * g.tiles : 0, channel_tiles = (a.c + TABLE_CHANNELS - 1) / TABLE_CHANNELS;
    for (int64_t i = blockIdx.x; i < tables + items; i += gridDim.x) {
        if (i < tables) {
            table_of_class(a, of_pieces, parts, i / channel_tiles, i % channel_tiles);
            continue;
        }
        const int64_t item = tables + items - 1 - i, c = item % g.tiles * width + column * LANE, begin = item / g.tiles * g.part_rows;
        const int64_t end = begin + g.part_rows < g.rows ? begin + g.part_rows : g.rows;
        if (c >= g.c) continue;
        norm_channels<LANE> own = {};
        float off[LANE], per[LANE];
#pragma unroll
        for (int j = 0; j < LANE; j++) {
            off[j] = from.shift ? from.shift[c + j] : 0.0f;
            per[j] = from.shift ? from.slope[c + j] : 0.0f;
        }
        for (int64_t r = begin + line; r < end; r += NORM_AHEAD * g.step) {
            norm_raw<LANE, T> raw_x[NORM_AHEAD], raw_dy[NORM_AHEAD];
#pragma unroll
            for (int k = 0; k < NORM_AHEAD; k++) {
                if (r + k * g.step >= end) continue;
                raw_x[k].load(x + (r + k * g.step) * g.c + c);
                raw_dy[k].load(dy + (r + k * g.step) * g.c + c);
            }
#pragma unroll
            for (int k = 0; k < NORM_AHEAD; k++) {
                const int64_t row = r + k * g.step;
                if (row >= end) continue;
                own.follow(a, row, c);
                float v[LANE], d[LANE];
                raw_x[k].unpack(v);
                raw_dy[k].unpack(d);
#pragma unroll
                for (int j = 0; j < LANE; j++) {
                    const float centred = v[j] - own.mean[j];
                    d[j] = gradient(own, j, centred, d[j], a.relu) * own.factor[j];
                    if (from.shift && own.label >= 0) d[j] = (d[j] - off[j]) - centred * per[j];
                }
                if (a.accumulate) {
                    norm_raw<LANE, T> before;
                    before.load(dx + row * g.c + c);
                    before.unpack(v);
#pragma unroll
                    for (int j = 0; j < LANE; j++) d[j] += v[j];
                }
                norm_raw<LANE, T>::store(dx + row * g.c + c, d);
            }
        }
    }
}

template <typename T, int LANE> static int backward_lanes(sag_kernel_env *env, const batch_norm_args *a)
{
    const bool coupled = a->dx && a->train, tabled = a->dgain || a->dbias;
    norm_sums of_pieces = {};
    norm_slopes slopes = {};
    int64_t parts = 0, tables = 0;
    if (tabled || coupled) {
        const int64_t images = a->labels ? a->n : 1;
        const norm_grid g = norm_grid_of(images, a->n * a->spatial / images, a->c, LANE);
        norm_groups groups = {};
        if ((coupled || !a->labels) && !norm_groups_of(env, images * g.parts, g.tiles, &groups)) return SAG_KERNEL_UNSUPPORTED;
        const int64_t pieces = images * g.parts * a->c, all = pieces + groups.groups * a->c;
        of_pieces.first = (double *)env->scratch(env, (size_t)(2 * all) * sizeof(double));
        if (!of_pieces.first) return SAG_KERNEL_NO_MEMORY;
        of_pieces.second = of_pieces.first + all;
        const norm_sums of_groups = {of_pieces.first + pieces, of_pieces.second + pieces};
        if (coupled) {
            slopes.shift = (float *)env->scratch(env, (size_t)(2 * a->c) * sizeof *slopes.shift);
            if (!slopes.shift) return SAG_KERNEL_NO_MEMORY;
            slopes.slope = slopes.shift + a->c;
        }
        CUDA_TRY(CUDA_LAUNCH(env, (norm_gradient_sums_kernel<T, LANE>), cuda_blocks(images * g.parts * g.tiles, 1), NORM_THREADS, 0,
                             of_pieces, of_groups, *a, slopes, g, images, groups));
        parts = g.parts;
        if (tabled && a->labels) tables = cuda_ceil_div(a->c, TABLE_CHANNELS) * a->classes;
    }
    if (!a->dx && tables == 0) return SAG_KERNEL_OK;
    const norm_grid g = norm_grid_of(1, a->n * a->spatial, a->c, LANE);
    return CUDA_LAUNCH(env, (norm_dx_kernel<T, LANE>), cuda_blocks(tables + (a->dx ? g.parts * g.tiles : 0), 1), NORM_THREADS, 0, *a,
                       slopes, g, of_pieces, parts, tables);
}

template <typename T> static int backward(sag_kernel_env *env, const batch_norm_args *a)
{
    if (a->n * a->spatial < 1 || a->c < 1) return SAG_KERNEL_OK;
    if (norm_aligned<T>(a->c, a->x, a->dy, a->dx)) return backward_lanes<T, 16 / sizeof(T)>(env, a);
    return backward_lanes<T, 1>(env, a);
}

int cuda_batch_norm_bwd(sag_kernel_env *env, const batch_norm_args *a)
{
    return CUDA_BY_DTYPE(a->act, backward, env, a);
}
