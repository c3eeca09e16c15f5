/*
 * conv.cu - conv2d in its three directions as products of conv.cuh, and which way they multiply.
 *
 * fwd: patches of x by weights. bwd_x: the transpose; dx's pixels are the outputs that fall into phases. bwd_w: dw and db
 * from one pass over x and dy. A ReLU before the convolution and a sum behind it cost one read of what they need where
 * sums leave for memory, and no pass of their own.
 */
#include "kernels/cuda/conv.cuh"

conv_math conv_math_for(const sag_kernel_env *env, sag_dtype act)
{
    if (!cuda_tensor_cores()) return CONV_PLAIN;
    return act == SAG_BF16 ? CONV_BF16 : env->tf32 ? CONV_TF32 : CONV_PLAIN;
}

static bool takes(const conv_args *a)
{
    return (a->act == SAG_F32 || a->act == SAG_BF16) && conv_fits(a);
}

static int conv2d_fwd(sag_kernel_env *env, const conv_args *a)
{
    if (!takes(a)) return SAG_KERNEL_UNSUPPORTED;
    conv_pixels_job job = {};
    job.x = a->x, job.h = (int)a->h, job.w = (int)a->w_in, job.c = (int)a->c;
    job.y = a->y, job.out_h = (int)a->p, job.out_w = (int)a->q, job.k = (int)a->k;
    job.images = a->n, job.bias = a->b, job.act = a->act;
    job.relu = a->relu, job.residual = a->residual, job.halved = a->residual_half;
    job.r = (int)a->r, job.s = (int)a->s, job.stride = (int)a->stride, job.pad_h = (int)a->pad_h,
    job.pad_w = (int)a->pad_w;
    const conv_weights weights = {a->w, (int)a->k, (int)a->c, CONV_AS_IS, false, a->sigma};
    return conv_pixels(env, &job, &weights);
}

static int conv2d_bwd_x(sag_kernel_env *env, const conv_args *a)
{
    if (!takes(a)) return SAG_KERNEL_UNSUPPORTED;
    conv_pixels_job job = {};
    job.x = a->dy, job.h = (int)a->p, job.w = (int)a->q, job.c = (int)a->k;
    job.y = a->dx, job.out_h = (int)a->h, job.out_w = (int)a->w_in, job.k = (int)a->c;
    job.images = a->n, job.accumulate = a->accumulate, job.act = a->act;
    job.mask = a->relu ? a->x : NULL;
    job.r = (int)a->r, job.s = (int)a->s, job.stride = (int)a->stride, job.pad_h = (int)a->pad_h,
    job.pad_w = (int)a->pad_w;
    job.scatter = true;
    const conv_weights weights = {a->w, (int)a->k, (int)a->c, CONV_AS_IS, true, a->sigma};
    return conv_pixels(env, &job, &weights);
}

static int conv2d_bwd_w(sag_kernel_env *env, const conv_args *a)
{
    if (!takes(a)) return SAG_KERNEL_UNSUPPORTED;
    conv_outer_job job = {};
    job.x = a->x, job.h = (int)a->h, job.w = (int)a->w_in, job.c = (int)a->c;
    job.dy = a->dy, job.rows = (int)a->p, job.cols = (int)a->q, job.step = 1, job.k = (int)a->k;
    job.images = a->n, job.act = a->act, job.relu = a->relu;
    job.r = (int)a->r, job.s = (int)a->s, job.stride = (int)a->stride, job.pad_h = (int)a->pad_h,
    job.pad_w = (int)a->pad_w;
    job.want_weights = a->dw != NULL, job.want_bias = a->db != NULL;
    CUDA_TRY(conv_outer(env, &job));
    if (a->dw) CUDA_TRY(conv_add_pieces(env, a->dw, job.sums, a->k * a->r * a->s * a->c, job.pieces, a->accumulate_dw));
    if (a->db) CUDA_TRY(conv_add_pieces(env, a->db, job.bias_sums, a->k, job.pieces, a->accumulate_db));
    return SAG_KERNEL_OK;
}

CUDA_REGISTER(conv)
{
    t->conv2d_fwd = conv2d_fwd;
    t->conv2d_bwd_x = conv2d_bwd_x;
    t->conv2d_bwd_w = conv2d_bwd_w;
    conv_register_upconv(t);
}
