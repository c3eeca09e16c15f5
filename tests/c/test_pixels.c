/* test_pixels.c - pictures to activations and back, flips and noise by their keys, casts. */
#include "testing.h"

#include "kernels/philox.h"

static sag_tensor *make_u8(sag_shape s, const uint8_t *values)
{
    sag_tensor *t = NULL;
    assert_ok(sag_tensor_create(testing_context(), SAG_U8, s, &t));
    assert_ok(sag_tensor_write(t, values, (size_t)sag_tensor_numel(t)));
    return t;
}

static void test_every_value_comes_back(void **state)
{
    (void)state;
    uint8_t all[256];
    for (int i = 0; i < 256; i++) all[i] = (uint8_t)i;
    sag_tensor *x = make_u8(sag_shape4(1, 16, 16, 1), all), *clock = make_i32(2, (int32_t[]){0, 0}), *in[2] = {x, clock};
    double attr[4] = {0, 0, 0, 0};
    sag_tensor *y = apply(SAG_OP_pixels_to_float, in, attr), *back = apply(SAG_OP_float_to_pixels, &y, NULL);
    for (int i = 0; i < 256; i++) assert_true(fabs((double)f32(y)[i] - (i * 2.0 / 255 - 1)) < 6e-8);
    assert_true(f32(y)[0] == -1.0f && f32(y)[255] == 1.0f);
    assert_memory_equal(host_data(back), all, 256);
    sag_tensor_release(back);
    sag_tensor_release(y);
    y = make_tensor_from(sag_shape1(9), (float[]){-1, 1, -5, 5, NAN, INFINITY, -INFINITY, 0, -0.00393f});
    back = apply(SAG_OP_float_to_pixels, &y, NULL);
    assert_memory_equal(host_data(back), ((const uint8_t[]){0, 255, 0, 255, 0, 255, 0, 128, 127}), 9);
    sag_tensor_release(back);
    sag_tensor_release(y);
    sag_tensor_release(x);
    sag_tensor_release(clock);
}

static void test_flip_and_noise(void **state)
{
    (void)state;
    enum { N = 400, H = 3, W = 5, C = 3, ALL = N * H * W * C };
    uint8_t *v = malloc(ALL);
    for (int i = 0; i < ALL; i++) v[i] = (uint8_t)(i * 7 + i / 251);
    sag_tensor *x = make_u8(sag_shape4(N, H, W, C), v), *clock = make_i32(2, (int32_t[]){11, 2}), *in[2] = {x, clock};
    double attr[4] = {42, 6, 1, 0.0078125};
    float *first = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        sag_context_set_threads(testing_context(), threads);
        sag_tensor *y = apply(SAG_OP_pixels_to_float, in, attr);
        if (!first) {
            first = malloc(ALL * sizeof *first);
            memcpy(first, f32(y), ALL * sizeof *first);
        }
        assert_memory_equal(first, f32(y), ALL * sizeof *first);
        sag_tensor_release(y);
    }
    sag_context_set_threads(testing_context(), 0);
    int flips = 0;
    for (int e = 0; e < ALL; e++) {
        int n = e / (H * W * C), i = e / (W * C) % H, j = e / C % W, c = e % C;
        bool flip = sag_philox((uint32_t)n, 6, 11, 2, 42, 0).w0 & 1u;
        flips += flip && e % (H * W * C) == 0;
        sag_philox_block b = sag_philox((uint32_t)e / 4, 7, 11, 2, 42, 0);
        uint32_t w = e % 4 == 0 ? b.w0 : e % 4 == 1 ? b.w1 : e % 4 == 2 ? b.w2 : b.w3;
        int from = ((n * H + i) * W + (flip ? W - 1 - j : j)) * C + c;
        double want = (double)v[from] * 2 / 255 - 1 + 0.0078125 * (double)(w >> 8) / 16777216;
        assert_true(fabs((double)first[e] - want) < 1.3e-7);
    }
    assert_true(flips > N / 2 - 50 && flips < N / 2 + 50); /* five standard errors */
    attr[3] = -1;
    sag_tensor *out[SAG_MAX_OUT];
    assert_fails(sag_op_apply(testing_context(), SAG_OP_pixels_to_float, in, attr, out), SAG_ERR_ARG, "dequantize");
    sag_tensor *wrong[2] = {clock, clock};
    attr[3] = 0;
    assert_fails(sag_op_apply(testing_context(), SAG_OP_pixels_to_float, wrong, attr, out), SAG_ERR_DTYPE, "'x' must be u8");
    free(first);
    free(v);
    sag_tensor_release(x);
    sag_tensor_release(clock);
}

static sag_tensor *cast(sag_tensor *x, sag_dtype to)
{
    double attr = to;
    return apply(SAG_OP_cast, &x, &attr);
}

static void test_bf16(void **state)
{
    (void)state;
    const float v[12] = {1, 1.00390625f, 1.01171875f, 1.00390637f, -1.00390625f, 3.4e38f, INFINITY, -INFINITY, NAN, 0, -0.0f, 1e-40f};
    const uint16_t want[12] = {0x3f80, 0x3f80, 0x3f82, 0x3f81, 0xbf80, 0x7f80, 0x7f80, 0xff80, 0x7fc0, 0, 0x8000, 0x0001};
    sag_tensor *x = make_tensor_from(sag_shape1(12), v), *h = cast(x, SAG_BF16), *back = cast(h, SAG_F32);
    assert_memory_equal(host_data(h), want, sizeof want);
    for (int i = 0; i < 12; i++) {
        uint32_t bits = (uint32_t)want[i] << 16;
        assert_memory_equal(f32(back) + i, &bits, 4);
    }
    sag_tensor_release(x);
    sag_tensor_release(h);
    sag_tensor_release(back);
    /* every NaN stays one, also those whose set bits lie in the lower half */
    for (uint32_t low = 1; low < 0x800000u; low = low * 5 + 1) {
        uint32_t bits = 0x7f800000u | (low & 0x7fffffu);
        if ((bits & 0x7fffffu) == 0) continue;
        float nan;
        memcpy(&nan, &bits, 4);
        x = make_tensor_from(sag_shape1(1), &nan);
        h = cast(x, SAG_BF16);
        uint16_t got = *(const uint16_t *)host_data(h);
        assert_true((got & 0x7f80u) == 0x7f80u && (got & 0x7fu) != 0);
        sag_tensor_release(x);
        sag_tensor_release(h);
    }
}

/* Nearest, ties to even, against a search over both neighbours in double; and long enough for vectors and threads. */
static void test_bf16_rounding(void **state)
{
    (void)state;
    int64_t n = 70003;
    sag_tensor *x = make_tensor_between(sag_shape1(n), 8, -100, 100), *h = cast(x, SAG_BF16);
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, f32(x) + i, 4);
        uint32_t down = bits & 0xffff0000u, up = down + 0x10000u;
        float a, b;
        memcpy(&a, &down, 4);
        memcpy(&b, &up, 4);
        double da = fabs((double)f32(x)[i] - (double)a), db = fabs((double)f32(x)[i] - (double)b);
        uint32_t want = da < db ? down : da > db ? up : down >> 16 & 1u ? up : down;
        assert_int_equal(((const uint16_t *)host_data(h))[i], want >> 16);
    }
    sag_tensor_release(x);
    sag_tensor_release(h);
}

static void test_whole_numbers(void **state)
{
    (void)state;
    sag_tensor *x = make_tensor_from(sag_shape1(8), (float[]){1.9f, -1.9f, 300, -7, NAN, 3e9f, -3e9f, 2147483520.0f});
    sag_tensor *i = cast(x, SAG_I32), *u = cast(x, SAG_U8), *iu = cast(i, SAG_U8), *f = cast(i, SAG_F32), *uf = cast(u, SAG_F32);
    sag_tensor *ui = cast(u, SAG_I32), *h = cast(u, SAG_BF16), *hi = cast(h, SAG_I32), *same = cast(i, SAG_I32);
    sag_tensor *ih = cast(i, SAG_BF16), *hu = cast(h, SAG_U8);
    const int32_t want_i[8] = {1, -1, 300, -7, 0, INT32_MAX, INT32_MIN, 2147483520};
    const uint8_t want_u[8] = {1, 0, 255, 0, 0, 255, 0, 255};
    assert_memory_equal(host_data(i), want_i, sizeof want_i);
    assert_memory_equal(host_data(same), want_i, sizeof want_i);
    assert_memory_equal(host_data(u), want_u, sizeof want_u);
    assert_memory_equal(host_data(iu), want_u, sizeof want_u);
    assert_memory_equal(host_data(hu), want_u, sizeof want_u);
    for (int k = 0; k < 8; k++) {
        assert_true(f32(f)[k] == (float)want_i[k] && f32(uf)[k] == (float)want_u[k]);
        assert_int_equal(i32(ui)[k], want_u[k]);
        assert_int_equal(i32(hi)[k], want_u[k]);
    }
    assert_int_equal(((const uint16_t *)host_data(ih))[2], 0x4396);
    sag_tensor *all[] = {x, i, u, iu, f, uf, ui, h, hi, same, ih, hu}, *out[SAG_MAX_OUT];
    double dtype = 4;
    assert_fails(sag_op_apply(testing_context(), SAG_OP_cast, &x, &dtype, out), SAG_ERR_ARG, "dtype = 4");
    for (int k = 0; k < 12; k++) sag_tensor_release(all[k]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_value_comes_back), cmocka_unit_test(test_flip_and_noise), cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_bf16_rounding),          cmocka_unit_test(test_whole_numbers),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
