/* spectral_plan.c - see spectral_plan.h. */
#include "kernels/cpu/spectral_plan.h"

#define TILE_ELEMENTS 32768
#define TILE_MIN_ROWS 32
#define SERIAL_ELEMENTS 200000 /* below, the barriers cost more than a second core saves */
#define RUN_ELEMENTS 1000000   /* 4 MB: half in one core's cache, the rest in its part of the shared one */
#define RUN_TILES 4            /* each thread's at least */

static bool inside(int64_t offset, int64_t count, int64_t n)
{
    return offset >= 0 && count >= 1 && offset <= n && count <= n - offset;
}

static void add_layer(sn_run *run, const sn_layer *l, int64_t *elements)
{
    run->layers++;
    run->tiles += l->n_tiles;
    *elements += l->rows * l->cols;
    run->threaded = *elements > SERIAL_ELEMENTS;
}

static void cut_runs(const sag_kernel_env *env, sn_plan *p)
{
    const int64_t most = (int64_t)env->threads * RUN_TILES * TILE_ELEMENTS;
    int64_t all = 0, elements = 0;
    for (int64_t i = 0; i < p->a->n_layers; i++) {
        const sn_layer *l = &p->layers[i];
        if (i == 0 || elements + l->rows * l->cols > (most > RUN_ELEMENTS ? most : RUN_ELEMENTS)) {
            p->runs[p->n_runs++] = (sn_run){.layer = i, .tile = l->first_tile};
            elements = 0;
        }
        add_layer(&p->runs[p->n_runs - 1], l, &elements);
        add_layer(&p->all, l, &all);
    }
}

int CPU_ISA(spectral_plan)(sag_kernel_env *env, const spectral_norm_args *a, sn_plan *p)
{
    const int64_t count = a->n_layers;
    *p = (sn_plan){.a = a};
    p->layers = env->scratch(env, (size_t)count * sizeof *p->layers);
    int32_t *order = env->scratch(env, (size_t)count * sizeof *order);
    if (!p->layers || !order) return SAG_KERNEL_NO_MEMORY;
    for (int64_t i = 0; i < count; i++) {
        const int32_t *t = a->layers + 5 * i;
        sn_layer *l = &p->layers[i];
        *l = (sn_layer){.w = a->w + t[0], .offset = t[0], .rows = t[1], .cols = t[2], .u = t[3], .v = t[4]};
        if (l->rows < 1 || l->cols < 1 || l->rows > a->n || !inside(l->offset, l->rows * l->cols, a->n) ||
            !inside(l->u, l->rows, a->n_u) || !inside(l->v, l->cols, a->n_v))
            return SAG_KERNEL_BAD_INDEX;
        const int64_t fit = TILE_ELEMENTS / l->cols;
        l->tile_rows = fit > TILE_MIN_ROWS ? fit : TILE_MIN_ROWS;
        l->n_tiles = cpu_ceil_div(l->rows, l->tile_rows);
        l->first_tile = p->n_tiles;
        l->partial = p->n_partial;
        p->n_tiles += l->n_tiles;
        p->n_partial += l->n_tiles * l->cols;
        int64_t j = i;
        for (; j > 0 && p->layers[order[j - 1]].offset > l->offset; j--) order[j] = order[j - 1];
        order[j] = (int32_t)i;
    }
    int64_t end = 0;
    for (int64_t i = 0; i < count; i++) {
        const sn_layer *l = &p->layers[order[i]];
        if (l->offset < end) return SAG_KERNEL_BAD_INDEX;
        end = l->offset + l->rows * l->cols;
    }
    p->tiles = env->scratch(env, (size_t)p->n_tiles * sizeof *p->tiles);
    p->partial = env->scratch(env, (size_t)p->n_partial * sizeof *p->partial);
    p->runs = env->scratch(env, (size_t)count * sizeof *p->runs);
    if (!p->tiles || !p->partial || !p->runs) return SAG_KERNEL_NO_MEMORY;
    cut_runs(env, p);
    for (int64_t i = 0; i < count; i++) {
        const sn_layer *l = &p->layers[i];
        for (int64_t k = 0; k < l->n_tiles; k++) {
            const int64_t row = k * l->tile_rows;
            p->tiles[l->first_tile + k] = (sn_tile){.layer = (int32_t)i,
                                                    .row = row,
                                                    .rows = cpu_min64(l->tile_rows, l->rows - row),
                                                    .partial = l->partial + k * l->cols};
        }
    }
    return SAG_KERNEL_OK;
}

/* ---------------------------------------------------------------------------------------- products */

/* to[c] = sum_r u[r] w[r][c], four rows at a time so that `to` is loaded and stored once for four. */
static void tile_transposed(float *restrict to, const float *restrict w, const float *restrict u, int64_t rows,
                            int64_t cols)
{
    memset(to, 0, (size_t)cols * sizeof *to);
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        const float *w0 = w + r * cols, *w1 = w0 + cols, *w2 = w1 + cols, *w3 = w2 + cols;
        const float u0 = u[r], u1 = u[r + 1], u2 = u[r + 2], u3 = u[r + 3];
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) to[c] += (u0 * w0[c] + u1 * w1[c]) + (u2 * w2[c] + u3 * w3[c]);
    }
    for (; r < rows; r++) {
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) to[c] += u[r] * w[r * cols + c];
    }
}

/* to[r] = sum_c w[r][c] v[c] */
static void tile_rows_dot(float *restrict to, const float *restrict w, const float *restrict v, int64_t rows,
                          int64_t cols)
{
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        const float *w0 = w + r * cols, *w1 = w0 + cols, *w2 = w1 + cols, *w3 = w2 + cols;
        float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
        for (int64_t c = 0; c < cols; c++) {
            s0 += w0[c] * v[c];
            s1 += w1[c] * v[c];
            s2 += w2[c] * v[c];
            s3 += w3[c] * v[c];
        }
        to[r] = s0;
        to[r + 1] = s1;
        to[r + 2] = s2;
        to[r + 3] = s3;
    }
    for (; r < rows; r++) {
        float s = 0;
#pragma omp simd reduction(+ : s)
        for (int64_t c = 0; c < cols; c++) s += w[r * cols + c] * v[c];
        to[r] = s;
    }
}

void CPU_ISA(spectral_product_t)(sag_kernel_env *env, const sn_plan *p, const sn_run *run, float *to, const float *u)
{
#pragma omp parallel num_threads(env->threads) if (run->threaded)
    {
        const cpu_share own = cpu_share_of(run->tiles);
        for (int64_t i = own.first; i < own.end; i++) {
            const sn_tile *t = &p->tiles[run->tile + i];
            const sn_layer *l = &p->layers[t->layer];
            tile_transposed(p->partial + t->partial, l->w + t->row * l->cols, u + l->u + t->row, t->rows, l->cols);
        }
    }
#pragma omp parallel for num_threads(env->threads) schedule(static, 1) if (run->threaded && run->layers > 1)
    for (int64_t i = run->layer; i < run->layer + run->layers; i++) {
        const sn_layer *l = &p->layers[i];
        float *restrict sum = to + l->v;
        memcpy(sum, p->partial + l->partial, (size_t)l->cols * sizeof *sum);
        for (int64_t k = 1; k < l->n_tiles; k++) {
            const float *part = p->partial + l->partial + k * l->cols;
#pragma omp simd
            for (int64_t c = 0; c < l->cols; c++) sum[c] += part[c];
        }
    }
}

void CPU_ISA(spectral_product)(sag_kernel_env *env, const sn_plan *p, const sn_run *run, float *to, const float *v)
{
#pragma omp parallel num_threads(env->threads) if (run->threaded)
    {
        const cpu_share own = cpu_share_of(run->tiles);
        for (int64_t i = own.end - 1; i >= own.first; i--) {
            const sn_tile *t = &p->tiles[run->tile + i];
            const sn_layer *l = &p->layers[t->layer];
            tile_rows_dot(to + l->u + t->row, l->w + t->row * l->cols, v + l->v, t->rows, l->cols);
        }
    }
}
