/*
 * test_attention_cuda.c - attention's three ways on a card: f32, tf32 and bf16, forward and backward, at the edges of the
 * kernels' tiles and strips, where only one tile of columns fits in shared memory and where none does, from operands that
 * start anywhere. Against the dense computation from the same operands; two runs give the same bits.
 */
#include "dense_attention.h"

typedef enum way { F32, TF32, BF16 } way;

static float bf16_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    u = (u + 0x7fffu + (u >> 16 & 1u)) & 0xffff0000u;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* {b,n,c} that starts `offset` elements into its storage; numbers that bf16 holds. */
static sag_tensor *operand(int64_t b, int64_t n, int64_t c, uint64_t seed, float range, int64_t offset)
{
    const int64_t count = b * n * c;
    float *x = malloc((size_t)(count + offset) * sizeof *x);
    random_fill(x, count + offset, seed, -range, range);
    for (int64_t i = 0; i < count + offset; i++) x[i] = bf16_of(x[i]);
    sag_tensor *flat = make_tensor_from(sag_shape1(count + offset), x), *t = NULL;
    assert_ok(sag_tensor_view(flat, offset, sag_shape3(b, n, c), &t));
    sag_tensor_release(flat);
    free(x);
    return t;
}

static sag_tensor *cast(sag_tensor *t, sag_dtype to)
{
    return apply(SAG_OP_cast, &t, (double[]){to});
}

/* A bf16 copy that starts where t does in its storage, or t itself. */
static sag_tensor *as_operand(sag_tensor *t, way w)
{
    if (w == BF16) return cast(t, SAG_BF16);
    sag_tensor_retain(t);
    return t;
}

typedef struct results {
    int64_t n[4];
    float *value[4]; /* o, dq, dk, dv */
} results;

static float *kept(const sag_tensor *t, int64_t *n)
{
    *n = sag_tensor_numel(t);
    float *x = malloc((size_t)*n * sizeof *x);
    assert_ok(sag_tensor_read(t, x, (size_t)*n * sizeof *x));
    return x;
}

/* calls: the gradient is asked for so often on one tape, and must be added up. */
static results run(sag_tensor *const *in, const sag_tensor *r, way w, double scale, int calls)
{
    results out = {0};
    sag_context_set_tf32(testing_context(), w == TF32);
    for (int i = 0; i < 3; i++) assert_ok(sag_tensor_zero_grad(in[i]));
    for (int k = 0; k < calls; k++) {
        sag_tensor *use[3];
        for (int i = 0; i < 3; i++) use[i] = as_operand(in[i], w);
        sag_tensor *o = apply(SAG_OP_attention, use, &scale), *wide = w == BF16 ? cast(o, SAG_F32) : NULL;
        sag_tensor *y = wide ? wide : o, *dy = NULL;
        if (k == 0) out.value[0] = kept(y, &out.n[0]);
        if (w == BF16 && !sag_op_describe(SAG_OP_cast)->differentiable) fail_msg("a cast must pass gradients on");
        assert_ok(sag_tensor_create(testing_context(), SAG_F32, sag_tensor_shape(r), &dy));
        assert_ok(sag_tensor_copy(dy, r));
        assert_ok(sag_tape_backward_from(y, dy));
        sag_tensor *gone[] = {use[0], use[1], use[2], o, wide, dy};
        for (int i = 0; i < 6; i++) sag_tensor_release(gone[i]);
    }
    for (int i = 0; i < 3; i++) out.value[i + 1] = kept(sag_tensor_grad(in[i]), &out.n[i + 1]);
    sag_context_set_tf32(testing_context(), false);
    return out;
}

static void drop(results *r)
{
    for (int i = 0; i < 4; i++) free(r->value[i]);
}

/* What the error may be: f32: roundings of sums; tf32: factors have 10 bits; bf16: twice the rounding of the result. */
static double allowed(way w, int which, const double *want, int64_t n)
{
    if (w != BF16) return (w == F32 ? 2e-6 : 1e-3) * (which == 1 || which == 2 ? 5 : 1);
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        const double d = (double)bf16_of((float)want[i]) - want[i];
        diff += d * d;
        norm += want[i] * want[i];
    }
    return 2 * fmax(sqrt(diff / norm), 1.2e-3);
}

static const char *const ways[] = {"f32", "tf32", "bf16"}, *const names[] = {"o", "dq", "dk", "dv"};

static void check(way w, int64_t b, int64_t nq, int64_t nk, int64_t d, int64_t e, int64_t offset)
{
    if (w != F32 && testing_device() == SAG_CPU) return; /* the CPU has f32 */
    const double scale = 1 / sqrt((double)d);
    sag_tensor *in[3] = {operand(b, nq, d, 1, 2, offset), operand(b, nk, d, 2, 2, offset), operand(b, nk, e, 3, 1, offset)};
    sag_tensor *r = operand(b, nq, e, 4, 1, 0);
    for (int i = 0; i < 3; i++) assert_ok(sag_tensor_require_grad(in[i]));
    dense t = dense_attention(in, scale, f32(r));
    const double *want[4] = {t.o, t.dq, t.dk, t.dv};
    results once = run(in, r, w, scale, 1), again = run(in, r, w, scale, 1), twice = run(in, r, w, scale, 2);
    for (int i = 0; i < 4; i++) {
        const int64_t n = once.n[i];
        assert_memory_equal(once.value[i], again.value[i], (size_t)n * sizeof(float));
        if (nk == 1 && (i == 1 || i == 2)) continue; /* 0 up to rounding */
        const double error = relative_error(once.value[i], want[i], n), most = allowed(w, i, want[i], n);
        if (!(error <= most))
            fail_msg("%s of {%d,%d,%d,%d,%d} from element %d, %s: error %.3g > %.3g", names[i], (int)b, (int)nq, (int)nk, (int)d, (int)e,
                     (int)offset, ways[w], error, most);
        if (w == TF32 && nk > 8 && error < 1e-5) fail_msg("%s: tf32 rounds nothing? error %.3g", names[i], error);
        for (int64_t k = 0; k < n && i > 0; k++) once.value[i][k] *= 2;
        if (i > 0 && !(relative_error_f32(twice.value[i], once.value[i], n) <= 1e-6)) fail_msg("%s is not added up", names[i]);
    }
    drop(&once);
    drop(&again);
    drop(&twice);
    dense_free(&t);
    for (int i = 0; i < 3; i++) sag_tensor_release(in[i]);
    sag_tensor_release(r);
}

/* Rows: 64 and 128 a block; columns: 32 and 64 a tile; strips of 16, 32, 64, 128 and 256. */
static void edges(way w)
{
    const int64_t sizes[][5] = {
        {2, 1, 1, 1, 1},     {1, 64, 32, 16, 32},  {1, 65, 33, 17, 33},  {1, 63, 31, 15, 31},   {2, 129, 65, 8, 64},
        {1, 127, 63, 7, 65}, {1, 66, 130, 33, 63}, {1, 40, 70, 65, 129}, {1, 33, 66, 4, 128},   {1, 20, 40, 32, 255},
        {1, 17, 34, 9, 257}, {3, 16, 5, 24, 24},   {1, 36, 9, 40, 96},   {1, 130, 128, 64, 16}, {1, 8, 96, 100, 40},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check(w, sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3], sizes[i][4], 0);
        if (i % 3 == 1) check(w, sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3], sizes[i][4], 1);
    }
}

static void f32_edges(void **state)
{
    (void)state;
    edges(F32);
}
static void tf32_edges(void **state)
{
    (void)state;
    edges(TF32);
}
static void bf16_edges(void **state)
{
    (void)state;
    edges(BF16);
}

/* Deep and wide: one tile of columns at a time, then no room for the tensor cores' tiles at all. */
static void beyond_shared_memory(void **state)
{
    (void)state;
    for (way w = TF32; w <= BF16; w++) {
        check(w, 1, 12, 70, 16, 520, 0);  /* dk, dq: one stage in tf32 */
        check(w, 1, 10, 66, 16, 700, 0);  /* bf16: one stage */
    }
    check(BF16, 1, 9, 66, 16, 1100, 0); /* dk, dq by multiply-adds */
    check(BF16, 1, 9, 66, 700, 40, 0);  /* all of them */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_edges),
        cmocka_unit_test(tf32_edges),
        cmocka_unit_test(bf16_edges),
        cmocka_unit_test(beyond_shared_memory),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
