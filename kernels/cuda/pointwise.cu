/*
 * pointwise.cu - functions of one and of two tensors, and the gate of self-attention (forms and what backward reads:
 * kernel_args.h). One pass over memory each (elementwise.cuh), bound by it: forward (inputs + 1) n elements, backward one
 * more when it accumulates. The gradient of a repeated operand and of the gate are sums (sums.cuh); the gate's backward
 * writes its other gradient in the same pass.
 */
#include "kernels/cuda/sums.cuh"

/* ------------------------------------------------------------------------------------------------- unary */

__device__ static inline float sigmoid_of(float x)
{
    const float e = expf(-fabsf(x)), r = 1.0f / (1.0f + e);
    return x < 0.0f ? e * r : r;
}

/* The comparisons are turned so that NaN goes through. */
template <sag_unary KIND> struct unary_forward {
    float a, b;
    __device__ void begin()
    {
    }
    __device__ float operator()(const float *in, int64_t) const
    {
        const float x = in[0];
        switch (KIND) {
        case SAG_UNARY_RELU: return x < 0.0f ? 0.0f : x;
        case SAG_UNARY_LEAKY_RELU: return x > 0.0f ? x : x * a;
        case SAG_UNARY_TANH: return tanhf(x);
        case SAG_UNARY_SIGMOID: return sigmoid_of(x);
        case SAG_UNARY_SOFTPLUS: return (x < 0.0f ? 0.0f : x) + log1pf(expf(-fabsf(x)));
        case SAG_UNARY_EXP: return expf(x);
        case SAG_UNARY_LOG: return logf(x);
        case SAG_UNARY_SQRT: return sqrtf(x);
        case SAG_UNARY_SQUARE: return x * x;
        case SAG_UNARY_ABS: return fabsf(x);
        case SAG_UNARY_SCALE: return fmaf(x, a, b);
        }
        return 0.0f;
    }
};

/* in: dy and what was kept. */
template <sag_unary KIND> struct unary_backward {
    float a;
    __device__ void begin()
    {
    }
    __device__ float operator()(const float *in, int64_t) const
    {
        const float d = in[0];
        if constexpr (KIND == SAG_UNARY_SCALE) {
            return d * a;
        } else {
            const float k = in[1];
            switch (KIND) {
            case SAG_UNARY_RELU: return k <= 0.0f ? 0.0f : d;
            case SAG_UNARY_LEAKY_RELU: return k > 0.0f ? d : d * a;
            case SAG_UNARY_TANH: return d * (1.0f - k * k);
            case SAG_UNARY_SIGMOID: return d * (k - k * k);
            case SAG_UNARY_SOFTPLUS: return d * sigmoid_of(k);
            case SAG_UNARY_EXP: return d * k;
            case SAG_UNARY_LOG: return d / k;
            case SAG_UNARY_SQRT: return d * 0.5f / k;
            case SAG_UNARY_SQUARE: return d * (k + k);
            case SAG_UNARY_ABS: return k > 0.0f ? d : k < 0.0f ? -d : k;
            default: return 0.0f;
            }
        }
    }
};

template <sag_unary KIND, typename T> static int unary_fwd_of(sag_kernel_env *env, const unary_args *a)
{
    return cuda_map1<T>(env, unary_forward<KIND>{a->a, a->b}, a->y, a->x, a->n, 0);
}
template <sag_unary KIND, typename T> static int unary_bwd_of(sag_kernel_env *env, const unary_args *a)
{
    if (KIND == SAG_UNARY_SCALE) return cuda_map1<T>(env, unary_backward<SAG_UNARY_SCALE>{a->a}, a->dx, a->dy, a->n, a->accumulate);
    return cuda_map2<T>(env, unary_backward<KIND>{a->a}, a->dx, a->dy, a->x, a->n, a->accumulate);
}

#define KINDS(X)                                                                                                     \
    X(RELU) X(LEAKY_RELU) X(TANH) X(SIGMOID) X(SOFTPLUS) X(EXP) X(LOG) X(SQRT) X(SQUARE) X(ABS) X(SCALE)
#define FORWARD(kind) case SAG_UNARY_##kind: return unary_fwd_of<SAG_UNARY_##kind, T>(env, a);
#define BACKWARD(kind) case SAG_UNARY_##kind: return unary_bwd_of<SAG_UNARY_##kind, T>(env, a);

template <typename T> static int unary_fwd(sag_kernel_env *env, const unary_args *a)
{
    switch (a->kind) { KINDS(FORWARD) }
    return SAG_KERNEL_UNSUPPORTED;
}
template <typename T> static int unary_bwd(sag_kernel_env *env, const unary_args *a)
{
    switch (a->kind) { KINDS(BACKWARD) }
    return SAG_KERNEL_UNSUPPORTED;
}
static int cuda_unary_fwd(sag_kernel_env *env, const unary_args *a)
{
    return CUDA_BY_DTYPE(a->act, unary_fwd, env, a);
}
static int cuda_unary_bwd(sag_kernel_env *env, const unary_args *a)
{
    return CUDA_BY_DTYPE(a->act, unary_bwd, env, a);
}

/* ------------------------------------------------------------------------------------------------ binary */

/* Where b comes from: an input as long as the other, one number, or numbers that repeat. */
enum operand_form { OPERAND_WHOLE, OPERAND_ONE, OPERAND_REPEATS };

template <typename T, operand_form FORM> struct operand {
    const T *b;
    cuda_divisor period;
    float one;
    __device__ void begin()
    {
        if (FORM == OPERAND_ONE) one = cuda_float(*b);
    }
    __device__ float at(const float *in, int k, int64_t i) const
    {
        if (FORM == OPERAND_WHOLE) return in[k];
        if (FORM == OPERAND_ONE) return one;
        period.split(i);
        return cuda_float(b[i]);
    }
};

template <typename T, sag_binary KIND, operand_form FORM> struct binary_forward {
    operand<T, FORM> b;
    __device__ void begin()
    {
        b.begin();
    }
    __device__ float operator()(const float *in, int64_t i) const
    {
        const float x = in[0], y = b.at(in, 1, i);
        return KIND == SAG_BINARY_ADD ? x + y : KIND == SAG_BINARY_SUB ? x - y : KIND == SAG_BINARY_MUL ? x * y : x / y;
    }
};

/* da of a product or quotient: dy * b, dy / b */
template <typename T, sag_binary KIND, operand_form FORM> struct binary_grad_a {
    operand<T, FORM> b;
    __device__ void begin()
    {
        b.begin();
    }
    __device__ float operator()(const float *in, int64_t i) const
    {
        const float d = in[0], y = b.at(in, 1, i);
        return KIND == SAG_BINARY_MUL ? d * y : d / y;
    }
};
struct identity {
    float sign;
    __device__ void begin()
    {
    }
    __device__ float operator()(const float *in, int64_t) const
    {
        return sign * in[0];
    }
};
/* db for equal shapes: dy a, -dy a / b^2 */
struct grad_b_product {
    __device__ void begin()
    {
    }
    __device__ float operator()(const float *in, int64_t) const
    {
        return in[0] * in[1];
    }
};
struct grad_b_quotient {
    __device__ void begin()
    {
    }
    __device__ float operator()(const float *in, int64_t) const
    {
        return -(in[0] * in[1] / (in[2] * in[2]));
    }
};

/* F<T, KIND, FORM> for the form that b has, over x (and b). */
template <template <typename, sag_binary, operand_form> class F, typename T, sag_binary KIND>
static int with_operand(sag_kernel_env *env, const binary_args *a, void *y, const void *x, int accumulate)
{
    const T *b = (const T *)a->b;
    const cuda_divisor period = cuda_divisor_of(a->nb, a->n);
    if (a->nb == a->n) return cuda_map2<T>(env, F<T, KIND, OPERAND_WHOLE>{{b, period, 0}}, y, x, b, a->n, accumulate);
    if (a->nb == 1) return cuda_map1<T>(env, F<T, KIND, OPERAND_ONE>{{b, period, 0}}, y, x, a->n, accumulate);
    return cuda_map1<T>(env, F<T, KIND, OPERAND_REPEATS>{{b, period, 0}}, y, x, a->n, accumulate);
}

template <typename T> static int binary_fwd(sag_kernel_env *env, const binary_args *a)
{
    switch (a->kind) {
    case SAG_BINARY_ADD: return with_operand<binary_forward, T, SAG_BINARY_ADD>(env, a, a->y, a->a, 0);
    case SAG_BINARY_SUB: return with_operand<binary_forward, T, SAG_BINARY_SUB>(env, a, a->y, a->a, 0);
    case SAG_BINARY_MUL: return with_operand<binary_forward, T, SAG_BINARY_MUL>(env, a, a->y, a->a, 0);
    case SAG_BINARY_DIV: return with_operand<binary_forward, T, SAG_BINARY_DIV>(env, a, a->y, a->a, 0);
    }
    return SAG_KERNEL_UNSUPPORTED;
}

template <typename T> static int binary_grad_of_a(sag_kernel_env *env, const binary_args *a)
{
    switch (a->kind) {
    case SAG_BINARY_ADD:
    case SAG_BINARY_SUB: return cuda_map1<T>(env, identity{1.0f}, a->da, a->dy, a->n, a->accumulate_a);
    case SAG_BINARY_MUL: return with_operand<binary_grad_a, T, SAG_BINARY_MUL>(env, a, a->da, a->dy, a->accumulate_a);
    case SAG_BINARY_DIV: return with_operand<binary_grad_a, T, SAG_BINARY_DIV>(env, a, a->da, a->dy, a->accumulate_a);
    }
    return SAG_KERNEL_UNSUPPORTED;
}

/* The end of db's sum over the repeats: sum, -sum, or -sum / b^2. */
template <typename T> struct put_grad_b {
    T *db;
    const T *b; /* of a quotient */
    double sign;
    int accumulate;
    __device__ void operator()(int64_t i, double s) const
    {
        s *= sign;
        if (b) s /= (double)cuda_float(b[i]) * (double)cuda_float(b[i]);
        cuda_put(db + i, (float)s, accumulate);
    }
};

template <typename T> static int binary_grad_of_b(sag_kernel_env *env, const binary_args *a)
{
    const bool product = a->kind == SAG_BINARY_MUL, quotient = a->kind == SAG_BINARY_DIV;
    const float sign = quotient || a->kind == SAG_BINARY_SUB ? -1.0f : 1.0f;
    if (a->nb == a->n) {
        if (product) return cuda_map2<T>(env, grad_b_product{}, a->db, a->dy, a->a, a->n, a->accumulate_b);
        if (quotient) return cuda_map3<T>(env, grad_b_quotient{}, a->db, a->dy, a->a, a->b, a->n, a->accumulate_b);
        return cuda_map1<T>(env, identity{sign}, a->db, a->dy, a->n, a->accumulate_b);
    }
    const put_grad_b<T> put = {(T *)a->db, quotient ? (const T *)a->b : NULL, (double)sign, a->accumulate_b};
    if (product || quotient) return cuda_sums<T>(env, a->dy, a->a, 1, a->n / a->nb, a->nb, cuda_sum_product{}, put);
    return cuda_sums<T>(env, a->dy, NULL, 1, a->n / a->nb, a->nb, cuda_sum_plain{}, put);
}

template <typename T> static int binary_bwd(sag_kernel_env *env, const binary_args *a)
{
    if (a->da) CUDA_TRY(binary_grad_of_a<T>(env, a));
    return a->db ? binary_grad_of_b<T>(env, a) : SAG_KERNEL_OK;
}
static int cuda_binary_fwd(sag_kernel_env *env, const binary_args *a)
{
    return CUDA_BY_DTYPE(a->act, binary_fwd, env, a);
}
static int cuda_binary_bwd(sag_kernel_env *env, const binary_args *a)
{
    return CUDA_BY_DTYPE(a->act, binary_bwd, env, a);
}

/* ------------------------------------------------------------------------------------------------- gated */

struct gate {
    const float *gamma;
    float g;
    __device__ void begin()
    {
        g = *gamma;
    }
    __device__ float operator()(const float *in, int64_t) const
    {
        return fmaf(g, in[1], in[0]);
    }
};
struct gate_grad {
    const float *gamma;
    float g;
    __device__ void begin()
    {
        g = *gamma;
    }
    __device__ float operator()(const float *in, int64_t) const
    {
        return g * in[0];
    }
};

/* sum(dy * o), and do (+)= gamma * dy as dy goes by. */
template <typename T> struct gate_sum : cuda_sum_product {
    T *dout;
    const float *gamma;
    int accumulate;
    float g;
    __device__ void begin()
    {
        g = *gamma;
    }
    template <int V> __device__ void tap(const T (&dy)[V], int64_t i) const
    {
        T d[V];
        if (accumulate) cuda_load_group<V>(d, dout + i);
#pragma unroll
        for (int v = 0; v < V; v++) cuda_put(d + v, g * cuda_float(dy[v]), accumulate);
        cuda_store_group<V>(dout + i, d);
    }
};

template <typename T> static int gated_add_fwd(sag_kernel_env *env, const gated_add_args *a)
{
    return cuda_map2<T>(env, gate{a->gamma, 0}, a->y, a->x, a->o, a->n, 0);
}
template <typename T> static int gated_add_bwd(sag_kernel_env *env, const gated_add_args *a)
{
    if (!a->dgamma) return a->dout_o ? cuda_map1<T>(env, gate_grad{a->gamma, 0}, a->dout_o, a->dy, a->n, a->accumulate_o) : (int)SAG_KERNEL_OK;
    const cuda_sum_put<float> put = {a->dgamma, 1.0, a->accumulate_gamma};
    const bool apart = a->dout_o == a->dy || a->dout_o == a->o || !cuda_aligned(a->dout_o, 16);
    if (!a->dout_o || apart) {
        CUDA_TRY(cuda_sums<T>(env, a->dy, a->o, 1, a->n, 1, cuda_sum_product{}, put));
        return a->dout_o ? cuda_map1<T>(env, gate_grad{a->gamma, 0}, a->dout_o, a->dy, a->n, a->accumulate_o) : (int)SAG_KERNEL_OK;
    }
    gate_sum<T> sum;
    sum.dout = (T *)a->dout_o;
    sum.gamma = a->gamma;
    sum.accumulate = a->accumulate_o;
    sum.g = 0;
    return cuda_sums<T>(env, a->dy, a->o, 1, a->n, 1, sum, put);
}
static int cuda_gated_add_fwd(sag_kernel_env *env, const gated_add_args *a)
{
    return CUDA_BY_DTYPE(a->act, gated_add_fwd, env, a);
}
static int cuda_gated_add_bwd(sag_kernel_env *env, const gated_add_args *a)
{
    return CUDA_BY_DTYPE(a->act, gated_add_bwd, env, a);
}

CUDA_REGISTER(pointwise)
{
    t->unary_fwd = cuda_unary_fwd;
    t->unary_bwd = cuda_unary_bwd;
    t->binary_fwd = cuda_binary_fwd;
    t->binary_bwd = cuda_binary_bwd;
    t->gated_add_fwd = cuda_gated_add_fwd;
    t->gated_add_bwd = cuda_gated_add_bwd;
}
