/*
 * gemm.c - the blocked matrix product: packs B, cuts M x N into pieces, fetches rows of A, runs the register tile.
 * After Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), but with A kept by rows: its
 * elements are broadcast, so there is nothing to gain from transposing them, and a row is what a patch is made of.
 * gemm.h has the contract.
 */
#include "kernels/cpu/gemm.h"

#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/transpose.h"

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

#if CPU_LANES > 4
#define PAIRS_TILE(family, v)                                                                                    \
    static void family##_g2x##v(int64_t depth, const float *a, int64_t a_step, const float *b, int64_t ldb,      \
                                const tile_out *out)                                                             \
    {                                                                                                            \
        (void)a_step, (void)ldb;                                                                                 \
        tile_run_groups(4 * v, 2, depth, a, GEMM_LDA, b, out);                                                   \
    }
TILE_SIZES(PAIRS_TILE, rows)
#define ROWS_PAIRS(family, v) family##_g2x##v,
static tile_kernel *const rows_pairs[TILE_VARIANTS] = {NULL, TILE_SIZES(ROWS_PAIRS, rows)};
#endif
#if CPU_LANES == 16
#define FOURS_TILE(family, v)                                                                                    \
    static void family##_g4x##v(int64_t depth, const float *a, int64_t a_step, const float *b, int64_t ldb,      \
                                const tile_out *out)                                                             \
    {                                                                                                            \
        (void)a_step, (void)ldb;                                                                                 \
        tile_run_groups(4 * v, 4, depth, a, GEMM_LDA, b, out);                                                   \
    }
TILE_SIZES(FOURS_TILE, rows)
#define ROWS_FOURS(family, v) family##_g4x##v,
static tile_kernel *const rows_fours[TILE_VARIANTS] = {NULL, TILE_SIZES(ROWS_FOURS, rows)};
#endif

/* How a strip of `cols` columns is laid out and which kernels take it. */
typedef struct strip_kind {
    int vectors, group;
    tile_kernel *const *kernels; /* for v * (group or vectors == 1 ? 4 : 2) rows */
} strip_kind;

static strip_kind kind_of(int64_t cols)
{
    if (cols > CPU_LANES) return (strip_kind){2, 1, rows_wide};
#if CPU_LANES == 16
    if (cols <= 4) return (strip_kind){1, 4, rows_fours};
#endif
#if CPU_LANES > 4
    if (cols <= CPU_LANES / 2) return (strip_kind){1, 2, rows_pairs};
#endif
    return (strip_kind){1, 1, rows_narrow};
}

/* --------------------------------------------------------------------------------------------- layout of B */

typedef struct gemm_plan {
    int64_t blocks, depth;  /* of k; depth a multiple of 4 */
    int64_t width;          /* columns with padding */
    int64_t mc, m_pieces, n_pieces;
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
    p.blocks = cpu_ceil_div(job->k, GEMM_KC);
    p.depth = round_up(cpu_ceil_div(job->k, p.blocks), 4);
    p.blocks = cpu_ceil_div(job->k, p.depth);
    p.width = round_up(job->n, CPU_LANES);
    p.n_pieces = cpu_ceil_div(job->n, GEMM_NC);
    p.mc = round_up(cpu_ceil_div(job->m * p.n_pieces, 32), 2 * GEMM_MR); /* at least 32 pieces if there are rows enough */
    if (p.mc > GEMM_MC) p.mc = GEMM_MC;
    p.m_pieces = cpu_ceil_div(job->m, p.mc);
    p.b_floats = round_up(round_up(job->k, 4) * p.width, 16);
    p.panel_floats = p.mc * GEMM_LDA + 16;
    return p;
}

static int64_t b_at(const gemm_b *b, int64_t k)
{
    return b->offset ? b->offset[k] : k * b->row;
}

/* Columns n0 .. n0+cols of k0 .. k0+depth, zeros behind, to dst[k][column], or in groups of k [k / g][column][k % g]. */
static void pack_strip(const gemm_b *b, int64_t k0, int64_t depth, int64_t n0, int64_t cols, float *dst)
{
    strip_kind kind = kind_of(cols);
    int64_t width = kind.vectors * CPU_LANES, g = kind.group;
    if (g > 1) {
        gemm_clear(dst, round_up(depth, g) * width / g);
        for (int64_t k = 0; k < depth; k++) {
            const float *src = b->data + b_at(b, k0 + k) + n0 * b->column;
            for (int64_t j = 0; j < cols; j++) dst[k / g * width + j * g + k % g] = src[j * b->column];
        }
        return;
    }
    if (b->column == 1) {
        for (int64_t k = 0; k < depth; k++, dst += width) {
            gemm_copy(dst, b->data + b_at(b, k0 + k) + n0, cols);
            gemm_clear(dst + cols, width - cols);
        }
        return;
    }
    int64_t k = 0;
    while (k < depth) {
        const float *src = b->data + b_at(b, k0 + k) + n0 * b->column;
        bool block = k + CPU_LANES <= depth && b_at(b, k0 + k + CPU_LANES - 1) == b_at(b, k0 + k) + CPU_LANES - 1;
        if (block) { /* k runs along memory: transpose squares */
            int64_t j = 0;
            for (; j + CPU_LANES <= cols; j += CPU_LANES) transpose_square(src + j * b->column, b->column, dst + k * width + j, width);
            for (; j < cols; j++)
                for (int64_t i = 0; i < CPU_LANES; i++) dst[(k + i) * width + j] = src[j * b->column + i];
            for (int64_t i = 0; i < CPU_LANES; i++) gemm_clear(dst + (k + i) * width + cols, width - cols);
            k += CPU_LANES;
        } else {
            for (int64_t j = 0; j < cols; j++) dst[k * width + j] = src[j * b->column];
            gemm_clear(dst + k * width + cols, width - cols);
            k++;
        }
    }
}

/* Strip number `strip` of the block of k that starts at k0: [depth][width of strip]. */
static float *strip_at(const gemm_plan *p, float *packed, int64_t k0, int64_t depth, int64_t strip)
{
    return packed + k0 * p->width + strip * GEMM_NR * round_up(depth, 4);
}

static void pack_b(const gemm_job *job, const gemm_plan *p, float *packed, int threads)
{
    int64_t strips = cpu_ceil_div(job->n, GEMM_NR);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && job->k * job->n > 16384)
    for (int64_t u = 0; u < strips * p->blocks; u++) {
        int64_t k0 = u / strips * p->depth, n0 = u % strips * GEMM_NR;
        int64_t depth = cpu_min64(p->depth, job->k - k0), cols = cpu_min64(GEMM_NR, job->n - n0);
        pack_strip(&job->b, k0, depth, n0, cols, strip_at(p, packed, k0, depth, u % strips));
    }
}

/* ------------------------------------------------------------------------------------------------ pieces */

static void run_piece(const gemm_job *job, const gemm_plan *p, float *packed, float *panel, int64_t m0, int64_t n0)
{
    float *row[GEMM_MC];
    int64_t rows = cpu_min64(p->mc, job->m - m0), n1 = cpu_min64(n0 + GEMM_NC, job->n);
    job->place(job->c, m0, rows, row);
    for (int64_t k0 = 0; k0 < job->k; k0 += p->depth) {
        int64_t depth = cpu_min64(p->depth, job->k - k0);
        job->fetch(job->a, m0, rows, k0, depth, panel, GEMM_LDA);
        /* The rows that fill up the last tile are never stored, but must not hold denormals. */
        int64_t whole = round_up(depth, 4);
        for (int64_t i = rows; i < round_up(rows, 4); i++) gemm_clear(panel + i * GEMM_LDA, whole);
        for (int64_t i = 0; i < rows && whole > depth; i++) gemm_clear(panel + i * GEMM_LDA + depth, whole - depth);
        for (int64_t n = n0; n < n1; n += GEMM_NR) {
            strip_kind kind = kind_of(n1 - n);
            int64_t grain = kind.vectors == 2 ? 2 : 4, most = grain * (GEMM_MR / 2);
            const float *b = strip_at(p, packed, k0, depth, n / GEMM_NR);
            for (int64_t i = 0; i < rows; i += most) {
                tile_out out = {.row = row + i, .col = n, .rows = (int)cpu_min64(most, rows - i),
                                .cols = (int)cpu_min64(GEMM_NR, n1 - n), .add = job->accumulate || k0 > 0,
                                .bias = job->bias && k0 == 0 ? job->bias + n : NULL};
                kind.kernels[cpu_ceil_div(out.rows, grain)](kind.group > 1 ? whole : depth, panel + i * GEMM_LDA, 1, b, 0, &out);
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
        run_piece(job, &p, packed, panel, m0, u % p.n_pieces * GEMM_NC);
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
