/*
 * norm_bwd.cu - gradients of batch normalisation. With d = dy, masked by y > 0 if f is the ReLU, M rows, and sums over
 * them per channel:
 *   dbias = sum d,  dgain = sum d (x - mean) rstd
 *   dx = rstd (g d - A / M - (x - mean) rstd B / M),  A = sum g d,  B = sum g d (x - mean) rstd    (train)
 *   dx = rstd g d                                                                                  (running statistics)
 *
 * Launches: sums of pieces, each inside one image so that it has one label, f32 within a thread and f64 beyond; the tables
 * and A, B from them, images of a class in order; dx. Memory bounds it: x and dy read twice, dx written once; the last pass
 * goes backwards over the blocks, as the first left their end in the L2 cache. The mask comes from x, by the very expression
 * that forward uses. An image whose label has no row in the tables counts nowhere and gets zeros.
 */
#include "kernels/cuda/norm.cuh"

/* d of a channel; the comparison is turned so that NaN goes through. */
template <int LANE>
__device__ static inline float gradient(const norm_channels<LANE> &own, int j, float centred, float dy, int relu)
{
    return own.label < 0 || (relu && own.affine(j, centred) <= 0.0f) ? 0.0f : dy;
}

/* first {images,parts,c} = sum d, second = sum d (x - mean). g: of one image. */
template <typename T, int LANE>
__global__ void __launch_bounds__(NORM_THREADS, 2)
    norm_gradient_sums_kernel(double *first, double *second, batch_norm_args a, norm_grid g, int64_t images)
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
            first[piece * g.c + c0 + j] = sum1;
            second[piece * g.c + c0 + j] = sum2;
        }
    }
}

/*
 * Sums over images and their pieces for CHANNELS channels, LINES shares that are added in order. Tables (shift NULL): a block
 * for each class, which lists its images, to dgain and dbias. Else over all images, each with its gain:
 * shift = rstd A / M, slope = rstd^2 B / M.
 */
template <int CHANNELS, int LINES>
__global__ void __launch_bounds__(CHANNELS *LINES)
    norm_gradient_fold_kernel(batch_norm_args a, const double *first, const double *second, int64_t images, int64_t parts, float *shift,
                              float *slope)
{
    CUDA_SHARED(double, table, [LINES][CHANNELS]);
    CUDA_SHARED(int64_t, list, [CHANNELS * LINES]);
    CUDA_SHARED(int, counts, [CHANNELS * LINES / 32]);
    const int tid = (int)threadIdx.x, lane = tid & 31, warp = tid >> 5, line = tid / CHANNELS;
    const int64_t tiles = (a.c + CHANNELS - 1) / CHANNELS, classes = shift ? 1 : a.labels ? a.classes : 1;
    for (int64_t item = blockIdx.x; item < tiles * classes; item += gridDim.x) {
        const int64_t c = item % tiles * CHANNELS + tid % CHANNELS, label = item / tiles;
        double s1 = 0.0, s2 = 0.0;
        bool met = false;
        for (int64_t image0 = 0; image0 < images; image0 += CHANNELS * LINES) {
            const int64_t image = image0 + tid, own = image < images ? norm_label(a, image) : -1;
            const bool take = shift ? own >= 0 : own == label;
            const unsigned taken = __ballot_sync(0xffffffffu, take);
            __syncthreads();
            if (lane == 0) counts[warp] = __popc(taken);
            __syncthreads();
            int before = 0, count = 0;
            for (int w = 0; w < CHANNELS * LINES / 32; w++) {
                before += w < warp ? counts[w] : 0;
                count += counts[w];
            }
            if (take) list[before + __popc(taken & ((1u << lane) - 1u))] = image;
            __syncthreads();
            met = met || count > 0;
            for (int64_t i = line; i < count * parts && c < a.c; i += LINES) {
                const int64_t from = list[i / parts], at = (from * parts + i % parts) * a.c + c;
                const double factor = shift ? (double)norm_gain(a, norm_label(a, from), c) : 1.0;
                s1 += factor * first[at];
                s2 += factor * second[at];
            }
        }
        s1 = norm_over_lines<CHANNELS, LINES>(table, s1);
        s2 = norm_over_lines<CHANNELS, LINES>(table, s2);
        if (line != 0 || c >= a.c) continue;
        const double rstd = (double)a.rstd[c], rows = (double)(a.n * a.spatial);
        if (shift) {
            shift[c] = (float)(rstd * s1 / rows);
            slope[c] = (float)(rstd * rstd * (rstd * s2) / rows);
            continue;
        }
        if (a.dbias && (met || !a.accumulate_dbias)) cuda_put(a.dbias + label * a.c + c, (float)s1, a.accumulate_dbias);
        if (a.dgain && (met || !a.accumulate_dgain)) cuda_put(a.dgain + label * a.c + c, (float)(rstd * s2), a.accumulate_dgain);
    }
}

/* dx (+)= factor * d - shift - (x - mean) * slope; shift NULL: without the last two. dx may be dy. g: of all rows. */
template <typename T, int LANE>
__global__ void __launch_bounds__(NORM_THREADS, 2) norm_dx_kernel(batch_norm_args a, const float *shift, const float *slope, norm_grid g)
{
    const int column = (int)threadIdx.x % g.wide, line = (int)threadIdx.x / g.wide, width = g.wide * LANE;
    const T *x = (const T *)a.x, *dy = (const T *)a.dy;
    T *dx = (T *)a.dx;
    const int64_t items = g.parts * g.tiles;
    for (int64_t i = blockIdx.x; i < items; i += gridDim.x) {
        const int64_t item = items - 1 - i, c = item % g.tiles * width + column * LANE, begin = item / g.tiles * g.part_rows;
        const int64_t end = begin + g.part_rows < g.rows ? begin + g.part_rows : g.rows;
        if (c >= g.c) continue;
        norm_channels<LANE> own = {};
        float off[LANE], per[LANE];
#pragma unroll
        for (int j = 0; j < LANE; j++) {
            off[j] = shift ? shift[c + j] : 0.0f;
            per[j] = shift ? slope[c + j] : 0.0f;
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
                    if (shift && own.label >= 0) d[j] = (d[j] - off[j]) - centred * per[j];
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

template <int CHANNELS, int LINES>
static int fold(sag_kernel_env *env, const batch_norm_args *a, const double *first, const double *second, int64_t images, int64_t parts,
                float *shift, float *slope)
{
    const int64_t items = cuda_ceil_div(a->c, CHANNELS) * (shift || !a->labels ? 1 : a->classes);
    return CUDA_LAUNCH(env, (norm_gradient_fold_kernel<CHANNELS, LINES>), cuda_blocks(items, 1), CHANNELS * LINES, 0, *a, first, second,
                       images, parts, shift, slope);
}

template <typename T, int LANE> static int backward_lanes(sag_kernel_env *env, const batch_norm_args *a)
{
    const bool coupled = a->dx && a->train;
    float *shift = NULL, *slope = NULL;
    if (a->dgain || a->dbias || coupled) {
        const int64_t images = a->labels ? a->n : 1;
        const norm_grid g = norm_grid_of(images, a->n * a->spatial / images, a->c, LANE);
        const size_t sums = (size_t)(images * g.parts * a->c) * sizeof(double);
        double *first = (double *)env->scratch(env, sums), *second = (double *)env->scratch(env, sums);
        if (!first || !second) return SAG_KERNEL_NO_MEMORY;
        CUDA_TRY(CUDA_LAUNCH(env, (norm_gradient_sums_kernel<T, LANE>), cuda_blocks(images * g.parts * g.tiles, 1), NORM_THREADS, 0,
                             first, second, *a, g, images));
        if (a->dgain || a->dbias)
            CUDA_TRY(a->labels ? (fold<128, 2>(env, a, first, second, images, g.parts, NULL, NULL))
                               : (fold<32, 32>(env, a, first, second, images, g.parts, NULL, NULL)));
        if (coupled) {
            shift = (float *)env->scratch(env, (size_t)(2 * a->c) * sizeof *shift);
            if (!shift) return SAG_KERNEL_NO_MEMORY;
            slope = shift + a->c;
            CUDA_TRY((fold<32, 32>(env, a, first, second, images, g.parts, shift, slope)));
        }
    }
    if (!a->dx) return SAG_KERNEL_OK;
    const norm_grid g = norm_grid_of(1, a->n * a->spatial, a->c, LANE);
    return CUDA_LAUNCH(env, (norm_dx_kernel<T, LANE>), cuda_blocks(g.parts * g.tiles, 1), NORM_THREADS, 0, *a, shift, slope, g);
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
