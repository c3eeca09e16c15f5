/*
 * inception_score.c - exp(E_x KL(p(y|x) || p(y))) (Salimans et al., "Improved techniques for training GANs", 2016):
 * p(y|x) = softmax(logits), p(y) its mean over the split, and with both as sums over the rows of a split
 *
 *     E KL = 1/n sum_x sum_y p log p  -  sum_y q log q,    q = 1/n sum_x p
 *
 * A split's rows are cut into SLOTS parts whose sums are added up in order.
 */
#include <math.h>
#include <string.h>

#include "engine/metrics/metrics_internal.h"

enum { SLOTS = 16 };

/* Adds row's p to q [classes] and returns sum p log p. Everything relative to the largest logit. */
static double add_row(const float *row, int64_t classes, double *p, double *q)
{
    double top = (double)row[0], total = 0, sum = 0;
    for (int64_t c = 1; c < classes; c++) top = fmax(top, (double)row[c]);
    for (int64_t c = 0; c < classes; c++) total += p[c] = exp((double)row[c] - top);
    double log_total = log(total);
    for (int64_t c = 0; c < classes; c++) {
        double probability = p[c] / total;
        q[c] += probability;
        sum += probability * ((double)row[c] - top - log_total);
    }
    return sum;
}

/* slots [SLOTS][2 classes + 1]: q, then sum p log p, then room for a row */
static double score_split(sag_rows x, const int32_t *order, int64_t first, int64_t last, int threads, double *slots)
{
    int64_t n = last - first, stride = 2 * x.d + 1;
    memset(slots, 0, (size_t)(SLOTS * stride) * sizeof *slots);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t s = 0; s < SLOTS; s++) {
        double *q = slots + s * stride;
        for (int64_t i = first + s * n / SLOTS; i < first + (s + 1) * n / SLOTS; i++) {
            int64_t row = order ? order[i] : i;
            q[x.d] += add_row(x.data + row * x.d, x.d, q + x.d + 1, q);
        }
    }
    for (int64_t s = 1; s < SLOTS; s++)
        for (int64_t c = 0; c <= x.d; c++) slots[c] += slots[s * stride + c];
    double divergence = slots[x.d] / (double)n;
    for (int64_t c = 0; c < x.d; c++) {
        double q = slots[c] / (double)n;
        if (q > 0) divergence -= q * log(q);
    }
    return exp(divergence);
}

static sag_status check_order(const int32_t *order, int64_t n)
{
    uint8_t *seen = sag_host_alloc((size_t)n);
    if (!seen) SAG_FAIL(SAG_ERR_MEMORY, "inception_score: out of memory");
    int64_t bad = -1;
    for (int64_t i = 0; i < n && bad < 0; i++) {
        if (order[i] < 0 || order[i] >= n || seen[order[i]])
            bad = i;
        else
            seen[order[i]] = 1;
    }
    sag_host_free(seen);
    if (bad >= 0)
        SAG_FAIL(SAG_ERR_ARG, "inception_score: the order of the rows is no permutation, see place %lld",
                 (long long)bad + 1);
    return SAG_OK;
}

sag_status sag_inception_score(sag_rows logits, int64_t splits, const int32_t *order, int threads, double *scores)
{
    if (splits < 1) SAG_FAIL(SAG_ERR_ARG, "inception_score: %lld splits", (long long)splits);
    if (logits.d < 2)
        SAG_FAIL(SAG_ERR_SHAPE, "inception_score: logits of %lld class, 2 at least are needed", (long long)logits.d);
    if (logits.n < splits)
        SAG_FAIL(SAG_ERR_ARG, "inception_score: %lld images cannot make %lld splits", (long long)logits.n,
                 (long long)splits);
    SAG_TRY(sag_rows_check(logits, "inception_score"));
    if (order) SAG_TRY(check_order(order, logits.n));
    double *slots = sag_host_alloc((size_t)(SLOTS * (2 * logits.d + 1)) * sizeof *slots);
    if (!slots) SAG_FAIL(SAG_ERR_MEMORY, "inception_score: out of memory for %lld classes", (long long)logits.d);
    for (int64_t i = 0; i < splits; i++)
        scores[i] = score_split(logits, order, i * logits.n / splits, (i + 1) * logits.n / splits,
                                sag_metric_threads(threads), slots);
    sag_host_free(slots);
    return SAG_OK;
}
