/* Tensors, views, sizes that overflow, memory accounting. */
#include "testing.h"

static void shapes_are_checked(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *t = NULL;
    assert_fails(sag_tensor_create(ctx, SAG_F32, sag_shape2(2, 0), &t), SAG_ERR_SHAPE, "at least 1");
    assert_null(t);
    assert_fails(sag_tensor_create(ctx, SAG_F32, sag_shape2(INT64_MAX / 2, 3), &t), SAG_ERR_SHAPE, "too large");
    assert_fails(sag_tensor_create(ctx, SAG_F32, (sag_shape){5, {1, 1, 1, 1}}, &t), SAG_ERR_SHAPE, "1 to 4");
    assert_fails(sag_tensor_create(ctx, SAG_F32, sag_shape1(INT64_MAX / 64), &t), SAG_ERR_MEMORY, "out of memory");
}

static void views_share_and_are_bounded(void **state)
{
    (void)state;
    sag_tensor *t = make_tensor(sag_shape2(4, 5), 1), *v = NULL, *w = NULL;
    assert_ok(sag_tensor_view(t, 5, sag_shape2(2, 5), &v));
    assert_ptr_equal(f32(v), f32(t) + 5);
    assert_fails(sag_tensor_view(t, 15, sag_shape1(6), &w), SAG_ERR_SHAPE, "does not fit");
    assert_fails(sag_tensor_view(t, -1, sag_shape1(1), &w), SAG_ERR_SHAPE, "does not fit");
    sag_tensor_release(t);
    assert_true(isfinite(f32(v)[9])); /* the storage outlives its first tensor */
    sag_tensor_release(v);
}

static void steps_reuse_memory(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_memory_stats before, after;
    for (int step = 0; step < 3; step++) {
        sag_tensor *a = make_tensor(sag_shape2(100, 100), 1), *b = make_tensor(sag_shape1(777), 2);
        sag_tensor_release(a);
        sag_tensor_release(b);
        if (step == 0) sag_context_memory(ctx, &before);
    }
    sag_context_memory(ctx, &after);
    assert_int_equal(before.device_allocs, after.device_allocs);
    assert_int_equal(after.bytes_in_use, 0);
}

static void failed_allocations_leave_nothing(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_context_trim(ctx);
    int64_t blocks = sag_debug_live_host_blocks();
    int64_t n = 1;
    for (;; n++) {
        sag_tensor *t = NULL, *v = NULL;
        sag_debug_fail_allocation(n);
        sag_status s = sag_tensor_zeros(ctx, SAG_F32, sag_shape1(100000 + n), &t);
        if (s == SAG_OK) s = sag_tensor_require_grad(t);
        if (s == SAG_OK) s = sag_tensor_view(t, 0, sag_shape1(10), &v);
        sag_debug_fail_allocation(0);
        sag_tensor_release(v);
        sag_tensor_release(t);
        sag_context_trim(ctx);
        assert_int_equal(sag_debug_live_host_blocks(), blocks);
        if (s == SAG_OK) break;
        assert_int_equal(s, SAG_ERR_MEMORY);
    }
    assert_true(n > 5);
}

static void copies_check_their_size(void **state)
{
    (void)state;
    sag_tensor *t = make_tensor(sag_shape1(3), 1), *u = make_tensor(sag_shape1(4), 1);
    float x[3];
    assert_fails(sag_tensor_read(t, x, 8), SAG_ERR_SHAPE, "12 bytes");
    assert_fails(sag_tensor_copy(t, u), SAG_ERR_SHAPE, "alike");
    assert_ok(sag_tensor_read(t, x, 12));
    assert_memory_equal(x, f32(t), 12);
    sag_tensor_release(t);
    sag_tensor_release(u);
}

static void ops_are_described(void **state)
{
    (void)state;
    const sag_op_info *c = sag_op_describe(SAG_OP_conv2d);
    assert_string_equal(c->name, "conv2d");
    assert_int_equal(c->n_in, 5);
    assert_int_equal(c->n_attr, 4);
    assert_int_equal(c->n_out, 1);
    assert_true(c->in[2].optional && !c->in[1].optional);
    assert_true(c->attr[0].fallback == 1 && c->attr[0].type == 'i');
    assert_int_equal(sag_op_find("attention"), SAG_OP_attention);
    assert_int_equal(sag_op_find("nothing"), -1);
    for (int op = 0; op < SAG_OP_COUNT; op++) {
        const sag_op_info *info = sag_op_describe((sag_op)op);
        assert_true(info->n_in >= 1 && info->n_in <= SAG_MAX_IN && info->n_attr <= SAG_MAX_ATTR && info->n_out <= SAG_MAX_OUT);
        assert_true(info->n_out > 0 || info->in[0].mutated);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_are_checked),
        cmocka_unit_test(views_share_and_are_bounded),
        cmocka_unit_test(steps_reuse_memory),
        cmocka_unit_test(failed_allocations_leave_nothing),
        cmocka_unit_test(copies_check_their_size),
        cmocka_unit_test(ops_are_described),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
