/*
 * test_random.c - Philox against its published vectors, each distribution against its definition and its moments, and
 * independence of seeds, streams, clocks. The statistical bounds are five standard errors for a fixed seed.
 */
#include "testing.h"

#include "kernels/philox.h"

/* Random123, kat_vectors, philox4x32-10 */
static void test_known_answers(void **state)
{
    (void)state;
    sag_philox_block a = sag_philox(0, 0, 0, 0, 0, 0), f = sag_philox(~0u, ~0u, ~0u, ~0u, ~0u, ~0u);
    sag_philox_block p = sag_philox(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0);
    assert_true(a.w0 == 0x6627e8d5 && a.w1 == 0xe169c58d && a.w2 == 0xbc57ac4c && a.w3 == 0x9b00dbd8);
    assert_true(f.w0 == 0x408f276d && f.w1 == 0x41c83b0e && f.w2 == 0xa20bc7c6 && f.w3 == 0x6d5451fd);
    assert_true(p.w0 == 0xd16cfe09 && p.w1 == 0x94fdcceb && p.w2 == 0x5001e420 && p.w3 == 0x24126ea1);
}

static sag_tensor *filled(sag_op op, int64_t n, const int32_t clock[2], const double *attr)
{
    sag_tensor *x = NULL, *t = make_i32(2, clock), *in[2];
    assert_ok(sag_tensor_create(testing_context(), op == SAG_OP_randint ? SAG_I32 : SAG_F32, sag_shape1(n), &x));
    in[0] = x;
    in[1] = t;
    assert_ok(sag_op_apply(testing_context(), op, in, attr, NULL));
    sag_tensor_release(t);
    return x;
}

static uint32_t word(uint64_t seed, uint32_t stream, const int32_t clock[2], int64_t i)
{
    sag_philox_block p = sag_philox((uint32_t)(i / 4), stream, (uint32_t)clock[0], (uint32_t)clock[1], (uint32_t)seed,
                                    (uint32_t)(seed >> 32));
    return i % 4 == 0 ? p.w0 : i % 4 == 1 ? p.w1 : i % 4 == 2 ? p.w2 : p.w3;
}

/* Each element from the word that the contract names, at sizes that end in every part of a block and a piece. */
static void test_which_word(void **state)
{
    (void)state;
    const int64_t sizes[] = {1, 2, 3, 5, 127, 129, 8191, 8195, 40001};
    const int32_t clock[2] = {7, -3};
    double seed = 1234567890123.0, u[4] = {seed, 9, -1, 3}, r[4] = {seed, 9, -10, 90};
    for (int s = 0; s < 9; s++) {
        sag_tensor *x = filled(SAG_OP_uniform, sizes[s], clock, u), *k = filled(SAG_OP_randint, sizes[s], clock, r);
        for (int64_t i = 0; i < sizes[s]; i++) {
            uint32_t w = word((uint64_t)seed, 9, clock, i);
            double unit = (double)(w >> 8) / 16777216.0;
            assert_true((double)f32(x)[i] == (double)(float)(unit * 4 - 1)); /* one rounding */
            assert_int_equal(i32(k)[i], -10 + (int32_t)((uint64_t)w * 100 >> 32));
        }
        sag_tensor_release(x);
        sag_tensor_release(k);
    }
}

/* The inverse of the normal distribution function by bisection on erfc, in double. */
static double quantile_of_tail(double p)
{
    double low = 0, high = 40;
    for (int i = 0; i < 200; i++) {
        double mid = (low + high) / 2;
        if (0.5 * erfc(mid / sqrt(2)) > p) low = mid;
        else high = mid;
    }
    return (low + high) / 2;
}

static void check_quantiles(double bound)
{
    sag_philox_gauss g = sag_philox_gauss_of(bound);
    double tail = bound > 0 ? 0.5 * erfc(bound / sqrt(2)) : 0, worst = 0;
    for (uint64_t step = 0; step < 4000; step++) {
        uint32_t k = step < 1000 ? (uint32_t)step : step < 2000 ? 0x7fffffffu - (uint32_t)(step - 1000) : (uint32_t)(step * 1073741);
        k &= 0x7fffffffu;
        double v = ((double)k + 0.5) / 2147483648.0, p = tail + v * (0.5 - tail), want = quantile_of_tail(p);
        float got = sag_philox_normal(k, g);
        /* near 0 the quantile is (1/2 - p) sqrt(2 pi), which bisection on p does not resolve */
        if (0.5 - p < 1e-4) want = (0.5 - tail) * (1 - v) * sqrt(2 * acos(-1));
        worst = fmax(worst, fabs((double)got - want) / want);
        assert_true(sag_philox_normal(k | 0x80000000u, g) == -got);
    }
    if (!(worst < 1e-6)) fail_msg("bound %g: relative error %.3g", bound, worst);
}

static void test_normal_is_the_quantile(void **state)
{
    (void)state;
    check_quantiles(0);
    check_quantiles(2);
    check_quantiles(0.5);
    check_quantiles(5);
}

static void moments(const float *x, int64_t n, double m[4])
{
    double mean = 0;
    for (int64_t i = 0; i < n; i++) mean += (double)x[i] / (double)n;
    m[0] = mean;
    for (int k = 1; k < 4; k++) {
        m[k] = 0;
        for (int64_t i = 0; i < n; i++) m[k] += pow((double)x[i] - mean, k + 1) / (double)n;
    }
}

static void test_moments(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    const int32_t clock[2] = {0, 0};
    double m[4], root = sqrt((double)N);
    double u[4] = {1, 0, 0, 1}, g[5] = {1, 0, 3, 2, 0}, t[5] = {1, 0, 0, 1, 2};
    sag_tensor *x = filled(SAG_OP_uniform, N, clock, u);
    moments(f32(x), N, m);
    assert_true(fabs(m[0] - 0.5) < 5 * sqrt(1.0 / 12) / root);
    assert_true(fabs(m[1] - 1.0 / 12) < 5 * sqrt(1.0 / 180) / root); /* variance of (x - 1/2)^2: 1/80 - 1/144 */
    sag_tensor_release(x);

    x = filled(SAG_OP_normal, N, clock, g);
    moments(f32(x), N, m);
    assert_true(fabs(m[0] - 3) < 5 * 2 / root);
    assert_true(fabs(m[1] - 4) < 5 * 4 * sqrt(2.0) / root);
    assert_true(fabs(m[2]) < 5 * 8 * sqrt(15.0) / root);
    assert_true(fabs(m[3] - 48) < 5 * 16 * sqrt(96.0) / root); /* E z^8 - (E z^4)^2 = 105 - 9 */
    int64_t beyond = 0;
    for (int64_t i = 0; i < N; i++) beyond += fabsf((f32(x)[i] - 3) / 2) > 3;
    double p = erfc(3 / sqrt(2));
    assert_true(fabs((double)beyond - p * N) < 5 * sqrt(p * N));
    sag_tensor_release(x);

    x = filled(SAG_OP_normal, N, clock, t);
    moments(f32(x), N, m);
    double density = exp(-2) / sqrt(2 * acos(-1)), inside = erf(2 / sqrt(2)), variance = 1 - 4 * density / inside;
    assert_true(fabs(m[0]) < 5 / root);
    assert_true(fabs(m[1] - variance) < 5 / root);
    for (int64_t i = 0; i < N; i++) assert_true(fabsf(f32(x)[i]) <= 2);
    sag_tensor_release(x);
}

static void test_integers_are_even(void **state)
{
    (void)state;
    enum { N = 1 << 20, K = 7 };
    const int32_t clock[2] = {5, 1};
    double r[4] = {3, 4, -3, 4}, all[4] = {3, 4, -2147483648.0, 2147483648.0};
    int64_t count[K] = {0};
    sag_tensor *x = filled(SAG_OP_randint, N, clock, r);
    for (int64_t i = 0; i < N; i++) {
        int32_t v = i32(x)[i];
        assert_in_range(v + 3, 0, K - 1);
        count[v + 3]++;
    }
    double chi = 0;
    for (int k = 0; k < K; k++) chi += pow((double)count[k] - (double)N / K, 2) / ((double)N / K);
    assert_true(chi < 6 + 5 * sqrt(12)); /* K - 1 degrees of freedom */
    sag_tensor_release(x);
    x = filled(SAG_OP_randint, N, clock, all); /* the whole range of i32 */
    int64_t negative = 0;
    for (int64_t i = 0; i < N; i++) negative += i32(x)[i] < 0;
    assert_true(fabs((double)negative - N / 2.0) < 5 * sqrt(N / 4.0));
    sag_tensor_release(x);
}

static double correlation(const sag_tensor *a, const sag_tensor *b, int64_t n, int64_t lag)
{
    double s = 0;
    for (int64_t i = 0; i + lag < n; i++) s += (double)f32(a)[i] * (double)f32(b)[i + lag];
    return s / sqrt((double)(n - lag));
}

/* Other seed, stream, clock word: other, uncorrelated numbers; the same: the same bits. */
static void test_independence(void **state)
{
    (void)state;
    enum { N = 1 << 18 };
    const int32_t clocks[5][2] = {{0, 0}, {0, 0}, {0, 0}, {1, 0}, {0, 1}};
    double attr[5][5] = {{1, 0, 0, 1, 0}, {2, 0, 0, 1, 0}, {1, 1, 0, 1, 0}, {1, 0, 0, 1, 0}, {1, 0, 0, 1, 0}};
    sag_tensor *x[5];
    for (int k = 0; k < 5; k++) x[k] = filled(SAG_OP_normal, N, clocks[k], attr[k]);
    for (int a = 0; a < 5; a++) {
        for (int b = a; b < 5; b++) {
            for (int64_t lag = a == b ? 1 : 0; lag < 6; lag++) {
                double r = correlation(x[a], x[b], N, lag);
                if (!(fabs(r) < 5)) fail_msg("%d and %d, lag %d: %.2f standard errors", a, b, (int)lag, r);
            }
        }
    }
    sag_tensor *again = filled(SAG_OP_normal, N, clocks[2], attr[2]);
    assert_memory_equal(f32(again), f32(x[2]), N * sizeof(float));
    sag_tensor_release(again);
    for (int k = 0; k < 5; k++) sag_tensor_release(x[k]);
}

static void test_threads(void **state)
{
    (void)state;
    const int32_t clock[2] = {3, 0};
    double attr[5] = {1, 2, 0, 1, 2};
    for (int64_t n = 70000; n < 70005; n++) {
        sag_tensor *first = NULL;
        for (int threads = 1; threads <= 3; threads++) {
            sag_context_set_threads(testing_context(), threads);
            sag_tensor *x = filled(SAG_OP_normal, n, clock, attr);
            if (first) assert_memory_equal(f32(first), f32(x), (size_t)n * sizeof(float));
            if (first) sag_tensor_release(x);
            else first = x;
        }
        sag_tensor_release(first);
    }
    sag_context_set_threads(testing_context(), 0);
}

/* The bits themselves, so that every SIMD level, processor and device is held to the same ones. */
static void test_same_bits_everywhere(void **state)
{
    (void)state;
    enum { N = 100000 };
    const int32_t clock[2] = {12345, 6};
    double attr[3][5] = {{77, 5, -0.3, 1.7, 0}, {77, 5, 0.1, 0.7, 0}, {77, 5, 0.1, 0.7, 2}};
    const uint64_t want[3] = {0x4b333fe9a0632178u, 0xa84797e78cb6fb9fu, 0xa7ffa99c12218757u};
    for (int k = 0; k < 3; k++) {
        sag_tensor *x = filled(k == 0 ? SAG_OP_uniform : SAG_OP_normal, N, clock, attr[k]);
        const uint8_t *p = host_data(x);
        uint64_t hash = 14695981039346656037u; /* FNV-1a */
        for (size_t i = 0; i < N * sizeof(float); i++) hash = (hash ^ p[i]) * 1099511628211u;
        if (hash != want[k]) fail_msg("case %d: hash %#llx", k, (unsigned long long)hash);
        sag_tensor_release(x);
    }
}

/* low + width * unit may round up to high; it must not come out. */
static void test_uniform_stays_below(void **state)
{
    (void)state;
    const int32_t clock[2] = {0, 0};
    double attr[4] = {1, 0, 16777216, 16777220}; /* four floats, two apart */
    sag_tensor *x = filled(SAG_OP_uniform, 10000, clock, attr);
    bool top = false;
    for (int i = 0; i < 10000; i++) {
        assert_true(f32(x)[i] >= 16777216.0f && f32(x)[i] < 16777220.0f);
        top = top || f32(x)[i] == 16777218.0f;
    }
    assert_true(top);
    sag_tensor_release(x);
}

static void test_tick(void **state)
{
    (void)state;
    const int32_t starts[3][2] = {{0, 0}, {-1, 0}, {-1, -1}}, ends[3][2] = {{1, 0}, {0, 1}, {0, 0}};
    for (int k = 0; k < 3; k++) {
        sag_tensor *t = make_i32(2, starts[k]);
        assert_ok(sag_op_apply(testing_context(), SAG_OP_tick, &t, NULL, NULL));
        assert_memory_equal(host_data(t), ends[k], sizeof ends[k]);
        sag_tensor_release(t);
    }
    sag_tensor *t = make_i32(2, starts[0]);
    double far = 4294967296.0 * 3 + 5, back = -6;
    assert_ok(sag_op_apply(testing_context(), SAG_OP_tick, &t, &far, NULL));
    assert_memory_equal(host_data(t), ((const int32_t[]){5, 3}), 8);
    assert_ok(sag_op_apply(testing_context(), SAG_OP_tick, &t, &back, NULL));
    assert_memory_equal(host_data(t), ((const int32_t[]){-1, 2}), 8);
    sag_tensor_release(t);
}

static void test_errors(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *x = make_tensor(sag_shape1(4), 1), *t = make_i32(2, (int32_t[]){0, 0}), *bad = make_i32(3, (int32_t[]){0, 0, 0});
    sag_tensor *xt[2] = {x, t}, *xb[2] = {x, bad}, *tx[2] = {t, x}, *tt[2] = {bad, t};
    double fine[5] = {1, 0, 0, 1, 0}, empty[4] = {1, 0, 1, 1}, stream[4] = {1, -1, 0, 1}, half[4] = {0.5, 0, 0, 1};
    double std[5] = {1, 0, 0, -1, 0}, bound[5] = {1, 0, 0, 1, NAN}, range[4] = {1, 0, 5, 5};
    assert_fails(sag_op_apply(ctx, SAG_OP_uniform, xb, fine, NULL), SAG_ERR_SHAPE, "'clock' must have shape {2}");
    assert_fails(sag_op_apply(ctx, SAG_OP_uniform, tx, fine, NULL), SAG_ERR_DTYPE, "'x' must be f32");
    assert_fails(sag_op_apply(ctx, SAG_OP_randint, xt, fine, NULL), SAG_ERR_DTYPE, "'x' must be i32");
    assert_fails(sag_op_apply(ctx, SAG_OP_uniform, xt, empty, NULL), SAG_ERR_ARG, "less than high");
    assert_fails(sag_op_apply(ctx, SAG_OP_uniform, xt, stream, NULL), SAG_ERR_ARG, "stream = -1");
    assert_fails(sag_op_apply(ctx, SAG_OP_uniform, xt, half, NULL), SAG_ERR_ARG, "seed = 0.5");
    assert_fails(sag_op_apply(ctx, SAG_OP_normal, xt, std, NULL), SAG_ERR_ARG, "std");
    assert_fails(sag_op_apply(ctx, SAG_OP_normal, xt, bound, NULL), SAG_ERR_ARG, "bound");
    assert_fails(sag_op_apply(ctx, SAG_OP_randint, tt, range, NULL), SAG_ERR_ARG, "less than high");
    sag_tensor_release(x);
    sag_tensor_release(t);
    sag_tensor_release(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_which_word),
        cmocka_unit_test(test_normal_is_the_quantile),
        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_integers_are_even),
        cmocka_unit_test(test_independence),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_same_bits_everywhere),
        cmocka_unit_test(test_uniform_stays_below),
        cmocka_unit_test(test_tick),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
