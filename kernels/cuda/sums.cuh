/*
 * sums.cuh - deterministic sums over rows, for pointwise, reduce, pool, loss and matmul: x {outer, rows, cols} is summed over
 * rows. Pieces of a size that depends on the shape alone are added up in f32, each thread a short run and then a tree; the
 * pieces' sums lie in scratch and are combined in f64 in an order that is fixed too. x (and z) are read once.
 *
 * Bound by memory: n * sizeof(T) bytes read; 16-byte accesses where rows are aligned, four of them in flight in a thread.
 * Three shapes: many columns (threads lie along the columns), one column and long rows (a block to a piece), one column and
 * short rows (a warp to a row).
 *
 * What is summed is a struct m, called as m(x, z), what happens to a result a struct f, called as f(index, sum).
 */
#ifndef SAG_CUDA_SUMS_CUH
#define SAG_CUDA_SUMS_CUH

#include "kernels/cuda/elementwise.cuh"

enum { CUDA_SUM_PIECES = 1024, CUDA_SUM_LEAST = 4096, CUDA_SUM_RUN = 1024 }; /* pieces aimed at; elements of one; longest run of a thread */

/* `pair`: z is read. tap() sees each group of x that goes by (only where rows are the elements of one column). */
struct cuda_sum_plain {
    static constexpr bool pair = false;
    __device__ void begin()
    {
    }
    __device__ float operator()(float x, float) const
    {
        return x;
    }
    template <int V, typename T> __device__ void tap(const T (&)[V], int64_t) const
    {
    }
};
struct cuda_sum_square : cuda_sum_plain {
    __device__ float operator()(float x, float) const
    {
        return x * x;
    }
};
struct cuda_sum_product : cuda_sum_plain {
    static constexpr bool pair = true;
    __device__ float operator()(float x, float z) const
    {
        return x * z;
    }
};

struct cuda_sum_keep { /* a piece's sum, for the second step */
    float *part;
    __device__ void operator()(int64_t i, double s) const
    {
        part[i] = (float)s;
    }
};

/* -------------------------------------------------------------------------------------------- one column */

template <int V, typename T, typename M>
__device__ static inline float cuda_sum_group(const M &m, const T *x, const T *z, int64_t i)
{
    T a[V], b[V];
    cuda_load_group<V>(a, x + i);
    if constexpr (M::pair) cuda_load_group<V>(b, z + i);
    m.template tap<V>(a, i);
    float s = 0.0f;
#pragma unroll
    for (int v = 0; v < V; v++) {
        float y = 0.0f;
        if constexpr (M::pair) y = cuda_float(b[v]);
        s += m(cuda_float(a[v]), y);
    }
    return s;
}

/* Rows of `length` elements in `pieces` of `piece` elements; a block to a piece. */
struct cuda_sum_line {
    int64_t length, piece, pieces, units;
    cuda_divisor by_pieces;
};

template <int V, typename T, typename M, typename F>
__global__ void __launch_bounds__(CUDA_BLOCK) line_sums_kernel(cuda_sum_line l, const T *x, const T *z, M m, F f)
{
    m.begin();
    for (int64_t unit = blockIdx.x; unit < l.units; unit += gridDim.x) {
        int64_t p = unit;
        const int64_t o = l.by_pieces.split(p), at = p * l.piece, first = o * l.length + at;
        const int64_t n = l.length - at < l.piece ? l.length - at : l.piece, groups = n / V;
        float s[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        int64_t g = threadIdx.x;
        for (; g + 3 * CUDA_BLOCK < groups; g += 4 * CUDA_BLOCK) {
#pragma unroll
            for (int k = 0; k < 4; k++) s[k] += cuda_sum_group<V>(m, x, z, first + (g + k * CUDA_BLOCK) * V);
        }
        for (; g < groups; g += CUDA_BLOCK) s[0] += cuda_sum_group<V>(m, x, z, first + g * V);
        for (int64_t i = groups * V + threadIdx.x; i < n; i += CUDA_BLOCK) s[1] += cuda_sum_group<1>(m, x, z, first + i);
        const float sum = cuda_block_sum((s[0] + s[1]) + (s[2] + s[3]));
        if (threadIdx.x == 0) f(unit, (double)sum);
    }
}

template <int V, typename T, typename M, typename F>
__global__ void __launch_bounds__(CUDA_BLOCK) row_sums_kernel(int64_t outer, int64_t length, const T *x, const T *z, M m, F f)
{
    m.begin();
    const int lane = (int)threadIdx.x & 31, warps = CUDA_BLOCK / 32;
    const int64_t groups = length / V;
    for (int64_t o = (int64_t)blockIdx.x * warps + ((int)threadIdx.x >> 5); o < outer; o += (int64_t)gridDim.x * warps) {
        float s = 0.0f;
#pragma unroll 4
        for (int64_t g = lane; g < groups; g += 32) s += cuda_sum_group<V>(m, x, z, o * length + g * V);
        s = cuda_warp_sum(s);
        if (lane == 0) f(o, (double)s);
    }
}

/* ------------------------------------------------------------------------------------------- many columns */

/*
 * A tile is `width` groups of V columns. 256 / width threads share a group of columns, each every (256 / width)-th row of the
 * block's rows. Units in order of outer, piece, tile.
 */
struct cuda_sum_panel {
    int64_t rows, cols, tiles, block_rows, pieces, units;
    cuda_divisor by_tiles, by_pieces;
    int width, repeat, fold; /* fold: least power of two >= repeat */
};

/* Adds what `repeat` threads of a column hold; the sum is in the first of them. All threads call. */
template <int V, typename S> __device__ static inline void cuda_fold_repeats(S *shared, S (&s)[V], const cuda_sum_panel &l)
{
    const int t = (int)threadIdx.x, r = t / l.width;
    __syncthreads();
#pragma unroll
    for (int v = 0; v < V; v++) shared[v * CUDA_BLOCK + t] = s[v];
    for (int half = l.fold / 2; half > 0; half /= 2) {
        __syncthreads();
        if (r < half && r + half < l.repeat) {
#pragma unroll
            for (int v = 0; v < V; v++) shared[v * CUDA_BLOCK + t] += shared[v * CUDA_BLOCK + t + half * l.width];
        }
    }
#pragma unroll
    for (int v = 0; v < V; v++) s[v] = shared[v * CUDA_BLOCK + t];
}

template <int V, typename T, typename M>
__device__ static inline void cuda_sum_rows(const M &m, float (&s)[V], const T *x, const T *z, int64_t i)
{
    T a[V], b[V];
    cuda_load_group<V>(a, x + i);
    if constexpr (M::pair) cuda_load_group<V>(b, z + i);
#pragma unroll
    for (int v = 0; v < V; v++) {
        float y = 0.0f;
        if constexpr (M::pair) y = cuda_float(b[v]);
        s[v] += m(cuda_float(a[v]), y);
    }
}

template <int V, typename T, typename M, typename F>
__global__ void __launch_bounds__(CUDA_BLOCK) panel_sums_kernel(cuda_sum_panel l, const T *x, const T *z, M m, F f)
{
    CUDA_SHARED(float, shared, [V * CUDA_BLOCK]);
    m.begin();
    const int r = (int)threadIdx.x / l.width, c = (int)threadIdx.x - r * l.width;
    for (int64_t unit = blockIdx.x; unit < l.units; unit += gridDim.x) {
        int64_t tile = unit;
        const int64_t block = l.by_tiles.split(tile);
        int64_t piece = block;
        const int64_t o = l.by_pieces.split(piece);
        const int64_t col = (tile * l.width + c) * V, last = piece * l.block_rows + l.block_rows;
        const int64_t end = last < l.rows ? last : l.rows, base = o * l.rows * l.cols + col, step = l.repeat * l.cols;
        const bool here = r < l.repeat && col < l.cols;
        float s[V], t[V];
#pragma unroll
        for (int v = 0; v < V; v++) s[v] = t[v] = 0.0f;
        if (here) {
            int64_t row = piece * l.block_rows + r;
            for (; row + 3 * l.repeat < end; row += 4 * l.repeat) {
                const int64_t i = base + row * l.cols;
                cuda_sum_rows<V>(m, s, x, z, i);
                cuda_sum_rows<V>(m, t, x, z, i + step);
                cuda_sum_rows<V>(m, s, x, z, i + 2 * step);
                cuda_sum_rows<V>(m, t, x, z, i + 3 * step);
            }
            for (; row < end; row += l.repeat) cuda_sum_rows<V>(m, s, x, z, base + row * l.cols);
        }
#pragma unroll
        for (int v = 0; v < V; v++) s[v] += t[v];
        cuda_fold_repeats<V>(shared, s, l);
        if (here && r == 0) {
#pragma unroll
            for (int v = 0; v < V; v++) f(block * l.cols + col + v, (double)s[v]);
        }
    }
}

/* The second step: part {outer, pieces, cols}, here the rows, added up in f64. */
template <typename F> __global__ void __launch_bounds__(CUDA_BLOCK) combine_sums_kernel(cuda_sum_panel l, const float *part, F f)
{
    CUDA_SHARED(double, shared, [CUDA_BLOCK]);
    const int r = (int)threadIdx.x / l.width, c = (int)threadIdx.x - r * l.width;
    for (int64_t unit = blockIdx.x; unit < l.units; unit += gridDim.x) {
        int64_t tile = unit;
        const int64_t o = l.by_tiles.split(tile), col = tile * l.width + c;
        const bool here = r < l.repeat && col < l.cols;
        double s[1] = {0.0};
        if (here) {
#pragma unroll 4
            for (int64_t row = r; row < l.rows; row += l.repeat) s[0] += (double)part[(o * l.rows + row) * l.cols + col];
        }
        cuda_fold_repeats<1>(shared, s, l);
        if (here && r == 0) f(o * l.cols + col, s[0]);
    }
}

/* --------------------------------------------------------------------------------------------------- host */

static inline cuda_sum_panel cuda_sum_panel_of(int64_t outer, int64_t rows, int64_t cols, int v, int widest)
{
    cuda_sum_panel l = {rows, cols, 1, rows, 1, 0, cuda_divisor_of(1, 1), cuda_divisor_of(1, 1), 1, 1, 1};
    const int64_t groups = cols / v;
    l.width = (int)(groups < widest ? groups : widest);
    l.repeat = CUDA_BLOCK / l.width;
    while (l.fold < l.repeat) l.fold *= 2;
    l.tiles = cuda_ceil_div(groups, l.width);
    l.units = outer * l.tiles;
    l.by_tiles = cuda_divisor_of(l.tiles, l.units);
    return l;
}

/* Pieces for `units` sums of `length` steps of `each` elements; at most `run` steps a piece. */
static inline int64_t cuda_sum_pieces(int64_t units, int64_t length, int64_t each, int64_t run)
{
    const int64_t most = length * each / CUDA_SUM_LEAST, want = CUDA_SUM_PIECES / (units < 1 ? 1 : units);
    const int64_t least = cuda_ceil_div(length, run);
    int64_t pieces = want < most ? want : most;
    pieces = pieces > least ? pieces : least;
    return pieces < 1 ? 1 : pieces;
}

template <typename F>
static int cuda_combine(sag_kernel_env *env, const float *part, int64_t outer, int64_t pieces, int64_t cols, F f)
{
    const cuda_sum_panel l = cuda_sum_panel_of(outer, pieces, cols, 1, 32);
    return CUDA_LAUNCH(env, (combine_sums_kernel<F>), cuda_blocks(l.units, 1), CUDA_BLOCK, 0, l, part, f);
}

template <int V, typename T, typename M, typename F>
static int cuda_line_sums(sag_kernel_env *env, const T *x, const T *z, int64_t outer, int64_t length, M m, F f)
{
    if (length <= 512 && outer >= 32) {
        const unsigned blocks = cuda_blocks(outer, CUDA_BLOCK / 32);
        if (length % V == 0) return CUDA_LAUNCH(env, (row_sums_kernel<V, T, M, F>), blocks, CUDA_BLOCK, 0, outer, length, x, z, m, f);
        return CUDA_LAUNCH(env, (row_sums_kernel<1, T, M, F>), blocks, CUDA_BLOCK, 0, outer, length, x, z, m, f);
    }
    cuda_sum_line l = {length, length, 1, outer, cuda_divisor_of(1, 1)};
    l.pieces = cuda_sum_pieces(outer, length, 1, (int64_t)CUDA_SUM_RUN * CUDA_BLOCK * V);
    l.piece = cuda_ceil_div(cuda_ceil_div(length, l.pieces), CUDA_BLOCK * V) * CUDA_BLOCK * V;
    l.pieces = l.piece > 0 ? cuda_ceil_div(length, l.piece) : 1;
    if (l.pieces < 1) l.pieces = 1;
    l.units = outer * l.pieces;
    l.by_pieces = cuda_divisor_of(l.pieces, l.units);
    if (l.pieces == 1) return CUDA_LAUNCH(env, (line_sums_kernel<V, T, M, F>), cuda_blocks(l.units, 1), CUDA_BLOCK, 0, l, x, z, m, f);
    cuda_sum_keep keep = {(float *)env->scratch(env, (size_t)l.units * sizeof(float))};
    if (!keep.part) return SAG_KERNEL_NO_MEMORY;
    CUDA_TRY(CUDA_LAUNCH(env, (line_sums_kernel<V, T, M, cuda_sum_keep>), cuda_blocks(l.units, 1), CUDA_BLOCK, 0, l, x, z, m, keep));
    return cuda_combine(env, keep.part, outer, l.pieces, 1, f);
}

template <int V, typename T, typename M, typename F>
static int cuda_panel_sums(sag_kernel_env *env, const T *x, const T *z, int64_t outer, int64_t rows, int64_t cols, M m, F f)
{
    cuda_sum_panel l = cuda_sum_panel_of(outer, rows, cols, V, CUDA_BLOCK);
    l.pieces = cuda_sum_pieces(l.units, rows, l.width * V, (int64_t)CUDA_SUM_RUN * l.repeat);
    l.block_rows = cuda_ceil_div(cuda_ceil_div(rows, l.pieces), l.repeat) * l.repeat;
    l.pieces = l.block_rows > 0 ? cuda_ceil_div(rows, l.block_rows) : 1;
    if (l.pieces < 1) l.pieces = 1;
    l.units = outer * l.pieces * l.tiles;
    l.by_pieces = cuda_divisor_of(l.pieces, l.units);
    l.by_tiles = cuda_divisor_of(l.tiles, l.units);
    if (l.pieces == 1) return CUDA_LAUNCH(env, (panel_sums_kernel<V, T, M, F>), cuda_blocks(l.units, 1), CUDA_BLOCK, 0, l, x, z, m, f);
    cuda_sum_keep keep = {(float *)env->scratch(env, (size_t)(outer * l.pieces * cols) * sizeof(float))};
    if (!keep.part) return SAG_KERNEL_NO_MEMORY;
    CUDA_TRY(CUDA_LAUNCH(env, (panel_sums_kernel<V, T, M, cuda_sum_keep>), cuda_blocks(l.units, 1), CUDA_BLOCK, 0, l, x, z, m, keep));
    return cuda_combine(env, keep.part, outer, l.pieces, cols, f);
}

/* f(o * cols + c, sum over r of m(x[o][r][c], z[o][r][c])) for every o and c. z may be NULL if m reads one. */
template <typename T, typename M, typename F>
static int cuda_sums(sag_kernel_env *env, const void *x_, const void *z_, int64_t outer, int64_t rows, int64_t cols, M m, F f)
{
    const T *x = (const T *)x_, *z = (const T *)z_;
    if (outer * cols <= 0) return SAG_KERNEL_OK;
    constexpr int V = cuda_group<T>::size;
    const bool aligned = cuda_aligned(x, 16) && cuda_aligned(z, 16);
    if (cols == 1) {
        if (aligned && (rows % V == 0 || outer == 1)) return cuda_line_sums<V>(env, x, z, outer, rows, m, f);
        return cuda_line_sums<1>(env, x, z, outer, rows, m, f);
    }
    if (aligned && cols % V == 0) return cuda_panel_sums<V>(env, x, z, outer, rows, cols, m, f);
    return cuda_panel_sums<1>(env, x, z, outer, rows, cols, m, f);
}

/* The plain end of a sum: y[i] (+)= sum * factor. */
template <typename Y> struct cuda_sum_put {
    Y *y;
    double factor;
    int accumulate;
    __device__ void operator()(int64_t i, double s) const
    {
        cuda_put(y + i, (float)(s * factor), accumulate);
    }
};

#endif
