/* test_softmax.c - softmax and log_softmax over the last dimension. */
#include "testing.h"

static void reference(const float *x, int64_t rows, int64_t n, bool logarithm, double *y)
{
    for (int64_t r = 0; r < rows; r++, x += n, y += n) {
        double top = -INFINITY, sum = 0;
        for (int64_t c = 0; c < n; c++) top = fmax(top, (double)x[c]);
        for (int64_t c = 0; c < n; c++) sum += exp((double)x[c] - top);
        for (int64_t c = 0; c < n; c++) {
            const double logit = (double)x[c] - top - log(sum);
            y[c] = logarithm ? logit : exp(logit);
        }
    }
}

static void compare(sag_shape shape, float range)
{
    sag_tensor *x = make_tensor_between(shape, 1, -range, range);
    const int64_t n = sag_tensor_numel(x), cols = shape.dim[shape.rank - 1];
    double *want = malloc((size_t)n * sizeof *want);
    for (int k = 0; k < 2; k++) {
        sag_tensor *y = apply(k ? SAG_OP_log_softmax : SAG_OP_softmax, &x, NULL);
        assert_true(sag_shape_equal(sag_tensor_shape(y), shape));
        reference(f32(x), n / cols, cols, k == 1, want);
        assert_close(f32(y), want, n, 1e-6);
        sag_tensor_release(y);
    }
    free(want);
    sag_tensor_release(x);
}

static void test_values(void **state)
{
    (void)state;
    compare(sag_shape1(10), 1);
    compare(sag_shape2(7, 13), 3);
    compare(sag_shape3(2, 3, 1), 5); /* one column: 1 and 0 */
    compare(sag_shape4(2, 3, 5, 33), 2);
    compare(sag_shape2(40, 1000), 4);
    compare(sag_shape2(5, 17), 1e4f);
}

static void test_gradients(void **state)
{
    (void)state;
    sag_tensor *x = make_tensor_between(sag_shape2(5, 19), 2, -2, 2);
    check_gradients(SAG_OP_softmax, &x, NULL, 1, 1e-2, 2e-3);
    check_gradients(SAG_OP_log_softmax, &x, NULL, 1, 1e-2, 2e-3);
    sag_tensor_release(x);
}

/* dx = y (dy - sum(dy y)) and dx = dy - exp(y) sum(dy), in double. */
static void test_backward_formula(void **state)
{
    (void)state;
    const int64_t rows = 6, n = 37;
    double want[6 * 37], y[6 * 37];
    for (int k = 0; k < 2; k++) {
        sag_tensor *x = make_tensor_between(sag_shape2(rows, n), 3, -3, 3), *dy = make_tensor(sag_shape2(rows, n), 4);
        assert_ok(sag_tensor_require_grad(x));
        sag_tensor *out = apply(k ? SAG_OP_log_softmax : SAG_OP_softmax, &x, NULL);
        assert_ok(sag_tape_backward_from(out, dy));
        reference(f32(x), rows, n, false, y);
        for (int64_t r = 0; r < rows; r++) {
            double sum = 0;
            for (int64_t c = r * n; c < (r + 1) * n; c++) sum += (double)f32(dy)[c] * (k ? 1 : y[c]);
            for (int64_t c = r * n; c < (r + 1) * n; c++)
                want[c] = k ? (double)f32(dy)[c] - y[c] * sum : y[c] * ((double)f32(dy)[c] - sum);
        }
        assert_close(f32(sag_tensor_grad(x)), want, rows * n, 2e-6);
        sag_tensor_release(out);
        sag_tensor_release(x);
        sag_tensor_release(dy);
    }
}

static void test_extremes(void **state)
{
    (void)state;
    const float values[] = {-1e4f, 1e4f, 0, 1e4f, -INFINITY, 0, 3, NAN};
    sag_tensor *x = make_tensor_from(sag_shape2(2, 4), values);
    sag_tensor *y = apply(SAG_OP_softmax, &x, NULL), *l = apply(SAG_OP_log_softmax, &x, NULL);
    assert_true(f32(y)[0] == 0 && f32(y)[1] == 0.5f && f32(y)[2] == 0 && f32(y)[3] == 0.5f);
    assert_true(fabsf(f32(l)[0] + 20000.693f) < 0.01f && fabsf(f32(l)[1] + 0.693147f) < 1e-6f);
    for (int i = 4; i < 8; i++) assert_true(isnan(f32(y)[i]) && isnan(f32(l)[i])); /* a NaN is not hidden */
    sag_tensor_release(l);
    sag_tensor_release(y);
    sag_tensor_release(x);
}

static void test_threads(void **state)
{
    (void)state;
    sag_tensor *x = make_tensor_between(sag_shape2(301, 67), 5, -3, 3);
    check_threads(SAG_OP_softmax, &x, NULL, 1);
    check_threads(SAG_OP_log_softmax, &x, NULL, 1);
    sag_tensor_release(x);
}

static void test_bad_dtype(void **state)
{
    (void)state;
    const int32_t whole[] = {1, 2};
    sag_tensor *x = make_i32(2, whole), *out[SAG_MAX_OUT];
    assert_fails(sag_op_apply(testing_context(), SAG_OP_softmax, &x, NULL, out), SAG_ERR_DTYPE, "f32");
    sag_tensor_release(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),   cmocka_unit_test(test_gradients), cmocka_unit_test(test_backward_formula),
        cmocka_unit_test(test_extremes), cmocka_unit_test(test_threads),   cmocka_unit_test(test_bad_dtype),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
