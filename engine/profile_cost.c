/*
 * profile_cost.c - the arithmetic and the memory traffic that one kernel call stands for, from its arguments: what turns
 * the profile's seconds into rates. One function for each struct of kernel_args.h; a kernel whose struct has none here
 * does not compile.
 *
 * flops: multiplies and adds of the direct method (for upconv and convpool: of the folded 4x4 kernel), an exponential or
 * logarithm counted as EXP. A kernel that saves multiplies says so itself, in sag_kernel_env.
 * bytes: each operand once over the memory bus; one that is read twice, or that stays in a cache, is not known here.
 */
#include "engine/internal.h"

#define EXP 20 /* range reduction, polynomial, scaling */

typedef sag_kernel_cost cost;

static double act(sag_dtype d)
{
    return (double)sag_dtype_size(d);
}

/* A destination: written, and read before if it is added to; not there if NULL. */
static double into(const void *p, int accumulate)
{
    return p ? 1.0 + (accumulate != 0) : 0.0;
}

static double product(const int64_t *v, int n)
{
    double p = 1;
    for (int i = 0; i < n; i++) p *= (double)v[i];
    return p;
}
#define SIZE(...) product((const int64_t[]){__VA_ARGS__}, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))

static cost cost_of_conv_args(sag_slot slot, const conv_args *a)
{
    double x = SIZE(a->n, a->h, a->w_in, a->c), y = SIZE(a->n, a->p, a->q, a->k), w = SIZE(a->k, a->r, a->s, a->c);
    double taps = SIZE(a->r, a->s), e = act(a->act);
    if (slot >= SAG_SLOT_upconv_fwd && slot <= SAG_SLOT_upconv_bwd_w) taps = 4;
    if (slot >= SAG_SLOT_convpool_fwd && slot <= SAG_SLOT_convpool_bwd_w) taps = 16;
    double residual = a->residual ? e * y / (a->residual_half ? 4 : 1) : 0;
    cost products = {.flops = 2 * y * taps * (double)a->c, .bytes = e * (x + y) + residual + 4 * w};
    switch (slot) {
    case SAG_SLOT_conv2d_bwd_x:
    case SAG_SLOT_upconv_bwd_x:
    case SAG_SLOT_convpool_bwd_x: products.bytes = e * (y + x * (into(a->dx, a->accumulate) + (a->relu != 0))) + 4 * w; break;
    case SAG_SLOT_conv2d_bwd_w:
    case SAG_SLOT_upconv_bwd_w:
    case SAG_SLOT_convpool_bwd_w:
        if (!a->dw) return (cost){y, e * y};
        products.bytes = e * (x + y) + 4 * w * into(a->dw, a->accumulate_dw);
        break;
    default: break;
    }
    return products;
}

static cost cost_of_matmul_args(sag_slot slot, const matmul_args *a)
{
    (void)slot;
    double times_a = a->stride_a ? (double)a->batch : 1, times_b = a->stride_b ? (double)a->batch : 1;
    return (cost){2 * SIZE(a->batch, a->m, a->n, a->k),
                  times_a * SIZE(a->m, a->k) * act(a->act_a) + times_b * SIZE(a->k, a->n) * act(a->act_b) +
                      SIZE(a->batch, a->m, a->n) * act(a->act_y) * into(a->y, a->accumulate)};
}

static cost cost_of_column_sum_args(sag_slot slot, const column_sum_args *a)
{
    (void)slot;
    return (cost){SIZE(a->rows, a->cols), SIZE(a->rows, a->cols) * act(a->act)};
}

static cost cost_of_unary_args(sag_slot slot, const unary_args *a)
{
    bool heavy = a->kind >= SAG_UNARY_TANH && a->kind <= SAG_UNARY_LOG;
    double n = (double)a->n, e = act(a->act);
    if (slot == SAG_SLOT_unary_fwd) return (cost){n * (heavy ? EXP : 1), 2 * n * e};
    return (cost){n * (a->kind == SAG_UNARY_SOFTPLUS ? EXP : 2), n * e * (1 + (a->x != NULL) + into(a->dx, a->accumulate))};
}

static cost cost_of_binary_args(sag_slot slot, const binary_args *a)
{
    double n = (double)a->n, nb = (double)a->nb, e = act(a->act);
    if (slot == SAG_SLOT_binary_fwd) return (cost){n, e * (2 * n + nb)};
    double operands = a->kind == SAG_BINARY_MUL || a->kind == SAG_BINARY_DIV ? n : 0;
    return (cost){2 * n, e * (n + operands + n * into(a->da, a->accumulate_a) + nb * into(a->db, a->accumulate_b))};
}

static cost cost_of_gated_add_args(sag_slot slot, const gated_add_args *a)
{
    double n = (double)a->n, e = act(a->act);
    if (slot == SAG_SLOT_gated_add_fwd) return (cost){2 * n, 3 * n * e};
    return (cost){n * ((a->dout_o != NULL) + 2.0 * (a->dgamma != NULL)),
                  n * e * (1 + (a->dgamma != NULL) + into(a->dout_o, a->accumulate_o))};
}

static cost cost_of_batch_norm_args(sag_slot slot, const batch_norm_args *a)
{
    double n = SIZE(a->n, a->spatial, a->c), e = act(a->act);
    if (slot == SAG_SLOT_batch_norm_fwd) return (cost){n * (a->train && !a->resumed ? 7 : 3), 2 * n * e};
    return (cost){n * (a->train ? 9 : 6), n * e * (2 + into(a->dx, a->accumulate))};
}

static cost cost_of_pool_args(sag_slot slot, const pool_args *a)
{
    double x = SIZE(a->n, a->h, a->w_in, a->c), y = SIZE(a->n, a->p, a->q, a->c), e = act(a->act);
    bool bwd = a->dx != NULL;
    double winners = slot == SAG_SLOT_max_pool_fwd || slot == SAG_SLOT_max_pool_bwd ? 4 * y : 0;
    if (slot == SAG_SLOT_global_sum_pool_fwd || slot == SAG_SLOT_global_sum_pool_bwd) y = SIZE(a->n, a->c);
    return (cost){x > y ? x : y, e * (y + x * (bwd ? into(a->dx, a->accumulate) : 1)) + winners};
}

static cost cost_of_copy_block_args(sag_slot slot, const copy_block_args *a)
{
    (void)slot;
    double bytes = SIZE(a->outer, a->inner);
    return (cost){a->accumulate ? bytes / act(a->act) : 0, bytes * (1 + into(a->dst, a->accumulate))};
}

static cost cost_of_permute_args(sag_slot slot, const permute_args *a)
{
    (void)slot;
    double n = product(a->shape, 4);
    return (cost){a->accumulate ? n : 0, n * act(a->act) * (1 + into(a->y, a->accumulate))};
}

static cost cost_of_reduce_args(sag_slot slot, const reduce_args *a)
{
    double n = SIZE(a->outer, a->axis, a->inner), e = act(a->act);
    bool reads = a->kind == SAG_REDUCE_NORM || slot != SAG_SLOT_reduce_bwd;
    return (cost){n, n * e * ((reads ? 1 : 0) + into(a->dx, a->accumulate))};
}

static cost cost_of_softmax_args(sag_slot slot, const softmax_args *a)
{
    double n = SIZE(a->rows, a->cols), e = act(a->act);
    if (slot == SAG_SLOT_softmax_fwd) return (cost){n * (EXP + 3), 2 * n * e};
    return (cost){n * (a->log ? EXP + 3 : 4), n * e * (2 + into(a->dx, a->accumulate))};
}

static cost cost_of_attention_args(sag_slot slot, const attention_args *a)
{
    double pairs = SIZE(a->batch, a->nq, a->nk), d = (double)a->d, e = (double)a->e, size = act(a->act);
    double q = SIZE(a->batch, a->nq, a->d), k = SIZE(a->batch, a->nk, a->d), v = SIZE(a->batch, a->nk, a->e);
    double o = SIZE(a->batch, a->nq, a->e);
    if (slot == SAG_SLOT_attention_fwd) return (cost){pairs * (2 * d + 2 * e + EXP), size * (q + k + v + o)};
    double products = 2 * d + (a->dv ? 2 * e : 0);
    if (a->dq || a->dk) products += 2 * e + 2 + (a->dq ? 2 * d : 0) + (a->dk ? 2 * d : 0);
    return (cost){pairs * (products + EXP),
                  size * (q * (1 + into(a->dq, a->accumulate_q)) + k * (1 + into(a->dk, a->accumulate_k)) +
                          v * (1 + into(a->dv, a->accumulate_v)) + 2 * o)};
}

static cost cost_of_attention_map_args(sag_slot slot, const attention_map_args *a)
{
    double rows = slot == SAG_SLOT_attention_map ? SIZE(a->batch, a->m) : SIZE(a->batch, a->nq), nk = (double)a->nk;
    return (cost){rows * nk * (2 * (double)a->d + EXP + 3),
                  act(a->act) * (rows + SIZE(a->batch, a->nk)) * (double)a->d + (a->p ? 4 * rows * nk : 0)};
}

static cost cost_of_spectral_norm_args(sag_slot slot, const spectral_norm_args *a)
{
    double n = (double)a->n;
    if (slot == SAG_SLOT_spectral_norm_fwd) return (cost){n * (a->iterations > 0 ? 4 * (double)a->iterations : 2), 4 * n};
    return (cost){2 * n, 4 * n * into(a->dw, 1)};
}

static cost cost_of_sigma_bwd_args(sag_slot slot, const sigma_bwd_args *a)
{
    (void)slot;
    double n = (double)a->n;
    return (cost){3 * n, 4 * n * (2 + into(a->dw, a->accumulate_dw))};
}

static cost cost_of_embedding_args(sag_slot slot, const embedding_args *a)
{
    double n = SIZE(a->n, a->d);
    if (slot == SAG_SLOT_embedding_fwd) return (cost){0, n * (4 + act(a->act))};
    return (cost){n, n * (8 + act(a->act)) + (a->accumulate ? 0 : 4 * SIZE(a->v, a->d))};
}

static cost cost_of_gan_loss_args(sag_slot slot, const gan_loss_args *a)
{
    double n = (a->real ? (double)a->n_real : 0) + (double)a->n_fake;
    return (cost){n * (a->kind == SAG_LOSS_BCE ? EXP : 2), n * act(a->act) * (slot == SAG_SLOT_gan_loss_fwd ? 1 : 2)};
}

static cost cost_of_cross_entropy_args(sag_slot slot, const cross_entropy_args *a)
{
    double n = SIZE(a->n, a->k);
    return (cost){n * (EXP + 2), n * act(a->act) * (slot == SAG_SLOT_cross_entropy_fwd ? 1 : 2)};
}

static cost cost_of_random_args(sag_slot slot, const random_args *a)
{
    (void)slot;
    return (cost){0, 4 * (double)a->n};
}

static cost cost_of_tick_args(sag_slot slot, const tick_args *a)
{
    (void)slot, (void)a;
    return (cost){0, 16};
}

static cost cost_of_adam_args(sag_slot slot, const adam_args *a)
{
    (void)slot;
    bool average = a->average.target != NULL;
    return (cost){(average ? 17 : 14) * (double)a->n, (average ? 36 : 28) * (double)a->n};
}

static cost cost_of_ema_args(sag_slot slot, const ema_args *a)
{
    (void)slot;
    return (cost){3 * (double)a->n, 12 * (double)a->n};
}

static cost cost_of_fill_args(sag_slot slot, const fill_args *a)
{
    (void)slot;
    return (cost){0, (double)a->n * act(a->dtype)};
}

static cost cost_of_axpy_args(sag_slot slot, const axpy_args *a)
{
    (void)slot;
    return (cost){2 * (double)a->n, 3 * (double)a->n * act(a->act)};
}

static cost cost_of_record_args(sag_slot slot, const record_args *a)
{
    (void)slot, (void)a;
    return (cost){0, 16};
}

static cost cost_of_pixels_args(sag_slot slot, const pixels_args *a)
{
    (void)slot;
    double n = SIZE(a->n, a->h, a->w_in, a->c);
    return (cost){2 * n, 5 * n};
}

static cost cost_of_cast_args(sag_slot slot, const cast_args *a)
{
    (void)slot;
    return (cost){0, (double)a->n * (act(a->from) + act(a->to))};
}

sag_kernel_cost sag_cost_of(sag_slot slot, const void *args)
{
    switch (slot) {
#define SAG_OP_DIFF(name, signature, doc)
#define SAG_OP_PURE(name, signature, doc)
#define SAG_KERNEL(slot, args_type) \
    case SAG_SLOT_##slot: return cost_of_##args_type(SAG_SLOT_##slot, args);
#include "engine/ops.def"
    default: return (cost){0, 0};
    }
}
