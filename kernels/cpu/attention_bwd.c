/*
 * attention_bwd.c - gradients of attention: p_ij = 2^(s_ij - lse_i) is computed again tile by tile, never stored whole.
 *
 * With delta_i = do_i . o_i and dp_ij = do_i . v_j:
 *   ds_ij = p_ij (dp_ij - delta_i);  dv_j = sum_i p_ij do_i;  dk_j = scale sum_i ds_ij q_i;  dq_i = scale sum_j ds_ij
 * k_j A piece of work owns a chunk of keys, so dk and dv are its own; its share of dq goes to a buffer of its own and
 * the few shares are added in order. Pieces depend on the shapes only: the bits do not depend on the number of threads.
 * With few channels dk and dv grow turned round, lanes over keys, which wastes no lanes; so does dq, added across
 * lanes. Memory beside the tensors: copies of k and v in tiles and at most 8 shares of dq, all O(N).
 */
#include "kernels/cpu/attention_tiles.h"

#define MAX_CHUNKS 8
#define WANTED_PIECES 32 /* enough for the cores of one machine */

/* What all pieces of a backward pass read, and the shares of dq {batch, chunks, nq, dp}. */
typedef struct backward_plan {
    const attention_args *a;
    const float *kt,
        *vt; /* tiles turned round; kt carries the scale and log2(e); vt NULL: neither dq nor dk is wanted */
    const float *k_rows; /* rows of whole vectors, for dq of many channels */
    const float *minus_delta;
    const float *safe; /* {batch, blocks}: 1 where scores_are_safe, else 0 */
    float *dq_share;
    float dq_factor; /* what a sum of shares lacks: they are products with kt or with k */
    int64_t tiles, blocks, chunks, tiles_per_chunk, dp;
} backward_plan;

/* p, and ds from dp - delta, of `rows` queries against a tile; ds NULL: p alone. */
CPU_INLINE void map_rows(const int rows, const int64_t d, const float *q, const float *kt, int64_t kt_row,
                         const float *lse, const bool safe, float *p, float *ds, int64_t columns)
{
    float start[MAP_ROWS];
    for (int r = 0; r < rows; r++) start[r] = -lse[r];
    for (int64_t j = 0; j < columns; j += PANEL) {
        cpu_vec power[MAP_ROWS][TILE_VECS];
        map_block(rows, d, q, kt + j, kt_row, start, safe, power);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < TILE_VECS; v++) {
                const int64_t at = r * TILE_KEYS + j + v * CPU_LANES;
                cpu_store(p + at, power[r][v]);
                if (ds) cpu_store(ds + at, power[r][v] * cpu_load(ds + at));
            }
    }
}

CPU_INLINE void map_tile_of(const int64_t d, const float *q, const float *kt, int64_t kt_row, const float *lse,
                            const bool safe, float *p, float *ds, int64_t rows, int64_t columns)
{
    int64_t r = 0;
    for (; r + MAP_ROWS <= rows; r += MAP_ROWS)
        map_rows(MAP_ROWS, d, q + r * d, kt, kt_row, lse + r, safe, p + r * TILE_KEYS, ds ? ds + r * TILE_KEYS : NULL,
                 columns);
    for (; r < rows; r++)
        map_rows(1, d, q + r * d, kt, kt_row, lse + r, safe, p + r * TILE_KEYS, ds ? ds + r * TILE_KEYS : NULL,
                 columns);
}

static void map_tile(const float *q, const float *kt, int64_t kt_row, const float *lse, bool safe, float *p, float *ds,
                     int64_t rows, int64_t columns, int64_t d)
{
    if (!safe) {
        map_tile_of(d, q, kt, kt_row, lse, false, p, ds, rows, columns);
        return;
    }
    switch (d) {
    case 1: map_tile_of(1, q, kt, kt_row, lse, true, p, ds, rows, columns); break;
    case 2: map_tile_of(2, q, kt, kt_row, lse, true, p, ds, rows, columns); break;
    case 4: map_tile_of(4, q, kt, kt_row, lse, true, p, ds, rows, columns); break;
    default: map_tile_of(d, q, kt, kt_row, lse, true, p, ds, rows, columns);
    }
}

/* p and ds of a block of queries against one tile. */
static void probabilities(const backward_plan *plan, int64_t row0, int64_t rows, const float *kt, const float *vt,
                          bool safe, float *p, float *ds, int64_t keys)
{
    const attention_args *a = plan->a;
    const int64_t stride = tile_stride(a->nk), vectors = cpu_ceil_div(keys, CPU_LANES);
    if (vt)
        tile_product(&(tile_operands){.a = (const float *)a->do_ + row0 * a->e,
                                      .a_row = a->e,
                                      .a_depth = 1,
                                      .b = vt,
                                      .b_row = stride,
                                      .c = ds,
                                      .c_row = TILE_KEYS,
                                      .depth = a->e,
                                      .start = plan->minus_delta + row0},
                     rows, vectors);
    map_tile((const float *)a->q + row0 * a->d, kt, stride, a->lse + row0, safe, p, vt ? ds : NULL, rows,
             cpu_ceil_div(keys, PANEL) * PANEL, a->d);
    for (int64_t r = 0; r < rows && keys < vectors * CPU_LANES; r++) /* no key has these: what is there may be NaN */
        for (int64_t j = keys; j < vectors * CPU_LANES; j++) ds[r * TILE_KEYS + j] = 0;
}

/* to {keys, cols} (+)= factor * sums, which are turned round: {cols, TILE_KEYS}. */
static void store_turned(float *to, const float *sums, int64_t keys, int64_t cols, float factor, int accumulate)
{
    const int64_t whole_keys = keys / CPU_LANES * CPU_LANES, whole_cols = cols / CPU_LANES * CPU_LANES;
    for (int64_t j = 0; j < whole_keys; j += CPU_LANES)
        for (int64_t c = 0; c < whole_cols; c += CPU_LANES) {
            float square[CPU_LANES * CPU_LANES], *at = to + j * cols + c;
            transpose_square(sums + c * TILE_KEYS + j, TILE_KEYS, square, CPU_LANES);
            for (int i = 0; i < CPU_LANES; i++, at += cols) {
                const cpu_vec x = cpu_load(square + i * CPU_LANES) * factor;
                cpu_store(at, accumulate ? cpu_load(at) + x : x);
            }
        }
    for (int64_t j = 0; j < keys; j++, to += cols)
        for (int64_t c = j < whole_keys ? whole_cols : 0; c < cols; c++)
            to[c] = (accumulate ? to[c] : 0) + factor * sums[c * TILE_KEYS + j];
}

/* One tile of keys against all queries of image b. Columns of s beyond the last key hold garbage that nobody reads. */
static void backward_tile(const backward_plan *plan, float *work, int64_t b, int64_t tile, float *dq_share, bool first)
{
    const attention_args *a = plan->a;
    const int64_t j0 = tile * TILE_KEYS, keys = cpu_min64(TILE_KEYS, a->nk - j0), d = a->d, e = a->e;
    const int64_t dp = plan->dp, stride = tile_stride(a->nk), vectors = cpu_ceil_div(keys, CPU_LANES);
    const float *kt = plan->kt + (b * plan->tiles + tile) * d * stride;
    const float *vt = plan->vt ? plan->vt + (b * plan->tiles + tile) * e * stride : NULL;
    float *p = work, *ds = p + BLOCK_QUERIES * TILE_KEYS, *dvt = ds + BLOCK_QUERIES * TILE_KEYS,
          *dkt = dvt + TILE_KEYS * e;
    for (int64_t i0 = 0; i0 < a->nq; i0 += BLOCK_QUERIES) {
        const int64_t rows = cpu_min64(BLOCK_QUERIES, a->nq - i0), row0 = b * a->nq + i0;
        probabilities(plan, row0, rows, kt, vt, plan->safe[b * plan->blocks + i0 / BLOCK_QUERIES] != 0, p, ds, keys);
        tile_operands over_queries = {
            .a_row = 1, .b_row = TILE_KEYS, .c_row = TILE_KEYS, .depth = rows, .accumulate = i0 > 0};
        if (a->dv) {
            over_queries.a = (const float *)a->do_ + row0 * e;
            over_queries.a_depth = e;
            over_queries.b = p;
            over_queries.c = dvt;
            tile_product(&over_queries, e, vectors);
        }
        if (a->dk) {
            over_queries.a = (const float *)a->q + row0 * d;
            over_queries.a_depth = d;
            over_queries.b = ds;
            over_queries.c = dkt;
            tile_product(&over_queries, d, vectors);
        }
        if (!a->dq) continue;
        tile_operands over_keys = {
            .a = ds, .a_row = TILE_KEYS, .a_depth = 1, .c = dq_share + i0 * dp, .c_row = dp, .accumulate = !first};
        if (plan->k_rows) {
            over_keys.b = plan->k_rows + (b * a->nk + j0) * dp;
            over_keys.b_row = dp;
            over_keys.depth = keys;
            tile_product(&over_keys, rows, dp / CPU_LANES);
        } else {
            over_keys.b = kt;
            over_keys.b_row = stride;
            lane_product(&over_keys, rows, d, vectors);
        }
    }
    if (a->dv) store_turned((float *)a->dv + (b * a->nk + j0) * e, dvt, keys, e, 1, a->accumulate_v);
    if (a->dk) store_turned((float *)a->dk + (b * a->nk + j0) * d, dkt, keys, d, a->scale, a->accumulate_k);
}

static float *minus_row_products(sag_kernel_env *env, const float *x, const float *y, int64_t rows, int64_t cols)
{
    float *to = env->scratch(env, (size_t)rows * sizeof *to);
    if (!to) return NULL;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (rows * cols > SERIAL_WORK)
    for (int64_t r = 0; r < rows; r++) {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < cols; c++) sum += x[r * cols + c] * y[r * cols + c];
        to[r] = -sum;
    }
    return to;
}

static float *safe_blocks(sag_kernel_env *env, const attention_args *a, int64_t blocks)
{
    const float *longest = longest_keys(env, a);
    float *safe = env->scratch(env, (size_t)(a->batch * blocks) * sizeof *safe);
    if (!longest || !safe) return NULL;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->batch * a->nq * a->d > SERIAL_WORK)
    for (int64_t i = 0; i < a->batch * blocks; i++) {
        const int64_t i0 = i % blocks * BLOCK_QUERIES, rows = cpu_min64(BLOCK_QUERIES, a->nq - i0);
        safe[i] = scores_are_safe(a, i / blocks * a->nq + i0, rows, longest[i / blocks]) ? 1 : 0;
    }
    return safe;
}

static void add_shares(sag_kernel_env *env, const backward_plan *plan)
{
    const attention_args *a = plan->a;
    const int64_t rows = a->batch * a->nq, share = a->nq * plan->dp;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (rows * plan->dp > SERIAL_WORK)
    for (int64_t r = 0; r < rows; r++) {
        const float *from = plan->dq_share + r / a->nq * plan->chunks * share + r % a->nq * plan->dp;
        float *to = (float *)a->dq + r * a->d;
        for (int64_t c = 0; c < a->d; c++) {
            float sum = from[c];
            for (int64_t i = 1; i < plan->chunks; i++) sum += from[i * share + c];
            to[c] = (a->accumulate_q ? to[c] : 0) + plan->dq_factor * sum;
        }
    }
}

int CPU_ISA(attention_bwd)(sag_kernel_env *env, const attention_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (!a->dq && !a->dk && !a->dv) return SAG_KERNEL_OK;
    const bool scores = a->dq || a->dk, lanes = lanes_fit(a->d);
    backward_plan p = {.a = a,
                       .tiles = cpu_ceil_div(a->nk, TILE_KEYS),
                       .blocks = cpu_ceil_div(a->nq, BLOCK_QUERIES),
                       .dp = lanes ? a->d : tile_padded(a->d),
                       .dq_factor = lanes ? LN_2 : a->scale};
    const int64_t wanted = cpu_min64(cpu_ceil_div(WANTED_PIECES, a->batch), MAX_CHUNKS);
    p.tiles_per_chunk = cpu_ceil_div(p.tiles, cpu_min64(wanted, p.tiles));
    p.chunks = cpu_ceil_div(p.tiles, p.tiles_per_chunk);
    const int64_t items = a->batch * p.chunks, share = a->nq * p.dp;
    const int64_t work_size = 2 * BLOCK_QUERIES * TILE_KEYS + TILE_KEYS * (a->e + a->d);

    p.kt = pack_keys(env, a->k, a->batch, a->nk, a->d, a->scale * LOG2_E);
    p.safe = safe_blocks(env, a, p.blocks);
    p.minus_delta = minus_row_products(env, a->do_, a->o_saved, a->batch * a->nq, a->e);
    float *work = env->scratch(env, (size_t)(env->threads * work_size) * sizeof *work);
    if (!p.kt || !p.minus_delta || !p.safe || !work) return SAG_KERNEL_NO_MEMORY;
    if (scores && !(p.vt = pack_keys(env, a->v, a->batch, a->nk, a->e, 1))) return SAG_KERNEL_NO_MEMORY;
    if (a->dq) {
        if (!lanes && !(p.k_rows = pad_rows(env, a->k, a->batch * a->nk, a->d))) return SAG_KERNEL_NO_MEMORY;
        p.dq_share = env->scratch(env, (size_t)(items * share) * sizeof(float));
        if (!p.dq_share) return SAG_KERNEL_NO_MEMORY;
    }
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->batch * a->nq * a->nk > SERIAL_WORK)
    for (int64_t i = 0; i < items; i++) {
        const int64_t b = i / p.chunks, first = i % p.chunks * p.tiles_per_chunk;
        const int64_t last = cpu_min64(first + p.tiles_per_chunk, p.tiles);
        for (int64_t tile = first; tile < last; tile++)
            backward_tile(&p, work + omp_get_thread_num() * work_size, b, tile,
                          p.dq_share ? p.dq_share + i * share : NULL, tile == first);
    }
    if (a->dq) add_shares(env, &p);
    return SAG_KERNEL_OK;
}
