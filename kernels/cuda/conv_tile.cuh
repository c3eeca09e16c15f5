/*
 * conv_tile.cuh - one block's share of a matrix product: sums {ROWS, COLS} += a {ROWS, depth} b {COLS, depth} from
 * shared memory, for the two products of convolution (conv_pixels.cu, conv_outer.cu), and the way of the sums to memory.
 *
 * 256 threads. Three ways to multiply, which see the same bytes in the same places:
 *   CONV_PLAIN  f32 multiply-adds, ROWS/16 x COLS/16 sums a thread; any card; bf16 is widened on its way to shared memory
 *   CONV_TF32   mma.m16n8k8 of f32 data rounded to tf32; sm_80 on
 *   CONV_BF16   mma.m16n8k16 of bf16 data; sm_80 on
 * A stage of either operand lies in shared memory as
 *   lines    {rows, 64 bytes}: the summed index is contiguous. The 16-byte chunk q of a row lies at q ^ (row / 2 & 3), so
 *            that eight rows of one q (an ldmatrix, or eight threads' float4) touch all banks once;
 *   columns  {depth, rows + 8}: the rows are contiguous, the summed index is strided. The 8 elements of padding do there
 *            what the permutation does above.
 * ldmatrix moves 16-byte pieces of rows whatever they hold, so f32 lines make tf32 fragments by the same addresses.
 */
#ifndef SAG_CUDA_CONV_TILE_CUH
#define SAG_CUDA_CONV_TILE_CUH

#include "kernels/cuda/conv.cuh"
#include "kernels/cuda/mma.cuh"

enum { CONV_THREADS = 256, CONV_LINE = 64, CONV_PAD = 8 };

template <conv_math MATH> struct conv_element {
    typedef float type;
};
template <> struct conv_element<CONV_BF16> {
    typedef cuda_bf16 type;
};

/* ------------------------------------------------------------------------------------------ global to shared */

__device__ static inline void conv_widen(float *to, float x)
{
    *to = x;
}
__device__ static inline void conv_widen(float *to, cuda_bf16 x)
{
    *to = cuda_float(x);
}
__device__ static inline void conv_widen(cuda_bf16 *to, cuda_bf16 x)
{
    *to = x;
}

/* 16 bytes of a stage, element by element: at(e) is the address of element e, or NULL for a zero. */
template <typename E, typename At> __device__ static inline void conv_gather(void *shared, At at)
{
    enum { N = 16 / sizeof(E) };
    union {
        uint4 whole;
        E part[N];
    } chunk = {};
#pragma unroll
    for (int e = 0; e < N; e++) {
        const auto *p = at(e);
        if (p) conv_widen(&chunk.part[e], *p);
    }
    *static_cast<uint4 *>(shared) = chunk.whole;
}

/* 16 bytes of a stage that this thread brought: max(x, 0). */
__device__ static inline void conv_clip(float *shared)
{
    float4 v = *reinterpret_cast<float4 *>(shared);
    v.x = v.x < 0.0f ? 0.0f : v.x, v.y = v.y < 0.0f ? 0.0f : v.y;
    v.z = v.z < 0.0f ? 0.0f : v.z, v.w = v.w < 0.0f ? 0.0f : v.w;
    *reinterpret_cast<float4 *>(shared) = v;
}

/* ------------------------------------------------------------------------------------------ shared to global */

/* V neighbours of a row from memory, `left` of them there; whole: as 16 aligned bytes. */
template <typename T, int V> __device__ static inline void conv_get(float (&x)[V], const T *from, int64_t left, bool whole)
{
    union {
        uint4 whole;
        T part[16 / sizeof(T)];
    } chunk = {};
    if (whole) {
        chunk.whole = *reinterpret_cast<const uint4 *>(from);
    } else {
#pragma unroll
        for (int e = 0; e < V; e++)
            if (e < left) chunk.part[e] = from[e];
    }
#pragma unroll
    for (int e = 0; e < V; e++) x[e] = cuda_float(chunk.part[e]);
}

/* V neighbours of a row to memory, `left` > 0 of them wanted; whole: as 16 aligned bytes. */
template <typename T, int V>
__device__ static inline void conv_put(T *to, const float (&x)[V], int64_t left, bool whole, int accumulate)
{
    if (whole) {
        union {
            uint4 whole;
            T part[16 / sizeof(T)];
        } chunk;
        if (accumulate) chunk.whole = *reinterpret_cast<const uint4 *>(to);
#pragma unroll
        for (int e = 0; e < V; e++) cuda_put(&chunk.part[e], x[e], accumulate);
        *reinterpret_cast<uint4 *>(to) = chunk.whole;
        return;
    }
#pragma unroll
    for (int e = 0; e < V; e++)
        if (e < left) cuda_put(to + e, x[e], accumulate);
}

/* Where a tile's sums go: row i of the tile to `to + at(i)`, unless that is negative, columns col0 .. cols - 1. */
template <typename T> struct conv_target {
    T *to;
    const float *bias; /* of the columns, or NULL */
    const T *beside;   /* or NULL: row i's numbers at `beside + beside_at(i)`; added to the sums, or (mask) a ReLU's input */
    bool mask;
    int64_t col0, cols;
    int accumulate;
    bool whole; /* 16 bytes of a row are aligned together, and all are wanted or none */

    /* NaN beside a gradient lets it pass, as in pointwise.cu. */
    __device__ float join(float sum, float number) const
    {
        return !mask ? sum + number : number <= 0.0f ? 0.0f : sum;
    }
};

/* Tells a loop of stages how fragments of x are read. */
template <bool CLIPPED> struct conv_fragments {
    enum { clipped = CLIPPED };
};

/* ---------------------------------------------------------------------------------------------------- the tile */

template <conv_math MATH, int ROWS, int COLS, int WARPS_DOWN> struct conv_tile {
    typedef typename conv_element<MATH>::type element;
    enum {
        size = (int)sizeof(element),
        chunk = 16 / size,        /* elements in 16 bytes */
        depth = CONV_LINE / size, /* of the summed index in a stage */
        stages = MATH == CONV_PLAIN ? 2 : 4,
        warp_rows = ROWS / WARPS_DOWN,
        warp_cols = COLS / (CONV_THREADS / 32 / WARPS_DOWN),
        m_tiles = warp_rows / 16,
        n_tiles = warp_cols / 8,
        thread_rows = ROWS / 16,
        thread_cols = COLS / 16,
        line_bytes = (ROWS + COLS) * CONV_LINE,
        column_bytes = depth * (ROWS + COLS + 2 * CONV_PAD) * size,
        staging_pitch = warp_cols + 8, /* floats; 8 off a multiple of 32 at most: rows start in different banks */
        staging_bytes = CONV_THREADS / 32 * 16 * staging_pitch * 4,
    };
    static_assert(MATH == CONV_PLAIN || (warp_rows % 16 == 0 && warp_cols % 16 == 0), "warps take whole fragments");
    static_assert(MATH == CONV_PLAIN || staging_bytes <= stages * (int)line_bytes,
                  "the stages' memory serves the store");

    float sums[ROWS * COLS / CONV_THREADS];

    __device__ void clear()
    {
#pragma unroll
        for (int i = 0; i < ROWS * COLS / CONV_THREADS; i++) sums[i] = 0.0f;
    }

    /* ------------------------------------------------------------------------------------------ multiplying */

    /* A fragment's register of x as the product wants it. */
    template <bool RELU> __device__ static uint32_t factor_of(float x)
    {
        return to_tf32(RELU && x < 0.0f ? 0.0f : x);
    }
    template <bool RELU> __device__ static uint32_t factor_of(uint32_t bits)
    {
        if constexpr (MATH == CONV_TF32) {
            float x;
            memcpy(&x, &bits, sizeof x);
            return factor_of<RELU>(x);
        }
        return RELU ? relu_bf16x2(bits) : bits;
    }

    __device__ void multiply(const uint32_t (&a)[m_tiles][4], const uint32_t (&b)[n_tiles][2])
    {
#pragma unroll
        for (int m = 0; m < m_tiles; m++)
#pragma unroll
            for (int n = 0; n < n_tiles; n++) {
                float(&d)[4] = *reinterpret_cast<float(*)[4]>(sums + (m * n_tiles + n) * 4);
                if constexpr (MATH == CONV_TF32)
                    mma_tf32_1688(d, a[m], b[n]);
                else
                    mma_bf16_16816(d, a[m], b[n]);
            }
    }

    /* a: patches of x. RELU: of max(x, 0), which fragments become at 4 instructions for n_tiles products; in plain mode it
     * would be one for thread_cols multiply-adds, so there conv_clip did it before. b: in tf32 mode rounded already (the
     * weights' layout does it once for all blocks). */
    template <bool RELU> __device__ void add_lines(const char *a, const char *b)
    {
        const int tid = (int)threadIdx.x;
        if constexpr (MATH == CONV_PLAIN) {
            const int ty = tid >> 4, tx = tid & 15;
#pragma unroll 1
            for (int q = 0; q < 4; q++) {
                const char *pa = a + ty * CONV_LINE + ((q ^ (ty >> 1 & 3)) << 4);
                const char *pb = b + tx * CONV_LINE + ((q ^ (tx >> 1 & 3)) << 4);
                float4 x[thread_rows];
#pragma unroll
                for (int i = 0; i < thread_rows; i++) x[i] = *reinterpret_cast<const float4 *>(pa + i * 16 * CONV_LINE);
#pragma unroll
                for (int j = 0; j < thread_cols; j++) {
                    const float4 y = *reinterpret_cast<const float4 *>(pb + j * 16 * CONV_LINE);
#pragma unroll
                    for (int i = 0; i < thread_rows; i++) {
                        float s = sums[i * thread_cols + j];
                        s += x[i].x * y.x;
                        s += x[i].y * y.y;
                        s += x[i].z * y.z;
                        s += x[i].w * y.w;
                        sums[i * thread_cols + j] = s;
                    }
                }
            }
        } else {
            const int lane = tid & 31, warp = tid >> 5;
            const int a_row = lane & 15, a_q = lane >> 4;
            const int b_row = (lane & 7) + (lane >> 4 << 3), b_q = lane >> 3 & 1;
            const char *pa = a + (warp % WARPS_DOWN * warp_rows + a_row) * CONV_LINE;
            const char *pb = b + (warp / WARPS_DOWN * warp_cols + b_row) * CONV_LINE;
            const int a_at = (a_q ^ (a_row >> 1 & 3)) << 4, b_at = (b_q ^ (b_row >> 1 & 3)) << 4;
#pragma unroll
            for (int half = 0; half < 2; half++) { /* 32 of a line's 64 bytes: chunks q and q ^ 2 */
                uint32_t x[m_tiles][4], y[n_tiles][2];
#pragma unroll
                for (int m = 0; m < m_tiles; m++) {
                    ldmatrix_x4(x[m], pa + m * 16 * CONV_LINE + (a_at ^ half << 5));
#pragma unroll
                    for (int e = 0; e < 4; e++) x[m][e] = factor_of<RELU>(x[m][e]);
                }
#pragma unroll
                for (int n = 0; n < n_tiles; n += 2) {
                    uint32_t two[4];
                    ldmatrix_x4(two, pb + n * 8 * CONV_LINE + (b_at ^ half << 5));
                    y[n][0] = two[0], y[n][1] = two[1], y[n + 1][0] = two[2], y[n + 1][1] = two[3];
                }
                multiply(x, y);
            }
        }
    }

    template <int N> __device__ static void load_column(float (&x)[N], const float *line, int at)
    {
        if constexpr (N >= 4) {
#pragma unroll
            for (int g = 0; g < N; g += 4) {
                const float4 v = *reinterpret_cast<const float4 *>(line + g * 16 + at * 4);
                x[g] = v.x, x[g + 1] = v.y, x[g + 2] = v.z, x[g + 3] = v.w;
            }
        } else {
#pragma unroll
            for (int g = 0; g < N; g++) x[g] = line[g * 16 + at];
        }
    }

    /* b: patches of x, as a of add_lines. */
    template <bool RELU> __device__ void add_columns(const element *a, const element *b)
    {
        enum { a_pitch = ROWS + CONV_PAD, b_pitch = COLS + CONV_PAD };
        const int tid = (int)threadIdx.x, lane = tid & 31, warp = tid >> 5;
        if constexpr (MATH == CONV_PLAIN) {
#pragma unroll 2
            for (int k = 0; k < depth; k++) {
                float x[thread_rows], y[thread_cols];
                load_column(x, a + k * a_pitch, tid >> 4);
                load_column(y, b + k * b_pitch, tid & 15);
#pragma unroll
                for (int i = 0; i < thread_rows; i++)
#pragma unroll
                    for (int j = 0; j < thread_cols; j++) sums[i * thread_cols + j] += x[i] * y[j];
            }
            return;
        }
        const element *pa = a + warp % WARPS_DOWN * warp_rows, *pb = b + warp / WARPS_DOWN * warp_cols;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t x[m_tiles][4], y[n_tiles][2];
            if constexpr (MATH == CONV_BF16) {
                const int k = half * 16;
#pragma unroll
                for (int m = 0; m < m_tiles; m++)
                    ldmatrix_x4_trans(x[m], pa + (k + (lane & 7) + (lane >> 4 << 3)) * a_pitch + m * 16 +
                                                (lane >> 3 & 1) * 8);
#pragma unroll
                for (int n = 0; n < n_tiles; n += 2) {
                    uint32_t two[4];
                    ldmatrix_x4_trans(two, pb + (k + (lane & 15)) * b_pitch + n * 8 + (lane >> 4) * 8);
                    y[n][0] = factor_of<RELU>(two[0]), y[n][1] = factor_of<RELU>(two[1]);
                    y[n + 1][0] = factor_of<RELU>(two[2]), y[n + 1][1] = factor_of<RELU>(two[3]);
                }
            } else if constexpr (MATH == CONV_TF32) {
                const int g = lane >> 2, k = half * 8 + (lane & 3);
#pragma unroll
                for (int m = 0; m < m_tiles; m++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        x[m][e] = to_tf32(pa[(k + (e >> 1) * 4) * a_pitch + m * 16 + g + (e & 1) * 8]);
#pragma unroll
                for (int n = 0; n < n_tiles; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++) y[n][e] = factor_of<RELU>(pb[(k + e * 4) * b_pitch + n * 8 + g]);
            }
            if constexpr (MATH != CONV_PLAIN) multiply(x, y);
        }
    }

    /* ---------------------------------------------------------------------------------------------- storing */

    /* Row (or column) i of a thread's, in plain mode: after add_lines every 16th, after add_columns in fours. */
    template <bool COLUMNS, int N> __device__ static int place(int i, int at)
    {
        return COLUMNS && N >= 4 ? i / 4 * 64 + at * 4 + i % 4 : i * 16 + at;
    }

    /* All threads; `shared` holds staging_bytes that nobody uses any more. */
    template <bool COLUMNS, typename T, typename At, typename BesideAt>
    __device__ void store(char *shared, const conv_target<T> &target, At at, BesideAt beside_at)
    {
        const int tid = (int)threadIdx.x, lane = tid & 31, warp = tid >> 5;
        if constexpr (MATH == CONV_PLAIN) {
#pragma unroll
            for (int i = 0; i < thread_rows; i++) {
                const int r = place<COLUMNS, thread_rows>(i, tid >> 4);
                const int64_t row = at(r);
                const T *beside = target.beside ? target.beside + beside_at(r) : nullptr;
#pragma unroll
                for (int j = 0; j < thread_cols; j++) {
                    const int64_t col = target.col0 + place<COLUMNS, thread_cols>(j, tid & 15);
                    if (row < 0 || col >= target.cols) continue;
                    const float bias = target.bias ? target.bias[col] : 0.0f;
                    float x = sums[i * thread_cols + j] + bias;
                    if (beside) x = target.join(x, cuda_float(beside[col]));
                    cuda_put(target.to + row + col, x, target.accumulate);
                }
            }
            return;
        }
        /* Fragments of 16 rows pass through the warp's own corner of shared memory, to leave as 16-byte pieces of rows. */
        enum { V = 16 / sizeof(T), lanes = warp_cols / V, rows = 32 / lanes };
        float *mine = reinterpret_cast<float *>(shared) + warp * 16 * staging_pitch;
        const int g = lane >> 2, t = lane & 3;
        const int64_t col = target.col0 + warp / WARPS_DOWN * warp_cols + lane % lanes * V, left = target.cols - col;
        float bias[V];
#pragma unroll
        for (int e = 0; e < V; e++) bias[e] = target.bias && e < left ? target.bias[col + e] : 0.0f;
#pragma unroll
        for (int m = 0; m < m_tiles; m++) {
            __syncwarp();
#pragma unroll
            for (int n = 0; n < n_tiles; n++) {
                const float *d = sums + (m * n_tiles + n) * 4;
                *reinterpret_cast<float2 *>(mine + g * staging_pitch + n * 8 + 2 * t) = make_float2(d[0], d[1]);
                *reinterpret_cast<float2 *>(mine + (g + 8) * staging_pitch + n * 8 + 2 * t) = make_float2(d[2], d[3]);
            }
            __syncwarp();
#pragma unroll
            for (int from = 0; from < 16; from += rows) {
                const int r = from + lane / lanes;
                const int of_tile = warp % WARPS_DOWN * warp_rows + m * 16 + r;
                const int64_t row = at(of_tile);
                float x[V];
#pragma unroll
                for (int e = 0; e < V; e += 4) {
                    const float4 v = *reinterpret_cast<const float4 *>(mine + r * staging_pitch + lane % lanes * V + e);
                    x[e] = v.x + bias[e], x[e + 1] = v.y + bias[e + 1], x[e + 2] = v.z + bias[e + 2],
                    x[e + 3] = v.w + bias[e + 3];
                }
                if (row < 0 || left <= 0) continue;
                if (target.beside) {
                    float number[V];
                    conv_get(number, target.beside + beside_at(of_tile) + col, left, target.whole);
#pragma unroll
                    for (int e = 0; e < V; e++) x[e] = target.join(x[e], number[e]);
                }
                conv_put(target.to + row + col, x, left, target.whole, target.accumulate);
            }
        }
    }
};

#endif
