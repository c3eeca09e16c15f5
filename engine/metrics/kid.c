/*
 * kid.c - kernel distance (Binkowski et al., "Demystifying MMD GANs", 2018) with k(x, y) = (gamma x.y + coef)^degree:
 *
 *     MMD^2 = [sum_{i != j} k(x_i, x_j) + sum_{i != j} k(y_i, y_j)] / (m (m - 1)) - 2 sum_{i, j} k(x_i, y_j) / m^2
 *
 * In f64 throughout: the sums are thousands of times larger than their difference. The products are cut into tiles that
 * are never kept; each tile gives one number, and these are added up in order.
 */
#include <math.h>

#include <omp.h>

#include "engine/metrics/metrics_internal.h"
#include "kernels/philox.h"

#define TILE 128

/* Names these draws among all that are made with a seed. */
#define STREAM_KID 0x6b1d0000u

/* chosen [n]: its first `size` become places of a subset, without replacement (the beginning of a Fisher-Yates
 * shuffle). */
static void draw(uint64_t seed, int64_t subset, uint32_t side, int64_t n, int64_t size, int64_t *chosen)
{
    for (int64_t i = 0; i < n; i++) chosen[i] = i;
    for (int64_t i = 0; i < size; i++) {
        sag_philox_block b = sag_philox((uint32_t)i, STREAM_KID | side, (uint32_t)subset, (uint32_t)(subset >> 32),
                                        (uint32_t)seed, (uint32_t)(seed >> 32));
        uint64_t u = (uint64_t)b.w0 << 32 | b.w1;
        int64_t j = i + (int64_t)((unsigned __int128)u * (uint64_t)(n - i) >> 64), t = chosen[i];
        chosen[i] = chosen[j];
        chosen[j] = t;
    }
}

static sag_status gather(sag_rows x, const int64_t *chosen, int64_t size, const char *name, double *out)
{
    for (int64_t i = 0; i < size; i++)
        for (int64_t c = 0; c < x.d; c++) {
            float value = x.data[chosen[i] * x.d + c];
            if (!isfinite(value))
                SAG_FAIL(SAG_ERR_ARG, "kid: %s in row %lld, column %lld of %s", isnan(value) ? "NaN" : "infinity",
                         (long long)chosen[i] + 1, (long long)c + 1, name);
            out[i * x.d + c] = (double)value;
        }
    return SAG_OK;
}

typedef struct job {
    const double *rows[2]; /* x, y: [size][d] */
    double *tiles;         /* [threads][TILE * TILE] */
    double *sums;          /* [3][blocks * blocks] */
    int64_t size, d, blocks;
    int degree;
    double gamma, coef;
} job;

/* kind 0: x with x, 1: y with y, 2: x with y. Of the first two the lower triangle stands for both. */
static double tile_sum(const job *w, int kind, int64_t i, int64_t j, double *tile)
{
    bool same = kind < 2;
    if (same && j > i) return 0;
    int64_t m = sag_min64(TILE, w->size - i), n = sag_min64(TILE, w->size - j);
    const double *a = w->rows[kind == 1], *b = w->rows[kind != 0];
    sag_product p = {.c = tile,
                     .a = a + i * w->d,
                     .b = b + j * w->d,
                     .ldc = TILE,
                     .lda = w->d,
                     .ldb = w->d,
                     .m = m,
                     .n = n,
                     .k = w->d,
                     .trans_b = true};
    sag_linear_tile(&p);
    double sum = 0;
    for (int64_t r = 0; r < m; r++) {
        int64_t columns = same && i == j ? r : n; /* below the diagonal */
        for (int64_t c = 0; c < columns; c++) {
            double base = w->gamma * tile[r * TILE + c] + w->coef, power = base;
            for (int e = 1; e < w->degree; e++) power *= base;
            sum += power;
        }
    }
    return same ? 2 * sum : sum;
}

static double mmd2_of(job *w, int threads)
{
    int64_t square = w->blocks * w->blocks;
    int before = sag_linear_enter();
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t t = 0; t < 3 * square; t++) {
        int64_t at = t % square;
        w->sums[t] = tile_sum(w, (int)(t / square), at / w->blocks * TILE, at % w->blocks * TILE,
                              w->tiles + (int64_t)omp_get_thread_num() * TILE * TILE);
    }
    sag_linear_leave(before);
    double total[3] = {0};
    for (int64_t t = 0; t < 3 * square; t++) total[t / square] += w->sums[t];
    double m = (double)w->size;
    return (total[0] + total[1]) / (m * (m - 1)) - 2 * total[2] / (m * m);
}

static sag_status check(sag_rows x, sag_rows y, const sag_kid_options *o)
{
    if (x.d != y.d) SAG_FAIL(SAG_ERR_SHAPE, "kid: x has %lld features, y %lld", (long long)x.d, (long long)y.d);
    if (o->size < 2) SAG_FAIL(SAG_ERR_ARG, "kid: subsets of %lld images, 2 at least are needed", (long long)o->size);
    if (o->degree < 1 || !isfinite(o->gamma) || o->gamma < 0 || !isfinite(o->coef))
        SAG_FAIL(SAG_ERR_ARG, "kid: no kernel has degree %d, gamma %g, coef %g", o->degree, o->gamma, o->coef);
    if (x.n < o->size || y.n < o->size)
        SAG_FAIL(SAG_ERR_ARG, "kid: subsets of %lld images cannot be drawn from %lld and %lld", (long long)o->size,
                 (long long)x.n, (long long)y.n);
    return SAG_OK;
}

sag_status sag_kid_subset(sag_rows x, sag_rows y, const sag_kid_options *o, int64_t subset, int threads, double *mmd2)
{
    SAG_TRY(check(x, y, o));
    threads = sag_metric_threads(threads);
    size_t size = (size_t)o->size, d = (size_t)x.d;
    job w = {.size = o->size,
             .d = x.d,
             .blocks = (o->size + TILE - 1) / TILE,
             .degree = o->degree,
             .coef = o->coef,
             .gamma = o->gamma > 0 ? o->gamma : 1.0 / (double)x.d};
    int64_t *chosen = sag_host_alloc((size_t)(x.n > y.n ? x.n : y.n) * sizeof *chosen);
    double *rows = sag_host_alloc(2 * size * d * sizeof *rows);
    w.tiles = sag_host_alloc((size_t)threads * TILE * TILE * sizeof *w.tiles);
    w.sums = sag_host_alloc((size_t)(3 * w.blocks * w.blocks) * sizeof *w.sums);
    sag_status status = SAG_OK;
    if (!chosen || !rows || !w.tiles || !w.sums) {
        status = sag_fail(SAG_ERR_MEMORY, "kid: no memory for subsets of %zu images", size);
    } else {
        w.rows[0] = rows;
        w.rows[1] = rows + size * d;
        draw(o->seed, subset, 0, x.n, o->size, chosen);
        status = gather(x, chosen, o->size, "x", rows);
        if (status == SAG_OK) {
            draw(o->seed, subset, 1, y.n, o->size, chosen);
            status = gather(y, chosen, o->size, "y", rows + size * d);
        }
        if (status == SAG_OK) *mmd2 = mmd2_of(&w, threads);
    }
    sag_host_free(chosen);
    sag_host_free(rows);
    sag_host_free(w.tiles);
    sag_host_free(w.sums);
    return status;
}
