/*
 * The tape: what is recorded, where gradients land, when they are shared and when they are cleared. References are closed
 * forms in double; the rules of single ops are checked beside the ops.
 */
#include "testing.h"

static sag_tensor *one_in(sag_op op, sag_tensor *x, const double *attr)
{
    return apply(op, (sag_tensor *[]){x}, attr);
}

static sag_tensor *two_in(sag_op op, sag_tensor *a, sag_tensor *b)
{
    return apply(op, (sag_tensor *[]){a, b}, NULL);
}

static sag_tensor *leaf(sag_shape shape, uint64_t seed)
{
    sag_tensor *t = make_tensor(shape, seed);
    assert_ok(sag_tensor_require_grad(t));
    return t;
}

static sag_tensor *view(sag_tensor *t, int64_t offset, sag_shape shape)
{
    sag_tensor *v = NULL;
    assert_ok(sag_tensor_view(t, offset, shape, &v));
    return v;
}

/* From y with the gradient r; y is released. */
static void backward_with(sag_tensor *y, sag_tensor *r)
{
    assert_ok(sag_tape_backward_from(y, r));
    assert_int_equal(sag_tape_length(testing_context()), 0);
    sag_tensor_release(y);
}

static const float *grad(const sag_tensor *t)
{
    sag_tensor *g = sag_tensor_grad(t);
    assert_non_null(g);
    return f32(g);
}

/* ------------------------------------------------------------------------------------- a tensor used twice */

static void both_inputs_of_one_call(void **state)
{
    (void)state;
    enum { N = 300 };
    const sag_op ops[] = {SAG_OP_add, SAG_OP_sub, SAG_OP_mul, SAG_OP_div};
    sag_tensor *x = make_tensor_between(sag_shape1(N), 1, 0.5f, 2), *r = make_tensor(sag_shape1(N), 2);
    assert_ok(sag_tensor_require_grad(x));
    for (int k = 0; k < 4; k++) {
        backward_with(two_in(ops[k], x, x), r);
        double want[N];
        for (int i = 0; i < N; i++) {
            double xi = (double)f32(x)[i], ri = (double)f32(r)[i];
            want[i] = k == 0 ? 2 * ri : k == 2 ? 2 * xi * ri : 0;
        }
        if (k == 0 || k == 2) {
            assert_close(grad(x), want, N, 1e-6);
        } else { /* rounding may leave 1e-7, not more */
            for (int i = 0; i < N; i++) assert_true(fabs((double)grad(x)[i]) < 1e-6);
        }
        assert_ok(sag_tensor_zero_grad(x));
    }
    sag_tensor_release(x);
    sag_tensor_release(r);
}

static void square_of_a_matrix(void **state)
{
    (void)state;
    enum { N = 17 };
    sag_tensor *x = leaf(sag_shape2(N, N), 3), *r = make_tensor(sag_shape2(N, N), 4);
    backward_with(two_in(SAG_OP_matmul, x, x), r);
    double want[N * N];
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) { /* R X^T + X^T R */
            double s = 0;
            for (int k = 0; k < N; k++) {
                s += (double)f32(r)[i * N + k] * (double)f32(x)[j * N + k];
                s += (double)f32(x)[k * N + i] * (double)f32(r)[k * N + j];
            }
            want[i * N + j] = s;
        }
    }
    assert_close(grad(x), want, N * N, 1e-6);
    sag_tensor_release(x);
    sag_tensor_release(r);
}

static void one_tensor_as_several_inputs(void **state)
{
    (void)state;
    /* the same leaf as q, k and v, against three leaves of equal value: the sum of their gradients */
    sag_tensor *r = make_tensor(sag_shape3(2, 9, 4), 6);
    sag_tensor *x = leaf(sag_shape3(2, 9, 4), 5), *part[3];
    for (int i = 0; i < 3; i++) part[i] = leaf(sag_shape3(2, 9, 4), 5);
    backward_with(apply(SAG_OP_attention, (sag_tensor *[]){x, x, x}, NULL), r);
    backward_with(apply(SAG_OP_attention, part, NULL), r);
    double want[72];
    for (int i = 0; i < 72; i++) want[i] = (double)grad(part[0])[i] + (double)grad(part[1])[i] + (double)grad(part[2])[i];
    assert_close(grad(x), want, 72, 1e-6);
    for (int i = 0; i < 3; i++) sag_tensor_release(part[i]);

    /* both halves of a concatenation */
    sag_tensor *r2 = make_tensor(sag_shape3(4, 9, 4), 7);
    assert_ok(sag_tensor_zero_grad(x));
    backward_with(two_in(SAG_OP_concat, x, x), r2);
    for (int i = 0; i < 72; i++) want[i] = (double)f32(r2)[i] + (double)f32(r2)[72 + i];
    assert_close(grad(x), want, 72, 1e-6);

    /* gate: gamma x + x */
    sag_tensor *gamma = make_tensor_from(sag_shape1(1), (float[]){0.75f});
    assert_ok(sag_tensor_zero_grad(x));
    backward_with(apply(SAG_OP_gated_add, (sag_tensor *[]){x, x, gamma}, NULL), r);
    for (int i = 0; i < 72; i++) want[i] = 1.75 * (double)f32(r)[i];
    assert_close(grad(x), want, 72, 1e-6);
    sag_tensor_release(gamma);
    sag_tensor_release(x);
    sag_tensor_release(r);
    sag_tensor_release(r2);
}

/* ------------------------------------------------------------------- gradients that are handed over, then added to */

/* h <- h + 0.1 h^2, four times; dh/dx = prod(1 + 0.2 h). Each add hands its gradient to both branches. */
static void residual_chain(bool keep)
{
    enum { N = 100, DEPTH = 4 };
    sag_context *ctx = testing_context();
    sag_tape_retain_grads(ctx, keep);
    sag_tensor *x = leaf(sag_shape1(N), 8), *r = make_tensor(sag_shape1(N), 9), *h = x;
    sag_tensor_retain(x);
    for (int d = 0; d < DEPTH; d++) {
        sag_tensor *s = one_in(SAG_OP_square, h, NULL);
        sag_tensor *t = one_in(SAG_OP_scale, s, (double[]){0.1, 0});
        sag_tensor *next = d % 2 ? two_in(SAG_OP_add, h, t) : two_in(SAG_OP_add, t, h); /* either may come first */
        sag_tensor_release(s);
        sag_tensor_release(t);
        sag_tensor_release(h);
        h = next;
    }
    backward_with(h, r);
    double want[N];
    for (int i = 0; i < N; i++) {
        double v = (double)f32(x)[i], g = (double)f32(r)[i];
        for (int d = 0; d < DEPTH; d++) {
            g *= 1 + 0.2 * v;
            v += 0.1 * v * v;
        }
        want[i] = g;
    }
    assert_close(grad(x), want, N, 1e-6);
    sag_tape_retain_grads(ctx, false);
    sag_tape_clear(ctx);
    sag_tensor_release(x);
    sag_tensor_release(r);
}

static void residual_chains(void **state)
{
    (void)state;
    residual_chain(false);
    residual_chain(true);
}

static void sums_of_one_intermediate(void **state)
{
    (void)state;
    enum { N = 50 };
    sag_tensor *x = leaf(sag_shape1(N), 10), *r = make_tensor(sag_shape1(N), 11);
    float before[N];
    memcpy(before, f32(r), sizeof before);
    /* a = 2x; b = a + a; c = b + a; y = c + b, so y = 10 x. Here every add has an intermediate on both sides. */
    sag_tensor *a = one_in(SAG_OP_scale, x, (double[]){2, 0});
    sag_tensor *b = two_in(SAG_OP_add, a, a), *c = two_in(SAG_OP_add, b, a), *y = two_in(SAG_OP_add, c, b);
    sag_tensor_release(a);
    sag_tensor_release(b);
    sag_tensor_release(c);
    backward_with(y, r);
    double want[N];
    for (int i = 0; i < N; i++) want[i] = 10 * (double)before[i];
    assert_close(grad(x), want, N, 1e-6);
    assert_memory_equal(before, f32(r), sizeof before); /* the caller's dy is only read */
    sag_tensor_release(x);
    sag_tensor_release(r);
}

/* ---------------------------------------------------------------------------------------------- slabs and views */

static void views_of_a_slab(void **state)
{
    (void)state;
    sag_tensor *slab = leaf(sag_shape1(20), 12);
    sag_tensor *a = view(slab, 2, sag_shape2(2, 3)), *b = view(slab, 10, sag_shape2(2, 3));
    sag_tensor *r = make_tensor(sag_shape2(2, 3), 13);
    for (int pass = 1; pass <= 3; pass++) {
        if (pass == 3) assert_ok(sag_tensor_zero_grad(slab));
        backward_with(two_in(SAG_OP_mul, a, b), r);
        double times = pass == 2 ? 2 : 1, want[20] = {0};
        for (int i = 0; i < 6; i++) {
            want[2 + i] = times * (double)f32(r)[i] * (double)f32(b)[i];
            want[10 + i] = times * (double)f32(r)[i] * (double)f32(a)[i];
        }
        assert_close(grad(slab), want, 20, 1e-6);
        for (int i = 0; i < 20; i++) assert_true(want[i] != 0 || grad(slab)[i] == 0);
        assert_ptr_equal(grad(a), grad(slab) + 2); /* the same memory: one optimiser call sees it all */
        assert_ptr_equal(grad(b), grad(slab) + 10);
    }
    /* overlapping parts, one of them through a view of a view */
    sag_tensor *c = view(a, 1, sag_shape1(4)), *d = view(slab, 4, sag_shape1(4)), *r4 = make_tensor(sag_shape1(4), 14);
    assert_ok(sag_tensor_zero_grad(slab));
    backward_with(two_in(SAG_OP_add, c, d), r4);
    double want[20] = {0};
    for (int i = 0; i < 4; i++) {
        want[3 + i] += (double)f32(r4)[i];
        want[4 + i] += (double)f32(r4)[i];
    }
    assert_close(grad(slab), want, 20, 1e-6);
    /* clearing one part leaves the others */
    assert_ok(sag_tensor_zero_grad(c));
    for (int i = 3; i < 7; i++) want[i] = 0;
    assert_close(grad(slab), want, 20, 1e-6);
    sag_tensor *all[] = {slab, a, b, c, d, r, r4};
    for (int i = 0; i < 7; i++) sag_tensor_release(all[i]);
}

/* So that a gradient of n floats that nobody writes or clears is not 0 by chance. */
static void spoil(int64_t n)
{
    sag_tensor *t = make_tensor(sag_shape1(n), 1);
    double nan = NAN;
    assert_ok(sag_op_apply(testing_context(), SAG_OP_fill, &t, &nan, NULL));
    sag_tensor_release(t);
}

/* Parts that lie apart, abut, overlap and come again, one or two in a call, against sums in a plain array. */
static void parts_in_any_order(void **state)
{
    (void)state;
    enum { N = 64, LONGEST = 24 };
    sag_tensor *slab = leaf(sag_shape1(N), 50);
    uint32_t random = 12345;
    for (int round = 0; round < 60; round++) {
        double want[N] = {0};
        sag_tensor_release_grad(slab);
        spoil(N);
        for (int call = 0; call < 1 + round % 7; call++) {
            int at[2], n = 0;
            for (int k = 0; k < 3; k++) {
                random = random * 1664525u + 1013904223u;
                if (k < 2) at[k] = (int)(random >> 8) % (N - LONGEST + 1);
                else n = 1 + (int)(random >> 8) % LONGEST;
            }
            sag_tensor *a = view(slab, at[0], sag_shape1(n)), *b = view(slab, at[1], sag_shape1(n));
            sag_tensor *r = make_tensor(sag_shape1(n), (uint64_t)call + 51);
            backward_with(round % 2 ? two_in(SAG_OP_sub, a, b) : one_in(SAG_OP_scale, a, (double[]){2, 0}), r);
            for (int i = 0; i < n; i++) {
                want[at[0] + i] += (round % 2 ? 1 : 2) * (double)f32(r)[i];
                if (round % 2) want[at[1] + i] -= (double)f32(r)[i];
            }
            sag_tensor *all[] = {a, b, r};
            for (int i = 0; i < 3; i++) sag_tensor_release(all[i]);
        }
        assert_close(grad(slab), want, N, 1e-6);
        for (int i = 0; i < N; i++) assert_true(want[i] != 0 || grad(slab)[i] == 0);
    }
    sag_tensor_release(slab);
}

static int64_t fills(void)
{
    sag_profile_row rows[64];
    const int n = sag_profile_read(testing_context(), rows, 64);
    for (int i = 0; i < n; i++) {
        if (strcmp(rows[i].kernel, "fill") == 0) return rows[i].calls;
    }
    return 0;
}

/* What calls write is not cleared before; the one gap that they leave is, once. */
static void only_gaps_are_cleared(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *slab = leaf(sag_shape1(20), 60), *a = view(slab, 0, sag_shape1(6)), *b = view(slab, 6, sag_shape1(6));
    sag_tensor *c = view(slab, 14, sag_shape1(6)), *r = make_tensor(sag_shape1(6), 61);
    spoil(20);
    sag_profile_enable(ctx, true);
    sag_profile_reset(ctx);
    backward_with(two_in(SAG_OP_add, a, c), r);
    backward_with(one_in(SAG_OP_scale, b, (double[]){2, 0}), r);
    assert_int_equal(fills(), 0);
    double want[20] = {0};
    for (int i = 0; i < 6; i++) {
        want[i] = want[14 + i] = (double)f32(r)[i];
        want[6 + i] = 2 * (double)f32(r)[i];
    }
    assert_close(grad(slab), want, 20, 1e-6);
    assert_close(grad(slab), want, 20, 1e-6);
    assert_int_equal(fills(), 1);
    sag_profile_enable(ctx, false);
    sag_tensor *all[] = {slab, a, b, c, r};
    for (int i = 0; i < 5; i++) sag_tensor_release(all[i]);
}

static void views_of_an_intermediate(void **state)
{
    (void)state;
    sag_tensor *x = leaf(sag_shape2(3, 4), 15), *r = make_tensor(sag_shape1(4), 16), *r12 = make_tensor(sag_shape1(12), 17);
    /* rows 0 and 2 are used, row 1 is not and must get 0 */
    sag_tensor *y = one_in(SAG_OP_scale, x, (double[]){3, 0});
    sag_tensor *first = view(y, 0, sag_shape1(4)), *last = view(y, 8, sag_shape1(4));
    backward_with(two_in(SAG_OP_add, first, last), r);
    double want[12] = {0};
    for (int i = 0; i < 4; i++) want[i] = want[8 + i] = 3 * (double)f32(r)[i];
    assert_close(grad(x), want, 12, 1e-6);
    sag_tensor_release(first);
    sag_tensor_release(last);
    sag_tensor_release(y);
    /* a part and the whole: the whole's gradient is handed over first, the part is added to a copy of it */
    assert_ok(sag_tensor_zero_grad(x));
    y = one_in(SAG_OP_scale, x, (double[]){3, 0});
    sag_tensor *flat = view(y, 0, sag_shape1(12)), *row = view(y, 4, sag_shape1(4));
    sag_tensor *squared = one_in(SAG_OP_square, row, NULL), *total = one_in(SAG_OP_sum, squared, NULL);
    sag_tensor *z = two_in(SAG_OP_add, flat, total); /* {12} + {1} */
    backward_with(z, r12);
    double sum = 0;
    for (int i = 0; i < 12; i++) sum += (double)f32(r12)[i];
    for (int i = 0; i < 12; i++) {
        want[i] = 3 * (double)f32(r12)[i];
        if (i >= 4 && i < 8) want[i] += sum * 2 * 9 * (double)f32(x)[i];
    }
    assert_close(grad(x), want, 12, 1e-6);
    sag_tensor *all[] = {x, r, r12, y, flat, row, squared, total};
    for (int i = 0; i < 8; i++) sag_tensor_release(all[i]);
}

/* ------------------------------------------------------------------------------------- what is not recorded */

static void frozen_leaves(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *slab = leaf(sag_shape1(20), 18), *x = leaf(sag_shape2(5, 4), 19), *r = make_tensor(sag_shape2(5, 3), 20);
    sag_tensor *w = view(slab, 0, sag_shape2(3, 4)), *b = view(slab, 16, sag_shape1(3));
    sag_tensor_set_frozen(slab, true);
    assert_false(sag_tensor_wants_grad(w));
    backward_with(apply(SAG_OP_linear, (sag_tensor *[]){x, w, b}, NULL), r);
    double want[20];
    for (int i = 0; i < 5; i++) {
        for (int k = 0; k < 4; k++) {
            want[i * 4 + k] = 0;
            for (int o = 0; o < 3; o++) want[i * 4 + k] += (double)f32(r)[i * 3 + o] * (double)f32(w)[o * 4 + k];
        }
    }
    assert_close(grad(x), want, 20, 1e-6); /* flows through to the input */
    for (int i = 0; i < 20; i++) assert_true(grad(slab)[i] == 0);

    sag_tensor *c = make_tensor(sag_shape2(5, 4), 21);
    sag_tensor *y = apply(SAG_OP_linear, (sag_tensor *[]){c, w, b}, NULL);
    assert_int_equal(sag_tape_length(ctx), 0); /* nothing wants a gradient */
    assert_false(sag_tensor_wants_grad(y));
    sag_tensor_release(y);

    sag_tensor_set_frozen(slab, false);
    backward_with(apply(SAG_OP_linear, (sag_tensor *[]){c, w, b}, NULL), r);
    for (int o = 0; o < 3; o++) {
        for (int k = 0; k < 4; k++) {
            want[o * 4 + k] = 0;
            for (int i = 0; i < 5; i++) want[o * 4 + k] += (double)f32(r)[i * 3 + o] * (double)f32(c)[i * 4 + k];
        }
    }
    assert_close(grad(w), want, 12, 1e-6);
    assert_true(grad(b)[0] != 0);
    /* one frozen part */
    assert_ok(sag_tensor_zero_grad(slab));
    sag_tensor_set_frozen(b, true);
    backward_with(apply(SAG_OP_linear, (sag_tensor *[]){c, w, b}, NULL), r);
    assert_close(grad(w), want, 12, 1e-6);
    assert_true(grad(slab)[16] == 0);
    sag_tensor *all[] = {slab, x, r, w, b, c};
    for (int i = 0; i < 6; i++) sag_tensor_release(all[i]);
}

static void no_grad(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *x = leaf(sag_shape1(5), 22), *d = NULL;
    sag_tape_set_recording(ctx, false);
    sag_tensor *y = one_in(SAG_OP_sum, x, NULL);
    sag_tape_set_recording(ctx, true);
    assert_int_equal(sag_tape_length(ctx), 0);
    assert_fails(sag_tape_backward(y, 1), SAG_ERR_STATE, "depends on nothing");
    assert_ok(sag_tensor_detach(x, &d));
    sag_tensor *z = one_in(SAG_OP_sum, d, NULL);
    assert_int_equal(sag_tape_length(ctx), 0);
    for (int i = 0; i < 5; i++) assert_true(grad(x)[i] == 0);
    sag_tensor *all[] = {x, y, d, z};
    for (int i = 0; i < 4; i++) sag_tensor_release(all[i]);
}

/* -------------------------------------------------------------------------------------------- calling backward */

static void from_one_number_or_a_given_gradient(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *x = leaf(sag_shape2(2, 3), 23), *y = one_in(SAG_OP_square, x, NULL);
    sag_tensor *wrong = make_tensor(sag_shape2(3, 2), 1);
    assert_fails(sag_tape_backward(y, 1), SAG_ERR_SHAPE, "one number");
    assert_fails(sag_tape_backward_from(y, wrong), SAG_ERR_SHAPE, "must have the shape");
    assert_int_equal(sag_tape_length(ctx), 1); /* a refused call leaves the tape */
    sag_tensor *s = one_in(SAG_OP_sum, y, NULL);
    assert_ok(sag_tape_backward(s, 0.5f));
    for (int i = 0; i < 6; i++) assert_true(grad(x)[i] == f32(x)[i]);
    /* the tape is gone: again is an error, not a silent 0 */
    assert_fails(sag_tape_backward(s, 1), SAG_ERR_STATE, "backward");
    assert_fails(sag_tape_backward_from(y, y), SAG_ERR_STATE, "backward");
    /* and what it made is a constant now */
    sag_tensor *z = two_in(SAG_OP_mul, x, y);
    assert_int_equal(sag_tape_length(ctx), 1);
    assert_ok(sag_tensor_zero_grad(x));
    sag_tensor *r = make_tensor(sag_shape2(2, 3), 24);
    backward_with(z, r);
    for (int i = 0; i < 6; i++) assert_true(grad(x)[i] == f32(y)[i] * f32(r)[i]);
    assert_null(sag_tensor_grad(y));
    sag_tensor *all[] = {x, y, wrong, s, r};
    for (int i = 0; i < 5; i++) sag_tensor_release(all[i]);
}

static void branches_that_reach_no_loss(void **state)
{
    (void)state;
    sag_tensor *x = leaf(sag_shape1(8), 25), *other = leaf(sag_shape1(8), 26), *r = make_tensor(sag_shape1(8), 27);
    sag_tensor *unused = two_in(SAG_OP_mul, x, other), *y = one_in(SAG_OP_scale, x, (double[]){2, 1});
    sag_tensor *after = two_in(SAG_OP_add, y, other); /* recorded after y */
    backward_with(y, r);
    for (int i = 0; i < 8; i++) {
        assert_true(grad(x)[i] == 2 * f32(r)[i]);
        assert_true(grad(other)[i] == 0);
    }
    sag_tensor *all[] = {x, other, r, unused, after};
    for (int i = 0; i < 5; i++) sag_tensor_release(all[i]);
}

static void gradients_of_intermediates(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *x = leaf(sag_shape1(6), 28), *r = make_tensor(sag_shape1(6), 29);
    for (int keep = 0; keep < 2; keep++) {
        sag_tape_retain_grads(ctx, keep != 0);
        sag_tensor *y = one_in(SAG_OP_scale, x, (double[]){3, 0}), *part = view(y, 2, sag_shape1(3));
        sag_tensor *z = one_in(SAG_OP_square, y, NULL);
        assert_null(sag_tensor_grad(y));
        backward_with(z, r);
        if (keep) {
            double twice[6];
            for (int i = 0; i < 6; i++) twice[i] = 2 * (double)f32(y)[i] * (double)f32(r)[i];
            assert_close(grad(y), twice, 6, 1e-6);
            assert_close(grad(part), twice + 2, 3, 1e-6);
            sag_tape_clear(ctx);
        }
        assert_null(sag_tensor_grad(y));
        assert_null(sag_tensor_grad(part));
        sag_tensor_release(y);
        sag_tensor_release(part);
    }
    /* y + y^2: the sum's gradient is handed to both; what is then added to y's must not show in that of y^2 */
    sag_tensor *y1 = one_in(SAG_OP_scale, x, (double[]){3, 0}), *squared = one_in(SAG_OP_square, y1, NULL);
    backward_with(two_in(SAG_OP_add, y1, squared), r);
    double want[6];
    for (int i = 0; i < 6; i++) want[i] = (double)f32(r)[i] * (1 + 2 * (double)f32(y1)[i]);
    assert_close(grad(y1), want, 6, 1e-6);
    for (int i = 0; i < 6; i++) assert_true(grad(squared)[i] == f32(r)[i]);
    sag_tensor_release(y1);
    sag_tensor_release(squared);
    sag_tape_clear(ctx);
    /* a loop that never clears holds one step's gradients, not all */
    sag_memory_stats m, first = {0};
    for (int step = 0; step < 5; step++) {
        sag_tensor *y = one_in(SAG_OP_scale, x, (double[]){3, 0}), *z = one_in(SAG_OP_square, y, NULL);
        sag_tensor_release(y);
        backward_with(z, r);
        sag_context_memory(ctx, step == 0 ? &first : &m);
    }
    assert_int_equal(m.live_tensors, first.live_tensors);
    sag_tape_retain_grads(ctx, false);
    sag_tape_clear(ctx);
    sag_tensor_release(x);
    sag_tensor_release(r);
}

/* A released gradient is 0, takes no memory until it is read or added to, and a view's is a part of the new one. */
static void released_gradients(void **state)
{
    (void)state;
    enum { LENGTH = 1 << 16 };
    sag_context *ctx = testing_context();
    sag_memory_stats base, held, after;
    sag_context_memory(ctx, &base);
    sag_tensor *x = leaf(sag_shape1(LENGTH), 40), *r = make_tensor(sag_shape1(10), 41), *part = view(x, 100, sag_shape1(10));
    for (int pass = 0; pass < 3; pass++) {
        backward_with(one_in(SAG_OP_square, part, NULL), r);
        for (int i = 0; i < 10; i++) {
            assert_true(fabsf(grad(x)[100 + i] - 2 * f32(part)[i] * f32(r)[i]) < 1e-6f);
            if (pass > 0) assert_true(grad(part)[i] == grad(x)[100 + i]);
        }
        assert_true(grad(x)[99] == 0 && grad(x)[LENGTH - 1] == 0);
        sag_context_memory(ctx, &held);
        sag_tensor_release_grad(pass == 1 ? part : x);
        if (pass == 0) { /* in later passes the part's view of it holds the old one until it is asked for again */
            sag_context_memory(ctx, &after);
            assert_int_equal(held.bytes_in_use - after.bytes_in_use, LENGTH * (int64_t)sizeof(float));
        }
        if (pass == 1) assert_true(grad(part)[0] == 0 && grad(x)[100] == 0);
        if (pass == 2) assert_ok(sag_tensor_zero_grad(x));
    }
    sag_tensor_release(part);
    sag_tensor_release(x);
    sag_tensor_release(r);
    sag_context_memory(ctx, &after);
    assert_int_equal(after.bytes_in_use, base.bytes_in_use);
}

/* ------------------------------------------------------------------------------------------------------ memory */

static void memory_shrinks_as_the_tape_unwinds(void **state)
{
    (void)state;
    enum { DEPTH = 40, N = 1 << 16 };
    sag_context *ctx = testing_context();
    sag_memory_stats m;
    sag_context_memory(ctx, &m);
    int64_t base = m.bytes_in_use, bytes = N * (int64_t)sizeof(float);
    sag_tensor *x = leaf(sag_shape1(N), 30), *h = x;
    sag_tensor_retain(x);
    for (int d = 0; d < DEPTH; d++) {
        sag_tensor *next = one_in(SAG_OP_tanh, h, NULL);
        sag_tensor_release(h);
        h = next;
    }
    sag_tensor *loss = one_in(SAG_OP_sum, h, NULL);
    sag_tensor_release(h);
    sag_context_memory(ctx, &m);
    int64_t forward = m.bytes_in_use;
    assert_true(forward - base >= DEPTH * bytes); /* tanh keeps its output */
    sag_context_reset_peak(ctx);
    assert_ok(sag_tape_backward(loss, 1));
    sag_tensor_release(loss);
    sag_context_memory(ctx, &m);
    assert_true(m.bytes_peak <= forward + 3 * bytes); /* two gradients at a time, not one for each layer */
    assert_true(m.bytes_in_use - base <= 3 * bytes);  /* x and its gradient */
    sag_tensor_release(x);
    sag_context_memory(ctx, &m);
    assert_int_equal(m.bytes_in_use, base);
}

static void clearing_without_backward(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_memory_stats before, after;
    sag_tensor *x = leaf(sag_shape1(100), 31);
    sag_context_memory(ctx, &before);
    sag_tensor *y = one_in(SAG_OP_square, x, NULL), *z = one_in(SAG_OP_sum, y, NULL);
    sag_tensor_release(y);
    sag_tape_clear(ctx);
    assert_int_equal(sag_tape_length(ctx), 0);
    assert_fails(sag_tape_backward(z, 1), SAG_ERR_STATE, "backward");
    sag_tensor_release(z);
    sag_context_memory(ctx, &after);
    assert_int_equal(before.live_tensors, after.live_tensors);
    assert_int_equal(before.live_storages, after.live_storages);
    sag_tensor_release(x);
}

/* ---------------------------------------------------------------------------------------------------- in place */

static void in_place_on_the_tape_is_refused(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    const double value[] = {0};
    sag_tensor *x = leaf(sag_shape2(2, 3), 32), *y = one_in(SAG_OP_tanh, x, NULL), *flat = view(y, 0, sag_shape1(6));
    assert_fails(sag_op_apply(ctx, SAG_OP_fill, (sag_tensor *[]){y}, value, NULL), SAG_ERR_STATE, "in place");
    assert_fails(sag_op_apply(ctx, SAG_OP_fill, (sag_tensor *[]){flat}, value, NULL), SAG_ERR_STATE, "in place");
    assert_true(f32(y)[0] != 0);
    sag_tensor *d = NULL;
    assert_ok(sag_tensor_detach(y, &d));
    assert_ok(sag_op_apply(ctx, SAG_OP_fill, (sag_tensor *[]){d}, value, NULL)); /* the caller's word for it */
    sag_tape_clear(ctx);
    assert_ok(sag_op_apply(ctx, SAG_OP_fill, (sag_tensor *[]){y}, value, NULL)); /* no tape reads it any more */
    assert_ok(sag_op_apply(ctx, SAG_OP_fill, (sag_tensor *[]){x}, value, NULL)); /* a leaf: what optimisers do */
    sag_tensor *all[] = {x, y, flat, d};
    for (int i = 0; i < 4; i++) sag_tensor_release(all[i]);
}

static void only_plain_tensors_become_leaves(void **state)
{
    (void)state;
    sag_tensor *x = leaf(sag_shape1(4), 33), *v = view(x, 0, sag_shape1(2)), *y = one_in(SAG_OP_relu, x, NULL);
    const int32_t values[] = {1, 2};
    sag_tensor *i = make_i32(2, values);
    assert_ok(sag_tensor_require_grad(x)); /* twice is once */
    assert_fails(sag_tensor_require_grad(v), SAG_ERR_STATE, "leaf");
    assert_fails(sag_tensor_require_grad(y), SAG_ERR_STATE, "leaf");
    assert_fails(sag_tensor_require_grad(i), SAG_ERR_DTYPE, "f32");
    sag_tape_clear(testing_context());
    sag_tensor *all[] = {x, v, y, i};
    for (int k = 0; k < 4; k++) sag_tensor_release(all[k]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_inputs_of_one_call),
        cmocka_unit_test(square_of_a_matrix),
        cmocka_unit_test(one_tensor_as_several_inputs),
        cmocka_unit_test(residual_chains),
        cmocka_unit_test(sums_of_one_intermediate),
        cmocka_unit_test(views_of_a_slab),
        cmocka_unit_test(parts_in_any_order),
        cmocka_unit_test(only_gaps_are_cleared),
        cmocka_unit_test(views_of_an_intermediate),
        cmocka_unit_test(frozen_leaves),
        cmocka_unit_test(no_grad),
        cmocka_unit_test(from_one_number_or_a_given_gradient),
        cmocka_unit_test(branches_that_reach_no_loss),
        cmocka_unit_test(gradients_of_intermediates),
        cmocka_unit_test(released_gradients),
        cmocka_unit_test(memory_shrinks_as_the_tape_unwinds),
        cmocka_unit_test(clearing_without_backward),
        cmocka_unit_test(in_place_on_the_tape_is_refused),
        cmocka_unit_test(only_plain_tensors_become_leaves),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
