/*
 * norm.c - batch normalisation, plain and class-conditional, with an optional ReLU (batch_norm_args).
 *
 *   y = f((x - mean) * rstd * g + b),  g = gain + gain_offset (1 without gain), rstd = 1 / sqrt(var + eps)
 * With d = dy, masked by y > 0 if f is the ReLU, M rows, and sums over them per channel:
 *   dbias = sum d,  dgain = sum d (x - mean) rstd
 *   dx = rstd (g d - A / M - (x - mean) rstd B / M),  A = sum g d,  B = sum g d (x - mean) rstd    (train)
 *   dx = rstd g d                                                                                  (running statistics)
 *
 * x is {n, spatial, c}: images of `spatial` rows, so that every piece has one label. Statistics: each piece takes its own
 * mean and then the squares about it while it is in the cache, and the pieces are combined in f64 (Chan, Golub, LeVeque),
 * so a large mean costs no digits. Forward reads x twice and writes y once; backward reads x, dy (and y) twice.
 */
#include "kernels/cpu/columns.h"

typedef struct grid {
    cpu_panel p;
    int64_t pieces; /* of all images */
    int64_t parts;  /* blocks of all images: the rows of the tables of partial sums */
} grid;

static grid grid_of(const batch_norm_args *a)
{
    grid g = {.p = cpu_panel_of(a->spatial, a->c)};
    g.parts = a->n * g.p.blocks;
    g.pieces = g.parts * g.p.tiles;
    return g;
}

typedef struct place {
    cpu_part q;
    int64_t part, image, at; /* row in the tables; image; element of x */
} place;

static inline place place_of(const batch_norm_args *a, const grid *g, int64_t piece)
{
    place w = {.part = piece / g->p.tiles};
    w.image = w.part / g->p.blocks;
    w.q = cpu_panel_part(&g->p, w.part % g->p.blocks, piece % g->p.tiles);
    w.at = w.image * a->spatial * a->c + w.q.first;
    return w;
}

static bool labels_fit(const batch_norm_args *a)
{
    if (!a->labels) return true;
    for (int64_t i = 0; i < a->n; i++) {
        if (a->labels[i] < 0 || a->labels[i] >= a->classes) return false;
    }
    return true;
}

static inline const float *row_of(const batch_norm_args *a, const float *table, int64_t image)
{
    return table + (a->labels ? (int64_t)a->labels[image] * a->c : 0);
}

/* ------------------------------------------------------------------------------------------- statistics */

static void piece_moments(const float *x, const cpu_part *q, float *mean, float *squares)
{
    float line[CPU_WIDE], centre[CPU_WIDE];
    memset(line, 0, (size_t)q->width * sizeof *line);
    for (int64_t l = 0; l <= q->lines; l++) {
        const float *row = x + l * q->stride;
        int64_t n = cpu_part_line(q, l);
#pragma omp simd
        for (int64_t j = 0; j < n; j++) line[j] += row[j];
    }
    cpu_fold(mean, line, q->cols, q->width);
    for (int64_t j = 0; j < q->cols; j++) mean[j] /= (float)q->rows;
    cpu_repeat(centre, mean, q->cols, q->width);
    memset(line, 0, (size_t)q->width * sizeof *line);
    for (int64_t l = 0; l <= q->lines; l++) {
        const float *row = x + l * q->stride;
        int64_t n = cpu_part_line(q, l);
#pragma omp simd
        for (int64_t j = 0; j < n; j++) {
            float d = row[j] - centre[j];
            line[j] += d * d;
        }
    }
    cpu_fold(squares, line, q->cols, q->width);
}

#define CHANNELS 64 /* combined at a time by one thread */

/* sum n_i mean_i / M, then sum (squares_i + n_i (mean_i - mean)^2); moves the running statistics. */
static void finish_moments(sag_kernel_env *env, const batch_norm_args *a, const grid *g, const float *mean, const float *squares)
{
    double rows = (double)(a->n * a->spatial), unbiased = rows > 1.0 ? 1.0 / (rows - 1.0) : 1.0;
    double momentum = (double)a->momentum;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (g->parts * a->c > CPU_SMALL)
    for (int64_t c0 = 0; c0 < a->c; c0 += CHANNELS) {
        int64_t n = cpu_min64(CHANNELS, a->c - c0);
        double total[CHANNELS] = {0}, spread[CHANNELS] = {0};
        for (int64_t part = 0; part < g->parts; part++) {
            double count = (double)cpu_panel_part(&g->p, part % g->p.blocks, 0).rows;
            const float *m = mean + part * a->c + c0;
            for (int64_t j = 0; j < n; j++) total[j] += count * (double)m[j];
        }
        for (int64_t j = 0; j < n; j++) total[j] /= rows;
        for (int64_t part = 0; part < g->parts; part++) {
            double count = (double)cpu_panel_part(&g->p, part % g->p.blocks, 0).rows;
            const float *m = mean + part * a->c + c0, *s = squares + part * a->c + c0;
            for (int64_t j = 0; j < n; j++) {
                double d = (double)m[j] - total[j];
                spread[j] += (double)s[j] + count * d * d;
            }
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

static int batch_moments(sag_kernel_env *env, const batch_norm_args *a, const grid *g)
{
    size_t table = (size_t)(g->parts * a->c) * sizeof(float);
    float *mean = env->scratch(env, table), *squares = env->scratch(env, table);
    if (!mean || !squares) return SAG_KERNEL_NO_MEMORY;
    const float *x = a->x;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->n * a->spatial * a->c > CPU_SMALL)
    for (int64_t piece = 0; piece < g->pieces; piece++) {
        place w = place_of(a, g, piece);
        piece_moments(x + w.at, &w.q, mean + w.part * a->c + w.q.column, squares + w.part * a->c + w.q.column);
    }
    finish_moments(env, a, g, mean, squares);
    return SAG_KERNEL_OK;
}

/* --------------------------------------------------------------------------------------------- forward */

/* y = (x - mean) * factor + bias, with the channel values laid out as lines. */
static void piece_normalise(const batch_norm_args *a, const place *w)
{
    float mean[CPU_WIDE], factor[CPU_WIDE], bias[CPU_WIDE], few[CPU_WIDE];
    const cpu_part *q = &w->q;
    cpu_repeat(mean, a->mean + q->column, q->cols, q->width);
    const float *gain = a->gain ? row_of(a, a->gain, w->image) + q->column : NULL;
    for (int64_t j = 0; j < q->cols; j++) few[j] = a->rstd[q->column + j] * (gain ? gain[j] + a->gain_offset : 1.0f);
    cpu_repeat(factor, few, q->cols, q->width);
    if (a->bias) {
        cpu_repeat(bias, row_of(a, a->bias, w->image) + q->column, q->cols, q->width);
    } else {
        memset(bias, 0, (size_t)q->width * sizeof *bias);
    }
    const float *x = (const float *)a->x + w->at;
    float *y = (float *)a->y + w->at;
    for (int64_t l = 0; l <= q->lines; l++, x += q->stride, y += q->stride) {
        int64_t n = cpu_part_line(q, l);
        if (a->relu) {
#pragma omp simd
            for (int64_t j = 0; j < n; j++) {
                float v = (x[j] - mean[j]) * factor[j] + bias[j];
                y[j] = v < 0.0f ? 0.0f : v;
            }
        } else {
#pragma omp simd
            for (int64_t j = 0; j < n; j++) y[j] = (x[j] - mean[j]) * factor[j] + bias[j];
        }
    }
}

static int cpu_batch_norm_fwd(sag_kernel_env *env, const batch_norm_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (!labels_fit(a)) return SAG_KERNEL_BAD_INDEX;
    grid g = grid_of(a);
    if (a->train) {
        int rc = batch_moments(env, a, &g);
        if (rc != SAG_KERNEL_OK) return rc;
    } else {
        for (int64_t c = 0; c < a->c; c++) {
            a->mean[c] = a->running_mean[c];
            a->rstd[c] = (float)(1.0 / sqrt((double)a->running_var[c] + (double)a->eps));
        }
    }
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->n * a->spatial * a->c > CPU_SMALL)
    for (int64_t piece = 0; piece < g.pieces; piece++) {
        place w = place_of(a, &g, piece);
        piece_normalise(a, &w);
    }
    return SAG_KERNEL_OK;
}

/* -------------------------------------------------------------------------------------------- backward */

/* first = sum d, second = sum d (x - mean), for one piece. */
static void piece_gradient_sums(const batch_norm_args *a, const place *w, float *first, float *second)
{
    float mean[CPU_WIDE], s1[CPU_WIDE], s2[CPU_WIDE];
    const cpu_part *q = &w->q;
    cpu_repeat(mean, a->mean + q->column, q->cols, q->width);
    memset(s1, 0, (size_t)q->width * sizeof *s1);
    memset(s2, 0, (size_t)q->width * sizeof *s2);
    const float *x = (const float *)a->x + w->at, *dy = (const float *)a->dy + w->at;
    const float *y = a->relu ? (const float *)a->y_saved + w->at : dy;
    for (int64_t l = 0; l <= q->lines; l++, x += q->stride, dy += q->stride, y += q->stride) {
        int64_t n = cpu_part_line(q, l);
        if (a->relu) {
#pragma omp simd
            for (int64_t j = 0; j < n; j++) {
                float d = y[j] <= 0.0f ? 0.0f : dy[j];
                s1[j] += d;
                s2[j] += d * (x[j] - mean[j]);
            }
        } else {
#pragma omp simd
            for (int64_t j = 0; j < n; j++) {
                s1[j] += dy[j];
                s2[j] += dy[j] * (x[j] - mean[j]);
            }
        }
    }
    cpu_fold(first, s1, q->cols, q->width);
    cpu_fold(second, s2, q->cols, q->width);
}

/*
 * Adds up the pieces of each image, and these over the images: into the rows of the gain and bias tables, and weighted by
 * each image's factor into A and B. One pass per tile of channels, images in order.
 */
static void finish_gradient_sums(sag_kernel_env *env, const batch_norm_args *a, const grid *g, const float *first,
                                 const float *second, double *dgain, double *dbias, double *sum_a, double *sum_b)
{
    int64_t table = (a->labels ? a->classes : 1) * a->c;
    memset(dgain, 0, (size_t)table * sizeof *dgain);
    memset(dbias, 0, (size_t)table * sizeof *dbias);
#pragma omp parallel for num_threads(env->threads) schedule(static) if (g->parts * a->c > CPU_SMALL)
    for (int64_t c0 = 0; c0 < a->c; c0 += CHANNELS) {
        int64_t n = cpu_min64(CHANNELS, a->c - c0);
        double ta[CHANNELS] = {0}, tb[CHANNELS] = {0};
        for (int64_t image = 0; image < a->n; image++) {
            double s1[CHANNELS] = {0}, s2[CHANNELS] = {0};
            for (int64_t b = 0; b < g->p.blocks; b++) {
                const float *f = first + (image * g->p.blocks + b) * a->c + c0;
                const float *s = second + (image * g->p.blocks + b) * a->c + c0;
                for (int64_t j = 0; j < n; j++) {
                    s1[j] += (double)f[j];
                    s2[j] += (double)s[j];
                }
            }
            const float *gain = a->gain ? row_of(a, a->gain, image) + c0 : NULL;
            int64_t row = a->labels ? (int64_t)a->labels[image] * a->c : 0;
            for (int64_t j = 0; j < n; j++) {
                double factor = gain ? (double)(gain[j] + a->gain_offset) : 1.0;
                s2[j] *= (double)a->rstd[c0 + j];
                dbias[row + c0 + j] += s1[j];
                dgain[row + c0 + j] += s2[j];
                ta[j] += factor * s1[j];
                tb[j] += factor * s2[j];
            }
        }
        memcpy(sum_a + c0, ta, (size_t)n * sizeof *ta);
        memcpy(sum_b + c0, tb, (size_t)n * sizeof *tb);
    }
}

static void store_sums(float *to, const double *from, int64_t n, int accumulate)
{
    if (!to) return;
    for (int64_t i = 0; i < n; i++) to[i] = accumulate ? to[i] + (float)from[i] : (float)from[i];
}

/* dx (+)= factor * d - shift - (x - mean) * slope */
static void piece_dx(const batch_norm_args *a, const place *w, const float *all_shift, const float *all_slope)
{
    float mean[CPU_WIDE], factor[CPU_WIDE], shift[CPU_WIDE], slope[CPU_WIDE], few[CPU_WIDE];
    const cpu_part *q = &w->q;
    const float *gain = a->gain ? row_of(a, a->gain, w->image) + q->column : NULL;
    for (int64_t j = 0; j < q->cols; j++) few[j] = a->rstd[q->column + j] * (gain ? gain[j] + a->gain_offset : 1.0f);
    cpu_repeat(factor, few, q->cols, q->width);
    cpu_repeat(mean, a->mean + q->column, q->cols, q->width);
    cpu_repeat(shift, all_shift + q->column, q->cols, q->width);
    cpu_repeat(slope, all_slope + q->column, q->cols, q->width);
    const float *x = a->train ? (const float *)a->x + w->at : NULL, *dy = (const float *)a->dy + w->at;
    const float *y = a->relu ? (const float *)a->y_saved + w->at : dy;
    float *dx = (float *)a->dx + w->at;
    for (int64_t l = 0; l <= q->lines; l++) {
        int64_t n = cpu_part_line(q, l), o = l * q->stride;
        float d[CPU_WIDE];
        if (a->relu) {
#pragma omp simd
            for (int64_t j = 0; j < n; j++) d[j] = (y[o + j] <= 0.0f ? 0.0f : dy[o + j]) * factor[j];
        } else {
#pragma omp simd
            for (int64_t j = 0; j < n; j++) d[j] = dy[o + j] * factor[j];
        }
        if (x) {
#pragma omp simd
            for (int64_t j = 0; j < n; j++) d[j] = (d[j] - shift[j]) - (x[o + j] - mean[j]) * slope[j];
        }
        if (a->accumulate) {
#pragma omp simd
            for (int64_t j = 0; j < n; j++) dx[o + j] += d[j];
        } else {
            memcpy(dx + o, d, (size_t)n * sizeof *d);
        }
    }
}

static int cpu_batch_norm_bwd(sag_kernel_env *env, const batch_norm_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (!labels_fit(a)) return SAG_KERNEL_BAD_INDEX;
    grid g = grid_of(a);
    int64_t table = (a->labels ? a->classes : 1) * a->c, elements = a->n * a->spatial * a->c;
    float *shift = env->scratch(env, (size_t)(2 * a->c) * sizeof *shift);
    if (!shift) return SAG_KERNEL_NO_MEMORY;
    memset(shift, 0, (size_t)(2 * a->c) * sizeof *shift);

    if (a->dgain || a->dbias || (a->dx && a->train)) {
        float *first = env->scratch(env, (size_t)(g.parts * a->c) * sizeof *first);
        float *second = env->scratch(env, (size_t)(g.parts * a->c) * sizeof *second);
        double *sums = env->scratch(env, (size_t)(2 * table + 2 * a->c) * sizeof *sums);
        if (!first || !second || !sums) return SAG_KERNEL_NO_MEMORY;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (elements > CPU_SMALL)
        for (int64_t piece = 0; piece < g.pieces; piece++) {
            place w = place_of(a, &g, piece);
            int64_t to = w.part * a->c + w.q.column;
            piece_gradient_sums(a, &w, first + to, second + to);
        }
        double *dgain = sums, *dbias = sums + table, *sum_a = sums + 2 * table, *sum_b = sum_a + a->c;
        finish_gradient_sums(env, a, &g, first, second, dgain, dbias, sum_a, sum_b);
        store_sums(a->dgain, dgain, table, a->accumulate_dgain);
        store_sums(a->dbias, dbias, table, a->accumulate_dbias);
        for (int64_t c = 0; c < a->c; c++) {
            double rstd = (double)a->rstd[c], m = (double)(a->n * a->spatial);
            shift[c] = (float)(rstd * sum_a[c] / m);
            shift[a->c + c] = (float)(rstd * rstd * sum_b[c] / m);
        }
    }
    if (a->dx) {
#pragma omp parallel for num_threads(env->threads) schedule(static) if (elements > CPU_SMALL)
        for (int64_t piece = 0; piece < g.pieces; piece++) {
            place w = place_of(a, &g, piece);
            piece_dx(a, &w, shift, shift + a->c);
        }
    }
    return SAG_KERNEL_OK;
}

void CPU_REGISTER(norm)(sag_kernel_table *t)
{
    t->batch_norm_fwd = cpu_batch_norm_fwd;
    t->batch_norm_bwd = cpu_batch_norm_bwd;
}
