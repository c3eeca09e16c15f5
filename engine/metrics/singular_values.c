/* singular_values.c - all singular values of a matrix: what spectral norm's power iteration sees only the largest of.
 */
#include <math.h>
#include <string.h>

#include "engine/metrics/metrics_internal.h"

sag_status sag_singular_values(sag_rows x, int threads, double *values)
{
    SAG_TRY(sag_rows_check(x, "matrix"));
    bool wide = x.n < x.d;
    int64_t n = wide ? x.n : x.d;
    double *copy = sag_host_alloc((size_t)(x.n * x.d) * sizeof *copy);
    double *gram = sag_host_alloc((size_t)(n * n) * sizeof *gram);
    sag_status status = SAG_OK;
    if (copy && gram) {
        for (int64_t i = 0; i < x.n * x.d; i++) copy[i] = (double)x.data[i];
        memset(gram, 0, (size_t)(n * n) * sizeof *gram);
        sag_product p = {.c = gram,
                         .a = copy,
                         .b = copy,
                         .ldc = n,
                         .lda = x.d,
                         .ldb = x.d,
                         .m = n,
                         .n = n,
                         .k = wide ? x.d : x.n,
                         .trans_a = !wide,
                         .trans_b = wide};
        int before = sag_linear_enter();
        sag_linear_product(&p, true, sag_metric_threads(threads));
        status = sag_linear_eigen(gram, n, values, false);
        sag_linear_leave(before);
    }
    bool ready = copy && gram;
    sag_host_free(copy);
    sag_host_free(gram);
    if (!ready)
        SAG_FAIL(SAG_ERR_MEMORY, "out of memory for the singular values of a %lld x %lld matrix", (long long)x.n,
                 (long long)x.d);
    SAG_TRY(status);
    for (int64_t i = 0; i < n / 2; i++) { /* the largest first */
        double v = values[i];
        values[i] = values[n - 1 - i];
        values[n - 1 - i] = v;
    }
    for (int64_t i = 0; i < n; i++) values[i] = values[i] > 0 ? sqrt(values[i]) : 0;
    return SAG_OK;
}
