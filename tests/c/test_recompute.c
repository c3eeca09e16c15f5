/*
 * Parts of the tape that are recomputed: the same bits as where activations are kept (which the finite differences beside
 * the ops hold), less memory, nothing run again for nothing, state written once. test_alloc_failure has every kind of op
 * in one part, and each of its allocations failing.
 */
#include "testing.h"

enum { N = 2, SIZE = 8, C = 4, X = N * SIZE * SIZE * C, W = C * 9 * C };

typedef struct net {
    sag_tensor *x, *w1, *w2, *gain, *bias, *mean, *var;
} net;

static net make_net(void)
{
    net t = {.x = make_tensor(sag_shape4(N, SIZE, SIZE, C), 1), .w1 = make_tensor(sag_shape4(C, 3, 3, C), 2),
             .w2 = make_tensor(sag_shape4(C, 3, 3, C), 3), .gain = make_tensor_between(sag_shape1(C), 4, 0.5f, 1.5f),
             .bias = make_tensor(sag_shape1(C), 5), .mean = make_tensor(sag_shape1(C), 6),
             .var = make_tensor_between(sag_shape1(C), 7, 0.5f, 1.5f)};
    sag_tensor *leaves[] = {t.x, t.w1, t.w2, t.gain, t.bias};
    for (int i = 0; i < 5; i++) assert_ok(sag_tensor_require_grad(leaves[i]));
    return t;
}

static void drop_net(net *t)
{
    sag_tensor *all[] = {t->x, t->w1, t->w2, t->gain, t->bias, t->mean, t->var};
    for (int i = 0; i < 7; i++) sag_tensor_release(all[i]);
}

/* A residual block: y = x + conv2(relu(bn(conv1(relu(x))))), what is in between released. */
static sag_tensor *block(const net *t, sag_tensor *x)
{
    sag_tensor *a = apply(SAG_OP_relu, (sag_tensor *[]){x}, NULL);
    sag_tensor *b = apply(SAG_OP_conv2d, (sag_tensor *[5]){a, t->w1}, (double[4]){1, 1, 1});
    sag_tensor *c = apply(SAG_OP_batch_norm, (sag_tensor *[]){b, t->gain, t->bias, t->mean, t->var}, (double[]){1, 0.1, 1e-5, 1, 0});
    sag_tensor *d = apply(SAG_OP_conv2d, (sag_tensor *[5]){c, t->w2}, (double[4]){1, 1, 1});
    sag_tensor *y = apply(SAG_OP_add, (sag_tensor *[]){x, d}, NULL);
    sag_tensor *made[] = {a, b, c, d};
    for (int i = 0; i < 4; i++) sag_tensor_release(made[i]);
    return y;
}

enum { KEPT, EACH_BLOCK, ALL_AT_ONCE };

/* Two blocks and a sum of squares. */
static sag_tensor *loss_of(const net *t, int how)
{
    sag_context *ctx = testing_context();
    if (how == ALL_AT_ONCE) sag_recompute_begin(ctx);
    if (how != KEPT) sag_recompute_begin(ctx); /* in ALL_AT_ONCE a part in a part */
    sag_tensor *y = block(t, t->x);
    if (how != KEPT) sag_recompute_end(ctx);
    if (how == EACH_BLOCK) sag_recompute_begin(ctx);
    sag_tensor *z = block(t, y);
    if (how != KEPT) sag_recompute_end(ctx);
    sag_tensor *s = apply(SAG_OP_square, (sag_tensor *[]){z}, NULL), *loss = apply(SAG_OP_mean, (sag_tensor *[]){s}, NULL);
    sag_tensor *made[] = {y, z, s};
    for (int i = 0; i < 3; i++) sag_tensor_release(made[i]);
    return loss;
}

enum { RESULTS = 1 + X + 2 * W + 4 * C };

/* Loss, all gradients, running statistics. */
static void results(int how, bool frozen, float *out)
{
    net t = make_net();
    if (frozen) {
        sag_tensor *parameters[] = {t.w1, t.w2, t.gain, t.bias};
        for (int i = 0; i < 4; i++) sag_tensor_set_frozen(parameters[i], true);
    }
    sag_tensor *loss = loss_of(&t, how);
    *out++ = *f32(loss);
    assert_ok(sag_tape_backward(loss, 1));
    sag_tensor_release(loss);
    assert_int_equal(sag_tape_length(testing_context()), 0);
    sag_tensor *grads[] = {t.x, t.w1, t.w2, t.gain, t.bias}, *state[] = {t.mean, t.var};
    for (int i = 0; i < 5; i++) {
        int64_t n = sag_tensor_numel(grads[i]);
        memcpy(out, f32(sag_tensor_grad(grads[i])), (size_t)n * sizeof *out);
        out += n;
    }
    for (int i = 0; i < 2; i++, out += C) memcpy(out, f32(state[i]), C * sizeof *out);
    drop_net(&t);
}

static void same_bits(void **state)
{
    (void)state;
    static float want[RESULTS], got[RESULTS];
    for (int frozen = 0; frozen < 2; frozen++) {
        results(KEPT, frozen, want);
        double norm = 0;
        for (int i = 1; i <= X; i++) norm += (double)want[i] * (double)want[i];
        assert_true(norm > 0);
        for (int how = EACH_BLOCK; how <= ALL_AT_ONCE; how++) {
            results(how, frozen, got);
            assert_memory_equal(got, want, sizeof got);
        }
    }
}

/* Of the block only relu, the first convolution and the norm run again: nothing reads the second's output but the sum. */
static void runs_again_what_is_read(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    int64_t calls[2] = {0};
    for (int how = KEPT; how <= EACH_BLOCK; how++) {
        net t = make_net();
        sag_profile_enable(ctx, true);
        sag_profile_reset(ctx);
        sag_tensor *loss = loss_of(&t, how);
        assert_ok(sag_tape_backward(loss, 1));
        sag_profile_row rows[64];
        int n = sag_profile_read(ctx, rows, 64);
        for (int i = 0; i < n; i++) {
            const char *kernel = rows[i].kernel;
            if (strcmp(kernel, "conv2d_fwd") == 0 || strcmp(kernel, "batch_norm_fwd") == 0 || strcmp(kernel, "binary_fwd") == 0) {
                calls[how] += rows[i].calls;
            }
        }
        sag_profile_enable(ctx, false);
        sag_tensor_release(loss);
        drop_net(&t);
    }
    assert_int_equal(calls[KEPT], 2 * (2 + 1 + 1));
    assert_int_equal(calls[EACH_BLOCK], calls[KEPT] + 2 * (1 + 1));
}

static int64_t bytes_in_use(void)
{
    sag_memory_stats m;
    sag_context_memory(testing_context(), &m);
    return m.bytes_in_use;
}

/* Each tanh keeps its output; in a part only what comes in is kept, and what somebody holds. */
static void keeps_nothing_of_the_inside(void **state)
{
    (void)state;
    enum { DEPTH = 20, NUMBERS = 1 << 16 };
    sag_context *ctx = testing_context();
    sag_tensor *x = make_tensor(sag_shape1(NUMBERS), 8), *h = x;
    assert_ok(sag_tensor_require_grad(x));
    sag_tensor_retain(x);
    int64_t base = bytes_in_use(), bytes = NUMBERS * (int64_t)sizeof(float);
    sag_recompute_begin(ctx);
    for (int d = 0; d < DEPTH; d++) {
        sag_tensor *next = apply(SAG_OP_tanh, (sag_tensor *[]){h}, NULL);
        sag_tensor_release(h);
        h = next;
    }
    sag_recompute_end(ctx);
    assert_int_equal(bytes_in_use() - base, bytes); /* the result */
    sag_tensor *loss = apply(SAG_OP_sum, (sag_tensor *[]){h}, NULL);
    sag_tensor_release(h);
    assert_true(bytes_in_use() - base <= 1024);
    assert_ok(sag_tape_backward(loss, 1));
    sag_tensor_release(loss);
    double want[NUMBERS > 64 ? 64 : NUMBERS];
    for (int i = 0; i < 64; i++) {
        double y = (double)f32(x)[i];
        want[i] = 1;
        for (int d = 0; d < DEPTH; d++) {
            y = tanh(y);
            want[i] *= 1 - y * y;
        }
    }
    assert_close(f32(sag_tensor_grad(x)), want, 64, 1e-5);
    sag_tensor_release(x);
}

/* What is made inside may also be read outside, and a tape that no backward follows is cleared. */
static void results_inside_are_tensors_like_others(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *x = make_tensor(sag_shape1(10), 9);
    assert_ok(sag_tensor_require_grad(x));
    sag_recompute_begin(ctx);
    sag_tensor *a = apply(SAG_OP_square, (sag_tensor *[]){x}, NULL), *b = apply(SAG_OP_square, (sag_tensor *[]){a}, NULL);
    assert_fails(sag_tape_backward_from(b, x), SAG_ERR_STATE, "inside a part");
    sag_recompute_end(ctx);
    sag_recompute_end(ctx); /* one too many does nothing */
    sag_tensor *c = apply(SAG_OP_mul, (sag_tensor *[]){a, b}, NULL), *loss = apply(SAG_OP_sum, (sag_tensor *[]){c}, NULL);
    assert_ok(sag_tape_backward(loss, 1)); /* x^6 */
    double want[10];
    for (int i = 0; i < 10; i++) want[i] = 6 * pow((double)f32(x)[i], 5);
    assert_close(f32(sag_tensor_grad(x)), want, 10, 1e-6);
    sag_tensor *made[] = {a, b, c, loss};
    for (int i = 0; i < 4; i++) sag_tensor_release(made[i]);
    sag_recompute_begin(ctx);
    a = apply(SAG_OP_square, (sag_tensor *[]){x}, NULL);
    sag_tape_clear(ctx);
    sag_recompute_end(ctx);
    sag_tensor_release(a);
    sag_tensor_release(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits),
        cmocka_unit_test(runs_again_what_is_read),
        cmocka_unit_test(keeps_nothing_of_the_inside),
        cmocka_unit_test(results_inside_are_tensors_like_others),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
