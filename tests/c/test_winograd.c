/*
 * conv2d where it goes by Winograd's algorithm: values against sums in double, also with many
 * channels; the switch; threads. Whether it is in use shows in the bits: with the switch off the roundings are others.
 */
#include "testing.h"

typedef struct conv_case {
    int64_t n, h, w, c, k, pad_h, pad_w;
} conv_case;

/* Whole tiles, clipped tiles on one side or both, channels off the vectors, all paddings, many channels. */
static const conv_case cases[] = {
    {4, 16, 16, 64, 64, 1, 1},  {3, 15, 22, 48, 40, 1, 1},   {4, 21, 18, 47, 64, 0, 0}, {3, 18, 18, 40, 72, 2, 2},
    {3, 14, 20, 64, 43, 2, 0},  {40, 4, 4, 96, 80, 1, 1},    {1, 40, 39, 16, 16, 1, 1}, {4, 12, 16, 126, 140, 1, 1},
    {9, 15, 16, 205, 90, 0, 2}, {8, 16, 24, 160, 270, 1, 1}, {9, 28, 31, 32, 20, 1, 1}, {11, 28, 27, 72, 33, 1, 1},
    {2, 16, 20, 290, 40, 1, 1},
};
enum { CASES = sizeof cases / sizeof *cases };

static int64_t out_h(const conv_case *t)
{
    return t->h + 2 * t->pad_h - 2;
}
static int64_t out_w(const conv_case *t)
{
    return t->w + 2 * t->pad_w - 2;
}

static void tensors(const conv_case *t, uint64_t seed, float low, sag_tensor **in)
{
    in[0] = make_tensor_between(sag_shape4(t->n, t->h, t->w, t->c), seed, low, 1);
    in[1] = make_tensor(sag_shape4(t->k, 3, 3, t->c), seed + 1);
    in[2] = make_tensor(sag_shape1(t->k), seed + 2);
    in[3] = in[4] = NULL;
}

static sag_tensor *output_gradient(const conv_case *t, uint64_t seed, float low)
{
    return make_tensor_between(sag_shape4(t->n, out_h(t), out_w(t), t->k), seed, low, 1);
}

static void release_all(sag_tensor **in, int n)
{
    for (int i = 0; i < n; i++) sag_tensor_release(in[i]);
}

/* One element of each result, in double. */
static double y_at(const conv_case *t, const float *x, const float *w, const float *b, int64_t i)
{
    int64_t k = i % t->k, q = i / t->k % out_w(t), p = i / t->k / out_w(t) % out_h(t),
            n = i / t->k / out_w(t) / out_h(t);
    double sum = (double)b[k];
    for (int64_t r = 0; r < 3; r++)
        for (int64_t s = 0; s < 3; s++) {
            int64_t h = p - t->pad_h + r, v = q - t->pad_w + s;
            if (h < 0 || h >= t->h || v < 0 || v >= t->w) continue;
            for (int64_t c = 0; c < t->c; c++)
                sum += (double)x[((n * t->h + h) * t->w + v) * t->c + c] * (double)w[((k * 3 + r) * 3 + s) * t->c + c];
        }
    return sum;
}
static double dx_at(const conv_case *t, const float *dy, const float *w, int64_t i)
{
    int64_t c = i % t->c, v = i / t->c % t->w, h = i / t->c / t->w % t->h, n = i / t->c / t->w / t->h;
    double sum = 0;
    for (int64_t r = 0; r < 3; r++)
        for (int64_t s = 0; s < 3; s++) {
            int64_t p = h + t->pad_h - r, q = v + t->pad_w - s;
            if (p < 0 || p >= out_h(t) || q < 0 || q >= out_w(t)) continue;
            for (int64_t k = 0; k < t->k; k++)
                sum += (double)dy[((n * out_h(t) + p) * out_w(t) + q) * t->k + k] *
                       (double)w[((k * 3 + r) * 3 + s) * t->c + c];
        }
    return sum;
}
static double dw_at(const conv_case *t, const float *dy, const float *x, int64_t i)
{
    int64_t c = i % t->c, s = i / t->c % 3, r = i / t->c / 3 % 3, k = i / t->c / 9;
    double sum = 0;
    for (int64_t n = 0; n < t->n; n++)
        for (int64_t p = 0; p < out_h(t); p++)
            for (int64_t q = 0; q < out_w(t); q++) {
                int64_t h = p - t->pad_h + r, v = q - t->pad_w + s;
                if (h < 0 || h >= t->h || v < 0 || v >= t->w) continue;
                sum += (double)dy[((n * out_h(t) + p) * out_w(t) + q) * t->k + k] *
                       (double)x[((n * t->h + h) * t->w + v) * t->c + c];
            }
    return sum;
}

/* Forward and backward `passes` times onto the same gradients; results[0..2] are y, dx, dw, owned by the caller. */
static void run(const conv_case *t, sag_tensor **in, const sag_tensor *dy, int passes, sag_tensor **results)
{
    double attr[4] = {1, (double)t->pad_h, (double)t->pad_w};
    for (int j = 0; j < 2; j++) {
        assert_ok(sag_tensor_require_grad(in[j]));
        assert_ok(sag_tensor_zero_grad(in[j]));
    }
    for (int pass = 0; pass < passes; pass++) {
        sag_tensor *y = apply(SAG_OP_conv2d, in, attr);
        assert_ok(sag_tape_backward_from(y, (sag_tensor *)(uintptr_t)dy));
        if (pass + 1 < passes)
            sag_tensor_release(y);
        else
            results[0] = y;
    }
    for (int j = 0; j < 2; j++) results[1 + j] = make_tensor_from(sag_tensor_shape(in[j]), f32(sag_tensor_grad(in[j])));
}

/* About `samples` elements of each result, spread over it, within `tolerance` of the sums in double. */
static void check_values(const conv_case *t, sag_tensor **in, const sag_tensor *dy, sag_tensor **results, int passes,
                         int64_t samples, double tolerance)
{
    const float *x = f32(in[0]), *w = f32(in[1]), *b = f32(in[2]), *g = f32(dy);
    for (int j = 0; j < 3; j++) {
        int64_t total = sag_tensor_numel(results[j]), n = total < samples ? total : samples;
        float *got = malloc((size_t)n * sizeof *got);
        double *want = malloc((size_t)n * sizeof *want);
        assert_true(got && want);
        for (int64_t i = 0; i < n; i++) {
            int64_t at = n == total ? i : (i * 7919 * 104729 + i) % total;
            got[i] = f32(results[j])[at];
            want[i] = j == 0 ? y_at(t, x, w, b, at) : passes * (j == 1 ? dx_at(t, g, w, at) : dw_at(t, g, x, at));
        }
        double error = relative_error(got, want, n);
        if (!(error <= tolerance))
            fail_msg("%s of {%d,%d,%d,%d} -> %d: relative error %.3g > %.3g",
                     j == 0   ? "y"
                     : j == 1 ? "dx"
                              : "dw",
                     (int)t->n, (int)t->h, (int)t->w, (int)t->c, (int)t->k, error, tolerance);
        free(got), free(want);
    }
}

static void values_are_right(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        const conv_case *t = &cases[i];
        sag_tensor *in[5], *results[3];
        tensors(t, (uint64_t)(10 * i + 1), -1, in);
        sag_tensor *dy = output_gradient(t, 99, -1);
        for (int passes = 1; passes <= 2; passes++) {
            run(t, in, dy, passes, results);
            check_values(t, in, dy, results, passes, 3000, 1e-6);
            release_all(results, 3);
        }
        sag_tensor_release(dy);
        release_all(in, 3);
    }
}

/* Sums of many terms, of either sign and all positive. */
static void many_channels_stay_exact(void **state)
{
    (void)state;
    const conv_case wide[] = {{32, 8, 8, 512, 512, 1, 1}, {70, 4, 4, 1024, 256, 1, 1}, {70, 4, 4, 256, 1024, 1, 1}};
    for (int i = 0; i < 3; i++) {
        const conv_case *t = &wide[i];
        sag_tensor *in[5], *results[3];
        tensors(t, 5, i == 0 ? -1 : 0, in);
        sag_tensor *dy = output_gradient(t, 6, i == 0 ? -1 : 0);
        run(t, in, dy, 1, results);
        check_values(t, in, dy, results, 1, 400, 3e-6);
        release_all(results, 3);
        sag_tensor_release(dy);
        release_all(in, 3);
    }
}

static void a_switch_turns_it_off(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    assert_true(sag_context_winograd(ctx));
    for (int i = 0; i < CASES; i++) {
        const conv_case *t = &cases[i];
        sag_tensor *in[5], *on[3], *off[3];
        tensors(t, 3, -1, in);
        sag_tensor *dy = output_gradient(t, 4, -1);
        run(t, in, dy, 1, on);
        sag_context_set_winograd(ctx, false);
        assert_false(sag_context_winograd(ctx));
        run(t, in, dy, 1, off);
        sag_context_set_winograd(ctx, true);
        check_values(t, in, dy, off, 1, 500, 1e-6);
        for (int j = 0; j < 3; j++) {
            size_t bytes = (size_t)sag_tensor_numel(on[j]) * sizeof(float);
            if (memcmp(f32(on[j]), f32(off[j]), bytes) == 0)
                fail_msg("case %d: %s is the same bits with the switch off", i, j == 0 ? "y" : j == 1 ? "dx" : "dw");
        }
        release_all(on, 3), release_all(off, 3);
        sag_tensor_release(dy);
        release_all(in, 3);
    }
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        double attr[4] = {1, (double)cases[i].pad_h, (double)cases[i].pad_w};
        sag_tensor *in[5];
        tensors(&cases[i], 5, -1, in);
        check_threads(SAG_OP_conv2d, in, attr, 7);
        release_all(in, 3);
    }
}

/* The batch that a picture is in does not change what becomes of it. */
static void pictures_do_not_mix(void **state)
{
    (void)state;
    conv_case t = cases[1];
    sag_tensor *in[5];
    tensors(&t, 8, -1, in);
    sag_tensor *part = NULL;
    int64_t each = t.h * t.w * t.c;
    double attr[4] = {1, 1, 1};
    sag_tensor *all = apply(SAG_OP_conv2d, in, attr);
    assert_ok(sag_tensor_view(in[0], each, sag_shape4(2, t.h, t.w, t.c), &part));
    sag_tensor *of_part = apply(SAG_OP_conv2d, (sag_tensor *[5]){part, in[1], in[2]}, attr);
    int64_t n = sag_tensor_numel(of_part);
    assert_memory_equal(f32(of_part), f32(all) + n / 2, (size_t)n * sizeof(float));
    /* not-a-number in one picture stays there */
    for (int64_t i = 0; i < each; i++) ((float *)sag_tensor_data(in[0]))[i] = NAN;
    sag_tensor_release(all);
    all = apply(SAG_OP_conv2d, in, attr);
    assert_memory_equal(f32(of_part), f32(all) + n / 2, (size_t)n * sizeof(float));
    sag_tensor_release(all);
    sag_tensor_release(of_part);
    sag_tensor_release(part);
    release_all(in, 3);
}

/* A number beyond the border must not be read: infinities around the tensor would show. */
static void reads_only_its_own(void **state)
{
    (void)state;
    const conv_case t = {3, 18, 19, 47, 40, 1, 1};
    int64_t nx = t.n * t.h * t.w * t.c, guard = 2048;
    sag_tensor *big = make_tensor(sag_shape1(nx + 2 * guard), 3), *x = NULL;
    float *p = edit_f32(big);
    for (int64_t i = 0; i < guard; i++) p[i] = p[nx + guard + i] = INFINITY;
    end_edit(big, p);
    assert_ok(sag_tensor_view(big, guard, sag_shape4(t.n, t.h, t.w, t.c), &x));
    sag_tensor *w = make_tensor(sag_shape4(t.k, 3, 3, t.c), 4);
    double attr[4] = {1, 1, 1};
    sag_tensor *y = apply(SAG_OP_conv2d, (sag_tensor *[5]){x, w}, attr);
    for (int64_t i = 0; i < sag_tensor_numel(y); i++) assert_true(isfinite(f32(y)[i]));
    sag_tensor_release(y);
    sag_tensor_release(w);
    sag_tensor_release(x);
    sag_tensor_release(big);
}

static void failed_allocations_leave_nothing(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    double attr[4] = {1, 1, 1};
    sag_memory_stats before, after;
    sag_context_memory(ctx, &before);
    int failures = 0;
    for (int64_t n = 1, done = 0; !done; n++) {
        sag_tensor *in[5], *out[3] = {0};
        tensors(&cases[0], 9, -1, in);
        for (int j = 0; j < 2; j++) assert_ok(sag_tensor_require_grad(in[j]));
        sag_tensor *dy = make_tensor(sag_shape4(4, 16, 16, 64), 3);
        sag_context_trim(ctx);
        sag_debug_fail_allocation(n);
        sag_status s = sag_op_apply(ctx, SAG_OP_conv2d, in, attr, out);
        if (s == SAG_OK) s = sag_tape_backward_from(out[0], dy);
        sag_debug_fail_allocation(0);
        sag_tape_clear(ctx);
        done = s == SAG_OK;
        if (!done) assert_int_equal(s, SAG_ERR_MEMORY), failures++;
        sag_tensor_release(out[0]);
        sag_tensor_release(dy);
        release_all(in, 3);
        sag_context_memory(ctx, &after);
        assert_int_equal(before.live_tensors, after.live_tensors);
        assert_int_equal(before.live_storages, after.live_storages);
    }
    assert_true(failures >= 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_right),
        cmocka_unit_test(many_channels_stay_exact),
        cmocka_unit_test(a_switch_turns_it_off),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(pictures_do_not_mix),
        cmocka_unit_test(reads_only_its_own),
        cmocka_unit_test(failed_allocations_leave_nothing),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
