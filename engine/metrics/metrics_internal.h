/* metrics_internal.h - what the scores share: threads, dense linear algebra. */
#ifndef SAG_METRICS_INTERNAL_H
#define SAG_METRICS_INTERNAL_H

#include "engine/metrics/metrics.h"

static inline int64_t sag_min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
int sag_metric_threads(int threads); /* 0: all cores */

/* ---------------------------------------------------------------------------------- linear_algebra.c
 *
 * BLAS and LAPACK on one thread, always: how they split work would change the bits. We split products into tiles
 * ourselves. Every use lies between enter and leave, on the thread that opens the parallel region.
 */
int sag_linear_enter(void); /* returns what leave wants */
void sag_linear_leave(int before);

/* Row-major product c[m][n] = beta c + a b; a transposed operand is stored the other way round. */
typedef struct sag_product {
    double *c;
    const double *a, *b;
    int64_t ldc, lda, ldb, m, n, k;
    bool trans_a, trans_b;
    double beta;
} sag_product;
void sag_linear_tile(const sag_product *p); /* on the calling thread */
/* The same by tiles; lower: only tiles that touch the lower triangle. */
void sag_linear_product(const sag_product *p, bool lower, int threads);
/*
 * Eigenvalues of a symmetric matrix [n][n], of which the lower triangle is read, ascending. With vectors, row k of a
 * becomes the k-th eigenvector; without, a is lost.
 */
sag_status sag_linear_eigen(double *a, int64_t n, double *values, bool vectors);

/* -------------------------------------------------------------------------------------------- moments.c */

struct sag_moments {
    int64_t n, width;
    double *mean;     /* [width] */
    double *scatter;  /* [width][width], the lower triangle */
    char refusal[96]; /* why the stream is spoilt; empty: it is not */
};
/* SAG_OK if statistics of these rows mean something. `what` names them. */
sag_status sag_moments_usable(const sag_moments *m, const char *what);

#endif
