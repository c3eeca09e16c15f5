/* test_optim.c - Adam, the moving average, fill, assign, axpy, record against plain loops in double. */
#include "testing.h"

static sag_tensor *f32_vector(int64_t n, const float *values)
{
    return make_tensor_from(sag_shape1(n), values);
}
static void run(sag_op op, sag_tensor *const *in, const double *attr)
{
    assert_ok(sag_op_apply(testing_context(), op, in, attr, NULL));
}

/* Five steps; the rate, and with it the state of the schedule, changes between them. */
static void check_adam(int64_t n, float b1, float b2, float decay, float factor, bool tf, int threads)
{
    sag_context_set_threads(testing_context(), threads);
    /* weights as small as the steps, so that their own rounding does not cover a wrong step */
    sag_tensor *w = make_tensor_between(sag_shape1(n), 1, -0.01f, 0.01f), *g = NULL, *m = NULL, *v = NULL, *count = make_i32(2, (int32_t[]){0, 0});
    float hyper[6] = {1e-2f, b1, b2, 1e-8f, decay, factor};
    sag_tensor *h = f32_vector(6, hyper);
    assert_ok(sag_tensor_zeros(testing_context(), SAG_F32, sag_shape1(n), &m));
    assert_ok(sag_tensor_zeros(testing_context(), SAG_F32, sag_shape1(n), &v));
    double *rw = malloc((size_t)n * sizeof *rw), *rm = calloc((size_t)n, sizeof *rm), *rv = calloc((size_t)n, sizeof *rv);
    double *moved = malloc((size_t)n * sizeof *moved);
    float *start = malloc((size_t)n * sizeof *start), *got = malloc((size_t)n * sizeof *got);
    memcpy(start, f32(w), (size_t)n * sizeof *start);
    for (int64_t i = 0; i < n; i++) rw[i] = (double)start[i];
    double attr = tf;
    for (int t = 1; t <= 5; t++) {
        hyper[0] = 1e-2f / (float)t;
        assert_ok(sag_tensor_write(h, hyper, sizeof hyper));
        g = make_tensor(sag_shape1(n), 10 + (uint64_t)t);
        sag_tensor *in[6] = {w, g, m, v, count, h};
        run(SAG_OP_adam, in, &attr);
        double c1 = 1 - pow((double)b1, t), c2 = 1 - pow((double)b2, t), eps = (double)hyper[3], rate = (double)hyper[0];
        for (int64_t i = 0; i < n; i++) {
            double gi = (double)f32(g)[i] * (double)factor;
            rm[i] = (double)b1 * rm[i] + (1 - (double)b1) * gi;
            rv[i] = (double)b2 * rv[i] + (1 - (double)b2) * gi * gi;
            double step = tf ? sqrt(c2) / c1 * rm[i] / (sqrt(rv[i]) + eps) : rm[i] / c1 / (sqrt(rv[i] / c2) + eps);
            rw[i] -= rate * (step + (double)decay * rw[i]);
        }
        sag_tensor_release(g);
    }
    assert_memory_equal(host_data(count), ((const int32_t[]){5, 0}), 8);
    for (int64_t i = 0; i < n; i++) { /* the way, not the place: a wrong step must not hide behind w */
        moved[i] = rw[i] - (double)start[i];
        got[i] = f32(w)[i] - start[i];
    }
    assert_close(got, moved, n, 1e-6);
    assert_close(f32(m), rm, n, 1e-6);
    assert_close(f32(v), rv, n, 1e-6);
    free(rw);
    free(rm);
    free(rv);
    free(moved);
    free(start);
    free(got);
    sag_tensor *all[] = {w, m, v, count, h};
    for (int i = 0; i < 5; i++) sag_tensor_release(all[i]);
    sag_context_set_threads(testing_context(), 0);
}

static void test_adam(void **state)
{
    (void)state;
    check_adam(1, 0, 0.9f, 0, 1, false, 1);
    check_adam(37, 0, 0.9f, 0, 1, false, 1);
    check_adam(37, 0.9f, 0.999f, 0, 1, false, 2);
    check_adam(37, 0.5f, 0.999f, 0.1f, 0.25f, false, 1);
    check_adam(37, 0.5f, 0.999f, 0, 1, true, 1);
    check_adam(100001, 0, 0.999f, 0.01f, 1, false, 3);
}

/* With a large eps the two forms part: each against its own formula by hand. */
static void test_adam_eps(void **state)
{
    (void)state;
    for (int tf = 0; tf < 2; tf++) {
        float one = 1, zero = 0, hyper[6] = {1, 0.5f, 0.75f, 1, 0, 1};
        sag_tensor *in[6] = {f32_vector(1, &zero), f32_vector(1, &one), f32_vector(1, &zero), f32_vector(1, &zero),
                             make_i32(2, (int32_t[]){0, 0}), f32_vector(6, hyper)};
        double attr = tf;
        run(SAG_OP_adam, in, &attr);
        /* m = 1/2, v = 1/4; corrected 1 and 1: -1 / (1 + 1); as TensorFlow: -(1/2) / (1/2) * (1/2) / (1/2 + 1) */
        assert_float_equal(f32(in[0])[0], tf ? -1.0f / 3 : -0.5f, 1e-6);
        for (int i = 0; i < 6; i++) sag_tensor_release(in[i]);
    }
}

static void test_ema(void **state)
{
    (void)state;
    int64_t n = 70003;
    float hyper[2] = {0.9f, 3};
    sag_tensor *target = make_tensor(sag_shape1(n), 1), *source = make_tensor(sag_shape1(n), 2), *h = f32_vector(2, hyper);
    set_f32(target, 5, NAN); /* garbage before the start must not survive it */
    sag_tensor *clock = make_i32(2, (int32_t[]){2, 0}), *in[4] = {target, source, clock, h};
    run(SAG_OP_ema, in, NULL);
    assert_memory_equal(f32(target), f32(source), (size_t)n * sizeof(float));
    run(SAG_OP_tick, &clock, NULL);
    sag_tensor *next = make_tensor(sag_shape1(n), 3);
    in[1] = next;
    double *want = malloc((size_t)n * sizeof *want);
    for (int64_t i = 0; i < n; i++) want[i] = (double)0.9f * (double)f32(source)[i] + (1 - (double)0.9f) * (double)f32(next)[i];
    run(SAG_OP_ema, in, NULL);
    assert_close(f32(target), want, n, 1e-7);
    free(want);
    sag_tensor_release(clock);
    clock = make_i32(2, (int32_t[]){0, 1}); /* 2^32 steps: not the start again */
    in[2] = clock;
    in[1] = source;
    run(SAG_OP_ema, in, NULL);
    assert_true(f32(target)[0] != f32(source)[0]);
    sag_tensor *all[] = {target, source, next, clock, h};
    for (int i = 0; i < 5; i++) sag_tensor_release(all[i]);
}

/* The fused pass has the bits of the two ops one after the other: before and after the average's start, odd sizes. */
static void test_adam_ema(void **state)
{
    (void)state;
    const int64_t sizes[] = {1, 2049, 100003};
    for (int s = 0; s < 3; s++) {
        int64_t n = sizes[s];
        float hyper[6] = {1e-2f, 0.5f, 0.9f, 1e-8f, 0.1f, 0.5f}, average[2] = {0.9f, 2};
        sag_tensor *in[2][9], *clock = make_i32(2, (int32_t[]){0, 0});
        for (int k = 0; k < 2; k++) {
            for (uint64_t i = 0; i < 4; i++) in[k][i] = make_tensor_between(sag_shape1(n), i, i == 3 ? 0 : -1, 1);
            in[k][4] = make_i32(2, (int32_t[]){0, 0});
            in[k][5] = f32_vector(6, hyper);
            in[k][6] = make_tensor(sag_shape1(n), 9);
            in[k][7] = clock;
            in[k][8] = f32_vector(2, average);
        }
        for (int step = 0; step < 4; step++) {
            run(SAG_OP_adam, in[0], NULL);
            run(SAG_OP_ema, (sag_tensor *[]){in[0][6], in[0][0], clock, in[0][8]}, NULL);
            sag_context_set_threads(testing_context(), 3);
            run(SAG_OP_adam_ema, in[1], NULL);
            sag_context_set_threads(testing_context(), 0);
            run(SAG_OP_tick, &clock, NULL);
            const int compared[] = {0, 2, 3, 6};
            for (int i = 0; i < 4; i++)
                assert_memory_equal(f32(in[1][compared[i]]), f32(in[0][compared[i]]), (size_t)n * sizeof(float));
            assert_memory_equal(host_data(in[1][4]), host_data(in[0][4]), 8);
        }
        sag_tensor *out[SAG_MAX_OUT], *target = in[1][6];
        in[1][6] = in[1][5];
        assert_fails(sag_op_apply(testing_context(), SAG_OP_adam_ema, in[1], NULL, out), SAG_ERR_SHAPE, "target");
        in[1][6] = target;
        sag_tensor_release(clock);
        for (int k = 0; k < 2; k++) {
            for (int i = 0; i < 9; i++) {
                if (i != 7) sag_tensor_release(in[k][i]);
            }
        }
    }
}

static void test_fill_assign_axpy(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    const int64_t sizes[] = {1, 19, 70001};
    for (int s = 0; s < 3; s++) {
        int64_t n = sizes[s];
        sag_tensor *x = make_tensor(sag_shape1(n), 1), *y = make_tensor(sag_shape1(n), 2), *xy[2] = {x, y};
        double a = -2.5, value = 7.25;
        double *want = malloc((size_t)n * sizeof *want);
        for (int64_t i = 0; i < n; i++) want[i] = (double)f32(x)[i] + a * (double)f32(y)[i];
        run(SAG_OP_axpy, xy, &a);
        assert_close(f32(x), want, n, 1e-7);
        run(SAG_OP_assign, xy, NULL);
        assert_memory_equal(f32(x), f32(y), (size_t)n * sizeof(float));
        run(SAG_OP_fill, &x, &value);
        for (int64_t i = 0; i < n; i++) assert_true(f32(x)[i] == 7.25f);
        free(want);
        sag_tensor_release(x);
        sag_tensor_release(y);
    }
    sag_tensor *u = NULL, *i = make_i32(3, (int32_t[]){1, 2, 3}), *b = NULL;
    double v = 200, negative = -1, half = 1.5, big = 1.00390625;
    assert_ok(sag_tensor_create(ctx, SAG_U8, sag_shape1(3), &u));
    assert_ok(sag_tensor_create(ctx, SAG_BF16, sag_shape1(3), &b));
    run(SAG_OP_fill, &u, &v);
    run(SAG_OP_fill, &i, &negative);
    run(SAG_OP_fill, &b, &big); /* halfway between 0x3f80 and 0x3f81: to even */
    assert_memory_equal(host_data(u), ((const uint8_t[]){200, 200, 200}), 3);
    assert_memory_equal(host_data(i), ((const int32_t[]){-1, -1, -1}), 12);
    assert_memory_equal(host_data(b), ((const uint16_t[]){0x3f80, 0x3f80, 0x3f80}), 6);
    assert_fails(sag_op_apply(ctx, SAG_OP_fill, &u, &negative, NULL), SAG_ERR_ARG, "does not fit u8");
    assert_fails(sag_op_apply(ctx, SAG_OP_fill, &i, &half, NULL), SAG_ERR_ARG, "does not fit i32");
    sag_tensor_release(u);
    sag_tensor_release(i);
    sag_tensor_release(b);
}

static void test_record(void **state)
{
    (void)state;
    sag_tensor *ring = NULL, *x = f32_vector(1, (float[]){0}), *clock = make_i32(2, (int32_t[]){0, 0});
    assert_ok(sag_tensor_zeros(testing_context(), SAG_F32, sag_shape2(3, 2), &ring));
    sag_tensor *in[3] = {ring, x, clock};
    for (int t = 0; t < 4; t++) {
        float v = (float)(t + 1);
        double column = 1;
        assert_ok(sag_tensor_write(x, &v, sizeof v));
        run(SAG_OP_record, in, &column);
        run(SAG_OP_tick, &clock, NULL);
    }
    assert_memory_equal(f32(ring), ((const float[]){0, 4, 0, 2, 0, 3}), 24);
    double outside = 2;
    assert_fails(sag_op_apply(testing_context(), SAG_OP_record, in, &outside, NULL), SAG_ERR_ARG, "column = 2");
    sag_tensor_release(clock);
    clock = make_i32(2, (int32_t[]){1, 1}); /* 2^32 + 1 = 2 mod 3 */
    in[2] = clock;
    double first = 0;
    run(SAG_OP_record, in, &first);
    assert_true(f32(ring)[4] == 4.0f);
    sag_tensor_release(ring);
    sag_tensor_release(x);
    sag_tensor_release(clock);
}

static void test_errors(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *a = make_tensor(sag_shape1(6), 1), *b = make_tensor(sag_shape1(5), 2), *t = make_i32(2, (int32_t[]){0, 0});
    sag_tensor *two = make_tensor(sag_shape1(2), 3);
    sag_tensor *shape[6] = {a, a, b, a, t, a}, *hyper[6] = {a, a, a, a, t, b}, *count[6] = {a, a, a, a, a, a}, *int_g[6] = {a, t, a, a, t, a};
    assert_fails(sag_op_apply(ctx, SAG_OP_adam, shape, NULL, NULL), SAG_ERR_SHAPE, "equal shapes");
    assert_fails(sag_op_apply(ctx, SAG_OP_adam, hyper, NULL, NULL), SAG_ERR_SHAPE, "'hyper' must have shape {6}");
    assert_fails(sag_op_apply(ctx, SAG_OP_adam, count, NULL, NULL), SAG_ERR_DTYPE, "'count' must be i32");
    assert_fails(sag_op_apply(ctx, SAG_OP_adam, int_g, NULL, NULL), SAG_ERR_DTYPE, "'g' must be f32");
    sag_tensor *ema[4] = {a, b, t, two}, *assign[2] = {a, b}, *mixed[2] = {two, t}, *ring[3] = {a, two, t};
    assert_fails(sag_op_apply(ctx, SAG_OP_ema, ema, NULL, NULL), SAG_ERR_SHAPE, "equal shapes");
    assert_fails(sag_op_apply(ctx, SAG_OP_assign, assign, NULL, NULL), SAG_ERR_SHAPE, "equal shapes");
    assert_fails(sag_op_apply(ctx, SAG_OP_assign, mixed, NULL, NULL), SAG_ERR_DTYPE, "'x' is f32");
    assert_fails(sag_op_apply(ctx, SAG_OP_axpy, assign, NULL, NULL), SAG_ERR_SHAPE, "equal shapes");
    assert_fails(sag_op_apply(ctx, SAG_OP_record, ring, NULL, NULL), SAG_ERR_SHAPE, "'x' must have shape {1}");
    sag_tensor *all[] = {a, b, t, two};
    for (int i = 0; i < 4; i++) sag_tensor_release(all[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adam),   cmocka_unit_test(test_adam_eps), cmocka_unit_test(test_ema), cmocka_unit_test(test_adam_ema), cmocka_unit_test(test_fill_assign_axpy),
        cmocka_unit_test(test_record), cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
