/* test_profile.c - calls, arithmetic and traffic by kernel: the figures that one can count by hand. */
#include "testing.h"

static sag_profile_row row_of(const char *kernel)
{
    sag_profile_row rows[128];
    int n = sag_profile_read(testing_context(), rows, 128);
    for (int i = 0; i < n; i++) {
        if (strcmp(rows[i].kernel, kernel) == 0) return rows[i];
    }
    return (sag_profile_row){.kernel = kernel};
}

static void start(void)
{
    sag_profile_enable(testing_context(), true);
    sag_profile_reset(testing_context());
}

static void expect(const char *kernel, int64_t calls, double flops, double bytes)
{
    sag_profile_row row = row_of(kernel);
    if (row.calls != calls || row.flops != flops || row.bytes != bytes)
        fail_msg("%s: %lld calls, %.0f flops, %.0f bytes; wanted %lld, %.0f, %.0f", kernel, (long long)row.calls, row.flops,
                 row.bytes, (long long)calls, flops, bytes);
    assert_true(row.seconds >= 0);
}

static void release_all(sag_tensor **t, int n)
{
    for (int i = 0; i < n; i++) sag_tensor_release(t[i]);
}

static void test_products(void **state)
{
    (void)state;
    sag_tensor *in[3] = {make_tensor(sag_shape2(3, 5), 1), make_tensor(sag_shape2(5, 7), 2), NULL};
    start();
    for (int i = 0; i < 2; i++) sag_tensor_release(apply(SAG_OP_matmul, in, NULL));
    expect("matmul", 2, 2.0 * 2 * 3 * 5 * 7, 2 * 4.0 * (15 + 35 + 21));
    release_all(in, 2);
}

/* y = 2 x 3 x 4 pixels of 5 channels; the taps of the folded kernels: 4 a pixel of upconv's output, 16 of convpool's. */
static void test_convolutions(void **state)
{
    (void)state;
    const double attr[4] = {1, 1, 1};
    sag_tensor *in[5] = {make_tensor(sag_shape4(2, 6, 4, 3), 1), make_tensor(sag_shape4(5, 3, 3, 3), 2), NULL};
    const double x = 2 * 6 * 4 * 3, w = 5 * 9 * 3, pixels = 2 * 6 * 4;
    assert_ok(sag_tensor_require_grad(in[0]));
    assert_ok(sag_tensor_require_grad(in[1]));
    start();
    for (int i = 0; i < 2; i++) { /* the second gradient is added to the first: one more read of dx and dw */
        sag_tensor *y = apply(SAG_OP_conv2d, in, attr), *dy = make_tensor(sag_tensor_shape(y), 3);
        assert_ok(sag_tape_backward_from(y, dy));
        sag_tensor_release(y);
        sag_tensor_release(dy);
    }
    expect("conv2d_fwd", 2, 2 * 2 * pixels * 5 * 27, 2 * 4 * (x + w + pixels * 5));
    expect("conv2d_bwd_x", 2, 2 * 2 * pixels * 5 * 27, 4 * (x * 3 + w * 2 + pixels * 5 * 2));
    expect("conv2d_bwd_w", 2, 2 * 2 * pixels * 5 * 27, 4 * (x * 2 + w * 3 + pixels * 5 * 2));
    in[3] = make_tensor(sag_shape4(2, 3, 2, 5), 4);
    start();
    sag_tensor *y = apply(SAG_OP_conv2d, in, (double[4]){1, 1, 1, 1}), *dy = make_tensor(sag_tensor_shape(y), 3);
    assert_ok(sag_tape_backward_from(y, dy)); /* also added to: the mask of relu is one more read of x */
    expect("conv2d_fwd", 1, 2 * pixels * 5 * 27, 4 * (x + w + pixels * 5 + pixels / 4 * 5));
    expect("conv2d_bwd_x", 1, 2 * pixels * 5 * 27, 4 * (x * 3 + w + pixels * 5));
    expect("unary_fwd", 0, 0, 0);
    sag_tensor_release(y);
    sag_tensor_release(dy);
    sag_tensor_release(in[3]);
    in[3] = in[4] = NULL;
    sag_tensor_release(apply(SAG_OP_upconv, in, NULL));
    sag_tensor_release(apply(SAG_OP_convpool, in, NULL));
    expect("upconv_fwd", 1, 2 * 4 * pixels * 5 * 4 * 3, 4 * (x + w + 4 * pixels * 5));
    expect("convpool_fwd", 1, 2 * pixels / 4 * 5 * 16 * 3, 4 * (x + w + pixels / 4 * 5));
    /* 25 products for 2x2 small pixels; convpool's map of 3x2 needs two such squares */
    assert_true(row_of("upconv_fwd").done == 2 * 25 * pixels / 4 * 5 * 3);
    assert_true(row_of("convpool_fwd").done == 2 * 25 * 2 * 2 * 5 * 3);
    assert_true(row_of("conv2d_fwd").done == row_of("conv2d_fwd").flops); /* too small for Winograd's algorithm */
    release_all(in, 2);
}

static void test_passes_over_memory(void **state)
{
    (void)state;
    sag_tensor *in[2] = {make_tensor(sag_shape2(4, 10), 1), make_tensor(sag_shape1(10), 2)};
    start();
    sag_tensor_release(apply(SAG_OP_add, in, NULL));
    expect("binary_fwd", 1, 40, 4 * (40 + 10 + 40));
    sag_tensor_release(apply(SAG_OP_relu, in, NULL));
    expect("unary_fwd", 1, 40, 4 * 80);
    assert_ok(sag_tensor_require_grad(in[0]));
    assert_non_null(sag_tensor_grad(in[0])); /* one that nobody has asked for takes no pass to clear */
    assert_ok(sag_tensor_zero_grad(in[0]));
    expect("fill", 1, 0, 4 * 40);
    release_all(in, 2);
}

static void test_stops_and_starts_from_zero(void **state)
{
    (void)state;
    sag_tensor *x = make_tensor(sag_shape1(9), 1);
    start();
    sag_tensor_release(apply(SAG_OP_relu, &x, NULL));
    sag_profile_enable(testing_context(), false);
    sag_tensor_release(apply(SAG_OP_relu, &x, NULL));
    assert_int_equal(row_of("unary_fwd").calls, 1);
    start();
    assert_int_equal(row_of("unary_fwd").calls, 0);
    sag_profile_enable(testing_context(), false);
    sag_tensor_release(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_convolutions),
        cmocka_unit_test(test_passes_over_memory),
        cmocka_unit_test(test_stops_and_starts_from_zero),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
