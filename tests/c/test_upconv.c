/* upconv against upsample-then-convolve and convpool against convolve-then-mean, plain loops in double; gradients;
 * threads. */
#include "testing.h"

typedef struct fused_case {
    int64_t n, h, w, c, k; /* h and w of the smaller map */
} fused_case;

static const fused_case cases[] = {
    {1, 1, 1, 1, 1},    {2, 3, 5, 3, 5},     {1, 4, 4, 17, 33},   {2, 5, 2, 33, 3},  {3, 4, 4, 16, 16},
    {1, 7, 6, 5, 17},   {20, 8, 8, 8, 40},   {2, 6, 7, 1, 16},    {3, 9, 9, 130, 4}, {2, 6, 7, 96, 100},
    {1, 5, 4, 260, 40}, {140, 4, 2, 96, 96},                      /* weights too many to keep transformed */
    {2, 5, 6, 20, 100}, {1, 5, 4, 1000, 4},  {86, 2, 2, 1000, 4}, /* outputs, weight gradients in parts */
};
enum { CASES = sizeof cases / sizeof *cases, CPU_ALONE = 3 };

/* The last ones are the CPU's parts; a card sums 1000 channels in one chain, which test_conv_cuda measures. */
static int case_count(void)
{
    return testing_device() == SAG_CPU ? CASES : CASES - CPU_ALONE;
}

/* y {n,h,w,k} = 3x3 convolution with padding 1 of x {n,h,w,c}, in double */
static void plain_conv(const double *x, const float *w, const float *b, int64_t n, int64_t h, int64_t v, int64_t c,
                       int64_t k, double *y)
{
    for (int64_t m = 0; m < n * h * v; m++)
        for (int64_t o = 0; o < k; o++) {
            int64_t g = m / (h * v), i = m / v % h, j = m % v;
            double sum = (double)b[o];
            for (int64_t r = 0; r < 3; r++)
                for (int64_t s = 0; s < 3; s++) {
                    int64_t a = i + r - 1, e = j + s - 1;
                    if (a < 0 || a >= h || e < 0 || e >= v) continue;
                    for (int64_t q = 0; q < c; q++)
                        sum += x[((g * h + a) * v + e) * c + q] * (double)w[((o * 3 + r) * 3 + s) * c + q];
                }
            y[m * k + o] = sum;
        }
}

static double *doubles(int64_t n)
{
    return calloc((size_t)n, sizeof(double));
}

static void case_tensors(const fused_case *t, int64_t factor, uint64_t seed, sag_tensor **in)
{
    in[0] = make_tensor(sag_shape4(t->n, factor * t->h, factor * t->w, t->c), seed);
    in[1] = make_tensor(sag_shape4(t->k, 3, 3, t->c), seed + 1);
    in[2] = make_tensor(sag_shape1(t->k), seed + 2);
    in[3] = NULL;
}

static void release_three(sag_tensor **in)
{
    for (int i = 0; i < 3; i++) sag_tensor_release(in[i]);
}

static void upconv_is_upsample_then_conv(void **state)
{
    (void)state;
    for (int i = 0; i < case_count(); i++) {
        const fused_case *t = &cases[i];
        sag_tensor *in[4];
        case_tensors(t, 1, (uint64_t)(7 * i), in);
        sag_tensor *y = apply(SAG_OP_upconv, in, NULL);
        int64_t h = 2 * t->h, w = 2 * t->w, ny = t->n * h * w * t->k;
        assert_true(sag_shape_equal(sag_tensor_shape(y), sag_shape4(t->n, h, w, t->k)));
        double *big = doubles(t->n * h * w * t->c), *want = doubles(ny);
        for (int64_t m = 0; m < t->n * h * w; m++)
            for (int64_t c = 0; c < t->c; c++)
                big[m * t->c + c] =
                    (double)f32(in[0])[((m / (h * w) * t->h + m / w % h / 2) * t->w + m % w / 2) * t->c + c];
        plain_conv(big, f32(in[1]), f32(in[2]), t->n, h, w, t->c, t->k, want);
        assert_close(f32(y), want, ny, 1e-6);
        free(big), free(want);
        sag_tensor_release(y);
        release_three(in);
    }
}

static void convpool_is_conv_then_mean(void **state)
{
    (void)state;
    for (int i = 0; i < case_count(); i++) {
        const fused_case *t = &cases[i];
        sag_tensor *in[4];
        case_tensors(t, 2, (uint64_t)(7 * i + 3), in);
        sag_tensor *y = apply(SAG_OP_convpool, in, NULL);
        int64_t h = 2 * t->h, w = 2 * t->w, nx = t->n * h * w * t->c, ny = t->n * t->h * t->w * t->k;
        assert_true(sag_shape_equal(sag_tensor_shape(y), sag_shape4(t->n, t->h, t->w, t->k)));
        double *x = doubles(nx), *big = doubles(4 * ny), *want = doubles(ny);
        for (int64_t m = 0; m < nx; m++) x[m] = (double)f32(in[0])[m];
        plain_conv(x, f32(in[1]), f32(in[2]), t->n, h, w, t->c, t->k, big);
        for (int64_t m = 0; m < t->n * h * w; m++)
            for (int64_t k = 0; k < t->k; k++)
                want[((m / (h * w) * t->h + m / w % h / 2) * t->w + m % w / 2) * t->k + k] += big[m * t->k + k] / 4;
        assert_close(f32(y), want, ny, 1e-6);
        free(x), free(big), free(want);
        sag_tensor_release(y);
        release_three(in);
    }
}

/* The ops are linear in x and in w, so differences of any step are exact up to rounding. */
static void gradients_are_differences(void **state)
{
    (void)state;
    const int count = testing_device() == SAG_CPU ? CASES - 2 : 6; /* the large ones are the adjoint's alone */
    for (int i = 0; i < count; i++) {
        sag_tensor *in[4];
        case_tensors(&cases[i], 1, 21, in);
        check_gradients(SAG_OP_upconv, in, NULL, 7, 0.25, 1e-4);
        release_three(in);
        case_tensors(&cases[i], 2, 22, in);
        check_gradients(SAG_OP_convpool, in, NULL, 7, 0.25, 1e-4);
        release_three(in);
    }
}

/* <dy, conv(x)> = <bwd_x(dy), x>: all of dx at once, in double. Likewise for w. */
static void backward_is_the_adjoint(void **state)
{
    (void)state;
    const sag_op ops[] = {SAG_OP_upconv, SAG_OP_convpool};
    for (int o = 0; o < 2; o++)
        for (int i = 0; i < case_count(); i++) {
            sag_tensor *in[4];
            case_tensors(&cases[i], o ? 2 : 1, 31, in);
            sag_tensor *use[4] = {in[0], in[1], NULL};
            for (int j = 0; j < 2; j++) assert_ok(sag_tensor_require_grad(in[j]));
            sag_tensor *y = apply(ops[o], use, NULL), *dy = make_tensor(sag_tensor_shape(y), 32);
            assert_ok(sag_tape_backward_from(y, dy));
            double forward = 0, scale = 0;
            for (int64_t m = 0; m < sag_tensor_numel(y); m++) {
                double v = (double)f32(y)[m] * (double)f32(dy)[m];
                forward += v;
                scale += v * v;
            }
            for (int j = 0; j < 2; j++) {
                double back = 0;
                for (int64_t m = 0; m < sag_tensor_numel(in[j]); m++)
                    back += (double)f32(in[j])[m] * (double)f32(sag_tensor_grad(in[j]))[m];
                if (!(fabs(back - forward) <= 1e-5 * sqrt(scale))) fail_msg("case %d: %g against %g", i, back, forward);
            }
            sag_tensor_release(y);
            sag_tensor_release(dy);
            release_three(in);
        }
}

/* relu inside is relu before: the same bits, and a gradient by differences away from the kink. */
static void folded_relu_is_relu_before(void **state)
{
    (void)state;
    for (int i = 0; i < case_count(); i++) {
        sag_tensor *in[4], *y[2], *gradients[2][3];
        case_tensors(&cases[i], 2, 61, in);
        float *x = edit_f32(in[0]);
        for (int64_t m = 0; m < sag_tensor_numel(in[0]); m++) x[m] += x[m] < 0 ? -0.3f : 0.3f;
        end_edit(in[0], x);
        if (i < 6) check_gradients(SAG_OP_convpool, in, (double[]){1}, 7, 0.25, 1e-4);
        check_threads(SAG_OP_convpool, in, (double[]){1}, 7);
        const float values[4] = {0.0f, -0.0f, -1.0f, i % 2 ? NAN : 1.0f};
        x = edit_f32(in[0]);
        for (int64_t m = 0; m < sag_tensor_numel(in[0]); m += 7) x[m] = values[m / 7 % 4];
        end_edit(in[0], x);
        for (int way = 0; way < 2; way++) {
            for (int j = 0; j < 3; j++) {
                assert_ok(sag_tensor_require_grad(in[j]));
                sag_tensor_release_grad(in[j]);
            }
            for (int pass = 0; pass < 2; pass++) {
                sag_tensor *before = way ? apply(SAG_OP_relu, in, NULL) : NULL;
                y[way] = apply(SAG_OP_convpool, (sag_tensor *[4]){way ? before : in[0], in[1], in[2]}, (double[]){!way});
                sag_tensor *dy = make_tensor(sag_tensor_shape(y[way]), 62);
                assert_ok(sag_tape_backward_from(y[way], dy));
                if (pass == 0) sag_tensor_release(y[way]);
                sag_tensor_release(dy);
                sag_tensor_release(before);
            }
            for (int j = 0; j < 3; j++)
                gradients[way][j] = make_tensor_from(sag_tensor_shape(in[j]), f32(sag_tensor_grad(in[j])));
        }
        for (int j = -1; j < 3; j++) {
            const sag_tensor *a = j < 0 ? y[0] : gradients[0][j], *b = j < 0 ? y[1] : gradients[1][j];
            for (int64_t m = 0; m < sag_tensor_numel(a); m++) {
                float p = f32(a)[m], q = f32(b)[m];
                if (memcmp(&p, &q, sizeof p) != 0 && !(isnan(p) && isnan(q)))
                    fail_msg("case %d: result %d differs at %lld", i, j, (long long)m);
            }
        }
        for (int way = 0; way < 2; way++) {
            sag_tensor_release(y[way]);
            release_three(gradients[way]);
        }
        release_three(in);
    }
}

static double norm_of(const sag_tensor *t)
{
    double sum = 0;
    for (int64_t i = 0; i < sag_tensor_numel(t); i++) sum += (double)f32(t)[i] * (double)f32(t)[i];
    return sqrt(sum);
}

/* y and all gradients are those by w / sigma, divided by an op of its own, after one call and after two. */
static void sigma_divides_the_weights(void **state)
{
    (void)state;
    const sag_op ops[] = {SAG_OP_upconv, SAG_OP_convpool};
    const int count = testing_device() == SAG_CPU ? CASES : 6; /* the large ones are there for the CPU's ways */
    for (int i = 0; i < 2 * count; i++) {
        const sag_op op = ops[i % 2];
        sag_tensor *in[4], *results[2][5];
        case_tensors(&cases[i / 2], 1 + i % 2, 71, in);
        in[3] = make_tensor_from(sag_shape1(1), (float[]){1.7f});
        for (int way = 0; way < 2; way++) {
            for (int j = 0; j < 4; j++) {
                assert_ok(sag_tensor_require_grad(in[j]));
                sag_tensor_release_grad(in[j]);
            }
            for (int pass = 0; pass < 1 + i % 3; pass++) {
                sag_tensor *w = way ? apply(SAG_OP_div, (sag_tensor *[]){in[1], in[3]}, NULL) : NULL;
                sag_tensor *y = apply(op, (sag_tensor *[4]){in[0], way ? w : in[1], in[2], way ? NULL : in[3]}, NULL);
                sag_tensor *dy = make_tensor(sag_tensor_shape(y), 72);
                assert_ok(sag_tape_backward_from(y, dy));
                if (pass == i % 3) results[way][4] = make_tensor_from(sag_tensor_shape(y), f32(y));
                sag_tensor_release(y);
                sag_tensor_release(dy);
                sag_tensor_release(w);
            }
            for (int j = 0; j < 4; j++)
                results[way][j] = make_tensor_from(sag_tensor_shape(in[j]), f32(sag_tensor_grad(in[j])));
        }
        for (int j = 0; j < 5; j++) {
            double e = relative_error_f32(f32(results[0][j]), f32(results[1][j]), sag_tensor_numel(results[0][j]));
            if (j == 3) /* a sum of both signs: of what it is at most, |dw| |w| / sigma */
                e *= fabs((double)f32(results[1][3])[0]) * 1.7 / (norm_of(results[1][1]) * norm_of(in[1]));
            if (!(e <= 3e-6)) fail_msg("case %d: result %d is off by %.3g", i / 2, j, e);
        }
        for (int j = 0; j < 10; j++) sag_tensor_release(results[j % 2][j / 2]);
        sag_tensor_release(in[3]);
        release_three(in);
    }
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    for (int i = 0; i < case_count(); i++) {
        sag_tensor *in[4];
        case_tensors(&cases[i], 1, 41, in);
        check_threads(SAG_OP_upconv, in, NULL, 7);
        release_three(in);
        case_tensors(&cases[i], 2, 42, in);
        check_threads(SAG_OP_convpool, in, NULL, 7);
        release_three(in);
    }
}

/* An output larger than the caches may be stored another way: each image's bits are those that it has alone. */
static void large_batches_are_their_images(void **state)
{
    (void)state;
    if (testing_device() != SAG_CPU) skip();
    const int64_t n = 100, side = 32, few = 3, many = 16, in_floats = side * side * few,
                  out_floats = 4 * side * side * many;
    sag_tensor *x = make_tensor(sag_shape4(n, side, side, few), 71), *w = make_tensor(sag_shape4(many, 3, 3, few), 72);
    sag_tensor *b = make_tensor(sag_shape1(many), 73), *y = apply(SAG_OP_upconv, (sag_tensor *[4]){x, w, b}, NULL);
    sag_tensor *u = make_tensor(sag_shape4(n, 2 * side, 2 * side, many), 74),
               *v = make_tensor(sag_shape4(few, 3, 3, many), 75);
    assert_ok(sag_tensor_require_grad(u));
    sag_tensor *z = apply(SAG_OP_convpool, (sag_tensor *[4]){u, v, NULL}, (double[]){1});
    assert_ok(sag_tape_backward_from(z, x));
    for (int64_t i = 0; i < n; i += 33) {
        sag_tensor *x1 = make_tensor_from(sag_shape4(1, side, side, few), f32(x) + i * in_floats);
        sag_tensor *u1 = make_tensor_from(sag_shape4(1, 2 * side, 2 * side, many), f32(u) + i * out_floats);
        sag_tensor *y1 = apply(SAG_OP_upconv, (sag_tensor *[4]){x1, w, b}, NULL);
        assert_ok(sag_tensor_require_grad(u1));
        sag_tensor *z1 = apply(SAG_OP_convpool, (sag_tensor *[4]){u1, v, NULL}, (double[]){1});
        assert_ok(sag_tape_backward_from(z1, x1));
        size_t bytes = (size_t)out_floats * sizeof(float);
        assert_memory_equal(f32(y) + i * out_floats, f32(y1), bytes);
        assert_memory_equal(f32(sag_tensor_grad(u)) + i * out_floats, f32(sag_tensor_grad(u1)), bytes);
        sag_tensor *all[] = {x1, u1, y1, z1};
        for (int j = 0; j < 4; j++) sag_tensor_release(all[j]);
    }
    sag_tensor *all[] = {x, w, b, y, u, v, z};
    for (int j = 0; j < 7; j++) sag_tensor_release(all[j]);
}

static void bad_shapes_are_named(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *x = make_tensor(sag_shape4(1, 4, 5, 3), 1), *w = make_tensor(sag_shape4(5, 3, 3, 3), 2), *out[3];
    sag_tensor *w4 = make_tensor(sag_shape4(5, 4, 4, 3), 2), *w2 = make_tensor(sag_shape4(5, 3, 3, 2), 2),
               *b = make_tensor(sag_shape1(3), 2);
    assert_fails(sag_op_apply(ctx, SAG_OP_convpool, (sag_tensor *[4]){x, w, NULL}, NULL, out), SAG_ERR_SHAPE,
                 "must be even, got 4 x 5");
    assert_fails(sag_op_apply(ctx, SAG_OP_convpool, (sag_tensor *[4]){x, w4, NULL}, NULL, out), SAG_ERR_SHAPE, "3x3");
    assert_fails(sag_op_apply(ctx, SAG_OP_upconv, (sag_tensor *[4]){x, w4, NULL}, NULL, out), SAG_ERR_SHAPE, "3x3");
    assert_fails(sag_op_apply(ctx, SAG_OP_upconv, (sag_tensor *[4]){x, w2, NULL}, NULL, out), SAG_ERR_SHAPE, "channels");
    assert_fails(sag_op_apply(ctx, SAG_OP_upconv, (sag_tensor *[4]){x, w, b}, NULL, out), SAG_ERR_SHAPE,
                 "b must be {5}");
    sag_tensor *all[] = {x, w, w4, w2, b};
    for (int i = 0; i < 5; i++) sag_tensor_release(all[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(upconv_is_upsample_then_conv),   cmocka_unit_test(convpool_is_conv_then_mean),
        cmocka_unit_test(gradients_are_differences),      cmocka_unit_test(backward_is_the_adjoint),
        cmocka_unit_test(folded_relu_is_relu_before),     cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(sigma_divides_the_weights),      cmocka_unit_test(large_batches_are_their_images),
        cmocka_unit_test(bad_shapes_are_named),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
