/*
 * norm.c - batch normalisation, plain and class-conditional, with an optional ReLU (batch_norm_args).
 *
 *   y = f((x - mean) * rstd * g + b),  g = gain + gain_offset (1 without gain), rstd = 1 / sqrt(var + eps)
 *
 * Statistics are taken over all rows, whatever their images. Each piece sums d = x - p and d^2 about a pivot p near its
 * own mean, in f32; the pieces are combined in f64 (Chan, Golub, LeVeque), so a large mean costs no digits. Reads x
 * twice and writes y; the second pass runs backwards, over what the first left in the caches.
 */
#include "kernels/cpu/norm_lines.h"

/* ------------------------------------------------------------------------------------------- statistics */

#define PIVOT_ROWS 4

static void fold(double *sums, const float *line, const cpu_part *q)
{
    for (int64_t c = 0; c < q->cols; c++) sums[c] = 0.0;
    for (int64_t j = 0; j < q->width; j += q->cols) {
        for (int64_t c = 0; c < q->cols; c++) sums[c] += (double)line[j + c];
    }
}

/* mean and sum (x - mean)^2 of a piece: mean = p + s1 / n, squares = s2 - s1^2 / n. */
static void piece_moments(const float *x, const cpu_part *whole, int64_t row, double *mean, double *squares)
{
    float pivot[CPU_WIDE], s1[CPU_WIDE] = {0}, s2[CPU_WIDE] = {0}, few[CPU_WIDE] = {0};
    cpu_part own = *whole;
    const bool side = side_by_side(&own);
    const cpu_part *q = &own;
    int64_t rows = cpu_min64(PIVOT_ROWS, q->rows);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < q->cols; c++) few[c] += x[r * row + c];
    }
    for (int64_t c = 0; c < q->cols; c++) few[c] /= (float)rows;
    cpu_repeat(pivot, few, q->cols, q->width);
#define BODY(i, j, n)                                                                                                  \
    do {                                                                                                               \
        cpu_vec d = cpu_load_part(x + (i), n) - cpu_load_part(pivot + (j), n);                                                           \
        cpu_store_part(s1 + (j), cpu_load_part(s1 + (j), n) + d, n);                                                                     \
        cpu_store_part(s2 + (j), cpu_load_part(s2 + (j), n) + d * d, n);                                                                 \
    } while (0)
    for (int64_t first = 0; side && first < q->lines; first += SIDE_LINES) {
        cpu_vec sum[SIDE] = {0}, square[SIDE] = {0};
        for (int64_t l = first; l < cpu_min64(first + SIDE_LINES, q->lines); l++)
            for (int k = 0; k < SIDE; k++) {
                cpu_vec d = cpu_load(x + l * SIDE_WIDTH + k * CPU_LANES) - cpu_load(pivot + k * CPU_LANES);
                sum[k] += d;
                square[k] += d * d;
            }
        for (int k = 0; k < SIDE; k++) {
            cpu_store(s1 + k * CPU_LANES, cpu_load(s1 + k * CPU_LANES) + sum[k]);
            cpu_store(s2 + k * CPU_LANES, cpu_load(s2 + k * CPU_LANES) + square[k]);
        }
    }
    FOR_VECTORS_FROM(q, side ? q->lines : 0, BODY)
#undef BODY
    fold(mean, s1, q);
    fold(squares, s2, q);
    for (int64_t c = 0; c < q->cols; c++) {
        double m = mean[c] / (double)q->rows;
        squares[c] -= mean[c] * m;
        mean[c] = (double)few[c] + m;
    }
}

/* sum n_i mean_i / M, then sum (squares_i + n_i (mean_i - mean)^2); moves the running statistics. */
static void finish_moments(sag_kernel_env *env, const batch_norm_args *a, const grid *g, const double *mean,
                           const double *squares)
{
    double rows = (double)(a->n * a->spatial), unbiased = rows > 1.0 ? 1.0 / (rows - 1.0) : 1.0;
    double momentum = (double)a->momentum;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (g->parts * a->c > CPU_SMALL)
    for (int64_t c0 = 0; c0 < a->c; c0 += CHANNELS) {
        int64_t n = cpu_min64(CHANNELS, a->c - c0);
        double total[CHANNELS] = {0}, spread[CHANNELS] = {0};
        for (int64_t part = 0; part < g->parts; part++) {
            double count = (double)cpu_panel_part(&g->p, part, 0).rows;
            const double *m = mean + part * a->c + c0;
            for (int64_t j = 0; j < n; j++) total[j] += count * m[j];
        }
        for (int64_t j = 0; j < n; j++) total[j] /= rows;
        for (int64_t part = 0; part < g->parts; part++) {
            double count = (double)cpu_panel_part(&g->p, part, 0).rows;
            const double *m = mean + part * a->c + c0, *s = squares + part * a->c + c0;
            for (int64_t j = 0; j < n; j++) spread[j] += s[j] + count * (m[j] - total[j]) * (m[j] - total[j]);
        }
        for (int64_t j = 0; j < n; j++) {
            a->mean[c0 + j] = (float)total[j];
            a->rstd[c0 + j] = (float)(1.0 / sqrt(spread[j] / rows + (double)a->eps));
            if (a->running_mean) {
                double r = (double)a->running_mean[c0 + j];
                a->running_mean[c0 + j] = (float)(r + momentum * (total[j] - r));
            }
            if (a->running_var) {
                double r = (double)a->running_var[c0 + j];
                a->running_var[c0 + j] = (float)(r + momentum * (spread[j] * unbiased - r));
            }
        }
    }
}

static int batch_moments(sag_kernel_env *env, const batch_norm_args *a)
{
    grid g = grid_of(1, a->n * a->spatial, a->c);
    size_t table = (size_t)(g.parts * a->c) * sizeof(double);
    double *mean = env->scratch(env, table), *squares = env->scratch(env, table);
    if (!mean || !squares) return SAG_KERNEL_NO_MEMORY;
#pragma omp parallel num_threads(env->threads) if (g.image > CPU_SMALL)
    {
        cpu_share own = cpu_share_of(g.pieces);
        for (int64_t piece = own.first; piece < own.end; piece++) {
            place w = place_of(&g, piece);
            int64_t to = w.part * a->c + w.q.column;
            piece_moments((const float *)a->x + w.at, &w.q, a->c, mean + to, squares + to);
        }
    }
    finish_moments(env, a, &g, mean, squares);
    return SAG_KERNEL_OK;
}

/* --------------------------------------------------------------------------------------------- forward */

CPU_INLINE void piece_normalise(const batch_norm_args *a, const place *w, const lines *t, bool relu)
{
    const cpu_part *q = &w->q;
    const float *x = (const float *)a->x + w->at;
    float *y = (float *)a->y + w->at;
#define BODY(i, j, n)                                                                                                  \
    do {                                                                                                               \
        cpu_vec v =                                                                                                    \
            affine(cpu_load_part(x + (i), n) - cpu_load_part(t->mean + (j), n), cpu_load_part(t->factor + (j), n), cpu_load_part(t->bias + (j), n));       \
        cpu_store_part(y + (i), relu ? cpu_select(v < 0.0f, (cpu_vec){0}, v) : v, n);                                           \
    } while (0)
    FOR_VECTORS(q, BODY)
#undef BODY
}

static int cpu_batch_norm_fwd(sag_kernel_env *env, const batch_norm_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (!labels_fit(a)) return SAG_KERNEL_BAD_INDEX;
    if (a->train && !a->resumed) {
        int rc = batch_moments(env, a);
        if (rc != SAG_KERNEL_OK) return rc;
    } else if (!a->resumed) {
        for (int64_t c = 0; c < a->c; c++) {
            a->mean[c] = a->running_mean[c];
            a->rstd[c] = (float)(1.0 / sqrt((double)a->running_var[c] + (double)a->eps));
        }
    }
    grid g = grid_of(a->n, a->spatial, a->c);
#pragma omp parallel num_threads(env->threads) if (a->n * g.image > CPU_SMALL)
    {
        lines t;
        cpu_share own = cpu_share_of(g.pieces);
        for (int64_t piece = own.end - 1; piece >= own.first; piece--) {
            place w = place_of(&g, piece);
            lines_of(&t, a, &w);
            if (a->relu)
                piece_normalise(a, &w, &t, true);
            else
                piece_normalise(a, &w, &t, false);
        }
    }
    return SAG_KERNEL_OK;
}

void CPU_REGISTER(norm)(sag_kernel_table *t)
{
    t->batch_norm_fwd = cpu_batch_norm_fwd;
    t->batch_norm_bwd = CPU_ISA(batch_norm_bwd);
}
