/* test_pointwise.c - functions of one and two tensors and the gate, against plain loops in double. */
#include "testing.h"

/* ------------------------------------------------------------------------------------------------ unary */

typedef struct unary_case {
    sag_op op;
    double (*f)(double);
    float low, high; /* where values and gradients are compared */
} unary_case;

static double ref_relu(double x) { return x > 0 ? x : 0; }
static double ref_leaky(double x) { return x > 0 ? x : 0.2 * x; }
static double ref_sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double ref_softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }
static double ref_square(double x) { return x * x; }
static double ref_scale(double x) { return x; }

static const unary_case unary_cases[] = {
    {SAG_OP_relu, ref_relu, -2, 2},      {SAG_OP_leaky_relu, ref_leaky, -2, 2}, {SAG_OP_tanh, tanh, -3, 3},
    {SAG_OP_sigmoid, ref_sigmoid, -6, 6}, {SAG_OP_softplus, ref_softplus, -6, 6}, {SAG_OP_exp, exp, -4, 4},
    {SAG_OP_log, log, 0.5f, 4},          {SAG_OP_sqrt, sqrt, 0.5f, 4},         {SAG_OP_square, ref_square, -2, 2},
    {SAG_OP_abs, fabs, -2, 2},           {SAG_OP_scale, ref_scale, -2, 2},
};
enum { UNARY_CASES = sizeof unary_cases / sizeof *unary_cases };

static void test_unary_values(void **state)
{
    (void)state;
    const int64_t sizes[] = {1, 7, 16, 33, 100003};
    for (int k = 0; k < UNARY_CASES; k++) {
        for (int s = 0; s < 5; s++) {
            int64_t n = sizes[s];
            sag_tensor *x = make_tensor_between(sag_shape1(n), (uint64_t)(k + s), unary_cases[k].low, unary_cases[k].high);
            sag_tensor *y = apply(unary_cases[k].op, &x, NULL);
            double *want = malloc((size_t)n * sizeof *want);
            for (int64_t i = 0; i < n; i++) {
                want[i] = unary_cases[k].f((double)f32(x)[i]);
                double bound = 4e-7 * fabs(want[i]) + 1e-37;
                if (!(fabs((double)f32(y)[i] - want[i]) <= bound)) {
                    fail_msg("%s(%.9g) = %.9g, wanted %.9g", sag_op_describe(unary_cases[k].op)->name, (double)f32(x)[i],
                             (double)f32(y)[i], want[i]);
                }
            }
            free(want);
            sag_tensor_release(x);
            sag_tensor_release(y);
        }
    }
}

static void test_unary_gradients(void **state)
{
    (void)state;
    for (int k = 0; k < UNARY_CASES; k++) {
        sag_tensor *x = make_tensor_between(sag_shape2(7, 19), 3, unary_cases[k].low, unary_cases[k].high);
        float *p = edit_f32(x);
        for (int i = 0; i < 7 * 19; i++) { /* no difference across a kink */
            if (fabsf(p[i]) < 0.02f) p[i] = 0.5f;
        }
        end_edit(x, p);
        check_gradients(unary_cases[k].op, &x, NULL, 1, 1e-2, 2e-4);
        sag_tensor_release(x);
        x = make_tensor_between(sag_shape1(150001), 4, unary_cases[k].low, unary_cases[k].high);
        check_threads(unary_cases[k].op, &x, NULL, 1);
        sag_tensor_release(x);
    }
}

static float run_one(sag_op op, float v, const double *attr, float *gradient)
{
    sag_tensor *x = make_tensor_from(sag_shape1(1), &v);
    assert_ok(sag_tensor_require_grad(x));
    sag_tensor *y = apply(op, &x, attr);
    float r = f32(y)[0];
    assert_ok(sag_tape_backward(y, 1));
    if (gradient) *gradient = f32(sag_tensor_grad(x))[0];
    sag_tensor_release(x);
    sag_tensor_release(y);
    return r;
}

static void test_unary_special_values(void **state)
{
    (void)state;
    float g;
    for (int k = 0; k < UNARY_CASES; k++) {
        float y = run_one(unary_cases[k].op, NAN, NULL, NULL);
        if (!isnan(y)) fail_msg("%s(NaN) = %g", sag_op_describe(unary_cases[k].op)->name, (double)y);
    }
    assert_true(isinf(run_one(SAG_OP_exp, 89.0f, NULL, NULL)));
    assert_true(isinf(run_one(SAG_OP_exp, INFINITY, NULL, NULL)));
    assert_true(run_one(SAG_OP_exp, -INFINITY, NULL, NULL) == 0.0f);
    assert_true(run_one(SAG_OP_exp, -100.0f, NULL, NULL) > 0.0f); /* subnormal */
    assert_true(run_one(SAG_OP_exp, 0.0f, NULL, NULL) == 1.0f);
    assert_true(run_one(SAG_OP_log, 0.0f, NULL, NULL) == -INFINITY);
    assert_true(run_one(SAG_OP_log, INFINITY, NULL, NULL) == INFINITY);
    assert_true(isnan(run_one(SAG_OP_log, -1.0f, NULL, NULL)));
    assert_true(run_one(SAG_OP_log, 1.0f, NULL, NULL) == 0.0f);
    assert_float_equal(run_one(SAG_OP_log, 1e-40f, NULL, NULL), -92.1034037, 1e-4);
    assert_true(run_one(SAG_OP_tanh, 50.0f, NULL, &g) == 1.0f && g == 0.0f);
    assert_true(run_one(SAG_OP_tanh, -INFINITY, NULL, NULL) == -1.0f);
    assert_true(run_one(SAG_OP_softplus, 1000.0f, NULL, &g) == 1000.0f && g == 1.0f);
    assert_true(run_one(SAG_OP_softplus, -1000.0f, NULL, &g) == 0.0f && g == 0.0f);
    assert_float_equal(run_one(SAG_OP_softplus, -40.0f, NULL, NULL) * 1e18f, 4.248354255, 1e-5);
    assert_true(run_one(SAG_OP_sigmoid, -1000.0f, NULL, NULL) == 0.0f);
    assert_true(run_one(SAG_OP_sigmoid, 1000.0f, NULL, &g) == 1.0f && g == 0.0f);
    run_one(SAG_OP_relu, 0.0f, NULL, &g);
    assert_true(g == 0.0f);
    run_one(SAG_OP_abs, 0.0f, NULL, &g);
    assert_true(g == 0.0f);
    double slope = 0.1, affine[2] = {3, -0.5};
    assert_float_equal(run_one(SAG_OP_leaky_relu, -2.0f, &slope, &g), -0.2, 1e-7);
    assert_float_equal(g, 0.1, 1e-7);
    assert_float_equal(run_one(SAG_OP_scale, 2.0f, affine, &g), 5.5, 1e-7);
    assert_float_equal(g, 3, 0);
}

/* A value has the same bits wherever it stands: in a full vector, in a tail, alone. */
static void test_position_does_not_matter(void **state)
{
    (void)state;
    for (int k = 0; k < UNARY_CASES; k++) {
        sag_tensor *x = make_tensor_between(sag_shape1(67), 9, unary_cases[k].low, unary_cases[k].high);
        sag_tensor *y = apply(unary_cases[k].op, &x, NULL);
        for (int i = 0; i < 67; i++) {
            float alone = run_one(unary_cases[k].op, f32(x)[i], NULL, NULL);
            assert_memory_equal(&alone, f32(y) + i, sizeof alone);
        }
        sag_tensor_release(x);
        sag_tensor_release(y);
    }
}

/* ----------------------------------------------------------------------------------------------- binary */

static double ref_binary(sag_op op, double a, double b)
{
    switch (op) {
    case SAG_OP_add: return a + b;
    case SAG_OP_sub: return a - b;
    case SAG_OP_mul: return a * b;
    default: return a / b;
    }
}
static const sag_op binary_ops[] = {SAG_OP_add, SAG_OP_sub, SAG_OP_mul, SAG_OP_div};

static void test_binary(void **state)
{
    (void)state;
    const sag_shape a_shapes[] = {sag_shape1(5), sag_shape4(2, 5, 3, 3), sag_shape4(2, 5, 3, 3), sag_shape4(3, 7, 11, 17),
                                  sag_shape2(3, 1300), sag_shape3(4, 3, 2), sag_shape2(40, 1)};
    const sag_shape b_shapes[] = {sag_shape1(5), sag_shape1(1), sag_shape1(3), sag_shape2(11, 17),
                                  sag_shape1(1300), sag_shape3(4, 3, 2), sag_shape1(1)};
    for (int k = 0; k < 4; k++) {
        for (int s = 0; s < 7; s++) {
            sag_tensor *in[2] = {make_tensor(a_shapes[s], 1), make_tensor_between(b_shapes[s], 2, 0.5f, 2)};
            sag_tensor *y = apply(binary_ops[k], in, NULL);
            assert_true(sag_shape_equal(sag_tensor_shape(y), a_shapes[s]));
            int64_t n = sag_tensor_numel(in[0]), nb = sag_tensor_numel(in[1]);
            double *want = malloc((size_t)n * sizeof *want);
            for (int64_t i = 0; i < n; i++) want[i] = ref_binary(binary_ops[k], (double)f32(in[0])[i], (double)f32(in[1])[i % nb]);
            assert_close(f32(y), want, n, 1e-7);
            free(want);
            sag_tensor_release(y);
            check_gradients(binary_ops[k], in, NULL, 3, 1e-2, 5e-4);
            check_threads(binary_ops[k], in, NULL, 3);
            sag_tensor_release(in[0]);
            sag_tensor_release(in[1]);
        }
        /* several pieces, whose borders fall inside the repeats of b */
        sag_tensor *in[2] = {make_tensor(sag_shape4(6, 40, 40, 23), 1), make_tensor_between(sag_shape1(23), 2, 0.5f, 2)};
        sag_tensor *y = apply(binary_ops[k], in, NULL);
        for (int64_t i = 0; i < sag_tensor_numel(y); i++) {
            double want = ref_binary(binary_ops[k], (double)f32(in[0])[i], (double)f32(in[1])[i % 23]);
            assert_true(fabs((double)f32(y)[i] - want) <= 6e-8 * (1 + fabs(want)));
        }
        sag_tensor_release(y);
        check_threads(binary_ops[k], in, NULL, 3);
        sag_tensor_release(in[0]);
        sag_tensor_release(in[1]);
    }
}

/* The sum over repeats of a broadcast operand, large enough that a careless f32 sum would drift. */
static void test_broadcast_sum_is_accurate(void **state)
{
    (void)state;
    int64_t rows = 200000, cols = 3;
    sag_tensor *a = make_tensor_between(sag_shape2(rows, cols), 5, 0.9f, 1.1f), *b = make_tensor(sag_shape1(cols), 6);
    sag_tensor *dy = make_tensor_between(sag_shape2(rows, cols), 7, 0.9f, 1.1f), *in[2] = {a, b};
    assert_ok(sag_tensor_require_grad(b));
    sag_tensor *y = apply(SAG_OP_mul, in, NULL);
    assert_ok(sag_tape_backward_from(y, dy));
    double want[3] = {0};
    for (int64_t i = 0; i < rows * cols; i++) want[i % cols] += (double)f32(a)[i] * (double)f32(dy)[i];
    assert_close(f32(sag_tensor_grad(b)), want, 3, 1e-7);
    sag_tensor_release(a);
    sag_tensor_release(b);
    sag_tensor_release(dy);
    sag_tensor_release(y);
}

/* y = a op a: both gradients meet in one tensor, also where add hands them on without a copy. */
static void test_one_tensor_twice(void **state)
{
    (void)state;
    const double want[] = {2, 0, 2 * 0.5, 0};
    for (int k = 0; k < 4; k++) {
        float v = 0.5f;
        sag_tensor *x = make_tensor_from(sag_shape1(1), &v);
        assert_ok(sag_tensor_require_grad(x));
        double one[2] = {1, 0};
        sag_tensor *h = apply(SAG_OP_scale, &x, one), *in[2] = {h, h};
        sag_tensor *y = apply(binary_ops[k], in, NULL);
        assert_ok(sag_tape_backward(y, 1));
        assert_float_equal(f32(sag_tensor_grad(x))[0], want[k], 1e-6);
        sag_tensor_release(x);
        sag_tensor_release(h);
        sag_tensor_release(y);
    }
}

static void test_binary_errors(void **state)
{
    (void)state;
    sag_tensor *a = make_tensor(sag_shape2(4, 6), 1), *b = make_tensor(sag_shape1(4), 2), *c = make_tensor(sag_shape3(2, 4, 6), 3);
    sag_tensor *i = make_i32(6, (int32_t[]){0, 1, 2, 3, 4, 5}), *out[SAG_MAX_OUT];
    sag_tensor *ab[2] = {a, b}, *ac[2] = {a, c}, *ai[2] = {a, i}, *ia[2] = {i, i};
    for (int k = 0; k < 4; k++) {
        assert_fails(sag_op_apply(testing_context(), binary_ops[k], ab, NULL, out), SAG_ERR_SHAPE, "trailing dimensions");
        assert_fails(sag_op_apply(testing_context(), binary_ops[k], ac, NULL, out), SAG_ERR_SHAPE, "{2, 4, 6}");
        assert_fails(sag_op_apply(testing_context(), binary_ops[k], ai, NULL, out), SAG_ERR_DTYPE, "'b' is i32");
        assert_fails(sag_op_apply(testing_context(), binary_ops[k], ia, NULL, out), SAG_ERR_DTYPE, "must be f32");
    }
    assert_fails(sag_op_apply(testing_context(), SAG_OP_relu, &i, NULL, out), SAG_ERR_DTYPE, "relu");
    sag_tensor_release(a);
    sag_tensor_release(b);
    sag_tensor_release(c);
    sag_tensor_release(i);
}

/* ------------------------------------------------------------------------------------------------ gated */

static void test_gated_add(void **state)
{
    (void)state;
    float gamma = 0.3f;
    const sag_shape shapes[] = {sag_shape1(1), sag_shape4(2, 5, 7, 3), sag_shape3(9, 41, 200)};
    for (int s = 0; s < 3; s++) {
        sag_tensor *in[3] = {make_tensor(shapes[s], 1), make_tensor(shapes[s], 2), make_tensor_from(sag_shape1(1), &gamma)};
        int64_t n = sag_tensor_numel(in[0]);
        sag_tensor *y = apply(SAG_OP_gated_add, in, NULL);
        double *want = malloc((size_t)n * sizeof *want);
        for (int64_t i = 0; i < n; i++) want[i] = (double)f32(in[0])[i] + (double)gamma * (double)f32(in[1])[i];
        assert_close(f32(y), want, n, 1e-7);
        free(want);
        sag_tensor_release(y);
        if (n < 1000) check_gradients(SAG_OP_gated_add, in, NULL, 7, 1e-2, 2e-4);
        check_threads(SAG_OP_gated_add, in, NULL, 7);
        for (int i = 0; i < 3; i++) sag_tensor_release(in[i]);
    }
    sag_tensor *x = make_tensor(sag_shape1(4), 1), *o = make_tensor(sag_shape1(5), 2), *out[SAG_MAX_OUT];
    sag_tensor *wrong[3] = {x, o, x}, *gate[3] = {x, x, o};
    assert_fails(sag_op_apply(testing_context(), SAG_OP_gated_add, wrong, NULL, out), SAG_ERR_SHAPE, "equal shapes");
    assert_fails(sag_op_apply(testing_context(), SAG_OP_gated_add, gate, NULL, out), SAG_ERR_SHAPE, "'gamma'");
    sag_tensor_release(x);
    sag_tensor_release(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unary_values),
        cmocka_unit_test(test_unary_gradients),
        cmocka_unit_test(test_unary_special_values),
        cmocka_unit_test(test_position_does_not_matter),
        cmocka_unit_test(test_binary),
        cmocka_unit_test(test_broadcast_sum_is_accurate),
        cmocka_unit_test(test_one_tensor_twice),
        cmocka_unit_test(test_binary_errors),
        cmocka_unit_test(test_gated_add),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
