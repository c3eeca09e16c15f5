/*
 * test_spectral_norm.c - the batched power iteration against plain loops in double, its two gradients against finite
 * differences in double, and both against a full singular value decomposition.
 */
#include "testing.h"

enum { W, U, V, SIGMA, LAYERS, INPUTS };
enum { MAX_LAYERS = 8 };

typedef struct problem {
    int64_t n, n_u, n_v, n_layers;
    const int32_t *layers;
    sag_tensor *in[INPUTS];
} problem;

static problem make_problem(const int32_t *layers, int64_t n_layers, int64_t n, int64_t n_u, int64_t n_v)
{
    problem p = {.n = n, .n_u = n_u, .n_v = n_v, .n_layers = n_layers, .layers = layers};
    p.in[W] = make_tensor(sag_shape1(n), 1);
    p.in[U] = make_tensor(sag_shape1(n_u), 2);
    p.in[V] = make_tensor(sag_shape1(n_v), 3);
    p.in[SIGMA] = make_tensor(sag_shape1(n_layers), 4);
    sag_tensor *flat = make_i32(5 * n_layers, layers);
    assert_ok(sag_tensor_view(flat, 0, sag_shape2(n_layers, 5), &p.in[LAYERS]));
    sag_tensor_release(flat);
    return p;
}

static void release(problem *p)
{
    for (int i = 0; i < INPUTS; i++) sag_tensor_release(p->in[i]);
}

/* Rows of unequal shapes in no order of offset, with gaps before, between and behind. */
static const int32_t mixed[] = {
    50,  6,  9,  7,  20, /* 50..104 */
    3,   4,  11, 0,  0,  /* 3..47 */
    110, 1,  13, 4,  35, /* one row: 110..123 */
    130, 12, 1,  20, 49, /* one column: 130..142 */
};
static problem mixed_problem(void)
{
    return make_problem(mixed, 4, 150, 33, 52);
}

/* x / max(|x|, eps) in place of x / (|x| + eps), for the engine and the reference alike */
static bool eps_max;

static void normalise(double *x, int64_t n, double eps)
{
    double r = 0;
    for (int64_t i = 0; i < n; i++) r += x[i] * x[i];
    r = sqrt(r);
    for (int64_t i = 0; i < n; i++) x[i] /= eps_max ? fmax(r, eps) : r + eps;
}

/* wn = w / sigma, 0 where no layer is, and u, v, sigma as they end. */
static void reference(const problem *p, const double *w, double *u, double *v, double *sigma, double *wn,
                      int iterations, double eps)
{
    memset(wn, 0, (size_t)p->n * sizeof *wn);
    for (int64_t l = 0; l < p->n_layers; l++) {
        const int32_t *t = p->layers + 5 * l;
        const double *m = w + t[0];
        double *ul = u + t[3], *vl = v + t[4];
        for (int k = 0; k < iterations; k++) {
            for (int c = 0; c < t[2]; c++) {
                vl[c] = 0;
                for (int r = 0; r < t[1]; r++) vl[c] += m[r * t[2] + c] * ul[r];
            }
            normalise(vl, t[2], eps);
            for (int r = 0; r < t[1]; r++) {
                ul[r] = 0;
                for (int c = 0; c < t[2]; c++) ul[r] += m[r * t[2] + c] * vl[c];
            }
            normalise(ul, t[1], eps);
        }
        sigma[l] = 0;
        for (int r = 0; r < t[1]; r++)
            for (int c = 0; c < t[2]; c++) sigma[l] += ul[r] * m[r * t[2] + c] * vl[c];
        for (int i = 0; i < t[1] * t[2]; i++) wn[t[0] + i] = m[i] / sigma[l];
    }
}

/* The same of the engine: the layers divided by what the op found. */
static float *divided(const problem *p, const sag_tensor *divisor)
{
    float *wn = calloc((size_t)p->n, sizeof *wn);
    for (int64_t l = 0; l < p->n_layers; l++) {
        const int32_t *t = p->layers + 5 * l;
        for (int i = t[0]; i < t[0] + t[1] * t[2]; i++) wn[i] = f32(p->in[W])[i] / f32(divisor)[l];
    }
    return wn;
}

static double *widen(const sag_tensor *t)
{
    const int64_t n = sag_tensor_numel(t);
    double *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = (double)f32(t)[i];
    return x;
}

static void test_forward(void **state)
{
    (void)state;
    const int steps[] = {1, 2, 5, 0};
    for (int k = 0; k < 4; k++) {
        for (int update = 0; update < 2; update++) {
            problem p = mixed_problem();
            const double attr[5] = {steps[k], 1e-12, update, 0, eps_max};
            double *w = widen(p.in[W]), *u = widen(p.in[U]), *v = widen(p.in[V]), sigma[MAX_LAYERS], wn[150];
            double *u0 = widen(p.in[U]), *v0 = widen(p.in[V]);
            reference(&p, w, u, v, sigma, wn, steps[k], 1e-12);
            sag_tensor *y = apply(SAG_OP_spectral_norm, p.in, attr);
            float *got = divided(&p, y);
            assert_close(got, wn, p.n, 3e-6);
            free(got);
            assert_close(f32(p.in[SIGMA]), sigma, p.n_layers, 2e-6);
            /* what belongs to no layer stays, and without `update` all of it */
            assert_close(f32(p.in[U]), update ? u : u0, p.n_u, 2e-6);
            assert_close(f32(p.in[V]), update ? v : v0, p.n_v, 2e-6);
            double *all[] = {w, u, v, u0, v0};
            for (int i = 0; i < 5; i++) free(all[i]);
            sag_tensor_release(y);
            release(&p);
        }
    }
}

static sag_tensor *view_of(sag_tensor *t, int64_t offset, int64_t n)
{
    sag_tensor *view = NULL;
    assert_ok(sag_tensor_view(t, offset, sag_shape1(n), &view));
    return view;
}

/* The tape's gradient of sum(wn r), beginning from the u and v in p. */
static sag_tensor *tape_gradient(problem *p, sag_tensor *r, int iterations, double eps, bool through)
{
    const double attr[5] = {iterations, eps, 1, through, eps_max};
    assert_ok(sag_tensor_require_grad(p->in[W]));
    sag_tensor *divisor = apply(SAG_OP_spectral_norm, p->in, attr), *total = NULL;
    for (int64_t l = 0; l < p->n_layers; l++) {
        const int32_t *t = p->layers + 5 * l;
        sag_tensor *part[] = {view_of(p->in[W], t[0], t[1] * t[2]), view_of(divisor, l, 1), view_of(r, t[0], t[1] * t[2])};
        sag_tensor *wn = apply(SAG_OP_div, part, NULL), *weighted = apply(SAG_OP_mul, (sag_tensor *[]){wn, part[2]}, NULL);
        sag_tensor *sum = apply(SAG_OP_sum, (sag_tensor *[]){weighted}, NULL);
        sag_tensor *both = total ? apply(SAG_OP_add, (sag_tensor *[]){total, sum}, NULL) : sum;
        if (total) {
            sag_tensor_release(sum);
            sag_tensor_release(total);
        }
        total = both;
        for (int i = 0; i < 3; i++) sag_tensor_release(part[i]);
        sag_tensor_release(wn);
        sag_tensor_release(weighted);
    }
    assert_ok(sag_tape_backward(total, 1));
    sag_tensor_release(total);
    sag_tensor_release(divisor);
    return sag_tensor_grad(p->in[W]);
}

/* That of sum(divisor h), h {L}: the op's own gradient. */
static sag_tensor *slope_gradient(problem *p, const sag_tensor *h, int iterations, double eps, bool through)
{
    const double attr[5] = {iterations, eps, 1, through, eps_max};
    assert_ok(sag_tensor_require_grad(p->in[W]));
    sag_tensor *divisor = apply(SAG_OP_spectral_norm, p->in, attr), *dy = NULL;
    assert_ok(sag_tensor_create(testing_context(), SAG_F32, sag_tensor_shape(divisor), &dy));
    assert_ok(sag_tensor_copy(dy, h));
    assert_ok(sag_tape_backward_from(divisor, dy));
    sag_tensor_release(divisor);
    sag_tensor_release(dy);
    return sag_tensor_grad(p->in[W]);
}

/* Central differences in double of sum(wn r) from the given u and v, which are left alone. */
static double *difference(const problem *p, const double *w, const double *u0, const double *v0, const sag_tensor *r,
                          int iterations, double eps)
{
    double *x = malloc((size_t)p->n * sizeof *x), *wn = malloc((size_t)p->n * sizeof *wn);
    double *u = malloc((size_t)p->n_u * sizeof *u), *v = malloc((size_t)p->n_v * sizeof *v), sigma[MAX_LAYERS];
    double *g = malloc((size_t)p->n * sizeof *g);
    memcpy(x, w, (size_t)p->n * sizeof *x);
    for (int64_t i = 0; i < p->n; i++) {
        const double h = 1e-6;
        double f[2];
        for (int side = 0; side < 2; side++) {
            x[i] = w[i] + (side ? -h : h);
            memcpy(u, u0, (size_t)p->n_u * sizeof *u);
            memcpy(v, v0, (size_t)p->n_v * sizeof *v);
            reference(p, x, u, v, sigma, wn, iterations, eps);
            f[side] = 0;
            for (int64_t k = 0; k < p->n; k++) f[side] += wn[k] * (double)f32(r)[k];
        }
        x[i] = w[i];
        g[i] = (f[0] - f[1]) / (2 * h);
    }
    free(x);
    free(wn);
    free(u);
    free(v);
    return g;
}

static void test_gradient_through(void **state)
{
    (void)state;
    for (int k = 0; k < 12; k++) {
        const int steps = 1 + k % 3;
        /* an eps that matters finds errors that a tiny one hides; norms lie on both sides of 1.5 */
        const double eps = k < 3 ? 1e-12 : k < 6 ? 0.25 : k < 9 ? 1.5 : 40;
        eps_max = k >= 6;
        problem p = mixed_problem();
        sag_tensor *r = make_tensor(sag_shape1(p.n), 9);
        double *w = widen(p.in[W]), *u = widen(p.in[U]), *v = widen(p.in[V]);
        double *want = difference(&p, w, u, v, r, steps, eps);
        assert_close(f32(tape_gradient(&p, r, steps, eps, true)), want, p.n, 1e-5);
        free(w);
        free(u);
        free(v);
        free(want);
        sag_tensor_release(r);
        release(&p);
    }
    eps_max = false;
}

/* u and v constant: the differences hold the vectors that the forward pass ended with. */
static void test_gradient_constants(void **state)
{
    (void)state;
    for (int steps = 0; steps <= 2; steps++) {
        problem p = mixed_problem();
        sag_tensor *r = make_tensor(sag_shape1(p.n), 9);
        double *w = widen(p.in[W]), *u = widen(p.in[U]), *v = widen(p.in[V]), sigma[MAX_LAYERS], wn[150];
        reference(&p, w, u, v, sigma, wn, steps, 1e-12);
        double *want = difference(&p, w, u, v, r, 0, 0);
        assert_close(f32(tape_gradient(&p, r, steps, 1e-12, false)), want, p.n, 1e-5);
        free(w);
        free(u);
        free(v);
        free(want);
        sag_tensor_release(r);
        release(&p);
    }
}

static void test_gradients(void **state)
{
    (void)state;
    problem p = mixed_problem();
    const double attr[5] = {1, 1e-12, 1, 1, eps_max};
    check_gradients(SAG_OP_spectral_norm, p.in, attr, 1u << W, 1e-3, 5e-3);
    release(&p);
}

/* ------------------------------------------------------------- against a singular value decomposition */

/*
 * One-sided Jacobi: turns the rows of a {m,n} against each other until all are orthogonal, q collects the turns. Then
 * the largest row is sigma v^T and the same row of q is u.
 */
static double largest_singular(double *a, int64_t m, int64_t n, double *u, double *v)
{
    double *q = calloc((size_t)(m * m), sizeof *q);
    for (int64_t i = 0; i < m; i++) q[i * m + i] = 1;
    for (int sweep = 0; sweep < 60; sweep++) {
        for (int64_t i = 0; i < m; i++) {
            for (int64_t j = i + 1; j < m; j++) {
                double ii = 0, jj = 0, ij = 0;
                for (int64_t c = 0; c < n; c++) {
                    ii += a[i * n + c] * a[i * n + c];
                    jj += a[j * n + c] * a[j * n + c];
                    ij += a[i * n + c] * a[j * n + c];
                }
                if (fabs(ij) < 1e-300) continue;
                const double zeta = (jj - ii) / (2 * ij),
                             t = (zeta < 0 ? -1 : 1) / (fabs(zeta) + sqrt(1 + zeta * zeta));
                const double cosine = 1 / sqrt(1 + t * t), sine = cosine * t;
                for (int64_t c = 0; c < n; c++) {
                    const double x = a[i * n + c], y = a[j * n + c];
                    a[i * n + c] = cosine * x - sine * y;
                    a[j * n + c] = sine * x + cosine * y;
                }
                for (int64_t c = 0; c < m; c++) {
                    const double x = q[i * m + c], y = q[j * m + c];
                    q[i * m + c] = cosine * x - sine * y;
                    q[j * m + c] = sine * x + cosine * y;
                }
            }
        }
    }
    double best = -1;
    for (int64_t i = 0; i < m; i++) {
        double norm = 0;
        for (int64_t c = 0; c < n; c++) norm += a[i * n + c] * a[i * n + c];
        norm = sqrt(norm);
        if (norm <= best) continue;
        best = norm;
        memcpy(u, q + i * m, (size_t)m * sizeof *u);
        for (int64_t c = 0; c < n; c++) v[c] = a[i * n + c] / norm;
    }
    free(q);
    return best;
}

/* After many steps sigma is the norm, and both gradients are (G - <G, W> / sigma u v^T) / sigma at the exact pair. */
static void test_against_svd(void **state)
{
    (void)state;
    static const int32_t layers[] = {0, 12, 20, 0, 0, 240, 25, 8, 12, 20, 440, 5, 5, 37, 28};
    for (int through = 0; through < 2; through++) {
        problem p = make_problem(layers, 3, 465, 42, 33);
        sag_tensor *r = make_tensor(sag_shape1(p.n), 5);
        double *w = widen(p.in[W]), *want = malloc((size_t)p.n * sizeof *want), sigma[3];
        for (int l = 0; l < 3; l++) {
            const int32_t *t = layers + 5 * l;
            const int64_t count = (int64_t)t[1] * t[2];
            double u[32], v[32], along = 0, *a = malloc((size_t)count * sizeof *a);
            memcpy(a, w + t[0], (size_t)count * sizeof *a);
            sigma[l] = largest_singular(a, t[1], t[2], u, v);
            for (int64_t i = 0; i < count; i++) along += (double)f32(r)[t[0] + i] * w[t[0] + i] / sigma[l];
            for (int64_t i = 0; i < count; i++)
                want[t[0] + i] = ((double)f32(r)[t[0] + i] - along * u[i / t[2]] * v[i % t[2]]) / sigma[l];
            free(a);
        }
        const float *g = f32(tape_gradient(&p, r, 300, 1e-12, through != 0));
        assert_close(f32(p.in[SIGMA]), sigma, 3, 2e-6);
        assert_close(g, want, p.n, 1e-5);
        free(w);
        free(want);
        sag_tensor_release(r);
        release(&p);
    }
}

/* ---------------------------------------------------------------------------------------- edge cases */

/* A layer of zeros stays zero, keeps its u and v, and its gradient passes; its neighbour is not touched by it. */
static void test_zero_weights(void **state)
{
    (void)state;
    static const int32_t layers[] = {0, 3, 4, 0, 0, 12, 2, 5, 3, 4};
    for (int through = 0; through < 2; through++) {
        problem p = make_problem(layers, 2, 22, 5, 9);
        for (int i = 0; i < 12; i++) set_f32(p.in[W], i, 0);
        double *u = widen(p.in[U]), *v = widen(p.in[V]);
        sag_tensor *r = make_tensor(sag_shape1(p.n), 5);
        const float *g = f32(tape_gradient(&p, r, 1, 1e-12, through != 0));
        assert_close(f32(p.in[U]), u, 3, 1e-12);
        assert_close(f32(p.in[V]), v, 4, 1e-12);
        assert_memory_equal(g, f32(r), 12 * sizeof(float));
        for (int i = 0; i < 22; i++) assert_true(isfinite(g[i]));
        assert_true(f32(p.in[SIGMA])[0] == 0 && f32(p.in[SIGMA])[1] > 0.1f);
        const double attr[5] = {1, 1e-12, 1, 0, eps_max};
        sag_tape_set_recording(testing_context(), false);
        sag_tensor *y = apply(SAG_OP_spectral_norm, p.in, attr);
        sag_tape_set_recording(testing_context(), true);
        assert_true(f32(y)[0] == 1 && f32(y)[1] == f32(p.in[SIGMA])[1]);
        free(u);
        free(v);
        sag_tensor_release(y);
        sag_tensor_release(r);
        release(&p);
    }
}

/* The smallest matrix there is: sigma is |w|. */
static void test_single_element(void **state)
{
    (void)state;
    static const int32_t layers[] = {0, 1, 1, 0, 0};
    problem p = make_problem(layers, 1, 1, 1, 1);
    set_f32(p.in[W], 0, -0.5f);
    set_f32(p.in[U], 0, 1);
    sag_tensor *y = apply(SAG_OP_spectral_norm, p.in, NULL);
    assert_true(fabsf(f32(y)[0] - 0.5f) < 1e-6f && fabsf(f32(p.in[SIGMA])[0] - 0.5f) < 1e-6f);
    sag_tensor_release(y);
    release(&p);
}

static void test_threads(void **state)
{
    (void)state;
    static const int32_t layers[] = {5, 70, 1500, 0, 0, 200000, 3000, 27, 70, 1500, 300000, 64, 3, 3070, 1527};
    problem p = make_problem(layers, 3, 301000, 3134, 1530);
    for (int through = 0; through < 2; through++) {
        const double attr[5] = {2, 1e-12, 1, through, eps_max};
        check_threads(SAG_OP_spectral_norm, p.in, attr, 1u << W);
    }
    release(&p);
}

/* Large tiles against the plain loops too, so that sums over several tiles are right. */
static void test_large(void **state)
{
    (void)state;
    static const int32_t layers[] = {5, 70, 1500, 0, 0, 200000, 3000, 27, 70, 1500, 300003, 701, 1201, 3070, 1527};
    problem p = make_problem(layers, 3, 1142000, 3771, 2728);
    double *w = widen(p.in[W]), *u = widen(p.in[U]), *v = widen(p.in[V]), sigma[3];
    double *wn = malloc((size_t)p.n * sizeof *wn);
    reference(&p, w, u, v, sigma, wn, 1, 1e-12);
    sag_tensor *y = apply(SAG_OP_spectral_norm, p.in, NULL);
    float *got = divided(&p, y);
    assert_close(got, wn, p.n, 3e-6);
    free(got);
    assert_close(f32(p.in[U]), u, p.n_u, 3e-6);
    assert_close(f32(p.in[V]), v, p.n_v, 3e-6);
    double *all[] = {w, u, v, wn};
    for (int i = 0; i < 4; i++) free(all[i]);
    sag_tensor_release(y);
    release(&p);
}

/* A layer's bits do not depend on which others are in the slab, on where it lies or on what ran before: sums have one order,
 * whichever block comes last, and nothing is left behind that the next step or call would count on. */
static void test_layers_apart(void **state)
{
    (void)state;
    static const int32_t layers[] = {3, 70, 301, 0, 0, 21100, 3, 27, 70, 301, 21200, 301, 129, 75, 329, 60100, 600, 5, 377, 459};
    for (int how = 0; how < 8; how++) {
        const int steps = how >> 1;
        const bool through = how & 1;
        problem all = make_problem(layers, 4, 63200, 977, 464);
        sag_tensor *h = make_tensor(sag_shape1(4), 9);
        float *first[4];
        for (int i = W; i <= V; i++) {
            const size_t bytes = (size_t)sag_tensor_numel(all.in[i]) * sizeof(float);
            first[i] = malloc(bytes);
            memcpy(first[i], f32(all.in[i]), bytes);
        }
        const float *g = f32(slope_gradient(&all, h, steps, 0.1, through));
        for (int k = 0; k < 4; k++) {
            const int32_t *t = layers + 5 * k, alone[5] = {0, t[1], t[2], 0, 0};
            const int64_t size[] = {(int64_t)t[1] * t[2], t[1], t[2]}, at[] = {t[0], t[3], t[4]};
            problem one = make_problem(alone, 1, size[W], size[U], size[V]);
            for (int i = W; i <= V; i++) {
                sag_tensor_release(one.in[i]);
                one.in[i] = make_tensor_from(sag_shape1(size[i]), first[i] + at[i]);
            }
            sag_tensor *own_h = make_tensor_from(sag_shape1(1), f32(h) + k);
            assert_memory_equal(f32(slope_gradient(&one, own_h, steps, 0.1, through)), g + t[0], (size_t)one.n * sizeof(float));
            for (int i = U; i <= V; i++) assert_memory_equal(f32(one.in[i]), f32(all.in[i]) + at[i], (size_t)size[i] * sizeof(float));
            assert_memory_equal(f32(one.in[SIGMA]), f32(all.in[SIGMA]) + k, sizeof(float));
            sag_tensor_release(own_h);
            release(&one);
        }
        for (int i = W; i <= V; i++) free(first[i]);
        sag_tensor_release(h);
        release(&all);
    }
}

static void test_bad_layers(void **state)
{
    (void)state;
    static const struct {
        int32_t layers[10];
        const char *words;
    } bad[] = {
        {{0, 3, 4, 0, 0, 12, 2, 5, 4, 4}, "row 2 of layers: 2 rows from 4 do not fit in u"},
        {{0, 3, 4, 0, 0, 12, 2, 5, 3, 5}, "row 2 of layers: 5 columns from 5 do not fit in v"},
        {{0, 3, 4, 0, 0, 13, 2, 5, 3, 4}, "row 2 of layers: 2 x 5 from element 13 does not fit in w"},
        {{-1, 3, 4, 0, 0, 12, 2, 5, 3, 4}, "row 1 of layers: 3 x 4 from element -1"},
        {{0, 0, 4, 0, 0, 12, 2, 5, 3, 4}, "row 1 of layers: a matrix of 0 x 4"},
        {{0, 2000000000, 2000000000, 0, 0, 12, 2, 5, 3, 4}, "row 1 of layers"},
        {{0, 3, 4, -1, 0, 12, 2, 5, 3, 4}, "do not fit in u"},
        {{0, 3, 4, 0, 0, 11, 2, 5, 3, 4}, "share elements of w"},
    };
    sag_tensor *out[SAG_MAX_OUT];
    const double attr[5] = {1, 1e-12, 1, 0, eps_max};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        problem p = make_problem(bad[i].layers, 2, 22, 5, 9);
        double *u = widen(p.in[U]);
        check_bad_index(SAG_OP_spectral_norm, p.in, attr, bad[i].words);
        if (testing_device() == SAG_CPU) assert_close(f32(p.in[U]), u, 5, 0); /* a refused call changes nothing */
        if (testing_device() != SAG_CPU && i < 7) { /* the layer that is left out is divided by 1, the other by its own */
            sag_tensor *y = apply(SAG_OP_spectral_norm, p.in, attr);
            const int good = i < 3 ? 0 : 1;
            assert_true(f32(y)[!good] == 1 && f32(y)[good] == f32(p.in[SIGMA])[good]);
            assert_true(f32(p.in[SIGMA])[!good] == 0 && f32(p.in[SIGMA])[good] > 0.1f);
            sag_tensor_release(y);
        }
        free(u);
        release(&p);
    }
    problem p = make_problem(bad[0].layers, 2, 22, 5, 9);
    sag_tensor *sigma = p.in[SIGMA], *layers = p.in[LAYERS];
    p.in[SIGMA] = p.in[U];
    assert_fails(sag_op_apply(testing_context(), SAG_OP_spectral_norm, p.in, attr, out), SAG_ERR_SHAPE, "sigma");
    p.in[SIGMA] = sigma;
    p.in[LAYERS] = p.in[U];
    assert_fails(sag_op_apply(testing_context(), SAG_OP_spectral_norm, p.in, attr, out), SAG_ERR_DTYPE, "i32");
    p.in[LAYERS] = layers;
    const double negative[5] = {-1, 1e-12, 1, 0, 0}, eps[5] = {1, NAN, 1, 0, 0};
    assert_fails(sag_op_apply(testing_context(), SAG_OP_spectral_norm, p.in, negative, out), SAG_ERR_ARG, "iterations");
    assert_fails(sag_op_apply(testing_context(), SAG_OP_spectral_norm, p.in, eps, out), SAG_ERR_ARG, "eps");
    release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_gradient_through),
        cmocka_unit_test(test_gradient_constants),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_against_svd),
        cmocka_unit_test(test_zero_weights),
        cmocka_unit_test(test_single_element),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_layers_apart),
        cmocka_unit_test(test_bad_layers),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
