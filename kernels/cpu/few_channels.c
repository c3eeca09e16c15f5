/* few_channels.c - conv2d with few channels on one side, forward and data gradient; few_channels.h has the loops. */
#include "kernels/cpu/few_channels.h"

#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/tile_product.h"

#define COLLECT_ROWS 16 /* of outputs at least in a piece of work: a column at the border is a run of pixels, too */

/* Loaded once: the compiler likes to load an operand again for each multiply-add. */
#if defined(__x86_64__)
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#else
#define IN_REGISTER(v) (void)(v)
#endif

static patches patches_of_dy(const conv_args *a)
{
    return (patches){.x = a->dy,
                     .h = a->p,
                     .w = a->q,
                     .c = a->k,
                     .rows = a->h,
                     .cols = a->w_in,
                     .stride = 1,
                     .top = a->pad_h - a->r + 1,
                     .left = a->pad_w - a->s + 1,
                     .r = a->r,
                     .s = a->s};
}

few_job CPU_ISA(few_job_of)(const conv_args *a, bool turned)
{
    few_job j = {.in = turned ? patches_of_dy(a) : patches_of(a, a->x),
                 .images = a->n,
                 .few = cpu_min64(a->c, a->k),
                 .many = a->c < a->k ? a->k : a->c,
                 .w = a->w,
                 .few_last = a->c < a->k,
                 .turned = turned};
    j.out_rows = cpu_min64(j.in.rows, cpu_ceil_div(FEW_FLOATS, j.many * j.in.cols));
    j.bands = cpu_ceil_div(j.in.rows, j.out_rows);
    return j;
}

/* ------------------------------------------------------------------------------------------- few to many */

typedef struct spread_walk {
    int64_t lines, run, line; /* of a patch: rows, floats of one; from one to the next in the band */
    int64_t many;
    const float *bias; /* whole vectors */
    bool add;
} spread_walk;

/* A run of pixels by one or two vectors of n; `count` of the pixels and `cols` of n are real. */
CPU_INLINE void spread_block(const int few, const int pixels, const int vectors, const spread_walk *o, const float *x,
                             const float *u, const float *bias, int64_t count, int64_t cols, float *y)
{
    cpu_vec acc[2 * GEMM_MR];
    const int64_t left = cols - (vectors - 1) * CPU_LANES;
#pragma GCC unroll 28
    for (int i = 0; i < pixels * vectors; i++) acc[i] = cpu_load(bias + i % vectors * CPU_LANES);
    for (int64_t r = 0; r < o->lines; r++) {
        const float *a = x + r * o->line;
#pragma GCC unroll 1
        for (int64_t k = o->run; k > 0; k--, a++, u += vectors * CPU_LANES) {
            /* Patches overlap, but no number is to be kept from one k to the next: the registers are full. */
            __asm__("" : "+r"(a));
            const cpu_vec w0 = cpu_load(u), w1 = cpu_load(u + (vectors - 1) * CPU_LANES);
#pragma GCC unroll 28
            for (int i = 0; i < pixels; i++) {
                const cpu_vec v = cpu_splat(a[i * few]);
                acc[i * vectors] += v * w0;
                if (vectors == 2) acc[i * 2 + 1] += v * w1;
            }
        }
    }
#pragma GCC unroll 28
    for (int i = 0; i < pixels; i++, y += o->many) {
        if (i >= count) break;
        /* room in the caches for the next pixels */
        __builtin_prefetch(y + pixels * o->many, 1, 2);
        if (vectors == 2 && CPU_LANES == 16) __builtin_prefetch(y + pixels * o->many + 16, 1, 2);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            float *d = y + v * CPU_LANES;
            const int64_t n = v == vectors - 1 ? left : CPU_LANES;
            cpu_vec t = acc[i * vectors + v];
            if (o->add) t += cpu_load_part(d, n);
            cpu_store_part(d, t, n);
        }
    }
}

typedef void spread_kernel(const spread_walk *o, const float *x, const float *u, const float *bias, int64_t count,
                           int64_t cols, float *y);
#define SPREAD_NAME(few, vectors, v) spread##few##_##vectors##_##v
#define SPREAD_KERNEL(few, vectors, v)                                                                                 \
    static void SPREAD_NAME(few, vectors, v)(const spread_walk *o, const float *x, const float *u, const float *bias,  \
                                             int64_t count, int64_t cols, float *y)                                    \
    {                                                                                                                  \
        spread_block(few, 4 / vectors * v, vectors, o, x, u, bias, count, cols, y);                                    \
    }
#define SPREAD_ENTRY(few, vectors, v) SPREAD_NAME(few, vectors, v),
#define SPREAD_DEFINE(few) TILE_SIZES(SPREAD_KERNEL, few, 1) TILE_SIZES(SPREAD_KERNEL, few, 2)
#define SPREAD_ROW(few)                                                                                                \
    {                                                                                                                  \
        {NULL, TILE_SIZES(SPREAD_ENTRY, few, 1)},                                                                      \
        {                                                                                                              \
            NULL, TILE_SIZES(SPREAD_ENTRY, few, 2)                                                                     \
        }                                                                                                              \
    }
SPREAD_DEFINE(1)
SPREAD_DEFINE(2)
SPREAD_DEFINE(3)
SPREAD_DEFINE(4)
/* [few - 1][vectors - 1][pixels in steps of 4 or 2] */
static spread_kernel *const spread_kernels[FEW][2][TILE_VARIANTS] = {SPREAD_ROW(1), SPREAD_ROW(2), SPREAD_ROW(3),
                                                                     SPREAD_ROW(4)};

/* [strip of GEMM_NR n][r][s][f][n], zeros behind the last n up to whole vectors */
static void pack_spread(const few_job *j, float *u)
{
    const patches *p = &j->in;
    for (int64_t n0 = 0; n0 < j->many; n0 += GEMM_NR) {
        int64_t cols = cpu_min64(GEMM_NR, j->many - n0), width = round_up(cols, CPU_LANES);
        for (int64_t t = 0; t < p->r * p->s; t++)
            for (int64_t f = 0; f < j->few; f++, u += width)
                for (int64_t n = 0; n < width; n++)
                    u[n] = n < cols ? j->w[few_weight_at(j, t / p->s, t % p->s, f, n0 + n)] : 0.0f;
    }
}

static void spread_row(const few_job *j, const spread_walk *o, const float *u, const float *band, float *y)
{
    int64_t pixels = j->in.cols;
    for (int64_t n = 0; n < j->many; n += GEMM_NR) {
        int64_t cols = cpu_min64(GEMM_NR, j->many - n);
        int vectors = cols > CPU_LANES ? 2 : 1;
        int64_t grain = 4 / vectors, each = tile_rows(pixels, grain);
        for (int64_t m = 0; m < pixels; m += each) {
            int64_t count = cpu_min64(each, pixels - m);
            spread_kernels[j->few - 1][vectors - 1][cpu_ceil_div(count, grain)](o, band + m * j->few, u, o->bias + n,
                                                                                count, cols, y + m * j->many + n);
        }
        u += o->lines * o->run * vectors * CPU_LANES;
    }
}

static int spread(sag_kernel_env *env, const few_job *j, float *y, const float *bias, int accumulate)
{
    const patches *p = &j->in;
    few_band b = few_band_of(j);
    int64_t depth = p->r * p->s * j->few, ld = round_up(j->many, CPU_LANES);
    int threads = j->images * p->rows * p->cols * depth * j->many < FEW_SMALL ? 1 : env->threads;
    int64_t u_floats = round_up((depth + 1) * ld, 16);
    float *u = env->scratch(env, (size_t)(u_floats + threads * b.floats) * sizeof *u), *bands = u + u_floats;
    if (!u) return SAG_KERNEL_NO_MEMORY;
    pack_spread(j, u);
    float *row = u + depth * ld;
    gemm_clear(row, ld);
    if (bias) gemm_copy(row, bias, j->many);
    spread_walk walk = {
        .lines = p->r, .run = p->s * j->few, .line = b.row_ld, .many = j->many, .bias = row, .add = accumulate != 0};
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int64_t t = 0; t < j->images * j->bands; t++) {
        float *band = bands + omp_get_thread_num() * b.floats;
        int64_t image = t / j->bands, i0 = t % j->bands * j->out_rows, rows = cpu_min64(j->out_rows, p->rows - i0);
        few_copy_band(j, &b, image, i0, rows, band);
        for (int64_t i = 0; i < rows; i++)
            spread_row(j, &walk, u, band + i * b.row_ld, y + (image * p->rows + i0 + i) * p->cols * j->many);
    }
    return SAG_KERNEL_OK;
}

/* ------------------------------------------------------------------------------------------- many to few */

/* Pixels that see the same taps, from an output and the first number of its patch inside the map on. */
typedef struct collect_run {
    const float *x, *w; /* w: of the first f, at the same tap */
    float *y;
    int64_t pixels, x_step, y_step; /* from one to the next, in floats */
    int64_t lines, length;          /* of a patch: rows, and floats of one */
} collect_run;

typedef struct collect_job {
    int64_t channels;
    int64_t x_line, w_line, w_few; /* floats from one row of a patch to the next, and from one f */
    const float *bias;
    int accumulate;
} collect_job;

/* Sums of the pixels m + first .. m + last to where they go; lane i * few + f is pixel m + i's. */
CPU_INLINE void collect_store(const int few, const collect_job *c, const collect_run *run, int64_t m, int64_t first,
                              int64_t last, cpu_vec total)
{
    float *y = run->y + m * run->y_step;
    if (c->bias) total += cpu_load(c->bias);
    if (run->y_step == few && first == 0) {
        if (c->accumulate) total += cpu_load_part(y, last * few);
        cpu_store_part(y, total, last * few);
        return;
    }
    float sums[CPU_LANES];
    cpu_store(sums, total);
    for (int64_t i = first; i < last; i++)
        for (int f = 0; f < few; f++) {
            float *d = y + i * run->y_step + f, v = sums[i * few + f];
            *d = c->accumulate ? *d + v : v;
        }
}

/* Pixels whose sums one vector holds in the end, and such vectors in a block: sums enough to hide a multiply-add's
 * latency, pixels not too many for pointers to them in registers. */
#define COLLECT_EACH(few) ((few) == 1 && CPU_LANES > 8 ? 8 : CPU_LANES / (few))
#define COLLECT_VECTORS(few) ((few) == 3 && CPU_LANES == 8 ? 2 : 1)
#define COLLECT_PIXELS(few) (COLLECT_EACH(few) * COLLECT_VECTORS(few))

/* n <= CPU_LANES numbers of each patch */
CPU_INLINE void collect_add(const int few, const float *const *x, int64_t at, const float *w, int64_t w_few, int64_t n,
                            cpu_vec *sum)
{
    const int each = COLLECT_EACH(few), pixels = COLLECT_PIXELS(few);
    cpu_vec line[FEW];
#pragma GCC unroll 4
    for (int f = 0; f < few; f++) line[f] = few_load(w + f * w_few, n);
#pragma GCC unroll 16
    for (int i = 0; i < pixels; i++) {
        cpu_vec v = few_load(x[i] + at, n), *s = sum + i / each * CPU_LANES + i % each * few;
        IN_REGISTER(v);
#pragma GCC unroll 4
        for (int f = 0; f < few; f++) s[f] += v * line[f];
    }
}

/* A block of pixels from m on; those behind the last one repeat it. */
CPU_INLINE void collect_pixels(const int few, const collect_job *c, const collect_run *run, int64_t m)
{
    const float *x[CPU_LANES], *w = run->w;
    cpu_vec sum[2 * CPU_LANES];
    const int each = COLLECT_EACH(few), pixels = COLLECT_PIXELS(few), sums = COLLECT_VECTORS(few) * CPU_LANES;
    int64_t count = cpu_min64(pixels, run->pixels - m);
    for (int i = 0; i < pixels; i++) {
        x[i] = run->x + (m + cpu_min64(i, count - 1)) * run->x_step;
        for (int64_t l = 0; l < c->channels; l += 16) __builtin_prefetch(x[i] + run->lines * c->x_line + l, 0, 2);
    }
#pragma GCC unroll 16
    for (int i = 0; i < sums; i++) sum[i] = (cpu_vec){0};
    for (int64_t r = 0, at = 0; r < run->lines; r++, at += c->x_line, w += c->w_line) {
        int64_t l = 0;
        for (; l + CPU_LANES <= run->length; l += CPU_LANES)
            collect_add(few, x, at + l, w + l, c->w_few, CPU_LANES, sum);
        if (l < run->length) collect_add(few, x, at + l, w + l, c->w_few, run->length - l, sum);
    }
    for (int v = 0; v < sums && count > 0; v += CPU_LANES, m += each, count -= each)
        collect_store(few, c, run, m, 0, cpu_min64(each, count), sum_across(sum + v));
}

/* One channel: a number of x is worth only one multiply-add in each pixel that sees it, so it is loaded once for the
 * three pixels of a row that do. CPU_LANES neighbouring pixels from m on, of which the first `done` are not stored. */
static void collect_neighbours(const collect_job *c, const collect_run *run, int64_t m, int64_t done)
{
    const float *x = run->x + m * c->channels, *w = run->w;
    cpu_vec sum[CPU_LANES], tap[3];
#pragma GCC unroll 16
    for (int i = 0; i < CPU_LANES; i++) sum[i] = (cpu_vec){0};
    for (int64_t r = 0; r < run->lines; r++, x += c->x_line, w += c->w_line) {
        for (int64_t l = 0; l < c->channels; l += CPU_LANES) {
            const float *at = x + l, *below = r == 0 ? at + run->lines * c->x_line : at;
            int64_t n = cpu_min64(CPU_LANES, c->channels - l);
#pragma GCC unroll 3
            for (int s = 0; s < 3; s++) tap[s] = few_load(w + s * c->channels + l, n);
#pragma GCC unroll 18
            for (int i = 0; i < CPU_LANES + 2; i++, at += c->channels, below += c->channels) {
                cpu_vec v = few_load(at, n);
                IN_REGISTER(v);
                __builtin_prefetch(below, 0, 2);
#pragma GCC unroll 3
                for (int s = 0; s < 3; s++)
                    if (i >= s && i - s < CPU_LANES) sum[i - s] += v * tap[s];
            }
        }
    }
    collect_store(1, c, run, m, done, CPU_LANES, sum_across(sum));
}

static void collect1(const collect_job *c, const collect_run *run)
{
    int64_t m = 0;
    if (run->x_step == c->channels && run->length == 3 * c->channels && run->pixels >= CPU_LANES) {
        for (; m + CPU_LANES <= run->pixels; m += CPU_LANES) collect_neighbours(c, run, m, 0);
        if (m < run->pixels) collect_neighbours(c, run, run->pixels - CPU_LANES, m + CPU_LANES - run->pixels);
        return;
    }
    for (; m < run->pixels; m += COLLECT_PIXELS(1)) collect_pixels(1, c, run, m);
}
#define COLLECT_DEFINE(few)                                                                                            \
    static void collect##few(const collect_job *c, const collect_run *run)                                             \
    {                                                                                                                  \
        for (int64_t m = 0; m < run->pixels; m += COLLECT_PIXELS(few)) collect_pixels(few, c, run, m);                 \
    }
COLLECT_DEFINE(2)
COLLECT_DEFINE(3)
COLLECT_DEFINE(4)
static void (*const collect_runs[FEW])(const collect_job *, const collect_run *) = {collect1, collect2, collect3,
                                                                                    collect4};

/* Along one dimension, taps first .. last of `taps` see the map from output i on, and so until the output returned;
 * none where last <= first. */
static int64_t same_taps(int64_t i, int64_t end, int64_t begin, int64_t size, int64_t taps, int64_t *first,
                         int64_t *last)
{
    int64_t at = i + begin;
    *first = at < 0 ? cpu_min64(-at, taps) : 0;
    *last = at + taps > size ? size - at : taps;
    return *first == 0 && *last == taps ? cpu_min64(end, size - taps - begin + 1) : i + 1;
}

static void collect_band(const few_job *j, const collect_job *c, const float *u, int64_t image, int64_t i0, int64_t i1,
                         float *y)
{
    const patches *p = &j->in;
    int64_t r0, r1, s0, s1;
    for (int64_t i = i0, below; i < i1; i = below) {
        below = same_taps(i, i1, p->top, p->h, p->r, &r0, &r1);
        for (int64_t k = 0, right; k < p->cols; k = right) {
            right = same_taps(k, p->cols, p->left, p->w, p->s, &s0, &s1);
            int64_t at = (i + p->top + r0) * p->w + k + p->left + s0;
            bool down = right - k == 1; /* a column at the border */
            collect_run run = {.x = p->x + (image * p->h * p->w + at) * p->c,
                               .w = u + (r0 * p->s + s0) * p->c,
                               .y = y + ((image * p->rows + i) * p->cols + k) * j->few,
                               .pixels = down ? below - i : right - k,
                               .x_step = down ? c->x_line : p->c,
                               .y_step = (down ? p->cols : 1) * j->few,
                               .lines = s1 > s0 ? r1 - r0 : 0,
                               .length = (s1 - s0) * p->c};
            for (int64_t l = 0; l < (down ? 1 : below - i); l++) {
                collect_runs[j->few - 1](c, &run);
                run.x += c->x_line;
                run.y += p->cols * j->few;
            }
        }
    }
}

static int collect(sag_kernel_env *env, const few_job *j, float *y, const float *bias, int accumulate)
{
    const patches *p = &j->in;
    int64_t depth = p->r * p->s * j->many;
    int threads = j->images * p->rows * p->cols * depth * j->few < FEW_SMALL ? 1 : env->threads;
    float *u = env->scratch(env, (size_t)(depth * j->few) * sizeof *u), row[CPU_LANES] = {0};
    if (!u) return SAG_KERNEL_NO_MEMORY;
    for (int64_t f = 0; f < j->few; f++) /* [f][r][s][n] */
        for (int64_t t = 0; t < p->r * p->s; t++)
            for (int64_t n = 0; n < j->many; n++)
                u[f * depth + t * j->many + n] = j->w[few_weight_at(j, t / p->s, t % p->s, f, n)];
    for (int64_t i = 0; bias && i < CPU_LANES / j->few * j->few; i++) row[i] = bias[i % j->few];
    collect_job c = {.channels = j->many,
                     .x_line = p->w * p->c,
                     .w_line = p->s * p->c,
                     .w_few = depth,
                     .bias = bias ? row : NULL,
                     .accumulate = accumulate};
    int64_t rows = j->out_rows < COLLECT_ROWS ? COLLECT_ROWS : j->out_rows, bands = cpu_ceil_div(p->rows, rows);
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int64_t t = 0; t < j->images * bands; t++) {
        int64_t i0 = t % bands * rows;
        collect_band(j, &c, u, t / bands, i0, cpu_min64(p->rows, i0 + rows), y);
    }
    return SAG_KERNEL_OK;
}

/* ---------------------------------------------------------------------------------------------- directions */

bool CPU_ISA(few_suits)(const conv_args *a, few_way way)
{
    int64_t few = cpu_min64(a->c, a->k), many = a->c < a->k ? a->k : a->c;
    if (a->stride != 1 || a->r > FEW_TAPS || a->s > FEW_TAPS || many < 8) return false;
    bool flat = way == FEW_BWD_W && a->r == 1 && a->s == 1 && a->pad_h == 0 && a->pad_w == 0;
    if (flat ? few * many > FEW_FLAT : few > FEW) return false;
    if (way != FEW_BWD_W && (way == FEW_FWD) == (a->c < a->k)) return true;
    return CPU_LANES == 16 || many % CPU_LANES == 0; /* the others have no loads of parts of a vector */
}

int CPU_ISA(few_fwd)(sag_kernel_env *env, const conv_args *a)
{
    few_job j = CPU_ISA(few_job_of)(a, false);
    return (a->c < a->k ? spread : collect)(env, &j, a->y, a->b, false);
}

int CPU_ISA(few_bwd_x)(sag_kernel_env *env, const conv_args *a)
{
    few_job j = CPU_ISA(few_job_of)(a, true);
    return (a->c < a->k ? collect : spread)(env, &j, a->dx, NULL, a->accumulate);
}
