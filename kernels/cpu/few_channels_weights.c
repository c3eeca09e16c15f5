/* few_channels_weights.c - the weight gradient of conv2d with few channels on one side; few_channels.h has the loops.
 */
#include "kernels/cpu/few_channels.h"

/* Pixels of a chunk, and where the sums go: [r][s][f][n], rows `ld` apart. */
typedef struct weigh_walk {
    int64_t rows, cols;
    int64_t few, line, many; /* floats from one pixel to the next and from row to row of the band, to the next n = 0 */
    int64_t ld, sums_line;   /* sums_line: from one r to the next */
    bool add;
    const float *ahead; /* the next chunk, fetched a cache line a pixel */
} weigh_walk;

/* `run` numbers of the patch in each of `lines` rows, times one or two vectors of n, the last with `left` numbers. */
CPU_INLINE void weigh_block(const int lines, const int run, const int vectors, weigh_walk *o, const float *few,
                            const float *many, int64_t left, float *sums)
{
    cpu_vec acc[2 * GEMM_MR], v[2];
    const float *ahead = o->ahead;
#pragma GCC unroll 28
    for (int i = 0; i < lines * run * vectors; i++) acc[i] = (cpu_vec){0};
    for (int64_t row = 0; row < o->rows; row++, few += o->line) {
        const float *a = few, *b = few + o->line, *c = b + o->line;
        for (int64_t m = o->cols; m > 0; m--, a += o->few, b += o->few, c += o->few, many += o->many) {
            __builtin_prefetch(ahead, 0, 2);
            ahead += 16;
            v[0] = vectors == 2 ? cpu_load(many) : few_load(many, left);
            if (vectors == 2) v[1] = few_load(many + CPU_LANES, left);
#pragma GCC unroll 28
            for (int i = 0; i < lines * run; i++) {
                const cpu_vec x = cpu_splat((i < run ? a : i < 2 * run ? b : c)[i % run]);
#pragma GCC unroll 2
                for (int k = 0; k < vectors; k++) acc[i * vectors + k] += x * v[k];
            }
        }
    }
    o->ahead = ahead;
#pragma GCC unroll 28
    for (int i = 0; i < lines * run; i++)
#pragma GCC unroll 2
        for (int k = 0; k < vectors; k++) {
            float *s = sums + i / run * o->sums_line + i % run * o->ld + k * CPU_LANES;
            cpu_store(s, o->add ? cpu_load(s) + acc[i * vectors + k] : acc[i * vectors + k]);
        }
}

typedef void weigh_kernel(weigh_walk *o, const float *few, const float *many, int64_t left, float *sums);
#define WEIGH_NAME(lines, run, vectors) weigh##lines##_##run##_##vectors
#define WEIGH_DEFINE(lines, run, vectors)                                                                              \
    static void WEIGH_NAME(lines, run, vectors)(weigh_walk * o, const float *few, const float *many, int64_t left,     \
                                                float *sums)                                                           \
    {                                                                                                                  \
        weigh_block(lines, run, vectors, o, few, many, left, sums);                                                    \
    }
#define WEIGH_ENTRY(lines, run, vectors) WEIGH_NAME(lines, run, vectors),
#if CPU_LANES == 16
#define WEIGH_RUNS(X, v)                                                                                               \
    X(1, 1, v)                                                                                                         \
    X(1, 2, v)                                                                                                         \
    X(1, 3, v)                                                                                                         \
    X(1, 4, v)                                                                                                         \
    X(1, 5, v) X(1, 6, v) X(1, 7, v) X(1, 8, v) X(1, 9, v) X(1, 10, v) X(1, 11, v) X(1, 12, v) X(1, 13, v) X(1, 14, v)
#define WEIGH_THREE(X, v) X(3, 3, v) X(3, 6, v) X(3, 9, v)
#else
#define WEIGH_RUNS(X, v) X(1, 1, v) X(1, 2, v) X(1, 3, v) X(1, 4, v) X(1, 5, v) X(1, 6, v)
#define WEIGH_THREE(X, v) X(3, 3, v)
#endif
WEIGH_RUNS(WEIGH_DEFINE, 1)
WEIGH_RUNS(WEIGH_DEFINE, 2)
WEIGH_THREE(WEIGH_DEFINE, 1)
#if CPU_LANES == 16
WEIGH_DEFINE(3, 3, 2)
#endif
static weigh_kernel *const weigh_runs[2][GEMM_MR] = {{WEIGH_RUNS(WEIGH_ENTRY, 1)}, {WEIGH_RUNS(WEIGH_ENTRY, 2)}};

/* Three rows of the patch at once, where few sums would wait for one another; NULL: not worth it, or too many. */
static weigh_kernel *weigh_three(int64_t run, int vectors)
{
    static weigh_kernel *const one[] = {WEIGH_THREE(WEIGH_ENTRY, 1)};
    if (run % 3 != 0 || run / 3 > (int64_t)(sizeof one / sizeof *one)) return NULL;
#if CPU_LANES == 16
    if (vectors == 2) return run == 3 ? WEIGH_NAME(3, 3, 2) : NULL;
#endif
    return vectors == 1 ? one[run / 3 - 1] : NULL;
}

/* One chunk: all taps, strip by strip of n. */
static void weigh_chunk(const few_job *j, weigh_walk *o, const float *few, const float *many, float *sums)
{
    const patches *p = &j->in;
    int64_t run = p->s * j->few, pieces = cpu_ceil_div(run, GEMM_MR), each = cpu_ceil_div(run, pieces);
    int64_t pixels = o->rows * o->cols;
    o->ahead = many + pixels * j->many;
    for (int64_t n = 0; n < j->many; n += GEMM_NR, many += GEMM_NR, sums += GEMM_NR) {
        int64_t cols = cpu_min64(GEMM_NR, j->many - n);
        int vectors = cols > CPU_LANES ? 2 : 1;
        int64_t left = cols - (vectors - 1) * CPU_LANES;
        if (few_flat(p) && n > 0 && n + GEMM_NR >= j->many) o->ahead = few + pixels * j->few;
        weigh_kernel *three = p->r % 3 == 0 ? weigh_three(run, vectors) : NULL;
        for (int64_t r = 0; r < p->r; r += three ? 3 : 1) {
            const float *a = few + r * o->line;
            float *s = sums + r * o->sums_line;
            if (three) {
                three(o, a, many, left, s);
                continue;
            }
            for (int64_t i = 0; i < run; i += each)
                weigh_runs[vectors - 1][cpu_min64(each, run - i) - 1](o, a + i, many, left, s + i * o->ld);
        }
    }
}

/* The bias gradient, where dy has the many channels: s[n] (+)= the sum over the chunk's pixels. */
static void add_pixels(const few_job *j, const weigh_walk *o, const float *many, float *s)
{
    for (int64_t n = 0; n < j->many; n += CPU_LANES) {
        int64_t left = cpu_min64(CPU_LANES, j->many - n);
        cpu_vec even = {0}, odd = {0};
        const float *x = many + n;
        int64_t m = o->rows * o->cols;
        for (; m > 1; m -= 2, x += 2 * o->many) {
            even += few_load(x, left);
            odd += few_load(x + o->many, left);
        }
        if (m > 0) even += few_load(x, left);
        cpu_store(s + n, o->add ? cpu_load(s + n) + (even + odd) : even + odd);
    }
}

/* dw, and db unless it is NULL, from `many`, which has pixels where the patches of j->in are counted. */
static int weigh(sag_kernel_env *env, const few_job *j, const float *many, float *dw, int accumulate, float *db,
                 int accumulate_db)
{
    const patches *p = &j->in;
    few_band b = few_band_of(j);
    bool flat = few_flat(p);
    int64_t depth = p->r * p->s * j->few, ld = round_up(j->many, CPU_LANES), n = round_up((depth + 1) * ld, 16);
    int64_t pixels = j->images * p->rows * p->cols, each = cpu_ceil_div(FEW_FLOATS, j->many + j->few);
    /* Slices: enough for 32 pieces of work, none below a few chunks. */
    int64_t chunks = flat ? cpu_ceil_div(pixels, each) : j->images * j->bands,
            slices = cpu_min64(32, cpu_ceil_div(chunks, 4));
    int64_t per_slice = cpu_ceil_div(chunks, slices);
    slices = cpu_ceil_div(chunks, per_slice);
    int threads = pixels * depth * j->many < FEW_SMALL ? 1 : env->threads;
    float *sums = env->scratch(env, (size_t)(slices * n + threads * b.floats) * sizeof *sums);
    if (!sums) return SAG_KERNEL_NO_MEMORY;
    float *bands = sums + slices * n;
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int64_t t = 0; t < slices; t++) {
        float *band = bands + omp_get_thread_num() * b.floats, *s = sums + t * n;
        weigh_walk o = {.few = j->few, .line = b.row_ld, .many = j->many, .ld = ld, .sums_line = p->s * j->few * ld};
        for (int64_t c = t * per_slice; c < cpu_min64(chunks, (t + 1) * per_slice); c++, o.add = true) {
            int64_t image = c / j->bands, i0 = c % j->bands * j->out_rows;
            int64_t m = flat ? c * each : (image * p->rows + i0) * p->cols;
            const float *g = many + m * j->many, *few = flat ? p->x + m * j->few : band;
            o.rows = flat ? 1 : cpu_min64(j->out_rows, p->rows - i0);
            o.cols = flat ? cpu_min64(each, pixels - m) : p->cols;
            if (!flat) few_copy_band(j, &b, image, i0, o.rows, band);
            weigh_chunk(j, &o, few, g, s);
            if (db) add_pixels(j, &o, g, s + depth * ld);
        }
    }
    for (int64_t t = 1; t < slices; t++)
        for (int64_t i = 0; i < n; i++) sums[i] += sums[t * n + i];
    for (int64_t t = 0; t < p->r * p->s; t++)
        for (int64_t f = 0; f < j->few; f++)
            for (int64_t k = 0; k < j->many; k++) {
                float *d = dw + few_weight_at(j, t / p->s, t % p->s, f, k), s = sums[(t * j->few + f) * ld + k];
                *d = accumulate ? *d + s : s;
            }
    for (int64_t k = 0; db && k < j->many; k++)
        db[k] = accumulate_db ? db[k] + sums[depth * ld + k] : sums[depth * ld + k];
    return SAG_KERNEL_OK;
}

int CPU_ISA(few_bwd_w)(sag_kernel_env *env, const conv_args *a)
{
    few_job j = CPU_ISA(few_job_of)(a, a->k <= a->c);
    if (a->c < a->k) return weigh(env, &j, a->dy, a->dw, a->accumulate_dw, a->db, a->accumulate_db);
    int result = weigh(env, &j, a->x, a->dw, a->accumulate_dw, NULL, 0);
    if (!a->db || result != SAG_KERNEL_OK) return result;
    return CPU_ISA(column_sum)(env, a->dy, a->n * a->p * a->q, a->k, a->db, a->accumulate_db);
}
