/*
 * test_cuda_backend.c - the CUDA backend's host code on the emulated card: what a graph's memory is, what is said when the
 * card, its driver or its memory fails, and that a failure loses nothing.
 */
#include "tests/c/testing.h"
#include "tests/cuda_emulator/hooks.h"

enum { OUT_OF_MEMORY = 2, OLD_DRIVER = 35, NO_DEVICE = 100, ECC = 214, LAUNCH_FAILURE = 719 }; /* cudaError_t */

static sag_tensor *scaled(sag_tensor *x, double by)
{
    return apply(SAG_OP_scale, &x, (double[]){by, 0});
}

static void fill(sag_tensor *x, double value)
{
    sag_tensor *none[SAG_MAX_OUT];
    assert_ok(sag_op_apply(testing_context(), SAG_OP_fill, &x, &value, none));
}

/* y = 2 x, z = 3 y, and y is gone when the recording ends: its memory must not go to what is made between replays. */
static void graph_memory(int64_t n)
{
    sag_tensor *x = make_tensor(sag_shape1(n), 1), *z = NULL;
    for (int warm = 0; warm < 2; warm++) {
        sag_tensor_release(z);
        if (warm) assert_ok(sag_capture_begin(testing_context()));
        sag_tensor *y = scaled(x, 2);
        z = scaled(y, 3);
        sag_tensor_release(y);
    }
    sag_graph *g = NULL;
    assert_ok(sag_capture_end(testing_context(), &g));
    sag_tensor *other[8];
    for (int i = 0; i < 8; i++) {
        assert_ok(sag_tensor_zeros(testing_context(), SAG_F32, sag_shape1(n), &other[i]));
        fill(other[i], 7);
    }
    float *want = edit_f32(x);
    sag_tensor_release(x); /* what the graph reads lives as long as it does */
    sag_tensor *more = NULL;
    assert_ok(sag_tensor_zeros(testing_context(), SAG_F32, sag_shape1(n), &more));
    fill(more, 9);
    for (int replay = 0; replay < 2; replay++) {
        assert_ok(sag_graph_launch(g));
        const float *p = f32(z);
        for (int64_t i = 0; i < n; i++) assert_true(p[i] == 6 * want[i]);
        for (int i = 0; i < 8; i++) {
            p = f32(other[i]);
            for (int64_t k = 0; k < n; k++) assert_true(p[k] == 7);
        }
    }
    free(want);
    sag_graph_destroy(g);
    /* A result outlives its graph. */
    const float *p = f32(z);
    for (int64_t i = 0; i < n; i++) assert_true(isfinite(p[i]));
    for (int i = 0; i < 8; i++) sag_tensor_release(other[i]);
    sag_tensor_release(more);
    sag_tensor_release(z);
}

static void a_graph_owns_its_memory(void **state)
{
    (void)state;
    cuda_emulator_counts before, after;
    testing_context();
    sag_context_trim(testing_context());
    cuda_emulator_count(&before);
    graph_memory(100);   /* a size that the cache of small storages serves */
    graph_memory(50000); /* one of the heap */
    sag_context_trim(testing_context());
    cuda_emulator_count(&after);
    assert_int_equal(after.replays - before.replays, 4);
    assert_true(after.live <= before.live + 1); /* scratch */
}

/* Large copies to the card are still under way when the next ones begin: each has its own bytes, also where the place they leave
 * from has to grow. */
static void copies_do_not_overtake(void **state)
{
    (void)state;
    enum { COPIES = 7 };
    sag_tensor *t[COPIES];
    for (int i = 0; i < COPIES; i++)
        assert_ok(sag_tensor_create(testing_context(), SAG_F32, sag_shape1(20000 + (i > 4 ? 5000 : 0)), &t[i]));
    float *x = malloc(25000 * sizeof *x);
    for (int i = 0; i < COPIES; i++) {
        for (int k = 0; k < 25000; k++) x[k] = (float)(i + 1);
        assert_ok(sag_tensor_write(t[i], x, (size_t)sag_tensor_numel(t[i]) * sizeof *x));
    }
    memset(x, 0, 25000 * sizeof *x);
    for (int i = 0; i < COPIES; i++) {
        const float *p = f32(t[i]);
        for (int64_t k = 0; k < sag_tensor_numel(t[i]); k++) assert_true(p[k] == (float)(i + 1));
        sag_tensor_release(t[i]);
    }
    free(x);
}

/* A recording that is given up leaves nothing behind, and the next one works. */
static void a_recording_can_fail(void **state)
{
    (void)state;
    sag_tensor *x = make_tensor(sag_shape1(1000), 1);
    float got[1000];
    sag_graph *g = NULL;
    assert_ok(sag_capture_begin(testing_context()));
    sag_tensor *y = scaled(x, 2);
    assert_fails(sag_tensor_read(y, got, sizeof got), SAG_ERR_STATE, "cannot read back");
    assert_fails(sag_capture_begin(testing_context()), SAG_ERR_STATE, "already under way");
    sag_tensor_release(y);
    assert_ok(sag_capture_end(testing_context(), &g));
    sag_graph_destroy(g);
    cuda_emulator_fail(CUDA_EMULATOR_GRAPH, 2, OUT_OF_MEMORY);
    assert_ok(sag_capture_begin(testing_context()));
    y = scaled(x, 2);
    sag_tensor_release(y);
    assert_fails(sag_capture_end(testing_context(), &g), SAG_ERR_DEVICE, "out of memory");
    assert_null(g);
    assert_ok(sag_capture_begin(testing_context()));
    sag_debug_fail_allocation(3); /* header, storage, its memory */
    sag_tensor *out[SAG_MAX_OUT];
    assert_fails(sag_op_apply(testing_context(), SAG_OP_relu, &x, NULL, out), SAG_ERR_MEMORY, "smaller batch");
    y = scaled(x, 2);
    assert_ok(sag_capture_end(testing_context(), &g));
    assert_ok(sag_graph_launch(g));
    assert_ok(sag_tensor_read(y, got, sizeof got));
    assert_true(got[5] == 2 * f32(x)[5]);
    sag_graph_destroy(g);
    sag_tensor_release(y);
    sag_tensor_release(x);
}

/* What a recording leaves is moved when it ends; where there is no room for it the recording fails, and all goes back. */
static void no_room_for_a_result(void **state)
{
    (void)state;
    sag_tensor *x = make_tensor(sag_shape1(400000), 1);
    cuda_emulator_counts before, after;
    sag_graph *g = NULL;
    sag_context_trim(testing_context());
    cuda_emulator_count(&before);
    assert_ok(sag_capture_begin(testing_context()));
    sag_tensor *y = scaled(x, 2), *z = scaled(y, 2);
    cuda_emulator_fail(CUDA_EMULATOR_ALLOC, 1, OUT_OF_MEMORY);
    assert_fails(sag_capture_end(testing_context(), &g), SAG_ERR_MEMORY, "ending a capture");
    assert_null(g);
    assert_ok(sag_capture_begin(testing_context())); /* beside what is left of the other */
    sag_tensor *again = scaled(x, 3);
    sag_tensor_release(y);
    assert_ok(sag_capture_end(testing_context(), &g));
    sag_tensor_release(z);
    assert_ok(sag_graph_launch(g));
    float *want = edit_f32(x);
    const float *got = f32(again);
    for (int64_t i = 0; i < 400000; i++) assert_true(got[i] == 3 * want[i]);
    free(want);
    sag_graph_destroy(g);
    sag_tensor_release(again);
    cuda_emulator_count(&after);
    assert_int_equal(before.live, after.live);
    sag_tensor_release(x);
}

static void out_of_memory(void **state)
{
    (void)state;
    sag_tensor *x = make_tensor(sag_shape1(1000), 1), *t = NULL;
    assert_fails(sag_tensor_create(testing_context(), SAG_F32, sag_shape1((int64_t)1 << 40), &t), SAG_ERR_MEMORY, "precision=bf16");
    assert_null(t);
    /* the cache is given back and the request repeated before it fails */
    cuda_emulator_fail(CUDA_EMULATOR_ALLOC, 1, OUT_OF_MEMORY);
    assert_ok(sag_tensor_create(testing_context(), SAG_F32, sag_shape1(123457), &t));
    sag_tensor_release(t);
    sag_tensor *y = scaled(x, 2);
    assert_true(f32(y)[3] == 2 * f32(x)[3]);
    sag_tensor_release(y);
    sag_tensor_release(x);
}

static void lost_card(void **state)
{
    (void)state;
    sag_tensor *x = make_tensor(sag_shape1(1000), 1), *out[SAG_MAX_OUT];
    float got[1000];
    cuda_emulator_fail(CUDA_EMULATOR_LAUNCH, 1, LAUNCH_FAILURE);
    assert_fails(sag_op_apply(testing_context(), SAG_OP_relu, &x, NULL, out), SAG_ERR_DEVICE, "the last checkpoint is whole");
    assert_fails(sag_op_apply(testing_context(), SAG_OP_relu, &x, NULL, out), SAG_ERR_DEVICE, "relu");
    assert_fails(sag_tensor_read(x, got, sizeof got), SAG_ERR_DEVICE, "LaunchFailure");
    assert_fails(sag_context_synchronize(testing_context()), SAG_ERR_DEVICE, "LaunchFailure");
    cuda_emulator_reset();
    cuda_emulator_fail(CUDA_EMULATOR_WAIT, 1, ECC); /* found out later, at a wait */
    assert_fails(sag_tensor_read(x, got, sizeof got), SAG_ERR_DEVICE, "ECC");
    cuda_emulator_reset();
    assert_ok(sag_tensor_read(x, got, sizeof got));
    sag_tensor_release(x);
}

static void no_card(void **state)
{
    (void)state;
    sag_context *c = NULL;
    cuda_emulator_fail(CUDA_EMULATOR_QUERY, 2, OLD_DRIVER);
    assert_fails(sag_context_create(SAG_CUDA, &c), SAG_ERR_DEVICE, "update the driver");
    cuda_emulator_fail(CUDA_EMULATOR_QUERY, 2, NO_DEVICE);
    assert_fails(sag_context_create(SAG_CUDA, &c), SAG_ERR_DEVICE, "no card is visible");
    setenv("SAGAN_EMULATOR_ARCH", "61", 1);
    assert_fails(sag_context_create(SAG_CUDA, &c), SAG_ERR_DEVICE, "compute capability 6.1");
    unsetenv("SAGAN_EMULATOR_ARCH");
    assert_null(c);
    assert_true(sag_device_available(SAG_CUDA));
    assert_non_null(strstr(sag_device_detail(SAG_CUDA), "emulated card"));
}

/* Every allocation of a step, made to fail in turn: an error each time, and nothing is left over. */
static void each_allocation_can_fail(void **state)
{
    (void)state;
    sag_tensor *x = make_tensor(sag_shape2(40, 1000), 1);
    int failures = 0;
    for (int64_t n = 1; n < 100; n++) {
        sag_context_trim(testing_context());
        sag_memory_stats before, after;
        sag_context_memory(testing_context(), &before);
        int64_t blocks = sag_debug_live_host_blocks();
        sag_tensor *out[SAG_MAX_OUT] = {0};
        sag_graph *g = NULL;
        sag_debug_fail_allocation(n);
        sag_status s = sag_capture_begin(testing_context());
        if (s == SAG_OK) {
            s = sag_op_apply(testing_context(), SAG_OP_sum, &x, (double[]){0}, out);
            sag_tensor_release(out[0]);
            sag_status end = sag_capture_end(testing_context(), &g);
            if (s == SAG_OK) s = end;
        }
        sag_debug_fail_allocation(0);
        sag_graph_destroy(g);
        sag_context_memory(testing_context(), &after);
        assert_int_equal(before.live_storages, after.live_storages);
        assert_int_equal(blocks, sag_debug_live_host_blocks());
        if (s == SAG_OK) break;
        assert_int_equal(s, SAG_ERR_MEMORY);
        failures++;
    }
    assert_in_range(failures, 5, 90);
    sag_tensor_release(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_graph_owns_its_memory), cmocka_unit_test(copies_do_not_overtake), cmocka_unit_test(a_recording_can_fail),
        cmocka_unit_test(no_room_for_a_result),    cmocka_unit_test(out_of_memory),
        cmocka_unit_test(lost_card),               cmocka_unit_test(no_card),              cmocka_unit_test(each_allocation_can_fail),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
