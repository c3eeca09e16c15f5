/* test_attention.c - fused attention against the dense computation in double: values, gradients, extremes, memory. */
#include "dense_attention.h"

static void make_inputs(sag_tensor **in, int64_t b, int64_t nq, int64_t nk, int64_t d, int64_t e, float range)
{
    in[0] = make_tensor_between(sag_shape3(b, nq, d), 1, -range, range);
    in[1] = make_tensor_between(sag_shape3(b, nk, d), 2, -range, range);
    in[2] = make_tensor(sag_shape3(b, nk, e), 3);
}

static void release_all(sag_tensor **in, int n)
{
    for (int i = 0; i < n; i++) sag_tensor_release(in[i]);
}

/* Forward and all gradients against the dense computation. */
static void compare(int64_t b, int64_t nq, int64_t nk, int64_t d, int64_t e, double scale, float range,
                    double tolerance)
{
    sag_tensor *in[3];
    make_inputs(in, b, nq, nk, d, e, range);
    for (int i = 0; i < 3; i++) assert_ok(sag_tensor_require_grad(in[i]));
    sag_tensor *o = apply(SAG_OP_attention, in, &scale), *r = make_tensor(sag_shape3(b, nq, e), 4);
    dense t = dense_attention(in, scale, f32(r));
    assert_close(f32(o), t.o, b * nq * e, tolerance);
    assert_ok(sag_tape_backward_from(o, r));
    assert_close(f32(sag_tensor_grad(in[2])), t.dv, b * nk * e, tolerance);
    if (nk > 1) { /* with one key dq and dk are 0 up to rounding */
        assert_close(f32(sag_tensor_grad(in[0])), t.dq, b * nq * d, 5 * tolerance);
        assert_close(f32(sag_tensor_grad(in[1])), t.dk, b * nk * d, 5 * tolerance);
    }
    dense_free(&t);
    sag_tensor_release(o);
    sag_tensor_release(r);
    release_all(in, 3);
}

static void test_matches_dense(void **state)
{
    (void)state;
    compare(2, 64, 64, 4, 32, 1, 1, 2e-6);
    compare(1, 100, 100, 8, 64, 1, 1, 2e-6); /* sizes that fill no tile */
    compare(3, 49, 129, 5, 7, 0.7, 1, 2e-6); /* odd everything, one key beyond a tile */
    compare(1, 131, 33, 1, 1, 2, 2, 2e-6);   /* depth 1 */
    compare(2, 256, 64, 16, 48, 1, 1, 2e-6); /* the pooled form: nk = nq / 4 */
    compare(1, 300, 700, 17, 130, 0.25, 1, 3e-6);
    compare(1, 1, 1, 3, 5, 1, 1, 2e-6);
    compare(2, 5, 1, 3, 20, 1, 1, 2e-6);         /* a single key: o = v */
    compare(40, 16, 16, 4, 8, 1, 1, 2e-6);       /* many images: one chunk each */
    compare(1, 50, 1100, 128, 9, 0.1f, 1, 3e-6); /* several chunks of several tiles */
    for (int64_t d = 1; d <= 4; d++) /* few channels, keys in whole vectors and not, beyond a tile and not */
        for (int64_t e = 8; e <= 16; e += 8) {
            compare(2, 61, 128, d, e, 1, 1, 2e-6);
            compare(1, 50, 113, d, e, 0.5, 2, 2e-6);
            compare(1, 13, 391, d, e, 1, 1, 2e-6);
        }
}

/* Scores around `centre`, or around it and its negative by turns: softmax does not see a shift, the way to the result
 * does. Keys fill no tile. */
static void shifted(float centre, bool by_turns, int64_t d, int64_t e)
{
    const int64_t nq = 50, nk = 150;
    const double scale = 1;
    sag_tensor *in[3];
    make_inputs(in, 1, nq, nk, d, e, 1);
    const float root = sqrtf(fabsf(centre));
    float *q = edit_f32(in[0]), *k = edit_f32(in[1]);
    for (int64_t i = 0; i < nq; i++) q[i * d] = root;
    for (int64_t j = 0; j < nk; j++) k[j * d] = ((centre < 0) != (by_turns && j % 2) ? -root : root) + 0.3f * k[j * d];
    end_edit(in[0], q);
    end_edit(in[1], k);
    for (int i = 0; i < 3; i++) assert_ok(sag_tensor_require_grad(in[i]));
    sag_tensor *o = apply(SAG_OP_attention, in, &scale), *r = make_tensor(sag_shape3(1, nq, e), 4);
    dense t = dense_attention(in, scale, f32(r));
    const double tolerance = 1e-5 + 1e-6 * fabs((double)centre); /* a score has the rounding of its size */
    assert_close(f32(o), t.o, nq * e, tolerance);
    assert_ok(sag_tape_backward_from(o, r));
    /* in dq the common part of the keys cancels: its roundings stay */
    assert_close(f32(sag_tensor_grad(in[0])), t.dq, nq * d, 5 * tolerance * (double)(1 + root));
    assert_close(f32(sag_tensor_grad(in[1])), t.dk, nk * d, 5 * tolerance);
    assert_close(f32(sag_tensor_grad(in[2])), t.dv, nk * e, tolerance);
    dense_free(&t);
    sag_tensor_release(o);
    sag_tensor_release(r);
    release_all(in, 3);
}

static void test_shifted_scores(void **state)
{
    (void)state;
    const float centres[] = {30, 34, 36, 38, 42, 52, 100, 1000, -30, -36, -38, -42, -52, -100, -1000};
    for (int i = 0; i < 8; i++) shifted(-92 - (float)i, false, 1, 8); /* beyond the last key p would be infinite */
    const int step = testing_device() == SAG_CPU ? 1 : 4; /* a card has one way for all of these */
    for (int i = 0; i < 15; i += step)
        for (int by_turns = 0; by_turns < 2;
             by_turns++) { /* by turns: scores whose difference leaves the range of exp */
            shifted(centres[i], by_turns, 1, 8);
            shifted(centres[i], by_turns, 2, 16);
            shifted(centres[i], by_turns, 4, 32);
            shifted(centres[i], by_turns, 9, 5);
        }
}

static void test_gradients(void **state)
{
    (void)state;
    sag_tensor *in[3];
    make_inputs(in, 2, 21, 13, 3, 5, 1);
    const double scale = 0.9;
    check_gradients(SAG_OP_attention, in, &scale, 7, 1e-2, 2e-3);
    release_all(in, 3);
}

/* A frozen operand gets no gradient, and the others keep theirs. */
static void test_partial_gradients(void **state)
{
    (void)state;
    const double scale = 1;
    for (unsigned mask = 1; mask < 8; mask++) {
        sag_tensor *in[3];
        make_inputs(in, 1, 70, 150, 4, 6, 1);
        for (int i = 0; i < 3; i++)
            if (mask >> i & 1u) assert_ok(sag_tensor_require_grad(in[i]));
        sag_tensor *o = apply(SAG_OP_attention, in, &scale), *r = make_tensor(sag_tensor_shape(o), 4);
        dense t = dense_attention(in, scale, f32(r));
        assert_ok(sag_tape_backward_from(o, r));
        const double *want[3] = {t.dq, t.dk, t.dv};
        for (int i = 0; i < 3; i++)
            if (mask >> i & 1u) assert_close(f32(sag_tensor_grad(in[i])), want[i], sag_tensor_numel(in[i]), 1e-5);
        dense_free(&t);
        sag_tensor_release(o);
        sag_tensor_release(r);
        release_all(in, 3);
    }
}

/* Logits of +-1e4: rows are one-hot, nothing overflows, and exact ties share. */
static void test_extreme_logits(void **state)
{
    (void)state;
    const int64_t n = 260;
    sag_tensor *in[3];
    in[0] = make_tensor_between(sag_shape3(1, n, 2), 1, -1, 1);
    in[1] = make_tensor_between(sag_shape3(1, n, 2), 2, -1, 1);
    in[2] = make_tensor(sag_shape3(1, n, 8), 3);
    float *q = edit_f32(in[0]), *k = edit_f32(in[1]);
    for (int64_t i = 0; i < n; i++) { /* s_ij = 64 q_i k_j, whole numbers up to about 1e4 */
        q[2 * i] = (float)((i * 7) % 41 - 20);
        k[2 * i] = (float)((i * 5) % 17 - 8);
        q[2 * i + 1] = k[2 * i + 1] = 0;
    }
    end_edit(in[0], q);
    end_edit(in[1], k);
    const double scale = 64;
    for (int i = 0; i < 3; i++) assert_ok(sag_tensor_require_grad(in[i]));
    sag_tensor *o = apply(SAG_OP_attention, in, &scale), *r = make_tensor(sag_tensor_shape(o), 4);
    dense t = dense_attention(in, scale, f32(r));
    assert_close(f32(o), t.o, n * 8, 2e-6);
    assert_ok(sag_tape_backward_from(o, r));
    /* lse holds log(ties) beside 1e4: an f32 of that size has an error of 5e-4 */
    assert_close(f32(sag_tensor_grad(in[2])), t.dv, n * 8, 1e-3);
    for (int i = 0; i < 2; i++) {
        const float *g = f32(sag_tensor_grad(in[i]));
        for (int64_t j = 0; j < n * 2; j++) assert_true(isfinite(g[j]));
    }
    dense_free(&t);
    sag_tensor_release(o);
    sag_tensor_release(r);
    release_all(in, 3);
}

static void test_nan_spreads(void **state)
{
    (void)state;
    sag_tensor *in[3];
    make_inputs(in, 1, 40, 150, 4, 8, 1);
    set_f32(in[0], 4 * 3, NAN);
    const double scale = 1;
    sag_tensor *o = apply(SAG_OP_attention, in, &scale);
    for (int64_t i = 0; i < 40 * 8; i++) assert_true((isnan(f32(o)[i]) != 0) == (i / 8 == 3));
    sag_tensor_release(o);
    set_f32(in[0], 4 * 3, 1);
    set_f32(in[1], 4 * 140, NAN);
    o = apply(SAG_OP_attention, in, &scale);
    for (int64_t i = 0; i < 40 * 8; i++) assert_true(isnan(f32(o)[i]));
    sag_tensor_release(o);
    release_all(in, 3);
}

static void test_threads(void **state)
{
    (void)state;
    const double scale = 1;
    const int64_t sizes[][5] = {
        {2, 300, 300, 4, 32}, {1, 257, 1029, 9, 21}, {35, 60, 15, 3, 8}, {3, 259, 259, 1, 8}, {2, 200, 300, 2, 16}};
    for (int i = 0; i < 5; i++) {
        sag_tensor *in[3];
        make_inputs(in, sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3], sizes[i][4], 1);
        check_threads(SAG_OP_attention, in, &scale, 7);
        release_all(in, 3);
    }
}

static int64_t peak_of(int64_t n)
{
    sag_context *ctx = testing_context();
    sag_tensor *in[3];
    make_inputs(in, 1, n, n, 4, 32, 1);
    for (int i = 0; i < 3; i++) assert_ok(sag_tensor_require_grad(in[i]));
    const double scale = 1;
    sag_context_reset_peak(ctx);
    sag_tensor *o = apply(SAG_OP_attention, in, &scale), *r = make_tensor(sag_tensor_shape(o), 4);
    assert_ok(sag_tape_backward_from(o, r));
    sag_memory_stats stats;
    sag_context_memory(ctx, &stats);
    sag_tensor_release(o);
    sag_tensor_release(r);
    release_all(in, 3);
    return stats.bytes_peak;
}

/* The map of 4096 positions alone would be 67 MB. An emulated card takes a minute for half of them. */
static void test_memory_is_linear(void **state)
{
    (void)state;
    const bool cpu = testing_device() == SAG_CPU;
    const int64_t n = cpu ? 4096 : 1024, small = peak_of(n / 4), large = peak_of(n);
    assert_true(large < n * n * 4 / (cpu ? 8 : 2));
    if (large > 5 * small) fail_msg("peak grew from %lld to %lld", (long long)small, (long long)large);
}

static sag_status forward_and_backward(sag_tensor **in, const sag_tensor *r)
{
    const double scale = 1;
    sag_tensor *out[SAG_MAX_OUT] = {NULL}, *dy = NULL;
    sag_status s = sag_op_apply(testing_context(), SAG_OP_attention, in, &scale, out);
    if (s == SAG_OK) s = sag_tensor_create(testing_context(), SAG_F32, sag_tensor_shape(r), &dy);
    if (s == SAG_OK) s = sag_tensor_copy(dy, r);
    if (s == SAG_OK) s = sag_tape_backward_from(out[0], dy);
    sag_tensor_release(dy);
    sag_tensor_release(out[0]);
    sag_tape_clear(testing_context());
    return s;
}

/* Each allocation fails once: an error that says so, and nothing that stays behind. */
static void test_allocation_failure(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *in[3], *r = make_tensor(sag_shape3(2, 30, 5), 4);
    make_inputs(in, 2, 30, 40, 3, 5, 1);
    for (int i = 0; i < 3; i++) assert_ok(sag_tensor_require_grad(in[i]));
    sag_memory_stats before, after;
    sag_status s = SAG_ERR_MEMORY;
    int64_t n = 0;
    assert_ok(forward_and_backward(in, r)); /* gradients exist from here on */
    sag_context_memory(ctx, &before);
    while (s != SAG_OK && n < 200) {
        sag_context_trim(ctx);
        sag_debug_fail_allocation(++n);
        s = forward_and_backward(in, r);
        sag_debug_fail_allocation(0);
        sag_context_memory(ctx, &after);
        assert_true(s == SAG_OK || s == SAG_ERR_MEMORY);
        assert_true(after.live_tensors == before.live_tensors && after.live_storages == before.live_storages);
    }
    assert_int_equal(s, SAG_OK);
    assert_true(n > 5);
    sag_tensor_release(r);
    release_all(in, 3);
}

static void test_map(void **state)
{
    (void)state;
    sag_tensor *in[3];
    make_inputs(in, 2, 77, 130, 6, 4, 2);
    const double scale = 0.5;
    dense t = dense_attention(in, scale, NULL);
    const int32_t rows[] = {0, 76, 13, 13};
    sag_tensor *queries = make_i32(4, rows), *mapped[3] = {in[0], in[1], queries};
    sag_tensor *p = apply(SAG_OP_attention_map, mapped, &scale);
    assert_true(sag_shape_equal(sag_tensor_shape(p), sag_shape3(2, 4, 130)));
    for (int64_t b = 0; b < 2; b++)
        for (int64_t m = 0; m < 4; m++)
            assert_close(f32(p) + (b * 4 + m) * 130, t.p + (b * 77 + rows[m]) * 130, 130, 2e-6);
    sag_tensor_release(p);
    for (int k = 0; k < 2; k++) {
        const int32_t bad[] = {3, k ? 77 : -1};
        sag_tensor *wrong = make_i32(2, bad);
        mapped[2] = wrong;
        check_bad_index(SAG_OP_attention_map, mapped, &scale, "index");
        sag_tensor_release(wrong);
    }
    dense_free(&t);
    sag_tensor_release(queries);
    release_all(in, 3);
}

/* Entropy and distance from the dense map, cells as squares: a key of a grid half as fine covers 2 x 2 query cells. */
static void compare_stats(int64_t height, int64_t width, int64_t key_height, int64_t key_width, float range)
{
    sag_tensor *in[3];
    const int64_t nq = height * width, nk = key_height * key_width, batch = 3;
    make_inputs(in, batch, nq, nk, 5, 1, range);
    dense t = dense_attention(in, 1, NULL);
    double want[2] = {0, 0};
    const double cell = (double)width / (double)key_width;
    for (int64_t row = 0; row < batch * nq; row++) {
        const double x = (double)(row % nq % width) + 0.5, y = (double)(row % nq / width) + 0.5;
        for (int64_t j = 0; j < nk; j++) {
            const double p = t.p[row * nk + j];
            const double kx = ((double)(j % key_width) + 0.5) * cell, ky = ((double)(j / key_width) + 0.5) * cell;
            if (p > 0) want[0] -= p * log(p) / (double)(batch * nq);
            want[1] += p * hypot(kx - x, ky - y) / (double)(batch * nq);
        }
    }
    const double attr[2] = {(double)width, 1};
    sag_tensor *s = apply(SAG_OP_attention_stats, in, attr);
    if (fabs((double)f32(s)[0] - want[0]) > 1e-5 * fmax(1, want[0]))
        fail_msg("entropy %.8g, want %.8g", (double)f32(s)[0], want[0]);
    if (fabs((double)f32(s)[1] - want[1]) > 1e-5 * want[1])
        fail_msg("distance %.8g, want %.8g", (double)f32(s)[1], want[1]);
    sag_tensor_release(s);
    check_threads(SAG_OP_attention_stats, in, attr, 0);
    dense_free(&t);
    release_all(in, 3);
}

static void test_stats(void **state)
{
    (void)state;
    compare_stats(12, 16, 12, 16, 1);
    compare_stats(12, 16, 6, 8, 2);
    compare_stats(9, 15, 3, 5, 1);
    compare_stats(16, 16, 16, 16, 30); /* nearly one-hot rows */
}

static void test_bad_shapes(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *in[3], *out[SAG_MAX_OUT];
    make_inputs(in, 2, 6, 4, 3, 5, 1);
    const double scale = 1, width[2] = {4, 1};
    sag_tensor *flat = make_tensor(sag_shape2(6, 3), 1), *deep = make_tensor(sag_shape3(2, 4, 2), 1);
    sag_tensor *batch = make_tensor(sag_shape3(1, 4, 3), 1), *short_v = make_tensor(sag_shape3(2, 3, 5), 1);
    sag_tensor *pair[3] = {flat, in[1], in[2]};
    assert_fails(sag_op_apply(ctx, SAG_OP_attention, pair, &scale, out), SAG_ERR_SHAPE, "{B,Nq,D}");
    pair[0] = in[0];
    pair[1] = deep;
    assert_fails(sag_op_apply(ctx, SAG_OP_attention, pair, &scale, out), SAG_ERR_SHAPE, "depth");
    pair[1] = batch;
    assert_fails(sag_op_apply(ctx, SAG_OP_attention, pair, &scale, out), SAG_ERR_SHAPE, "batch");
    pair[1] = in[1];
    pair[2] = short_v;
    assert_fails(sag_op_apply(ctx, SAG_OP_attention, pair, &scale, out), SAG_ERR_SHAPE, "v must be");
    pair[2] = in[2];
    assert_fails(sag_op_apply(ctx, SAG_OP_attention_map, pair, &scale, out), SAG_ERR_DTYPE, "i32");
    assert_fails(sag_op_apply(ctx, SAG_OP_attention_stats, pair, width, out), SAG_ERR_ARG, "width");
    const double fits[2] = {3, 1}; /* 2 x 3 queries, 4 keys: no grid of that shape */
    assert_fails(sag_op_apply(ctx, SAG_OP_attention_stats, pair, fits, out), SAG_ERR_SHAPE, "grid");
    const int32_t whole[] = {1};
    sag_tensor *i32 = make_i32(1, whole);
    pair[0] = i32;
    assert_fails(sag_op_apply(ctx, SAG_OP_attention, pair, &scale, out), SAG_ERR_DTYPE, "f32");
    sag_tensor *rest[] = {flat, deep, batch, short_v, i32};
    release_all(rest, 5);
    release_all(in, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches_dense),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_partial_gradients),
        cmocka_unit_test(test_shifted_scores),
        cmocka_unit_test(test_extreme_logits),
        cmocka_unit_test(test_nan_spreads),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_memory_is_linear),
        cmocka_unit_test(test_allocation_failure),
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_stats),
        cmocka_unit_test(test_bad_shapes),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
