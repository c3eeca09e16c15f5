/*
 * attention_mma.cu - the passes of attention (attention.cuh) on tensor cores: bf16 operands, or f32 ones rounded to tf32.
 * Scores, softmax and all sums are f32; W is rounded to the operands' type for the second product. In bf16 that would leave dq
 * and dk, in which the common part of the keys or queries cancels, at twice the rounding of the result and more: there W is
 * split into two bf16, which costs D more multiply-adds a score.
 *
 * Block: 4 warps of 16 MT rows, CP columns of out, all j in tiles of COLS that pass through shared memory, two of them where
 * they fit, so that copies overlap products. A warp has its rows of W alone: they go from the sums of the first product
 * straight into the operands of the second, row maxima stay in four lanes, and warps meet only to change tiles.
 * Multiply-adds for each score: D (+ E in DK and DQ) + CP; exponentials: one. Bound by reading fragments from shared memory
 * (with MT = 2 each serves two products) and, at small E, by the exponentials.
 */
#include "kernels/cuda/attention_mma.cuh"

#define WARPS 4

/* How a pass lies in shared memory; strides and sizes in elements. */
struct mma_plan {
    int d_pad, e_pad;   /* multiples of 16; d_pad covers the strips of x in DK and DQ, whose x is b */
    int stages;         /* 1 or 2 */
    int aligned_d, aligned_e, aligned_x;
};

template <typename T, int MODE, int CP> struct mma_shape {
    static constexpr bool GRADIENT = MODE == ATTENTION_DK || MODE == ATTENTION_DQ;
    static constexpr bool TWO_PARTS = GRADIENT && sizeof(T) == 2; /* W as the sum of two bf16 */
    static constexpr int MT = GRADIENT ? (CP <= 32 ? 2 : 1) : (CP <= 64 ? 2 : 1);
    static constexpr int ROWS = WARPS * 16 * MT, COLS = sizeof(T) == 2 ? 64 : 32;
    static constexpr int STRIDE_X = CP + fragment<T>::PAD;
    __host__ __device__ static int stride(int columns)
    {
        return columns + fragment<T>::PAD;
    }
    /* of a stage: b, then b2 or x, then what belongs to columns: lse, delta */
    __host__ __device__ static int second_at(const mma_plan &l)
    {
        return COLS * stride(l.d_pad);
    }
    __host__ __device__ static int stage_elements(const mma_plan &l)
    {
        return COLS * (stride(l.d_pad) + (GRADIENT ? stride(l.e_pad) : STRIDE_X));
    }
    __host__ __device__ static int row_elements(const mma_plan &l)
    {
        return ROWS * (stride(l.d_pad) + (GRADIENT ? stride(l.e_pad) : 0));
    }
    static size_t bytes(const mma_plan &l)
    {
        return (size_t)(row_elements(l) + l.stages * stage_elements(l)) * sizeof(T) + (size_t)(2 * l.stages * COLS) * sizeof(float);
    }
};

/* s {16 MT, 8 NT} += a {16 MT, depth} b^T, b {8 NT, depth}. */
template <typename T, int MT, int NT>
__device__ static inline void add_products(float (&s)[MT][NT][4], const T *a, const T *b, int stride, int depth)
{
    for (int k = 0; k < depth; k += fragment<T>::STEP) {
        uint32_t x[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) fragment<T>::a(x[m], a + m * 16 * stride + k, stride);
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
            uint32_t y[2][2];
            fragment<T>::b_rows(y, b + n * 8 * stride + k, stride);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                fragment<T>::product(s[m][n], x[m], y[0]);
                fragment<T>::product(s[m][n + 1], x[m], y[1]);
            }
        }
    }
}

/* Turns the scores of a warp's rows into 2^(s - top), moves top and l, and rescales what the row has. l is the lane's share. */
template <int NT, int CT>
__device__ static inline void online_softmax(float (&s)[NT][4], float (&acc)[CT][4], float *top, float *l, float scale2, int cols_left)
{
    const int t = (int)threadIdx.x & 3;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float high = top[h];
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int c = 0; c < 2; c++) {
                float &x = s[n][2 * h + c];
                x = n * 8 + 2 * t + c < cols_left ? x * scale2 : -INFINITY;
                high = fmaxf(high, x);
            }
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 1));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 2));
        const float shrink = attention_exp2(top[h] - high);
        top[h] = high;
        l[h] *= shrink;
#pragma unroll
        for (int n = 0; n < CT; n++) {
            acc[n][2 * h] *= shrink;
            acc[n][2 * h + 1] *= shrink;
        }
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int c = 0; c < 2; c++) l[h] += s[n][2 * h + c] = attention_exp2(s[n][2 * h + c] - high);
    }
}

/* s becomes W: p, or p (dp - delta); lse and delta belong to columns (in shared memory) or, in DQ, to the lane's two rows. */
template <int MODE, int NT>
__device__ static inline void weights(float (&s)[NT][4], const float (&dp)[NT][4], const float *lse, const float *delta, float scale2,
                                      int cols_left)
{
    const int t = (int)threadIdx.x & 3;
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int col = n * 8 + 2 * t + (i & 1), own = MODE == ATTENTION_DQ ? i >> 1 : col;
            float x = attention_exp2(fmaf(s[n][i], scale2, -lse[own]));
            if (MODE != ATTENTION_DV) x *= dp[n][i] - delta[own];
            s[n][i] = col < cols_left ? x : 0.0f;
        }
}

template <typename T> __device__ static inline void put_pair(T *to, float x, float y, int64_t left, int accumulate)
{
    if (left > 0) cuda_put(to, x, accumulate);
    if (left > 1) cuda_put(to + 1, y, accumulate);
}

template <typename T, int MODE, int CP>
__global__ void __launch_bounds__(32 * WARPS) attention_mma_kernel(attention_pass p, mma_plan l)
{
    using shape = mma_shape<T, MODE, CP>;
    using piece = fragment<T>;
    constexpr int MT = shape::MT, NT = shape::COLS / 8, CT = CP / 8, COLS = shape::COLS;
    constexpr bool GRADIENT = shape::GRADIENT;
    CUDA_DYNAMIC_SHARED(T, shared);
    const int tid = (int)threadIdx.x, warp = tid >> 5, g = (tid & 31) >> 2, t = tid & 3;
    const int sd = shape::stride(l.d_pad), se = shape::stride(l.e_pad);
    T *a_tile = shared, *a2_tile = shared + shape::ROWS * sd, *stage0 = shared + shape::row_elements(l);
    float *column = (float *)(stage0 + l.stages * shape::stage_elements(l)); /* {stages,2,COLS} */
    const int64_t row_blocks = (p.rows + shape::ROWS - 1) / shape::ROWS, strips = (p.width + CP - 1) / CP;
    const int64_t tiles = (p.cols + COLS - 1) / COLS;

    for (int64_t item = blockIdx.x; item < p.batch * row_blocks * strips; item += gridDim.x) {
        const int64_t c0 = item % strips * CP, image = item / strips / row_blocks, row0 = item / strips % row_blocks * shape::ROWS;
        const int64_t rows_left = p.rows - row0, first = image * p.rows + row0 + warp * 16 * MT + g;
        auto load_stage = [&](int64_t tile) {
            const int s = l.stages == 2 ? (int)(tile & 1) : 0;
            const int64_t col = image * p.cols + tile * COLS, left = p.cols - tile * COLS;
            T *to = stage0 + s * shape::stage_elements(l), *second = to + shape::second_at(l);
            mma_load(to, sd, (const T *)p.b + col * p.d, p.d, left, p.d, COLS, l.d_pad, l.aligned_d != 0);
            if (GRADIENT)
                mma_load(second, se, (const T *)p.b2 + col * p.e, p.e, left, p.e, COLS, l.e_pad, l.aligned_e != 0);
            else
                mma_load(second, shape::STRIDE_X, (const T *)p.x + col * p.width + c0, p.width, left, p.width - c0, COLS, CP,
                         l.aligned_x != 0);
            if (MODE == ATTENTION_DV || MODE == ATTENTION_DK)
                for (int i = tid; i < COLS; i += 32 * WARPS) {
                    column[2 * s * COLS + i] = i < left ? p.lse[col + i] : 0.0f;
                    column[(2 * s + 1) * COLS + i] = MODE == ATTENTION_DK && i < left ? p.delta[col + i] : 0.0f;
                }
            cp_async_commit();
        };

        __syncthreads(); /* the item before may still be read */
        mma_load(a_tile, sd, (const T *)p.a + (image * p.rows + row0) * p.d, p.d, rows_left, p.d, shape::ROWS, l.d_pad, l.aligned_d != 0);
        if (GRADIENT)
            mma_load(a2_tile, se, (const T *)p.a2 + (image * p.rows + row0) * p.e, p.e, rows_left, p.e, shape::ROWS, l.e_pad,
                     l.aligned_e != 0);
        load_stage(0);

        float acc[MT][CT][4], top[MT][2], sum[MT][2], row_lse[MT][2], row_delta[MT][2];
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int n = 0; n < CT; n++) acc[m][n][0] = acc[m][n][1] = acc[m][n][2] = acc[m][n][3] = 0.0f;
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int64_t row = first + m * 16 + h * 8;
                const bool valid = MODE == ATTENTION_DQ && row < (image + 1) * p.rows;
                top[m][h] = -INFINITY;
                sum[m][h] = 0.0f;
                row_lse[m][h] = valid ? p.lse[row] : 0.0f;
                row_delta[m][h] = valid ? p.delta[row] : 0.0f;
            }
        }

        for (int64_t tile = 0; tile < tiles; tile++) {
            const int s_at = l.stages == 2 ? (int)(tile & 1) : 0;
            const int left = p.cols - tile * COLS < COLS ? (int)(p.cols - tile * COLS) : COLS;
            const T *b = stage0 + s_at * shape::stage_elements(l), *second = b + shape::second_at(l);
            if (l.stages == 2 && tile + 1 < tiles) {
                load_stage(tile + 1);
                cp_async_wait<1>();
            } else {
                cp_async_wait<0>();
            }
            __syncthreads();

            float s[MT][NT][4] = {}, dp[MT][NT][4] = {};
            add_products(s, a_tile + warp * 16 * MT * sd, b, sd, l.d_pad);
            if (GRADIENT) add_products(dp, a2_tile + warp * 16 * MT * se, second, se, l.e_pad);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                const float *lse = MODE == ATTENTION_DQ ? row_lse[m] : column + 2 * s_at * COLS;
                const float *delta = MODE == ATTENTION_DQ ? row_delta[m] : column + (2 * s_at + 1) * COLS;
                if (MODE == ATTENTION_FORWARD)
                    online_softmax(s[m], acc[m], top[m], sum[m], p.scale2, left);
                else
                    weights<MODE>(s[m], dp[m], lse, delta, p.scale2, left);
            }

            const T *x = GRADIENT ? b + c0 : second;
            const int sx = GRADIENT ? sd : shape::STRIDE_X;
#pragma unroll
            for (int k = 0; k < COLS / piece::STEP; k++) {
                uint32_t w[MT][4], rest[MT][4];
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    piece::from_sums(w[m], s[m], k);
                    if constexpr (shape::TWO_PARTS) piece::rest_of_sums(rest[m], w[m], s[m], k);
                }
#pragma unroll
                for (int n = 0; n < CT; n += 2) {
                    uint32_t y[2][2];
                    piece::b_cols(y, x + k * piece::STEP * sx + n * 8, sx);
#pragma unroll
                    for (int m = 0; m < MT; m++) {
                        piece::product(acc[m][n], w[m], y[0]);
                        piece::product(acc[m][n + 1], w[m], y[1]);
                        if constexpr (shape::TWO_PARTS) {
                            piece::product(acc[m][n], rest[m], y[0]);
                            piece::product(acc[m][n + 1], rest[m], y[1]);
                        }
                    }
                }
            }
            __syncthreads();
            if (l.stages == 1 && tile + 1 < tiles) load_stage(tile + 1);
        }

#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int64_t row = first + m * 16 + h * 8;
                float factor = p.factor;
                if (MODE == ATTENTION_FORWARD) {
                    float total = sum[m][h];
                    total += __shfl_xor_sync(0xffffffffu, total, 1);
                    total += __shfl_xor_sync(0xffffffffu, total, 2);
                    factor = 1.0f / total;
                    if (p.lse && c0 == 0 && t == 0 && row < (image + 1) * p.rows) p.lse[row] = top[m][h] + log2f(total);
                }
                if (row >= (image + 1) * p.rows) continue;
                T *to = (T *)p.out + row * p.width + c0;
#pragma unroll
                for (int n = 0; n < CT; n++)
                    put_pair(to + n * 8 + 2 * t, factor * acc[m][n][2 * h], factor * acc[m][n][2 * h + 1],
                             p.width - c0 - n * 8 - 2 * t, p.accumulate);
            }
    }
}

/* ------------------------------------------------------------------------------------------------- choice of a kernel */

/* Shared memory that a block may have; asked once. */
static size_t shared_limit(void)
{
#ifdef SAGAN_CUDA_EMULATOR
    return (size_t)227 << 10;
#else
    static size_t limit = 0;
    if (limit == 0) {
        int device = 0, bytes = 0;
        if (cudaGetDevice(&device) != cudaSuccess ||
            cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess)
            return (size_t)48 << 10;
        limit = (size_t)bytes;
    }
    return limit;
#endif
}

static int padded(int64_t n, int to)
{
    return (int)(cuda_ceil_div(n, to) * to);
}

static bool aligned(const void *p, int64_t row, size_t size)
{
    return (uintptr_t)p % 16 == 0 && (size_t)row * size % 16 == 0;
}

template <typename T, int MODE, int CP> static int launch(sag_kernel_env *env, const attention_pass *p)
{
    using shape = mma_shape<T, MODE, CP>;
    if (p->d > 4096 || p->e > 4096) return SAG_KERNEL_UNSUPPORTED; /* far from fitting; keeps the sizes in an int */
    mma_plan l = {};
    l.d_pad = padded(p->d, shape::GRADIENT && CP > 16 ? CP : 16);
    l.e_pad = padded(p->e, 16);
    l.aligned_d = aligned(p->a, p->d, sizeof(T)) && aligned(p->b, p->d, sizeof(T));
    l.aligned_e = shape::GRADIENT && aligned(p->a2, p->e, sizeof(T)) && aligned(p->b2, p->e, sizeof(T));
    l.aligned_x = aligned(p->x, p->width, sizeof(T));
    for (l.stages = 2; l.stages > 0; l.stages--) {
        const size_t bytes = shape::bytes(l);
        if (bytes > shared_limit()) continue;
        const int64_t items = p->batch * cuda_ceil_div(p->rows, shape::ROWS) * cuda_ceil_div(p->width, CP);
        return CUDA_LAUNCH(env, (attention_mma_kernel<T, MODE, CP>), cuda_blocks(items, 1, INT32_MAX), 32 * WARPS, bytes, *p, l);
    }
    return SAG_KERNEL_UNSUPPORTED;
}

template <typename T, int MODE> static int launch_wide(sag_kernel_env *env, const attention_pass *p)
{
    if (p->width <= 32) return launch<T, MODE, 32>(env, p);
    if (p->width <= 64) return launch<T, MODE, 64>(env, p);
    if (p->width <= 128) return launch<T, MODE, 128>(env, p);
    return launch<T, MODE, 256>(env, p);
}
template <typename T, int MODE> static int launch_narrow(sag_kernel_env *env, const attention_pass *p)
{
    if (p->width <= 16) return launch<T, MODE, 16>(env, p);
    if (p->width <= 32) return launch<T, MODE, 32>(env, p);
    return launch<T, MODE, 64>(env, p);
}

template <typename T> static int launch_mode(sag_kernel_env *env, attention_mode mode, const attention_pass *p)
{
    switch (mode) {
    case ATTENTION_FORWARD: return launch_wide<T, ATTENTION_FORWARD>(env, p);
    case ATTENTION_DV: return launch_wide<T, ATTENTION_DV>(env, p);
    case ATTENTION_DK: return launch_narrow<T, ATTENTION_DK>(env, p);
    default: return launch_narrow<T, ATTENTION_DQ>(env, p);
    }
}

int cuda_attention_mma(sag_kernel_env *env, attention_mode mode, sag_dtype act, const attention_pass *p)
{
    return CUDA_BY_DTYPE(act, launch_mode, env, mode, p);
}
