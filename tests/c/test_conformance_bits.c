/*
 * test_conformance_bits.c - what the device "cuda" must share with the CPU to the last bit (random numbers, pictures, casts,
 * copies, the gradient of a table), and shapes large enough for the second step of sums, extremes and losses.
 */
#include "both_devices.h"

static sag_tensor *tensor(sag_context *ctx, sag_dtype dtype, sag_shape shape, const void *data)
{
    sag_tensor *t = NULL;
    assert_ok(sag_tensor_create(ctx, dtype, shape, &t));
    assert_ok(sag_tensor_write(t, data, (size_t)sag_tensor_numel(t) * sag_dtype_size(dtype)));
    return t;
}

typedef struct operand {
    sag_dtype dtype;
    sag_shape shape;
    const void *data;
} operand;

/* The output of an op, or what it wrote into its first input, or (grad) the gradient of its first input; bytes on the host. */
static char *result_of(sag_context *ctx, sag_op op, const operand *x, int n, const double *attr, bool grad, size_t *bytes)
{
    sag_tensor *in[SAG_MAX_IN] = {0}, *out[SAG_MAX_OUT] = {0};
    for (int i = 0; i < n; i++) in[i] = tensor(ctx, x[i].dtype, x[i].shape, x[i].data);
    if (grad) assert_ok(sag_tensor_require_grad(in[0]));
    assert_ok(sag_op_apply(ctx, op, in, attr, out));
    if (grad) {
        float *dy = malloc((size_t)sag_tensor_numel(out[0]) * sizeof *dy);
        random_fill(dy, sag_tensor_numel(out[0]), 5, -1, 1);
        sag_tensor *d = tensor(ctx, SAG_F32, sag_tensor_shape(out[0]), dy);
        assert_ok(sag_tape_backward_from(out[0], d));
        sag_tensor_release(d);
        free(dy);
    }
    const sag_tensor *r = grad ? sag_tensor_grad(in[0]) : out[0] ? out[0] : in[0];
    *bytes = (size_t)sag_tensor_numel(r) * sag_dtype_size(sag_tensor_dtype(r));
    char *data = malloc(*bytes);
    assert_ok(sag_tensor_read(r, data, *bytes));
    for (int i = 0; i < SAG_MAX_OUT; i++) sag_tensor_release(out[i]);
    for (int i = 0; i < n; i++) sag_tensor_release(in[i]);
    sag_tape_clear(ctx);
    return data;
}

static void same_bits(sag_op op, const operand *x, int n, const double *attr, bool grad)
{
    size_t a = 0, b = 0;
    char *want = result_of(cpu, op, x, n, attr, grad, &a), *got = result_of(card, op, x, n, attr, grad, &b);
    assert_int_equal(a, b);
    for (size_t i = 0; i < a; i++)
        if (want[i] != got[i]) fail_msg("%s: byte %lld of %lld differs", sag_op_describe(op)->name, (long long)i, (long long)a);
    free(want);
    free(got);
}

/* f32 results: relative L2 error. */
static void close_to(sag_op op, const operand *x, int n, const double *attr, bool grad, double tolerance)
{
    size_t a = 0, b = 0;
    char *want = result_of(cpu, op, x, n, attr, grad, &a), *got = result_of(card, op, x, n, attr, grad, &b);
    assert_int_equal(a, b);
    double error = relative_error_f32((const float *)(void *)got, (const float *)(void *)want, (int64_t)(a / 4));
    if (!(error <= tolerance)) fail_msg("%s is off by %.3g", sag_op_describe(op)->name, error);
    free(want);
    free(got);
}

static float *floats(int64_t n, uint64_t seed, float low, float high)
{
    float *x = malloc((size_t)n * sizeof *x);
    random_fill(x, n, seed, low, high);
    return x;
}

static void random_numbers(void **state)
{
    (void)state;
    enum { N = 300007 };
    int32_t *zeros = calloc(N, sizeof *zeros);
    const int32_t clocks[][2] = {{0, 0}, {5, 0}, {-1, 3}};
    for (int c = 0; c < 3; c++) {
        const operand f[] = {{SAG_F32, sag_shape1(N), zeros}, {SAG_I32, sag_shape1(2), clocks[c]}};
        const operand i[] = {{SAG_I32, sag_shape1(N), zeros}, {SAG_I32, sag_shape1(2), clocks[c]}};
        const double seed = 9007199254740991.0 - c;
        same_bits(SAG_OP_uniform, f, 2, (double[]){seed, 3, -0.3, 1.7}, false);
        same_bits(SAG_OP_normal, f, 2, (double[]){seed, 4, 0.1, 0.7, 0}, false);
        same_bits(SAG_OP_normal, f, 2, (double[]){seed, 5, -1, 2, 2}, false);
        same_bits(SAG_OP_normal, f, 2, (double[]){seed, 5, 0, 1, 0.25}, false);
        same_bits(SAG_OP_randint, i, 2, (double[]){seed, 6, -2147483648.0, 2147483647}, false);
    }
    free(zeros);
}

static void pictures_and_casts(void **state)
{
    (void)state;
    enum { IMAGES = 37, H = 11, W = 13, C = 3, ALL = IMAGES * H * W * C };
    uint8_t *u = malloc(ALL);
    for (int i = 0; i < ALL; i++) u[i] = (uint8_t)(i * 7 + i / 251);
    const int32_t clock[2] = {12, 1};
    const operand x[] = {{SAG_U8, sag_shape4(IMAGES, H, W, C), u}, {SAG_I32, sag_shape1(2), clock}};
    for (int flip = 0; flip < 2; flip++)
        for (int noise = 0; noise < 2; noise++) same_bits(SAG_OP_pixels_to_float, x, 2, (double[]){42, 6, flip, noise / 128.0}, false);
    float *f = floats(ALL, 3, -1.1f, 1.1f);
    f[5] = NAN;
    f[6] = INFINITY;
    f[7] = -3e9f;
    const operand y[] = {{SAG_F32, sag_shape4(IMAGES, H, W, C), f}};
    same_bits(SAG_OP_float_to_pixels, y, 1, NULL, false);
    for (int k = 8; k < ALL; k++) f[k] *= (float)(k % 700);
    for (int to = 0; to < SAG_DTYPE_COUNT; to++) {
        same_bits(SAG_OP_cast, x, 1, (double[]){to}, false);
        same_bits(SAG_OP_cast, y, 1, (double[]){to}, false);
    }
    free(u);
    free(f);
}

/* Every width of a unit: 16 bytes down to one; and the places of a permutation's tiles. */
static void movement(void **state)
{
    (void)state;
    float *f = floats(200 * 333, 4, -1, 1);
    for (int64_t width = 1; width <= 333; width = width * 3 + 1) {
        const operand x[] = {{SAG_F32, sag_shape2(200, width), f}, {SAG_F32, sag_shape2(200, 8), f}};
        same_bits(SAG_OP_concat, x, 2, (double[]){1}, false);
        same_bits(SAG_OP_concat, x, 2, (double[]){1}, true);
        const operand u[] = {{SAG_U8, sag_shape2(200, width), f}, {SAG_U8, sag_shape2(200, 16), f}};
        same_bits(SAG_OP_concat, u, 2, (double[]){1}, false);
    }
    const double orders[][4] = {{1, 0, 2, 3}, {0, 2, 3, 1}, {3, 1, 0, 2}, {0, 1, 3, 2}, {2, 3, 0, 1}};
    const sag_shape shapes[] = {sag_shape4(2, 33, 7, 65), sag_shape4(3, 8, 40, 3), sag_shape4(5, 4, 6, 8)};
    for (int s = 0; s < 3; s++)
        for (int o = 0; o < 5; o++) {
            const operand x[] = {{SAG_F32, shapes[s], f}}, u[] = {{SAG_U8, shapes[s], f}};
            same_bits(SAG_OP_permute, x, 1, orders[o], false);
            same_bits(SAG_OP_permute, x, 1, orders[o], true);
            same_bits(SAG_OP_permute, u, 1, orders[o], false);
        }
    free(f);
}

static void table_gradient(void **state)
{
    (void)state;
    int32_t index[1000];
    for (int i = 0; i < 1000; i++) index[i] = i * i % 31;
    float *table = floats(31 * 130, 1, -1, 1);
    const operand x[] = {{SAG_F32, sag_shape2(31, 130), table}, {SAG_I32, sag_shape1(1000), index}};
    same_bits(SAG_OP_embedding, x, 2, NULL, false);
    same_bits(SAG_OP_embedding, x, 2, NULL, true);
    free(table);
}

/* Sums that take two steps: long rows, many rows of few and of many columns. */
static void long_sums(void **state)
{
    (void)state;
    enum { N = 200 * 1024 + 40 };
    float *f = floats(N, 7, 0.5f, 1.5f);
    const sag_shape shapes[] = {sag_shape3(1, N / 5, 5), sag_shape3(1, N / 64, 64), sag_shape3(3, N / 36, 12), sag_shape3(1, 70, 2900),
                                sag_shape3(40, N / 40, 1), sag_shape3(2, N / 2, 1), sag_shape3(1, 1, N)};
    for (int s = 0; s < 7; s++) {
        const operand x[] = {{SAG_F32, shapes[s], f}};
        for (int axis = -1; axis < 3; axis++) {
            close_to(SAG_OP_sum, x, 1, (double[]){axis}, false, 3e-7);
            same_bits(SAG_OP_mean, x, 1, (double[]){axis}, true);
        }
        close_to(SAG_OP_norm, x, 1, NULL, false, 3e-7);
        same_bits(SAG_OP_max, x, 1, NULL, false);
        same_bits(SAG_OP_min, x, 1, NULL, false);
        /* b's gradient is that of the first operand with the roles exchanged: sum the repeats of dy * a */
        const sag_shape row = sag_shape1(shapes[s].dim[2]);
        const operand ab[] = {{SAG_F32, shapes[s], f}, {SAG_F32, row, f}};
        close_to(SAG_OP_mul, ab, 2, NULL, true, 3e-7);
    }
    free(f);
}

static void large_losses(void **state)
{
    (void)state;
    enum { REAL = 70001, FAKE = 9 };
    float *f = floats(REAL, 8, -3, 3);
    const operand x[] = {{SAG_F32, sag_shape1(REAL), f}, {SAG_F32, sag_shape1(FAKE), f}};
    const sag_op ops[] = {SAG_OP_hinge_d, SAG_OP_bce_d, SAG_OP_wasserstein_d, SAG_OP_hinge_g, SAG_OP_bce_g, SAG_OP_wasserstein_g};
    for (int i = 0; i < 6; i++) {
        close_to(ops[i], x, i < 3 ? 2 : 1, NULL, false, 3e-6); /* means near 0 */
        close_to(ops[i], x, i < 3 ? 2 : 1, NULL, true, 3e-7);
    }
    free(f);
}

/* A label or an index that nobody has: its row counts for nothing, nothing is read or written outside. */
static void strangers(void **state)
{
    (void)state;
    const int32_t labels[] = {1, -1, 0, 7}, good[] = {1, 0};
    float f[4 * 3], both[2 * 3];
    random_fill(f, 12, 9, -1, 1);
    memcpy(both, f, 3 * sizeof *f);
    memcpy(both + 3, f + 6, 3 * sizeof *f);
    const operand x[] = {{SAG_F32, sag_shape2(4, 3), f}, {SAG_I32, sag_shape1(4), labels}};
    const operand fine[] = {{SAG_F32, sag_shape2(2, 3), both}, {SAG_I32, sag_shape1(2), good}};
    size_t bytes = 0;
    float *loss = (float *)(void *)result_of(card, SAG_OP_cross_entropy, x, 2, NULL, false, &bytes);
    float *half = (float *)(void *)result_of(card, SAG_OP_cross_entropy, fine, 2, NULL, false, &bytes);
    assert_true(fabsf(loss[0] - half[0] / 2) < 1e-6f); /* the same sum over twice the rows */
    float *d = (float *)(void *)result_of(card, SAG_OP_cross_entropy, x, 2, NULL, true, &bytes);
    for (int c = 0; c < 3; c++) assert_true(d[3 + c] == 0 && d[9 + c] == 0 && d[c] != 0 && d[6 + c] != 0);
    float *y = (float *)(void *)result_of(card, SAG_OP_embedding, x, 2, NULL, false, &bytes);
    for (int c = 0; c < 3; c++) assert_true(y[c] == f[3 + c] && y[3 + c] == 0 && y[6 + c] == f[c] && y[9 + c] == 0);
    float *dt = (float *)(void *)result_of(card, SAG_OP_embedding, x, 2, NULL, true, &bytes);
    for (int c = 0; c < 3; c++) assert_true(dt[c] != 0 && dt[3 + c] != 0 && dt[6 + c] == 0 && dt[9 + c] == 0);
    free(loss);
    free(half);
    free(d);
    free(y);
    free(dt);
}

int main(void)
{
    setenv("SAGAN_TEST_DEVICE", "cuda", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_numbers), cmocka_unit_test(pictures_and_casts), cmocka_unit_test(movement), cmocka_unit_test(table_gradient),
        cmocka_unit_test(long_sums),      cmocka_unit_test(large_losses),       cmocka_unit_test(strangers),
    };
    return cmocka_run_group_tests(tests, both_setup, both_teardown);
}
