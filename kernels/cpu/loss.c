/*
 * loss.c - the GAN losses and cross entropy. Each is a mean over elements (rows); shares are summed in f64 in order.
 *
 * With f the cost of one logit, D: mean f_real(real) + mean f_fake(fake), G: mean f_gen(fake):
 *              f_real             f_fake             f_gen
 *   hinge      max(0, 1 - x)      max(0, 1 + x)      -x               (SAGAN eq. 4)
 *   bce        softplus(-x)       softplus(x)        softplus(-x)     (Goodfellow et al. 2014, non-saturating)
 *   wasserstein -x                x                  -x
 * The gradient at the kink of the hinge is 0. A logit that is not a number makes the loss not a number.
 */
#include "kernels/cpu/vec_math.h"

#define BLOCK 4096
#define SERIAL_ELEMENTS 16384

typedef enum loss_role { ROLE_REAL, ROLE_FAKE, ROLE_GENERATOR } loss_role;

static inline float cost(sag_gan_loss kind, loss_role role, float x)
{
    const float toward = role == ROLE_FAKE ? x : -x; /* every cost falls where this falls */
    if (kind == SAG_LOSS_BCE) return cpu_softplus1(toward);
    if (kind == SAG_LOSS_HINGE && role != ROLE_GENERATOR) return 1 + toward < 0 ? 0 : 1 + toward;
    return toward;
}

static inline float cost_slope(sag_gan_loss kind, loss_role role, float x)
{
    const float sign = role == ROLE_FAKE ? 1.0f : -1.0f, toward = sign * x;
    if (kind == SAG_LOSS_BCE) return sign * cpu_sigmoid1(toward);
    if (kind == SAG_LOSS_HINGE && role != ROLE_GENERATOR) return 1 + toward > 0 ? sign : 0;
    return sign;
}

static double block_sum(sag_gan_loss kind, loss_role role, const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)cost(kind, role, x[i]);
    return sum;
}

static int mean_cost(sag_kernel_env *env, sag_gan_loss kind, loss_role role, const float *x, int64_t n, double *mean)
{
    const int64_t blocks = cpu_ceil_div(n, BLOCK);
    double *share = env->scratch(env, (size_t)blocks * sizeof *share);
    if (!share) return SAG_KERNEL_NO_MEMORY;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (n > SERIAL_ELEMENTS)
    for (int64_t i = 0; i < blocks; i++)
        share[i] = block_sum(kind, role, x + i * BLOCK, cpu_min64(BLOCK, n - i * BLOCK));
    *mean = 0;
    for (int64_t i = 0; i < blocks; i++) *mean += share[i];
    *mean /= (double)n;
    return SAG_KERNEL_OK;
}

static int cpu_gan_loss_fwd(sag_kernel_env *env, const gan_loss_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    double real = 0, fake = 0;
    int result = SAG_KERNEL_OK;
    if (a->real) result = mean_cost(env, a->kind, ROLE_REAL, a->real, a->n_real, &real);
    if (result == SAG_KERNEL_OK)
        result = mean_cost(env, a->kind, a->real ? ROLE_FAKE : ROLE_GENERATOR, a->fake, a->n_fake, &fake);
    if (result == SAG_KERNEL_OK) a->y[0] = (float)(real + fake);
    return result;
}

static void add_slopes(sag_kernel_env *env, sag_gan_loss kind, loss_role role, const float *x, float *dx, int64_t n,
                       float dy, bool add)
{
    const float each = dy / (float)n;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (n > SERIAL_ELEMENTS)
    for (int64_t i = 0; i < n; i++) dx[i] = (add ? dx[i] : 0) + each * cost_slope(kind, role, x[i]);
}

static int cpu_gan_loss_bwd(sag_kernel_env *env, const gan_loss_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (a->dreal) add_slopes(env, a->kind, ROLE_REAL, a->real, a->dreal, a->n_real, a->dy[0], a->accumulate_real != 0);
    if (a->dfake)
        add_slopes(env, a->kind, a->real ? ROLE_FAKE : ROLE_GENERATOR, a->fake, a->dfake, a->n_fake, a->dy[0],
                   a->accumulate_fake != 0);
    return SAG_KERNEL_OK;
}

/* ----------------------------------------------------------------------------------- cross entropy */

static bool labels_fit(const cross_entropy_args *a)
{
    for (int64_t i = 0; i < a->n; i++)
        if (a->labels[i] < 0 || a->labels[i] >= a->k) return false;
    return true;
}

static void row_softmax_parts(const float *x, int64_t n, float *top, float *sum)
{
    float m = x[0], s = 0;
#pragma omp simd reduction(max : m)
    for (int64_t c = 0; c < n; c++) m = x[c] > m ? x[c] : m;
#pragma omp simd reduction(+ : s)
    for (int64_t c = 0; c < n; c++) s += cpu_exp1(x[c] - m);
    *top = m;
    *sum = s;
}

static int cpu_cross_entropy_fwd(sag_kernel_env *env, const cross_entropy_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (!labels_fit(a)) return SAG_KERNEL_BAD_INDEX;
    double *row = env->scratch(env, (size_t)a->n * sizeof *row), sum = 0;
    if (!row) return SAG_KERNEL_NO_MEMORY;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->n * a->k > SERIAL_ELEMENTS)
    for (int64_t i = 0; i < a->n; i++) {
        const float *x = (const float *)a->logits + i * a->k;
        float top, total;
        row_softmax_parts(x, a->k, &top, &total);
        row[i] = (double)cpu_log1(total) + ((double)top - (double)x[a->labels[i]]);
    }
    for (int64_t i = 0; i < a->n; i++) sum += row[i];
    a->y[0] = (float)(sum / (double)a->n);
    return SAG_KERNEL_OK;
}

/* dlogits = (softmax - one_hot) dy / n */
static int cpu_cross_entropy_bwd(sag_kernel_env *env, const cross_entropy_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (!labels_fit(a)) return SAG_KERNEL_BAD_INDEX;
    const float each = a->dy[0] / (float)a->n;
    const bool add = a->accumulate != 0;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->n * a->k > SERIAL_ELEMENTS)
    for (int64_t i = 0; i < a->n; i++) {
        const float *x = (const float *)a->logits + i * a->k;
        float *dx = (float *)a->dlogits + i * a->k;
        float top, total;
        row_softmax_parts(x, a->k, &top, &total);
        const float factor = each / total;
#pragma omp simd
        for (int64_t c = 0; c < a->k; c++) dx[c] = (add ? dx[c] : 0) + factor * cpu_exp1(x[c] - top);
        dx[a->labels[i]] -= each;
    }
    return SAG_KERNEL_OK;
}

void CPU_REGISTER(loss)(sag_kernel_table *t)
{
    t->gan_loss_fwd = cpu_gan_loss_fwd;
    t->gan_loss_bwd = cpu_gan_loss_bwd;
    t->cross_entropy_fwd = cpu_cross_entropy_fwd;
    t->cross_entropy_bwd = cpu_cross_entropy_bwd;
}
