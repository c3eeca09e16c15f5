/*
 * attention.cu - forward and backward of attention as passes (attention.cuh): one forward, up to three backward, of which
 * each unwanted gradient saves one. bf16 goes to tensor cores, f32 too if tf32 is allowed; else, and where shapes are beyond
 * them, f32 multiply-adds. The map is never stored; the scratch is one float a query.
 */
#include "kernels/cuda/attention.cuh"

static int run_pass(sag_kernel_env *env, attention_mode mode, sag_dtype act, const attention_pass *p)
{
    if (p->batch < 1 || p->rows < 1 || p->width < 1) return SAG_KERNEL_OK;
    if (cuda_tensor_cores() && (act == SAG_BF16 || (act == SAG_F32 && env->tf32))) {
        const int result = cuda_attention_mma(env, mode, act, p);
        if (result != SAG_KERNEL_UNSUPPORTED) return result;
    }
    return cuda_attention_simt(env, mode, act, p);
}

static int cuda_attention_fwd(sag_kernel_env *env, const attention_args *a)
{
    attention_pass p = {};
    p.a = a->q, p.b = a->k, p.x = a->v, p.out = a->o, p.lse = a->lse;
    p.batch = a->batch, p.rows = a->nq, p.cols = a->nk, p.d = a->d, p.e = a->e, p.width = a->e;
    p.scale2 = a->scale * ATTENTION_LOG2_E;
    p.factor = 1.0f;
    return run_pass(env, ATTENTION_FORWARD, a->act, &p);
}

/* delta = rowsum(do * o): a warp for each row; reads both once, so memory bounds it. */
template <typename T> __global__ void attention_delta_kernel(float *delta, const T *dout, const T *o, int64_t rows, int64_t cols)
{
    const int lane = (int)threadIdx.x & 31;
    const int64_t warps = (int64_t)gridDim.x * (blockDim.x >> 5);
    for (int64_t r = (int64_t)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5); r < rows; r += warps) {
        float sum = 0.0f;
        for (int64_t c = lane; c < cols; c += 32) sum = fmaf(cuda_float(dout[r * cols + c]), cuda_float(o[r * cols + c]), sum);
        sum = cuda_warp_sum(sum);
        if (lane == 0) delta[r] = sum;
    }
}

template <typename T> static int find_delta(sag_kernel_env *env, const attention_args *a, float *delta)
{
    const int64_t rows = a->batch * a->nq;
    if (rows < 1) return SAG_KERNEL_OK;
    return CUDA_LAUNCH(env, (attention_delta_kernel<T>), cuda_blocks(rows, 8), 256, 0, delta, (const T *)a->do_, (const T *)a->o_saved,
                       rows, a->e);
}

static int cuda_attention_bwd(sag_kernel_env *env, const attention_args *a)
{
    attention_pass p = {};
    p.batch = a->batch, p.d = a->d, p.e = a->e, p.lse = a->lse;
    p.scale2 = a->scale * ATTENTION_LOG2_E;
    if (a->dq || a->dk) {
        float *delta = (float *)env->scratch(env, (size_t)(a->batch * a->nq) * sizeof *delta);
        if (!delta) return SAG_KERNEL_NO_MEMORY;
        CUDA_TRY(CUDA_BY_DTYPE(a->act, find_delta, env, a, delta));
        p.delta = delta;
    }
    p.a = a->k, p.b = a->q, p.rows = a->nk, p.cols = a->nq; /* dv and dk: a row is a key */
    if (a->dv) {
        p.x = a->do_, p.out = a->dv, p.width = a->e, p.factor = 1.0f, p.accumulate = a->accumulate_v;
        CUDA_TRY(run_pass(env, ATTENTION_DV, a->act, &p));
    }
    p.factor = a->scale, p.width = a->d;
    if (a->dk) {
        p.a2 = a->v, p.b2 = a->do_, p.x = a->q, p.out = a->dk, p.accumulate = a->accumulate_k;
        CUDA_TRY(run_pass(env, ATTENTION_DK, a->act, &p));
    }
    if (a->dq) {
        p.a = a->q, p.b = a->k, p.rows = a->nq, p.cols = a->nk;
        p.a2 = a->do_, p.b2 = a->v, p.x = a->k, p.out = a->dq, p.accumulate = a->accumulate_q;
        CUDA_TRY(run_pass(env, ATTENTION_DQ, a->act, &p));
    }
    return SAG_KERNEL_OK;
}

CUDA_REGISTER(attention)
{
    t->attention_fwd = cuda_attention_fwd;
    t->attention_bwd = cuda_attention_bwd;
    t->attention_map = cuda_attention_map;
    t->attention_stats = cuda_attention_stats;
}
