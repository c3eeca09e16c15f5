/* test_reduce.c - sums, means, norm, extremes and counts against plain loops in double. */
#include "testing.h"

static const sag_shape shapes[] = {{1, {1}}, {1, {1025}}, {2, {7, 5}}, {2, {5, 3000}}, {3, {3, 4, 5}}, {4, {2, 9, 3, 5}},
                                   {4, {3, 40, 41, 17}}, {2, {2, 1500}}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void check_axis(sag_op op, sag_shape s, int axis)
{
    double attr = axis;
    sag_tensor *x = make_tensor_between(s, 3, 0, 1), *y = apply(op, &x, &attr);
    int64_t n = sag_tensor_numel(x), inner = 1, length = n;
    for (int d = axis + 1; d < s.rank && axis >= 0; d++) inner *= s.dim[d];
    if (axis >= 0) length = s.dim[axis];
    int64_t count = n / length;
    assert_int_equal(sag_tensor_numel(y), count);
    assert_int_equal(sag_tensor_shape(y).rank, axis < 0 || s.rank == 1 ? 1 : s.rank - 1);
    double *want = calloc((size_t)count, sizeof *want);
    for (int64_t e = 0; e < n; e++) {
        int64_t at = axis < 0 ? 0 : e / inner / length * inner + e % inner;
        want[at] += (double)f32(x)[e] / (op == SAG_OP_mean ? (double)length : 1.0);
    }
    assert_close(f32(y), want, count, 1.5e-7);
    free(want);
    sag_tensor_release(y);
    if (n < 3000) check_gradients(op, &x, &attr, 1, 64, 2e-5); /* linear: a long step drowns the rounding */
    check_threads(op, &x, &attr, 1);
    sag_tensor_release(x);
}

static void test_sum_and_mean(void **state)
{
    (void)state;
    for (int t = 0; t < SHAPES; t++) {
        for (int axis = -1; axis < shapes[t].rank; axis++) {
            check_axis(SAG_OP_sum, shapes[t], axis);
            check_axis(SAG_OP_mean, shapes[t], axis);
        }
    }
}

/* 16.8 million numbers: a running f32 sum of ones would stop at 2^24, and one of fractions lose digits from piece to piece. */
static void test_long_sum(void **state)
{
    (void)state;
    int64_t n = (1 << 24) + 4099;
    sag_tensor *x = make_tensor_between(sag_shape1(n), 9, 0, 1);
    double want = 0;
    for (int64_t i = 0; i < n; i++) want += (double)f32(x)[i];
    sag_tensor *y = apply(SAG_OP_sum, &x, NULL);
    assert_close(f32(y), &want, 1, 6.5e-8); /* the rounding of the result is 6e-8 */
    sag_tensor_release(y);
    float *p = edit_f32(x);
    for (int64_t i = 0; i < n; i++) p[i] = 1;
    end_edit(x, p);
    y = apply(SAG_OP_sum, &x, NULL);
    assert_true(f32(y)[0] == (float)n);
    sag_tensor_release(x);
    sag_tensor_release(y);
}

static void test_norm(void **state)
{
    (void)state;
    for (int t = 0; t < SHAPES; t++) {
        sag_tensor *x = make_tensor(shapes[t], 3), *y = apply(SAG_OP_norm, &x, NULL);
        double want = 0;
        for (int64_t e = 0; e < sag_tensor_numel(x); e++) want += (double)f32(x)[e] * (double)f32(x)[e];
        want = sqrt(want);
        assert_close(f32(y), &want, 1, 1.5e-7);
        if (sag_tensor_numel(x) < 3000) check_gradients(SAG_OP_norm, &x, NULL, 1, 1e-2, 2e-3);
        check_threads(SAG_OP_norm, &x, NULL, 1);
        sag_tensor_release(x);
        sag_tensor_release(y);
    }
    sag_tensor *zero = make_tensor_from(sag_shape1(3), (float[]){0, 0, 0});
    assert_ok(sag_tensor_require_grad(zero));
    sag_tensor *y = apply(SAG_OP_norm, &zero, NULL);
    assert_ok(sag_tape_backward(y, 1));
    for (int i = 0; i < 3; i++) assert_true(f32(sag_tensor_grad(zero))[i] == 0.0f);
    sag_tensor_release(zero);
    sag_tensor_release(y);
}

static float whole(sag_op op, sag_tensor *x)
{
    sag_tensor *y = apply(op, &x, NULL);
    float v = f32(y)[0];
    sag_tensor_release(y);
    return v;
}

static void test_extremes_and_counts(void **state)
{
    (void)state;
    const int64_t sizes[] = {1, 5, 16, 35, 70001};
    for (int t = 0; t < 5; t++) {
        int64_t n = sizes[t];
        sag_tensor *x = make_tensor(sag_shape1(n), 4);
        for (int64_t k = 0; k < n; k += n > 100 ? n / 41 : 1) { /* the extreme at every kind of place */
            const float old = f32(x)[k];
            set_f32(x, k, 3);
            assert_true(whole(SAG_OP_max, x) == 3.0f);
            set_f32(x, k, -3);
            assert_true(whole(SAG_OP_min, x) == -3.0f);
            assert_true(whole(SAG_OP_count_nonfinite, x) == 0.0f);
            set_f32(x, k, k % 2 == 0 ? NAN : -NAN);
            assert_true(isnan(whole(SAG_OP_max, x)) && isnan(whole(SAG_OP_min, x)));
            assert_true(whole(SAG_OP_count_nonfinite, x) == 1.0f);
            set_f32(x, k, -INFINITY);
            assert_true(whole(SAG_OP_min, x) == -INFINITY);
            assert_true(n == 1 || whole(SAG_OP_max, x) <= 1.0f);
            assert_true(whole(SAG_OP_count_nonfinite, x) == 1.0f);
            set_f32(x, k, old);
        }
        check_threads(SAG_OP_max, &x, NULL, 0);
        check_threads(SAG_OP_count_nonfinite, &x, NULL, 0);
        float *p = edit_f32(x);
        for (int64_t k = 0; k < n; k++) p[k] = INFINITY;
        end_edit(x, p);
        assert_true(whole(SAG_OP_count_nonfinite, x) == (float)n);
        sag_tensor_release(x);
    }
}

static void test_argmax(void **state)
{
    (void)state;
    const float v[] = {1, 3, 3, 2, -1, -2, NAN, INFINITY, NAN, -INFINITY, -INFINITY, -INFINITY};
    sag_tensor *x = make_tensor_from(sag_shape2(3, 4), v), *y = apply(SAG_OP_argmax, &x, NULL);
    assert_int_equal(sag_tensor_dtype(y), SAG_I32);
    assert_true(sag_shape_equal(sag_tensor_shape(y), sag_shape1(3)));
    assert_memory_equal(host_data(y), ((const int32_t[]){1, 2, 0}), 12);
    sag_tensor_release(x);
    sag_tensor_release(y);
    x = make_tensor_from(sag_shape1(4), v);
    y = apply(SAG_OP_argmax, &x, NULL);
    assert_true(sag_shape_equal(sag_tensor_shape(y), sag_shape1(1)) && i32(y)[0] == 1);
    sag_tensor_release(x);
    sag_tensor_release(y);
}

static void test_errors(void **state)
{
    (void)state;
    sag_tensor *x = make_tensor(sag_shape2(2, 3), 1), *i = make_i32(2, (int32_t[]){1, 2}), *out[SAG_MAX_OUT];
    double axis = 2;
    assert_fails(sag_op_apply(testing_context(), SAG_OP_sum, &x, &axis, out), SAG_ERR_ARG, "axis = 2");
    assert_fails(sag_op_apply(testing_context(), SAG_OP_mean, &i, NULL, out), SAG_ERR_DTYPE, "i32");
    assert_fails(sag_op_apply(testing_context(), SAG_OP_argmax, &i, NULL, out), SAG_ERR_DTYPE, "i32");
    sag_tensor_release(x);
    sag_tensor_release(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum_and_mean),        cmocka_unit_test(test_long_sum), cmocka_unit_test(test_norm),
        cmocka_unit_test(test_extremes_and_counts), cmocka_unit_test(test_argmax),   cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
