/* linear_algebra.c - the little that the scores want of BLAS and LAPACK (OpenBLAS), in f64 and the same for any
 * threads. */
#include <cblas.h>
#include <omp.h>

#include "engine/metrics/metrics_internal.h"

#define TILE 256

/* LAPACK, column-major; the last two are the lengths of the strings. */
void dsyevd_(const char *job, const char *uplo, const int *n, double *a, const int *lda, double *w, double *work,
             const int *lwork, int *iwork, const int *liwork, int *info, size_t job_length, size_t uplo_length);

/* OpenBLAS with OpenMP takes as many threads as OpenMP says, and one inside a parallel region; the other build has a
 * pool of its own. */
int sag_linear_enter(void)
{
    int before = omp_get_max_threads();
    omp_set_num_threads(1);
    if (openblas_get_parallel() == OPENBLAS_THREAD) openblas_set_num_threads(1);
    return before;
}

void sag_linear_leave(int before)
{
    omp_set_num_threads(before);
}

static void tile_at(const sag_product *p, int64_t i, int64_t j, int64_t m, int64_t n)
{
    const double *a = p->a + (p->trans_a ? i : i * p->lda);
    const double *b = p->b + (p->trans_b ? j * p->ldb : j);
    cblas_dgemm(CblasRowMajor, p->trans_a ? CblasTrans : CblasNoTrans, p->trans_b ? CblasTrans : CblasNoTrans, (int)m,
                (int)n, (int)p->k, 1.0, a, (int)p->lda, b, (int)p->ldb, p->beta, p->c + i * p->ldc + j, (int)p->ldc);
}

void sag_linear_tile(const sag_product *p)
{
    tile_at(p, 0, 0, p->m, p->n);
}

void sag_linear_product(const sag_product *p, bool lower, int threads)
{
    int64_t across = (p->n + TILE - 1) / TILE, tiles = across * ((p->m + TILE - 1) / TILE);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t t = 0; t < tiles; t++) {
        int64_t i = t / across * TILE, j = t % across * TILE;
        if (lower && j > i) continue;
        tile_at(p, i, j, sag_min64(TILE, p->m - i), sag_min64(TILE, p->n - j));
    }
}

sag_status sag_linear_eigen(double *a, int64_t n, double *values, bool vectors)
{
    /* Row-major lower is column-major upper, and its eigenvectors in columns are ours in rows. */
    const char *job = vectors ? "V" : "N";
    int size = (int)n, info = 0, query = -1, iwork_size = 0;
    double work_size = 0;
    if (n == 0) return SAG_OK;
    dsyevd_(job, "U", &size, a, &size, values, &work_size, &query, &iwork_size, &query, &info, 1, 1);
    int lwork = (int)work_size, liwork = iwork_size;
    double *work = sag_host_alloc((size_t)lwork * sizeof *work);
    int *iwork = sag_host_alloc((size_t)liwork * sizeof *iwork);
    if (work && iwork) dsyevd_(job, "U", &size, a, &size, values, work, &lwork, iwork, &liwork, &info, 1, 1);
    bool ready = work && iwork;
    sag_host_free(work);
    sag_host_free(iwork);
    if (!ready)
        SAG_FAIL(SAG_ERR_MEMORY, "out of memory for the eigenvalues of a %lld x %lld matrix", (long long)n,
                 (long long)n);
    if (info)
        SAG_FAIL(SAG_ERR_ARG, "LAPACK found no eigenvalues of a %lld x %lld matrix (info %d)", (long long)n,
                 (long long)n, info);
    return SAG_OK;
}
