/*
 * Moments, Frechet distance, inception score and KID against plain loops, analytic cases, large means, bits for any
 * number of threads, failing allocations. The goldens of other implementations are tests/spec/metrics_spec.lua's.
 */
#include "testing.h"

#include "engine/metrics/metrics.h"

static float *noise(int64_t n, int64_t d, uint64_t seed, float low, float high)
{
    float *x = malloc((size_t)(n * d) * sizeof *x);
    random_fill(x, n * d, seed, low, high);
    return x;
}

static sag_rows rows(const float *x, int64_t n, int64_t d)
{
    return (sag_rows){x, n, d};
}

static sag_moments *moments_of(sag_rows x, int threads)
{
    sag_moments *m = NULL;
    assert_ok(sag_moments_create(&m));
    assert_ok(sag_moments_add(m, x, threads));
    return m;
}

static void assert_relative(double value, double want, double tolerance)
{
    if (!(fabs(value - want) <= tolerance * fabs(want))) fail_msg("%.17g, wanted %.17g", value, want);
}

/* ------------------------------------------------------------------------------------------------ moments */

/* In two passes, in long double. */
static void reference_moments(sag_rows x, double *mean, double *scatter)
{
    for (int64_t c = 0; c < x.d; c++) {
        long double sum = 0;
        for (int64_t i = 0; i < x.n; i++) sum += x.data[i * x.d + c];
        mean[c] = (double)(sum / x.n);
    }
    for (int64_t a = 0; a < x.d; a++)
        for (int64_t b = 0; b <= a; b++) {
            long double sum = 0;
            for (int64_t i = 0; i < x.n; i++)
                sum += ((long double)x.data[i * x.d + a] - mean[a]) * ((long double)x.data[i * x.d + b] - mean[b]);
            *scatter++ = (double)sum;
        }
}

static void check_against_reference(const sag_moments *m, sag_rows x, double tolerance)
{
    static double mean[300], scatter[300 * 301 / 2], want_mean[300], want_scatter[300 * 301 / 2];
    assert_int_equal(sag_moments_count(m), x.n);
    assert_ok(sag_moments_export(m, mean, scatter));
    reference_moments(x, want_mean, want_scatter);
    double scale = 0; /* of the scatter: covariances of independent columns are small beside it */
    for (int64_t c = 0; c < x.d; c++) scale = fmax(scale, want_scatter[c * (c + 3) / 2]);
    for (int64_t c = 0; c < x.d; c++)
        if (!(fabs(mean[c] - want_mean[c]) <= 1e-15 * (1 + fabs(want_mean[c])))) /* values are within 1 of it */
            fail_msg("mean %lld: %.17g, wanted %.17g", (long long)c, mean[c], want_mean[c]);
    for (int64_t i = 0; i < x.d * (x.d + 1) / 2; i++)
        if (!(fabs(scatter[i] - want_scatter[i]) <= tolerance * scale))
            fail_msg("scatter %lld: %.17g, wanted %.17g", (long long)i, scatter[i], want_scatter[i]);
}

/* More than one chunk of rows and one tile of columns; batches that do not fit the chunks; means that dwarf deviations.
 */
static void test_moments(void **state)
{
    (void)state;
    const int64_t n = 600, d = 300;
    for (int kind = 0; kind < 2; kind++) {
        float *x = noise(n, d, 1, kind ? 1e4f : -1, kind ? 1e4f + 1 : 1);
        /* a mean of 1e4 is rounded by 1e-12, and so is the scatter; sums of squares would be wrong by 1e-7 */
        double tolerance = kind ? 1e-12 : 1e-14;
        sag_moments *m = moments_of(rows(x, n, d), 2);
        check_against_reference(m, rows(x, n, d), tolerance);
        sag_moments_destroy(m);

        m = moments_of(rows(x, 1, d), 1);
        assert_ok(sag_moments_add(m, rows(x + d, 299, d), 1));
        assert_ok(sag_moments_add(m, rows(x + 300 * d, 300, d), 1));
        check_against_reference(m, rows(x, n, d), tolerance);
        sag_moments_destroy(m);

        m = moments_of(rows(x, 450, d), 1);
        sag_moments *other = moments_of(rows(x + 450 * d, 150, d), 1);
        assert_ok(sag_moments_merge(m, other));
        check_against_reference(m, rows(x, n, d), tolerance);
        sag_moments_destroy(other);
        sag_moments_destroy(m);
        free(x);
    }
}

/* A column that never changes has no scatter at all, whatever its value and however the rows come. */
static void test_constant_column(void **state)
{
    (void)state;
    float x[7 * 3];
    random_fill(x, 7 * 3, 1, -1, 1);
    for (int i = 0; i < 7; i++) x[i * 3 + 1] = 0.1f;
    sag_moments *m = moments_of(rows(x, 3, 3), 1), *other = moments_of(rows(x + 9, 4, 3), 1);
    assert_ok(sag_moments_merge(m, other));
    assert_ok(sag_moments_add(m, rows(x, 5, 3), 1));
    double mean[3], scatter[6];
    assert_ok(sag_moments_export(m, mean, scatter));
    assert_true(mean[1] == (double)0.1f && scatter[1] == 0 && scatter[2] == 0 && scatter[4] == 0);
    assert_true(scatter[0] > 0 && scatter[5] > 0);
    sag_moments_destroy(other);
    sag_moments_destroy(m);
}

static void test_moments_refuse(void **state)
{
    (void)state;
    float x[3 * 2] = {1, 2, 3, 4, 5, 6};
    sag_moments *m = moments_of(rows(x, 3, 2), 1), *fresh = NULL;
    sag_frechet f;
    assert_fails(sag_moments_add(m, rows(x, 2, 3), 1), SAG_ERR_SHAPE, "rows of 3 features where the rows before had 2");
    assert_int_equal(sag_moments_count(m), 3);
    assert_ok(sag_moments_create(&fresh));
    assert_fails(sag_frechet_distance(m, fresh, 1, &f), SAG_ERR_ARG, "the second set has 0 images");
    assert_fails(sag_moments_add(fresh, rows(x, 1, 40000), 1), SAG_ERR_SHAPE, "40000 features");
    x[3] = -INFINITY;
    assert_fails(sag_moments_add(m, rows(x, 3, 2), 1), SAG_ERR_ARG, "infinity in row 2, column 2");
    assert_int_equal(sag_moments_count(m), 3);
    x[3] = 4;
    assert_fails(sag_moments_add(m, rows(x, 3, 2), 1), SAG_ERR_ARG, "infinity in row 2, column 2");
    assert_fails(sag_moments_merge(fresh, m), SAG_ERR_ARG, "refused before");
    sag_moments_destroy(fresh);
    sag_moments_destroy(m);
    double mean[2] = {0, 0}, scatter[3] = {1, 0, -1};
    assert_fails(sag_moments_import(5, 2, mean, scatter, &m), SAG_ERR_FORMAT, "feature 2");
    assert_fails(sag_moments_import(0, 2, mean, scatter, &m), SAG_ERR_FORMAT, "0 rows");
}

/* ------------------------------------------------------------------------------------------------ frechet */

/* Moments of n rows with this covariance (over n - 1). */
static sag_moments *gaussian(int64_t n, int64_t d, double mean, double (*covariance)(int64_t, int64_t))
{
    double *means = malloc((size_t)d * sizeof *means), *scatter = malloc((size_t)(d * (d + 1) / 2) * sizeof *scatter);
    double *s = scatter;
    for (int64_t i = 0; i < d; i++) {
        means[i] = mean;
        for (int64_t j = 0; j <= i; j++) *s++ = covariance(i, j) * (double)(n - 1);
    }
    sag_moments *m = NULL;
    assert_ok(sag_moments_import(n, d, means, scatter, &m));
    free(means);
    free(scatter);
    return m;
}

static double distance(const sag_moments *a, const sag_moments *b, int threads)
{
    sag_frechet f;
    assert_ok(sag_frechet_distance(a, b, threads, &f));
    return f.distance;
}

static double identity(int64_t i, int64_t j)
{
    return i == j;
}
static double growing(int64_t i, int64_t j)
{
    return i == j ? (double)((i + 1) * (i + 1)) : 0;
}
static double falling(int64_t i, int64_t j)
{
    return i == j ? 1.0 / (double)((i + 1) * (i + 1)) : 0;
}
static double smooth(int64_t i, int64_t j)
{
    return exp(-0.01 * (double)((i - j) * (i - j))) + (i == j);
}
static double smooth4(int64_t i, int64_t j)
{
    return 4 * smooth(i, j);
}

static void test_frechet_analytic(void **state)
{
    (void)state;
    const int64_t d = 300;
    sag_moments *a = gaussian(1000, d, 1, growing), *b = gaussian(2000, d, 3, falling);
    /* diagonal: sum of (sqrt s1 - sqrt s2)^2 + |mu|^2 */
    double want = 4.0 * (double)d;
    for (int64_t i = 1; i <= d; i++) want += ((double)i - 1.0 / (double)i) * ((double)i - 1.0 / (double)i);
    assert_relative(distance(a, b, 2), want, 1e-12);
    assert_relative(distance(b, a, 1), want, 1e-12);
    sag_moments_destroy(a);
    sag_moments_destroy(b);
    /* S2 = 4 S1: tr S1 + 4 tr S1 - 2 tr (4 S1 S1)^(1/2) = tr S1 */
    a = gaussian(1000, d, 0, smooth);
    b = gaussian(1000, d, 0, smooth4);
    assert_relative(distance(a, b, 2), 2.0 * (double)d, 1e-12);
    if (!(distance(a, a, 2) <= 1e-10)) fail_msg("distance of a set to itself: %g", distance(a, a, 2));
    sag_moments_destroy(a);
    sag_moments_destroy(b);
}

/* pytorch-fid's own test: equal covariances, means 0 and 1, 2048 features. */
static void test_frechet_2048(void **state)
{
    (void)state;
    sag_moments *a = gaussian(5000, 2048, 0, identity), *b = gaussian(5000, 2048, 1, identity);
    assert_relative(distance(a, b, 2), 2048, 1e-12);
    sag_moments_destroy(a);
    sag_moments_destroy(b);
}

static void test_frechet_collapsed(void **state)
{
    (void)state;
    const int64_t n = 5, d = 40;
    float *x = noise(n, d, 1, -1, 1), *same = malloc((size_t)(n * d) * sizeof *same);
    for (int64_t i = 0; i < n; i++) memcpy(same + i * d, x, (size_t)d * sizeof *same);
    sag_moments *a = moments_of(rows(x, n, d), 1), *b = moments_of(rows(same, n, d), 1);
    double mean[40], scatter[820], want = 0;
    assert_ok(sag_moments_export(a, mean, scatter));
    for (int64_t i = 0; i < d; i++)
        want += (mean[i] - (double)x[i]) * (mean[i] - (double)x[i]) + scatter[i * (i + 3) / 2] / (double)(n - 1);
    sag_frechet f;
    assert_ok(sag_frechet_distance(a, b, 1, &f));
    assert_relative(f.distance, want, 1e-13);
    assert_true(!f.collapsed[0] && f.collapsed[1]);
    sag_moments_destroy(a);
    sag_moments_destroy(b);
    free(x);
    free(same);
}

/* ---------------------------------------------------------------------------------------- inception score */

static double reference_score(sag_rows x, const int32_t *order, int64_t first, int64_t last)
{
    long double q[32] = {0}, divergence = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = first; i < last; i++) {
            const float *row = x.data + (order ? order[i] : i) * x.d;
            long double total = 0;
            for (int64_t c = 0; c < x.d; c++) total += expl(row[c]);
            for (int64_t c = 0; c < x.d; c++) {
                long double p = expl(row[c]) / total;
                if (pass == 0)
                    q[c] += p / (last - first);
                else if (p > 0)
                    divergence += p * (row[c] - logl(total) - logl(q[c])) / (last - first);
            }
        }
    return (double)expl(divergence);
}

static void test_inception_score(void **state)
{
    (void)state;
    const int64_t n = 103, d = 17, splits = 10;
    float *x = noise(n, d, 1, -4, 4);
    int32_t order[103];
    for (int32_t i = 0; i < n; i++) order[i] = (i * 37 + 5) % 103;
    double scores[10];
    for (int given = 0; given < 2; given++) {
        assert_ok(sag_inception_score(rows(x, n, d), splits, given ? order : NULL, 2, scores));
        for (int64_t i = 0; i < splits; i++)
            assert_relative(scores[i],
                            reference_score(rows(x, n, d), given ? order : NULL, i * n / splits, (i + 1) * n / splits),
                            1e-13);
    }
    /* sure of a different class each: as many as there are classes; the same unsure answer each: 1 */
    for (int64_t i = 0; i < n * d; i++) x[i] = i / d % d == i % d ? 3e38f : -3e38f;
    assert_ok(sag_inception_score(rows(x, 6 * d, d), 1, NULL, 2, scores));
    assert_relative(scores[0], (double)d, 1e-13);
    for (int64_t i = 0; i < n * d; i++) x[i] = (float)(i % d);
    assert_ok(sag_inception_score(rows(x, n, d), 1, NULL, 2, scores));
    assert_relative(scores[0], 1, 1e-14);
    order[8] = order[9];
    assert_fails(sag_inception_score(rows(x, n, d), 2, order, 1, scores), SAG_ERR_ARG, "see place 10");
    assert_fails(sag_inception_score(rows(x, 9, d), 10, NULL, 1, scores), SAG_ERR_ARG,
                 "9 images cannot make 10 splits");
    free(x);
}

/* ---------------------------------------------------------------------------------------------------- KID */

static long double kernel_sum(sag_rows a, sag_rows b, bool same, const sag_kid_options *o)
{
    long double sum = 0;
    for (int64_t i = 0; i < a.n; i++)
        for (int64_t j = 0; j < b.n; j++) {
            if (same && i == j) continue;
            long double dot = 0;
            for (int64_t c = 0; c < a.d; c++) dot += (long double)a.data[i * a.d + c] * b.data[j * a.d + c];
            sum += powl((o->gamma > 0 ? o->gamma : 1.0L / a.d) * dot + o->coef, o->degree);
        }
    return sum;
}

static double reference_mmd2(sag_rows x, sag_rows y, const sag_kid_options *o)
{
    long double m = x.n;
    return (double)((kernel_sum(x, x, true, o) + kernel_sum(y, y, true, o)) / (m * (m - 1)) -
                    2 * kernel_sum(x, y, false, o) / (m * m));
}

static void test_kid(void **state)
{
    (void)state;
    const int64_t n = 150, d = 19; /* more than one tile */
    float *x = noise(n, d, 1, 0, 2), *y = noise(n, d, 2, 0.2f, 2.2f);
    sag_kid_options kinds[] = {{.size = n, .degree = 3, .coef = 1},
                               {.size = n, .degree = 1, .gamma = 0.3, .coef = -2},
                               {.size = n, .degree = 4, .gamma = 0.01, .coef = 0.5, .seed = 7}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        double value;
        assert_ok(sag_kid_subset(rows(x, n, d), rows(y, n, d), &kinds[i], 3, 2, &value));
        assert_relative(value, reference_mmd2(rows(x, n, d), rows(y, n, d), &kinds[i]), 1e-10);
    }
    /* a set against itself, by hand: 2 [k(a,b) + k(b,a)] / 2 - 2 [k(a,a) + k(b,b) + 2 k(a,b)] / 4 */
    float two[] = {1, 2};
    sag_kid_options o = {.size = 2, .degree = 1, .coef = 0};
    double value;
    assert_ok(sag_kid_subset(rows(two, 2, 1), rows(two, 2, 1), &o, 0, 1, &value));
    assert_relative(value, 2 * 2.0 - (1 + 4 + 4) / 2.0, 1e-15);
    free(x);
    free(y);
}

/* Row i is 2^i and y is 0: with the kernel x.y the MMD tells which rows a subset has. */
static void test_kid_draws(void **state)
{
    (void)state;
    enum { N = 20, SIZE = 5, SUBSETS = 200 };
    float x[N], y[N] = {0};
    int times[N] = {0}, repeats = 0;
    int64_t before = 0;
    for (int i = 0; i < N; i++) x[i] = (float)(1 << i);
    for (int s = 0; s < SUBSETS; s++) {
        sag_kid_options o = {.size = SIZE, .degree = 1, .gamma = 1, .seed = 11};
        double value, again;
        assert_ok(sag_kid_subset(rows(x, N, 1), rows(y, N, 1), &o, s, 1, &value));
        assert_ok(sag_kid_subset(rows(x, N, 1), rows(y, N, 1), &o, s, 1, &again));
        assert_true(value == again);
        int64_t sum = (int64_t)llround(value * SIZE * (SIZE - 1) / 2), set = 0;
        for (int64_t candidate = 0; candidate < 1 << N && !set; candidate++) {
            if (__builtin_popcountll((unsigned long long)candidate) != SIZE) continue;
            int64_t total = candidate, squares = 0; /* (sum 2^i)^2 = squares + 2 pairs */
            for (int i = 0; i < N; i++)
                if (candidate >> i & 1) squares += (int64_t)1 << 2 * i;
            if ((total * total - squares) / 2 == sum) set = candidate;
        }
        if (!set) fail_msg("subset %d is not %d different rows", s, SIZE);
        for (int i = 0; i < N; i++) times[i] += (int)(set >> i & 1);
        repeats += set == before;
        before = set;
    }
    assert_true(repeats <= 1);
    for (int i = 0; i < N; i++) assert_in_range(times[i], 25, 75); /* 50 expected, deviation 6 */
}

static void test_kid_refuse(void **state)
{
    (void)state;
    float x[12] = {0}, y[12] = {0};
    double value;
    sag_kid_options o = {.size = 5, .degree = 3, .coef = 1};
    assert_fails(sag_kid_subset(rows(x, 4, 3), rows(y, 4, 3), &o, 0, 1, &value), SAG_ERR_ARG,
                 "subsets of 5 images cannot be drawn from 4 and 4");
    assert_fails(sag_kid_subset(rows(x, 4, 3), rows(y, 6, 2), &o, 0, 1, &value), SAG_ERR_SHAPE,
                 "x has 3 features, y 2");
    y[7] = NAN;
    o.size = 4;
    assert_fails(sag_kid_subset(rows(x, 4, 3), rows(y, 4, 3), &o, 0, 1, &value), SAG_ERR_ARG,
                 "NaN in row 3, column 2 of y");
    o.size = 1;
    assert_fails(sag_kid_subset(rows(x, 4, 3), rows(x, 4, 3), &o, 0, 1, &value), SAG_ERR_ARG, "subsets of 1");
    o = (sag_kid_options){.size = 2, .degree = 3, .gamma = NAN};
    assert_fails(sag_kid_subset(rows(x, 4, 3), rows(x, 4, 3), &o, 0, 1, &value), SAG_ERR_ARG, "no kernel");
}

/* ------------------------------------------------------------------------------ threads, failing allocations */

/* The scores of fixed rows; the first failure ends it. */
static sag_status all_scores(const float *x, const float *y, int threads, double *out)
{
    const int64_t n = 400, d = 290;
    sag_moments *a = NULL, *b = NULL, *copy = NULL;
    sag_kid_options o = {.size = 300, .degree = 3, .coef = 1};
    sag_frechet f = {0};
    static double mean[290], scatter[290 * 291 / 2];
    sag_status s = sag_moments_create(&a);
    if (s == SAG_OK) s = sag_moments_create(&b);
    if (s == SAG_OK) s = sag_moments_add(a, rows(x, n, d), threads);
    if (s == SAG_OK) s = sag_moments_add(b, rows(y, n, d), threads);
    if (s == SAG_OK) s = sag_moments_merge(b, a);
    if (s == SAG_OK) s = sag_moments_export(a, mean, scatter);
    if (s == SAG_OK) s = sag_moments_import(n, d, mean, scatter, &copy);
    if (s == SAG_OK) s = sag_frechet_distance(copy, b, threads, &f);
    if (s == SAG_OK) s = sag_kid_subset(rows(x, n, d), rows(y, n, d), &o, 1, threads, out + 1);
    if (s == SAG_OK) s = sag_inception_score(rows(x, n, d), 3, NULL, threads, out + 2);
    out[0] = f.distance;
    sag_moments_destroy(a);
    sag_moments_destroy(b);
    sag_moments_destroy(copy);
    return s;
}

static void test_threads(void **state)
{
    (void)state;
    float *x = noise(400, 290, 1, -1, 1), *y = noise(400, 290, 2, -1, 1.2f);
    double want[5], have[5];
    assert_ok(all_scores(x, y, 1, want));
    for (int threads = 0; threads <= 3; threads++) { /* 0: all cores */
        assert_ok(all_scores(x, y, threads, have));
        assert_memory_equal(have, want, sizeof want);
    }
    free(x);
    free(y);
}

static void test_failing_allocations(void **state)
{
    (void)state;
    float *x = noise(400, 290, 1, -1, 1), *y = noise(400, 290, 2, -1, 1.2f);
    double scores[5];
    int failures = 0;
    for (;; failures++) {
        sag_debug_fail_allocation(failures + 1);
        sag_status s = all_scores(x, y, 1, scores);
        sag_debug_fail_allocation(0);
        assert_int_equal(sag_debug_live_host_blocks(), 0);
        if (s == SAG_OK) break;
        assert_int_equal(s, SAG_ERR_MEMORY);
    }
    assert_in_range(failures, 20, 40);
    /* rows are refused, and there is no memory to remember why: still no score */
    x[5] = NAN;
    sag_moments *m = NULL;
    assert_ok(sag_moments_create(&m));
    assert_ok(sag_moments_add(m, rows(y, 10, 290), 1));
    sag_debug_fail_allocation(1);
    assert_fails(sag_moments_add(m, rows(x, 10, 290), 1), SAG_ERR_ARG, "column 6");
    sag_debug_fail_allocation(0);
    sag_frechet f;
    assert_fails(sag_frechet_distance(m, m, 1, &f), SAG_ERR_ARG, "refused before");
    sag_moments_destroy(m);
    free(x);
    free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moments),         cmocka_unit_test(test_constant_column),
        cmocka_unit_test(test_moments_refuse),  cmocka_unit_test(test_frechet_analytic),
        cmocka_unit_test(test_frechet_2048),    cmocka_unit_test(test_frechet_collapsed),
        cmocka_unit_test(test_inception_score), cmocka_unit_test(test_kid),
        cmocka_unit_test(test_kid_draws),       cmocka_unit_test(test_kid_refuse),
        cmocka_unit_test(test_threads),         cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
