/*
 * attention_view.c - ways to look at attention: rows of the map for chosen queries, and what describes the whole map in
 * two numbers. The map as a whole is never in memory.
 */
#include "kernels/cpu/attention_tiles.h"

/* One row of the map each for the chosen queries: p {B,M,NK}. */
int CPU_ISA(attention_map)(sag_kernel_env *env, const attention_map_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    for (int64_t i = 0; i < a->m; i++)
        if (a->queries[i] < 0 || a->queries[i] >= a->nq) return SAG_KERNEL_BAD_INDEX;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->batch * a->m * a->nk > SERIAL_WORK)
    for (int64_t i = 0; i < a->batch * a->m; i++) {
        const int64_t b = i / a->m;
        const float *q = (const float *)a->q + (b * a->nq + a->queries[i % a->m]) * a->d;
        const float *k = (const float *)a->k + b * a->nk * a->d;
        float *p = a->p + i * a->nk, top = -INFINITY, sum = 0;
        for (int64_t j = 0; j < a->nk; j++) {
            float s = 0;
#pragma omp simd reduction(+ : s)
            for (int64_t c = 0; c < a->d; c++) s += q[c] * k[j * a->d + c];
            p[j] = a->scale * s;
            top = p[j] > top ? p[j] : top;
        }
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < a->nk; j++) {
            p[j] = cpu_exp1(p[j] - top);
            sum += p[j];
        }
        const float inverse = 1.0f / sum;
        for (int64_t j = 0; j < a->nk; j++) p[j] *= inverse;
    }
    return SAG_KERNEL_OK;
}

/*
 * One row of a tile of scores into the running sums of its query: l = sum exp(s - m), t = sum exp(s - m) (s - m),
 * w = sum exp(s - m) distance. Then entropy = log l - t / l, mean distance = w / l.
 */
typedef struct stats_row {
    float m, l, t, w;
} stats_row;

static void stats_add(stats_row *row, const float *s, int64_t keys, const float *key_x, const float *key_y, float x,
                      float y, bool first)
{
    float top = s[0], l = 0, t = 0, w = 0;
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < keys; j++) top = s[j] > top ? s[j] : top;
    if (first) {
        *row = (stats_row){.m = top};
    } else if (top > row->m) {
        const float shrink = cpu_exp1(row->m - top);
        row->t = shrink > 0 ? shrink * (row->t + row->l * (row->m - top)) : 0;
        row->l *= shrink;
        row->w *= shrink;
        row->m = top;
    }
    const float m = row->m;
#pragma omp simd reduction(+ : l, t, w)
    for (int64_t j = 0; j < keys; j++) {
        const float p = cpu_exp1(s[j] - m), dx = key_x[j] - x, dy = key_y[j] - y;
        l += p;
        t += p * (s[j] - m);
        w += p * sqrtf(dx * dx + dy * dy);
    }
    row->l += l;
    row->t += t;
    row->w += w;
}

/* Positions are the centres of cells in units of a query cell; the keys' grid covers the same square. */
int CPU_ISA(attention_stats)(sag_kernel_env *env, const attention_map_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    const int64_t tiles = cpu_ceil_div(a->nk, TILE_KEYS), blocks = cpu_ceil_div(a->nq, BLOCK_QUERIES);
    const int64_t items = a->batch * blocks, work_size = BLOCK_QUERIES * TILE_KEYS, stride = tile_stride(a->nk);
    const double ratio = sqrt((double)a->nk / (double)a->nq);
    const int64_t key_width = (int64_t)lround((double)a->width * ratio);
    const float *kt = pack_keys(env, a->k, a->batch, a->nk, a->d, a->scale);
    float *position = env->scratch(env, (size_t)(2 * a->nk) * sizeof *position);
    float *work = env->scratch(env, (size_t)(env->threads * work_size) * sizeof *work);
    double *sums = env->scratch(env, (size_t)(2 * items) * sizeof *sums);
    if (!kt || !position || !work || !sums) return SAG_KERNEL_NO_MEMORY;
    for (int64_t j = 0; j < a->nk; j++) {
        position[j] = (float)(((double)(j % key_width) + 0.5) / ratio);
        position[a->nk + j] = (float)(((double)(j / key_width) + 0.5) / ratio);
    }
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->batch * a->nq * a->nk > SERIAL_WORK)
    for (int64_t i = 0; i < items; i++) {
        const int64_t b = i / blocks, i0 = i % blocks * BLOCK_QUERIES, rows = cpu_min64(BLOCK_QUERIES, a->nq - i0);
        const float *q = (const float *)a->q + (b * a->nq + i0) * a->d;
        float *s = work + omp_get_thread_num() * work_size;
        stats_row row[BLOCK_QUERIES];
        for (int64_t tile = 0; tile < tiles; tile++) {
            const int64_t j0 = tile * TILE_KEYS, keys = cpu_min64(TILE_KEYS, a->nk - j0);
            score_tile(s, q, kt + (b * tiles + tile) * a->d * stride, stride, rows, keys, a->d);
            for (int64_t r = 0; r < rows; r++)
                stats_add(&row[r], s + r * TILE_KEYS, keys, position + j0, position + a->nk + j0,
                          (float)((i0 + r) % a->width) + 0.5f, (float)((i0 + r) / a->width) + 0.5f, tile == 0);
        }
        sums[2 * i] = sums[2 * i + 1] = 0;
        for (int64_t r = 0; r < rows; r++) {
            sums[2 * i] += (double)(cpu_log1(row[r].l) - row[r].t / row[r].l);
            sums[2 * i + 1] += (double)(row[r].w / row[r].l);
        }
    }
    double entropy = 0, distance = 0;
    for (int64_t i = 0; i < items; i++) {
        entropy += sums[2 * i];
        distance += sums[2 * i + 1];
    }
    a->stats[0] = (float)(entropy / (double)(a->batch * a->nq));
    a->stats[1] = (float)(distance / (double)(a->batch * a->nq));
    return SAG_KERNEL_OK;
}
