/*
 * upconv.cu - upsample x2, then 3x3 (upconv) and 3x3, then 2x2 mean (convpool) by 4x4 kernels of stride 2 and pad 1, with
 * 16/36 of the multiplies: folding the 3x3 weights (conv_weights.cu) puts taps that meet the same small pixel together.
 *
 *   upconv    is the transpose of such a convolution: y falls into 2x2 phases, each of 2x2 taps of x
 *   convpool  is such a convolution
 *
 * and each one's data gradient has the form of the other. The weight gradient is that of the 16 folded taps, unfolded: a
 * tap of the 3x3 is the sum of the folded ones that it went into.
 */
#include "kernels/cuda/conv.cuh"

enum { THREADS = 256 };

static bool takes(const conv_args *a)
{
    return (a->act == SAG_F32 || a->act == SAG_BF16) && conv_fits(a);
}

/* Every direction of the maps' product: x {h, w, c} to y {out_h, out_w, k}. */
static conv_pixels_job product(const conv_args *a, bool forward, bool scatter)
{
    conv_pixels_job job = {};
    job.images = a->n, job.act = a->act;
    job.r = job.s = 4, job.stride = 2, job.pad_h = job.pad_w = 1;
    job.scatter = scatter;
    if (forward) {
        job.x = a->x, job.h = (int)a->h, job.w = (int)a->w_in, job.c = (int)a->c;
        job.y = a->y, job.out_h = (int)a->p, job.out_w = (int)a->q, job.k = (int)a->k;
        job.bias = a->b, job.relu = a->relu;
    } else {
        job.x = a->dy, job.h = (int)a->p, job.w = (int)a->q, job.c = (int)a->k;
        job.y = a->dx, job.out_h = (int)a->h, job.out_w = (int)a->w_in, job.k = (int)a->c;
        job.accumulate = a->accumulate, job.mask = a->relu ? a->x : NULL;
    }
    return job;
}

static int map_product(sag_kernel_env *env, const conv_args *a, bool pool, bool forward)
{
    if (!takes(a)) return SAG_KERNEL_UNSUPPORTED;
    const conv_pixels_job job = product(a, forward, pool != forward);
    const conv_weights weights = {a->w, (int)a->k, (int)a->c, pool ? CONV_FOLD_POOL : CONV_FOLD_UP, !forward, a->sigma};
    return conv_pixels(env, &job, &weights);
}

/* ------------------------------------------------------------------------------------------- weight gradient */

/*
 * dw {k,3,3,c} from the folded taps' sums. In one dimension, convpool: sums e {4} of x[2i - 1 + t] dy[i], and w_r met t = r
 * and r + 1, halved. upconv: sums e {phase 2, tap 2} of x[i + phase - 1 + tap] dy[2i + phase]; w0 went into (0,0) and (1,0), w1
 * into (0,1) and (1,0), w2 into (0,1) and (1,1): the same once e is read in the order (0,0), (1,0), (0,1), (1,1).
 * In memory upconv's sums are {phase, phase, k, tap, tap, c}, convpool's {k, t, t, c}. A few megabytes in, fewer out.
 */
__global__ void __launch_bounds__(THREADS)
    upconv_unfold_kernel(float *dw, const float *e, int64_t k, int64_t c, int pool, int accumulate)
{
    const int64_t all = (int64_t)gridDim.x * THREADS;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < k * 9 * c; i += all) {
        const int64_t channel = i % c, line = i / c, out = line / 9;
        const int r = (int)(line % 9) / 3, s = (int)(line % 3);
        float sum = 0.0f;
        for (int t = r; t <= r + 1; t++)
            for (int v = s; v <= s + 1; v++) {
                const int64_t tap =
                    pool ? (out * 4 + t) * 4 + v : (((t & 1) * 2 + (v & 1)) * k + out) * 4 + (t >> 1) * 2 + (v >> 1);
                sum += e[tap * c + channel];
            }
        cuda_put(dw + i, pool ? 0.25f * sum : sum, accumulate);
    }
}

static int weight_gradient(sag_kernel_env *env, const conv_args *a, bool pool)
{
    if (!takes(a)) return SAG_KERNEL_UNSUPPORTED;
    conv_outer_job job = {};
    job.x = a->x, job.h = (int)a->h, job.w = (int)a->w_in, job.c = (int)a->c;
    job.dy = a->dy, job.k = (int)a->k, job.images = a->n, job.act = a->act;
    job.pad_h = job.pad_w = 1, job.relu = a->relu;
    if (pool) {
        job.rows = (int)a->p, job.cols = (int)a->q, job.step = 1;
        job.r = job.s = 4, job.stride = 2;
    } else {
        job.rows = (int)a->h, job.cols = (int)a->w_in, job.step = 2;
        job.r = job.s = 2, job.stride = 1;
    }
    job.want_weights = a->dw != NULL, job.want_bias = a->db != NULL;
    CUDA_TRY(conv_outer(env, &job));
    if (a->dw) {
        const int64_t n = 16 * a->k * a->c;
        float *sums = static_cast<float *>(env->scratch(env, (size_t)n * sizeof *sums));
        if (!sums) return SAG_KERNEL_NO_MEMORY;
        CUDA_TRY(conv_add_pieces(env, sums, job.sums, n, job.pieces, 0));
        CUDA_TRY(CUDA_LAUNCH(env, (upconv_unfold_kernel), cuda_blocks(9 * a->k * a->c, THREADS), THREADS, 0, a->dw,
                             sums, a->k, a->c, (int)pool, a->accumulate_dw));
    }
    if (a->db) CUDA_TRY(conv_add_pieces(env, a->db, job.bias_sums, a->k, job.pieces * job.phases, a->accumulate_db));
    return SAG_KERNEL_OK;
}

static int upconv_fwd(sag_kernel_env *env, const conv_args *a)
{
    return map_product(env, a, false, true);
}
static int upconv_bwd_x(sag_kernel_env *env, const conv_args *a)
{
    return map_product(env, a, false, false);
}
static int upconv_bwd_w(sag_kernel_env *env, const conv_args *a)
{
    return weight_gradient(env, a, false);
}
static int convpool_fwd(sag_kernel_env *env, const conv_args *a)
{
    return map_product(env, a, true, true);
}
static int convpool_bwd_x(sag_kernel_env *env, const conv_args *a)
{
    return map_product(env, a, true, false);
}
static int convpool_bwd_w(sag_kernel_env *env, const conv_args *a)
{
    return weight_gradient(env, a, true);
}

void conv_register_upconv(sag_kernel_table *t)
{
    t->upconv_fwd = upconv_fwd;
    t->upconv_bwd_x = upconv_bwd_x;
    t->upconv_bwd_w = upconv_bwd_w;
    t->convpool_fwd = convpool_fwd;
    t->convpool_bwd_x = convpool_bwd_x;
    t->convpool_bwd_w = convpool_bwd_w;
}
