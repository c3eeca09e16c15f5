/* testing.c - see testing.h. */
#include "testing.h"

static sag_context *context;

sag_device testing_device(void)
{
    const char *asked = getenv("SAGAN_TEST_DEVICE");
    return asked && strcmp(asked, "cuda") == 0 ? SAG_CUDA : SAG_CPU;
}

int testing_setup(void **state)
{
    (void)state;
    if (sag_device_available(testing_device())) return 0;
    sag_context *none = NULL;
    sag_context_create(testing_device(), &none);
    fprintf(stderr, "skipped: %s\n", sag_error_message());
    exit(77); /* what ctest takes for skipped */
}

sag_context *testing_context(void)
{
    if (!context) assert_ok(sag_context_create(testing_device(), &context));
    return context;
}

/* Copies that host_data handed out. One serves until the engine is called again. */
static struct copy {
    struct copy *next;
    const void *of;
    size_t bytes;
    int64_t generation;
} *copies;
static int64_t generation;

void testing_changed(void)
{
    generation++;
}

const void *host_data(const sag_tensor *t)
{
    if (testing_device() == SAG_CPU) return sag_tensor_data(t);
    size_t bytes = (size_t)sag_tensor_numel(t) * sag_dtype_size(sag_tensor_dtype(t));
    for (struct copy *c = copies; c && c->generation == generation; c = c->next) {
        if (c->of == sag_tensor_data(t) && c->bytes == bytes) return c + 1;
    }
    struct copy *c = malloc(sizeof *c + bytes);
    *c = (struct copy){copies, sag_tensor_data(t), bytes, generation};
    copies = c;
    assert_ok(sag_tensor_read(t, c + 1, bytes));
    return c + 1;
}

int testing_teardown(void **state)
{
    (void)state;
    while (copies) {
        struct copy *c = copies;
        copies = c->next;
        free(c);
    }
    if (!context) return 0;
    sag_tape_clear(context);
    sag_memory_stats m;
    sag_context_memory(context, &m);
    sag_context_destroy(context);
    context = NULL;
    if (m.live_tensors || m.live_storages || sag_debug_live_host_blocks()) {
        fprintf(stderr, "left alive: %lld tensors, %lld storages, %lld host blocks\n", (long long)m.live_tensors,
                (long long)m.live_storages, (long long)sag_debug_live_host_blocks());
        return 1;
    }
    return 0;
}

/* splitmix64 */
static uint64_t next_random(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void random_fill(float *x, int64_t n, uint64_t seed, float low, float high)
{
    uint64_t s = seed * 7919 + 1;
    for (int64_t i = 0; i < n; i++) x[i] = low + (high - low) * (float)(next_random(&s) >> 40) / 16777216.0f;
}

sag_tensor *make_tensor_between(sag_shape shape, uint64_t seed, float low, float high)
{
    sag_tensor *t = NULL;
    assert_ok(sag_tensor_create(testing_context(), SAG_F32, shape, &t));
    int64_t n = sag_tensor_numel(t);
    float *x = malloc((size_t)n * sizeof *x);
    random_fill(x, n, seed, low, high);
    assert_ok(sag_tensor_write(t, x, (size_t)n * sizeof *x));
    free(x);
    return t;
}

sag_tensor *make_tensor(sag_shape shape, uint64_t seed)
{
    return make_tensor_between(shape, seed, -1, 1);
}

sag_tensor *make_tensor_from(sag_shape shape, const float *values)
{
    sag_tensor *t = NULL;
    assert_ok(sag_tensor_create(testing_context(), SAG_F32, shape, &t));
    assert_ok(sag_tensor_write(t, values, (size_t)sag_tensor_numel(t) * sizeof *values));
    return t;
}

sag_tensor *make_i32(int64_t n, const int32_t *values)
{
    sag_tensor *t = NULL;
    assert_ok(sag_tensor_create(testing_context(), SAG_I32, sag_shape1(n), &t));
    assert_ok(sag_tensor_write(t, values, (size_t)n * sizeof *values));
    return t;
}

const float *f32(const sag_tensor *t)
{
    return host_data(t);
}

const int32_t *i32(const sag_tensor *t)
{
    return host_data(t);
}

float *edit_f32(const sag_tensor *t)
{
    size_t bytes = (size_t)sag_tensor_numel(t) * sizeof(float);
    float *p = malloc(bytes);
    assert_ok(sag_tensor_read(t, p, bytes));
    return p;
}

void end_edit(sag_tensor *t, float *p)
{
    assert_ok(sag_tensor_write(t, p, (size_t)sag_tensor_numel(t) * sizeof *p));
    free(p);
}

void set_f32(sag_tensor *t, int64_t i, float x)
{
    sag_tensor *one = NULL;
    assert_ok(sag_tensor_view(t, i, sag_shape1(1), &one));
    assert_ok(sag_tensor_write(one, &x, sizeof x));
    sag_tensor_release(one);
}

double relative_error(const float *a, const double *b, int64_t n)
{
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - b[i];
        diff += d * d;
        norm += b[i] * b[i];
    }
    return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

double relative_error_f32(const float *a, const float *b, int64_t n)
{
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        diff += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

sag_tensor *apply(sag_op op, sag_tensor *const *in, const double *attr)
{
    sag_tensor *out[SAG_MAX_OUT] = {0};
    assert_ok(sag_op_apply(testing_context(), op, in, attr, out));
    for (int i = 1; i < SAG_MAX_OUT; i++) sag_tensor_release(out[i]);
    return out[0];
}

void check_bad_index(sag_op op, sag_tensor *const *in, const double *attr, const char *words)
{
    sag_tensor *out[SAG_MAX_OUT] = {0};
    if (testing_device() == SAG_CPU) {
        assert_fails(sag_op_apply(testing_context(), op, in, attr, out), SAG_ERR_ARG, words);
        return;
    }
    sag_tensor *y = apply(op, in, attr);
    for (int64_t i = 0; i < sag_tensor_numel(y); i++) assert_true(isfinite(f32(y)[i]));
    sag_tensor_release(y);
}

/* sum(y * r) in double; r depends on the index alone */
static double weighted_sum(const sag_tensor *y)
{
    int64_t n = sag_tensor_numel(y);
    float *p = malloc((size_t)n * sizeof *p);
    assert_ok(sag_tensor_read(y, p, (size_t)n * sizeof *p));
    uint64_t s = 12345;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)p[i] * ((double)(next_random(&s) >> 40) / 8388608.0 - 1.0);
    free(p);
    return sum;
}

static sag_tensor *weights_like(const sag_tensor *y)
{
    int64_t n = sag_tensor_numel(y);
    float *r = malloc((size_t)n * sizeof *r);
    uint64_t s = 12345;
    for (int64_t i = 0; i < n; i++) r[i] = (float)((double)(next_random(&s) >> 40) / 8388608.0 - 1.0);
    sag_tensor *t = make_tensor_from(sag_tensor_shape(y), r);
    free(r);
    return t;
}

/* Fresh leaves with the inputs' values where the bit is set; the caller's tensors stay constants. */
static void make_leaves(sag_op op, sag_tensor *const *in, unsigned inputs, sag_tensor **leaf)
{
    const sag_op_info *info = sag_op_describe(op);
    for (int i = 0; i < info->n_in; i++) {
        leaf[i] = NULL;
        if (!in[i]) continue;
        assert_ok(sag_tensor_create(testing_context(), sag_tensor_dtype(in[i]), sag_tensor_shape(in[i]), &leaf[i]));
        assert_ok(sag_tensor_copy(leaf[i], in[i]));
        if (!(inputs >> i & 1u)) continue;
        assert_ok(sag_tensor_require_grad(leaf[i]));
        size_t bytes = (size_t)sag_tensor_numel(leaf[i]) * sizeof(float);
        float *g = malloc(bytes); /* what a gradient leaves unwritten must show */
        for (int64_t k = 0; k < sag_tensor_numel(leaf[i]); k++) g[k] = NAN;
        assert_ok(sag_tensor_write(sag_tensor_grad(leaf[i]), g, bytes));
        free(g);
    }
}

static double evaluate(sag_op op, sag_tensor *const *in, const sag_tensor *changed, int which, const double *attr)
{
    const sag_op_info *info = sag_op_describe(op);
    sag_tensor *use[SAG_MAX_IN] = {0};
    for (int i = 0; i < info->n_in; i++) {
        if (!in[i]) continue;
        const sag_tensor *from = i == which ? changed : in[i]; /* copies: mutated inputs must not carry over */
        assert_ok(sag_tensor_create(testing_context(), sag_tensor_dtype(from), sag_tensor_shape(from), &use[i]));
        assert_ok(sag_tensor_copy(use[i], from));
    }
    sag_tensor *y = apply(op, use, attr);
    double sum = weighted_sum(y);
    sag_tensor_release(y);
    for (int i = 0; i < info->n_in; i++) sag_tensor_release(use[i]);
    return sum;
}

void check_gradients(sag_op op, sag_tensor *const *in, const double *attr, unsigned inputs, double h, double tolerance)
{
    const sag_op_info *info = sag_op_describe(op);
    double defaults[SAG_MAX_ATTR];
    for (int i = 0; i < info->n_attr; i++) defaults[i] = info->attr[i].fallback;
    if (!attr) attr = defaults;
    sag_tensor *leaf[SAG_MAX_IN] = {0};
    make_leaves(op, in, inputs, leaf);
    sag_tensor *y = apply(op, leaf, attr);
    sag_tensor *r = weights_like(y);
    assert_ok(sag_tape_backward_from(y, r));
    for (int i = 0; i < info->n_in; i++) {
        if (!(inputs >> i & 1u) || !in[i]) continue;
        const float *g = f32(sag_tensor_grad(leaf[i])), *x = f32(in[i]);
        int64_t n = sag_tensor_numel(in[i]);
        const int64_t most = testing_device() == SAG_CPU ? 200 : 12; /* test_conformance compares all of them with the CPU's */
        const int64_t step = (n + most - 1) / most;
        double diff = 0, norm = 0;
        sag_tensor *moved = NULL;
        assert_ok(sag_tensor_create(testing_context(), SAG_F32, sag_tensor_shape(in[i]), &moved));
        for (int64_t k = 0; k < n; k += step) {
            float up = (float)((double)x[k] + h), down = (float)((double)x[k] - h);
            assert_ok(sag_tensor_copy(moved, in[i]));
            set_f32(moved, k, up);
            double f_up = evaluate(op, in, moved, i, attr);
            set_f32(moved, k, down);
            double f_down = evaluate(op, in, moved, i, attr);
            double numeric = (f_up - f_down) / ((double)up - (double)down);
            diff += (numeric - (double)g[k]) * (numeric - (double)g[k]);
            norm += numeric * numeric;
        }
        double e = sqrt(diff) / fmax(sqrt(norm), 1e-12);
        if (!(e <= tolerance)) {
            fail_msg("%s: gradient of %s is off by %.3g (allowed %.3g)", info->name, info->in[i].name, e, tolerance);
        }
        sag_tensor_release(moved);
    }
    /* accumulation: two calls on one tape against twice the single gradient */
    float *single[SAG_MAX_IN] = {0};
    for (int i = 0; i < info->n_in; i++) {
        if (!(inputs >> i & 1u) || !in[i]) continue;
        size_t bytes = (size_t)sag_tensor_numel(leaf[i]) * sizeof(float);
        single[i] = malloc(bytes);
        memcpy(single[i], f32(sag_tensor_grad(leaf[i])), bytes);
        assert_ok(sag_tensor_zero_grad(leaf[i]));
    }
    for (int k = 0; k < 2; k++) {
        sag_tensor *again[SAG_MAX_IN] = {0};
        for (int i = 0; i < info->n_in; i++) {
            again[i] = leaf[i];
            if (leaf[i] && info->in[i].mutated) { /* start from the same state */
                assert_ok(sag_tensor_copy(leaf[i], in[i]));
            }
        }
        sag_tensor *y2 = apply(op, again, attr);
        assert_ok(sag_tape_backward_from(y2, r));
        sag_tensor_release(y2);
    }
    for (int i = 0; i < info->n_in; i++) {
        if (!single[i]) continue;
        int64_t n = sag_tensor_numel(leaf[i]);
        const float *g = f32(sag_tensor_grad(leaf[i]));
        for (int64_t k = 0; k < n; k++) single[i][k] *= 2;
        double e = relative_error_f32(g, single[i], n);
        if (!(e <= 1e-5)) fail_msg("%s: accumulated gradient of %s is off by %.3g", info->name, info->in[i].name, e);
        free(single[i]);
    }
    sag_tensor_release(y);
    sag_tensor_release(r);
    for (int i = 0; i < info->n_in; i++) sag_tensor_release(leaf[i]);
}

void check_threads(sag_op op, sag_tensor *const *in, const double *attr, unsigned inputs)
{
    if (testing_device() != SAG_CPU) return;
    const sag_op_info *info = sag_op_describe(op);
    float *first[SAG_MAX_IN + 1] = {0};
    int before = sag_context_threads(testing_context());
    for (int threads = 1; threads <= 3; threads++) {
        sag_context_set_threads(testing_context(), threads);
        sag_tensor *leaf[SAG_MAX_IN] = {0};
        make_leaves(op, in, inputs, leaf);
        sag_tensor *y = apply(op, leaf, attr);
        if (inputs) {
            sag_tensor *r = weights_like(y);
            assert_ok(sag_tape_backward_from(y, r));
            sag_tensor_release(r);
        }
        for (int i = 0; i <= info->n_in; i++) {
            const sag_tensor *t = i == info->n_in ? y : inputs >> i & 1u && leaf[i] ? sag_tensor_grad(leaf[i]) : NULL;
            if (!t) continue;
            size_t bytes = (size_t)sag_tensor_numel(t) * sag_dtype_size(sag_tensor_dtype(t));
            if (threads == 1) {
                first[i] = malloc(bytes);
                memcpy(first[i], sag_tensor_data(t), bytes);
            } else if (memcmp(first[i], sag_tensor_data(t), bytes) != 0) {
                fail_msg("%s: %s differs between 1 and %d threads", info->name, i == info->n_in ? "output" : info->in[i].name, threads);
            }
        }
        sag_tensor_release(y);
        for (int i = 0; i < info->n_in; i++) sag_tensor_release(leaf[i]);
    }
    for (int i = 0; i <= info->n_in; i++) free(first[i]);
    sag_context_set_threads(testing_context(), before);
}
