/* Precision, recall, density and coverage, and the distances below them, against plain loops; ties, threads, failures.
 */
#include "testing.h"

#include "engine/metrics/metrics.h"

static sag_status score(sag_rows real, sag_rows fake, int64_t k, bool inclusive, int threads, sag_prdc *out)
{
    sag_neighbours *s = NULL;
    SAG_TRY(sag_neighbours_create(real, fake, k, inclusive, threads, &s));
    int64_t done, total, before = -1;
    do {
        sag_neighbours_progress(s, &done, &total);
        assert_true(done > before && done < total);
        before = done;
    } while (sag_neighbours_step(s));
    sag_neighbours_progress(s, &done, &total);
    assert_int_equal(done, total);
    assert_false(sag_neighbours_step(s));
    sag_status status = sag_neighbours_result(s, out);
    sag_neighbours_destroy(s);
    return status;
}

/* ---------------------------------------------------------------------------------------------- reference */

static double distance2(sag_rows a, int64_t i, sag_rows b, int64_t j)
{
    double sum = 0;
    for (int64_t c = 0; c < a.d; c++) {
        double difference = (double)a.data[i * a.d + c] - (double)b.data[j * b.d + c];
        sum += difference * difference;
    }
    return sum;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double *reference_radii(sag_rows x, int64_t k)
{
    double *radii = malloc((size_t)x.n * sizeof *radii), *all = malloc((size_t)x.n * sizeof *all);
    for (int64_t i = 0; i < x.n; i++) {
        for (int64_t j = 0; j < x.n; j++) all[j] = distance2(x, i, x, j);
        qsort(all, (size_t)x.n, sizeof *all, compare);
        radii[i] = all[k]; /* all[0] is i itself */
    }
    free(all);
    return radii;
}

static sag_prdc reference(sag_rows real, sag_rows fake, int64_t k, bool inclusive)
{
    double *r = reference_radii(real, k), *f = reference_radii(fake, k);
    sag_prdc out = {0};
    for (int64_t j = 0; j < fake.n; j++) {
        int64_t balls = 0;
        for (int64_t i = 0; i < real.n; i++) {
            double d2 = distance2(real, i, fake, j);
            balls += d2 < r[i] || (inclusive && d2 <= r[i]);
        }
        out.precision += (balls > 0) / (double)fake.n;
        out.density += (double)balls / (double)(k * fake.n);
        out.zero_radii[1] += f[j] == 0;
    }
    for (int64_t i = 0; i < real.n; i++) {
        bool recalled = false, covered = false;
        for (int64_t j = 0; j < fake.n; j++) {
            double d2 = distance2(real, i, fake, j);
            recalled = recalled || d2 < f[j] || (inclusive && d2 <= f[j]);
            covered = covered || d2 < r[i] || (inclusive && d2 <= r[i]);
        }
        out.recall += recalled / (double)real.n;
        out.coverage += covered / (double)real.n;
        out.zero_radii[0] += r[i] == 0;
    }
    free(r);
    free(f);
    return out;
}

static void assert_same(const sag_prdc *have, const sag_prdc *want)
{
    const double *a = &have->precision, *b = &want->precision;
    for (int i = 0; i < 4; i++)
        if (!(fabs(a[i] - b[i]) <= 1e-12))
            fail_msg("score %d of precision, recall, density, coverage: %.17g, wanted %.17g", i, a[i], b[i]);
    assert_memory_equal(have->zero_radii, want->zero_radii, sizeof want->zero_radii);
}

/* -------------------------------------------------------------------------------------------------- tests */

/* Sizes around the strips of 128 rows, tiles of 64 and depth of 256; widths that fill no vector. */
static void test_against_plain_loops(void **state)
{
    (void)state;
    const int64_t sizes[][4] = {{2, 2, 1, 1},     {7, 6, 3, 5},     {130, 64, 10, 3},
                                {128, 257, 4, 1}, {300, 200, 6, 5}, {70, 90, 600, 2}};
    for (size_t t = 0; t < sizeof sizes / sizeof *sizes; t++) {
        int64_t nr = sizes[t][0], nf = sizes[t][1], d = sizes[t][2], k = sizes[t][3];
        float *x = malloc((size_t)(nr * d) * sizeof *x), *y = malloc((size_t)(nf * d) * sizeof *y);
        random_fill(x, nr * d, 1 + t, -1, 1);
        random_fill(y, nf * d, 100 + t, -1, 0.9f);
        sag_rows real = {x, nr, d}, fake = {y, nf, d};
        for (int inclusive = 0; inclusive < 2; inclusive++) {
            sag_prdc want = reference(real, fake, k, inclusive != 0), have;
            assert_ok(score(real, fake, k, inclusive != 0, 2, &have));
            assert_same(&have, &want);
        }
        free(x);
        free(y);
    }
}

/* Points of a small grid: most distances tie, and each tie must be seen as one. */
static void test_ties(void **state)
{
    (void)state;
    const int64_t n = 200, d = 3;
    float x[600], y[600];
    random_fill(x, n * d, 1, 0, 4);
    random_fill(y, n * d, 2, 0, 4);
    for (int64_t i = 0; i < n * d; i++) {
        x[i] = 0.1f * floorf(x[i]); /* not exact in binary */
        y[i] = 0.1f * floorf(y[i]);
    }
    sag_rows real = {x, n, d}, fake = {y, n, d};
    sag_prdc open, closed, want;
    assert_ok(score(real, fake, 3, false, 2, &open));
    assert_ok(score(real, fake, 3, true, 2, &closed));
    want = reference(real, fake, 3, false);
    assert_same(&open, &want);
    want = reference(real, fake, 3, true);
    assert_same(&closed, &want);
    assert_true(closed.density > open.density + 0.1);
    assert_true(open.zero_radii[0] > 0);

    /* a set against itself: a row's own ball has k - 1 others and itself inside, the k-th on the edge */
    random_fill(x, n * d, 3, -1, 1);
    assert_ok(score(real, real, 4, false, 2, &open));
    assert_ok(score(real, real, 4, true, 2, &closed));
    assert_true(fabs(open.density - 1) < 1e-12 && fabs(closed.density - 1.25) < 1e-12);
}

static void test_collapsed(void **state)
{
    (void)state;
    const int64_t n = 50, d = 8;
    float x[400], y[400];
    random_fill(x, n * d, 1, -1, 1);
    for (int64_t i = 0; i < n; i++) memcpy(y + i * d, x + 5 * d, sizeof(float) * (size_t)d); /* one real image */
    sag_prdc p;
    assert_ok(score((sag_rows){x, n, d}, (sag_rows){y, n, d}, 5, false, 1, &p));
    assert_true(p.precision == 1 && p.recall == 0 && p.zero_radii[0] == 0 && p.zero_radii[1] == n);
    assert_ok(score((sag_rows){x, n, d}, (sag_rows){y, n, d}, 5, true, 1, &p));
    assert_true(p.recall == 1.0 / (double)n);
}

static void test_threads(void **state)
{
    (void)state;
    const int64_t n = 333, d = 40;
    float *x = malloc((size_t)(2 * n * d) * sizeof *x);
    random_fill(x, 2 * n * d, 1, -1, 1);
    sag_prdc want, have;
    assert_ok(score((sag_rows){x, n, d}, (sag_rows){x + n * d, n, d}, 5, false, 1, &want));
    for (int threads = 0; threads <= 3; threads++) {
        assert_ok(score((sag_rows){x, n, d}, (sag_rows){x + n * d, n, d}, 5, false, threads, &have));
        assert_memory_equal(&have, &want, sizeof want);
    }
    free(x);
}

static void test_refuse(void **state)
{
    (void)state;
    float x[12] = {0};
    sag_rows four = {x, 4, 3}, two = {x, 2, 3}, narrow = {x, 4, 2};
    sag_neighbours *s = NULL;
    assert_fails(sag_neighbours_create(four, two, 3, false, 1, &s), SAG_ERR_ARG,
                 "4 real and 2 fake images; k = 3 needs 4");
    assert_fails(sag_neighbours_create(four, narrow, 3, false, 1, &s), SAG_ERR_SHAPE, "real has 3 features, fake 2");
    assert_fails(sag_neighbours_create(four, four, 0, false, 1, &s), SAG_ERR_ARG, "k is 0");
    assert_ok(sag_neighbours_create(four, four, 3, false, 1, &s));
    sag_prdc p;
    assert_fails(sag_neighbours_result(s, &p), SAG_ERR_STATE, "before the work was done");
    sag_neighbours_destroy(s);
    x[4] = NAN;
    assert_fails(sag_neighbours_create(four, four, 3, false, 1, &s), SAG_ERR_ARG,
                 "real features: NaN in row 2, column 2");
    assert_null(s);
}

static void test_failing_allocations(void **state)
{
    (void)state;
    float x[60];
    random_fill(x, 60, 1, -1, 1);
    sag_rows rows = {x, 20, 3};
    int failures = 0;
    for (;; failures++) {
        sag_prdc p;
        sag_debug_fail_allocation(failures + 1);
        sag_status s = score(rows, rows, 3, false, 1, &p);
        sag_debug_fail_allocation(0);
        assert_int_equal(sag_debug_live_host_blocks(), 0);
        if (s == SAG_OK) break;
        assert_int_equal(s, SAG_ERR_MEMORY);
    }
    assert_int_equal(failures, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_plain_loops),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_collapsed),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refuse),
        cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
