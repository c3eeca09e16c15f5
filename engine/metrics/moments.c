/*
 * moments.c - mean and scatter of a stream of rows, by chunks (Chan, Golub, LeVeque, "Updating formulae and a pairwise
 * algorithm for computing sample variances", 1979). For chunks of n and m rows with means a and b, delta = b - a:
 *
 *     mean    = a + delta m / (n + m)
 *     scatter = scatter_a + scatter_b + delta delta' n m / (n + m)
 *
 * Rows are centred on their own chunk's mean before they are multiplied, so a mean that is large beside the deviation
 * costs no digits; columns that never change have a scatter of exactly 0. The second term of the update enters the
 * product as one more row, delta sqrt(n m / (n + m)).
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/metrics/metrics_internal.h"

#define CHUNK 256
#define WIDEST 30000 /* LAPACK's workspace, 1 + 6 D + 2 D^2, is counted in an int */

sag_status sag_moments_create(sag_moments **out)
{
    *out = sag_host_alloc(sizeof **out);
    if (!*out) SAG_FAIL(SAG_ERR_MEMORY, "moments: out of memory");
    return SAG_OK;
}

void sag_moments_destroy(sag_moments *m)
{
    if (!m) return;
    sag_host_free(m->mean);
    sag_host_free(m->scatter);
    sag_host_free(m);
}

int64_t sag_moments_count(const sag_moments *m)
{
    return m->n;
}

int64_t sag_moments_width(const sag_moments *m)
{
    return m->width;
}

static sag_status set_width(sag_moments *m, int64_t width)
{
    if (width < 1 || width > WIDEST)
        SAG_FAIL(SAG_ERR_SHAPE, "moments: %lld features a row, 1 to %d can be had", (long long)width, WIDEST);
    if (m->width == width) return SAG_OK;
    if (m->width)
        SAG_FAIL(SAG_ERR_SHAPE, "moments: rows of %lld features where the rows before had %lld", (long long)width,
                 (long long)m->width);
    m->mean = sag_host_alloc((size_t)width * sizeof *m->mean);
    m->scatter = sag_host_alloc((size_t)(width * width) * sizeof *m->scatter);
    if (!m->mean || !m->scatter) {
        sag_host_free(m->mean);
        sag_host_free(m->scatter);
        m->mean = m->scatter = NULL;
        SAG_FAIL(SAG_ERR_MEMORY, "moments: no memory for %lld x %lld numbers", (long long)width, (long long)width);
    }
    m->width = width;
    return SAG_OK;
}

sag_status sag_moments_usable(const sag_moments *m, const char *what)
{
    if (m->refusal[0]) SAG_FAIL(SAG_ERR_ARG, "%s: rows were refused before (%s)", what, m->refusal);
    return SAG_OK;
}

/* work [rows + 1][width]: the rows less their mean, then the row that joins the chunk to what came before. */
static void centre(sag_moments *m, const float *x, int64_t rows, double *work, int threads)
{
    int64_t width = m->width;
    double n = (double)m->n, k = (double)rows;
#pragma omp parallel for num_threads(threads)
    for (int64_t c0 = 0; c0 < width; c0 += CHUNK) {
        int64_t cols = sag_min64(CHUNK, width - c0);
        double mean[CHUNK] = {0};
        for (int64_t i = 0; i < rows; i++)
            for (int64_t c = 0; c < cols; c++) mean[c] += (double)x[i * width + c0 + c];
        for (int64_t c = 0; c < cols; c++) mean[c] /= k;
        for (int64_t i = 0; i < rows; i++)
            for (int64_t c = 0; c < cols; c++) work[i * width + c0 + c] = (double)x[i * width + c0 + c] - mean[c];
        for (int64_t c = 0; c < cols; c++) {
            double delta = mean[c] - m->mean[c0 + c];
            work[rows * width + c0 + c] = delta * sqrt(n * k / (n + k));
            m->mean[c0 + c] += delta * (k / (n + k));
        }
    }
}

sag_status sag_moments_add(sag_moments *m, sag_rows x, int threads)
{
    SAG_TRY(sag_moments_usable(m, "moments"));
    SAG_TRY(set_width(m, x.d));
    sag_status finite = sag_rows_check(x, "moments");
    if (finite != SAG_OK) { /* from now on every question to m gets this message */
        snprintf(m->refusal, sizeof m->refusal, "%s", sag_error_message());
        return finite;
    }
    double *work = sag_host_alloc((size_t)((CHUNK + 1) * m->width) * sizeof *work);
    if (!work) SAG_FAIL(SAG_ERR_MEMORY, "moments: out of memory for a chunk of %d rows", CHUNK);
    threads = sag_metric_threads(threads);
    int before = sag_linear_enter();
    for (int64_t first = 0; first < x.n; first += CHUNK) {
        int64_t rows = sag_min64(CHUNK, x.n - first);
        centre(m, x.data + first * m->width, rows, work, threads);
        sag_product p = {.c = m->scatter,
                         .a = work,
                         .b = work,
                         .ldc = m->width,
                         .lda = m->width,
                         .ldb = m->width,
                         .m = m->width,
                         .n = m->width,
                         .k = rows + 1,
                         .trans_a = true,
                         .beta = 1.0};
        sag_linear_product(&p, true, threads);
        m->n += rows;
    }
    sag_linear_leave(before);
    sag_host_free(work);
    return SAG_OK;
}

sag_status sag_moments_merge(sag_moments *m, const sag_moments *other)
{
    SAG_TRY(sag_moments_usable(m, "moments"));
    SAG_TRY(sag_moments_usable(other, "moments"));
    if (other->n == 0) return SAG_OK;
    SAG_TRY(set_width(m, other->width));
    double n = (double)m->n, k = (double)other->n;
    for (int64_t i = 0; i < m->width; i++) {
        double delta = (other->mean[i] - m->mean[i]) * (n * k / (n + k));
        for (int64_t j = 0; j <= i; j++)
            m->scatter[i * m->width + j] += other->scatter[i * m->width + j] + delta * (other->mean[j] - m->mean[j]);
    }
    for (int64_t i = 0; i < m->width; i++) m->mean[i] += (other->mean[i] - m->mean[i]) * (k / (n + k));
    m->n += other->n;
    return SAG_OK;
}

sag_status sag_moments_export(const sag_moments *m, double *mean, double *scatter)
{
    SAG_TRY(sag_moments_usable(m, "moments"));
    memcpy(mean, m->mean, (size_t)m->width * sizeof *mean);
    for (int64_t i = 0; i < m->width; scatter += ++i)
        memcpy(scatter, m->scatter + i * m->width, (size_t)(i + 1) * sizeof *scatter);
    return SAG_OK;
}

/* What no rows can have given is refused: a number that is not finite, a negative scatter of a column with itself. */
static sag_status read_state(sag_moments *m, const double *mean, const double *scatter)
{
    for (int64_t i = 0; i < m->width; scatter += ++i) {
        double *row = m->scatter + i * m->width;
        memcpy(row, scatter, (size_t)(i + 1) * sizeof *row);
        m->mean[i] = mean[i];
        bool good = isfinite(mean[i]) && row[i] >= 0;
        for (int64_t j = 0; j <= i; j++) good = good && isfinite(row[j]);
        if (!good)
            SAG_FAIL(SAG_ERR_FORMAT, "moments: feature %lld has no mean and scatter that rows can have",
                     (long long)i + 1);
    }
    return SAG_OK;
}

sag_status sag_moments_import(int64_t n, int64_t width, const double *mean, const double *scatter, sag_moments **out)
{
    *out = NULL;
    if (n < 1) SAG_FAIL(SAG_ERR_FORMAT, "moments: of %lld rows", (long long)n);
    sag_moments *m = NULL;
    SAG_TRY(sag_moments_create(&m));
    m->n = n;
    sag_status s = set_width(m, width);
    if (s == SAG_OK) s = read_state(m, mean, scatter);
    if (s != SAG_OK) {
        sag_moments_destroy(m);
        return s;
    }
    *out = m;
    return SAG_OK;
}
