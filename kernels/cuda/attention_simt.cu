/*
 * attention_simt.cu - the passes of attention (attention.cuh) by f32 multiply-adds: f32 unless tf32 is allowed, cards
 * without tensor cores, and shapes that the other kernel cannot hold.
 *
 * Block: 256 threads, 64 rows, CP columns of out (4 x CP/16 sums a thread), all j in tiles of 64. Bound by multiply-adds:
 * D (+ E in DK and DQ) + CP for each score; a step of the second product reads 1 + CP/64 float4 for CP/4 of them. From
 * memory, each tile of columns comes once for each 64 rows, from L2 for the most part.
 */
#include "kernels/cuda/attention_simt.cuh"

template <int MODE> __device__ static inline void simt_weights(float (&w)[4][4], const attention_pass &p, const float *row_lse,
                                                               const float *row_delta, int64_t query0, int64_t cols, float (&s)[4][4],
                                                               float (&dp)[4][4])
{
    const int j0 = (int)threadIdx.x % 16 * 4;
    for (int j = 0; j < 4; j++) {
        const bool valid = j0 + j < cols;
        float lse = 0, delta = 0;
        if (MODE != ATTENTION_DQ && valid) lse = p.lse[query0 + j0 + j];
        if (MODE == ATTENTION_DK && valid) delta = p.delta[query0 + j0 + j];
        for (int i = 0; i < 4; i++) {
            float x = attention_exp2(fmaf(s[i][j], p.scale2, -(MODE == ATTENTION_DQ ? row_lse[i] : lse)));
            if (MODE != ATTENTION_DV) x *= dp[i][j] - (MODE == ATTENTION_DQ ? row_delta[i] : delta);
            w[i][j] = valid ? x : 0.0f;
        }
    }
}

template <typename T, int MODE, int CP> __global__ void __launch_bounds__(SIMT_THREADS) attention_simt_kernel(attention_pass p)
{
    constexpr int WIDE = CP >= 64 ? 4 : 1, GROUPS = CP / (16 * WIDE);
    CUDA_SHARED(float, at, [SIMT_DEPTH][SIMT_ROW]);
    CUDA_SHARED(float, bt, [SIMT_DEPTH][SIMT_ROW]);
    CUDA_SHARED(float, wt, [SIMT_TILE][SIMT_ROW]); /* W, turned round: [j][i] */
    CUDA_SHARED(float, xt, [SIMT_DEPTH][CP]);
    const int tid = (int)threadIdx.x, i0 = tid / 16 * 4, tx = tid % 16;
    const int64_t row_blocks = (p.rows + SIMT_TILE - 1) / SIMT_TILE, strips = (p.width + CP - 1) / CP;
    for (int64_t item = blockIdx.x; item < p.batch * row_blocks * strips; item += gridDim.x) {
        const int64_t strip = item % strips, image = item / strips / row_blocks, row0 = item / strips % row_blocks * SIMT_TILE;
        const int64_t rows = p.rows - row0 < SIMT_TILE ? p.rows - row0 : SIMT_TILE, c0 = strip * CP;
        const T *a = (const T *)p.a + (image * p.rows + row0) * p.d;
        float acc[4][GROUPS * WIDE], top[4], sum[4], row_lse[4], row_delta[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            top[i] = -INFINITY;
            sum[i] = row_lse[i] = row_delta[i] = 0.0f;
            if (MODE == ATTENTION_DQ && i0 + i < rows) {
                row_lse[i] = p.lse[image * p.rows + row0 + i0 + i];
                row_delta[i] = p.delta[image * p.rows + row0 + i0 + i];
            }
#pragma unroll
            for (int c = 0; c < GROUPS * WIDE; c++) acc[i][c] = 0.0f;
        }
        for (int64_t col0 = 0; col0 < p.cols; col0 += SIMT_TILE) {
            const int64_t cols = p.cols - col0 < SIMT_TILE ? p.cols - col0 : SIMT_TILE, at_col = image * p.cols + col0;
            float s[4][4], w[4][4];
            simt_products(s, at, bt, a, rows, (const T *)p.b + at_col * p.d, cols, p.d);
            if (MODE == ATTENTION_FORWARD) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float high = -INFINITY;
                    for (int j = 0; j < 4; j++) {
                        s[i][j] = tx * 4 + j < cols ? s[i][j] * p.scale2 : -INFINITY;
                        high = fmaxf(high, s[i][j]);
                    }
                    high = fmaxf(simt_row_max(high), top[i]);
                    const float shrink = attention_exp2(top[i] - high);
                    top[i] = high;
                    sum[i] *= shrink;
#pragma unroll
                    for (int c = 0; c < GROUPS * WIDE; c++) acc[i][c] *= shrink;
                    for (int j = 0; j < 4; j++) sum[i] += w[i][j] = attention_exp2(s[i][j] - high);
                }
            } else {
                float dp[4][4];
                if (MODE == ATTENTION_DK || MODE == ATTENTION_DQ)
                    simt_products(dp, at, bt, (const T *)p.a2 + (image * p.rows + row0) * p.e, rows, (const T *)p.b2 + at_col * p.e,
                                  cols, p.e);
                simt_weights<MODE>(w, p, row_lse, row_delta, at_col, cols, s, dp);
            }
            for (int j = 0; j < 4; j++)
                *(float4 *)&wt[tx * 4 + j][i0] = make_float4(w[0][j], w[1][j], w[2][j], w[3][j]);
            const T *x = (const T *)p.x + at_col * p.width + c0;
            for (int k0 = 0; k0 < cols; k0 += SIMT_DEPTH) {
                __syncthreads();
                for (int i = tid; i < SIMT_DEPTH * CP; i += SIMT_THREADS) {
                    const int k = i / CP, c = i % CP;
                    xt[k][c] = k0 + k < cols && c0 + c < p.width ? cuda_float(x[(k0 + k) * p.width + c]) : 0.0f;
                }
                __syncthreads();
                for (int k = 0; k < SIMT_DEPTH; k++) {
                    const float4 v = *(const float4 *)&wt[k0 + k][i0];
                    const float u[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                    for (int g = 0; g < GROUPS; g++) {
                        float y[WIDE];
                        memcpy(y, &xt[k][g * 64 + tx * WIDE], sizeof y);
                        for (int i = 0; i < 4; i++)
                            for (int c = 0; c < WIDE; c++) acc[i][g * WIDE + c] = fmaf(u[i], y[c], acc[i][g * WIDE + c]);
                    }
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float factor = p.factor;
            if (MODE == ATTENTION_FORWARD) {
                const float total = simt_row_sum(sum[i]);
                factor = 1.0f / total;
                if (p.lse && strip == 0 && tx == 0 && i0 + i < rows)
                    p.lse[image * p.rows + row0 + i0 + i] = top[i] + log2f(total);
            }
            if (i0 + i >= rows) continue;
            T *to = (T *)p.out + (image * p.rows + row0 + i0 + i) * p.width + c0;
#pragma unroll
            for (int g = 0; g < GROUPS; g++)
                for (int c = 0; c < WIDE; c++) {
                    const int at_c = g * 64 + tx * WIDE + c;
                    if (c0 + at_c < p.width) cuda_put(to + at_c, factor * acc[i][g * WIDE + c], p.accumulate);
                }
        }
    }
}

template <typename T, int MODE, int CP> static int launch(sag_kernel_env *env, const attention_pass *p)
{
    const int64_t items = p->batch * cuda_ceil_div(p->rows, SIMT_TILE) * cuda_ceil_div(p->width, CP);
    return CUDA_LAUNCH(env, (attention_simt_kernel<T, MODE, CP>), cuda_blocks(items, 1, INT32_MAX), SIMT_THREADS, 0, *p);
}

/* Strips of out as wide as registers allow, so that scores are made once; dk and dq are narrow. */
template <typename T, int MODE> static int launch_strips(sag_kernel_env *env, const attention_pass *p)
{
    if (p->width <= 16) return launch<T, MODE, 16>(env, p);
    if (p->width <= 64 || MODE == ATTENTION_DK || MODE == ATTENTION_DQ) return launch<T, MODE, 64>(env, p);
    if (p->width <= 128) return launch<T, MODE, 128>(env, p);
    return launch<T, MODE, 256>(env, p);
}

template <typename T> static int launch_mode(sag_kernel_env *env, attention_mode mode, const attention_pass *p)
{
    switch (mode) {
    case ATTENTION_FORWARD: return launch_strips<T, ATTENTION_FORWARD>(env, p);
    case ATTENTION_DV: return launch_strips<T, ATTENTION_DV>(env, p);
    case ATTENTION_DK: return launch_strips<T, ATTENTION_DK>(env, p);
    default: return launch_strips<T, ATTENTION_DQ>(env, p);
    }
}

int cuda_attention_simt(sag_kernel_env *env, attention_mode mode, sag_dtype act, const attention_pass *p)
{
    return CUDA_BY_DTYPE(act, launch_mode, env, mode, p);
}
