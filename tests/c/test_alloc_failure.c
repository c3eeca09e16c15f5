/*
 * Every allocation of a forward and backward pass is made to fail in turn: the call that needed it must return
 * SAG_ERR_MEMORY, nothing may leak, and the same pass run again in the same context must give the same bits. Likewise
 * where backward computes the activations again, with the same bits as where they are kept.
 */
#include "testing.h"

enum { MAX_TENSORS = 96, SLAB = 2048, LAYERS = 4 };

/* One pass: tensors made on the way, all owned here, so that a failure anywhere can be cleaned up in one place. */
typedef struct pass {
    sag_context *ctx;
    sag_tensor *made[MAX_TENSORS];
    int n;
    sag_status status;
} pass;

static sag_tensor *keep(pass *p, sag_tensor *t)
{
    assert_true(p->n < MAX_TENSORS);
    if (t) p->made[p->n++] = t;
    return t;
}

/* After the first failure all that follows does nothing and gives NULL. */
static sag_tensor *run(pass *p, sag_op op, sag_tensor *const *in, const double *attr)
{
    if (p->status != SAG_OK) return NULL;
    double values[SAG_MAX_ATTR] = {0};
    const sag_op_info *info = sag_op_describe(op);
    for (int i = 0; i < info->n_attr; i++) values[i] = attr ? attr[i] : info->attr[i].fallback;
    sag_tensor *out[SAG_MAX_OUT] = {0};
    p->status = sag_op_apply(p->ctx, op, in, values, out);
    return keep(p, out[0]);
}

static sag_tensor *input(pass *p, sag_dtype dtype, sag_shape shape, const void *values)
{
    sag_tensor *t = NULL;
    if (p->status == SAG_OK) p->status = sag_tensor_create(p->ctx, dtype, shape, &t);
    if (p->status == SAG_OK) p->status = sag_tensor_write(t, values, (size_t)sag_tensor_numel(t) * 4);
    return keep(p, t);
}

static sag_tensor *noise(pass *p, sag_shape shape, uint64_t seed)
{
    static float values[SLAB];
    int64_t n = 0;
    assert_ok(sag_shape_numel(shape, &n));
    random_fill(values, n, seed, -1, 1);
    return input(p, SAG_F32, shape, values);
}

static sag_tensor *part(pass *p, sag_tensor *t, int64_t offset, sag_shape shape)
{
    sag_tensor *v = NULL;
    if (p->status == SAG_OK) p->status = sag_tensor_view(t, offset, shape, &v);
    return keep(p, v);
}

#define IN(...) (sag_tensor *[]) { __VA_ARGS__ }

/*
 * A small GAN pass over every kind of op that training uses: spectral norm over a slab, cBN, resampling convolutions,
 * attention, projection, hinge. Weights at fixed places of the slab: conv 0, upconv 256, convpool 1024, linear 1700.
 */
static sag_tensor *network(pass *p, sag_tensor *slab)
{
    const int32_t layers[LAYERS][5] = {{0, 8, 27, 0, 0}, {256, 8, 72, 8, 32}, {1024, 8, 72, 16, 112}, {1700, 1, 8, 24, 192}};
    const int32_t label[] = {1, 0, 1, 2};
    const sag_shape one = sag_shape1(1);
    sag_tensor *u = noise(p, sag_shape1(32), 1), *v = noise(p, sag_shape1(200), 2), *sigma = noise(p, sag_shape1(LAYERS), 3);
    sag_tensor *table = input(p, SAG_I32, sag_shape2(LAYERS, 5), layers), *labels = input(p, SAG_I32, sag_shape1(2), label);
    sag_tensor *both = input(p, SAG_I32, sag_shape1(4), label);
    sag_tensor *mean = noise(p, sag_shape1(8), 4), *var = noise(p, sag_shape1(8), 5);
    sag_tensor *sigma_of = run(p, SAG_OP_spectral_norm, IN(slab, u, v, sigma, table), NULL);
    sag_tensor *gain = part(p, slab, 1800, sag_shape2(3, 8)), *bias = part(p, slab, 1824, sag_shape2(3, 8));
    sag_tensor *gamma = part(p, slab, 1848, sag_shape1(1)), *classes = part(p, slab, 1856, sag_shape2(3, 8));

    sag_tensor *x = noise(p, sag_shape4(2, 4, 4, 3), 6);
    sag_tensor *h = run(p, SAG_OP_conv2d, IN(x, part(p, slab, 0, sag_shape4(8, 3, 3, 3)), NULL, NULL, part(p, sigma_of, 0, one)), (double[4]){1, 1, 1});
    h = run(p, SAG_OP_cond_batch_norm, IN(h, gain, bias, labels, mean, var), (double[]){1, 0.1, 1e-5, 1, 0});
    sag_tensor *flat = part(p, h, 0, sag_shape3(2, 16, 8));
    sag_tensor *o = run(p, SAG_OP_attention, IN(flat, flat, flat), NULL);
    h = run(p, SAG_OP_gated_add, IN(flat, o, gamma), NULL);
    h = part(p, h, 0, sag_shape4(2, 4, 4, 8));
    sag_tensor *up = run(p, SAG_OP_upconv, IN(h, part(p, slab, 256, sag_shape4(8, 3, 3, 8)), NULL, part(p, sigma_of, 1, one)), NULL);
    up = run(p, SAG_OP_add, IN(up, run(p, SAG_OP_upsample, IN(h), NULL)), NULL);
    sag_tensor *real = noise(p, sag_shape4(2, 8, 8, 8), 7);
    h = run(p, SAG_OP_relu, IN(run(p, SAG_OP_concat, IN(real, up), NULL)), NULL);
    h = run(p, SAG_OP_convpool, IN(h, part(p, slab, 1024, sag_shape4(8, 3, 3, 8)), NULL, part(p, sigma_of, 2, one)), NULL);
    h = run(p, SAG_OP_tanh, IN(h), NULL);
    h = run(p, SAG_OP_global_sum_pool, IN(run(p, SAG_OP_max_pool, IN(h), (double[]){2, 2, 0})), NULL);
    sag_tensor *row = run(p, SAG_OP_embedding, IN(classes, both), NULL);
    sag_tensor *projection = run(p, SAG_OP_sum, IN(run(p, SAG_OP_mul, IN(h, row), NULL)), (double[]){1});
    sag_tensor *last = run(p, SAG_OP_div, IN(part(p, slab, 1700, sag_shape2(1, 8)), part(p, sigma_of, 3, one)), NULL);
    sag_tensor *logits = run(p, SAG_OP_linear, IN(h, last, NULL), NULL);
    if (projection) projection = part(p, projection, 0, sag_shape2(4, 1));
    logits = run(p, SAG_OP_add, IN(logits, projection), NULL);
    return run(p, SAG_OP_hinge_d, IN(part(p, logits, 0, sag_shape2(2, 1)), part(p, logits, 2, sag_shape2(2, 1))), NULL);
}

/* Forward and backward; the gradient goes to `grad` if all went well. Releases everything but the slab. */
static sag_status forward_backward(sag_context *ctx, sag_tensor *slab, float *grad, bool recompute)
{
    pass p = {.ctx = ctx, .status = sag_tensor_zero_grad(slab)};
    sag_context_set_path(ctx, "G.block1");
    if (recompute) sag_recompute_begin(ctx);
    sag_tensor *loss = network(&p, slab);
    if (recompute) sag_recompute_end(ctx);
    if (p.status == SAG_OK) p.status = sag_tape_backward(loss, 1);
    if (p.status == SAG_OK) p.status = sag_tensor_read(sag_tensor_grad(slab), grad, SLAB * sizeof *grad);
    sag_tape_clear(ctx);
    for (int i = 0; i < p.n; i++) sag_tensor_release(p.made[i]);
    return p.status;
}

/* A context with nothing in its cache and its arena, so that each allocation of the pass is a fresh one. */
static sag_tensor *fresh_slab(sag_context **ctx)
{
    static float values[SLAB];
    sag_tensor *slab = NULL;
    assert_ok(sag_context_create(SAG_CPU, ctx));
    random_fill(values, SLAB, 11, -1, 1);
    assert_ok(sag_tensor_create(*ctx, SAG_F32, sag_shape1(SLAB), &slab));
    assert_ok(sag_tensor_write(slab, values, sizeof values));
    assert_ok(sag_tensor_require_grad(slab));
    assert_non_null(sag_tensor_grad(slab)); /* made by the first who asks, and stays */
    return slab;
}

static void each_allocation_in_turn(void **state)
{
    const bool recompute = *state != NULL;
    static float want[SLAB], got[SLAB];
    sag_context *ctx = NULL;
    const int64_t blocks = sag_debug_live_host_blocks();
    sag_tensor *slab = fresh_slab(&ctx);
    assert_ok(forward_backward(ctx, slab, want, false));
    double norm = 0;
    for (int i = 0; i < SLAB; i++) norm += (double)want[i] * (double)want[i];
    assert_true(norm > 0);
    sag_tensor_release(slab);
    sag_context_destroy(ctx);
    assert_int_equal(sag_debug_live_host_blocks(), blocks);

    /* a few failures are survived (interning a path, merging the arena), so one success is not yet the end */
    int64_t n = 0, failures = 0;
    for (int successes = 0; successes < 20 && n < 10000;) {
        slab = fresh_slab(&ctx);
        sag_memory_stats before, after;
        sag_context_memory(ctx, &before);
        sag_debug_fail_allocation(++n);
        sag_status s = forward_backward(ctx, slab, got, recompute);
        sag_debug_fail_allocation(0);
        if (s == SAG_OK) {
            successes++;
            assert_memory_equal(got, want, sizeof got);
        } else {
            failures++;
            successes = 0;
            if (s != SAG_ERR_MEMORY) fail_msg("allocation %lld: %s: %s", (long long)n, sag_status_name(s), sag_error_message());
            assert_non_null(strstr(sag_error_message(), "memory"));
        }
        assert_int_equal(sag_tape_length(ctx), 0);
        sag_context_memory(ctx, &after);
        if (after.live_tensors != before.live_tensors || after.live_storages != before.live_storages) {
            fail_msg("allocation %lld: %lld tensors and %lld storages left alive", (long long)n,
                     (long long)(after.live_tensors - before.live_tensors), (long long)(after.live_storages - before.live_storages));
        }
        sag_status again = forward_backward(ctx, slab, got, recompute);
        if (again != SAG_OK) fail_msg("after allocation %lld had failed: %s", (long long)n, sag_error_message());
        if (memcmp(got, want, sizeof got) != 0) fail_msg("after allocation %lld had failed, the gradient differs", (long long)n);
        sag_tensor_release(slab);
        sag_context_destroy(ctx);
        if (sag_debug_live_host_blocks() != blocks) {
            fail_msg("allocation %lld: %lld host blocks left", (long long)n, (long long)(sag_debug_live_host_blocks() - blocks));
        }
    }
    assert_true(failures > 200 && failures < 10000); /* the pass has that many at the least; fewer would mean that failures get lost */
}

/* The same in a warm context, where storages come from the cache and only headers and nodes are allocated. */
static void each_allocation_of_a_warm_pass(void **state)
{
    const bool recompute = *state != NULL;
    static float want[SLAB], got[SLAB];
    sag_context *ctx = NULL;
    const int64_t blocks = sag_debug_live_host_blocks();
    sag_tensor *slab = fresh_slab(&ctx);
    assert_ok(forward_backward(ctx, slab, want, recompute));
    sag_memory_stats before, after;
    sag_context_memory(ctx, &before);
    sag_status s = SAG_ERR_MEMORY;
    for (int64_t n = 1; s != SAG_OK && n < 10000; n++) {
        sag_debug_fail_allocation(n);
        s = forward_backward(ctx, slab, got, recompute);
        sag_debug_fail_allocation(0);
        if (s != SAG_OK) assert_int_equal(s, SAG_ERR_MEMORY);
        sag_context_memory(ctx, &after);
        assert_int_equal(after.live_tensors, before.live_tensors);
        assert_int_equal(after.live_storages, before.live_storages);
        assert_int_equal(after.device_allocs, before.device_allocs); /* a step of fixed shape allocates no device memory */
    }
    assert_ok(s);
    assert_memory_equal(got, want, sizeof got);
    sag_tensor_release(slab);
    sag_context_destroy(ctx);
    assert_int_equal(sag_debug_live_host_blocks(), blocks);
}

int main(void)
{
    int recomputed; /* a state that is not NULL */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_allocation_in_turn),
        cmocka_unit_test(each_allocation_of_a_warm_pass),
        cmocka_unit_test_prestate(each_allocation_in_turn, &recomputed),
        cmocka_unit_test_prestate(each_allocation_of_a_warm_pass, &recomputed),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
