/*
 * attention.c - forward: o_i = sum_j p_ij v_j, p_i = softmax_j(scale q_i . k_j), without the map p ever being in
 * memory.
 *
 * A block of queries, turned round so that lanes run over queries, meets the keys tile by tile: a tile of the map is
 * {keys, queries}, and k and v are read as they are, by single elements. Where |q_i| max |k_j| shows that no score of
 * the block can leave the range of exp, p is exp of the score as it is, before it is first stored. Otherwise online
 * softmax: the running maximum m is taken off, and what a query has is rescaled when m grows. Saved: o and lse_i = log2
 * of sum_j 2^s_ij, scores in base 2. Pieces depend on the shapes only: the bits do not depend on the number of threads.
 * Memory beside the tensors: a block for each thread. (Dao et al. 2022, FlashAttention; Rabe & Staats 2021.)
 */
#include "kernels/cpu/attention_tiles.h"

/* What a thread works on, all with BLOCK_QUERIES as the row length. */
typedef struct forward_block {
    float *qt; /* {d}, with scale and log2(e); zero beyond the last query */
    float *p;  /* {TILE_KEYS} */
    float *ot; /* {e}: sums of p v */
    float *l;  /* {1}: sums of p */
    float *m;  /* {1}: the maximum that is taken off */
} forward_block;

/* p = 2^s of one tile, and its sums; k {keys, d}. */
CPU_INLINE void safe_tile_of(const int64_t d, const forward_block *t, const float *k, int64_t keys, int64_t columns,
                             bool first)
{
    for (int64_t i = 0; i < columns; i += PANEL) {
        cpu_vec p[MAP_ROWS][TILE_VECS], sum[TILE_VECS] = {{0}};
        const float *b = t->qt + i;
        float *to = t->p + i;
        int64_t j = 0;
        for (; j + MAP_ROWS <= keys; j += MAP_ROWS) {
            map_block(MAP_ROWS, d, k + j * d, b, BLOCK_QUERIES, NULL, true, p);
            for (int r = 0; r < MAP_ROWS; r++, to += BLOCK_QUERIES)
                for (int v = 0; v < TILE_VECS; v++) {
                    cpu_store(to + v * CPU_LANES, p[r][v]);
                    sum[v] += p[r][v];
                }
        }
        for (; j < keys; j++, to += BLOCK_QUERIES) {
            map_block(1, d, k + j * d, b, BLOCK_QUERIES, NULL, true, p);
            for (int v = 0; v < TILE_VECS; v++) {
                cpu_store(to + v * CPU_LANES, p[0][v]);
                sum[v] += p[0][v];
            }
        }
        for (int v = 0; v < TILE_VECS; v++) {
            float *l = t->l + i + v * CPU_LANES;
            cpu_store(l, first ? sum[v] : cpu_load(l) + sum[v]);
        }
    }
}

static void safe_tile(const forward_block *t, const float *k, int64_t keys, int64_t columns, int64_t d, bool first)
{
    switch (d) {
    case 1: safe_tile_of(1, t, k, keys, columns, first); break;
    case 2: safe_tile_of(2, t, k, keys, columns, first); break;
    case 4: safe_tile_of(4, t, k, keys, columns, first); break;
    default: safe_tile_of(d, t, k, keys, columns, first);
    }
}

/* Turns a tile of scores into 2^(s - m) and moves m, l and the unnormalised o of each query. */
static void online_softmax(const forward_block *t, int64_t keys, int64_t vectors, int64_t e, bool first)
{
    for (int64_t i = 0; i < vectors * CPU_LANES; i += CPU_LANES) {
        float *p = t->p + i, *ot = t->ot + i;
        const cpu_vec before = first ? cpu_load(p) : cpu_load(t->m + i);
        cpu_vec top = before, sum = {0};
        for (int64_t j = 0; j < keys; j++) top = cpu_max(cpu_load(p + j * BLOCK_QUERIES), top);
        if (!first && memcmp(&top, &before, sizeof top) != 0) {
            const cpu_vec shrink = exp2_below(before - top);
            cpu_store(t->l + i, cpu_load(t->l + i) * shrink);
            for (int64_t c = 0; c < e; c++)
                cpu_store(ot + c * BLOCK_QUERIES, cpu_load(ot + c * BLOCK_QUERIES) * shrink);
        }
        for (int64_t j = 0; j < keys; j++, p += BLOCK_QUERIES) {
            const cpu_vec power = exp2_below(cpu_load(p) - top);
            cpu_store(p, power);
            sum += power;
        }
        cpu_store(t->m + i, top);
        cpu_store(t->l + i, first ? sum : cpu_load(t->l + i) + sum);
    }
}

/* o = sums of p v / l, turned back, and lse of the block's queries. */
static void finish(const attention_args *a, const forward_block *t, int64_t row0, int64_t rows)
{
    float lse[BLOCK_QUERIES];
    const int64_t e = a->e, whole_rows = rows / CPU_LANES * CPU_LANES, whole_cols = e / CPU_LANES * CPU_LANES;
    float *o = (float *)a->o + row0 * e;
    for (int64_t i = 0; i < rows; i += CPU_LANES) {
        const cpu_vec l = cpu_load(t->l + i), inverse = 1.0f / l;
        cpu_store(lse + i, cpu_load(t->m + i) + cpu_log(l) * LOG2_E);
        for (int64_t c = 0; c < e; c++) {
            float *at = t->ot + c * BLOCK_QUERIES + i;
            cpu_store(at, cpu_load(at) * inverse);
        }
    }
    for (int64_t i = 0; i < whole_rows; i += CPU_LANES)
        for (int64_t c = 0; c < whole_cols; c += CPU_LANES)
            transpose_square(t->ot + c * BLOCK_QUERIES + i, BLOCK_QUERIES, o + i * e + c, e);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = i < whole_rows ? whole_cols : 0; c < e; c++) o[i * e + c] = t->ot[c * BLOCK_QUERIES + i];
    if (a->lse) memcpy(a->lse + row0, lse, (size_t)rows * sizeof *lse);
}

static void forward(const attention_args *a, const forward_block *t, int64_t b, int64_t i0, int64_t rows, bool safe)
{
    const int64_t d = a->d, e = a->e, row0 = b * a->nq + i0, vectors = cpu_ceil_div(rows, CPU_LANES);
    const float *k = (const float *)a->k + b * a->nk * d, *v = (const float *)a->v + b * a->nk * e;
    turn_rows(t->qt, BLOCK_QUERIES, (const float *)a->q + row0 * d, rows, d, a->scale * LOG2_E);
    memset(t->m, 0, BLOCK_QUERIES * sizeof *t->m);
    for (int64_t j0 = 0; j0 < a->nk; j0 += TILE_KEYS, k += TILE_KEYS * d, v += TILE_KEYS * e) {
        const int64_t keys = cpu_min64(TILE_KEYS, a->nk - j0);
        tile_operands o = {.a = k,
                           .a_row = d,
                           .a_depth = 1,
                           .b = t->qt,
                           .b_row = BLOCK_QUERIES,
                           .c = t->p,
                           .c_row = BLOCK_QUERIES,
                           .depth = d};
        if (safe) {
            safe_tile(t, k, keys, cpu_ceil_div(rows, PANEL) * PANEL, d, j0 == 0);
        } else {
            tile_product(&o, keys, vectors);
            online_softmax(t, keys, vectors, e, j0 == 0);
        }
        o.a = v;
        o.a_row = 1;
        o.a_depth = e;
        o.b = t->p;
        o.c = t->ot;
        o.depth = keys;
        o.accumulate = j0 > 0;
        tile_product(&o, e, vectors);
    }
    finish(a, t, row0, rows);
}

static int cpu_attention_fwd(sag_kernel_env *env, const attention_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    const int64_t blocks = cpu_ceil_div(a->nq, BLOCK_QUERIES), items = a->batch * blocks;
    const int64_t work_size = BLOCK_QUERIES * (a->d + TILE_KEYS + a->e + 2);
    const float *longest = longest_keys(env, a);
    float *work = env->scratch(env, (size_t)(env->threads * work_size) * sizeof *work);
    if (!longest || !work) return SAG_KERNEL_NO_MEMORY;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->batch * a->nq * a->nk > SERIAL_WORK)
    for (int64_t i = 0; i < items; i++) {
        const int64_t b = i / blocks, i0 = i % blocks * BLOCK_QUERIES, rows = cpu_min64(BLOCK_QUERIES, a->nq - i0);
        forward_block t = {.p = work + omp_get_thread_num() * work_size};
        t.qt = t.p + BLOCK_QUERIES * TILE_KEYS;
        t.ot = t.qt + BLOCK_QUERIES * a->d;
        t.l = t.ot + BLOCK_QUERIES * a->e;
        t.m = t.l + BLOCK_QUERIES;
        forward(a, &t, b, i0, rows, scores_are_safe(a, b * a->nq + i0, rows, longest[b]));
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
