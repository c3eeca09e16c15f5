/*
 * attention.c - forward: o_i = sum_j p_ij v_j, p_i = softmax_j(scale q_i . k_j), without the map p ever being in memory.
 *
 * A block of queries meets the keys tile by tile and keeps the sum l of each row. Where |q_i| max |k_j| shows that no score
 * of the block can leave the range of exp, p is exp of the score as it is: there is no maximum to look for. Otherwise
 * online softmax: the running maximum m is taken off, and what a row has is rescaled when m grows. With few channels
 * scores, exp and sums are one loop that keeps a row in registers (row_of_few).
 * Saved: o and lse_i = log2 of sum_j 2^s_ij, scores in base 2.
 * Pieces depend on the shapes only: the bits do not depend on the number of threads.
 * Memory beside the tensors: copies of k and v in tiles, O(N). (Dao et al. 2022, FlashAttention; Rabe & Staats 2021.)
 */
#include "kernels/cpu/attention_tiles.h"

#define ROWS_OF_FEW 12    /* 17 vectors of sums each: less than a block of scores */
#define SAFE_SCORE 60.0f /* base 2: sums of 2^60 leave room for N and v below 2^128, and 2^-60 is no denormal */

/* What all pieces of a forward pass read. */
typedef struct forward_plan {
    const attention_args *a;
    const float *kt;      /* tiles turned round, with scale and log2(e) */
    const float *vt;      /* likewise, for few channels; else NULL */
    const float *v;       /* rows of whole vectors; else NULL */
    const float *longest; /* {batch}: the largest |k|^2, scaled as kt is; NaN if a key is not finite */
    int64_t tiles, ep;
} forward_plan;

static const float *longest_keys(sag_kernel_env *env, const attention_args *a)
{
    float *longest = env->scratch(env, (size_t)a->batch * sizeof *longest);
    if (!longest) return NULL;
    const float factor = a->scale * LOG2_E;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->batch * a->nk * a->d > SERIAL_WORK)
    for (int64_t b = 0; b < a->batch; b++) {
        const float *k = (const float *)a->k + b * a->nk * a->d;
        float most = 0, not_finite = 0;
        for (int64_t j = 0; j < a->nk; j++, k += a->d) {
            float sum = 0;
            for (int64_t c = 0; c < a->d; c++) sum += k[c] * k[c];
            not_finite += sum * 0.0f; /* NaN from NaN and infinity */
            most = sum > most ? sum : most;
        }
        longest[b] = most * factor * factor + not_finite;
    }
    return longest;
}

static bool scores_are_safe(const attention_args *a, const float *q, int64_t rows, float longest)
{
    float most = 0, not_finite = 0;
    for (int64_t r = 0; r < rows; r++, q += a->d) {
        float sum = 0;
        for (int64_t c = 0; c < a->d; c++) sum += q[c] * q[c];
        not_finite += sum * 0.0f;
        most = sum > most ? sum : most;
    }
    return most * longest + not_finite < SAFE_SCORE * SAFE_SCORE; /* Cauchy-Schwarz; false for NaN */
}

/*
 * One query with few channels against one tile; sums {e + 1} of vectors are those of p v and of p. They, q and the
 * polynomial's factors fill the registers.
 */
__attribute__((always_inline)) static inline void row_of_few(const int d, const int e, const float *q, const float *kt,
                                                             const float *vt, int64_t keys, float *sums, bool first)
{
    cpu_vec query[4], sum[16], l = first ? (cpu_vec){0} : cpu_load(sums + e * CPU_LANES);
    for (int c = 0; c < d; c++) query[c] = cpu_splat(q[c]);
    for (int c = 0; c < e; c++) sum[c] = first ? (cpu_vec){0} : cpu_load(sums + c * CPU_LANES);
    int64_t j = 0;
    for (; j + CPU_LANES <= keys; j += CPU_LANES) {
        const cpu_vec p = exp2_bounded(score_few(d, query, kt + j));
        l += p;
        for (int c = 0; c < e; c++) sum[c] += p * cpu_load(vt + c * TILE_KEYS + j);
    }
    if (j < keys) { /* v is 0 beyond the last key, p is not */
        const cpu_vec p = exp2_bounded(score_few(d, query, kt + j));
        for (int64_t i = 0; i < keys - j; i++) l[i] += p[i];
        for (int c = 0; c < e; c++) sum[c] += p * cpu_load(vt + c * TILE_KEYS + j);
    }
    for (int c = 0; c < e; c++) cpu_store(sums + c * CPU_LANES, sum[c]);
    cpu_store(sums + e * CPU_LANES, l);
}

/* A few rows at a time, so that their sums and a tile stay in L1. */
__attribute__((always_inline)) static inline void rows_of_few(const int d, const int e, const forward_plan *plan,
                                                              float *sums, int64_t b, int64_t i0, int64_t rows)
{
    const attention_args *a = plan->a;
    const float *kt = plan->kt + b * plan->tiles * d * TILE_KEYS, *vt = plan->vt + b * plan->tiles * e * TILE_KEYS;
    const float *q = (const float *)a->q + (b * a->nq + i0) * d;
    const int64_t row_sums = (e + 1) * CPU_LANES;
    for (int64_t j0 = 0; j0 < a->nk; j0 += TILE_KEYS, kt += d * TILE_KEYS, vt += e * TILE_KEYS)
        for (int64_t r = 0; r < rows; r++)
            row_of_few(d, e, q + r * d, kt, vt, cpu_min64(TILE_KEYS, a->nk - j0), sums + r * row_sums, j0 == 0);
    for (int64_t r = 0; r < rows; r++, sums += row_sums) {
        const int64_t at = b * a->nq + i0 + r;
        const float l = cpu_lane_sum(cpu_load(sums + e * CPU_LANES)), inverse = 1.0f / l;
        for (int c = 0; c < e; c++) ((float *)a->o)[at * e + c] = cpu_lane_sum(cpu_load(sums + c * CPU_LANES)) * inverse;
        if (a->lse) a->lse[at] = cpu_log1(l) * LOG2_E;
    }
}

/* Channels that row_of_few has registers for. */
static bool few_channels(const attention_args *a)
{
    return is_few(a->d, a->nk) && (a->e == 8 || (a->e == 16 && CPU_LANES == 16));
}

static void block_of_few(const forward_plan *plan, float *work, int64_t b, int64_t first, int64_t count)
{
    for (int64_t i0 = first; i0 < first + count; i0 += ROWS_OF_FEW) {
        const int64_t rows = cpu_min64(ROWS_OF_FEW, first + count - i0);
        switch (plan->a->d + plan->a->e) { /* 1, 2, 4 and 8, 16: every sum once */
        case 1 + 8: rows_of_few(1, 8, plan, work, b, i0, rows); break;
        case 2 + 8: rows_of_few(2, 8, plan, work, b, i0, rows); break;
        case 4 + 8: rows_of_few(4, 8, plan, work, b, i0, rows); break;
#if CPU_LANES == 16
        case 1 + 16: rows_of_few(1, 16, plan, work, b, i0, rows); break;
        case 2 + 16: rows_of_few(2, 16, plan, work, b, i0, rows); break;
        case 4 + 16: rows_of_few(4, 16, plan, work, b, i0, rows); break;
#endif
        default: break;
        }
    }
}

/* Turns a tile of scores into 2^(s - m) and moves the running m, l and unnormalised o of each row. */
static void online_softmax(float *s, int64_t rows, int64_t keys, int64_t vectors, float *m, float *l, float *o,
                           int64_t o_row, bool first)
{
    for (int64_t r = 0; r < rows; r++, s += TILE_KEYS, o += o_row) {
        for (int64_t j = keys; j < vectors * CPU_LANES; j++) s[j] = -INFINITY;
        cpu_vec top = cpu_load(s);
        for (int64_t v = 1; v < vectors; v++) top = cpu_max(cpu_load(s + v * CPU_LANES), top);
        const float tile_max = cpu_lane_max(top);
        if (first) {
            m[r] = tile_max;
            l[r] = 0;
        } else if (tile_max > m[r]) {
            const float shrink = cpu_exp1((m[r] - tile_max) * LN_2);
            m[r] = tile_max;
            l[r] *= shrink;
            for (int64_t e = 0; e < o_row; e += CPU_LANES) cpu_store(o + e, cpu_load(o + e) * cpu_splat(shrink));
        }
        const cpu_vec shift = cpu_splat(m[r]);
        cpu_vec sum = {0};
        for (int64_t v = 0; v < vectors; v++) {
            const cpu_vec p = exp2_below(cpu_load(s + v * CPU_LANES) - shift);
            cpu_store(s + v * CPU_LANES, p);
            sum += p;
        }
        l[r] += cpu_lane_sum(sum);
    }
}

/* The same where every score is safe: m stays 0. */
static void bounded_softmax(float *s, int64_t rows, int64_t keys, int64_t vectors, float *l, bool first)
{
    for (int64_t r = 0; r < rows; r++, s += TILE_KEYS) {
        cpu_vec sum = {0};
        for (int64_t v = 0; v < vectors; v++) {
            const cpu_vec p = exp2_bounded(cpu_load(s + v * CPU_LANES));
            cpu_store(s + v * CPU_LANES, p);
            if (v < keys / CPU_LANES) sum += p;
        }
        float tail = 0;
        for (int64_t j = keys / CPU_LANES * CPU_LANES; j < keys; j++) tail += s[j];
        l[r] = (first ? 0 : l[r]) + cpu_lane_sum(sum) + tail;
    }
}

static void block_of_many(const forward_plan *plan, float *work, int64_t b, int64_t i0, int64_t rows, bool safe)
{
    const attention_args *a = plan->a;
    const int64_t ep = plan->ep, stride = tile_stride(a->nk);
    const float *q = (const float *)a->q + (b * a->nq + i0) * a->d;
    const float *kt = plan->kt + b * plan->tiles * a->d * stride, *values = plan->v + b * a->nk * ep;
    float *s = work, *sum_o = s + BLOCK_QUERIES * TILE_KEYS, *m = sum_o + BLOCK_QUERIES * ep, *l = m + BLOCK_QUERIES;
    memset(m, 0, BLOCK_QUERIES * sizeof *m);
    for (int64_t j0 = 0; j0 < a->nk; j0 += TILE_KEYS) {
        const int64_t keys = cpu_min64(TILE_KEYS, a->nk - j0);
        const int64_t vectors = score_tile(s, q, kt + j0 * a->d, stride, rows, keys, a->d);
        if (safe)
            bounded_softmax(s, rows, keys, vectors, l, j0 == 0);
        else
            online_softmax(s, rows, keys, vectors, m, l, sum_o, ep, j0 == 0);
        tile_product(&(tile_operands){.a = s,
                                      .a_row = TILE_KEYS,
                                      .a_depth = 1,
                                      .b = values + j0 * ep,
                                      .b_row = ep,
                                      .c = sum_o,
                                      .c_row = ep,
                                      .depth = keys,
                                      .accumulate = j0 > 0},
                     rows, ep / CPU_LANES);
    }
    for (int64_t r = 0; r < rows; r++) {
        float *o = (float *)a->o + (b * a->nq + i0 + r) * a->e;
        const float inverse = 1.0f / l[r];
#pragma omp simd
        for (int64_t e = 0; e < a->e; e++) o[e] = sum_o[r * ep + e] * inverse;
        if (a->lse) a->lse[b * a->nq + i0 + r] = m[r] + cpu_log1(l[r]) * LOG2_E;
    }
}

static int cpu_attention_fwd(sag_kernel_env *env, const attention_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    const int64_t blocks = cpu_ceil_div(a->nq, BLOCK_QUERIES), items = a->batch * blocks;
    forward_plan plan = {.a = a, .tiles = cpu_ceil_div(a->nk, TILE_KEYS), .ep = tile_padded(a->e)};
    const int64_t work_size = BLOCK_QUERIES * (TILE_KEYS + plan.ep + 2);
    plan.kt = pack_keys(env, a->k, a->batch, a->nk, a->d, a->scale * LOG2_E);
    plan.longest = longest_keys(env, a);
    plan.v = pad_rows(env, a->v, a->batch * a->nk, a->e);
    if (few_channels(a) && !(plan.vt = pack_keys(env, a->v, a->batch, a->nk, a->e, 1))) return SAG_KERNEL_NO_MEMORY;
    float *work = env->scratch(env, (size_t)(env->threads * work_size) * sizeof *work);
    if (!plan.kt || !plan.longest || !plan.v || !work) return SAG_KERNEL_NO_MEMORY;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->batch * a->nq * a->nk > SERIAL_WORK)
    for (int64_t i = 0; i < items; i++) {
        const int64_t b = i / blocks, i0 = i % blocks * BLOCK_QUERIES, rows = cpu_min64(BLOCK_QUERIES, a->nq - i0);
        float *scratch = work + omp_get_thread_num() * work_size;
        const bool safe = scores_are_safe(a, (const float *)a->q + (b * a->nq + i0) * a->d, rows, plan.longest[b]);
        if (safe && plan.vt)
            block_of_few(&plan, scratch, b, i0, rows);
        else
            block_of_many(&plan, scratch, b, i0, rows, safe);
    }
    return SAG_KERNEL_OK;
}

void CPU_REGISTER(attention)(sag_kernel_table *t)
{
    t->attention_fwd = cpu_attention_fwd;
    t->attention_bwd = CPU_ISA(attention_bwd);
    t->attention_map = CPU_ISA(attention_map);
    t->attention_stats = CPU_ISA(attention_stats);
}
