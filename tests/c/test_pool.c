/* test_pool.c - upsampling and pooling against plain loops in double. */
#include "testing.h"

#include "engine/internal.h"

typedef struct pool_case {
    int64_t n, h, w, c;
    double attr[4]; /* size, stride, pad, include_pad */
} pool_case;

static const pool_case cases[] = {
    {2, 4, 6, 3, {2, 2, 0, 1}}, {1, 7, 5, 1, {2, 2, 0, 1}},  {2, 8, 8, 17, {2, 2, 0, 1}}, {2, 5, 7, 3, {3, 1, 1, 1}},
    {2, 5, 7, 3, {3, 1, 1, 0}}, {1, 9, 8, 5, {3, 2, 0, 1}},  {1, 9, 8, 5, {3, 2, 1, 0}},  {1, 6, 6, 2, {2, 3, 0, 1}},
    {1, 3, 3, 4, {3, 3, 2, 0}}, {3, 40, 41, 33, {3, 2, 1, 0}}, {3, 64, 64, 9, {2, 2, 0, 1}}, {1, 5, 5, 2, {1, 1, 0, 1}},
};
enum { CASES = sizeof cases / sizeof *cases };

/* What one output element sees; calls with maximum: the largest. */
static double window_value(const float *x, const pool_case *k, int64_t n, int64_t p, int64_t q, int64_t c, bool maximum)
{
    int64_t size = (int64_t)k->attr[0], stride = (int64_t)k->attr[1], pad = (int64_t)k->attr[2], count = 0;
    double sum = 0, best = -INFINITY;
    for (int64_t r = 0; r < size; r++) {
        for (int64_t s = 0; s < size; s++) {
            int64_t i = p * stride - pad + r, j = q * stride - pad + s;
            if (i < 0 || i >= k->h || j < 0 || j >= k->w) continue;
            double v = (double)x[((n * k->h + i) * k->w + j) * k->c + c];
            sum += v;
            best = v > best ? v : best;
            count++;
        }
    }
    if (maximum) return best;
    return sum / (double)(k->attr[3] != 0 ? size * size : count);
}

static void check_windows(sag_op op, bool maximum)
{
    for (int t = 0; t < CASES; t++) {
        const pool_case *k = &cases[t];
        sag_tensor *x = make_tensor(sag_shape4(k->n, k->h, k->w, k->c), (uint64_t)t);
        sag_tensor *y = apply(op, &x, k->attr);
        int64_t p = (k->h + 2 * (int64_t)k->attr[2] - (int64_t)k->attr[0]) / (int64_t)k->attr[1] + 1;
        int64_t q = (k->w + 2 * (int64_t)k->attr[2] - (int64_t)k->attr[0]) / (int64_t)k->attr[1] + 1;
        assert_true(sag_shape_equal(sag_tensor_shape(y), sag_shape4(k->n, p, q, k->c)));
        int64_t n = sag_tensor_numel(y);
        double *want = malloc((size_t)n * sizeof *want);
        for (int64_t e = 0; e < n; e++)
            want[e] = window_value(f32(x), k, e / (p * q * k->c), e / (q * k->c) % p, e / k->c % q, e % k->c, maximum);
        assert_close(f32(y), want, n, 2e-7);
        free(want);
        sag_tensor_release(y);
        /* the mean is linear: a long step costs nothing; the maximum must not change hands */
        if (n < 5000) check_gradients(op, &x, k->attr, 1, maximum ? 1e-4 : 0.5, maximum ? 5e-3 : 1e-5);
        check_threads(op, &x, k->attr, 1);
        sag_tensor_release(x);
    }
}

static void test_mean_pool(void **state)
{
    (void)state;
    check_windows(SAG_OP_mean_pool, false);
}
static void test_max_pool(void **state)
{
    (void)state;
    check_windows(SAG_OP_max_pool, true);
}

static void test_max_pool_ties_and_nan(void **state)
{
    (void)state;
    float v[16] = {1, 1, 5, 5, 1, 1, 5, 5, 0, NAN, -INFINITY, -INFINITY, 2, 3, -INFINITY, -INFINITY};
    sag_tensor *x = make_tensor_from(sag_shape4(1, 4, 4, 1), v);
    assert_ok(sag_tensor_require_grad(x));
    sag_tensor *y = apply(SAG_OP_max_pool, &x, NULL), *dy = make_tensor_from(sag_shape4(1, 2, 2, 1), (float[]){1, 2, 3, 4});
    assert_true(f32(y)[0] == 1 && f32(y)[1] == 5 && isnan(f32(y)[2]) && f32(y)[3] == -INFINITY);
    assert_ok(sag_tape_backward_from(y, dy));
    const float want[16] = {1, 0, 2, 0, 0, 0, 0, 0, 0, 3, 4, 0, 0, 0, 0, 0};
    assert_memory_equal(f32(sag_tensor_grad(x)), want, sizeof want);
    sag_tensor_release(x);
    sag_tensor_release(y);
    sag_tensor_release(dy);
}

static void test_upsample(void **state)
{
    (void)state;
    const sag_shape shapes[] = {sag_shape4(1, 1, 1, 1), sag_shape4(2, 3, 5, 3), sag_shape4(2, 32, 31, 19)};
    for (int t = 0; t < 3; t++) {
        sag_shape s = shapes[t];
        sag_tensor *x = make_tensor(s, 1), *y = apply(SAG_OP_upsample, &x, NULL);
        assert_true(sag_shape_equal(sag_tensor_shape(y), sag_shape4(s.dim[0], 2 * s.dim[1], 2 * s.dim[2], s.dim[3])));
        for (int64_t e = 0; e < sag_tensor_numel(y); e++) {
            int64_t c = e % s.dim[3], j = e / s.dim[3] % (2 * s.dim[2]), i = e / s.dim[3] / (2 * s.dim[2]); /* i over N too */
            int64_t n = i / (2 * s.dim[1]);
            i = i % (2 * s.dim[1]) / 2;
            assert_true(f32(y)[e] == f32(x)[((n * s.dim[1] + i) * s.dim[2] + j / 2) * s.dim[3] + c]);
        }
        if (t < 2) check_gradients(SAG_OP_upsample, &x, NULL, 1, 0.5, 1e-5);
        check_threads(SAG_OP_upsample, &x, NULL, 1);
        sag_tensor_release(x);
        sag_tensor_release(y);
    }
}

static void test_global_sum_pool(void **state)
{
    (void)state;
    const sag_shape shapes[] = {sag_shape4(1, 1, 1, 1), sag_shape4(2, 3, 5, 3), sag_shape4(3, 4, 4, 1300), sag_shape4(2, 64, 63, 21)};
    for (int t = 0; t < 4; t++) {
        sag_shape s = shapes[t];
        sag_tensor *x = make_tensor_between(s, 1, 0, 1), *y = apply(SAG_OP_global_sum_pool, &x, NULL);
        int64_t c = s.dim[3], hw = s.dim[1] * s.dim[2];
        assert_true(sag_shape_equal(sag_tensor_shape(y), sag_shape2(s.dim[0], c)));
        double *want = calloc((size_t)(s.dim[0] * c), sizeof *want);
        for (int64_t e = 0; e < sag_tensor_numel(x); e++) want[e / c / hw * c + e % c] += (double)f32(x)[e];
        assert_close(f32(y), want, s.dim[0] * c, 1e-7);
        free(want);
        if (t < 2) check_gradients(SAG_OP_global_sum_pool, &x, NULL, 1, 0.5, 1e-5);
        check_threads(SAG_OP_global_sum_pool, &x, NULL, 1);
        sag_tensor_release(x);
        sag_tensor_release(y);
    }
}

static void test_errors(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *x = make_tensor(sag_shape4(1, 4, 4, 2), 1), *flat = make_tensor(sag_shape2(4, 4), 2), *out[SAG_MAX_OUT];
    double big[4] = {5, 1, 0, 1}, none[4] = {2, 0, 0, 1}, pad[4] = {2, 2, 2, 1}, half[4] = {2.5, 2, 0, 1};
    assert_fails(sag_op_apply(ctx, SAG_OP_mean_pool, &x, big, out), SAG_ERR_SHAPE, "does not fit");
    assert_fails(sag_op_apply(ctx, SAG_OP_max_pool, &x, none, out), SAG_ERR_ARG, "stride = 0");
    assert_fails(sag_op_apply(ctx, SAG_OP_max_pool, &x, pad, out), SAG_ERR_ARG, "less than size");
    assert_fails(sag_op_apply(ctx, SAG_OP_mean_pool, &x, half, out), SAG_ERR_ARG, "size = 2.5");
    const sag_op ops[] = {SAG_OP_mean_pool, SAG_OP_max_pool, SAG_OP_upsample, SAG_OP_global_sum_pool};
    for (int i = 0; i < 4; i++) assert_fails(sag_op_apply(ctx, ops[i], &flat, NULL, out), SAG_ERR_SHAPE, "{N, H, W, C}");
    sag_tensor_release(x);
    sag_tensor_release(flat);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mean_pool), cmocka_unit_test(test_max_pool),        cmocka_unit_test(test_max_pool_ties_and_nan),
        cmocka_unit_test(test_upsample), cmocka_unit_test(test_global_sum_pool), cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
