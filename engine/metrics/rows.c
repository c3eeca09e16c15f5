/* rows.c - the checks that all scores begin with. */
#include <math.h>

#include <omp.h>

#include "engine/metrics/metrics_internal.h"

int sag_metric_threads(int threads)
{
    return threads > 0 ? threads : omp_get_num_procs();
}

sag_status sag_rows_check(sag_rows x, const char *what)
{
    for (int64_t i = 0; i < x.n; i++) {
        const float *row = x.data + i * x.d;
        for (int64_t c = 0; c < x.d; c++) {
            if (isfinite(row[c])) continue;
            SAG_FAIL(SAG_ERR_ARG, "%s: %s in row %lld, column %lld", what, isnan(row[c]) ? "NaN" : "infinity",
                     (long long)i + 1, (long long)c + 1);
        }
    }
    return SAG_OK;
}
