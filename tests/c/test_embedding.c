/* test_embedding.c - rows of a table by index; the gradient adds repeated rows in order. */
#include "testing.h"

static void test_values_and_gradient(void **state)
{
    (void)state;
    const int64_t v = 7, d = 67, n = 9;
    const int32_t index[] = {3, 0, 6, 3, 3, 1, 0, 6, 5};
    sag_tensor *in[2] = {make_tensor(sag_shape2(v, d), 1), make_i32(n, index)};
    sag_tensor *dy = make_tensor(sag_shape2(n, d), 2);
    assert_ok(sag_tensor_require_grad(in[0]));
    sag_tensor *y = apply(SAG_OP_embedding, in, NULL);
    for (int64_t i = 0; i < n; i++)
        assert_memory_equal(f32(y) + i * d, f32(in[0]) + index[i] * d, (size_t)d * sizeof(float));
    assert_ok(sag_tape_backward_from(y, dy));
    float want[7 * 67] = {0};
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < d; c++) want[index[i] * d + c] += f32(dy)[i * d + c];
    assert_memory_equal(f32(sag_tensor_grad(in[0])), want, sizeof want); /* the same order, so the same bits */
    sag_tensor_release(y);
    sag_tensor_release(dy);
    sag_tensor_release(in[0]);
    sag_tensor_release(in[1]);
}

static void test_gradients(void **state)
{
    (void)state;
    const int32_t index[] = {1, 1, 4, 0};
    sag_tensor *in[2] = {make_tensor(sag_shape2(5, 3), 1), make_i32(4, index)};
    check_gradients(SAG_OP_embedding, in, NULL, 1, 1e-2, 1e-3);
    sag_tensor_release(in[0]);
    sag_tensor_release(in[1]);
}

static void test_threads(void **state)
{
    (void)state;
    int32_t index[500];
    for (int i = 0; i < 500; i++) index[i] = (i * i) % 30;
    sag_tensor *in[2] = {make_tensor(sag_shape2(30, 131), 1), make_i32(500, index)};
    check_threads(SAG_OP_embedding, in, NULL, 1);
    sag_tensor_release(in[0]);
    sag_tensor_release(in[1]);
}

static void test_bad_input(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *out[SAG_MAX_OUT], *table = make_tensor(sag_shape2(5, 3), 1), *flat = make_tensor(sag_shape1(5), 1);
    for (int k = 0; k < 2 && testing_device() == SAG_CPU; k++) { /* CUDA skips such rows: test_conformance_bits.c */
        const int32_t index[] = {0, k ? 5 : -1};
        sag_tensor *in[2] = {table, make_i32(2, index)};
        assert_index_refused(sag_op_apply(ctx, SAG_OP_embedding, in, NULL, out), out, "index");
        sag_tensor *wrong[2] = {flat, in[1]};
        assert_fails(sag_op_apply(ctx, SAG_OP_embedding, wrong, NULL, out), SAG_ERR_SHAPE, "{V,D}");
        sag_tensor_release(in[1]);
    }
    sag_tensor *floats[2] = {table, flat};
    assert_fails(sag_op_apply(ctx, SAG_OP_embedding, floats, NULL, out), SAG_ERR_DTYPE, "i32");
    sag_tensor_release(table);
    sag_tensor_release(flat);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_and_gradient),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_bad_input),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
