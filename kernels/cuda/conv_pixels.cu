/*
 * conv_pixels.cu - y[pixel][k] (+)= bias[k] + sum over (r, s, c) of x[stride pixel + (r, s)][c] * w[k][r][s][c], the
 * product of forward passes and data gradients, as one matrix product {pixels, RSC} x {RSC, K} whose left matrix is never
 * written: a block copies its patches of x, tap by tap, into stages of shared memory while it multiplies the last ones.
 *
 * Bound by arithmetic where there are many channels, 2 pixels R S C K FLOP a call, by the maps' traffic where C or K is
 * small: x is read once from memory and R S times from L2 (times K / COLS blocks of a row, which run side by side), y
 * written once in 16-byte pieces; accumulating reads it too, and a residual or a mask is read once beside it.
 *
 * Blocks own ROWS pixels x COLS outputs; a row's place in x and y is worked out once and kept in shared memory. With C
 * a multiple of 16 bytes a chunk never straddles two taps and goes by cp.async, out-of-map taps as zeros; for other C
 * (images of 1 or 3 channels) chunks are gathered element by element, taps and channels as one flat index, so that R S C
 * = 27 is one stage and not nine.
 */
#include "kernels/cuda/conv_tile.cuh"

struct pixels_job {
    conv_pixels_job g;
    conv_lines lines;
    int first_phase, phases_s; /* scatter: number of phases in a row of them */
    bool whole_y;
};

/* One phase of outputs: pixels {rows, cols} at (step i + a, step j + b), input from (in_step i + top, in_step j + left) on. */
struct pixels_phase {
    int rows, cols, a, b, step, in_step, top, left, r, s, lines;
};

__device__ static pixels_phase phase_of(const pixels_job &j, int z)
{
    pixels_phase p = {};
    const conv_pixels_job &g = j.g;
    p.rows = g.out_h, p.cols = g.out_w, p.step = 1, p.in_step = g.stride, p.r = g.r, p.s = g.s;
    p.top = -g.pad_h, p.left = -g.pad_w;
    if (!g.scatter) return p;
    p.a = z / j.phases_s, p.b = z % j.phases_s;
    const conv_taps down = conv_taps_of(p.a, g.pad_h, g.stride, g.r),
                    across = conv_taps_of(p.b, g.pad_w, g.stride, g.s);
    p.rows = (g.out_h - p.a + g.stride - 1) / g.stride, p.cols = (g.out_w - p.b + g.stride - 1) / g.stride;
    p.step = g.stride, p.in_step = 1;
    p.r = down.count, p.s = across.count, p.top = down.top, p.left = across.top;
    p.lines = down.first * conv_least(g.stride, g.s) + across.first;
    if (p.r == 0 || p.s == 0) p.r = 0, p.s = 1, p.lines = 0; /* stride larger than the kernel: no tap at all */
    return p;
}

/* A row of the tile: where its patch starts in x (in elements; (i, j) may lie outside the map), where its pixel lies in y
 * and in the residual or the mask. */
struct pixels_row {
    int64_t in, out, beside; /* out: -1 beyond the last pixel */
    int i, j;
};

__device__ static pixels_row row_of(const conv_pixels_job &g, const pixels_phase &p, int64_t m)
{
    pixels_row row = {0, -1, 0, -(1 << 30), 0};
    const int64_t plane = (int64_t)p.rows * p.cols, image = m / plane;
    if (image >= g.images) return row;
    const int at = (int)(m - image * plane), i = at / p.cols, j = at - i * p.cols;
    row.i = i * p.in_step + p.top, row.j = j * p.in_step + p.left;
    row.in = ((image * g.h + row.i) * g.w + row.j) * g.c;
    row.beside = row.out = ((image * g.out_h + i * p.step + p.a) * g.out_w + j * p.step + p.b) * g.k;
    if (g.halved) row.beside = ((image * (g.out_h / 2) + i / 2) * (g.out_w / 2) + j / 2) * g.k;
    return row;
}

/* Where along (tap, c) a thread's next chunk starts, and how far a stage moves it. */
struct patch_walk {
    int u, v, c;
    int by_u, by_v, by_c;
};

__device__ static patch_walk walk_from(int k, int depth, const pixels_phase &p, int channels)
{
    patch_walk w;
    int tap = k / channels;
    w.c = k - tap * channels, w.u = tap / p.s, w.v = tap - w.u * p.s;
    tap = depth / channels;
    w.by_c = depth - tap * channels, w.by_u = tap / p.s, w.by_v = tap - w.by_u * p.s;
    return w;
}
__device__ static void walk_on(patch_walk *w, const pixels_phase &p, int channels)
{
    w->c += w->by_c, w->v += w->by_v, w->u += w->by_u;
    if (w->c >= channels) w->c -= channels, w->v++;
    if (w->v >= p.s) w->v -= p.s, w->u++;
}

/* WHOLE: chunks of x are aligned and of one tap. Gathering wants more registers, for its loads in flight. */
template <typename T, conv_math MATH, int ROWS, int COLS, int WARPS_DOWN, bool WHOLE>
__global__ void __launch_bounds__(CONV_THREADS, WHOLE ? 2 : 1) conv_pixels_kernel(pixels_job job)
{
    typedef conv_tile<MATH, ROWS, COLS, WARPS_DOWN> tile_type;
    typedef typename tile_type::element E;
    enum {
        depth = tile_type::depth,
        chunk = tile_type::chunk,
        stages = tile_type::stages,
        stage_bytes = tile_type::line_bytes
    };
    enum {
        lines_at_once = CONV_THREADS / 4,
        a_copies = ROWS / lines_at_once,
        b_copies = (COLS + lines_at_once - 1) / lines_at_once
    };
    CUDA_DYNAMIC_SHARED(char, stage);
    CUDA_SHARED(pixels_row, row, [ROWS]);

    const conv_pixels_job &g = job.g;
    const int tid = (int)threadIdx.x;
    const pixels_phase p = phase_of(job, job.first_phase + (int)blockIdx.z);
    const unsigned across = (unsigned)((g.k + COLS - 1) / COLS);
    const int64_t row0 = (int64_t)(blockIdx.x / across) * ROWS;
    const int col0 = (int)(blockIdx.x % across) * COLS;
    if (row0 >= g.images * p.rows * p.cols) return; /* this phase has fewer pixels than the first */
    for (int i = tid; i < ROWS; i += CONV_THREADS) row[i] = row_of(g, p, row0 + i);
    __syncthreads();

    const T *x = static_cast<const T *>(g.x);
    const E *w = static_cast<const E *>(job.lines.data) + (int64_t)p.lines * g.k * job.lines.pitch;
    const int line = tid >> 2, q = tid & 3;
    const int to = line * CONV_LINE + ((q ^ (line >> 1 & 3)) << 4); /* the same for line + 64 */
    pixels_row held[a_copies]; /* plain sums need the registers, and have the time to read it again */
#pragma unroll
    for (int n = 0; n < a_copies; n++) held[n] = row[line + n * lines_at_once];
    const E *w_at = w + (int64_t)(col0 + line) * job.lines.pitch + q * chunk;
    patch_walk walk = walk_from(q * chunk, depth, p, g.c);

    const int steps = (p.r * p.s * g.c + depth - 1) / depth;
    auto load = [&](int slot) {
        char *a = stage + slot * stage_bytes + to, *b = a + ROWS * CONV_LINE;
        if constexpr (WHOLE) {
            const int64_t tap = ((int64_t)walk.u * g.w + walk.v) * g.c + walk.c;
#pragma unroll
            for (int n = 0; n < a_copies; n++) {
                const pixels_row &mine = MATH == CONV_PLAIN ? row[line + n * lines_at_once] : held[n];
                const bool in = walk.u < p.r && (unsigned)(mine.i + walk.u) < (unsigned)g.h &&
                                (unsigned)(mine.j + walk.v) < (unsigned)g.w;
                cp_async_16(a + n * lines_at_once * CONV_LINE, in ? x + mine.in + tap : x, in);
            }
        } else {
#pragma unroll 1
            for (int n = 0; n < a_copies; n++) {
                const pixels_row &mine = row[line + n * lines_at_once];
                int u = walk.u, v = walk.v, c = walk.c;
                conv_gather<E>(a + n * lines_at_once * CONV_LINE, [&](int) -> const T * {
                    const bool in =
                        u < p.r && (unsigned)(mine.i + u) < (unsigned)g.h && (unsigned)(mine.j + v) < (unsigned)g.w;
                    const T *at = in ? x + mine.in + ((int64_t)u * g.w + v) * g.c + c : nullptr;
                    if (++c == g.c) {
                        c = 0;
                        if (++v == p.s) v = 0, u++;
                    }
                    return at;
                });
            }
        }
#pragma unroll
        for (int n = 0; n < b_copies; n++) {
            const int col = line + n * lines_at_once;
            if (col >= COLS) break;
            const bool in = col0 + col < g.k;
            cp_async_16(b + n * lines_at_once * CONV_LINE, in ? w_at + (int64_t)n * lines_at_once * job.lines.pitch : w,
                        in);
        }
        w_at += depth;
        walk_on(&walk, p, g.c);
    };

    /* Plain sums: every thread clips what it copied itself, before the others see it. */
    auto clip = [&](int slot) {
        if constexpr (MATH == CONV_PLAIN)
            for (int n = 0; n < a_copies; n++)
                conv_clip(reinterpret_cast<E *>(stage + slot * stage_bytes + to + n * lines_at_once * CONV_LINE));
    };

    tile_type tile;
    tile.clear();
    for (int t = 0; t < stages - 1; t++) {
        if (t < steps) load(t);
        cp_async_commit();
    }
    for (int t = 0; t < steps; t++) {
        cp_async_wait<stages - 2>();
        if (g.relu) clip(t % stages);
        __syncthreads();
        const char *a = stage + t % stages * stage_bytes;
        if (t + stages - 1 < steps) load((t + stages - 1) % stages);
        cp_async_commit();
        if (MATH != CONV_PLAIN && g.relu)
            tile.template add_lines<true>(a, a + ROWS * CONV_LINE);
        else
            tile.template add_lines<false>(a, a + ROWS * CONV_LINE);
    }
    cp_async_wait<0>();
    __syncthreads();
    const T *beside = static_cast<const T *>(g.mask ? g.mask : g.residual);
    const conv_target<T> target = {static_cast<T *>(g.y), g.bias, beside, g.mask != nullptr, col0, g.k, g.accumulate, job.whole_y};
    tile.template store<false>(
        stage, target, [&](int i) { return row[i].out; }, [&](int i) { return row[i].beside; });
}

/* -------------------------------------------------------------------------------------------------- launching */

template <typename T, conv_math MATH, int ROWS, int COLS, int WARPS_DOWN>
static int launch(sag_kernel_env *env, pixels_job *job, int64_t pixels, int phases)
{
    typedef conv_tile<MATH, ROWS, COLS, WARPS_DOWN> tile_type;
    enum {
        shared = tile_type::stages * tile_type::line_bytes,
        can_be_whole = sizeof(T) == sizeof(typename tile_type::element)
    };
    const bool whole = can_be_whole && job->g.c % tile_type::chunk == 0 && conv_aligned(job->g.x);
    const int64_t blocks = cuda_ceil_div(pixels, ROWS) * cuda_ceil_div(job->g.k, COLS);
    if (blocks >= INT32_MAX) return SAG_KERNEL_UNSUPPORTED;
    for (unsigned z; job->first_phase < phases; job->first_phase += (int)z) {
        z = cuda_blocks(phases - job->first_phase, 1, 1 << 15);
        const dim3 grid((unsigned)blocks, 1, z);
        if (whole)
            CUDA_TRY(CUDA_LAUNCH(env, (conv_pixels_kernel<T, MATH, ROWS, COLS, WARPS_DOWN, can_be_whole>), grid,
                                 CONV_THREADS, shared, *job));
        else
            CUDA_TRY(CUDA_LAUNCH(env, (conv_pixels_kernel<T, MATH, ROWS, COLS, WARPS_DOWN, false>), grid, CONV_THREADS,
                                 shared, *job));
    }
    return SAG_KERNEL_OK;
}

/*
 * The tile by shape alone, so that the sums are the same on every card. 16 columns for the layer that ends in an image:
 * with K = 3 it moves x through L2 and multiplies little. Else the largest that still makes a block for each of 128
 * multiprocessors: a larger tile reads each operand less often.
 */
template <typename T, conv_math MATH> static int pick(sag_kernel_env *env, pixels_job *job, int64_t pixels, int phases)
{
    const int64_t k = job->g.k, enough = 128;
    if (k <= 16) return launch<T, MATH, 128, 16, 8>(env, job, pixels, phases);
    const int64_t tall = phases * cuda_ceil_div(pixels, 128);
    if (k > 64 && tall * cuda_ceil_div(k, 128) >= enough) return launch<T, MATH, 128, 128, 4>(env, job, pixels, phases);
    if (tall * cuda_ceil_div(k, 64) >= enough) return launch<T, MATH, 128, 64, 4>(env, job, pixels, phases);
    return launch<T, MATH, 64, 64, 4>(env, job, pixels, phases);
}

int conv_pixels(sag_kernel_env *env, const conv_pixels_job *g, const conv_weights *weights)
{
    const conv_math math = conv_math_for(env, g->act);
    pixels_job job = {};
    job.g = *g;
    const int phases_r = g->scatter ? conv_least(g->stride, g->out_h) : 1;
    job.phases_s = g->scatter ? conv_least(g->stride, g->out_w) : 1;
    const int64_t phases = (int64_t)phases_r * job.phases_s;
    const int64_t pixels = g->images * (g->out_h / phases_r + (g->out_h % phases_r != 0)) *
                           (g->out_w / job.phases_s + (g->out_w % job.phases_s != 0)); /* of the first phase */
    if (pixels == 0 || g->k == 0) return SAG_KERNEL_OK;
    if (phases >= INT32_MAX) return SAG_KERNEL_UNSUPPORTED;
    const int64_t chunk = 16 / (int64_t)conv_size_of(g->act);
    job.whole_y = g->k % chunk == 0 && conv_aligned(g->y) && conv_aligned(g->mask) && conv_aligned(g->residual);
    CUDA_TRY(conv_lay_out(env, g, weights, math, &job.lines));
    if (g->act == SAG_F32)
        return math == CONV_TF32 ? pick<float, CONV_TF32>(env, &job, pixels, (int)phases)
                                 : pick<float, CONV_PLAIN>(env, &job, pixels, (int)phases);
    return math == CONV_BF16 ? pick<cuda_bf16, CONV_BF16>(env, &job, pixels, (int)phases)
                             : pick<cuda_bf16, CONV_PLAIN>(env, &job, pixels, (int)phases);
}
