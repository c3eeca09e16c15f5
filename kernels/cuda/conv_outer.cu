/*
 * conv_outer.cu - dw[k][r][s][c] = sum over pixels of dy[pixel][k] * (patch of x at pixel)[r][s][c], the weight gradient,
 * as a matrix product {K, pixels} x {pixels, RSC} whose right matrix is never written; and db[k] = sum over pixels of
 * dy[pixel][k] from the stages that pass by.
 *
 * Bound by arithmetic with many channels, 2 pixels R S C K FLOP a call; with few by traffic: dy and x once from memory,
 * dy RSC / COLS times and x R S K / ROWS times from L2. dw is small and the pixels are many, so they are cut into pieces
 * of equal length (by shape alone), each with sums of its own in scratch, added in order at the end: the same bits at
 * every run, on every card.
 *
 * In shared memory pixels are rows, as they come: a stage is `depth` pixels of dy and of patches of x, and the products
 * read columns of it. Where a pixel lies in dy and x is worked out by one thread for all and passed through shared
 * memory one stage before it is needed.
 */
#include "kernels/cuda/conv_tile.cuh"

struct outer_job {
    conv_outer_job g;
    int64_t pixels, per_piece; /* of a phase; of a piece, a multiple of every depth */
    bool whole_sums;
};

enum { WHOLE_X = 1, WHOLE_Y = 2 }; /* chunks of x are aligned and of one tap; chunks of dy are aligned */

/* Pixel (i, j) of a phase: where it lies in dy, -1 beyond the last; where its patch starts in x. */
struct outer_pixel {
    int64_t y, x;
    int i, j;
};

/* A pixel of the grid of a phase, moved on by a stage at a time. */
struct pixel_walk {
    int64_t image, left; /* left: pixels of the piece from here on */
    int i, j, by_i, by_j, by;
    int64_t by_image;
};

__device__ static pixel_walk pixels_from(const conv_outer_job &g, int64_t m, int64_t end, int by)
{
    pixel_walk w;
    const int64_t plane = (int64_t)g.rows * g.cols;
    w.image = m / plane, w.left = end - m;
    const int at = (int)(m - w.image * plane);
    w.i = at / g.cols, w.j = at - w.i * g.cols;
    w.by = by, w.by_image = by / plane;
    const int rest = (int)(by - w.by_image * plane);
    w.by_i = rest / g.cols, w.by_j = rest - w.by_i * g.cols;
    return w;
}
__device__ static void pixels_on(pixel_walk *w, const conv_outer_job &g)
{
    w->left -= w->by, w->image += w->by_image, w->i += w->by_i, w->j += w->by_j;
    if (w->j >= g.cols) w->j -= g.cols, w->i++;
    if (w->i >= g.rows) w->i -= g.rows, w->image++;
}
__device__ static outer_pixel pixel_of(const pixel_walk &w, const conv_outer_job &g, int a, int b)
{
    outer_pixel p = {-1, 0, -(1 << 30), 0};
    if (w.left <= 0) return p;
    p.y = ((w.image * g.step * g.rows + w.i * g.step + a) * g.step * g.cols + w.j * g.step + b) * g.k;
    p.i = w.i * g.stride + a - g.pad_h, p.j = w.j * g.stride + b - g.pad_w;
    p.x = ((w.image * g.h + p.i) * g.w + p.j) * g.c;
    return p;
}

template <typename T, conv_math MATH, int ROWS, int COLS, int WARPS_DOWN, int WHOLE>
__global__ void __launch_bounds__(CONV_THREADS, WHOLE == (WHOLE_X | WHOLE_Y) ? 2 : 1) conv_outer_kernel(outer_job job)
{
    typedef conv_tile<MATH, ROWS, COLS, WARPS_DOWN> tile_type;
    typedef typename tile_type::element E;
    enum {
        depth = tile_type::depth,
        chunk = tile_type::chunk,
        stages = tile_type::stages,
        stage_bytes = tile_type::column_bytes
    };
    enum { y_pitch = ROWS + CONV_PAD, x_pitch = COLS + CONV_PAD };
    enum {
        y_chunks = ROWS / chunk,
        x_chunks = COLS / chunk,
        y_lines = CONV_THREADS / y_chunks,
        x_lines = CONV_THREADS / x_chunks
    };
    CUDA_DYNAMIC_SHARED(char, stage);
    CUDA_SHARED(outer_pixel, pixel, [2][depth]); /* of the next stage to load, and the one behind it */
    CUDA_SHARED(pixel_walk, walk, [depth]);      /* the first threads' own, as are the sums: here to spare registers */
    CUDA_SHARED(double, bias, [ROWS]);

    const conv_outer_job &g = job.g;
    const int tid = (int)threadIdx.x;
    const int width = g.want_weights ? g.r * g.s * g.c : 0;
    const unsigned across = (unsigned)(width > COLS ? (width + COLS - 1) / COLS : 1);
    const int row0 = (int)(blockIdx.x / across) * ROWS, col0 = (int)(blockIdx.x % across) * COLS;
    const int a = (int)blockIdx.y / g.step, b = (int)blockIdx.y % g.step;
    const int64_t first = blockIdx.z * job.per_piece;
    const int64_t end = first + job.per_piece < job.pixels ? first + job.per_piece : job.pixels;
    const int steps = (int)((end - first + depth - 1) / depth);

    const T *dy = static_cast<const T *>(g.dy), *x = static_cast<const T *>(g.x);
    if (tid < ROWS) bias[tid] = 0.0;
    /* A thread copies the same chunk of every y_lines-th, x_lines-th pixel. */
    const int y_col = row0 + tid % y_chunks * chunk, x_col = col0 + tid % x_chunks * chunk;
    const int y_line = tid / y_chunks, x_line = tid / x_chunks;
    const int tap = x_col / g.c, c = x_col - tap * g.c, u = tap / g.s, v = tap - u * g.s;
    const int64_t tap_at = ((int64_t)u * g.w + v) * g.c + c;

    if (tid < depth) walk[tid] = pixels_from(g, first + tid, end, depth);
    auto place = [&](int t) {
        if (tid >= depth) return;
        pixel[t & 1][tid] = pixel_of(walk[tid], g, a, b);
        pixels_on(&walk[tid], g);
    };
    auto load = [&](int t) {
        E *ys = reinterpret_cast<E *>(stage + t % stages * stage_bytes), *xs = ys + depth * y_pitch;
        const outer_pixel *at = pixel[t & 1];
#pragma unroll
        for (int n = 0; n < (depth + y_lines - 1) / y_lines; n++) {
            const int line = y_line + n * y_lines;
            if (line >= depth) break;
            E *to = ys + line * y_pitch + tid % y_chunks * chunk;
            const int64_t y = at[line].y;
            if constexpr ((WHOLE & WHOLE_Y) != 0) {
                const bool in = y >= 0 && y_col < g.k;
                cp_async_16(to, in ? dy + y + y_col : dy, in);
            } else {
                conv_gather<E>(to, [&](int e) { return y >= 0 && y_col + e < g.k ? dy + y + y_col + e : nullptr; });
            }
        }
#pragma unroll
        for (int n = 0; n < (depth + x_lines - 1) / x_lines; n++) {
            const int line = x_line + n * x_lines;
            if (line >= depth) break;
            E *to = xs + line * x_pitch + tid % x_chunks * chunk;
            const outer_pixel p = at[line];
            if constexpr ((WHOLE & WHOLE_X) != 0) {
                const bool in =
                    x_col < width && (unsigned)(p.i + u) < (unsigned)g.h && (unsigned)(p.j + v) < (unsigned)g.w;
                cp_async_16(to, in ? x + p.x + tap_at : x, in);
            } else {
                int at_u = u, at_v = v, at_c = c;
                conv_gather<E>(to, [&](int e) -> const T * {
                    const bool in = x_col + e < width && (unsigned)(p.i + at_u) < (unsigned)g.h &&
                                    (unsigned)(p.j + at_v) < (unsigned)g.w;
                    const T *from = in ? x + p.x + ((int64_t)at_u * g.w + at_v) * g.c + at_c : nullptr;
                    if (++at_c == g.c) {
                        at_c = 0;
                        if (++at_v == g.s) at_v = 0, at_u++;
                    }
                    return from;
                });
            }
        }
    };

    /* Plain sums: every thread clips what it copied of x itself, before the others see it. */
    auto clip = [&](int t) {
        if constexpr (MATH == CONV_PLAIN) {
            E *xs = reinterpret_cast<E *>(stage + t % stages * stage_bytes) + depth * y_pitch;
            for (int line = x_line; line < depth; line += x_lines) conv_clip(xs + line * x_pitch + tid % x_chunks * chunk);
        }
    };

    tile_type tile;
    tile.clear();
    const bool add_bias = g.want_bias && col0 == 0 && tid < ROWS;
    for (int t = 0; t < stages - 1; t++) {
        place(t);
        __syncthreads();
        if (t < steps) load(t);
        cp_async_commit();
    }
    place(stages - 1);
    auto stages_of = [&](auto fragments) {
        for (int t = 0; t < steps; t++) {
            cp_async_wait<stages - 2>();
            if (g.relu) clip(t);
            __syncthreads();
            const E *ys = reinterpret_cast<const E *>(stage + t % stages * stage_bytes);
            if (t + stages - 1 < steps) load(t + stages - 1);
            cp_async_commit();
            place(t + stages);
            tile.template add_columns<decltype(fragments)::clipped>(ys, ys + depth * y_pitch);
            if (add_bias) {
                float part = 0.0f;
    #pragma unroll 8
                for (int k = 0; k < depth; k++) part += cuda_float(ys[k * y_pitch + tid]);
                bias[tid] += (double)part;
            }
        }
    };
    if (MATH != CONV_PLAIN && g.relu) /* a loop each: in one with both the registers do not suffice */
        stages_of(conv_fragments<true>());
    else
        stages_of(conv_fragments<false>());
    cp_async_wait<0>();
    __syncthreads();

    const int64_t piece = (int64_t)blockIdx.z * g.phases + blockIdx.y;
    if (add_bias && row0 + tid < g.k) g.bias_sums[piece * g.k + row0 + tid] = (float)bias[tid];
    if (width == 0) return;
    const conv_target<float> target = {g.sums + piece * g.k * width, NULL, NULL, false, col0, width, 0, job.whole_sums};
    tile.template store<true>(
        stage, target, [&](int i) { return row0 + i < g.k ? (int64_t)(row0 + i) * width : (int64_t)-1; }, [](int) { return 0; });
}

/* -------------------------------------------------------------------------------------------------- launching */

enum { BLOCKS = 264, LEAST_PIXELS = 512 }; /* two blocks on each of 132 multiprocessors; a piece worth its sums */

template <typename T, conv_math MATH, int ROWS, int COLS, int WARPS_DOWN>
static int launch(sag_kernel_env *env, conv_outer_job *g)
{
    typedef conv_tile<MATH, ROWS, COLS, WARPS_DOWN> tile_type;
    outer_job job = {};
    const int64_t width = g->want_weights ? (int64_t)g->r * g->s * g->c : 0;
    const int64_t tiles = cuda_ceil_div(g->k, ROWS) * (width > 0 ? cuda_ceil_div(width, COLS) : 1);
    job.pixels = g->images * g->rows * g->cols;
    int64_t pieces = BLOCKS / (tiles * g->phases);
    if (pieces > cuda_ceil_div(job.pixels, LEAST_PIXELS)) pieces = cuda_ceil_div(job.pixels, LEAST_PIXELS);
    if (pieces < 1) pieces = 1;
    job.per_piece = cuda_ceil_div(cuda_ceil_div(job.pixels, pieces), 32) * 32;
    pieces = cuda_ceil_div(job.pixels, job.per_piece);
    if (tiles >= INT32_MAX || job.per_piece / 16 >= INT32_MAX) return SAG_KERNEL_UNSUPPORTED;
    g->pieces = (int)pieces;
    const size_t rows = (size_t)pieces * (size_t)g->phases * (size_t)g->k;
    g->sums = static_cast<float *>(env->scratch(env, (rows * (size_t)width + 1) * sizeof(float)));
    g->bias_sums = static_cast<float *>(env->scratch(env, rows * sizeof(float)));
    if (!g->sums || !g->bias_sums) return SAG_KERNEL_NO_MEMORY;
    job.whole_sums = width % 4 == 0;
    job.g = *g;
    /* Of the mixed cases those that occur: an image's channels beside a map's, at either end of a network. */
    enum { both = sizeof(T) == sizeof(typename tile_type::element) ? WHOLE_X | WHOLE_Y : 0 };
    enum { mixed = both & (ROWS == 16 ? WHOLE_X : COLS == 64 ? WHOLE_Y : 0) };
    const int whole = (g->c % tile_type::chunk == 0 && conv_aligned(g->x) ? WHOLE_X : 0) |
                      (g->k % tile_type::chunk == 0 && conv_aligned(g->dy) ? WHOLE_Y : 0);
    const dim3 grid((unsigned)tiles, (unsigned)g->phases, (unsigned)pieces);
    const size_t shared = (size_t)tile_type::stages * tile_type::column_bytes;
    if ((whole & both) == (WHOLE_X | WHOLE_Y))
        return CUDA_LAUNCH(env, (conv_outer_kernel<T, MATH, ROWS, COLS, WARPS_DOWN, both>), grid, CONV_THREADS, shared,
                           job);
    if ((whole & mixed) != 0)
        return CUDA_LAUNCH(env, (conv_outer_kernel<T, MATH, ROWS, COLS, WARPS_DOWN, mixed>), grid, CONV_THREADS, shared,
                           job);
    return CUDA_LAUNCH(env, (conv_outer_kernel<T, MATH, ROWS, COLS, WARPS_DOWN, 0>), grid, CONV_THREADS, shared, job);
}

/* The tile by shape: 16 rows for the layer that ends in an image, small ones where dw is. */
template <typename T, conv_math MATH> static int pick(sag_kernel_env *env, conv_outer_job *g)
{
    const int64_t width = (int64_t)g->r * g->s * g->c;
    if (g->k <= 16) return launch<T, MATH, 16, 128, 1>(env, g);
    if (width <= 64) return launch<T, MATH, 64, 64, 4>(env, g);
    if (g->k <= 64) return launch<T, MATH, 64, 128, 2>(env, g);
    return launch<T, MATH, 128, 128, 4>(env, g);
}

int conv_outer(sag_kernel_env *env, conv_outer_job *g)
{
    g->phases = g->step * g->step;
    g->pieces = 0;
    if (g->images * g->rows * g->cols == 0 || g->k == 0) return SAG_KERNEL_OK;
    const conv_math math = conv_math_for(env, g->act);
    if (g->act == SAG_F32) return math == CONV_TF32 ? pick<float, CONV_TF32>(env, g) : pick<float, CONV_PLAIN>(env, g);
    return math == CONV_BF16 ? pick<cuda_bf16, CONV_BF16>(env, g) : pick<cuda_bf16, CONV_PLAIN>(env, g);
}

/* ------------------------------------------------------------------------------------------------ adding pieces */

/*
 * Bound by memory: reads 4 n pieces bytes, which the kernel before left in L2, and writes 4 n. A warp has 32 neighbours; the
 * STRIPS warps of a block share the pieces, every STRIPS-th each, and the first adds up what they found: few weights
 * have many pieces, and one thread would wait for them one after the other.
 */
template <int STRIPS>
__global__ void __launch_bounds__(32 * STRIPS)
    conv_add_pieces_kernel(float *to, const float *from, int64_t n, int pieces, int accumulate)
{
    CUDA_SHARED(float, part, [STRIPS][32]);
    const int lane = (int)threadIdx.x & 31, strip = (int)threadIdx.x >> 5;
    for (int64_t i0 = (int64_t)blockIdx.x * 32; i0 < n; i0 += (int64_t)gridDim.x * 32) {
        const int64_t i = i0 + lane;
        float sum = 0.0f;
        if (i < n) {
#pragma unroll 8
            for (int p = strip; p < pieces; p += STRIPS) sum += from[p * n + i];
        }
        part[strip][lane] = sum;
        __syncthreads();
        if (strip == 0 && i < n) {
            for (int s = 1; s < STRIPS; s++) sum += part[s][lane];
            cuda_put(to + i, sum, accumulate);
        }
        __syncthreads();
    }
}

int conv_add_pieces(sag_kernel_env *env, float *to, const float *from, int64_t n, int pieces, int accumulate)
{
    if (n == 0) return SAG_KERNEL_OK;
    const unsigned blocks = cuda_blocks(n, 32, (int64_t)1 << 20);
    if (pieces >= 16)
        return CUDA_LAUNCH(env, (conv_add_pieces_kernel<8>), blocks, 256, 0, to, from, n, pieces, accumulate);
    return CUDA_LAUNCH(env, (conv_add_pieces_kernel<1>), blocks, 32, 0, to, from, n, pieces, accumulate);
}
