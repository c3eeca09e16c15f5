/*
 * softmax.cu - softmax and its logarithm over the last dimension, rows x cols.
 *
 *   y = exp(x - m) / sum exp(x - m)      dx = y (dy - sum(dy y))
 *   y = (x - m) - log sum exp(x - m)     dx = dy - exp(y) sum(dy)       with m the row's maximum
 *
 * Backward reads y only. A row belongs to a warp, or to a block of 256 if it is long; sums in f32, in a fixed order. Bound by
 * memory: x in and y out (y, dy in and dx out); what is read again comes from L1.
 */
#include "kernels/cuda/cuda.cuh"

#define WARP_COLS 1024 /* longest row for one warp */
#define THREADS 256

/* Where a row's threads are, and their reductions; WIDE: a block for each row. */
template <bool WIDE> struct team {
    int64_t first, step; /* rows */
    int lane, lanes;
    __device__ team()
    {
        const int per = WIDE ? 1 : THREADS / 32;
        lanes = WIDE ? THREADS : 32;
        lane = (int)threadIdx.x % lanes;
        first = (int64_t)blockIdx.x * per + (WIDE ? 0 : (int)threadIdx.x / 32);
        step = (int64_t)gridDim.x * per;
    }
    __device__ static float sum(float x)
    {
        return WIDE ? cuda_block_sum(x) : cuda_warp_sum(x);
    }
    __device__ static float max(float x)
    {
        return WIDE ? cuda_block_max(x) : cuda_warp_max(x);
    }
};

template <typename T, bool WIDE> __global__ void softmax_kernel(T *to, const T *from, int64_t rows, int64_t cols, int log)
{
    const team<WIDE> own;
    for (int64_t r = own.first; r < rows; r += own.step) {
        const T *x = from + r * cols;
        T *y = to + r * cols;
        float top = -INFINITY, sum = 0.0f;
        for (int64_t c = own.lane; c < cols; c += own.lanes) top = fmaxf(top, cuda_float(x[c]));
        top = own.max(top);
        for (int64_t c = own.lane; c < cols; c += own.lanes) sum += expf(cuda_float(x[c]) - top);
        sum = own.sum(sum);
        const float log_sum = logf(sum), inverse = 1.0f / sum;
        for (int64_t c = own.lane; c < cols; c += own.lanes) {
            const float d = cuda_float(x[c]) - top;
            cuda_store(y + c, log ? d - log_sum : expf(d) * inverse);
        }
    }
}

template <typename T, bool WIDE>
__global__ void softmax_bwd_kernel(T *to, const T *saved, const T *grad, int64_t rows, int64_t cols, int log, int accumulate)
{
    const team<WIDE> own;
    for (int64_t r = own.first; r < rows; r += own.step) {
        const T *y = saved + r * cols, *dy = grad + r * cols;
        T *dx = to + r * cols;
        float sum = 0.0f;
        for (int64_t c = own.lane; c < cols; c += own.lanes) sum += log ? cuda_float(dy[c]) : cuda_float(dy[c]) * cuda_float(y[c]);
        sum = own.sum(sum);
        for (int64_t c = own.lane; c < cols; c += own.lanes) {
            const float g = cuda_float(dy[c]), v = cuda_float(y[c]);
            cuda_put(dx + c, log ? g - expf(v) * sum : v * (g - sum), accumulate);
        }
    }
}

template <typename T> static int forward(sag_kernel_env *env, const softmax_args *a)
{
    T *y = (T *)a->y;
    const T *x = (const T *)a->x;
    if (a->rows < 1 || a->cols < 1) return SAG_KERNEL_OK;
    if (a->cols <= WARP_COLS)
        return CUDA_LAUNCH(env, (softmax_kernel<T, false>), cuda_blocks(a->rows, THREADS / 32), THREADS, 0, y, x, a->rows, a->cols, a->log);
    return CUDA_LAUNCH(env, (softmax_kernel<T, true>), cuda_blocks(a->rows, 1), THREADS, 0, y, x, a->rows, a->cols, a->log);
}

template <typename T> static int backward(sag_kernel_env *env, const softmax_args *a)
{
    T *dx = (T *)a->dx;
    const T *y = (const T *)a->y_saved, *dy = (const T *)a->dy;
    if (a->rows < 1 || a->cols < 1) return SAG_KERNEL_OK;
    if (a->cols <= WARP_COLS)
        return CUDA_LAUNCH(env, (softmax_bwd_kernel<T, false>), cuda_blocks(a->rows, THREADS / 32), THREADS, 0, dx, y, dy, a->rows,
                           a->cols, a->log, a->accumulate);
    return CUDA_LAUNCH(env, (softmax_bwd_kernel<T, true>), cuda_blocks(a->rows, 1), THREADS, 0, dx, y, dy, a->rows, a->cols, a->log,
                       a->accumulate);
}

static int cuda_softmax_fwd(sag_kernel_env *env, const softmax_args *a)
{
    return CUDA_BY_DTYPE(a->act, forward, env, a);
}
static int cuda_softmax_bwd(sag_kernel_env *env, const softmax_args *a)
{
    return CUDA_BY_DTYPE(a->act, backward, env, a);
}

CUDA_REGISTER(softmax)
{
    t->softmax_fwd = cuda_softmax_fwd;
    t->softmax_bwd = cuda_softmax_bwd;
}
