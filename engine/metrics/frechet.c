/*
 * frechet.c - squared Frechet distance between two Gaussians (Heusel et al., "GANs trained by a two time-scale update
 * rule converge to a local Nash equilibrium", 2017), which on Inception features is FID:
 *
 *     d^2 = |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)
 *
 * tr (S1 S2)^(1/2) is the sum of the square roots of the eigenvalues of A S2 A, A = S1^(1/2): symmetric, so never an
 * imaginary part. With S1 = V L V', B = L^(1/2) V', the eigenvalues of B S2 B' are the same and A need not be formed.
 * Eigenvalues that rounding made negative count as 0.
 *
 * Two exact reductions take away most of the rest of that noise, of which a square root would make 1e-8 out of 1e-16: a
 * feature that is constant in either set adds nothing to the trace of the product's root, and n rows have a covariance
 * of rank n - 1 at most, so only so many eigenvalues are looked at.
 */
#include <math.h>
#include <string.h>

#include "engine/metrics/metrics_internal.h"

/* The covariance of the listed features, both triangles. */
static void covariance(const sag_moments *m, const int64_t *used, int64_t d, double *s)
{
    double scale = 1.0 / (double)(m->n - 1);
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = 0; j <= i; j++) s[i * d + j] = s[j * d + i] = m->scatter[used[i] * m->width + used[j]] * scale;
}

static double trace(const sag_moments *m)
{
    double sum = 0;
    for (int64_t i = 0; i < m->width; i++) sum += m->scatter[i * (m->width + 1)];
    return sum / (double)(m->n - 1);
}

typedef struct scratch {
    int64_t *used;
    double *root, *covariance, *product, *values;
} scratch;

/* tr (S1 S2)^(1/2). a: the set with fewer rows, whose covariance has the lower rank. */
static sag_status root_trace(const sag_moments *a, const sag_moments *b, int threads, scratch *s, double *sum)
{
    int64_t d = 0;
    for (int64_t i = 0; i < a->width; i++) {
        int64_t at = i * (a->width + 1);
        if (a->scatter[at] > 0 && b->scatter[at] > 0) s->used[d++] = i;
    }
    covariance(a, s->used, d, s->root);
    SAG_TRY(sag_linear_eigen(s->root, d, s->values, true));

    int64_t rank = sag_min64(d, a->n - 1);
    double *root = s->root + (d - rank) * d; /* the eigenvectors of the largest values */
    for (int64_t k = 0; k < rank; k++) {
        double length = sqrt(fmax(s->values[d - rank + k], 0));
        for (int64_t i = 0; i < d; i++) root[k * d + i] *= length;
    }
    covariance(b, s->used, d, s->covariance);
    sag_product half = {
        .c = s->product, .a = root, .b = s->covariance, .ldc = d, .lda = d, .ldb = d, .m = rank, .n = d, .k = d};
    sag_linear_product(&half, false, threads);
    sag_product both = {.c = s->covariance,
                        .a = s->product,
                        .b = root,
                        .ldc = rank,
                        .lda = d,
                        .ldb = d,
                        .m = rank,
                        .n = rank,
                        .k = d,
                        .trans_b = true};
    sag_linear_product(&both, true, threads);
    SAG_TRY(sag_linear_eigen(s->covariance, rank, s->values, false));

    *sum = 0;
    for (int64_t k = rank - sag_min64(rank, b->n - 1); k < rank; k++) *sum += sqrt(fmax(s->values[k], 0));
    return SAG_OK;
}

static sag_status check_set(const sag_moments *m, const char *what)
{
    SAG_TRY(sag_moments_usable(m, what));
    if (m->n < 2)
        SAG_FAIL(SAG_ERR_ARG, "%s has %lld image%s, a covariance needs 2 at least", what, (long long)m->n,
                 m->n == 1 ? "" : "s");
    return SAG_OK;
}

sag_status sag_frechet_distance(const sag_moments *a, const sag_moments *b, int threads, sag_frechet *out)
{
    memset(out, 0, sizeof *out);
    SAG_TRY(check_set(a, "frechet: the first set"));
    SAG_TRY(check_set(b, "frechet: the second set"));
    if (a->width != b->width)
        SAG_FAIL(SAG_ERR_SHAPE, "frechet: the first set has %lld features, the second %lld", (long long)a->width,
                 (long long)b->width);

    size_t d = (size_t)a->width;
    scratch s = {.used = sag_host_alloc(d * sizeof *s.used), .values = sag_host_alloc(d * sizeof *s.values)};
    s.root = sag_host_alloc(d * d * sizeof *s.root);
    s.covariance = sag_host_alloc(d * d * sizeof *s.covariance);
    s.product = sag_host_alloc(d * d * sizeof *s.product);
    double roots = 0;
    sag_status status = SAG_OK;
    if (!s.used || !s.values || !s.root || !s.covariance || !s.product) {
        status = sag_fail(SAG_ERR_MEMORY, "frechet: no memory for three %zu x %zu matrices", d, d);
    } else {
        int before = sag_linear_enter();
        status = a->n <= b->n ? root_trace(a, b, sag_metric_threads(threads), &s, &roots)
                              : root_trace(b, a, sag_metric_threads(threads), &s, &roots);
        sag_linear_leave(before);
    }
    sag_host_free(s.used);
    sag_host_free(s.values);
    sag_host_free(s.root);
    sag_host_free(s.covariance);
    sag_host_free(s.product);
    if (status != SAG_OK) return status;

    for (int64_t i = 0; i < a->width; i++) out->mean_term += (a->mean[i] - b->mean[i]) * (a->mean[i] - b->mean[i]);
    double trace_a = trace(a), trace_b = trace(b);
    out->collapsed[0] = trace_a == 0;
    out->collapsed[1] = trace_b == 0;
    /* a distance: below 0 only by rounding */
    out->covariance_term = fmax(trace_a + trace_b - 2 * roots, 0);
    out->distance = out->mean_term + out->covariance_term;
    return SAG_OK;
}
