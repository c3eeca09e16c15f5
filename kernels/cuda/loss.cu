/*
 * loss.cu - the GAN losses and cross entropy (equations: kernels/cpu/loss.c). A step has a few hundred logits, so launches
 * count, not bytes: a loss is one launch of one block up to 64 Ki logits, two-step sums beyond; a gradient is one pass. Means
 * are formed in f64 in a fixed order. Cross entropy: a warp to a row, then one block for the mean; a label outside 0..k-1
 * adds nothing to the loss and gives its row no gradient.
 */
#include "kernels/cuda/sums.cuh"

enum { ONE_BLOCK = 65536 };
enum loss_role { ROLE_REAL, ROLE_FAKE, ROLE_GENERATOR };

struct logit_cost {
    sag_gan_loss kind;
    loss_role role;
    __device__ float cost(float x) const
    {
        const float toward = role == ROLE_FAKE ? x : -x; /* every cost falls where this falls */
        if (kind == SAG_LOSS_BCE) return (toward < 0.0f ? 0.0f : toward) + log1pf(expf(-fabsf(toward)));
        if (kind == SAG_LOSS_HINGE && role != ROLE_GENERATOR) return 1.0f + toward < 0.0f ? 0.0f : 1.0f + toward;
        return toward;
    }
    __device__ float slope(float x) const
    {
        const float sign = role == ROLE_FAKE ? 1.0f : -1.0f, toward = sign * x;
        if (kind == SAG_LOSS_BCE) {
            const float e = expf(-fabsf(toward)), r = 1.0f / (1.0f + e);
            return sign * (toward < 0.0f ? e * r : r);
        }
        if (kind == SAG_LOSS_HINGE && role != ROLE_GENERATOR) return 1.0f + toward > 0.0f ? sign : 0.0f;
        return sign;
    }
};

/* The sum of double over a block, in thread 0's hands; the order is fixed. */
__device__ static inline double block_total(double x)
{
    return cuda_block_sum(x);
}

/* y = mean cost of real (if any) + mean cost of fake */
template <typename T>
__global__ void __launch_bounds__(1024) gan_loss_kernel(sag_gan_loss kind, const T *real, int64_t n_real, const T *fake, int64_t n_fake, float *y)
{
    const logit_cost r = {kind, ROLE_REAL}, f = {kind, real ? ROLE_FAKE : ROLE_GENERATOR};
    double a = 0.0, b = 0.0;
    if (real) {
        for (int64_t i = threadIdx.x; i < n_real; i += blockDim.x) a += (double)r.cost(cuda_float(real[i]));
    }
    for (int64_t i = threadIdx.x; i < n_fake; i += blockDim.x) b += (double)f.cost(cuda_float(fake[i]));
    a = block_total(a);
    b = block_total(b);
    if (threadIdx.x == 0) y[0] = (float)((real ? a / (double)n_real : 0.0) + b / (double)n_fake);
}

/* The same for many logits: means of both sides in scratch, then their sum. */
struct cost_sum : cuda_sum_plain {
    logit_cost c;
    __device__ float operator()(float x, float) const
    {
        return c.cost(x);
    }
};
struct put_mean {
    double *mean, n;
    __device__ void operator()(int64_t, double s) const
    {
        *mean = s / n;
    }
};
__global__ void add_means_kernel(const double *mean, int count, float *y)
{
    y[0] = (float)(count == 2 ? mean[0] + mean[1] : mean[0]);
}

template <typename T> static int gan_loss_fwd(sag_kernel_env *env, const gan_loss_args *a)
{
    if (a->n_fake + (a->real ? a->n_real : 0) <= ONE_BLOCK)
        return CUDA_LAUNCH(env, (gan_loss_kernel<T>), 1, 1024, 0, a->kind, (const T *)a->real, a->n_real, (const T *)a->fake, a->n_fake, a->y);
    double *mean = (double *)env->scratch(env, 2 * sizeof *mean);
    if (!mean) return SAG_KERNEL_NO_MEMORY;
    int count = 0;
    cost_sum m;
    if (a->real) {
        m.c = {a->kind, ROLE_REAL};
        CUDA_TRY(cuda_sums<T>(env, a->real, NULL, 1, a->n_real, 1, m, put_mean{mean + count++, (double)a->n_real}));
    }
    m.c = {a->kind, a->real ? ROLE_FAKE : ROLE_GENERATOR};
    CUDA_TRY(cuda_sums<T>(env, a->fake, NULL, 1, a->n_fake, 1, m, put_mean{mean + count++, (double)a->n_fake}));
    return CUDA_LAUNCH(env, add_means_kernel, 1, 1, 0, mean, count, a->y);
}

struct cost_grad {
    logit_cost c;
    const float *dy;
    float n, each;
    __device__ void begin()
    {
        each = *dy / n;
    }
    __device__ float operator()(const float *in, int64_t) const
    {
        return each * c.slope(in[0]);
    }
};

template <typename T> static int gan_loss_bwd(sag_kernel_env *env, const gan_loss_args *a)
{
    if (a->dreal) {
        const cost_grad f = {{a->kind, ROLE_REAL}, a->dy, (float)a->n_real, 0};
        CUDA_TRY(cuda_map1<T>(env, f, a->dreal, a->real, a->n_real, a->accumulate_real));
    }
    if (!a->dfake) return SAG_KERNEL_OK;
    const cost_grad f = {{a->kind, a->real ? ROLE_FAKE : ROLE_GENERATOR}, a->dy, (float)a->n_fake, 0};
    return cuda_map1<T>(env, f, a->dfake, a->fake, a->n_fake, a->accumulate_fake);
}

/* ----------------------------------------------------------------------------------- cross entropy */

/* A row's largest logit and the sum of exp(x - top), in every lane. */
template <typename T> __device__ static inline void row_softmax_parts(const T *x, int64_t k, int lane, float &top, float &sum)
{
    float m = -INFINITY;
    for (int64_t c = lane; c < k; c += 32) m = fmaxf(m, cuda_float(x[c]));
    top = cuda_warp_max(m);
    float s = 0.0f;
    for (int64_t c = lane; c < k; c += 32) s += expf(cuda_float(x[c]) - top);
    sum = cuda_warp_sum(s);
}

template <typename T>
__global__ void __launch_bounds__(CUDA_BLOCK) cross_entropy_rows_kernel(int64_t n, int64_t k, const T *logits, const int32_t *labels, double *row)
{
    const int lane = (int)threadIdx.x & 31, warps = CUDA_BLOCK / 32;
    for (int64_t i = (int64_t)blockIdx.x * warps + ((int)threadIdx.x >> 5); i < n; i += (int64_t)gridDim.x * warps) {
        const T *x = logits + i * k;
        const int64_t label = labels[i];
        const bool good = label >= 0 && label < k;
        float top, sum;
        row_softmax_parts(x, k, lane, top, sum);
        if (lane == 0) row[i] = good ? (double)logf(sum) + ((double)top - (double)cuda_float(x[label])) : 0.0;
    }
}
__global__ void __launch_bounds__(CUDA_BLOCK) mean_kernel(int64_t n, const double *row, float *y)
{
    double s = 0.0;
    for (int64_t i = threadIdx.x; i < n; i += CUDA_BLOCK) s += row[i];
    s = block_total(s);
    if (threadIdx.x == 0) y[0] = (float)(s / (double)n);
}

/* dlogits = (softmax - one_hot) dy / n */
template <typename T>
__global__ void __launch_bounds__(CUDA_BLOCK)
    cross_entropy_bwd_kernel(int64_t n, int64_t k, const T *logits, const int32_t *labels, const float *dy, T *dlogits, int accumulate)
{
    const int lane = (int)threadIdx.x & 31, warps = CUDA_BLOCK / 32;
    const float each = *dy / (float)n;
    for (int64_t i = (int64_t)blockIdx.x * warps + ((int)threadIdx.x >> 5); i < n; i += (int64_t)gridDim.x * warps) {
        const T *x = logits + i * k;
        T *dx = dlogits + i * k;
        const int64_t label = labels[i];
        const bool good = label >= 0 && label < k;
        float top, sum;
        row_softmax_parts(x, k, lane, top, sum);
        const float factor = each / sum;
        for (int64_t c = lane; c < k; c += 32) {
            const float p = factor * expf(cuda_float(x[c]) - top);
            if (good) cuda_put(dx + c, c == label ? p - each : p, accumulate);
            else if (!accumulate) cuda_store(dx + c, 0.0f);
        }
    }
}

template <typename T> static int cross_entropy_fwd(sag_kernel_env *env, const cross_entropy_args *a)
{
    double *row = (double *)env->scratch(env, (size_t)a->n * sizeof *row);
    if (!row) return SAG_KERNEL_NO_MEMORY;
    CUDA_TRY(CUDA_LAUNCH(env, (cross_entropy_rows_kernel<T>), cuda_blocks(a->n, CUDA_BLOCK / 32), CUDA_BLOCK, 0, a->n, a->k, (const T *)a->logits, a->labels, row));
    return CUDA_LAUNCH(env, mean_kernel, 1, CUDA_BLOCK, 0, a->n, row, a->y);
}
template <typename T> static int cross_entropy_bwd(sag_kernel_env *env, const cross_entropy_args *a)
{
    return CUDA_LAUNCH(env, (cross_entropy_bwd_kernel<T>), cuda_blocks(a->n, CUDA_BLOCK / 32), CUDA_BLOCK, 0, a->n, a->k, (const T *)a->logits, a->labels, a->dy, (T *)a->dlogits, a->accumulate);
}

static int cuda_gan_loss_fwd(sag_kernel_env *env, const gan_loss_args *a)
{
    return CUDA_BY_DTYPE(a->act, gan_loss_fwd, env, a);
}
static int cuda_gan_loss_bwd(sag_kernel_env *env, const gan_loss_args *a)
{
    return CUDA_BY_DTYPE(a->act, gan_loss_bwd, env, a);
}
static int cuda_cross_entropy_fwd(sag_kernel_env *env, const cross_entropy_args *a)
{
    return CUDA_BY_DTYPE(a->act, cross_entropy_fwd, env, a);
}
static int cuda_cross_entropy_bwd(sag_kernel_env *env, const cross_entropy_args *a)
{
    return CUDA_BY_DTYPE(a->act, cross_entropy_bwd, env, a);
}

CUDA_REGISTER(loss)
{
    t->gan_loss_fwd = cuda_gan_loss_fwd;
    t->gan_loss_bwd = cuda_gan_loss_bwd;
    t->cross_entropy_fwd = cuda_cross_entropy_fwd;
    t->cross_entropy_bwd = cuda_cross_entropy_bwd;
}
