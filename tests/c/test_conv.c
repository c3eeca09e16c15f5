/* conv2d against plain loops in double, forward and gradients, over awkward shapes; with relu and residual against the ops
 * that these stand for; shape errors; threads. */
#include "testing.h"

typedef struct conv_case {
    int64_t n, h, w, c, k, r, s, stride, pad_h, pad_w;
} conv_case;

static const conv_case cases[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 0, 0},
    {2, 5, 7, 3, 5, 1, 1, 1, 0, 0},
    {2, 6, 5, 16, 17, 1, 1, 2, 0, 0},
    {2, 7, 5, 3, 16, 3, 3, 1, 1, 1},
    {1, 9, 8, 17, 33, 3, 3, 1, 1, 1},
    {3, 8, 8, 33, 3, 3, 3, 1, 1, 1},
    {2, 9, 9, 16, 16, 3, 3, 2, 1, 1},
    {2, 8, 6, 5, 17, 4, 4, 2, 1, 1},
    {1, 11, 9, 5, 3, 5, 5, 1, 2, 2},
    {1, 13, 14, 3, 5, 7, 7, 2, 3, 3},
    {1, 6, 19, 17, 5, 1, 7, 1, 0, 3},
    {1, 19, 6, 5, 17, 7, 1, 1, 3, 0},
    {1, 7, 7, 33, 1, 3, 3, 1, 0, 0},
    {2, 5, 5, 1, 33, 3, 3, 1, 2, 2},
    {1, 3, 3, 16, 5, 3, 3, 1, 0, 0},
    {1, 10, 11, 3, 4, 2, 3, 3, 1, 0},
    {1, 7, 9, 4, 6, 1, 1, 3, 0, 0},
    {1, 4, 4, 2, 3, 5, 5, 1, 3, 3},
    {5, 20, 21, 33, 48, 3, 3, 1, 1, 1},
    {4, 17, 16, 130, 17, 3, 3, 1, 1, 1},
    {9, 16, 16, 8, 65, 3, 3, 1, 1, 1},
    {1, 6, 6, 40, 600, 3, 3, 2, 1, 1},
    {2, 12, 12, 40, 2, 3, 3, 1, 1, 1},
    {2, 12, 12, 40, 4, 3, 3, 2, 1, 1},
    {40, 8, 8, 16, 24, 3, 3, 1, 1, 1},
    {1, 40, 40, 3, 12, 3, 3, 4, 0, 0},
    /* narrow maps, read in place: strides, borders wider than the kernel, rows of many lengths, too wide a row */
    {2, 20, 21, 16, 24, 3, 3, 2, 1, 1},
    {1, 18, 36, 64, 20, 3, 3, 1, 1, 1},
    {1, 4, 600, 8, 8, 3, 3, 1, 1, 1},
    {3, 16, 30, 12, 3, 5, 5, 1, 2, 2},
    {1, 33, 17, 8, 40, 4, 4, 2, 1, 1},
    {1, 9, 9, 8, 9, 3, 3, 1, 5, 5},
    {2, 9, 10, 20, 7, 1, 3, 1, 0, 1},
    {1, 12, 13, 64, 70, 3, 3, 1, 0, 0},
    {2, 11, 65, 8, 1, 3, 3, 1, 1, 1},
    {1, 300, 8, 16, 16, 3, 1, 2, 1, 0},
    {1, 30, 31, 8, 16, 9, 9, 1, 4, 4},
    {6, 16, 16, 1, 16, 3, 3, 1, 1, 1},
    {3, 24, 24, 3, 20, 7, 7, 2, 3, 3},
    {2, 10, 9, 16, 3, 3, 3, 2, 3, 0},
    {1, 1, 40, 8, 8, 1, 5, 1, 0, 2},
    /* few channels on one side: all of them, tails of vectors, odd sides, borders wide and none */
    {2, 9, 7, 1, 16, 3, 3, 1, 1, 1},
    {1, 35, 34, 1, 40, 3, 3, 1, 1, 1},
    {1, 5, 33, 2, 24, 3, 3, 1, 0, 2},
    {2, 34, 37, 3, 32, 3, 3, 1, 1, 1},
    {1, 7, 20, 4, 41, 3, 3, 1, 2, 0},
    {1, 35, 34, 16, 1, 3, 3, 1, 1, 1},
    {2, 20, 18, 32, 2, 3, 3, 1, 1, 1},
    {1, 9, 35, 25, 3, 3, 3, 1, 2, 1},
    {3, 6, 13, 48, 4, 3, 3, 1, 0, 1},
    {2, 33, 65, 64, 3, 3, 3, 1, 1, 1},
    {3, 19, 20, 8, 3, 3, 3, 1, 1, 1},
    {3, 19, 20, 3, 8, 3, 3, 1, 1, 1},
    /* maps smaller than a block of registers, of one row and one column; borders wider than the kernel; other kernels
     */
    {1, 2, 2, 3, 16, 3, 3, 1, 1, 1},
    {2, 2, 1, 16, 3, 3, 3, 1, 1, 1},
    {1, 40, 1, 16, 1, 3, 3, 1, 1, 1},
    {1, 1, 50, 24, 1, 3, 3, 1, 1, 1},
    {2, 5, 6, 3, 32, 1, 1, 1, 0, 0},
    {2, 5, 6, 32, 4, 1, 1, 1, 1, 1},
    {1, 9, 9, 3, 16, 3, 3, 1, 5, 5},
    {1, 9, 9, 16, 3, 3, 3, 1, 5, 5},
    {1, 4, 4, 16, 2, 7, 7, 1, 6, 6},
    {1, 11, 40, 4, 16, 7, 7, 1, 3, 3},
    {1, 12, 23, 16, 3, 5, 5, 1, 2, 2},
    {1, 4, 9, 40, 1, 2, 7, 1, 1, 3},
    {1, 10, 9, 2, 33, 3, 2, 1, 1, 0},
    /* 1x1: pixels flat, tiles of every size, chunks that end anywhere */
    {2, 33, 31, 64, 64, 1, 1, 1, 0, 0},
    {3, 21, 20, 40, 19, 1, 1, 1, 0, 0},
    {2, 9, 10, 17, 48, 1, 1, 1, 0, 0},
    {1, 40, 41, 16, 128, 1, 1, 1, 0, 0},
    {1, 9, 8, 130, 160, 1, 1, 1, 0, 0},
    {2, 7, 5, 24, 16, 1, 1, 1, 1, 0},
};
enum { CASES = sizeof cases / sizeof *cases };

static int64_t out_h(const conv_case *t)
{
    return (t->h + 2 * t->pad_h - t->r) / t->stride + 1;
}
static int64_t out_w(const conv_case *t)
{
    return (t->w + 2 * t->pad_w - t->s) / t->stride + 1;
}

/* Calls visit for each product y[yi] += x[xi] * w[wi]. */
#define FOR_EACH_PRODUCT(t, xi, wi, yi, body)                                                                          \
    for (int64_t n_ = 0; n_ < (t)->n; n_++)                                                                            \
        for (int64_t p_ = 0; p_ < out_h(t); p_++)                                                                      \
            for (int64_t q_ = 0; q_ < out_w(t); q_++)                                                                  \
                for (int64_t r_ = 0; r_ < (t)->r; r_++)                                                                \
                    for (int64_t s_ = 0; s_ < (t)->s; s_++) {                                                          \
                        int64_t h_ = p_ * (t)->stride - (t)->pad_h + r_, v_ = q_ * (t)->stride - (t)->pad_w + s_;      \
                        if (h_ < 0 || h_ >= (t)->h || v_ < 0 || v_ >= (t)->w) continue;                                \
                        for (int64_t k_ = 0; k_ < (t)->k; k_++)                                                        \
                            for (int64_t c_ = 0; c_ < (t)->c; c_++) {                                                  \
                                int64_t xi = ((n_ * (t)->h + h_) * (t)->w + v_) * (t)->c + c_;                         \
                                int64_t wi = ((k_ * (t)->r + r_) * (t)->s + s_) * (t)->c + c_;                         \
                                int64_t yi = ((n_ * out_h(t) + p_) * out_w(t) + q_) * (t)->k + k_;                     \
                                body;                                                                                  \
                            }                                                                                          \
                    }

static void case_tensors(const conv_case *t, uint64_t seed, sag_tensor **in)
{
    in[0] = make_tensor(sag_shape4(t->n, t->h, t->w, t->c), seed);
    in[1] = make_tensor(sag_shape4(t->k, t->r, t->s, t->c), seed + 1);
    in[2] = make_tensor(sag_shape1(t->k), seed + 2);
    in[3] = in[4] = NULL;
}

static void release_all(sag_tensor **in, int n)
{
    for (int i = 0; i < n; i++) sag_tensor_release(in[i]);
}

static void matches_plain_loops(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        const conv_case *t = &cases[i];
        double attr[4] = {(double)t->stride, (double)t->pad_h, (double)t->pad_w};
        sag_tensor *in[5];
        case_tensors(t, (uint64_t)(10 * i + 1), in);
        for (int j = 0; j < 3; j++) assert_ok(sag_tensor_require_grad(in[j]));
        sag_tensor *y = apply(SAG_OP_conv2d, in, attr);
        assert_true(sag_shape_equal(sag_tensor_shape(y), sag_shape4(t->n, out_h(t), out_w(t), t->k)));
        sag_tensor *dy = make_tensor(sag_tensor_shape(y), (uint64_t)(10 * i + 4));
        int64_t nx = sag_tensor_numel(in[0]), nw = sag_tensor_numel(in[1]), ny = sag_tensor_numel(y);
        double *ry = calloc((size_t)ny, sizeof *ry), *rx = calloc((size_t)nx, sizeof *rx);
        double *rw = calloc((size_t)nw, sizeof *rw), *rb = calloc((size_t)t->k, sizeof *rb);
        const float *x = f32(in[0]), *w = f32(in[1]), *b = f32(in[2]), *g = f32(dy);
        for (int64_t m = 0; m < ny; m++) ry[m] = (double)b[m % t->k], rb[m % t->k] += (double)g[m];
        FOR_EACH_PRODUCT(t, xi, wi, yi, {
            ry[yi] += (double)x[xi] * (double)w[wi];
            rx[xi] += (double)g[yi] * (double)w[wi];
            rw[wi] += (double)g[yi] * (double)x[xi];
        })
        assert_close(f32(y), ry, ny, 1e-6);
        /* twice: the second time adds */
        for (int pass = 1; pass <= 2; pass++) {
            if (pass == 2) {
                sag_tensor_release(y);
                y = apply(SAG_OP_conv2d, in, attr);
            }
            assert_ok(sag_tape_backward_from(y, dy));
            if (pass == 2) {
                for (int64_t m = 0; m < nx; m++) rx[m] *= 2;
                for (int64_t m = 0; m < nw; m++) rw[m] *= 2;
                for (int64_t m = 0; m < t->k; m++) rb[m] *= 2;
            }
            assert_close(f32(sag_tensor_grad(in[0])), rx, nx, 1e-6);
            assert_close(f32(sag_tensor_grad(in[1])), rw, nw, 2e-6);
            assert_close(f32(sag_tensor_grad(in[2])), rb, t->k, 2e-6);
        }
        free(ry), free(rx), free(rw), free(rb);
        sag_tensor_release(y);
        sag_tensor_release(dy);
        release_all(in, 3);
    }
}

static void gradients_are_differences(void **state)
{
    (void)state;
    const int some[] = {1, 3, 7, 9, 11, 15, 43, 46, 48, 50};
    const size_t count = testing_device() == SAG_CPU ? sizeof some / sizeof *some : 4; /* the others are the CPU's own ways */
    for (size_t i = 0; i < count; i++) {
        const conv_case *t = &cases[some[i]];
        double attr[4] = {(double)t->stride, (double)t->pad_h, (double)t->pad_w};
        sag_tensor *in[5];
        case_tensors(t, 77, in);
        check_gradients(SAG_OP_conv2d, in, attr, 7, 0.05, 2e-4);
        release_all(in, 3);
    }
}

/*
 * relu and residual inside, against the ops that they stand for: the same bits, in what comes out and in all gradients,
 * written and added to.
 */
enum { NO_RESIDUAL, FULL_RESIDUAL, HALF_RESIDUAL };

static sag_tensor *folded(sag_tensor **in, const double *attr)
{
    return apply(SAG_OP_conv2d, in, attr);
}

static sag_tensor *one_by_one(sag_tensor **in, const double *attr)
{
    sag_tensor *x = attr[3] != 0 ? apply(SAG_OP_relu, in, NULL) : NULL, *large = NULL;
    sag_tensor *y = apply(SAG_OP_conv2d, (sag_tensor *[5]){x ? x : in[0], in[1], in[2]}, (double[4]){attr[0], attr[1], attr[2]});
    sag_tensor_release(x);
    if (!in[3]) return y;
    bool half = !sag_shape_equal(sag_tensor_shape(in[3]), sag_tensor_shape(y));
    if (half) large = apply(SAG_OP_upsample, &in[3], NULL);
    sag_tensor *sum = apply(SAG_OP_add, (sag_tensor *[]){y, half ? large : in[3]}, NULL);
    sag_tensor_release(y);
    sag_tensor_release(large);
    return sum;
}

/* y of the second of two passes, then what they leave in the gradients of the operands that are there. */
static void results_of(sag_tensor *(*op)(sag_tensor **, const double *), sag_tensor **in, const double *attr, float **out)
{
    for (int j = 0; j < 5; j++)
        if (in[j]) {
            assert_ok(sag_tensor_require_grad(in[j]));
            assert_ok(sag_tensor_zero_grad(in[j]));
            sag_tensor_release_grad(in[j]);
        }
    for (int pass = 0; pass < 2; pass++) {
        sag_tensor *y = op(in, attr), *dy = make_tensor(sag_tensor_shape(y), (uint64_t)(50 + pass));
        assert_ok(sag_tape_backward_from(y, dy));
        if (pass == 1) out[0] = edit_f32(y);
        sag_tensor_release(y);
        sag_tensor_release(dy);
    }
    for (int j = 0; j < 5; j++) out[1 + j] = in[j] ? edit_f32(sag_tensor_grad(in[j])) : NULL;
}

/* Against the same by w / sigma, divided by an op of its own. */
static sag_tensor *divided_first(sag_tensor **in, const double *attr)
{
    sag_tensor *w = apply(SAG_OP_div, (sag_tensor *[]){in[1], in[4]}, NULL);
    sag_tensor *y = apply(SAG_OP_conv2d, (sag_tensor *[5]){in[0], w, in[2], in[3]}, attr);
    sag_tensor_release(w);
    return y;
}

static double norm_of(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

static void check_divided(const conv_case *t, bool residual)
{
    double attr[4] = {(double)t->stride, (double)t->pad_h, (double)t->pad_w, residual};
    sag_tensor *in[5];
    case_tensors(t, 21, in);
    if (residual) in[3] = make_tensor(sag_shape4(t->n, out_h(t), out_w(t), t->k), 25);
    in[4] = make_tensor_from(sag_shape1(1), (float[]){1.7f});
    float *got[6], *want[6];
    results_of(folded, in, attr, got);
    results_of(divided_first, in, attr, want);
    for (int j = 0; j < 6; j++) {
        int64_t n = t->n * out_h(t) * out_w(t) * t->k;
        if (!got[j]) continue;
        if (j > 0) n = sag_tensor_numel(in[j - 1]);
        double *exact = malloc((size_t)n * sizeof *exact);
        for (int64_t i = 0; i < n; i++) exact[i] = (double)want[j][i];
        if (j == 5) { /* a sum of both signs: of what it is at most, |dw| |w| / sigma */
            double most = norm_of(want[2], sag_tensor_numel(in[1])) * norm_of(f32(in[1]), sag_tensor_numel(in[1])) / 1.7;
            if (!(fabs((double)got[5][0] - exact[0]) <= 3e-6 * most)) fail_msg("dsigma is %g, not %g", (double)got[5][0], exact[0]);
        } else {
            assert_close(got[j], exact, n, 3e-6);
        }
        free(exact);
    }
    for (int j = 0; j < 6; j++) free(got[j]), free(want[j]);
    release_all(in, 5);
}

static void check_folded(const conv_case *t, bool relu, int residual)
{
    static const char *const names[] = {"y", "dx", "dw", "db", "the residual's gradient"};
    double attr[4] = {(double)t->stride, (double)t->pad_h, (double)t->pad_w, relu};
    sag_tensor *in[5];
    case_tensors(t, 12, in);
    float *x = edit_f32(in[0]);
    for (int64_t i = 0; i < sag_tensor_numel(in[0]); i += 11) x[i] = i % 2 ? 0.0f : -0.0f;
    end_edit(in[0], x);
    int64_t small = residual == HALF_RESIDUAL ? 2 : 1;
    sag_shape y = sag_shape4(t->n, out_h(t), out_w(t), t->k);
    if (residual) in[3] = make_tensor(sag_shape4(t->n, out_h(t) / small, out_w(t) / small, t->k), 15);
    float *got[6], *want[6];
    results_of(folded, in, attr, got);
    results_of(one_by_one, in, attr, want);
    for (int j = 0; j < 5; j++) {
        int64_t n = 0;
        if (!got[j]) continue;
        assert_ok(sag_shape_numel(j == 0 ? y : sag_tensor_shape(in[j - 1]), &n));
        if (memcmp(got[j], want[j], (size_t)n * sizeof(float)) != 0)
            fail_msg("{%d,%d,%d,%d} -> %d, %dx%d/%d, relu %d, residual %d: %s is not that of single ops", (int)t->n, (int)t->h,
                     (int)t->w, (int)t->c, (int)t->k, (int)t->r, (int)t->s, (int)t->stride, relu, residual, names[j]);
        free(got[j]), free(want[j]);
    }
    release_all(in, 4);
}

static const conv_case large_cases[] = {{4, 16, 16, 64, 64, 3, 3, 1, 1, 1}, {40, 4, 4, 96, 80, 3, 3, 1, 1, 1},
                                        {8, 16, 24, 160, 270, 3, 3, 1, 1, 1}, {4, 21, 18, 47, 64, 3, 3, 1, 0, 0},
                                        {2, 16, 16, 300, 70, 1, 1, 1, 0, 0}};
enum { LARGE_CASES = sizeof large_cases / sizeof *large_cases };

static void folded_are_the_ops_they_stand_for(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    const bool cpu = testing_device() == SAG_CPU; /* test_conv_cuda has the cases of a card's own forms */
    for (int i = 0; i < (cpu ? CASES + LARGE_CASES : CASES); i += cpu ? 1 : 7) {
        const conv_case *t = i < CASES ? &cases[i] : &large_cases[i - CASES];
        bool even = out_h(t) % 2 == 0 && out_w(t) % 2 == 0;
        for (int winograd = 0; winograd < (cpu ? 2 : 1); winograd++) {
            sag_context_set_winograd(ctx, winograd);
            check_folded(t, true, NO_RESIDUAL);
            check_folded(t, false, FULL_RESIDUAL);
            if (even) check_folded(t, true, HALF_RESIDUAL);
        }
    }
}

static void sigma_divides_the_weights(void **state)
{
    (void)state;
    const bool cpu = testing_device() == SAG_CPU;
    for (int i = 0; i < (cpu ? CASES + LARGE_CASES : CASES); i += cpu ? 1 : 7)
        for (int winograd = 0; winograd < (cpu ? 2 : 1); winograd++) {
            sag_context_set_winograd(testing_context(), winograd);
            check_divided(i < CASES ? &cases[i] : &large_cases[i - CASES], i % 2);
        }
    sag_tensor *in[5], *out[1] = {0};
    const conv_case *t = &cases[0];
    const double attr[4] = {(double)t->stride, (double)t->pad_h, (double)t->pad_w};
    case_tensors(t, 21, in);
    in[4] = make_tensor_from(sag_shape1(1), (float[]){-0.6f});
    check_gradients(SAG_OP_conv2d, in, attr, 1 << 4 | 1 << 1, 0.01, 1e-3);
    check_threads(SAG_OP_conv2d, in, attr, 1 << 4 | 7);
    sag_tensor *two = make_tensor(sag_shape1(2), 1), *one = in[4];
    in[4] = two;
    assert_fails(sag_op_apply(testing_context(), SAG_OP_conv2d, in, attr, out), SAG_ERR_SHAPE, "'sigma' must have shape {1}");
    in[4] = one;
    sag_tensor_release(two);
    release_all(in, 5);
}

/* Of x away from the kink. */
static void folded_gradients_are_differences(void **state)
{
    (void)state;
    const conv_case some[] = {{2, 6, 5, 3, 5, 3, 3, 1, 1, 1}, {1, 8, 6, 7, 3, 1, 1, 1, 0, 0}, {2, 9, 7, 4, 6, 3, 3, 2, 1, 1},
                              {4, 16, 16, 16, 20, 3, 3, 1, 1, 1}};
    for (int i = 0; i < 4; i++)
        for (int small = 1; small <= 2; small++) {
            const conv_case *t = &some[i];
            if (small == 2 && (out_h(t) % 2 || out_w(t) % 2)) continue;
            sag_tensor *in[5];
            case_tensors(t, 70, in);
            float *x = edit_f32(in[0]);
            for (int64_t m = 0; m < sag_tensor_numel(in[0]); m++) x[m] += x[m] < 0 ? -0.1f : 0.1f;
            end_edit(in[0], x);
            in[3] = make_tensor(sag_shape4(t->n, out_h(t) / small, out_w(t) / small, t->k), 74);
            double attr[4] = {(double)t->stride, (double)t->pad_h, (double)t->pad_w, 1};
            check_gradients(SAG_OP_conv2d, in, attr, 15, 0.05, 4e-4);
            check_threads(SAG_OP_conv2d, in, attr, 15);
            release_all(in, 4);
        }
}

/* As the op relu has it: not-a-number goes through, and so does the gradient there; at 0 of either sign it is 0. */
static void folded_relu_lets_nan_through(void **state)
{
    (void)state;
    const float values[5] = {NAN, 0.0f, -0.0f, -1.0f, INFINITY};
    for (int i = 0; i < CASES; i++) {
        const conv_case *t = &cases[i];
        double attr[4] = {(double)t->stride, (double)t->pad_h, (double)t->pad_w, 1};
        sag_tensor *in[5], *results[2], *gradients[2];
        case_tensors(t, 12, in);
        float *x = edit_f32(in[0]);
        for (int64_t m = 0; m < sag_tensor_numel(in[0]); m += 7) x[m] = values[m / 7 % 5];
        end_edit(in[0], x);
        assert_ok(sag_tensor_require_grad(in[0]));
        for (int way = 0; way < 2; way++) {
            assert_ok(sag_tensor_zero_grad(in[0]));
            results[way] = (way ? one_by_one : folded)(in, attr);
            sag_tensor *dy = make_tensor(sag_tensor_shape(results[way]), 5);
            assert_ok(sag_tape_backward_from(results[way], dy));
            gradients[way] = make_tensor_from(sag_tensor_shape(in[0]), f32(sag_tensor_grad(in[0])));
            sag_tensor_release(dy);
        }
        for (int64_t m = 0; m < sag_tensor_numel(results[0]); m++) {
            float a = f32(results[0])[m], b = f32(results[1])[m];
            assert_true(isnan(a) ? isnan(b) : a == b);
        }
        assert_memory_equal(f32(gradients[0]), f32(gradients[1]), (size_t)sag_tensor_numel(in[0]) * sizeof(float));
        release_all(results, 2), release_all(gradients, 2), release_all(in, 4);
    }
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        const conv_case *t = &cases[i];
        double attr[4] = {(double)t->stride, (double)t->pad_h, (double)t->pad_w};
        sag_tensor *in[5];
        case_tensors(t, 5, in);
        check_threads(SAG_OP_conv2d, in, attr, 7);
        release_all(in, 3);
    }
}

/* `t` between infinities; *big owns the memory */
static sag_tensor *guarded(sag_shape shape, uint64_t seed, sag_tensor **big)
{
    int64_t n, guard = 64;
    sag_tensor *t = NULL;
    assert_ok(sag_shape_numel(shape, &n));
    *big = make_tensor(sag_shape1(n + 2 * guard), seed);
    float *p = edit_f32(*big);
    for (int64_t i = 0; i < guard; i++) p[i] = p[n + guard + i] = INFINITY;
    end_edit(*big, p);
    assert_ok(sag_tensor_view(*big, guard, shape, &t));
    return t;
}

static void assert_finite(const sag_tensor *t)
{
    for (int64_t i = 0; i < sag_tensor_numel(t); i++) assert_true(isfinite(f32(t)[i]));
}

/* A number beyond the border of x or dy must not be read: infinities around the tensors would show. */
static void reads_only_its_own(void **state)
{
    (void)state;
    const struct {
        int64_t c, k;
    } channels[] = {{3, 5}, {3, 16}, {16, 3}, {2, 24}, {24, 1}, {1, 9}, {40, 4}};
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++) {
        const conv_case t = {2, 5, 18, channels[i].c, channels[i].k, 3, 3, 1, 1, 1};
        sag_tensor *big[2], *x = guarded(sag_shape4(t.n, t.h, t.w, t.c), 3, &big[0]);
        sag_tensor *dy = guarded(sag_shape4(t.n, out_h(&t), out_w(&t), t.k), 5, &big[1]);
        sag_tensor *in[5] = {x, make_tensor(sag_shape4(t.k, 3, 3, t.c), 4), make_tensor(sag_shape1(t.k), 6)};
        double attr[4] = {1, 1, 1};
        for (int j = 0; j < 3; j++) assert_ok(sag_tensor_require_grad(in[j]));
        sag_tensor *y = apply(SAG_OP_conv2d, in, attr);
        assert_ok(sag_tape_backward_from(y, dy));
        assert_finite(y);
        for (int j = 0; j < 3; j++) assert_finite(sag_tensor_grad(in[j]));
        sag_tensor *all[] = {y, dy, in[0], in[1], in[2], big[0], big[1]};
        release_all(all, 7);
    }
}

static void only_wanted_gradients(void **state)
{
    (void)state;
    const conv_case t = {2, 5, 6, 3, 5, 3, 3, 1, 1, 1};
    for (unsigned want = 1; want < 8; want++) {
        sag_tensor *in[5];
        case_tensors(&t, 9, in);
        double attr[4] = {1, 1, 1};
        for (int j = 0; j < 3; j++)
            if (want >> j & 1u) assert_ok(sag_tensor_require_grad(in[j]));
        sag_profile_enable(testing_context(), true);
        sag_profile_reset(testing_context());
        sag_tensor *y = apply(SAG_OP_conv2d, in, attr), *dy = make_tensor(sag_tensor_shape(y), 3);
        assert_ok(sag_tape_backward_from(y, dy));
        sag_profile_row rows[16];
        int n = sag_profile_read(testing_context(), rows, 16);
        bool ran_x = false, ran_w = false;
        for (int i = 0; i < n; i++) {
            ran_x |= strcmp(rows[i].kernel, "conv2d_bwd_x") == 0;
            ran_w |= strcmp(rows[i].kernel, "conv2d_bwd_w") == 0;
        }
        sag_profile_enable(testing_context(), false);
        assert_int_equal(ran_x, (want & 1u) != 0);
        assert_int_equal(ran_w, (want & 6u) != 0);
        for (int j = 0; j < 3; j++) assert_int_equal(sag_tensor_grad(in[j]) != NULL, (want >> j & 1u) != 0);
        sag_tensor_release(y);
        sag_tensor_release(dy);
        release_all(in, 3);
    }
}

/* Each allocation in turn fails; what comes back is a memory error, and nothing stays behind. */
static void failed_allocations_leave_nothing(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    const conv_case t = {2, 12, 12, 16, 24, 3, 3, 1, 1, 1};
    double attr[4] = {1, 1, 1, 1};
    sag_memory_stats before, after;
    sag_context_memory(ctx, &before);
    int64_t n = 1, failures = 0;
    for (bool done = false; !done; n++) {
        sag_tensor *in[5], *out[3] = {0};
        case_tensors(&t, 9, in);
        for (int j = 0; j < 3; j++) assert_ok(sag_tensor_require_grad(in[j]));
        sag_tensor *dy = make_tensor(sag_shape4(2, 12, 12, 24), 3);
        sag_context_trim(ctx);
        sag_debug_fail_allocation(n);
        sag_status s = sag_op_apply(ctx, SAG_OP_conv2d, in, attr, out);
        if (s == SAG_OK) s = sag_tape_backward_from(out[0], dy);
        sag_debug_fail_allocation(0);
        sag_tape_clear(ctx);
        done = s == SAG_OK;
        if (!done) {
            assert_int_equal(s, SAG_ERR_MEMORY);
            failures++;
        }
        sag_tensor_release(out[0]);
        sag_tensor_release(dy);
        release_all(in, 3);
        sag_context_memory(ctx, &after);
        assert_int_equal(before.live_tensors, after.live_tensors);
        assert_int_equal(before.live_storages, after.live_storages);
    }
    assert_true(failures >= 5);
}

static void bad_shapes_are_named(void **state)
{
    (void)state;
    sag_context *ctx = testing_context();
    sag_tensor *x = make_tensor(sag_shape4(1, 4, 4, 3), 1), *w = make_tensor(sag_shape4(5, 3, 3, 3), 2);
    sag_tensor *w2 = make_tensor(sag_shape4(5, 3, 3, 2), 2), *b = make_tensor(sag_shape1(4), 3),
               *flat = make_tensor(sag_shape2(4, 4), 1);
    sag_tensor *big = make_tensor(sag_shape4(1, 7, 7, 3), 1), *out[3];
    const int32_t ints[3] = {0};
    sag_tensor *ib = make_i32(3, ints), *ix = NULL;
    assert_ok(sag_tensor_zeros(ctx, SAG_I32, sag_shape4(1, 4, 4, 3), &ix));
    double one[4] = {1, 1, 1}, none[4] = {1};
#define TRY(X, W, B, A) sag_op_apply(ctx, SAG_OP_conv2d, (sag_tensor *[5]){X, W, B}, A, out)
    assert_fails(TRY(x, w2, NULL, one), SAG_ERR_SHAPE,
                 "conv2d(x {1, 4, 4, 3}, w {5, 3, 3, 2}): x has 3 channels but w takes 2");
    assert_fails(TRY(flat, w, NULL, one), SAG_ERR_SHAPE, "rank 4");
    assert_fails(TRY(x, flat, NULL, one), SAG_ERR_SHAPE, "rank 4");
    assert_fails(TRY(x, w, b, one), SAG_ERR_SHAPE, "b must be {5}");
    assert_fails(TRY(x, big, NULL, one), SAG_ERR_SHAPE, "kernel is larger than the padded input: height 4 + 2 * 1 < 7");
    assert_ok(TRY(x, big, NULL, ((double[4]){1, 2, 2})));
    sag_tensor_release(out[0]);
    assert_fails(TRY(x, w, NULL, ((double[4]){0, 1, 1})), SAG_ERR_ARG, "stride = 0, but it must be a whole number");
    assert_fails(TRY(x, w, NULL, ((double[4]){1.5, 1, 1})), SAG_ERR_ARG, "stride = 1.5");
    assert_fails(TRY(x, w, NULL, ((double[4]){1, -1, 1})), SAG_ERR_ARG, "pad_h");
    assert_fails(TRY(x, w, NULL, ((double[4]){1, 1, NAN})), SAG_ERR_ARG, "pad_w");
    assert_fails(TRY(x, w, NULL, ((double[4]){1, 2e9, 2e9})), SAG_ERR_SHAPE, "too large");
    assert_fails(TRY(ix, w, NULL, none), SAG_ERR_DTYPE, "f32 or bf16");
    assert_fails(TRY(x, w, ib, none), SAG_ERR_SHAPE, "b must be {5}");
    sag_tensor *r = make_tensor(sag_shape4(1, 4, 4, 5), 1), *odd = make_tensor(sag_shape4(1, 1, 1, 5), 1), *ir = NULL;
    assert_ok(sag_tensor_zeros(ctx, SAG_I32, sag_shape4(1, 4, 4, 5), &ir));
#define WITH(R, A) sag_op_apply(ctx, SAG_OP_conv2d, (sag_tensor *[5]){x, w, NULL, R}, A, out)
    assert_fails(WITH(x, one), SAG_ERR_SHAPE, "'residual' must have the shape of y, {1, 4, 4, 5}, or half that height and width");
    assert_fails(WITH(odd, one), SAG_ERR_SHAPE, "half that height and width, both even");
    assert_fails(WITH(odd, ((double[4]){1, 1, 0})), SAG_ERR_SHAPE, "{1, 4, 2, 5}");
    assert_fails(WITH(r, none), SAG_ERR_SHAPE, "{1, 2, 2, 5}");
    assert_fails(WITH(ir, one), SAG_ERR_DTYPE, "'residual' is i32");
    assert_ok(WITH(odd, none));
    sag_tensor_release(out[0]);
    release_all((sag_tensor *[]){r, odd, ir}, 3);
#undef WITH
#undef TRY
    sag_tensor *all[] = {x, w, w2, b, flat, big, ib, ix};
    release_all(all, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_plain_loops),   cmocka_unit_test(gradients_are_differences),
        cmocka_unit_test(folded_are_the_ops_they_stand_for), cmocka_unit_test(sigma_divides_the_weights),
        cmocka_unit_test(folded_gradients_are_differences),
        cmocka_unit_test(folded_relu_lets_nan_through),
        cmocka_unit_test(threads_do_not_matter), cmocka_unit_test(reads_only_its_own),
        cmocka_unit_test(only_wanted_gradients), cmocka_unit_test(failed_allocations_leave_nothing),
        cmocka_unit_test(bad_shapes_are_named),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
