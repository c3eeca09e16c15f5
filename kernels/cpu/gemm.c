/*
 * gemm.c - the blocked matrix product: packs B, cuts M x N into pieces, fetches rows of A, runs the register tile.
 * After Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), but with A kept by rows: its
 * elements are broadcast, so there is nothing to gain from transposing them, and a row is what a patch is made of.
 * gemm.h has the contract.
 */
#include "kernels/cpu/gemm.h"

#include "kernels/cpu/gemm_tile.h"

#define DOT_ROWS 6 /* rows of one tile of dot products: 6 x 4 accumulators */

/* ------------------------------------------------------------------------------------------------- tiles */

#define ROWS_TILE(family, v)                                                                                     \
    static void family##_2x##v(int64_t depth, const float *a, int64_t a_step, const float *b, int64_t ldb,       \
                               const tile_out *out)                                                              \
    {                                                                                                            \
        (void)a_step, (void)ldb;                                                                                 \
        tile_run(2 * v, 2, depth, a, GEMM_LDA, 1, b, 2 * CPU_LANES, out);                                        \
    }                                                                                                            \
    static void family##_1x##v(int64_t depth, const float *a, int64_t a_step, const float *b, int64_t ldb,       \
                               const tile_out *out)                                                              \
    {                                                                                                            \
        (void)a_step, (void)ldb;                                                                                 \
        tile_run(4 * v, 1, depth, a, GEMM_LDA, 1, b, CPU_LANES, out);                                            \
    }
TILE_SIZES(ROWS_TILE, rows)
#define ROWS_WIDE(family, v) family##_2x##v,
#define ROWS_NARROW(family, v) family##_1x##v,
static tile_kernel *const rows_wide[TILE_VARIANTS] = {NULL, TILE_SIZES(ROWS_WIDE, rows)};
static tile_kernel *const rows_narrow[TILE_VARIANTS] = {NULL, TILE_SIZES(ROWS_NARROW, rows)};

static float lanes_sum(cpu_vec v)
{
    float x[CPU_LANES];
    cpu_store(x, v);
#pragma GCC unroll 4
    for (int half = CPU_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}

/* DOT_ROWS rows against n <= 4 columns, both with k contiguous and padded with zeros to whole vectors. */
__attribute__((always_inline)) static inline void dot_tile(const int n, int64_t depth, const float *a, const float *b,
                                                           int64_t ld, const tile_out *out)
{
    cpu_vec acc[DOT_ROWS * GEMM_DOT_N];
#pragma GCC unroll 24
    for (int i = 0; i < DOT_ROWS * n; i++) acc[i] = (cpu_vec){0};
#pragma GCC unroll 1
    for (int64_t k = 0; k < depth; k += CPU_LANES) {
        cpu_vec w[GEMM_DOT_N];
#pragma GCC unroll 4
        for (int j = 0; j < n; j++) w[j] = cpu_load(b + j * ld + k);
#pragma GCC unroll 6
        for (int i = 0; i < DOT_ROWS; i++) {
            cpu_vec x = cpu_load(a + i * ld + k);
#pragma GCC unroll 4
            for (int j = 0; j < n; j++) acc[i * n + j] += x * w[j];
        }
    }
    float tile[DOT_ROWS * GEMM_DOT_N];
#pragma GCC unroll 24
    for (int i = 0; i < DOT_ROWS * n; i++) tile[i] = lanes_sum(acc[i]);
    tile_store_edge(tile, n, out);
}

/* --------------------------------------------------------------------------------------------- layout of B */

typedef struct gemm_plan {
    int64_t blocks, depth;  /* of k */
    int64_t width;          /* columns with padding */
    int64_t mc, m_pieces, n_pieces;
    bool dot;
    int64_t ld;             /* dot: k rounded up to whole vectors */
    int64_t b_floats, panel_floats;
} gemm_plan;

static int64_t round_up(int64_t a, int64_t to)
{
    return cpu_ceil_div(a, to) * to;
}

/* From the shape alone: neither memory nor threads change which sums are formed. */
static gemm_plan plan_of(const gemm_job *job)
{
    gemm_plan p = {0};
    p.dot = job->n <= GEMM_DOT_N && job->k >= 2 * CPU_LANES;
    p.blocks = cpu_ceil_div(job->k, GEMM_KC);
    p.depth = cpu_ceil_div(job->k, p.blocks);
    p.width = round_up(job->n, CPU_LANES);
    p.n_pieces = p.dot ? 1 : cpu_ceil_div(job->n, GEMM_NC);
    int64_t grain = p.dot ? 4 * DOT_ROWS : 2 * GEMM_MR;
    int64_t most = p.dot ? grain : GEMM_MC;
    p.mc = round_up(cpu_ceil_div(job->m * p.n_pieces, 32), grain); /* at least 32 pieces if there are rows enough */
    if (p.mc > most) p.mc = most;
    p.m_pieces = cpu_ceil_div(job->m, p.mc);
    p.ld = round_up(job->k, CPU_LANES);
    p.b_floats = p.dot ? job->n * p.ld : job->k * p.width;
    p.b_floats = round_up(p.b_floats, 16);
    p.panel_floats = round_up(p.dot ? p.mc * p.ld : p.mc * GEMM_LDA, 16) + 16;
    return p;
}

static int64_t b_at(const gemm_b *b, int64_t k)
{
    return b->offset ? b->offset[k] : k * b->row;
}

/* Columns n0 .. n0+cols of k0 .. k0+depth to dst[k * width + j], zeros behind. */
static void pack_strip(const gemm_b *b, int64_t k0, int64_t depth, int64_t n0, int64_t cols, int64_t width, float *dst)
{
    if (b->column == 1) {
        for (int64_t k = 0; k < depth; k++, dst += width) {
            gemm_copy(dst, b->data + b_at(b, k0 + k) + n0, cols);
            gemm_clear(dst + cols, width - cols);
        }
        return;
    }
    for (int64_t k = 0; k < depth; k++, dst += width) {
        const float *src = b->data + b_at(b, k0 + k) + n0 * b->column;
        for (int64_t j = 0; j < cols; j++) dst[j] = src[j * b->column];
        gemm_clear(dst + cols, width - cols);
    }
}

/* Strip number `strip` of the block of k that starts at k0: [depth][width of strip]. */
static float *strip_at(const gemm_plan *p, float *packed, int64_t k0, int64_t depth, int64_t strip)
{
    return packed + k0 * p->width + strip * GEMM_NR * depth;
}

static void pack_b(const gemm_job *job, const gemm_plan *p, float *packed, int threads)
{
    if (p->dot) {
        for (int64_t j = 0; j < job->n; j++) {
            for (int64_t k = 0; k < job->k; k++) packed[j * p->ld + k] = job->b.data[b_at(&job->b, k) + j * job->b.column];
            gemm_clear(packed + j * p->ld + job->k, p->ld - job->k);
        }
        return;
    }
    int64_t strips = cpu_ceil_div(job->n, GEMM_NR);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && job->k * job->n > 16384)
    for (int64_t u = 0; u < strips * p->blocks; u++) {
        int64_t k0 = u / strips * p->depth, n0 = u % strips * GEMM_NR;
        int64_t depth = cpu_min64(p->depth, job->k - k0), cols = cpu_min64(GEMM_NR, job->n - n0);
        pack_strip(&job->b, k0, depth, n0, cols, cpu_min64(GEMM_NR, p->width - n0), strip_at(p, packed, k0, depth, u % strips));
    }
}

/* ------------------------------------------------------------------------------------------------ pieces */

static void run_dot(const gemm_job *job, const gemm_plan *p, const float *packed, float *panel, int64_t m0)
{
    float *row[DOT_ROWS];
    int64_t rows = cpu_min64(p->mc, job->m - m0);
    job->fetch(job->a, m0, rows, 0, job->k, panel, p->ld);
    for (int64_t i = 0; i < rows; i++) gemm_clear(panel + i * p->ld + job->k, p->ld - job->k);
    for (int64_t i = rows; i < round_up(rows, DOT_ROWS); i++) gemm_clear(panel + i * p->ld, p->ld);
    for (int64_t i = 0; i < rows; i += DOT_ROWS) {
        tile_out out = {.row = row, .rows = (int)cpu_min64(DOT_ROWS, rows - i), .cols = (int)job->n,
                        .add = job->accumulate != 0, .bias = job->bias};
        job->place(job->c, m0 + i, out.rows, row);
        const float *a = panel + i * p->ld;
        switch (job->n) {
        case 1: dot_tile(1, p->ld, a, packed, p->ld, &out); break;
        case 2: dot_tile(2, p->ld, a, packed, p->ld, &out); break;
        case 3: dot_tile(3, p->ld, a, packed, p->ld, &out); break;
        default: dot_tile(4, p->ld, a, packed, p->ld, &out); break;
        }
    }
}

static void run_piece(const gemm_job *job, const gemm_plan *p, float *packed, float *panel, int64_t m0, int64_t n0)
{
    float *row[GEMM_MC];
    int64_t rows = cpu_min64(p->mc, job->m - m0), n1 = cpu_min64(n0 + GEMM_NC, job->n);
    job->place(job->c, m0, rows, row);
    for (int64_t k0 = 0; k0 < job->k; k0 += p->depth) {
        int64_t depth = cpu_min64(p->depth, job->k - k0);
        job->fetch(job->a, m0, rows, k0, depth, panel, GEMM_LDA);
        /* The rows that fill up the last tile are never stored, but must not hold denormals. */
        for (int64_t i = rows; i < round_up(rows, 4); i++) gemm_clear(panel + i * GEMM_LDA, depth);
        for (int64_t n = n0; n < n1; n += GEMM_NR) {
            bool wide = n1 - n > CPU_LANES;
            int64_t most = wide ? GEMM_MR : 2 * GEMM_MR, grain = wide ? 2 : 4;
            const float *b = strip_at(p, packed, k0, depth, n / GEMM_NR);
            for (int64_t i = 0; i < rows; i += most) {
                tile_out out = {.row = row + i, .col = n, .rows = (int)cpu_min64(most, rows - i),
                                .cols = (int)cpu_min64(GEMM_NR, n1 - n), .add = job->accumulate || k0 > 0,
                                .bias = job->bias && k0 == 0 ? job->bias + n : NULL};
                int64_t v = cpu_ceil_div(out.rows, grain);
                (wide ? rows_wide : rows_narrow)[v](depth, panel + i * GEMM_LDA, 1, b, 0, &out);
            }
        }
    }
}

int64_t CPU_ISA(gemm_bytes)(const gemm_job *job, int threads)
{
    gemm_plan p = plan_of(job);
    return (p.b_floats + threads * p.panel_floats) * (int64_t)sizeof(float);
}

void CPU_ISA(gemm_run)(const gemm_job *job, void *memory, int threads)
{
    gemm_plan p = plan_of(job);
    float *packed = memory, *panels = packed + p.b_floats;
    pack_b(job, &p, packed, threads);
    if (job->m * job->n * job->k < 32768) threads = 1;
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int64_t u = 0; u < p.m_pieces * p.n_pieces; u++) {
        float *panel = panels + omp_get_thread_num() * p.panel_floats;
        int64_t m0 = u / p.n_pieces * p.mc;
        if (p.dot) run_dot(job, &p, packed, panel, m0);
        else run_piece(job, &p, packed, panel, m0, u % p.n_pieces * GEMM_NC);
    }
}

int CPU_ISA(gemm)(sag_kernel_env *env, const gemm_job *job)
{
    void *memory = env->scratch(env, (size_t)CPU_ISA(gemm_bytes)(job, env->threads));
    if (!memory) return SAG_KERNEL_NO_MEMORY;
    CPU_ISA(gemm_run)(job, memory, env->threads);
    return SAG_KERNEL_OK;
}

void CPU_ISA(gemm_fetch_rows)(const void *a, int64_t m0, int64_t rows, int64_t k0, int64_t depth, float *panel, int64_t ld)
{
    const gemm_rows *s = a;
    for (int64_t i = 0; i < rows; i++) gemm_copy(panel + i * ld, s->base + (m0 + i) * s->stride + k0, depth);
}

void CPU_ISA(gemm_place_rows)(const void *c, int64_t m0, int64_t rows, float **row)
{
    const gemm_rows *s = c;
    for (int64_t i = 0; i < rows; i++) row[i] = s->base + (m0 + i) * s->stride;
}
