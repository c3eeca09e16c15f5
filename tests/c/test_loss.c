/* test_loss.c - the GAN losses and cross entropy against their formulas in double. */
#include "testing.h"

static double softplus(double x)
{
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* Cost of one logit and its slope. kind: 0 hinge, 1 bce, 2 wasserstein; role: 0 real, 1 fake, 2 generator. */
static double cost(int kind, int role, double x, double *slope)
{
    if (kind == 1) {
        *slope = role == 1 ? sigmoid(x) : -sigmoid(-x);
        return softplus(role == 1 ? x : -x);
    }
    const double sign = role == 1 ? 1 : -1;
    if (kind == 2 || role == 2) {
        *slope = sign;
        return sign * x;
    }
    *slope = 1 + sign * x > 0 ? sign : 0;
    return fmax(0, 1 + sign * x);
}

static const sag_op d_ops[] = {SAG_OP_hinge_d, SAG_OP_bce_d, SAG_OP_wasserstein_d};
static const sag_op g_ops[] = {SAG_OP_hinge_g, SAG_OP_bce_g, SAG_OP_wasserstein_g};

/* One loss with a gradient of `seed` from above, values and gradients. */
static void compare(int kind, bool generator, sag_tensor *real, sag_tensor *fake, float seed)
{
    sag_tensor *in[2] = {generator ? fake : real, generator ? NULL : fake};
    double want = 0;
    double *slope[2] = {NULL, NULL};
    for (int i = 0; i < 2 && in[i]; i++) {
        const int64_t n = sag_tensor_numel(in[i]);
        slope[i] = malloc((size_t)n * sizeof(double));
        for (int64_t k = 0; k < n; k++) {
            want += cost(kind, generator ? 2 : i, (double)f32(in[i])[k], &slope[i][k]) / (double)n;
            slope[i][k] *= (double)seed / (double)n;
        }
        assert_ok(sag_tensor_require_grad(in[i]));
        assert_ok(sag_tensor_zero_grad(in[i]));
    }
    sag_tensor *y = apply(generator ? g_ops[kind] : d_ops[kind], in, NULL);
    assert_int_equal(sag_tensor_numel(y), 1);
    if (!(fabs((double)f32(y)[0] - want) <= 1e-6 * fmax(1, fabs(want))))
        fail_msg("kind %d, generator %d: %.9g, want %.9g", kind, generator, (double)f32(y)[0], want);
    assert_ok(sag_tape_backward(y, seed));
    for (int i = 0; i < 2 && in[i]; i++) {
        assert_close(f32(sag_tensor_grad(in[i])), slope[i], sag_tensor_numel(in[i]), 1e-6);
        free(slope[i]);
    }
    sag_tensor_release(y);
}

static void test_gan_losses(void **state)
{
    (void)state;
    const int64_t sizes[][2] = {{1, 1}, {7, 7}, {13, 64}, {9001, 5}};
    for (int s = 0; s < 4; s++) {
        sag_tensor *real = make_tensor_between(sag_shape2(sizes[s][0], 1), 1, -3, 3);
        sag_tensor *fake = make_tensor_between(sag_shape1(sizes[s][1]), 2, -3, 3);
        for (int kind = 0; kind < 3; kind++) {
            compare(kind, false, real, fake, 1);
            compare(kind, false, real, fake, -0.37f);
            compare(kind, true, real, fake, 2.5f);
        }
        sag_tensor_release(real);
        sag_tensor_release(fake);
    }
}

/* Exactly at the kink the gradient is 0, as PyTorch's relu; beside it it is not. */
static void test_hinge_kink(void **state)
{
    (void)state;
    const float r[] = {1, 0.9999999f, 1.0000001f, 2}, f[] = {-1, -0.9999999f, -1.0000001f, -2};
    sag_tensor *in[2] = {make_tensor_from(sag_shape1(4), r), make_tensor_from(sag_shape1(4), f)};
    for (int i = 0; i < 2; i++) assert_ok(sag_tensor_require_grad(in[i]));
    sag_tensor *y = apply(SAG_OP_hinge_d, in, NULL);
    assert_ok(sag_tape_backward(y, 1));
    for (int i = 0; i < 2; i++) {
        const float *g = f32(sag_tensor_grad(in[i])), slope = i ? 0.25f : -0.25f;
        assert_true(g[0] == 0 && g[1] == slope && g[2] == 0 && g[3] == 0);
    }
    sag_tensor_release(y);
    sag_tensor_release(in[0]);
    sag_tensor_release(in[1]);
}

static void test_extreme_logits(void **state)
{
    (void)state;
    const float x[] = {1e4f, -1e4f, 0, 80};
    sag_tensor *in[2] = {make_tensor_from(sag_shape1(4), x), make_tensor_from(sag_shape1(4), x)};
    for (int kind = 0; kind < 3; kind++) {
        compare(kind, false, in[0], in[1], 1);
        compare(kind, true, in[0], in[1], 1);
    }
    set_f32(in[0], 2, NAN); /* a NaN must reach the loss, hinge too */
    for (int kind = 0; kind < 3; kind++) {
        sag_tensor *y = apply(d_ops[kind], in, NULL), *g = apply(g_ops[kind], in, NULL);
        assert_true(isnan(f32(y)[0]) && isnan(f32(g)[0]));
        sag_tensor_release(y);
        sag_tensor_release(g);
    }
    sag_tape_clear(testing_context());
    sag_tensor_release(in[0]);
    sag_tensor_release(in[1]);
}

static void test_cross_entropy(void **state)
{
    (void)state;
    enum { N = 11, K = 23 };
    const float ranges[] = {2, 1e4f};
    for (int k = 0; k < 2; k++) {
        int32_t labels[N];
        for (int i = 0; i < N; i++) labels[i] = (i * 7) % K;
        sag_tensor *in[2] = {make_tensor_between(sag_shape2(N, K), 3, -ranges[k], ranges[k]), make_i32(N, labels)};
        assert_ok(sag_tensor_require_grad(in[0]));
        sag_tensor *y = apply(SAG_OP_cross_entropy, in, NULL);
        assert_ok(sag_tape_backward(y, -1.5f));
        double want = 0, grad[N * K];
        for (int i = 0; i < N; i++) {
            const float *x = f32(in[0]) + i * K;
            double top = -INFINITY, sum = 0;
            for (int c = 0; c < K; c++) top = fmax(top, (double)x[c]);
            for (int c = 0; c < K; c++) sum += exp((double)x[c] - top);
            want += (top + log(sum) - (double)x[labels[i]]) / N;
            for (int c = 0; c < K; c++)
                grad[i * K + c] = -1.5 / N * (exp((double)x[c] - top) / sum - (c == labels[i] ? 1 : 0));
        }
        assert_true(fabs((double)f32(y)[0] - want) <= 1e-6 * want);
        assert_close(f32(sag_tensor_grad(in[0])), grad, N * K, 1e-6);
        sag_tensor_release(y);
        sag_tensor_release(in[0]);
        sag_tensor_release(in[1]);
    }
}

static void test_gradients(void **state)
{
    (void)state;
    const int32_t labels[] = {2, 0, 4};
    sag_tensor *in[2] = {make_tensor(sag_shape1(6), 1), make_tensor(sag_shape1(9), 2)};
    sag_tensor *classes[2] = {make_tensor(sag_shape2(3, 5), 3), make_i32(3, labels)};
    for (int kind = 0; kind < 3; kind++) { /* logits in (-1, 1) stay clear of the hinge's kinks */
        check_gradients(d_ops[kind], in, NULL, 3, 1e-2, 1e-3);
        check_gradients(g_ops[kind], in, NULL, 1, 1e-2, 1e-3);
    }
    check_gradients(SAG_OP_cross_entropy, classes, NULL, 1, 1e-2, 1e-3);
    for (int i = 0; i < 2; i++) {
        sag_tensor_release(in[i]);
        sag_tensor_release(classes[i]);
    }
}

static void test_threads(void **state)
{
    (void)state;
    int32_t labels[3000];
    for (int i = 0; i < 3000; i++) labels[i] = i % 10;
    sag_tensor *in[2] = {make_tensor(sag_shape1(40001), 1), make_tensor(sag_shape1(20011), 2)};
    sag_tensor *classes[2] = {make_tensor(sag_shape2(3000, 10), 3), make_i32(3000, labels)};
    for (int kind = 0; kind < 3; kind++) check_threads(d_ops[kind], in, NULL, 3);
    check_threads(SAG_OP_cross_entropy, classes, NULL, 1);
    for (int i = 0; i < 2; i++) {
        sag_tensor_release(in[i]);
        sag_tensor_release(classes[i]);
    }
}

static void test_bad_input(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *out[SAG_MAX_OUT], *logits = make_tensor(sag_shape2(2, 3), 1);
    for (int k = 0; k < 2 && testing_device() == SAG_CPU; k++) { /* CUDA skips such rows: test_conformance_bits.c */
        const int32_t labels[] = {1, k ? 3 : -1};
        sag_tensor *in[2] = {logits, make_i32(2, labels)};
        assert_index_refused(sag_op_apply(ctx, SAG_OP_cross_entropy, in, NULL, out), out, "label");
        sag_tensor_release(in[1]);
    }
    const int32_t three[] = {0, 1, 2};
    sag_tensor *in[2] = {logits, make_i32(3, three)};
    assert_fails(sag_op_apply(ctx, SAG_OP_cross_entropy, in, NULL, out), SAG_ERR_SHAPE, "one for each row");
    sag_tensor *whole[2] = {in[1], logits};
    assert_fails(sag_op_apply(ctx, SAG_OP_hinge_d, whole, NULL, out), SAG_ERR_DTYPE, "f32");
    sag_tensor_release(in[1]);
    sag_tensor_release(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gan_losses),    cmocka_unit_test(test_hinge_kink), cmocka_unit_test(test_extreme_logits),
        cmocka_unit_test(test_cross_entropy), cmocka_unit_test(test_gradients),  cmocka_unit_test(test_threads),
        cmocka_unit_test(test_bad_input),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
