/* matmul and linear against plain loops in double, all transposes, batches, gradients, threads, errors. */
#include "testing.h"

typedef struct matmul_case {
    int64_t batch, m, n, k; /* batch 0: rank 2 */
} matmul_case;

static const matmul_case cases[] = {
    {0, 1, 1, 1},     {0, 3, 5, 7},       {0, 17, 33, 16},  {0, 64, 1, 300}, {0, 50, 3, 40},
    {0, 1, 64, 128},  {0, 190, 300, 270}, {1, 5, 6, 7},     {3, 17, 16, 33}, {7, 2, 4, 100},
    {2, 100, 40, 65}, {4, 30, 17, 1},     {0, 16, 48, 520},   {0, 16, 600, 40},
};
enum { CASES = sizeof cases / sizeof *cases };

static sag_shape stored(const matmul_case *t, int64_t rows, int64_t cols, int transposed)
{
    int64_t a = transposed ? cols : rows, b = transposed ? rows : cols;
    return t->batch ? sag_shape3(t->batch, a, b) : sag_shape2(a, b);
}

static void case_tensors(const matmul_case *t, int ta, int tb, sag_tensor **in)
{
    in[0] = make_tensor(stored(t, t->m, t->k, ta), 1);
    in[1] = make_tensor(stored(t, t->k, t->n, tb), 2);
}

static void matches_plain_loops(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++)
        for (int form = 0; form < 4; form++) {
            const matmul_case *t = &cases[i];
            int ta = form & 1, tb = form >> 1;
            double attr[] = {ta, tb};
            sag_tensor *in[2];
            case_tensors(t, ta, tb, in);
            for (int j = 0; j < 2; j++) assert_ok(sag_tensor_require_grad(in[j]));
            sag_tensor *y = apply(SAG_OP_matmul, in, attr), *dy = make_tensor(sag_tensor_shape(y), 3);
            assert_ok(sag_tape_backward_from(y, dy));
            int64_t batches = t->batch ? t->batch : 1, na = batches * t->m * t->k, nb = batches * t->k * t->n,
                    ny = batches * t->m * t->n;
            double *ry = calloc((size_t)ny, 8), *ra = calloc((size_t)na, 8), *rb = calloc((size_t)nb, 8);
            const float *a = f32(in[0]), *b = f32(in[1]), *g = f32(dy);
            for (int64_t s = 0; s < batches; s++)
                for (int64_t m = 0; m < t->m; m++)
                    for (int64_t n = 0; n < t->n; n++)
                        for (int64_t k = 0; k < t->k; k++) {
                            int64_t ai = s * t->m * t->k + (ta ? k * t->m + m : m * t->k + k);
                            int64_t bi = s * t->k * t->n + (tb ? n * t->k + k : k * t->n + n);
                            int64_t yi = (s * t->m + m) * t->n + n;
                            ry[yi] += (double)a[ai] * (double)b[bi];
                            ra[ai] += (double)g[yi] * (double)b[bi];
                            rb[bi] += (double)g[yi] * (double)a[ai];
                        }
            assert_true(sag_shape_equal(sag_tensor_shape(y), stored(t, t->m, t->n, 0)));
            assert_close(f32(y), ry, ny, 1e-6);
            assert_close(f32(sag_tensor_grad(in[0])), ra, na, 1e-6);
            assert_close(f32(sag_tensor_grad(in[1])), rb, nb, 1e-6);
            free(ry), free(ra), free(rb);
            sag_tensor_release(y);
            sag_tensor_release(dy);
            sag_tensor_release(in[0]);
            sag_tensor_release(in[1]);
        }
}

static void gradients_are_differences(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++)
        for (int form = 0; form < 4; form++) {
            if (cases[i].m * cases[i].n * cases[i].k > 100000) continue;
            double attr[] = {form & 1, form >> 1};
            sag_tensor *in[2];
            case_tensors(&cases[i], form & 1, form >> 1, in);
            check_gradients(SAG_OP_matmul, in, attr, 3, 0.25, 1e-4);
            sag_tensor_release(in[0]);
            sag_tensor_release(in[1]);
        }
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++)
        for (int form = 0; form < 4; form++) {
            double attr[] = {form & 1, form >> 1};
            sag_tensor *in[2];
            case_tensors(&cases[i], form & 1, form >> 1, in);
            check_threads(SAG_OP_matmul, in, attr, 3);
            sag_tensor_release(in[0]);
            sag_tensor_release(in[1]);
        }
}

/* x of any rank, with and without bias. */
/* What an earlier product left in the packing buffer must not reach a later one: not even times zero, for 0 * NaN is
 * NaN. */
static void old_scratch_does_not_matter(void **state)
{
    (void)state;
    double attr[] = {0, 0};
    float nans[64 * 64];
    for (int i = 0; i < 64 * 64; i++) nans[i] = NAN;
    sag_tensor *poison[2];
    for (int i = 0; i < 2; i++) poison[i] = make_tensor_from(sag_shape2(64, 64), nans);
    for (int64_t n = 1; n <= 33; n++)
        for (int64_t k = 1; k <= 9; k++) {
            matmul_case t = {0, 7, n, k};
            sag_tensor *in[2];
            case_tensors(&t, 0, 0, in);
            sag_tensor_release(apply(SAG_OP_matmul, poison, attr));
            sag_tensor *y = apply(SAG_OP_matmul, in, attr);
            for (int64_t i = 0; i < 7 * n; i++)
                if (!isfinite(f32(y)[i])) fail_msg("%d columns, depth %d: not finite", (int)n, (int)k);
            sag_tensor_release(y);
            sag_tensor_release(in[0]);
            sag_tensor_release(in[1]);
        }
    sag_tensor_release(poison[0]);
    sag_tensor_release(poison[1]);
}

static void linear_matches_plain_loops(void **state)
{
    (void)state;
    const sag_shape shapes[] = {sag_shape1(7), sag_shape2(5, 33), sag_shape3(3, 4, 17), sag_shape4(2, 3, 4, 5),
                                sag_shape2(3000, 40)};
    const int64_t outs[] = {5, 1, 3, 17, 33};
    for (int i = 0; i < 5; i++)
        for (int o = 0; o < 5; o++) {
            int64_t in_size = shapes[i].dim[shapes[i].rank - 1], out = outs[o], rows = 1;
            for (int d = 0; d + 1 < shapes[i].rank; d++) rows *= shapes[i].dim[d];
            sag_tensor *in[3] = {make_tensor(shapes[i], 1), make_tensor(sag_shape2(out, in_size), 2),
                                 o % 2 ? NULL : make_tensor(sag_shape1(out), 3)};
            for (int j = 0; j < 3; j++)
                if (in[j]) assert_ok(sag_tensor_require_grad(in[j]));
            sag_tensor *y = apply(SAG_OP_linear, in, NULL), *dy = make_tensor(sag_tensor_shape(y), 4);
            assert_int_equal(sag_tensor_numel(y), rows * out);
            assert_int_equal(sag_tensor_shape(y).rank, shapes[i].rank);
            assert_ok(sag_tape_backward_from(y, dy));
            double *ry = calloc((size_t)(rows * out), 8), *rx = calloc((size_t)(rows * in_size), 8),
                   *rw = calloc((size_t)(out * in_size), 8), *rb = calloc((size_t)out, 8);
            for (int64_t m = 0; m < rows; m++)
                for (int64_t n = 0; n < out; n++) {
                    double g = (double)f32(dy)[m * out + n];
                    rb[n] += g;
                    ry[m * out + n] = in[2] ? (double)f32(in[2])[n] : 0;
                    for (int64_t k = 0; k < in_size; k++) {
                        double x = (double)f32(in[0])[m * in_size + k], w = (double)f32(in[1])[n * in_size + k];
                        ry[m * out + n] += x * w;
                        rx[m * in_size + k] += g * w;
                        rw[n * in_size + k] += g * x;
                    }
                }
            assert_close(f32(y), ry, rows * out, 1e-6);
            assert_close(f32(sag_tensor_grad(in[0])), rx, rows * in_size, 1e-6);
            assert_close(f32(sag_tensor_grad(in[1])), rw, out * in_size, 2e-6);
            if (in[2]) assert_close(f32(sag_tensor_grad(in[2])), rb, out, 1e-6);
            free(ry), free(rx), free(rw), free(rb);
            sag_tensor_release(y);
            sag_tensor_release(dy);
            if (rows < 100) check_gradients(SAG_OP_linear, in, NULL, in[2] ? 7 : 3, 0.25, 1e-4);
            check_threads(SAG_OP_linear, in, NULL, in[2] ? 7 : 3);
            for (int j = 0; j < 3; j++) sag_tensor_release(in[j]);
        }
}

static void bad_shapes_are_named(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *a = make_tensor(sag_shape2(2, 3), 1), *b = make_tensor(sag_shape2(4, 5), 2),
               *c = make_tensor(sag_shape3(2, 3, 4), 3);
    sag_tensor *d = make_tensor(sag_shape3(3, 4, 5), 4), *v = make_tensor(sag_shape1(3), 5), *out[3];
#define MATMUL(A, B) sag_op_apply(ctx, SAG_OP_matmul, (sag_tensor *[]){A, B}, NULL, out)
    assert_fails(MATMUL(a, b), SAG_ERR_SHAPE, "inner dimensions differ: a has 3, b has 4");
    assert_fails(sag_op_apply(ctx, SAG_OP_matmul, (sag_tensor *[]){a, b}, (double[]){1, 1}, out), SAG_ERR_SHAPE,
                 "a transposed has 2, b transposed has 5");
    assert_fails(MATMUL(a, c), SAG_ERR_SHAPE, "rank");
    assert_fails(MATMUL(c, d), SAG_ERR_SHAPE, "batches differ: 2 and 3");
    assert_fails(MATMUL(v, v), SAG_ERR_SHAPE, "rank");
#undef MATMUL
#define LINEAR(X, W, B) sag_op_apply(ctx, SAG_OP_linear, (sag_tensor *[]){X, W, B}, NULL, out)
    assert_fails(LINEAR(a, b, NULL), SAG_ERR_SHAPE, "last dimension of x is 3 but w takes 5");
    assert_fails(LINEAR(a, c, NULL), SAG_ERR_SHAPE, "rank 2");
    assert_fails(LINEAR(a, a, v), SAG_ERR_SHAPE, "b must be {2}");
#undef LINEAR
    sag_tensor *all[] = {a, b, c, d, v};
    for (int i = 0; i < 5; i++) sag_tensor_release(all[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_plain_loops),   cmocka_unit_test(gradients_are_differences),
        cmocka_unit_test(threads_do_not_matter), cmocka_unit_test(linear_matches_plain_loops),
        cmocka_unit_test(bad_shapes_are_named),  cmocka_unit_test(old_scratch_does_not_matter),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
