/*
 * attention.cuh - what the kernels of attention share. Every pass of it, forward and backward, is one sum over the other
 * side, out_i = factor * sum_j W_ij x_j, in which W is made tile by tile and never stored. With s_ij = scale q_i . k_j in
 * base 2 (scale2 carries log2(e)), lse = log2 of the sum of 2^s, p = 2^(s - lse), delta = rowsum(do * o):
 *
 *   mode     rows i    columns j   x    out   W
 *   FORWARD  queries   keys        v    o     2^(s_ij - m_i), m the running maximum; o is divided by the sum of W at the end
 *   DV       keys      queries     do   dv    p_ji
 *   DK       keys      queries     q    dk    p_ji (do_j . v_i - delta_j), factor = scale
 *   DQ       queries   keys        k    dq    p_ij (do_i . v_j - delta_i), factor = scale
 *
 * A block owns rows and columns of `out` and walks over all j in order: no atomics, no partial sums, memory O(N). Multiply-adds
 * for each score: D + E forward; backward 3 E + 5 D where one kernel with shares of dq would do 2 E + 3 D.
 */
#ifndef SAG_CUDA_ATTENTION_CUH
#define SAG_CUDA_ATTENTION_CUH

#include "kernels/cuda/cuda.cuh"

#define ATTENTION_LOG2_E 1.4426950408889634f
#define ATTENTION_LN_2 0.6931471805599453f

enum attention_mode { ATTENTION_FORWARD, ATTENTION_DV, ATTENTION_DK, ATTENTION_DQ };

/* One pass; pointers to elements of dtype act. rows, cols: of one image. */
struct attention_pass {
    const void *a, *b;   /* {B,rows,d}, {B,cols,d}: s = scale2 a . b */
    const void *a2, *b2; /* {B,rows,e}, {B,cols,e}: do and v, or v and do; DK and DQ */
    const void *x;       /* {B,cols,width} */
    void *out;           /* {B,rows,width} */
    float *lse;          /* {B,queries}: written by FORWARD (may be NULL), read by the others */
    const float *delta;  /* {B,queries}; DK and DQ */
    int64_t batch, rows, cols, d, e, width;
    float scale2, factor;
    int accumulate;
};

/* The pass by f32 multiply-adds; any shape. attention_simt.cu */
int cuda_attention_simt(sag_kernel_env *env, attention_mode mode, sag_dtype act, const attention_pass *p);
/* The pass on tensor cores, bf16 or tf32; UNSUPPORTED where a tile does not fit in shared memory. attention_mma.cu */
int cuda_attention_mma(sag_kernel_env *env, attention_mode mode, sag_dtype act, const attention_pass *p);
/* attention_view.cu */
int cuda_attention_map(sag_kernel_env *env, const attention_map_args *a);
int cuda_attention_stats(sag_kernel_env *env, const attention_map_args *a);

/* 2^x to 2^-22, denormal results are 0; NaN and the infinities as they should be. */
__device__ static inline float attention_exp2(float x)
{
#ifdef SAGAN_CUDA_EMULATOR
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

#endif
