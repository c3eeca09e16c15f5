/*
 * optim.cu - one pass over whole parameter slabs: Adam (equations: kernels/cpu/optim.c), the moving average of weights, fill,
 * axpy, and the loss ring. Every hyperparameter is read from device memory at the time of the call.
 *
 * Adam is two launches: one thread ticks the count and works out the step's factors in f64, the pass reads them. So no block
 * can see a count of before or after, and nobody takes a power twice. Bound by memory: 28 bytes a parameter, 36 with the
 * average, 12 for the average alone.
 */
#include "kernels/cuda/elementwise.cuh"

__device__ static inline uint64_t clock_of(const int32_t *clock)
{
    return (uint64_t)(uint32_t)clock[0] | (uint64_t)(uint32_t)clock[1] << 32;
}

/* target = keep * target + take * source; before hyper[1] steps a plain copy, even of a target that holds NaN. */
struct ema_decay {
    float keep, take;
    int copy;
    __device__ void read(const ema_args &a)
    {
        keep = a.hyper[0];
        take = (float)(1.0 - (double)keep);
        copy = (double)clock_of(a.clock) < (double)a.hyper[1] || keep == 0.0f;
    }
    /* Rounded in one way wherever it stands: the step's average and the plain one have the same bits. */
    __device__ float operator()(float target, float source) const
    {
        return copy ? source : fmaf(keep, target, __fmul_rn(take, source));
    }
};

struct ema_pass {
    ema_args a;
    ema_decay d;
    __device__ void begin()
    {
        d.read(a);
    }
    __device__ float operator()(const float *in, int64_t) const
    {
        return d(in[0], in[1]);
    }
};

static int cuda_ema(sag_kernel_env *env, const ema_args *a)
{
    return cuda_map2<float>(env, ema_pass{*a, {0, 0, 0}}, a->target, a->target, a->source, a->n, 0);
}

/* -------------------------------------------------------------------------------------------------- Adam */

struct adam_step {
    float b1, b2, d1, d2, eps, decay, factor, step, shrink;
};

__global__ void adam_step_kernel(int32_t *count, const float *h, int tf_eps, adam_step *out)
{
    const uint64_t t = clock_of(count) + 1;
    count[0] = (int32_t)(uint32_t)t;
    count[1] = (int32_t)(uint32_t)(t >> 32);
    /* in double: with b2 = 0.999 a float c2 of the first steps would have lost its digits */
    const double c1 = 1.0 - pow((double)h[1], (double)t), c2 = 1.0 - pow((double)h[2], (double)t), rate = (double)h[0];
    adam_step s;
    s.b1 = h[1];
    s.b2 = h[2];
    s.d1 = (float)(1.0 - (double)h[1]);
    s.d2 = (float)(1.0 - (double)h[2]);
    s.eps = h[3];
    s.decay = h[0] * h[4];
    s.factor = h[5];
    s.step = (float)(tf_eps ? rate * sqrt(c2) / c1 : rate / c1);
    s.shrink = tf_eps ? 1.0f : (float)(1.0 / sqrt(c2));
    *out = s;
}

/* One parameter. Products that meet a sum are fused by hand, so that every use of it rounds alike. */
__device__ static inline void adam_one(const adam_step &s, float &w, float &m, float &v, float grad)
{
    const float g = s.factor * grad;
    m = fmaf(s.b1, m, __fmul_rn(s.d1, g));
    v = fmaf(s.b2, v, __fmul_rn(s.d2, __fmul_rn(g, g)));
    const float move = __fmul_rn(s.step, m) / fmaf(sqrtf(v), s.shrink, s.eps);
    w -= fmaf(s.decay, w, move);
}

/* V neighbours: all loads, then the arithmetic. */
template <bool AVERAGE, int V>
__device__ static inline void adam_group(const adam_args &a, const adam_step &s, const ema_decay &d, int64_t i)
{
    float w[V], m[V], v[V], g[V], target[V];
    cuda_load_group<V>(w, a.w + i);
    cuda_load_group<V>(m, a.m + i);
    cuda_load_group<V>(v, a.v + i);
    cuda_load_group<V>(g, a.g + i);
    if (AVERAGE) cuda_load_group<V>(target, a.average.target + i);
#pragma unroll
    for (int k = 0; k < V; k++) {
        adam_one(s, w[k], m[k], v[k], g[k]);
        if (AVERAGE) target[k] = d(target[k], w[k]);
    }
    cuda_store_group<V>(a.w + i, w);
    cuda_store_group<V>(a.m + i, m);
    cuda_store_group<V>(a.v + i, v);
    if (AVERAGE) cuda_store_group<V>(a.average.target + i, target);
}

template <bool AVERAGE, int V> __global__ void __launch_bounds__(CUDA_BLOCK) adam_kernel(adam_args a, const adam_step *step)
{
    const adam_step s = *step;
    ema_decay d = {0.0f, 0.0f, 0};
    if (AVERAGE) d.read(a.average);
    const int64_t groups = a.n / V, t = (int64_t)blockIdx.x * CUDA_BLOCK + threadIdx.x, stride = (int64_t)gridDim.x * CUDA_BLOCK;
    for (int64_t g = t; g < groups; g += stride) adam_group<AVERAGE, V>(a, s, d, g * V);
    if (V > 1 && groups * V + t < a.n) adam_group<AVERAGE, 1>(a, s, d, groups * V + t);
}

static int cuda_adam(sag_kernel_env *env, const adam_args *a)
{
    adam_step *step = (adam_step *)env->scratch(env, sizeof *step);
    if (!step) return SAG_KERNEL_NO_MEMORY;
    CUDA_TRY(CUDA_LAUNCH(env, adam_step_kernel, 1, 1, 0, a->count, a->hyper, a->tf_eps, step));
    if (a->n <= 0) return SAG_KERNEL_OK;
    const bool aligned = cuda_aligned(a->w, 16) && cuda_aligned(a->m, 16) && cuda_aligned(a->v, 16) && cuda_aligned(a->g, 16) &&
                         cuda_aligned(a->average.target, 16);
    const unsigned blocks = cuda_blocks(a->n, CUDA_BLOCK * (aligned ? 4 : 1));
    if (a->average.target) {
        if (aligned) return CUDA_LAUNCH(env, (adam_kernel<true, 4>), blocks, CUDA_BLOCK, 0, *a, step);
        return CUDA_LAUNCH(env, (adam_kernel<true, 1>), blocks, CUDA_BLOCK, 0, *a, step);
    }
    if (aligned) return CUDA_LAUNCH(env, (adam_kernel<false, 4>), blocks, CUDA_BLOCK, 0, *a, step);
    return CUDA_LAUNCH(env, (adam_kernel<false, 1>), blocks, CUDA_BLOCK, 0, *a, step);
}

/* ---------------------------------------------------------------------------------------- fill, axpy, record */

/* Bytes of a pattern that repeats every four: single bytes up to a 16-byte boundary, groups, the rest. */
__global__ void __launch_bounds__(CUDA_BLOCK) fill_kernel(unsigned char *x, int64_t bytes, int head, uint32_t pattern)
{
    const int64_t groups = (bytes - head) / 16, tail = head + groups * 16, t = (int64_t)blockIdx.x * CUDA_BLOCK + threadIdx.x;
    if (t < head) x[t] = (unsigned char)(pattern >> 8 * (t % 4));
    if (tail + t < bytes) x[tail + t] = (unsigned char)(pattern >> 8 * ((tail + t) % 4));
    const uint32_t turned = head % 4 == 0 ? pattern : pattern >> 8 * (head % 4) | pattern << (32 - 8 * (head % 4));
    const uint32_t four[4] = {turned, turned, turned, turned};
    uint32_t *body = reinterpret_cast<uint32_t *>(x + head);
    for (int64_t g = t; g < groups; g += (int64_t)gridDim.x * CUDA_BLOCK) cuda_store_group<4>(body + g * 4, four);
}

static int cuda_fill(sag_kernel_env *env, const fill_args *a)
{
    uint32_t pattern = 0;
    int64_t item = 4;
    if (a->dtype == SAG_F32) {
        const float v = (float)a->value;
        memcpy(&pattern, &v, 4);
    } else if (a->dtype == SAG_I32) {
        pattern = (uint32_t)(int32_t)a->value;
    } else if (a->dtype == SAG_BF16) {
        cuda_bf16 v;
        cuda_store(&v, (float)a->value);
        pattern = (uint32_t)v.bits * 0x10001u;
        item = 2;
    } else if (a->dtype == SAG_U8) {
        pattern = (uint32_t)(uint8_t)a->value * 0x01010101u;
        item = 1;
    } else {
        return SAG_KERNEL_UNSUPPORTED;
    }
    const int64_t bytes = a->n * item;
    int64_t head = (int64_t)(16 - ((uintptr_t)a->x & 15)) % 16;
    if (bytes <= 0) return SAG_KERNEL_OK;
    if (head > bytes) head = bytes;
    return CUDA_LAUNCH(env, fill_kernel, cuda_blocks(bytes, 16 * CUDA_BLOCK), CUDA_BLOCK, 0, (unsigned char *)a->x, bytes, (int)head, pattern);
}

struct times {
    float a;
    __device__ void begin()
    {
    }
    __device__ float operator()(const float *in, int64_t) const
    {
        return fmaf(a, in[1], in[0]);
    }
};
template <typename T> static int axpy(sag_kernel_env *env, const axpy_args *a)
{
    return cuda_map2<T>(env, times{a->a}, a->y, a->y, a->x, a->n, 0);
}
static int cuda_axpy(sag_kernel_env *env, const axpy_args *a)
{
    return CUDA_BY_DTYPE(a->act, axpy, env, a);
}

__global__ void record_kernel(float *ring, const float *x, const int32_t *clock, int64_t rows, int64_t columns, int64_t column)
{
    ring[(int64_t)(clock_of(clock) % (uint64_t)rows) * columns + column] = *x;
}
static int cuda_record(sag_kernel_env *env, const record_args *a)
{
    return CUDA_LAUNCH(env, record_kernel, 1, 1, 0, a->ring, a->x, a->clock, a->rows, a->columns, a->column);
}

CUDA_REGISTER(optim)
{
    t->adam = cuda_adam;
    t->ema = cuda_ema;
    t->fill = cuda_fill;
    t->axpy = cuda_axpy;
    t->record = cuda_record;
}
