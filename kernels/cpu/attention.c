/*
 * attention.c - o_i = sum_j p_ij v_j, p_i = softmax_j(scale q_i . k_j), without the map p ever being in memory.
 *
 * Forward (online softmax): a block of queries meets the keys tile by tile, keeps the running maximum m and sum l of
 * each row, and rescales what it has when m grows. Saved: o and lse_i = m_i + log l_i.
 * Backward recomputes p_ij = exp(s_ij - lse_i) tile by tile. With delta_i = do_i . o_i and dp_ij = do_i . v_j:
 *   ds_ij = p_ij (dp_ij - delta_i);  dv_j = sum_i p_ij do_i;  dk_j = scale sum_i ds_ij q_i;  dq_i = scale sum_j ds_ij
 * k_j. A piece of work owns a chunk of keys, so dk and dv are its own; its share of dq goes to a buffer of its own and
 * the few shares are added in order. Pieces depend on the shapes only: the bits do not depend on the number of threads.
 * Memory beside the tensors: copies of k and v in tiles and at most 8 shares of dq, all O(N).
 * (Dao et al. 2022, FlashAttention; Rabe & Staats 2021.)
 */
#include "kernels/cpu/attention_tiles.h"

#define MAX_CHUNKS 8
#define WANTED_PIECES 32 /* enough for the cores of one machine */

/*
 * exp(x) for x that is not above 1 or so, as a softmax needs it: half the work of cpu_exp, since 2^n is one factor and
 * what is below 2^-125 is 0. The sum x / ln 2 + 1.5 * 2^23 + 127 leaves the exponent field of 2^n in its low bits. NaN
 * stays. The polynomial is minimax in relative error, 3e-9; the result is within 1.5 ulp.
 */
static inline cpu_vec exp_below(cpu_vec x)
{
    const cpu_vec t = x * 1.44269504f + 12583039.0f, whole = t - 12583039.0f;
    cpu_vec r = x - whole * 0.693359375f; /* ln 2 in two parts; the first product is exact */
    r = r + whole * 2.12194440e-4f;
    cpu_vec p = r * 1.38145406e-3f + 8.36874545e-3f;
    p = p * r + 4.16683890e-2f;
    p = p * r + 0.166665211f;
    p = p * r + 0.49999994f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const cpu_vec power = (cpu_vec)((cpu_uvec)t << 23);
    return cpu_select(x < -87.0f, (cpu_vec){0}, p * power);
}

/* The rows of x with zeros up to whole vectors; x itself where nothing is missing. */
static const float *pad_rows(sag_kernel_env *env, const float *x, int64_t rows, int64_t cols)
{
    const int64_t padded = tile_padded(cols);
    if (padded == cols) return x;
    float *to = env->scratch(env, (size_t)(rows * padded) * sizeof *to);
    if (!to) return NULL;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (rows * padded > SERIAL_WORK)
    for (int64_t r = 0; r < rows; r++) {
        memcpy(to + r * padded, x + r * cols, (size_t)cols * sizeof *to);
        memset(to + r * padded + cols, 0, (size_t)(padded - cols) * sizeof *to);
    }
    return to;
}

/* Turns a tile of scores into exp(s - m) and moves the running m, l and unnormalised o of each row. */
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
            const float shrink = cpu_exp1(m[r] - tile_max);
            m[r] = tile_max;
            l[r] *= shrink;
            for (int64_t e = 0; e < o_row; e += CPU_LANES) cpu_store(o + e, cpu_load(o + e) * cpu_splat(shrink));
        }
        const cpu_vec shift = cpu_splat(m[r]);
        cpu_vec sum = {0};
        for (int64_t v = 0; v < vectors; v++) {
            const cpu_vec p = exp_below(cpu_load(s + v * CPU_LANES) - shift);
            cpu_store(s + v * CPU_LANES, p);
            sum += p;
        }
        l[r] += cpu_lane_sum(sum);
    }
}

static void forward_block(const attention_args *a, const float *kt, const float *v, float *work, int64_t b, int64_t i0)
{
    const int64_t rows = cpu_min64(BLOCK_QUERIES, a->nq - i0), ep = tile_padded(a->e), stride = tile_stride(a->nk);
    const float *q = (const float *)a->q + (b * a->nq + i0) * a->d;
    float *s = work, *sum_o = s + BLOCK_QUERIES * TILE_KEYS, *m = sum_o + BLOCK_QUERIES * ep, *l = m + BLOCK_QUERIES;
    for (int64_t j0 = 0; j0 < a->nk; j0 += TILE_KEYS) {
        const int64_t keys = cpu_min64(TILE_KEYS, a->nk - j0);
        const int64_t vectors = score_tile(s, q, kt + j0 * a->d, stride, rows, keys, a->d);
        online_softmax(s, rows, keys, vectors, m, l, sum_o, ep, j0 == 0);
        tile_product(&(tile_operands){.a = s,
                                      .a_row = TILE_KEYS,
                                      .a_depth = 1,
                                      .b = v + j0 * ep,
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
        if (a->lse) a->lse[b * a->nq + i0 + r] = m[r] + cpu_log1(l[r]);
    }
}

static int cpu_attention_fwd(sag_kernel_env *env, const attention_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    const int64_t ep = tile_padded(a->e), blocks = cpu_ceil_div(a->nq, BLOCK_QUERIES), items = a->batch * blocks;
    const int64_t tiles = cpu_ceil_div(a->nk, TILE_KEYS);
    const int64_t work_size = BLOCK_QUERIES * (TILE_KEYS + ep + 2);
    const float *kt = pack_keys(env, a->k, a->batch, a->nk, a->d, a->scale);
    const float *v = pad_rows(env, a->v, a->batch * a->nk, a->e);
    float *work = env->scratch(env, (size_t)(env->threads * work_size) * sizeof *work);
    if (!kt || !v || !work) return SAG_KERNEL_NO_MEMORY;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->batch * a->nq * a->nk > SERIAL_WORK)
    for (int64_t i = 0; i < items; i++) {
        const int64_t b = i / blocks;
        forward_block(a, kt + b * tiles * tile_stride(a->nk) * a->d, v + b * a->nk * ep,
                      work + omp_get_thread_num() * work_size, b, i % blocks * BLOCK_QUERIES);
    }
    return SAG_KERNEL_OK;
}

/* What all pieces of a backward pass read, and the shares of dq {batch, chunks, nq, dp}. */
typedef struct backward_plan {
    const attention_args *a;
    const float *kt, *vt;      /* tiles turned round; kt carries the scale */
    const float *k_rows, *dor; /* rows of whole vectors */
    const float *delta;
    float *dq_share;
    int64_t tiles, chunks, tiles_per_chunk, dp, ep;
} backward_plan;

/* s becomes p; dp becomes ds. */
static void backward_softmax(float *s, float *dp, const float *lse, const float *delta, int64_t rows, int64_t vectors)
{
    for (int64_t r = 0; r < rows; r++, s += TILE_KEYS) {
        const cpu_vec shift = cpu_splat(lse[r]), mean = cpu_splat(delta[r]);
        for (int64_t v = 0; v < vectors; v++) {
            const cpu_vec p = exp_below(cpu_load(s + v * CPU_LANES) - shift);
            cpu_store(s + v * CPU_LANES, p);
            if (dp) {
                float *at = dp + r * TILE_KEYS + v * CPU_LANES;
                cpu_store(at, p * (cpu_load(at) - mean));
            }
        }
    }
}

/* One tile of keys against all queries of image b. Columns of s beyond the last key hold garbage that nobody reads. */
static void backward_tile(const backward_plan *plan, float *work, int64_t b, int64_t tile, float *dq_share, bool first)
{
    const attention_args *a = plan->a;
    const int64_t j0 = tile * TILE_KEYS, keys = cpu_min64(TILE_KEYS, a->nk - j0), d = a->d, e = a->e;
    const int64_t dp = plan->dp, ep = plan->ep, stride = tile_stride(a->nk);
    const float *kt = plan->kt + (b * plan->tiles + tile) * d * stride;
    const float *vt = plan->vt ? plan->vt + (b * plan->tiles + tile) * e * stride : NULL;
    float *s = work, *ds = s + BLOCK_QUERIES * TILE_KEYS, *dv = ds + BLOCK_QUERIES * TILE_KEYS,
          *dkt = dv + TILE_KEYS * ep;
    for (int64_t i0 = 0; i0 < a->nq; i0 += BLOCK_QUERIES) {
        const int64_t rows = cpu_min64(BLOCK_QUERIES, a->nq - i0), row0 = b * a->nq + i0;
        const float *q = (const float *)a->q + row0 * d, *dout = (const float *)a->do_ + row0 * e;
        const int64_t vectors = score_tile(s, q, kt, stride, rows, keys, d);
        if (vt)
            tile_product(&(tile_operands){.a = dout,
                                          .a_row = e,
                                          .a_depth = 1,
                                          .b = vt,
                                          .b_row = stride,
                                          .c = ds,
                                          .c_row = TILE_KEYS,
                                          .depth = e},
                         rows, vectors);
        backward_softmax(s, vt ? ds : NULL, a->lse + row0, plan->delta + row0, rows, vectors);
        if (a->dv)
            tile_product(&(tile_operands){.a = s,
                                          .a_row = 1,
                                          .a_depth = TILE_KEYS,
                                          .b = plan->dor + row0 * ep,
                                          .b_row = ep,
                                          .c = dv,
                                          .c_row = ep,
                                          .depth = rows,
                                          .accumulate = i0 > 0},
                         keys, ep / CPU_LANES);
        if (a->dk)
            tile_product(&(tile_operands){.a = q,
                                          .a_row = 1,
                                          .a_depth = d,
                                          .b = ds,
                                          .b_row = TILE_KEYS,
                                          .c = dkt,
                                          .c_row = TILE_KEYS,
                                          .depth = rows,
                                          .accumulate = i0 > 0},
                         d, vectors);
        if (a->dq)
            tile_product(&(tile_operands){.a = ds,
                                          .a_row = TILE_KEYS,
                                          .a_depth = 1,
                                          .b = plan->k_rows + (b * a->nk + j0) * dp,
                                          .b_row = dp,
                                          .c = dq_share + i0 * dp,
                                          .c_row = dp,
                                          .depth = keys,
                                          .accumulate = !first},
                         rows, dp / CPU_LANES);
    }
    for (int64_t j = 0; j < keys; j++) {
        if (a->dv) {
            float *to = (float *)a->dv + (b * a->nk + j0 + j) * e;
            for (int64_t c = 0; c < e; c++) to[c] = (a->accumulate_v ? to[c] : 0) + dv[j * ep + c];
        }
        if (a->dk) {
            float *to = (float *)a->dk + (b * a->nk + j0 + j) * d;
            for (int64_t c = 0; c < d; c++) to[c] = (a->accumulate_k ? to[c] : 0) + a->scale * dkt[c * TILE_KEYS + j];
        }
    }
}

static float *row_products(sag_kernel_env *env, const float *x, const float *y, int64_t rows, int64_t cols)
{
    float *to = env->scratch(env, (size_t)rows * sizeof *to);
    if (!to) return NULL;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (rows * cols > SERIAL_WORK)
    for (int64_t r = 0; r < rows; r++) {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < cols; c++) sum += x[r * cols + c] * y[r * cols + c];
        to[r] = sum;
    }
    return to;
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
            to[c] = (a->accumulate_q ? to[c] : 0) + a->scale * sum;
        }
    }
}

static int cpu_attention_bwd(sag_kernel_env *env, const attention_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (!a->dq && !a->dk && !a->dv) return SAG_KERNEL_OK;
    const bool scores = a->dq || a->dk;
    backward_plan p = {
        .a = a, .tiles = cpu_ceil_div(a->nk, TILE_KEYS), .dp = tile_padded(a->d), .ep = tile_padded(a->e)};
    const int64_t wanted = cpu_min64(cpu_ceil_div(WANTED_PIECES, a->batch), MAX_CHUNKS);
    p.tiles_per_chunk = cpu_ceil_div(p.tiles, cpu_min64(wanted, p.tiles));
    p.chunks = cpu_ceil_div(p.tiles, p.tiles_per_chunk);
    const int64_t items = a->batch * p.chunks, share = a->nq * p.dp;
    const int64_t work_size = 2 * BLOCK_QUERIES * TILE_KEYS + TILE_KEYS * (p.ep + a->d);

    p.kt = pack_keys(env, a->k, a->batch, a->nk, a->d, a->scale);
    p.delta = row_products(env, a->do_, a->o_saved, a->batch * a->nq, a->e);
    float *work = env->scratch(env, (size_t)(env->threads * work_size) * sizeof *work);
    if (!p.kt || !p.delta || !work) return SAG_KERNEL_NO_MEMORY;
    if (scores && !(p.vt = pack_keys(env, a->v, a->batch, a->nk, a->e, 1))) return SAG_KERNEL_NO_MEMORY;
    if (a->dv && !(p.dor = pad_rows(env, a->do_, a->batch * a->nq, a->e))) return SAG_KERNEL_NO_MEMORY;
    if (a->dq) {
        p.k_rows = pad_rows(env, a->k, a->batch * a->nk, a->d);
        p.dq_share = env->scratch(env, (size_t)(items * share) * sizeof(float));
        if (!p.k_rows || !p.dq_share) return SAG_KERNEL_NO_MEMORY;
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

void CPU_REGISTER(attention)(sag_kernel_table *t)
{
    t->attention_fwd = cpu_attention_fwd;
    t->attention_bwd = cpu_attention_bwd;
    t->attention_map = CPU_ISA(attention_map);
    t->attention_stats = CPU_ISA(attention_stats);
}
