/*
 * The CUDA kernels of conv2d, upconv and convpool called as they are, without the engine above them: every way to multiply
 * (plain f32, tf32, bf16 on tensor cores, bf16 on a card that has none), sizes at the edges of tiles, channels that do
 * and do not fill 16 bytes, maps that start anywhere, destinations that are added to or not wanted, a ReLU of x and a sum
 * behind, weights that are divided by sigma; the same bits twice. And sigma_bwd, the gradient of that division.
 *
 * Measured against sums in double over plain loops: 3x3 on the upsampled map, 3x3 and then the mean.
 *   plain f32             the error of sums in f32
 *   weight gradients      the same, from the same bf16 inputs: nothing is rounded on the way
 *   bf16 maps             at most twice the error of the exact result of the same bf16 maps and of weights rounded to bf16,
 *                         rounded to bf16; on a card without tensor cores weights are not rounded, and then neither there
 *   tf32                  at most twice the error of the exact result of factors rounded to tf32
 */
#include "testing.h"

#include "kernels/kernel_table.h"

const sag_backend *sag_cuda_backend(void) __attribute__((weak));

typedef enum op_kind { CONV, UPCONV, CONVPOOL } op_kind;
typedef struct conv_case {
    op_kind op;
    int64_t n, h, w, c, k, r, s, stride, pad; /* h, w: of x */
    int offset;                               /* of every map from an aligned address, in elements */
    bool maps_only;                           /* no weight gradient: its tiles do not grow with the maps */
} conv_case;

typedef struct mode {
    const char *name;
    sag_dtype act;
    int tf32;
    const char *arch; /* for the emulator, NULL: its newest */
    int every;        /* of the cases; those that share their code with another mode need fewer */
} mode;

static const mode modes[] = {
    {"plain f32", SAG_F32, 0, NULL, 1},
    {"tf32", SAG_F32, 1, NULL, 1},
    {"bf16", SAG_BF16, 0, NULL, 1},
    {"plain bf16", SAG_BF16, 0, "75", 2},
    {"f32 without cp.async", SAG_F32, 1, "75", 5},
};
enum { MODES = sizeof modes / sizeof *modes };

static const conv_case cases[] = {
    /* one of everything */
    {CONV, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, false},
    {CONV, 2, 5, 6, 3, 5, 3, 3, 1, 1, 0, false},
    {CONV, 2, 6, 5, 8, 24, 3, 3, 1, 1, 0, false},
    {CONV, 1, 9, 7, 20, 17, 3, 3, 2, 1, 0, false},
    {CONV, 2, 8, 6, 16, 40, 4, 4, 2, 1, 0, false},
    {CONV, 1, 11, 9, 5, 3, 5, 5, 1, 2, 0, false},
    {CONV, 1, 13, 14, 3, 64, 7, 7, 2, 3, 0, false},
    {CONV, 1, 6, 19, 24, 8, 1, 7, 1, 3, 0, false},
    {CONV, 1, 10, 11, 8, 16, 2, 3, 3, 1, 0, false},
    {CONV, 1, 7, 9, 8, 32, 1, 1, 3, 0, 0, false},
    {CONV, 1, 4, 4, 2, 3, 5, 5, 1, 3, 0, false},
    {CONV, 1, 9, 9, 8, 9, 3, 3, 1, 5, 0, false},
    /* pixels and outputs at 63, 64, 65 and 127, 128, 129; depth at 31, 32, 33 */
    {CONV, 1, 1, 63, 31, 15, 1, 1, 1, 0, 0, false},
    {CONV, 1, 8, 8, 32, 16, 1, 1, 1, 0, 0, false},
    {CONV, 1, 5, 13, 33, 17, 1, 1, 1, 0, 0, false},
    {CONV, 1, 1, 127, 16, 63, 1, 3, 1, 1, 0, false},
    {CONV, 2, 8, 8, 40, 64, 1, 1, 1, 0, 0, false},
    {CONV, 3, 1, 43, 8, 65, 3, 3, 1, 1, 0, false},
    {CONV, 1, 6, 6, 72, 127, 3, 3, 1, 1, 0, false},
    {CONV, 1, 8, 8, 64, 128, 3, 3, 1, 1, 0, false},
    {CONV, 1, 7, 6, 16, 129, 3, 3, 1, 1, 0, false},
    {CONV, 1, 9, 10, 64, 3, 3, 3, 1, 1, 0, false},
    {CONV, 1, 9, 10, 3, 64, 3, 3, 1, 1, 0, false},
    {CONV, 1, 9, 10, 20, 1, 3, 3, 1, 1, 0, false},
    /* many pixels, so that the larger tiles are chosen, and pieces of the weight gradient */
    {CONV, 1, 129, 127, 8, 65, 1, 1, 1, 0, 0, true},
    {CONV, 3, 19, 20, 8, 24, 3, 3, 1, 1, 0, false},
    {CONV, 1, 128, 129, 3, 20, 1, 1, 1, 0, 0, true},
    /* maps that start anywhere */
    {CONV, 1, 7, 9, 8, 16, 3, 3, 1, 1, 1, false},
    {CONV, 1, 5, 9, 16, 72, 3, 3, 1, 1, 4, false},
    {CONV, 1, 6, 5, 8, 3, 4, 4, 2, 1, 3, false},

    {UPCONV, 1, 1, 1, 1, 1, 3, 3, 1, 1, 0, false},
    {UPCONV, 2, 3, 5, 3, 5, 3, 3, 1, 1, 0, false},
    {UPCONV, 1, 7, 6, 8, 17, 3, 3, 1, 1, 0, false},
    {UPCONV, 2, 5, 2, 40, 3, 3, 3, 1, 1, 0, false},
    {UPCONV, 1, 8, 8, 24, 65, 3, 3, 1, 1, 0, false},
    {UPCONV, 1, 9, 7, 64, 128, 3, 3, 1, 1, 0, false},
    {UPCONV, 3, 19, 17, 8, 24, 3, 3, 1, 1, 0, false},
    {UPCONV, 1, 64, 63, 8, 24, 3, 3, 1, 1, 0, true},
    {UPCONV, 1, 5, 4, 8, 16, 3, 3, 1, 1, 1, false},

    {CONVPOOL, 1, 2, 2, 1, 1, 3, 3, 1, 1, 0, false},
    {CONVPOOL, 2, 6, 10, 3, 5, 3, 3, 1, 1, 0, false},
    {CONVPOOL, 1, 14, 12, 8, 17, 3, 3, 1, 1, 0, false},
    {CONVPOOL, 2, 10, 4, 40, 3, 3, 3, 1, 1, 0, false},
    {CONVPOOL, 1, 16, 16, 24, 65, 3, 3, 1, 1, 0, false},
    {CONVPOOL, 1, 18, 14, 64, 128, 3, 3, 1, 1, 0, false},
    {CONVPOOL, 3, 38, 34, 8, 24, 3, 3, 1, 1, 0, false},
    {CONVPOOL, 1, 128, 126, 24, 8, 3, 3, 1, 1, 0, true},
    {CONVPOOL, 1, 10, 8, 8, 16, 3, 3, 1, 1, 1, false},
};
enum { CASES = sizeof cases / sizeof *cases };

/* With x under a ReLU, and what is added to y: nothing, a map like it, one of half its sides. */
typedef enum addend { NOTHING, FULL, HALVED } addend;
typedef struct fused_case {
    conv_case of;
    addend added;
} fused_case;

static const fused_case fused[] = {
    {{CONV, 1, 2, 2, 1, 1, 1, 1, 1, 0, 0, false}, HALVED},
    {{CONV, 2, 6, 5, 8, 24, 3, 3, 1, 1, 0, false}, FULL},
    {{CONV, 2, 6, 10, 3, 5, 3, 3, 1, 1, 0, false}, HALVED},
    {{CONV, 1, 9, 7, 20, 17, 3, 3, 2, 1, 0, false}, FULL},
    {{CONV, 2, 8, 12, 16, 40, 4, 4, 2, 1, 0, false}, HALVED},
    {{CONV, 2, 8, 8, 40, 64, 1, 1, 1, 0, 0, false}, FULL},
    {{CONV, 3, 2, 22, 8, 65, 3, 3, 1, 1, 0, false}, HALVED},
    {{CONV, 1, 8, 8, 64, 128, 3, 3, 1, 1, 0, false}, FULL},
    {{CONV, 1, 9, 10, 64, 3, 3, 3, 1, 1, 0, false}, FULL},
    {{CONV, 1, 7, 9, 8, 32, 1, 1, 3, 0, 0, false}, NOTHING},
    {{CONV, 1, 128, 130, 8, 72, 1, 1, 1, 0, 0, true}, HALVED},
    {{CONV, 1, 128, 129, 3, 20, 1, 1, 1, 0, 0, true}, FULL},
    {{CONV, 1, 6, 10, 8, 16, 3, 3, 1, 1, 1, false}, HALVED},
    {{CONV, 1, 5, 9, 16, 72, 3, 3, 1, 1, 4, false}, FULL},
    {{CONVPOOL, 2, 6, 10, 3, 5, 3, 3, 1, 1, 0, false}, NOTHING},
    {{CONVPOOL, 1, 16, 16, 24, 65, 3, 3, 1, 1, 0, false}, NOTHING},
    {{CONVPOOL, 1, 18, 14, 64, 128, 3, 3, 1, 1, 0, false}, NOTHING},
    {{CONVPOOL, 1, 10, 8, 8, 16, 3, 3, 1, 1, 1, false}, NOTHING},
};
enum { FUSED = sizeof fused / sizeof *fused };

/* --------------------------------------------------------------------------------------------------- the device */

static const sag_backend *backend;
static void *state_of_device;
static void *scratch[16];
static int scratches;

static bool emulated(void)
{
    return strstr(backend->detail(), "emulated") != NULL;
}

static void *get_scratch(sag_kernel_env *env, size_t bytes)
{
    (void)env;
    assert_true(scratches < 16);
    void *p = backend->alloc(state_of_device, bytes);
    if (!p) return NULL;
    if (!emulated()) { /* the emulator does so itself */
        char *garbage = malloc(bytes); /* what a kernel does not write itself must show */
        memset(garbage, 0xff, bytes);
        assert_int_equal(backend->copy(state_of_device, p, garbage, bytes, SAG_COPY_HOST_TO_DEVICE), 0);
        free(garbage);
    }
    scratch[scratches++] = p;
    return p;
}

static int open_device(void **state)
{
    (void)state;
    if (!sag_cuda_backend || testing_device() != SAG_CUDA || !sag_cuda_backend()->available()) {
        fprintf(stderr, "skipped: no CUDA device\n");
        exit(77);
    }
    backend = sag_cuda_backend();
    return backend->open(&state_of_device);
}

static int close_device(void **state)
{
    (void)state;
    backend->close(state_of_device);
    return 0;
}

/* ------------------------------------------------------------------------------------------- numbers and formats */

static float bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
static uint32_t float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}
/* To nearest, ties to even. */
static uint16_t to_bf16(float x)
{
    uint32_t u = float_bits(x);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
static float from_bf16(uint16_t x)
{
    return bits_float((uint32_t)x << 16);
}
static float tf32(float x)
{
    return bits_float((float_bits(x) + 0x1000) & 0xffffe000u);
}
static float bf16(float x)
{
    return from_bf16(to_bf16(x));
}

/* A copy of x, each number by f unless that is NULL. */
static float *rounded(const float *x, int64_t n, float (*f)(float))
{
    float *out = calloc((size_t)n, sizeof *out);
    for (int64_t i = 0; i < n; i++) out[i] = f ? f(x[i]) : x[i];
    return out;
}

/* A map on the device, `offset` elements into its memory, of numbers that its dtype holds exactly. */
typedef struct map {
    void *memory;
    void *data;
    float *host;
    int64_t n;
    sag_dtype dtype;
} map;

static size_t size_of(sag_dtype dtype)
{
    return dtype == SAG_BF16 ? 2 : 4;
}

static void write_map(map *m)
{
    if (m->dtype == SAG_F32) {
        assert_int_equal(backend->copy(state_of_device, m->data, m->host, (size_t)m->n * 4, SAG_COPY_HOST_TO_DEVICE), 0);
        return;
    }
    uint16_t *h = malloc((size_t)m->n * 2);
    for (int64_t i = 0; i < m->n; i++) h[i] = to_bf16(m->host[i]);
    assert_int_equal(backend->copy(state_of_device, m->data, h, (size_t)m->n * 2, SAG_COPY_HOST_TO_DEVICE), 0);
    free(h);
}

static map make_map(int64_t n, sag_dtype dtype, int offset, uint64_t seed)
{
    map m = {.n = n, .dtype = dtype};
    m.memory = backend->alloc(state_of_device, (size_t)(n + offset) * size_of(dtype));
    assert_non_null(m.memory);
    m.data = (char *)m.memory + (size_t)offset * size_of(dtype);
    m.host = malloc((size_t)n * sizeof *m.host);
    random_fill(m.host, n, seed, -1, 1);
    if (dtype == SAG_BF16)
        for (int64_t i = 0; i < n; i++) m.host[i] = bf16(m.host[i]);
    write_map(&m);
    return m;
}

/* What the device has there now; the caller frees. */
static float *read_map(const map *m)
{
    float *out = malloc((size_t)m->n * sizeof *out);
    assert_int_equal(backend->copy(state_of_device, out, m->data, (size_t)m->n * size_of(m->dtype), SAG_COPY_DEVICE_TO_HOST), 0);
    if (m->dtype == SAG_BF16)
        for (int64_t i = m->n - 1; i >= 0; i--) out[i] = from_bf16(((uint16_t *)out)[i]);
    return out;
}

static void free_map(map *m)
{
    backend->free(state_of_device, m->memory);
    free(m->host);
}

/* ------------------------------------------------------------------------------------------------- plain loops */

typedef struct sizes {
    int64_t h, w, p, q, nx, nw, ny; /* of the convolution itself: the upsampled x, y before the mean */
    int64_t up, down;               /* factors of x's and y's maps to those */
} sizes;

static sizes sizes_of(const conv_case *t)
{
    sizes z = {.up = t->op == UPCONV ? 2 : 1, .down = t->op == CONVPOOL ? 2 : 1};
    z.h = t->h * z.up, z.w = t->w * z.up;
    z.p = (z.h + 2 * t->pad - t->r) / t->stride + 1, z.q = (z.w + 2 * t->pad - t->s) / t->stride + 1;
    z.nx = t->n * t->h * t->w * t->c, z.nw = t->k * t->r * t->s * t->c;
    z.ny = t->n * (z.p / z.down) * (z.q / z.down) * t->k;
    return z;
}

typedef struct numbers {
    double *y, *dx, *dw, *db;
} numbers;

static double *doubles(int64_t n)
{
    return calloc((size_t)n, sizeof(double));
}

static numbers plain_loops(const conv_case *t, const float *x, const float *w, const float *dy)
{
    sizes z = sizes_of(t);
    numbers o = {doubles(z.ny), doubles(z.nx), doubles(z.nw), doubles(t->k)};
    double share = 1.0 / (double)(z.down * z.down);
    for (int64_t i = 0; i < z.ny; i++) o.db[i % t->k] += (double)dy[i];
    for (int64_t n = 0; n < t->n; n++)
        for (int64_t p = 0; p < z.p; p++)
            for (int64_t q = 0; q < z.q; q++)
                for (int64_t r = 0; r < t->r; r++)
                    for (int64_t s = 0; s < t->s; s++) {
                        int64_t i = p * t->stride - t->pad + r, j = q * t->stride - t->pad + s;
                        if (i < 0 || i >= z.h || j < 0 || j >= z.w) continue;
                        int64_t xi = ((n * t->h + i / z.up) * t->w + j / z.up) * t->c;
                        int64_t yi = ((n * (z.p / z.down) + p / z.down) * (z.q / z.down) + q / z.down) * t->k;
                        for (int64_t k = 0; k < t->k; k++) {
                            int64_t wi = ((k * t->r + r) * t->s + s) * t->c;
                            double g = share * (double)dy[yi + k], sum = 0;
                            for (int64_t c = 0; c < t->c; c++) {
                                sum += (double)x[xi + c] * (double)w[wi + c];
                                o.dx[xi + c] += g * (double)w[wi + c];
                                o.dw[wi + c] += g * (double)x[xi + c];
                            }
                            o.y[yi + k] += share * sum;
                        }
                    }
    return o;
}

/* What the fused forms add to that: dx where x is above 0, and the residual {ny}, or its quarter, beside y. */
static void fuse(numbers *o, const conv_case *t, const float *x, const float *residual, addend added)
{
    sizes z = sizes_of(t);
    for (int64_t i = 0; i < z.nx; i++)
        if (x[i] <= 0) o->dx[i] = 0;
    for (int64_t i = 0; i < z.ny && added == FULL; i++) o->y[i] += (double)residual[i];
    for (int64_t n = 0; n < t->n && added == HALVED; n++)
        for (int64_t p = 0; p < z.p; p++)
            for (int64_t q = 0; q < z.q; q++)
                for (int64_t k = 0; k < t->k; k++)
                    o->y[((n * z.p + p) * z.q + q) * t->k + k] +=
                        (double)residual[((n * (z.p / 2) + p / 2) * (z.q / 2) + q / 2) * t->k + k];
}

static void free_numbers(numbers *o)
{
    free(o->y), free(o->dx), free(o->dw), free(o->db);
}

static double distance(const double *a, const double *b, int64_t n)
{
    double d = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) d += (a[i] - b[i]) * (a[i] - b[i]), norm += b[i] * b[i];
    return sqrt(d / fmax(norm, 1e-300));
}

/*
 * The relative error that low precision may make. A result of a few numbers may be lucky with its roundings, so that twice
 * its error says nothing: there, the bound: `most`, the sum of the products' absolute values, times a unit of rounding for
 * each of two roundings (bf16: a weight and the result; tf32: either factor).
 */
static double low_limit(const double *naive, const double *exact, const double *most, int64_t n, bool low)
{
    if (n >= 32) return 2 * distance(naive, exact, n) + 1e-6;
    double bound = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) bound += most[i] * most[i], norm += exact[i] * exact[i];
    double u = low ? 0x1p-8 : 0x1p-11; /* half a last place of 8 and of 11 bits */
    return (2 * u + u * u) * sqrt(bound / norm) + 1e-6;
}

/* ----------------------------------------------------------------------------------------------------- one case */

typedef int kernel(sag_kernel_env *env, const conv_args *a);

static sag_kernel_env env_of(int tf32_mode)
{
    return (sag_kernel_env){.stream = backend->stream(state_of_device), .threads = 1, .tf32 = tf32_mode, .scratch = get_scratch};
}

static void finish(const char *what, int result)
{
    if (result == SAG_KERNEL_OK) result = backend->synchronize(state_of_device);
    if (result != SAG_KERNEL_OK) fail_msg("%s: result %d: %s", what, result, backend->last_error());
    while (scratches > 0) backend->free(state_of_device, scratch[--scratches]);
}

static void call(const char *what, kernel *f, const conv_args *a, int tf32_mode)
{
    sag_kernel_env env = env_of(tf32_mode);
    finish(what, f(&env, a));
}

/*
 * Runs f into `to`, `runs` times at most: over NaN, over other garbage (the same bits must come), and, if `accumulate` is one
 * of a's fields, added to what was there. exact: what was asked; limit: the relative error allowed, in bf16 against `exact`.
 */
static void check(const char *what, kernel *f, conv_args *a, int *accumulate, map *to, const double *exact, double limit,
                  int tf32_mode, int runs)
{
    float *before = malloc((size_t)to->n * sizeof *before);
    memcpy(before, to->host, (size_t)to->n * sizeof *before);
    for (int64_t i = 0; i < to->n; i++) to->host[i] = NAN;
    write_map(to);
    call(what, f, a, tf32_mode);
    float *got = read_map(to);
    double e = relative_error(got, exact, to->n);
    if (!(e <= limit)) fail_msg("%s: error %.3g, allowed %.3g", what, e, limit);
    if (runs > 1) {
        for (int64_t i = 0; i < to->n; i++) to->host[i] = 1e30f;
        write_map(to);
        call(what, f, a, tf32_mode);
        float *again = read_map(to);
        if (memcmp(got, again, (size_t)to->n * sizeof *got) != 0) fail_msg("%s: other bits the second time", what);
        free(again);
    }
    memcpy(to->host, before, (size_t)to->n * sizeof *before);
    if (accumulate && runs > 2) {
        write_map(to);
        *accumulate = 1;
        call(what, f, a, tf32_mode);
        *accumulate = 0;
        double *sum = doubles(to->n), *stored = doubles(to->n);
        for (int64_t i = 0; i < to->n; i++) {
            sum[i] = exact[i] + (double)before[i];
            stored[i] = to->dtype == SAG_BF16 ? (double)bf16((float)sum[i]) : sum[i];
        }
        free(got);
        got = read_map(to);
        e = relative_error(got, sum, to->n);
        double room = limit + 2 * distance(stored, sum, to->n) + 1e-7;
        if (!(e <= room)) fail_msg("%s, accumulated: error %.3g, allowed %.3g", what, e, room);
        free(sum), free(stored);
    }
    free(got), free(before);
}

static float positive(float x)
{
    return x < 0 ? 0 : x;
}

static const float sigma_of_cases = 1.7f;
static float divided(float w)
{
    return w / sigma_of_cases;
}

/* added < 0: not fused. divides: with sigma; then what is asked is the same by weights divided before. */
static void run_case(const conv_case *t, int added, bool divides, const mode *m, uint64_t seed)
{
    sizes z = sizes_of(t);
    const sag_kernel_table *table = backend->kernels;
    kernel *fwd = t->op == CONV ? table->conv2d_fwd : t->op == UPCONV ? table->upconv_fwd : table->convpool_fwd;
    kernel *bwd_x = t->op == CONV ? table->conv2d_bwd_x : t->op == UPCONV ? table->upconv_bwd_x : table->convpool_bwd_x;
    kernel *bwd_w = t->op == CONV ? table->conv2d_bwd_w : t->op == UPCONV ? table->upconv_bwd_w : table->convpool_bwd_w;
    map x = make_map(z.nx, m->act, t->offset, seed), dy = make_map(z.ny, m->act, t->offset, seed + 1);
    map y = make_map(z.ny, m->act, t->offset, seed + 2), dx = make_map(z.nx, m->act, t->offset, seed + 3);
    map w = make_map(z.nw, SAG_F32, t->offset, seed + 4), b = make_map(t->k, SAG_F32, t->offset, seed + 5);
    map dw = make_map(z.nw, SAG_F32, t->offset, seed + 6), db = make_map(t->k, SAG_F32, t->offset, seed + 7);
    const bool fuses = added >= 0;
    map residual = make_map(z.ny, m->act, t->offset, seed + 8), sigma = make_map(1, SAG_F32, t->offset, 1);
    sigma.host[0] = sigma_of_cases;
    write_map(&sigma);
    if (fuses) { /* zeros among them: no gradient passes there */
        for (int64_t i = 0; i < z.nx; i += 7) x.host[i] = 0;
        write_map(&x);
    }
    float *inputs = rounded(x.host, z.nx, fuses ? positive : NULL);
    float *weights = rounded(w.host, z.nw, divides ? divided : NULL);
    numbers exact = plain_loops(t, inputs, weights, dy.host);
    if (fuses) fuse(&exact, t, x.host, residual.host, (addend)added);
    double limit_y = 1e-6, limit_dx = 1e-6, limit_dw = 2e-6;
    bool tensor_cores = !m->arch, round_weights = tensor_cores && (m->act == SAG_BF16 || m->tf32);
    for (int64_t i = 0; i < z.ny; i++) exact.y[i] += (double)b.host[i % t->k];
    if (m->act == SAG_BF16 || round_weights) {
        /* the naive way: rounded factors, exact sums, a rounded result */
        bool low = m->act == SAG_BF16;
        float *rx = rounded(inputs, z.nx, low ? NULL : tf32), *ry = rounded(dy.host, z.ny, low ? NULL : tf32);
        float *rw = rounded(weights, z.nw, !round_weights ? NULL : low ? bf16 : tf32);
        float *ax = rounded(inputs, z.nx, fabsf), *aw = rounded(weights, z.nw, fabsf), *ay = rounded(dy.host, z.ny, fabsf);
        numbers naive = plain_loops(t, rx, rw, ry), most = plain_loops(t, ax, aw, ay);
        if (fuses) {
            float *beside = rounded(residual.host, z.ny, fabsf);
            fuse(&naive, t, x.host, residual.host, (addend)added), fuse(&most, t, x.host, beside, (addend)added);
            free(beside);
        }
        for (int64_t i = 0; i < z.ny; i++) {
            naive.y[i] += (double)b.host[i % t->k], most.y[i] += fabs((double)b.host[i % t->k]);
            if (low) naive.y[i] = (double)bf16((float)naive.y[i]);
        }
        for (int64_t i = 0; i < z.nx && low; i++) naive.dx[i] = (double)bf16((float)naive.dx[i]);
        limit_y = low_limit(naive.y, exact.y, most.y, z.ny, low);
        limit_dx = low_limit(naive.dx, exact.dx, most.dx, z.nx, low);
        if (!low) limit_dw = low_limit(naive.dw, exact.dw, most.dw, z.nw, low);
        free_numbers(&most);
        free_numbers(&naive);
        free(rx), free(rw), free(ry), free(ax), free(aw), free(ay);
    }

    char what[160];
#define WHAT(direction)                                                                                                          \
    (snprintf(what, sizeof what, "%s%s%s %s {%lld,%lld,%lld,%lld} to %lld, %lldx%lld stride %lld, %s", fuses ? "fused " : "",    \
              divides ? "divided " : "",                                                                                         \
              t->op == CONV ? "conv2d" : t->op == UPCONV ? "upconv" : "convpool", direction, (long long)t->n, (long long)t->h,   \
              (long long)t->w, (long long)t->c, (long long)t->k, (long long)t->r, (long long)t->s, (long long)t->stride, m->name), \
     what)
    conv_args a = {.x = x.data, .w = w.data, .b = b.data, .y = y.data, .sigma = divides ? sigma.data : NULL,
                   .n = t->n, .h = t->h, .w_in = t->w, .c = t->c, .k = t->k, .r = t->r, .s = t->s,
                   .p = z.p / z.down, .q = z.q / z.down,
                   .stride = t->stride, .pad_h = t->pad, .pad_w = t->pad, .act = m->act,
                   .relu = fuses, .residual = added > NOTHING ? residual.data : NULL, .residual_half = added == HALVED};
    check(WHAT("fwd"), fwd, &a, NULL, &y, exact.y, limit_y, m->tf32, t->maps_only ? 1 : 2);
    a.b = NULL;
    double with = 0, without = 0;
    for (int64_t i = 0; i < z.ny; i++) {
        with += exact.y[i] * exact.y[i];
        exact.y[i] -= (double)b.host[i % t->k];
        without += exact.y[i] * exact.y[i];
    }
    double bias_share = fmax(1, sqrt(with / without)); /* the same absolute error beside a smaller result */
    if (!t->maps_only) check(WHAT("fwd without bias"), fwd, &a, NULL, &y, exact.y, limit_y * bias_share, m->tf32, 1);
    a.y = NULL, a.x = fuses ? x.data : NULL, a.residual = NULL, a.dy = dy.data, a.dx = dx.data;
    check(WHAT("bwd_x"), bwd_x, &a, &a.accumulate, &dx, exact.dx, limit_dx, m->tf32, t->maps_only ? 1 : 3);
    if (!t->maps_only) {
        a.dx = NULL, a.w = NULL, a.x = x.data, a.dw = dw.data;
        check(WHAT("bwd_w"), bwd_w, &a, NULL, &dw, exact.dw, limit_dw, m->tf32, 1);
        a.db = db.data;
        check(WHAT("bwd_w with db"), bwd_w, &a, &a.accumulate_dw, &dw, exact.dw, limit_dw, m->tf32, 3);
        check(WHAT("db"), bwd_w, &a, &a.accumulate_db, &db, exact.db, 2e-6, m->tf32, 3);
        a.dw = NULL;
        check(WHAT("db alone"), bwd_w, &a, NULL, &db, exact.db, 2e-6, m->tf32, 1);
    }

    free_numbers(&exact);
    free(inputs), free(weights);
    map *all[] = {&x, &dy, &y, &dx, &w, &b, &dw, &db, &residual, &sigma};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free_map(all[i]);
}

static void run_mode(const mode *m)
{
    if (m->arch && !emulated()) {
        print_message("%s: left out, the card has tensor cores\n", m->name);
        skip();
    }
    if (m->arch) setenv("SAGAN_EMULATOR_ARCH", m->arch, 1);
    for (int i = 0; i < CASES; i += m->every) run_case(&cases[i], -1, i / m->every % 2, m, (uint64_t)(100 * i + 1));
    for (int i = 0; i < FUSED; i += m->every)
        run_case(&fused[i].of, (int)fused[i].added, i / m->every % 2, m, (uint64_t)(100 * i + 9001));
    if (m->arch) unsetenv("SAGAN_EMULATOR_ARCH");
}

static void plain_f32(void **state)
{
    (void)state;
    run_mode(&modes[0]);
}
static void tensor_cores_tf32(void **state)
{
    (void)state;
    run_mode(&modes[1]);
}
static void tensor_cores_bf16(void **state)
{
    (void)state;
    run_mode(&modes[2]);
}
static void plain_bf16(void **state)
{
    (void)state;
    run_mode(&modes[3]);
}
static void older_card_f32(void **state)
{
    (void)state;
    run_mode(&modes[4]);
}

/* NaN passes a folded ReLU in every direction, as it passes the op of that name. */
static void relu_keeps_nan(void **state)
{
    (void)state;
    enum { SIDE = 4, C = 8, K = 24, SICK = 5, ILL = 8 }; /* pixels */
    for (int i = 0; i < 3; i++) {
        const mode *m = &modes[i];
        map x = make_map(SIDE * SIDE * C, m->act, 0, 1), y = make_map(SIDE * SIDE * K, m->act, 0, 2);
        map dx = make_map(SIDE * SIDE * C, m->act, 0, 3), w = make_map(K * C, SAG_F32, 0, 4), dw = make_map(K * C, SAG_F32, 0, 5);
        x.host[SICK * C + 3] = NAN, x.host[ILL * C + 2] = -NAN;
        write_map(&x);
        const conv_args a = {.x = x.data, .w = w.data, .y = y.data, .dy = y.data, .dx = dx.data, .dw = dw.data, .n = 1, .h = SIDE,
                             .w_in = SIDE, .c = C, .k = K, .r = 1, .s = 1, .p = SIDE, .q = SIDE, .stride = 1, .act = m->act, .relu = 1};
        call("bwd_x", backend->kernels->conv2d_bwd_x, &a, m->tf32);
        call("bwd_w", backend->kernels->conv2d_bwd_w, &a, m->tf32);
        call("fwd", backend->kernels->conv2d_fwd, &a, m->tf32);
        float *out = read_map(&y), *gradient = read_map(&dx), *weights = read_map(&dw);
        for (int at = 0; at < SIDE * SIDE * K; at++) assert_true(isnan(out[at]) == (at / K == SICK || at / K == ILL));
        for (int at = 0; at < K * C; at++) assert_true(isnan(weights[at]) == (at % C == 2 || at % C == 3));
        for (int at = 0; at < SIDE * SIDE * C; at++) assert_true((gradient[at] != 0) == !(x.host[at] <= 0));
        free(out), free(gradient), free(weights);
        map *all[] = {&x, &y, &dx, &w, &dw};
        for (int j = 0; j < 5; j++) free_map(all[j]);
    }
}

/* sigma_bwd from operands that start anywhere, each by itself: dw = g / sigma, in place too, dsigma = -<g, w> / sigma^2 with the
 * same bits wherever they start; both added to; either alone. */
static void run_quotient(int64_t n, const int *offset, bool in_place, bool adds, float *bits)
{
    map g = make_map(n, SAG_F32, offset[0], 1), w = make_map(n, SAG_F32, offset[1], 2), dw = make_map(n, SAG_F32, offset[2], 3);
    map sigma = make_map(1, SAG_F32, offset[1], 4), dsigma = make_map(1, SAG_F32, offset[2], 5);
    double *quotient = doubles(n), sum = 0, most = 0;
    sigma.host[0] = -sigma_of_cases;
    write_map(&sigma);
    for (int64_t i = 0; i < n; i++) {
        quotient[i] = (double)g.host[i] / (double)sigma.host[0] + (adds ? (double)dw.host[i] : 0);
        sum -= (double)g.host[i] * (double)w.host[i], most += fabs((double)g.host[i] * (double)w.host[i]);
    }
    const double square = (double)sigma.host[0] * (double)sigma.host[0], want = sum / square + (adds ? (double)dsigma.host[0] : 0);
    const sigma_bwd_args a = {.g = g.data, .w = w.data, .sigma = sigma.data, .dw = in_place ? g.data : dw.data, .dsigma = dsigma.data,
                              .n = n, .accumulate_dw = adds, .accumulate_dsigma = adds};
    sag_kernel_env env = env_of(0);
    for (int which = 0; which < 3; which++) { /* dsigma alone, both, dw alone */
        sigma_bwd_args one = a;
        if (which == 0) one.dw = NULL;
        if (which == 2) one.dsigma = NULL;
        write_map(&g), write_map(&dw), write_map(&dsigma);
        finish("sigma_bwd", backend->kernels->sigma_bwd(&env, &one));
        float *got = read_map(in_place ? &g : &dw), *slope = read_map(&dsigma);
        const double e = relative_error(got, quotient, n);
        if (which == 0)
            assert_memory_equal(got, in_place ? g.host : dw.host, (size_t)n * sizeof *got);
        else if (!(e <= 2e-7))
            fail_msg("sigma_bwd of %lld: dw is off by %.3g", (long long)n, e);
        if (which == 2)
            assert_true(slope[0] == dsigma.host[0]);
        else if (!(fabs((double)slope[0] - want) <= 2e-7 * (most / square + fabs(want))))
            fail_msg("sigma_bwd of %lld: dsigma is %.9g, not %.9g", (long long)n, (double)slope[0], want);
        if (which < 2 && !isnan(*bits)) assert_true(slope[0] == *bits);
        if (which < 2) *bits = slope[0];
        free(got), free(slope);
    }
    free(quotient);
    map *all[] = {&g, &w, &dw, &sigma, &dsigma};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free_map(all[i]);
}

static void quotients(void **state)
{
    (void)state;
    static const int64_t lengths[] = {1, 3, 5, 1023, 4095, 4096, 4097, 3 * 4096 + 2};
    static const int offsets[][3] = {{0, 0, 0}, {1, 1, 1}, {0, 3, 2}, {1, 0, 0}};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (int adds = 0; adds < 2; adds++) {
            float bits = NAN;
            for (size_t k = 0; k < sizeof offsets / sizeof *offsets; k++) {
                run_quotient(lengths[i], offsets[k], false, adds, &bits);
                if (!adds) run_quotient(lengths[i], offsets[k], true, false, &bits);
            }
        }
}

/* Without scratch memory: said, not crashed; the next call works. */
static void *no_scratch(sag_kernel_env *env, size_t bytes)
{
    (void)bytes;
    int *left = env->owner;
    return (*left)-- > 0 ? get_scratch(env, bytes) : NULL;
}

static void scratch_may_fail(void **state)
{
    (void)state;
    const conv_case t = {UPCONV, 1, 4, 4, 8, 8, 3, 3, 1, 1, 0, false};
    sizes z = sizes_of(&t);
    map x = make_map(z.nx, SAG_F32, 0, 1), y = make_map(z.ny, SAG_F32, 0, 2), w = make_map(z.nw, SAG_F32, 0, 3);
    map dw = make_map(z.nw, SAG_F32, 0, 4);
    const conv_args a = {.x = x.data, .w = w.data, .y = y.data, .dy = y.data, .dx = x.data, .dw = dw.data,
                         .n = 1, .h = 4, .w_in = 4, .c = 8, .k = 8, .r = 3, .s = 3, .p = 8, .q = 8, .stride = 1, .act = SAG_F32};
    kernel *const f[] = {backend->kernels->upconv_fwd, backend->kernels->upconv_bwd_x, backend->kernels->upconv_bwd_w};
    for (int i = 0; i < 3; i++) {
        int result = SAG_KERNEL_NO_MEMORY, grants = 0;
        for (; result == SAG_KERNEL_NO_MEMORY && grants < 8; grants++) {
            int left = grants;
            sag_kernel_env env = {.stream = backend->stream(state_of_device), .threads = 1, .scratch = no_scratch, .owner = &left};
            result = f[i](&env, &a);
            assert_int_equal(backend->synchronize(state_of_device), 0);
            while (scratches > 0) backend->free(state_of_device, scratch[--scratches]);
        }
        assert_int_equal(result, SAG_KERNEL_OK);
        assert_true(grants >= 2);
    }
    map *all[] = {&x, &y, &w, &dw};
    for (int i = 0; i < 4; i++) free_map(all[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_f32),  cmocka_unit_test(tensor_cores_tf32), cmocka_unit_test(tensor_cores_bf16),
        cmocka_unit_test(plain_bf16), cmocka_unit_test(older_card_f32),    cmocka_unit_test(relu_keeps_nan),
        cmocka_unit_test(quotients),  cmocka_unit_test(scratch_may_fail),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
