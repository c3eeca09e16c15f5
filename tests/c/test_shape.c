/* test_shape.c - concat, slice, permute: exact movement, so every comparison is of bits. */
#include "testing.h"

static void index_of(sag_shape s, int64_t e, int64_t *i)
{
    for (int d = s.rank - 1; d >= 0; d--) {
        i[d] = e % s.dim[d];
        e /= s.dim[d];
    }
}
static int64_t place_of(sag_shape s, const int64_t *i)
{
    int64_t e = 0;
    for (int d = 0; d < s.rank; d++) e = e * s.dim[d] + i[d];
    return e;
}

static void test_concat(void **state)
{
    (void)state;
    const sag_shape a_shapes[] = {sag_shape1(5), sag_shape2(3, 4), sag_shape2(3, 4), sag_shape4(2, 3, 5, 7), sag_shape4(2, 3, 5, 7),
                                  sag_shape4(16, 30, 30, 3), sag_shape4(4, 60, 60, 5)};
    const int64_t lengths[] = {2, 1, 6, 3, 2, 16, 1};
    const double axes[] = {0, 0, 1, 1, 3, 0, 3};
    for (int t = 0; t < 7; t++) {
        sag_shape sa = a_shapes[t], sb = sa;
        int axis = (int)axes[t];
        sb.dim[axis] = lengths[t];
        sag_tensor *in[2] = {make_tensor(sa, 1), make_tensor(sb, 2)}, *y = apply(SAG_OP_concat, in, &axes[t]);
        sag_shape sy = sag_tensor_shape(y);
        assert_int_equal(sy.dim[axis], sa.dim[axis] + sb.dim[axis]);
        for (int64_t e = 0; e < sag_tensor_numel(y); e++) {
            int64_t i[4];
            index_of(sy, e, i);
            bool second = i[axis] >= sa.dim[axis];
            if (second) i[axis] -= sa.dim[axis];
            assert_true(f32(y)[e] == f32(in[second])[place_of(second ? sb : sa, i)]);
        }
        if (sag_tensor_numel(y) < 3000) check_gradients(SAG_OP_concat, in, &axes[t], 3, 0.5, 1e-5);
        check_threads(SAG_OP_concat, in, &axes[t], 3);
        sag_tensor_release(in[0]);
        sag_tensor_release(in[1]);
        sag_tensor_release(y);
    }
}

static void test_slice(void **state)
{
    (void)state;
    const sag_shape shapes[] = {sag_shape1(9), sag_shape2(5, 4), sag_shape4(2, 6, 5, 7), sag_shape4(2, 6, 5, 7), sag_shape4(5, 50, 50, 9)};
    const double attrs[][3] = {{0, 2, 3}, {0, 4, 1}, {1, 0, 6}, {3, 2, 4}, {2, 7, 30}};
    for (int t = 0; t < 5; t++) {
        sag_tensor *x = make_tensor(shapes[t], 1), *y = apply(SAG_OP_slice, &x, attrs[t]);
        sag_shape sy = sag_tensor_shape(y);
        int axis = (int)attrs[t][0];
        assert_int_equal(sy.dim[axis], attrs[t][2]);
        for (int64_t e = 0; e < sag_tensor_numel(y); e++) {
            int64_t i[4];
            index_of(sy, e, i);
            i[axis] += (int64_t)attrs[t][1];
            assert_true(f32(y)[e] == f32(x)[place_of(shapes[t], i)]);
        }
        if (sag_tensor_numel(y) < 3000) check_gradients(SAG_OP_slice, &x, attrs[t], 1, 0.5, 1e-5);
        check_threads(SAG_OP_slice, &x, attrs[t], 1);
        sag_tensor_release(x);
        sag_tensor_release(y);
    }
}

static void check_permute(sag_shape s, const double *d, bool gradients)
{
    sag_tensor *x = make_tensor(s, 1), *y = apply(SAG_OP_permute, &x, d);
    sag_shape sy = sag_tensor_shape(y);
    for (int64_t e = 0; e < sag_tensor_numel(y); e++) {
        int64_t i[4], j[4];
        index_of(sy, e, i);
        for (int k = 0; k < s.rank; k++) j[(int)d[k]] = i[k];
        assert_true(f32(y)[e] == f32(x)[place_of(s, j)]);
    }
    if (gradients) check_gradients(SAG_OP_permute, &x, d, 1, 0.5, 1e-5);
    check_threads(SAG_OP_permute, &x, d, 1);
    sag_tensor_release(x);
    sag_tensor_release(y);
}

static void test_permute(void **state)
{
    (void)state;
    for (int code = 0; code < 256; code++) { /* all 24 orders of four dimensions, some of them 1 */
        int p[4] = {code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6};
        if ((1 << p[0] | 1 << p[1] | 1 << p[2] | 1 << p[3]) != 15) continue;
        double d[4] = {p[0], p[1], p[2], p[3]};
        check_permute(sag_shape4(2, 3, 5, 7), d, true);
        check_permute(sag_shape4(1, 19, 1, 23), d, false);
        check_permute(sag_shape4(3, 17, 40, 33), d, false);
    }
    const double swap[4] = {1, 0, 2, 3}, turn[4] = {2, 0, 1, 3}, same[4] = {0, 1, 2, 3};
    check_permute(sag_shape2(37, 300), swap, false);
    check_permute(sag_shape3(5, 6, 7), turn, true);
    check_permute(sag_shape1(5), same, true);
}

static void test_other_dtypes(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *x = NULL, *y = NULL;
    uint8_t bytes[6] = {1, 2, 3, 4, 5, 6};
    const uint8_t want[6] = {1, 4, 2, 5, 3, 6};
    double swap[4] = {1, 0, 2, 3}, part[3] = {1, 1, 2};
    assert_ok(sag_tensor_create(ctx, SAG_U8, sag_shape2(2, 3), &x));
    assert_ok(sag_tensor_write(x, bytes, 6));
    y = apply(SAG_OP_permute, &x, swap);
    assert_memory_equal(host_data(y), want, 6);
    sag_tensor_release(y);
    y = apply(SAG_OP_slice, &x, part);
    assert_memory_equal(host_data(y), ((const uint8_t[]){2, 3, 5, 6}), 4);
    sag_tensor_release(y);
    sag_tensor_release(x);
}

static void test_errors(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *a = make_tensor(sag_shape2(3, 4), 1), *b = make_tensor(sag_shape2(3, 5), 2), *c = make_tensor(sag_shape1(3), 3);
    sag_tensor *ab[2] = {a, b}, *ac[2] = {a, c}, *out[SAG_MAX_OUT];
    double first = 0, third = 2, long_part[3] = {1, 2, 3}, outside[3] = {1, 4, 1}, twice[4] = {0, 0, 2, 3}, beyond[4] = {0, 2, 2, 3};
    assert_fails(sag_op_apply(ctx, SAG_OP_concat, ab, &first, out), SAG_ERR_SHAPE, "must be equal");
    assert_fails(sag_op_apply(ctx, SAG_OP_concat, ac, &first, out), SAG_ERR_SHAPE, "must be equal");
    assert_fails(sag_op_apply(ctx, SAG_OP_concat, ab, &third, out), SAG_ERR_ARG, "axis");
    assert_fails(sag_op_apply(ctx, SAG_OP_slice, &a, long_part, out), SAG_ERR_ARG, "length = 3");
    assert_fails(sag_op_apply(ctx, SAG_OP_slice, &a, outside, out), SAG_ERR_ARG, "start");
    assert_fails(sag_op_apply(ctx, SAG_OP_permute, &a, twice, out), SAG_ERR_ARG, "twice");
    assert_fails(sag_op_apply(ctx, SAG_OP_permute, &a, beyond, out), SAG_ERR_ARG, "d1 = 2");
    sag_tensor_release(a);
    sag_tensor_release(b);
    sag_tensor_release(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_concat),       cmocka_unit_test(test_slice),  cmocka_unit_test(test_permute),
        cmocka_unit_test(test_other_dtypes), cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
