/*
 * gemm.c - the blocked matrix product: cuts M x N into pieces, fetches rows of A, runs the register tile.
 * After Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), but with A kept by rows: its
 * elements are broadcast, so there is nothing to gain from transposing them, and a row is what a patch is made of.
 * gemm.h has the contract.
 */
#include "kernels/cpu/gemm.h"

#include "kernels/cpu/gemm_pack.h"
#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/patches.h"

TILE_DEFINE(panel_tiles, GEMM_LDA)

typedef struct gemm_plan {
    int64_t depth; /* of a block of k, a multiple of 4 */
    int64_t mc, m_pieces, n_pieces;
    int64_t b_floats, panel_floats;
} gemm_plan;

/* From the shape alone: neither memory nor threads change which sums are formed. */
static gemm_plan plan_of(const gemm_job *job)
{
    gemm_plan p = {.depth = round_up(cpu_ceil_div(job->k, cpu_ceil_div(job->k, GEMM_KC)), 4)};
    p.n_pieces = cpu_ceil_div(job->n, GEMM_NC);
    p.mc =
        round_up(cpu_ceil_div(job->m * p.n_pieces, 32), 2 * GEMM_MR); /* at least 32 pieces if there are rows enough */
    if (p.mc > GEMM_MC) p.mc = GEMM_MC;
    p.m_pieces = cpu_ceil_div(job->m, p.mc);
    p.b_floats = packed_floats(job->n, job->k);
    p.panel_floats = p.mc * GEMM_LDA + 16;
    return p;
}

static void run_piece(const gemm_job *job, const gemm_plan *p, const float *packed, float *panel, int64_t m0,
                      int64_t n0)
{
    float *row[GEMM_MC], *plus[GEMM_MC];
    int64_t rows = cpu_min64(p->mc, job->m - m0), n1 = cpu_min64(n0 + GEMM_NC, job->n);
    job->place(job->c, m0, rows, row);
    if (job->place_plus) job->place_plus(job->plus, m0, rows, plus);
    for (int64_t k0 = 0; k0 < job->k; k0 += p->depth) {
        int64_t depth = cpu_min64(p->depth, job->k - k0);
        job->fetch(job->a, m0, rows, k0, depth, panel, GEMM_LDA);
        /* The rows that fill up the last tile are never stored, but must not hold denormals. */
        int64_t whole = round_up(depth, 4);
        for (int64_t i = rows; i < round_up(rows, 4); i++) gemm_clear(panel + i * GEMM_LDA, whole);
        for (int64_t i = 0; i < rows && whole > depth; i++) gemm_clear(panel + i * GEMM_LDA + depth, whole - depth);
        for (int64_t n = n0; n < n1; n += GEMM_NR) {
            strip_kind kind = strip_kind_of(n1 - n);
            int64_t grain = strip_grain(kind), each = tile_rows(rows, grain);
            const float *b = packed_strip(packed, job->n, k0, depth, n / GEMM_NR);
            /* no further than pack_strip has cleared: what lies behind is an older product's */
            tile_walk walk = {.segments = 1, .depth = round_up(depth, strip_group(kind))};
            for (int64_t i = 0; i < rows; i += each) {
                tile_out out = {.row = row + i,
                                .col = n,
                                .rows = (int)cpu_min64(each, rows - i),
                                .cols = (int)cpu_min64(GEMM_NR, n1 - n),
                                .add = job->accumulate || k0 > 0,
                                .bias = job->bias && k0 == 0 ? job->bias + n : NULL};
                panel_tiles[kind][cpu_ceil_div(out.rows, grain)](&walk, panel + i * GEMM_LDA, b, &out);
            }
            if (job->place_plus && k0 + depth == job->k) gemm_add_rows(row, plus, rows, n, cpu_min64(GEMM_NR, n1 - n));
        }
    }
}

int64_t CPU_ISA(gemm_bytes)(const gemm_job *job, int threads)
{
    if (CPU_ISA(band_fits)(job)) return CPU_ISA(band_bytes)(job, threads);
    gemm_plan p = plan_of(job);
    return (p.b_floats + threads * p.panel_floats) * (int64_t)sizeof(float);
}

void CPU_ISA(gemm_run)(const gemm_job *job, void *memory, int threads)
{
    if (CPU_ISA(band_fits)(job)) {
        CPU_ISA(band_run)(job, memory, threads);
        return;
    }
    gemm_plan p = plan_of(job);
    float *packed = memory, *panels = packed + p.b_floats;
    CPU_ISA(gemm_pack)(&job->b, job->n, job->k, p.depth, packed, threads);
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

void CPU_ISA(gemm_fetch_rows)(const void *a, int64_t m0, int64_t rows, int64_t k0, int64_t depth, float *panel,
                              int64_t ld)
{
    const gemm_rows *s = a;
    for (int64_t i = 0; i < rows; i++) gemm_copy(panel + i * ld, s->base + (m0 + i) * s->stride + k0, depth);
}

void CPU_ISA(gemm_place_rows)(const void *c, int64_t m0, int64_t rows, float **row)
{
    const gemm_rows *s = c;
    for (int64_t i = 0; i < rows; i++) row[i] = s->base + (m0 + i) * s->stride;
}
