/*
 * optim.c - one pass over whole parameter slabs: Adam, the moving average of weights, fill, axpy, and the loss ring.
 * Every hyperparameter is read from memory at the time of the call.
 */
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/columns.h"

static uint64_t clock_of(const int32_t *clock)
{
    return (uint64_t)(uint32_t)clock[0] | (uint64_t)(uint32_t)clock[1] << 32;
}

#define BLOCK 2048 /* stays in the nearest cache between a step and its average */

typedef struct ema_decay {
    float keep, take;
    bool copy;
} ema_decay;

/* Before hyper[1] steps a plain copy, even of a target that holds NaN. */
static ema_decay decay_of(const ema_args *a)
{
    return (ema_decay){.keep = a->hyper[0],
                       .take = (float)(1.0 - (double)a->hyper[0]),
                       .copy = (double)clock_of(a->clock) < (double)a->hyper[1] || a->hyper[0] == 0.0f};
}

/* Not inlined: the step's average and the plain one must round alike. */
static __attribute__((noinline)) void average_block(float *restrict target, const float *restrict source, int64_t n,
                                                    ema_decay d)
{
    if (d.copy) {
        memcpy(target, source, (size_t)n * sizeof *target);
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) target[i] = d.keep * target[i] + d.take * source[i];
}

static int cpu_ema(sag_kernel_env *env, const ema_args *a)
{
    const ema_decay d = decay_of(a);
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->n > CPU_SMALL)
    for (int64_t first = 0; first < a->n; first += CPU_PIECE)
        average_block(a->target + first, a->source + first, cpu_min64(CPU_PIECE, a->n - first), d);
    return SAG_KERNEL_OK;
}

/*
 * Adam (Kingma and Ba, algorithm 1) with decoupled weight decay d (Loshchilov and Hutter):
 *   g' = f g,  m = b1 m + (1 - b1) g',  v = b2 v + (1 - b2) g'^2
 *   w -= rate * ((m / c1) / (sqrt(v / c2) + eps) + d w),  c = 1 - b^t
 * tf_eps: w -= rate * (sqrt(c2) / c1 * m / (sqrt(v) + eps) + d w), as TensorFlow 1.
 * Corrections in double: with b2 = 0.999 a float c2 of the first steps would have lost its digits.
 * Moves 28 bytes a parameter, 36 with the average.
 */
typedef struct adam_step {
    float b1, b2, d1, d2, eps, decay, factor, step, shrink;
} adam_step;

static adam_step adam_step_of(const adam_args *a, uint64_t t)
{
    const float *h = a->hyper;
    double c1 = 1.0 - pow((double)h[1], (double)t), c2 = 1.0 - pow((double)h[2], (double)t), rate = (double)h[0];
    adam_step s = {.b1 = h[1], .b2 = h[2], .eps = h[3], .decay = h[0] * h[4], .factor = h[5]};
    s.d1 = (float)(1.0 - (double)h[1]);
    s.d2 = (float)(1.0 - (double)h[2]);
    s.step = (float)(a->tf_eps ? rate * sqrt(c2) / c1 : rate / c1);
    s.shrink = a->tf_eps ? 1.0f : (float)(1.0 / sqrt(c2));
    return s;
}

static void adam_block(float *restrict w, float *restrict m, float *restrict v, const float *restrict grad, int64_t n,
                       const adam_step *s)
{
    const float b1 = s->b1, b2 = s->b2, d1 = s->d1, d2 = s->d2, eps = s->eps, decay = s->decay, factor = s->factor;
    const float step = s->step, shrink = s->shrink;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float g = factor * grad[i];
        m[i] = b1 * m[i] + d1 * g;
        v[i] = b2 * v[i] + d2 * (g * g);
        w[i] -= step * m[i] / (sqrtf(v[i]) * shrink + eps) + decay * w[i];
    }
}

static int cpu_adam(sag_kernel_env *env, const adam_args *a)
{
    uint64_t t = clock_of(a->count) + 1;
    a->count[0] = (int32_t)(uint32_t)t;
    a->count[1] = (int32_t)(uint32_t)(t >> 32);
    const adam_step s = adam_step_of(a, t);
    float *target = a->average.target;
    const ema_decay d = target ? decay_of(&a->average) : (ema_decay){0};
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->n > CPU_SMALL)
    for (int64_t first = 0; first < a->n; first += CPU_PIECE) {
        const int64_t end = cpu_min64(first + CPU_PIECE, a->n);
        for (int64_t i = first; i < end; i += BLOCK) {
            const int64_t n = cpu_min64(BLOCK, end - i);
            adam_block(a->w + i, a->m + i, a->v + i, a->g + i, n, &s);
            if (target) average_block(target + i, a->w + i, n, d);
        }
    }
    return SAG_KERNEL_OK;
}

#define FILL(type, number)                                                                                             \
    do {                                                                                                               \
        type *x = a->x, value = (number);                                                                              \
        _Pragma(                                                                                                       \
            "omp parallel for num_threads(env->threads) schedule(static) if (a->n > CPU_SMALL)") for (int64_t first =  \
                                                                                                          0;           \
                                                                                                      first < a->n;    \
                                                                                                      first +=         \
                                                                                                      CPU_PIECE)       \
        {                                                                                                              \
            int64_t end = cpu_min64(first + CPU_PIECE, a->n);                                                          \
            for (int64_t i = first; i < end; i++) x[i] = value;                                                        \
        }                                                                                                              \
    } while (0)

static int cpu_fill(sag_kernel_env *env, const fill_args *a)
{
    switch (a->dtype) {
    case SAG_F32: FILL(float, (float)a->value); return SAG_KERNEL_OK;
    case SAG_BF16: FILL(uint16_t, cpu_bf16_of((float)a->value)); return SAG_KERNEL_OK;
    case SAG_U8: FILL(uint8_t, (uint8_t)a->value); return SAG_KERNEL_OK;
    case SAG_I32: FILL(int32_t, (int32_t)a->value); return SAG_KERNEL_OK;
    default: return SAG_KERNEL_UNSUPPORTED;
    }
}

static int cpu_axpy(sag_kernel_env *env, const axpy_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    float *y = a->y, factor = a->a;
    const float *x = a->x;
#pragma omp parallel for simd num_threads(env->threads) schedule(static, CPU_PIECE) if (parallel : a->n > CPU_SMALL)
    for (int64_t i = 0; i < a->n; i++) y[i] += factor * x[i];
    return SAG_KERNEL_OK;
}

static int cpu_record(sag_kernel_env *env, const record_args *a)
{
    (void)env;
    uint64_t row = clock_of(a->clock) % (uint64_t)a->rows;
    a->ring[(int64_t)row * a->columns + a->column] = a->x[0];
    return SAG_KERNEL_OK;
}

void CPU_REGISTER(optim)(sag_kernel_table *t)
{
    t->adam = cpu_adam;
    t->ema = cpu_ema;
    t->fill = cpu_fill;
    t->axpy = cpu_axpy;
    t->record = cpu_record;
}
