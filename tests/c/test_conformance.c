/*
 * test_conformance.c - every op on the device "cuda" against the CPU backend: forward, in-place effects and gradients, over
 * shapes that fill no tile; f32, bf16 where an op takes it; gradients written and added to; operands that start anywhere.
 *
 * f32: the relative L2 error is at most 1e-5 (or what the case says). bf16: the error against the f32 result from the same
 * bf16 operands is at most twice that of rounding this result to bf16 (DESIGN 3).
 */
#include "both_devices.h"

static bool covered[SAG_OP_COUNT];

/* How an operand is filled. */
typedef enum fill {
    BOTH_SIGNS,  /* uniform in [-1, 1) */
    POSITIVE,    /* uniform in [0.2, 2) */
    INDEX,       /* i32 in [0, spec.below) */
    CLOCK,       /* i32 {low, high} */
    PIXELS,      /* u8 */
    ZERO,
    NUMBERS      /* spec.numbers */
} fill;

typedef struct spec {
    sag_op op;
    sag_shape in[SAG_MAX_IN]; /* rank 0: absent */
    fill fill[SAG_MAX_IN];
    double attr[SAG_MAX_ATTR];
    unsigned half;            /* operands that are bf16 in the second round; 0: f32 only */
    unsigned constant;        /* operands that want no gradient */
    bool rounded_output;      /* backward reads the output as bf16 holds it: no gradient in that round */
    int32_t below;
    const float *numbers;     /* of every operand filled with NUMBERS, one after another */
    const int32_t *table;     /* what an INDEX operand holds instead */
    double tolerance;         /* 0: 1e-5 */
} spec;

/* ---------------------------------------------------------------------------------------------- one run of an op */

typedef struct result {
    int n;
    char name[32][32];
    sag_dtype dtype[32]; /* where it was computed */
    float *value[32];
    int64_t size[32];
} result;

static float to_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    u = (u + 0x7fffu + (u >> 16 & 1u)) & 0xffff0000u;
    memcpy(&x, &u, sizeof x);
    return x;
}

static void write_floats(sag_tensor *t, const float *x)
{
    int64_t n = sag_tensor_numel(t);
    size_t each = sag_dtype_size(sag_tensor_dtype(t));
    char *bytes = malloc((size_t)n * each);
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        const uint16_t h = (uint16_t)(u >> 16);
        const int32_t whole = sag_tensor_dtype(t) == SAG_I32 || sag_tensor_dtype(t) == SAG_U8 ? (int32_t)x[i] : 0;
        const uint8_t byte = (uint8_t)whole;
        const void *from = sag_tensor_dtype(t) == SAG_F32 ? (const void *)&x[i] : sag_tensor_dtype(t) == SAG_BF16 ? (const void *)&h :
                           sag_tensor_dtype(t) == SAG_I32 ? (const void *)&whole : (const void *)&byte;
        memcpy(bytes + (size_t)i * each, from, each);
    }
    assert_ok(sag_tensor_write(t, bytes, (size_t)n * each));
    free(bytes);
}

static float *read_floats(const sag_tensor *t)
{
    int64_t n = sag_tensor_numel(t);
    size_t each = sag_dtype_size(sag_tensor_dtype(t));
    char *bytes = malloc((size_t)n * each);
    assert_ok(sag_tensor_read(t, bytes, (size_t)n * each));
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        const char *at = bytes + (size_t)i * each;
        uint16_t h;
        uint32_t u;
        int32_t whole;
        switch (sag_tensor_dtype(t)) {
        case SAG_F32: memcpy(&x[i], at, 4); break;
        case SAG_BF16:
            memcpy(&h, at, 2);
            u = (uint32_t)h << 16;
            memcpy(&x[i], &u, 4);
            break;
        case SAG_I32:
            memcpy(&whole, at, 4);
            x[i] = (float)whole;
            break;
        default: x[i] = (float)(unsigned char)*at;
        }
    }
    free(bytes);
    return x;
}

static void keep(result *r, const char *kind, const char *name, const sag_tensor *t)
{
    snprintf(r->name[r->n], sizeof r->name[0], "%s %s", kind, name);
    r->dtype[r->n] = sag_tensor_dtype(t);
    r->value[r->n] = read_floats(t);
    r->size[r->n] = sag_tensor_numel(t);
    r->n++;
}

static void free_result(result *r)
{
    for (int i = 0; i < r->n; i++) free(r->value[i]);
    r->n = 0;
}

/* The operand's numbers, the same for both devices. */
static float *numbers_of(const spec *s, int i, bool half, const float **more)
{
    int64_t n = 0;
    assert_ok(sag_shape_numel(s->in[i], &n));
    float *x = malloc((size_t)n * sizeof *x);
    random_fill(x, n, (uint64_t)(17 * i + 3), s->fill[i] == POSITIVE ? 0.2f : -1, s->fill[i] == POSITIVE ? 2 : 1);
    for (int64_t k = 0; k < n; k++) {
        switch (s->fill[i]) {
        case INDEX: x[k] = s->table ? (float)s->table[k] : floorf((x[k] + 1) / 2 * (float)s->below); break;
        case CLOCK: x[k] = k == 0 ? 5 : 0; break;
        case PIXELS: x[k] = floorf((x[k] + 1) * 128); break;
        case ZERO: x[k] = 0; break;
        case NUMBERS: x[k] = *(*more)++; break;
        default: break;
        }
        if (half && (s->half >> i & 1u)) x[k] = to_bf16(x[k]);
    }
    return x;
}

static sag_dtype dtype_of(const spec *s, int i)
{
    return s->fill[i] == INDEX || s->fill[i] == CLOCK ? SAG_I32 : s->fill[i] == PIXELS ? SAG_U8 : SAG_F32;
}

/* A tensor that starts `offset` elements into its storage, and numbers in it. */
static sag_tensor *operand(sag_context *ctx, sag_dtype dtype, sag_shape shape, int64_t offset, const float *x, bool leaf)
{
    int64_t n = 0;
    assert_ok(sag_shape_numel(shape, &n));
    sag_tensor *all = NULL, *t = NULL;
    assert_ok(sag_tensor_zeros(ctx, dtype, sag_shape1(n + offset), &all));
    if (leaf) assert_ok(sag_tensor_require_grad(all));
    assert_ok(sag_tensor_view(all, offset, shape, &t));
    write_floats(t, x);
    sag_tensor_release(all);
    return t;
}

static bool differentiable(const spec *s, int i)
{
    const sag_op_info *info = sag_op_describe(s->op);
    return info->differentiable && s->in[i].rank && dtype_of(s, i) == SAG_F32 && !info->in[i].mutated && !(s->constant >> i & 1u);
}

/* bf16 gradients arrive through a cast, where that has one. */
static sag_tensor *as_bf16(sag_context *ctx, sag_tensor *t)
{
    const double to = SAG_BF16;
    sag_tensor *h[SAG_MAX_OUT] = {0};
    assert_ok(sag_op_apply(ctx, SAG_OP_cast, &t, &to, h));
    return h[0];
}

static sag_tensor *gradient_for(sag_context *ctx, const sag_tensor *y, bool half)
{
    int64_t n = sag_tensor_numel(y);
    float *x = malloc((size_t)n * sizeof *x);
    random_fill(x, n, 99, -1, 1);
    for (int64_t k = 0; k < n && half; k++) x[k] = to_bf16(x[k]);
    sag_tensor *dy = operand(ctx, sag_tensor_dtype(y), sag_tensor_shape(y), 0, x, false);
    free(x);
    return dy;
}

/* Forward, and backward of `calls` calls whose outputs are added: from the second on, gradients are added to. */
static void run(sag_context *ctx, const spec *s, bool half, int64_t offset, int calls, result *r)
{
    const sag_op_info *info = sag_op_describe(s->op);
    sag_tensor *leaf[SAG_MAX_IN] = {0}, *in[SAG_MAX_IN] = {0}, *y = NULL;
    const bool on_card = ctx == card, through = sag_op_describe(SAG_OP_cast)->differentiable;
    const float *more = s->numbers;
    bool gradients = info->differentiable && (!half || (through && !s->rounded_output));
    bool any = false;
    for (int i = 0; i < info->n_in; i++) {
        if (!s->in[i].rank) continue;
        float *x = numbers_of(s, i, half, &more);
        leaf[i] = operand(ctx, dtype_of(s, i), s->in[i], offset, x, gradients && differentiable(s, i));
        any = any || differentiable(s, i);
        free(x);
    }
    gradients = gradients && any;
    for (int i = 0; i < info->n_in; i++) {
        if (!leaf[i]) continue;
        if (half && on_card && (s->half >> i & 1u)) {
            in[i] = as_bf16(ctx, leaf[i]);
        } else {
            in[i] = leaf[i];
            sag_tensor_retain(in[i]);
        }
    }
    for (int call = 0; call < calls; call++) {
        sag_tensor *out[SAG_MAX_OUT] = {0};
        assert_ok(sag_op_apply(ctx, s->op, in, s->attr, out));
        if (call == 0) {
            for (int i = 0; i < info->n_out; i++) keep(r, "output", info->out[i].name, out[i]);
        }
        for (int i = 1; i < info->n_out; i++) sag_tensor_release(out[i]);
        if (!gradients || !y) {
            sag_tensor_release(y);
            y = out[0];
        } else {
            sag_tensor *sum[SAG_MAX_OUT] = {0};
            assert_ok(sag_op_apply(ctx, SAG_OP_add, (sag_tensor *[]){y, out[0]}, NULL, sum));
            sag_tensor_release(y);
            sag_tensor_release(out[0]);
            y = sum[0];
        }
    }
    if (gradients) {
        sag_tensor *dy = gradient_for(ctx, y, half);
        assert_ok(sag_tape_backward_from(y, dy));
        sag_tensor_release(dy);
    }
    sag_tensor_release(y);
    for (int i = 0; i < info->n_in; i++) {
        if (!leaf[i]) continue;
        if (info->in[i].mutated) keep(r, "written", info->in[i].name, in[i]);
        if (gradients && differentiable(s, i)) keep(r, "gradient of", info->in[i].name, sag_tensor_grad(leaf[i]));
    }
    for (int i = 0; i < info->n_in; i++) {
        sag_tensor_release(in[i]);
        sag_tensor_release(leaf[i]);
    }
    sag_tape_clear(ctx);
}

/* ------------------------------------------------------------------------------------------------ comparing */

static const char *shapes_of(const spec *s, char *text, size_t size)
{
    char one[96];
    size_t at = 0;
    text[0] = 0;
    for (int i = 0; i < SAG_MAX_IN && at + 1 < size; i++) {
        if (!s->in[i].rank) continue;
        int n = snprintf(text + at, size - at, "%s ", sag_shape_text(s->in[i], one, sizeof one));
        at += n > 0 ? (size_t)n : 0;
    }
    return text;
}

static void compare(const spec *s, bool half, int64_t offset, int calls)
{
    result want = {0}, got = {0};
    char shapes[400];
    run(cpu, s, half, offset, calls, &want);
    run(card, s, half, offset, calls, &got);
    assert_int_equal(want.n, got.n);
    for (int k = 0; k < want.n; k++) {
        const int64_t n = want.size[k];
        assert_int_equal(got.size[k], n);
        double error = 0, bound = 0;
        if (got.dtype[k] == SAG_I32 || got.dtype[k] == SAG_U8) {
            for (int64_t i = 0; i < n; i++) error += got.value[k][i] != want.value[k][i];
        } else if (half) {
            float *rounded = malloc((size_t)n * sizeof *rounded);
            for (int64_t i = 0; i < n; i++) rounded[i] = to_bf16(want.value[k][i]);
            error = relative_error_f32(got.value[k], want.value[k], n);
            /* of few numbers, or ones that bf16 holds exactly, the rounding says little: that of a typical number */
            bound = 2 * fmax(relative_error_f32(rounded, want.value[k], n), n < 64 ? 0x1p-9 : 0x1p-10);
            free(rounded);
        } else {
            error = relative_error_f32(got.value[k], want.value[k], n);
            bound = s->tolerance > 0 ? s->tolerance : 1e-5;
        }
        if (!(error <= bound)) {
            fail_msg("%s(%s) %s, offset %d, %d calls: %s is off by %.3g (allowed %.3g)", sag_op_describe(s->op)->name,
                     shapes_of(s, shapes, sizeof shapes), half ? "bf16" : "f32", (int)offset, calls, want.name[k], error, bound);
        }
    }
    free_result(&want);
    free_result(&got);
}

static void check(spec s)
{
    covered[s.op] = true;
    const sag_op_info *info = sag_op_describe(s.op);
    for (int half = 0; half <= (s.half != 0); half++) {
        compare(&s, half, 0, 1);
        compare(&s, half, 3, 1); /* no 16-byte access is aligned */
        if (info->differentiable) compare(&s, half, 0, 2);
    }
}

#define S1 sag_shape1
#define S2 sag_shape2
#define S3 sag_shape3
#define S4 sag_shape4
#define COUNT(list) ((int)(sizeof(list) / sizeof(list)[0]))

/* -------------------------------------------------------------------------------------------------- families */

static void convolutions(void **state)
{
    (void)state;
    static const struct {
        int64_t n, h, w, c, k, r, stride, pad;
    } t[] = {{1, 1, 1, 1, 1, 1, 1, 0}, {2, 5, 7, 3, 5, 3, 1, 1}, {1, 8, 9, 17, 33, 3, 1, 1}, {1, 16, 16, 8, 16, 3, 1, 1},
             {2, 9, 6, 16, 7, 4, 2, 1}, {3, 4, 4, 64, 65, 1, 1, 0}, {1, 7, 7, 32, 64, 3, 2, 0}, {1, 6, 11, 5, 4, 5, 1, 2}};
    for (int i = 0; i < COUNT(t); i++) {
        for (int bias = 0; bias < 2; bias++) {
            spec s = {.op = SAG_OP_conv2d, .half = 1, .attr = {(double)t[i].stride, (double)t[i].pad, (double)t[i].pad}};
            s.in[0] = S4(t[i].n, t[i].h, t[i].w, t[i].c);
            s.in[1] = S4(t[i].k, t[i].r, t[i].r, t[i].c);
            if (bias) s.in[2] = S1(t[i].k);
            check(s);
            spec divided = s; /* by w / sigma */
            divided.in[4] = S1(1);
            divided.fill[4] = POSITIVE;
            if (bias) check(divided);
            /* with relu in front and a residual behind, y's size or half of it */
            const int64_t p = (t[i].h + 2 * t[i].pad - t[i].r) / t[i].stride + 1, q = (t[i].w + 2 * t[i].pad - t[i].r) / t[i].stride + 1;
            s.attr[3] = 1;
            check(s);
            s.half |= 1u << 3;
            s.in[3] = S4(t[i].n, p, q, t[i].k);
            check(s);
            s.attr[3] = 0;
            if (p % 2 || q % 2) continue;
            s.in[3] = S4(t[i].n, p / 2, q / 2, t[i].k);
            check(s);
        }
    }
    static const int64_t u[][5] = {{1, 1, 1, 1, 1}, {2, 3, 5, 3, 4}, {1, 4, 4, 17, 31}, {1, 8, 4, 32, 16}};
    for (int i = 0; i < COUNT(u); i++) {
        spec s = {.op = SAG_OP_upconv, .half = 1};
        s.in[0] = S4(u[i][0], u[i][1], u[i][2], u[i][3]);
        s.in[1] = S4(u[i][4], 3, 3, u[i][3]);
        s.in[2] = S1(u[i][4]);
        check(s);
        spec divided = s;
        divided.in[3] = S1(1);
        divided.fill[3] = POSITIVE;
        check(divided);
        s.op = divided.op = SAG_OP_convpool;
        s.in[0] = divided.in[0] = S4(u[i][0], 2 * u[i][1], 2 * u[i][2], u[i][3]);
        check(s);
        check(divided);
        s.attr[0] = 1;
        check(s);
    }
}

/* The gradient of w / sigma over every size of w that its pieces of 4096 care for; of both, of either. */
static void quotients(void **state)
{
    (void)state;
    static const int64_t t[][2] = {{1, 1}, {3, 1}, {63, 65}, {64, 64}, {17, 241}, {125, 131}};
    for (int i = 0; i < COUNT(t); i++) {
        for (unsigned constant = 0; constant < 3; constant++) {
            spec s = {.op = SAG_OP_conv2d, .constant = constant == 0 ? 0 : constant == 1 ? 1u << 1 : 1u << 4, .attr = {1, 0, 0}};
            s.in[0] = S4(2, 2, 1, t[i][1]);
            s.in[1] = S4(t[i][0], 1, 1, t[i][1]);
            s.in[4] = S1(1);
            s.fill[4] = POSITIVE;
            check(s);
        }
    }
}

static void products(void **state)
{
    (void)state;
    static const int64_t t[][3] = {{1, 1, 1}, {3, 5, 7}, {16, 16, 16}, {17, 33, 31}, {64, 65, 63}, {1, 100, 40}, {129, 2, 15}};
    for (int i = 0; i < COUNT(t); i++) {
        const int64_t m = t[i][0], n = t[i][1], k = t[i][2];
        for (int trans = 0; trans < 4; trans++) {
            spec s = {.op = SAG_OP_matmul, .half = 3, .attr = {trans & 1, trans >> 1}};
            s.in[0] = trans & 1 ? S2(k, m) : S2(m, k);
            s.in[1] = trans & 2 ? S2(n, k) : S2(k, n);
            check(s);
            s.in[0] = trans & 1 ? S3(3, k, m) : S3(3, m, k);
            s.in[1] = trans & 2 ? S3(3, n, k) : S3(3, k, n);
            if (i < 4) check(s);
        }
        for (int bias = 0; bias < 2; bias++) {
            spec s = {.op = SAG_OP_linear, .half = 1};
            s.in[0] = S2(m, k);
            s.in[1] = S2(n, k);
            if (bias) s.in[2] = S1(n);
            check(s);
        }
    }
}

static const int64_t lengths[] = {1, 2, 31, 257, 1024, 4099};

static void pointwise(void **state)
{
    (void)state;
    static const struct {
        sag_op op;
        fill fill;
        double attr[2];
    } one[] = {{SAG_OP_relu, BOTH_SIGNS, {0}}, {SAG_OP_leaky_relu, BOTH_SIGNS, {0.2, 0}}, {SAG_OP_tanh, BOTH_SIGNS, {0}},
               {SAG_OP_sigmoid, BOTH_SIGNS, {0}}, {SAG_OP_softplus, BOTH_SIGNS, {0}}, {SAG_OP_exp, BOTH_SIGNS, {0}},
               {SAG_OP_log, POSITIVE, {0}}, {SAG_OP_sqrt, POSITIVE, {0}}, {SAG_OP_square, BOTH_SIGNS, {0}},
               {SAG_OP_abs, BOTH_SIGNS, {0}}, {SAG_OP_scale, BOTH_SIGNS, {1.5, -0.25}}};
    for (int i = 0; i < COUNT(one); i++) {
        for (int k = 0; k < COUNT(lengths); k++) {
            check((spec){.op = one[i].op, .in = {S1(lengths[k])}, .fill = {one[i].fill}, .attr = {one[i].attr[0], one[i].attr[1]}, .half = 1});
        }
    }
    static const sag_op two[] = {SAG_OP_add, SAG_OP_sub, SAG_OP_mul, SAG_OP_div};
    static const int64_t pairs[][2] = {{1, 1}, {7, 1}, {33, 5}, {4, 257}, {9, 64}};
    for (int i = 0; i < COUNT(two); i++) {
        for (int k = 0; k < COUNT(pairs); k++) {
            spec s = {.op = two[i], .in = {S2(pairs[k][0], pairs[k][1]), S1(pairs[k][1])}, .fill = {BOTH_SIGNS, POSITIVE}, .half = 3};
            check(s);
            s.in[1] = s.in[0];
            check(s);
            s.in[1] = S1(1);
            check(s);
        }
    }
    for (int k = 0; k < COUNT(lengths); k++) {
        check((spec){.op = SAG_OP_gated_add, .in = {S1(lengths[k]), S1(lengths[k]), S1(1)}, .half = 3});
    }
}

static void norms(void **state)
{
    (void)state;
    static const int64_t t[][4] = {{3, 2, 1, 1}, {2, 3, 5, 7}, {1, 8, 8, 33}, {3, 4, 4, 64}, {5, 7, 3, 130}};
    for (int i = 0; i < COUNT(t); i++) {
        const int64_t c = t[i][3];
        for (int how = 0; how < 8; how++) {
            const int train = how & 1, relu = how >> 1 & 1, affine = how >> 2 & 1;
            spec s = {.op = SAG_OP_batch_norm, .half = 1, .attr = {train, 0.1, 1e-5, relu, affine}, .tolerance = 3e-5};
            s.in[0] = S4(t[i][0], t[i][1], t[i][2], c);
            if (affine) s.in[1] = s.in[2] = S1(c);
            s.in[3] = s.in[4] = S1(c);
            s.fill[4] = POSITIVE;
            check(s);
            s.op = SAG_OP_cond_batch_norm;
            s.in[1] = s.in[2] = S2(4, c);
            s.in[3] = S1(t[i][0]);
            s.fill[3] = INDEX;
            s.below = 4;
            s.in[4] = s.in[5] = S1(c);
            s.fill[4] = BOTH_SIGNS;
            s.fill[5] = POSITIVE;
            check(s);
        }
    }
}

static void pools(void **state)
{
    (void)state;
    static const int64_t t[][4] = {{1, 2, 2, 1}, {2, 6, 4, 3}, {1, 8, 8, 33}, {3, 4, 10, 16}};
    for (int i = 0; i < COUNT(t); i++) {
        const sag_shape x = S4(t[i][0], t[i][1], t[i][2], t[i][3]);
        check((spec){.op = SAG_OP_upsample, .in = {x}, .half = 1});
        check((spec){.op = SAG_OP_global_sum_pool, .in = {x}, .half = 1});
        check((spec){.op = SAG_OP_mean_pool, .in = {x}, .attr = {2, 2, 0, 1}, .half = 1});
        check((spec){.op = SAG_OP_max_pool, .in = {x}, .attr = {2, 2, 0}, .half = 1});
        if (t[i][1] < 3) continue;
        check((spec){.op = SAG_OP_mean_pool, .in = {x}, .attr = {3, 1, 1, 0}, .half = 1});
        check((spec){.op = SAG_OP_max_pool, .in = {x}, .attr = {3, 2, 1}, .half = 1});
    }
}

static void shapes(void **state)
{
    (void)state;
    for (int axis = 0; axis < 4; axis++) {
        spec s = {.op = SAG_OP_concat, .in = {S4(3, 2, 5, 7), S4(3, 2, 5, 7)}, .attr = {axis}, .half = 3};
        s.in[1].dim[axis] = 4;
        check(s);
        check((spec){.op = SAG_OP_slice, .in = {S4(4, 6, 5, 9)}, .attr = {axis, 1, 3}, .half = 1});
    }
    static const double d[][4] = {{0, 2, 1, 3}, {3, 2, 1, 0}, {0, 3, 1, 2}, {0, 1, 2, 3}};
    for (int i = 0; i < COUNT(d); i++) {
        check((spec){.op = SAG_OP_permute, .in = {S4(3, 33, 5, 17)}, .attr = {d[i][0], d[i][1], d[i][2], d[i][3]}, .half = 1});
    }
}

static void reductions(void **state)
{
    (void)state;
    static const sag_op sums[] = {SAG_OP_sum, SAG_OP_mean};
    for (int i = 0; i < COUNT(sums); i++) {
        for (int axis = -1; axis < 3; axis++) {
            check((spec){.op = sums[i], .in = {S3(5, 33, 17)}, .fill = {POSITIVE}, .attr = {axis}, .half = 1});
            check((spec){.op = sums[i], .in = {S3(1, 2, 300)}, .fill = {POSITIVE}, .attr = {axis}, .half = 1});
        }
    }
    static const sag_op whole[] = {SAG_OP_norm, SAG_OP_max, SAG_OP_min, SAG_OP_count_nonfinite};
    for (int i = 0; i < COUNT(whole); i++) {
        for (int k = 0; k < COUNT(lengths); k++) {
            spec s = {.op = whole[i], .in = {S1(lengths[k])}, .half = 1, .rounded_output = whole[i] == SAG_OP_norm};
            check(s);
        }
    }
    check((spec){.op = SAG_OP_argmax, .in = {S2(37, 10)}, .half = 1});
    check((spec){.op = SAG_OP_argmax, .in = {S2(3, 1001)}, .half = 1});
}

static void softmaxes(void **state)
{
    (void)state;
    static const int64_t t[][2] = {{1, 1}, {3, 10}, {65, 33}, {2, 1025}};
    for (int i = 0; i < COUNT(t); i++) {
        check((spec){.op = SAG_OP_softmax, .in = {S2(t[i][0], t[i][1])}, .half = 1});
        check((spec){.op = SAG_OP_log_softmax, .in = {S2(t[i][0], t[i][1])}, .half = 1});
    }
}

static void attention(void **state)
{
    (void)state;
    static const int64_t t[][5] = {{1, 1, 1, 1, 1}, {2, 17, 33, 4, 8}, {1, 65, 64, 8, 32}, {1, 64, 130, 16, 64}, {1, 40, 20, 7, 9}};
    static const int32_t queries[] = {0, 2, 1};
    for (int i = 0; i < COUNT(t); i++) {
        const sag_shape q = S3(t[i][0], t[i][1], t[i][3]), k = S3(t[i][0], t[i][2], t[i][3]);
        spec s = {.op = SAG_OP_attention, .in = {q, k, S3(t[i][0], t[i][2], t[i][4])}, .attr = {1}, .half = 7};
        if (t[i][2] == 1) s.constant = 3; /* one key: q and k do nothing, their gradients are roundings around 0 */
        check(s);
        if (t[i][1] < 3) continue;
        check((spec){.op = SAG_OP_attention_map, .in = {q, k, S1(3)}, .fill = {BOTH_SIGNS, BOTH_SIGNS, INDEX}, .table = queries, .attr = {1}, .half = 3});
    }
    check((spec){.op = SAG_OP_attention_stats, .in = {S3(2, 64, 8), S3(2, 64, 8)}, .attr = {8, 1}, .half = 3});
    check((spec){.op = SAG_OP_attention_stats, .in = {S3(2, 36, 4), S3(2, 9, 4)}, .attr = {6, 1}, .half = 3});
}

static void spectral(void **state)
{
    (void)state;
    /* offset, rows, columns, offset in u, offset in v; a gap of 5 between the first two, 3 numbers behind the last */
    static const int32_t layers[] = {0, 3, 9, 0, 0, 32, 17, 20, 3, 9, 372, 1, 64, 20, 29};
    for (int how = 0; how < 8; how++) {
        spec s = {.op = SAG_OP_spectral_norm, .table = layers, .attr = {1 + (how & 1), 1e-12, 1, how >> 1 & 1, how >> 2 & 1}, .tolerance = 3e-5};
        s.in[0] = S1(439);
        s.in[1] = S1(21);
        s.in[2] = S1(93);
        s.in[3] = S1(3);
        s.in[4] = S2(3, 5);
        s.fill[4] = INDEX;
        check(s);
    }
}

static void embeddings_and_losses(void **state)
{
    (void)state;
    static const int64_t e[][3] = {{1, 1, 1}, {10, 33, 7}, {5, 128, 65}};
    for (int i = 0; i < COUNT(e); i++) {
        check((spec){.op = SAG_OP_embedding, .in = {S2(e[i][0], e[i][1]), S1(e[i][2])}, .fill = {BOTH_SIGNS, INDEX}, .below = (int32_t)e[i][0]});
    }
    static const sag_op d[] = {SAG_OP_hinge_d, SAG_OP_bce_d, SAG_OP_wasserstein_d}, g[] = {SAG_OP_hinge_g, SAG_OP_bce_g, SAG_OP_wasserstein_g};
    static const int64_t n[][2] = {{1, 1}, {64, 33}, {300, 300}};
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < COUNT(n); k++) {
            check((spec){.op = d[i], .in = {S1(n[k][0]), S1(n[k][1])}, .half = 3});
            check((spec){.op = g[i], .in = {S1(n[k][0])}, .half = 1});
        }
    }
    check((spec){.op = SAG_OP_cross_entropy, .in = {S2(7, 10), S1(7)}, .fill = {BOTH_SIGNS, INDEX}, .below = 10, .half = 1});
    check((spec){.op = SAG_OP_cross_entropy, .in = {S2(65, 1001), S1(65)}, .fill = {BOTH_SIGNS, INDEX}, .below = 1001, .half = 1});
}

static void random_numbers(void **state)
{
    (void)state;
    for (int k = 0; k < COUNT(lengths); k++) {
        const sag_shape n = S1(lengths[k]), clock = S1(2);
        check((spec){.op = SAG_OP_uniform, .in = {n, clock}, .fill = {ZERO, CLOCK}, .attr = {77, 5, -0.3, 1.7}, .tolerance = 1e-9});
        check((spec){.op = SAG_OP_normal, .in = {n, clock}, .fill = {ZERO, CLOCK}, .attr = {77, 5, 0.1, 0.7, 0}, .tolerance = 1e-9});
        check((spec){.op = SAG_OP_normal, .in = {n, clock}, .fill = {ZERO, CLOCK}, .attr = {77, 5, 0.1, 0.7, 2}, .tolerance = 1e-9});
        check((spec){.op = SAG_OP_randint, .in = {n, clock}, .fill = {INDEX, CLOCK}, .below = 1, .attr = {77, 5, -3, 90}});
    }
    check((spec){.op = SAG_OP_tick, .in = {S1(2)}, .fill = {CLOCK}, .attr = {3}});
}

static void optimizers(void **state)
{
    (void)state;
    static const float hyper[] = {1e-2f, 0.5f, 0.9f, 1e-8f, 0.01f, 0.5f, 0.9f, 3};
    for (int k = 0; k < COUNT(lengths); k++) {
        const sag_shape n = S1(lengths[k]);
        for (int tf = 0; tf < 2; tf++) {
            spec s = {.op = SAG_OP_adam, .in = {n, n, n, n, S1(2), S1(6)}, .attr = {tf}, .numbers = hyper};
            s.fill[3] = POSITIVE;
            s.fill[4] = CLOCK;
            s.fill[5] = NUMBERS;
            check(s);
            s.op = SAG_OP_adam_ema;
            s.in[6] = n;
            s.in[7] = S1(2);
            s.fill[7] = CLOCK;
            s.in[8] = S1(2);
            s.fill[8] = NUMBERS;
            check(s);
        }
        check((spec){.op = SAG_OP_ema, .in = {n, n, S1(2), S1(2)}, .fill = {BOTH_SIGNS, BOTH_SIGNS, CLOCK, NUMBERS}, .numbers = hyper + 6});
        check((spec){.op = SAG_OP_fill, .in = {n}, .attr = {-2.5}});
        check((spec){.op = SAG_OP_assign, .in = {n, n}});
        check((spec){.op = SAG_OP_axpy, .in = {n, n}, .attr = {-0.75}});
    }
    check((spec){.op = SAG_OP_record, .in = {S2(4, 3), S1(1), S1(2)}, .fill = {ZERO, BOTH_SIGNS, CLOCK}, .attr = {1}});
}

static void pixels(void **state)
{
    (void)state;
    static const int64_t t[][4] = {{1, 1, 1, 1}, {5, 7, 9, 3}, {2, 16, 16, 1}};
    for (int i = 0; i < COUNT(t); i++) {
        const sag_shape x = S4(t[i][0], t[i][1], t[i][2], t[i][3]);
        for (int how = 0; how < 4; how++) {
            check((spec){.op = SAG_OP_pixels_to_float, .in = {x, S1(2)}, .fill = {PIXELS, CLOCK}, .attr = {9, 4, how & 1, how & 2 ? 0.01 : 0}, .tolerance = 1e-9});
        }
        check((spec){.op = SAG_OP_float_to_pixels, .in = {x}});
        for (int to = 0; to < SAG_DTYPE_COUNT; to++) {
            if (to == SAG_BF16) continue; /* every bf16 round is one */
            check((spec){.op = SAG_OP_cast, .in = {x}, .fill = {POSITIVE}, .attr = {to}, .half = to == SAG_F32, .constant = to != SAG_F32});
            check((spec){.op = SAG_OP_cast, .in = {x}, .fill = {PIXELS}, .attr = {to}});
        }
    }
}

/* A row whose index lies outside the table is 0, and nothing outside is touched (where memory is watched). */
static void bad_indices(void **state)
{
    (void)state;
    float x[15];
    const float index[4] = {1, -1, 5, 1000000};
    random_fill(x, 15, 1, 1, 2);
    sag_tensor *table = operand(card, SAG_F32, S2(5, 3), 0, x, true), *at = operand(card, SAG_I32, S1(4), 0, index, false);
    sag_tensor *y[SAG_MAX_OUT] = {0};
    assert_ok(sag_op_apply(card, SAG_OP_embedding, (sag_tensor *[]){table, at}, NULL, y));
    float *got = read_floats(y[0]);
    for (int i = 0; i < 12; i++) assert_true(got[i] == (i < 3 ? x[3 + i] : 0));
    free(got);
    assert_ok(sag_tape_backward_from(y[0], y[0]));
    got = read_floats(sag_tensor_grad(table));
    for (int i = 0; i < 15; i++) assert_true(got[i] == (i / 3 == 1 ? x[i] : 0));
    free(got);
    sag_tensor_release(y[0]);
    sag_tensor_release(table);
    table = operand(card, SAG_F32, S2(4, 3), 0, x, true); /* logits */
    assert_ok(sag_op_apply(card, SAG_OP_cross_entropy, (sag_tensor *[]){table, at}, NULL, y));
    sag_tensor *dy = gradient_for(card, y[0], false);
    assert_ok(sag_tape_backward_from(y[0], dy));
    got = read_floats(sag_tensor_grad(table));
    for (int i = 0; i < 12; i++) assert_true(isfinite(got[i]) && (i < 3) == (got[i] != 0));
    free(got);
    sag_tensor_release(dy);
    sag_tensor_release(y[0]);
    sag_tensor_release(table);
    sag_tensor_release(at);
    sag_tape_clear(card);
}

static void every_op_has_a_case(void **state)
{
    (void)state;
    for (int op = 0; op < SAG_OP_COUNT; op++) {
        if (!covered[op]) fail_msg("no case for %s", sag_op_describe((sag_op)op)->name);
    }
}

int main(void)
{
    setenv("SAGAN_TEST_DEVICE", "cuda", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions),   cmocka_unit_test(quotients),  cmocka_unit_test(products),
        cmocka_unit_test(pointwise),      cmocka_unit_test(norms),      cmocka_unit_test(pools),
        cmocka_unit_test(shapes),         cmocka_unit_test(reductions), cmocka_unit_test(softmaxes),
        cmocka_unit_test(attention),      cmocka_unit_test(spectral),   cmocka_unit_test(embeddings_and_losses),
        cmocka_unit_test(random_numbers), cmocka_unit_test(optimizers), cmocka_unit_test(pixels),
        cmocka_unit_test(bad_indices),    cmocka_unit_test(every_op_has_a_case),
    };
    return cmocka_run_group_tests(tests, both_setup, both_teardown);
}
