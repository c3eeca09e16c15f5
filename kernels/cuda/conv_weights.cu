/*
 * conv_weights.cu - weights {K,R,S,C} f32 into the lines that conv_pixels.cu reads: folded, divided by sigma, transposed, rounded.
 *
 * Bound by memory: reads 4 K R S C bytes (a folded kernel its 3x3 four times, from L2), writes 2 or 4 bytes an element;
 * at most a few megabytes beside maps of hundreds. Once a call, since the weights change between any two.
 */
#include "kernels/cuda/conv_tile.cuh"

enum { SIDE = 32 };

struct lines_job {
    const float *w, *sigma; /* sigma {1} or NULL */
    int k, c, r, s; /* r, s: of the product's kernel */
    conv_fold fold;
    bool transposed, scatter;
    int stride, phases_s;
    int64_t pitch;
};

/*
 * Folding in one dimension, 3 taps to 4. Mean: y[i] = 1/2 sum over a in {0,1}, r of w[r] x[2i + a + r - 1], so that
 * x[2i - 1 + t] meets 1/2 (w0, w0 + w1, w1 + w2, w2)[t]. Upsampling: y[2i + a] = sum over r of w[r] x[floor((2i + a + r - 1) / 2)];
 * as the transpose of stride 2 and pad 1, y[o] = sum over t of g[t] x[(o + 1 - t) / 2] where that is whole: g is the same
 * sums, not halved, in reverse order.
 */
__device__ static float weight_of(const lines_job &j, int r, int s, int64_t k, int c)
{
    if (j.fold == CONV_AS_IS) return j.w[((k * j.r + r) * j.s + s) * j.c + c];
    if (j.fold == CONV_FOLD_UP) r = 3 - r, s = 3 - s;
    float sum = 0.0f;
    for (int u = r > 0 ? r - 1 : 0; u <= r && u < 3; u++)
        for (int v = s > 0 ? s - 1 : 0; v <= s && v < 3; v++) sum += j.w[((k * 3 + u) * 3 + v) * j.c + c];
    return j.fold == CONV_FOLD_POOL ? 0.25f * sum : sum;
}

template <conv_math MATH> __device__ static void put_weight(typename conv_element<MATH>::type *to, float x)
{
    if constexpr (MATH == CONV_TF32) {
        const uint32_t bits = to_tf32(x);
        memcpy(to, &bits, sizeof bits);
    } else {
        cuda_store(to, x);
    }
}

/* A tap's square of 32 x 32 channels: read along c, written along the product's inputs. */
template <conv_math MATH>
__global__ void __launch_bounds__(CONV_THREADS) conv_lines_kernel(typename conv_element<MATH>::type *to, lines_job j)
{
    enum { depth = CONV_LINE / (int)sizeof(typename conv_element<MATH>::type) };
    CUDA_SHARED(float, square, [SIDE][SIDE + 1]);
    const int c_squares = (j.c + SIDE - 1) / SIDE, tap = (int)blockIdx.x / c_squares;
    const int c0 = (int)blockIdx.x % c_squares * SIDE, k0 = (int)blockIdx.y * SIDE;
    const int lane = (int)threadIdx.x % SIDE, line = (int)threadIdx.x / SIDE;
    const float factor = j.sigma ? 1.0f / *j.sigma : 1.0f;
    int r = tap / j.s, s = tap % j.s;
    for (int i = line; i < SIDE; i += CONV_THREADS / SIDE) {
        const bool in = k0 + i < j.k && c0 + lane < j.c;
        const float x = in ? factor * weight_of(j, r, s, k0 + i, c0 + lane) : 0.0f;
        if (j.transposed)
            square[lane][i] = x;
        else
            square[i][lane] = x;
    }
    __syncthreads();
    int phase = 0, rs = j.r, ss = j.s;
    if (j.scatter) {
        const int fr = r % j.stride, fs = s % j.stride;
        phase = fr * j.phases_s + fs;
        rs = (j.r - fr + j.stride - 1) / j.stride, ss = (j.s - fs + j.stride - 1) / j.stride;
        r = rs - 1 - r / j.stride, s = ss - 1 - s / j.stride;
    }
    const int outs = j.transposed ? j.c : j.k, ins = j.transposed ? j.k : j.c;
    const int o0 = j.transposed ? c0 : k0, i0 = j.transposed ? k0 : c0;
    const int end = rs * ss * ins, padded = (end + depth - 1) / depth * depth;
    const bool last = r == rs - 1 && s == ss - 1 && i0 + SIDE >= ins;
    for (int i = line; i < SIDE && o0 + i < outs; i += CONV_THREADS / SIDE) {
        typename conv_element<MATH>::type *row = to + ((int64_t)phase * outs + o0 + i) * j.pitch;
        if (i0 + lane < ins) put_weight<MATH>(row + (r * ss + s) * ins + i0 + lane, square[i][lane]);
        if (last && end + lane < padded) cuda_store(row + end + lane, 0.0f);
    }
}

template <conv_math MATH> static int lay_out(sag_kernel_env *env, void *to, const lines_job *j)
{
    const unsigned squares = (unsigned)(cuda_ceil_div(j->c, SIDE) * j->r * j->s),
                   k_squares = (unsigned)cuda_ceil_div(j->k, SIDE);
    return CUDA_LAUNCH(env, (conv_lines_kernel<MATH>), dim3(squares, k_squares), CONV_THREADS, 0,
                       static_cast<typename conv_element<MATH>::type *>(to), *j);
}

int conv_lay_out(sag_kernel_env *env, const conv_pixels_job *job, const conv_weights *weights, conv_math math,
                 conv_lines *lines)
{
    lines_job j = {};
    j.w = weights->w, j.sigma = weights->sigma, j.k = weights->k, j.c = weights->c, j.r = job->r, j.s = job->s;
    j.fold = weights->fold, j.transposed = weights->transposed;
    j.scatter = job->scatter, j.stride = job->stride;
    const int phases_r = job->scatter ? conv_least(job->stride, job->r) : 1;
    j.phases_s = job->scatter ? conv_least(job->stride, job->s) : 1;
    const int64_t most = cuda_ceil_div(job->r, phases_r) * cuda_ceil_div(job->s, j.phases_s);
    j.pitch = cuda_ceil_div(most * job->c, 32) * 32;
    const size_t rows = (size_t)phases_r * (size_t)j.phases_s * (size_t)job->k;
    void *to = env->scratch(env, rows * (size_t)j.pitch * (math == CONV_BF16 ? 2 : 4));
    if (!to) return SAG_KERNEL_NO_MEMORY;
    lines->data = to, lines->pitch = j.pitch;
    return math == CONV_BF16   ? lay_out<CONV_BF16>(env, to, &j)
           : math == CONV_TF32 ? lay_out<CONV_TF32>(env, to, &j)
                               : lay_out<CONV_PLAIN>(env, to, &j);
}
