/* test_norm.c - batch normalisation, plain and conditional, against plain loops in double. */
#include "testing.h"

typedef struct norm_case {
    int64_t n, h, w, c, classes; /* classes 0: plain */
    bool affine, running;
    double attr[5]; /* train, momentum, eps, relu, gain_offset */
    float centre;
} norm_case;

static const norm_case cases[] = {
    {4, 3, 5, 3, 0, true, true, {1, 0.1, 1e-5, 0, 0}, 0},
    {4, 3, 5, 1, 0, true, true, {1, 0.1, 1e-5, 1, 0}, 0},
    {2, 7, 9, 21, 0, true, true, {1, 0.25, 1e-3, 1, 1}, 0},
    {3, 2, 3, 5, 0, false, false, {1, 0.1, 1e-5, 0, 0}, 0},
    {3, 2, 3, 5, 0, false, true, {0, 0.1, 1e-5, 1, 0}, 0},
    {2, 7, 9, 21, 0, true, true, {0, 0.1, 1e-5, 0, 1}, 0},
    {5, 1, 1, 700, 0, true, true, {1, 0.1, 1e-5, 1, 0}, 0},
    {3, 1, 1, 2100, 0, true, true, {1, 0.1, 1e-5, 0, 0}, 0},
    {40, 12, 13, 19, 0, true, true, {1, 0.1, 1e-5, 1, 0}, 0},
    {4, 3, 5, 3, 4, true, true, {1, 0.1, 1e-5, 0, 1}, 0},
    {6, 4, 4, 33, 3, true, true, {1, 0.1, 1e-4, 1, 0}, 0},
    {6, 4, 4, 33, 3, true, true, {0, 0.1, 1e-4, 1, 0}, 0},
    {7, 1, 1, 1200, 5, true, true, {1, 0.1, 1e-5, 0, 1}, 0},
    {9, 21, 22, 24, 5, true, true, {1, 0.1, 1e-5, 1, 1}, 0},
    {3, 17, 19, 16, 0, true, true, {1, 0.1, 1e-5, 1, 0}, 0}, /* channels that come again within a few vectors */
    {4, 11, 23, 32, 3, true, true, {1, 0.1, 1e-5, 0, 1}, 0},
    {2, 9, 15, 128, 0, true, true, {1, 0.1, 1e-5, 1, 0}, 0},
    {4, 31, 29, 6, 0, true, true, {1, 0.1, 1e-5, 0, 0}, 300}, /* mean much larger than the spread */
};
enum { CASES = sizeof cases / sizeof *cases };

typedef struct inputs {
    sag_op op;
    sag_tensor *in[6];
    int n_in, mean, var;
    int32_t labels[64];
} inputs;

static inputs make_inputs(const norm_case *k)
{
    inputs v = {.op = k->classes ? SAG_OP_cond_batch_norm : SAG_OP_batch_norm, .n_in = k->classes ? 6 : 5};
    v.mean = k->classes ? 4 : 3;
    v.var = v.mean + 1;
    v.in[0] = make_tensor_between(sag_shape4(k->n, k->h, k->w, k->c), 1, k->centre - 1, k->centre + 1);
    sag_shape p = k->classes ? sag_shape2(k->classes, k->c) : sag_shape1(k->c);
    if (k->affine) {
        v.in[1] = make_tensor_between(p, 2, 0.5f, 1.5f);
        v.in[2] = make_tensor(p, 3);
    }
    for (int64_t i = 0; i < k->n && k->classes; i++) v.labels[i] = (int32_t)((i * 5 + 1) % k->classes);
    if (k->classes) v.in[3] = make_i32(k->n, v.labels);
    if (k->running) {
        v.in[v.mean] = make_tensor(sag_shape1(k->c), 4);
        v.in[v.var] = make_tensor_between(sag_shape1(k->c), 5, 0.5f, 2);
    }
    return v;
}
static void drop_inputs(inputs *v)
{
    for (int i = 0; i < v->n_in; i++) sag_tensor_release(v->in[i]);
}

static void test_values(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        const norm_case *k = &cases[i];
        inputs v = make_inputs(k);
        int64_t rows = k->n * k->h * k->w, spatial = k->h * k->w, c = k->c;
        double *mean = calloc((size_t)c, sizeof *mean), *var = calloc((size_t)c, sizeof *var);
        double *want_mean = calloc((size_t)c, sizeof *mean), *want_var = calloc((size_t)c, sizeof *var);
        double *want = malloc((size_t)(rows * c) * sizeof *want);
        const float *x = f32(v.in[0]);
        for (int64_t e = 0; e < rows * c; e++) mean[e % c] += (double)x[e] / (double)rows;
        for (int64_t e = 0; e < rows * c; e++) var[e % c] += ((double)x[e] - mean[e % c]) * ((double)x[e] - mean[e % c]) / (double)rows;
        for (int64_t j = 0; j < c; j++) {
            if (!k->running) continue;
            double rm = (double)f32(v.in[v.mean])[j], rv = (double)f32(v.in[v.var])[j];
            double unbiased = var[j] * (double)rows / (double)(rows - 1), m = k->attr[1];
            want_mean[j] = k->attr[0] != 0 ? (1 - m) * rm + m * mean[j] : rm;
            want_var[j] = k->attr[0] != 0 ? (1 - m) * rv + m * unbiased : rv;
            if (k->attr[0] == 0) {
                mean[j] = rm;
                var[j] = rv;
            }
        }
        for (int64_t e = 0; e < rows * c; e++) {
            int64_t j = e % c, row = k->classes ? v.labels[e / c / spatial] * c : 0;
            double g = k->affine ? (double)f32(v.in[1])[row + j] + k->attr[4] : 1, b = k->affine ? (double)f32(v.in[2])[row + j] : 0;
            double y = ((double)x[e] - mean[j]) / sqrt(var[j] + k->attr[2]) * g + b;
            want[e] = k->attr[3] != 0 && y < 0 ? 0 : y;
        }
        sag_tensor *y = apply(v.op, v.in, k->attr);
        /* A mean of 300 and those of the pieces are f32: half a unit is 1.5e-5, twice, against a spread of 0.577. */
        assert_close(f32(y), want, rows * c, k->centre > 0 ? 5.3e-5 : 1e-6);
        if (k->running) {
            assert_close(f32(v.in[v.mean]), want_mean, c, 1e-6);
            assert_close(f32(v.in[v.var]), want_var, c, 1e-6);
        }
        sag_tensor_release(y);
        drop_inputs(&v);
        free(mean);
        free(var);
        free(want_mean);
        free(want_var);
        free(want);
    }
}

/* Backward against the formula in double: sums over rows, then dx. Large cases too, where differences would be slow. */
static void reference_gradients(const norm_case *k, const inputs *v, const float *y, const float *dy, double *dx, double *dg,
                                double *db)
{
    int64_t rows = k->n * k->h * k->w, spatial = k->h * k->w, c = k->c;
    const float *x = f32(v->in[0]);
    for (int64_t j = 0; j < c; j++) {
        double m = 0, s = 0, a = 0, b = 0;
        for (int64_t r = 0; r < rows; r++) m += (double)x[r * c + j] / (double)rows;
        for (int64_t r = 0; r < rows; r++) s += ((double)x[r * c + j] - m) * ((double)x[r * c + j] - m) / (double)rows;
        if (k->attr[0] == 0) {
            m = (double)f32(v->in[v->mean])[j];
            s = (double)f32(v->in[v->var])[j];
        }
        double rstd = 1 / sqrt(s + k->attr[2]);
        for (int pass = 0; pass < 2; pass++) {
            for (int64_t r = 0; r < rows; r++) {
                int64_t e = r * c + j, row = (k->classes ? v->labels[r / spatial] * c : 0) + j;
                double d = k->attr[3] != 0 && y[e] <= 0 ? 0 : (double)dy[e], h = ((double)x[e] - m) * rstd;
                double g = k->affine ? (double)f32(v->in[1])[row] + k->attr[4] : 1;
                if (pass == 0) {
                    dg[row] += d * h;
                    db[row] += d;
                    a += g * d;
                    b += g * d * h;
                } else {
                    dx[e] = k->attr[0] == 0 ? rstd * g * d : rstd * (g * d - a / (double)rows - h * b / (double)rows);
                }
            }
        }
    }
}

static void test_gradients(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        const norm_case *k = &cases[i];
        inputs v = make_inputs(k);
        int64_t n = sag_tensor_numel(v.in[0]), table = (k->classes ? k->classes : 1) * k->c;
        double *dx = calloc((size_t)n, sizeof *dx), *dg = calloc((size_t)table, sizeof *dg), *db = calloc((size_t)table, sizeof *db);
        sag_tensor *dy = make_tensor(sag_tensor_shape(v.in[0]), 77), *stats[2] = {0};
        for (int s = 0; s < 2 && k->running; s++) { /* the op moves them */
            assert_ok(sag_tensor_create(testing_context(), SAG_F32, sag_shape1(k->c), &stats[s]));
            assert_ok(sag_tensor_copy(stats[s], v.in[v.mean + s]));
        }
        for (int t = 0; t < (k->affine ? 3 : 1); t++) assert_ok(sag_tensor_require_grad(v.in[t]));
        sag_tensor *y = apply(v.op, v.in, k->attr);
        for (int s = 0; s < 2 && k->running; s++) assert_ok(sag_tensor_copy(v.in[v.mean + s], stats[s]));
        reference_gradients(k, &v, f32(y), f32(dy), dx, dg, db);
        assert_ok(sag_tape_backward_from(y, dy));
        double tolerance = k->centre > 0 ? 1e-4 : 2e-6;
        assert_close(f32(sag_tensor_grad(v.in[0])), dx, n, tolerance);
        if (k->affine) {
            assert_close(f32(sag_tensor_grad(v.in[1])), dg, table, tolerance);
            assert_close(f32(sag_tensor_grad(v.in[2])), db, table, tolerance);
        }
        sag_tensor_release(y);
        sag_tensor_release(dy);
        sag_tensor_release(stats[0]);
        sag_tensor_release(stats[1]);
        drop_inputs(&v);
        free(dx);
        free(dg);
        free(db);
    }
}

static void test_finite_differences(void **state)
{
    (void)state;
    const int some[] = {0, 2, 3, 4, 5, 9, 11};
    for (int i = 0; i < 7; i++) {
        norm_case k = cases[some[i]];
        k.attr[3] = 0; /* differences across the ReLU's kink say nothing; its mask is tested above */
        inputs v = make_inputs(&k);
        check_gradients(v.op, v.in, k.attr, k.affine ? 7 : 1, 1e-2, 1e-3);
        drop_inputs(&v);
    }
}

static void test_threads(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        inputs v = make_inputs(&cases[i]);
        check_threads(v.op, v.in, cases[i].attr, cases[i].affine ? 7 : 1);
        drop_inputs(&v);
    }
}

/* Only the gain is trained: backward must not need a place for dx. And a frozen gain with dx wanted. */
static void test_partial_gradients(void **state)
{
    (void)state;
    const norm_case *k = &cases[10];
    float *full[3] = {0};
    for (unsigned mask = 7; mask > 0; mask--) {
        inputs v = make_inputs(k);
        sag_tensor *dy = make_tensor(sag_tensor_shape(v.in[0]), 5);
        for (int t = 0; t < 3; t++) {
            if (mask >> t & 1u) assert_ok(sag_tensor_require_grad(v.in[t]));
        }
        sag_tensor *y = apply(v.op, v.in, k->attr);
        assert_ok(sag_tape_backward_from(y, dy));
        for (int t = 0; t < 3; t++) {
            if (!(mask >> t & 1u)) continue;
            size_t bytes = (size_t)sag_tensor_numel(v.in[t]) * sizeof(float);
            const float *g = f32(sag_tensor_grad(v.in[t]));
            if (mask == 7) {
                full[t] = malloc(bytes);
                memcpy(full[t], g, bytes);
            } else {
                assert_memory_equal(g, full[t], bytes);
            }
        }
        sag_tensor_release(y);
        sag_tensor_release(dy);
        drop_inputs(&v);
    }
    for (int t = 0; t < 3; t++) free(full[t]);
}

/*
 * Backward finds the ReLU's mask from x again, and it must be forward's to the bit. Biases are the negatives of rounded
 * products of forward, so that many values before the ReLU are the rounding of one product: about as often above 0 as
 * below. With dy = 1, dbias counts the mask.
 */
static void test_mask_is_exact(void **state)
{
    (void)state;
    enum { ROWS = 4096, C = 48 };
    double attr[5] = {1, 0.1, 1e-5, 0, 0};
    float few[16], *x = malloc(ROWS * C * sizeof *x), *one = malloc(ROWS * C * sizeof *one), bias[C];
    random_fill(few, 16, 9, -1, 1);
    for (int i = 0; i < ROWS * C; i++) {
        x[i] = few[(i / C + i % C) % 16];
        one[i] = 1;
    }
    sag_tensor *in[5] = {make_tensor_from(sag_shape2(ROWS, C), x), make_tensor_between(sag_shape1(C), 8, 0.5f, 2)};
    sag_tensor *dy = make_tensor_from(sag_shape2(ROWS, C), one), *y = apply(SAG_OP_batch_norm, in, attr);
    for (int j = 0; j < C; j++) bias[j] = -f32(y)[j];
    sag_tensor_release(y);
    in[2] = make_tensor_from(sag_shape1(C), bias);
    attr[3] = 1;
    assert_ok(sag_tensor_require_grad(in[2]));
    y = apply(SAG_OP_batch_norm, in, attr);
    for (int j = 0; j < C; j++) {
        int above = 0;
        for (int r = 0; r < ROWS; r++) above += f32(y)[r * C + j] > 0;
        bias[j] = (float)above;
    }
    assert_ok(sag_tape_backward_from(y, dy));
    for (int j = 0; j < C; j++) assert_true(f32(sag_tensor_grad(in[2]))[j] == bias[j]);
    sag_tensor_release(y);
    sag_tensor_release(dy);
    for (int i = 0; i < 3; i++) sag_tensor_release(in[i]);
    free(x);
    free(one);
}

static void test_errors(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *out[SAG_MAX_OUT], *x = make_tensor(sag_shape4(2, 3, 3, 4), 1), *c4 = make_tensor(sag_shape1(4), 2);
    sag_tensor *c5 = make_tensor(sag_shape1(5), 3), *one = make_tensor(sag_shape2(1, 4), 4), *table = make_tensor(sag_shape2(3, 4), 5);
    sag_tensor *bad = make_i32(2, (int32_t[]){0, 3}), *negative = make_i32(2, (int32_t[]){-1, 0}), *few = make_i32(1, (int32_t[]){0});
    double eval[5] = {0, 0.1, 1e-5, 0, 0};
    sag_tensor *a[5] = {x, c5, c4}, *b[5] = {x, c4, c4}, *d[5] = {one, c4, c4}, *e[5] = {x, c4, c4, c5, c4}, *v[5] = {c4};
    assert_fails(sag_op_apply(ctx, SAG_OP_batch_norm, a, NULL, out), SAG_ERR_SHAPE, "'gain' must have shape {4}");
    assert_fails(sag_op_apply(ctx, SAG_OP_batch_norm, b, eval, out), SAG_ERR_ARG, "running_mean");
    assert_fails(sag_op_apply(ctx, SAG_OP_batch_norm, d, NULL, out), SAG_ERR_SHAPE, "more than one value per channel");
    assert_fails(sag_op_apply(ctx, SAG_OP_batch_norm, e, NULL, out), SAG_ERR_SHAPE, "'running_mean' must have shape {4}");
    assert_fails(sag_op_apply(ctx, SAG_OP_batch_norm, v, NULL, out), SAG_ERR_SHAPE, "{N, C}");
    sag_tensor *f[6] = {x, table, table, bad}, *g[6] = {x, table, table, few}, *h[6] = {x, table, c4, few}, *n[6] = {x, table, table, negative};
    check_bad_index(SAG_OP_cond_batch_norm, f, NULL, "label");
    check_bad_index(SAG_OP_cond_batch_norm, n, NULL, "label");
    assert_fails(sag_op_apply(ctx, SAG_OP_cond_batch_norm, g, NULL, out), SAG_ERR_SHAPE, "'labels' must have shape {2}");
    assert_fails(sag_op_apply(ctx, SAG_OP_cond_batch_norm, h, NULL, out), SAG_ERR_SHAPE, "'bias' must be a table");
    sag_tensor *all[] = {x, c4, c5, one, table, bad, negative, few};
    for (int i = 0; i < 8; i++) sag_tensor_release(all[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),   cmocka_unit_test(test_gradients),         cmocka_unit_test(test_finite_differences),
        cmocka_unit_test(test_threads),  cmocka_unit_test(test_partial_gradients), cmocka_unit_test(test_errors),
        cmocka_unit_test(test_mask_is_exact),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
