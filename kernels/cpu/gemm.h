/*
 * gemm.h - the one matrix product of the CPU backend: C {M,N} (+)= A {M,K} B {K,N} (+ bias row, + rows of another
 * matrix), everything f32.
 *
 * Rows of A are fetched by a callback into a small panel, which is how a convolution reads its patches without an
 * im2col buffer; rows of C may lie anywhere, which is how it writes every second pixel. B is packed once into strips of
 * two vectors. Every element of C is the same chain of multiply-adds over k whatever the blocking, so results do not
 * depend on the number of threads.
 */
#ifndef SAG_CPU_GEMM_H
#define SAG_CPU_GEMM_H

#include "kernels/cpu/cpu.h"

/* Tile of registers: GEMM_MR rows by two vectors, or twice the rows by one. 28 accumulators of 32 registers with
 * AVX-512, 12 of 16 elsewhere. A block of rows (GEMM_MC by GEMM_KC) stays in L2, a strip of B (GEMM_KC by GEMM_NR) in
 * L1. */
#if CPU_LANES == 16
#define GEMM_MR 14
#define GEMM_MC 168
#else
#define GEMM_MR 6
#define GEMM_MC 144
#endif
#define GEMM_NR (2 * CPU_LANES)
#define GEMM_KC 256
#define GEMM_LDA 272 /* row stride of a panel: fixed, so that a tile needs one address register; no power of two */
#define GEMM_NC 256  /* columns that one piece of work covers */

/* Copies columns k0 .. k0+depth of rows m0 .. m0+rows of A to panel[i * ld + k]. */
typedef void gemm_fetch(const void *a, int64_t m0, int64_t rows, int64_t k0, int64_t depth, float *panel, int64_t ld);
/* Sets c[i] to the start of row m0 + i of C. */
typedef void gemm_place(const void *c, int64_t m0, int64_t rows, float **row);

/* Element (k, n) of B is at data[at(k) + n * column], at(k) = offset[k], or k * row without a table. */
typedef struct gemm_b {
    const float *data;
    const int64_t *offset;
    int64_t row, column;
} gemm_b;

typedef struct gemm_job {
    int64_t m, n, k;
    gemm_fetch *fetch;
    const void *a;
    gemm_b b;
    gemm_place *place;
    const void *c;
    const float *bias; /* {n} or NULL */
    int accumulate;
    gemm_place *place_plus; /* rows added to those of C at the end, found in `plus`; NULL: none */
    const void *plus;
} gemm_job;

/* Bytes of B in packed form plus the panels of `threads` threads: what gemm_run takes from `memory`. */
int64_t CPU_ISA(gemm_bytes)(const gemm_job *job, int threads);
/* `memory` is aligned to 64 bytes. With one thread no parallel region is opened. */
void CPU_ISA(gemm_run)(const gemm_job *job, void *memory, int threads);
/* The same with memory from the environment. */
int CPU_ISA(gemm)(sag_kernel_env *env, const gemm_job *job);

/* Plain rows: base + m * stride. */
typedef struct gemm_rows {
    float *base;
    int64_t stride;
} gemm_rows;
void CPU_ISA(gemm_fetch_rows)(const void *a, int64_t m0, int64_t rows, int64_t k0, int64_t depth, float *panel,
                              int64_t ld);
void CPU_ISA(gemm_place_rows)(const void *c, int64_t m0, int64_t rows, float **row);

/* Columns n0 .. n0+cols of rows of C += those of `plus`: while they are in the caches. */
static inline void gemm_add_rows(float *const *row, float *const *plus, int64_t rows, int64_t n0, int64_t cols)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j += CPU_LANES) {
            float *c = row[i] + n0 + j;
            int64_t n = cpu_min64(CPU_LANES, cols - j);
            cpu_store_part(c, cpu_load_part(c, n) + cpu_load_part(plus[i] + n0 + j, n), n);
        }
}

/* n floats. Runs are short: GEMM_NO_CALL keeps the compiler from turning the loops into calls of memcpy and memset. */
#define GEMM_NO_CALL(p) __asm__("" : "+r"(p))
static inline void gemm_copy(float *restrict d, const float *restrict s, int64_t n)
{
    for (; n >= CPU_LANES; n -= CPU_LANES, d += CPU_LANES, s += CPU_LANES) {
        GEMM_NO_CALL(d);
        cpu_store(d, cpu_load(s));
    }
    for (; n >= 4; n -= 4, d += 4, s += 4) {
        GEMM_NO_CALL(d);
        memcpy(d, s, 16);
    }
    for (; n > 0; n--, d++, s++) {
        GEMM_NO_CALL(d);
        *d = *s;
    }
}
static inline void gemm_clear(float *d, int64_t n)
{
    for (; n >= CPU_LANES; n -= CPU_LANES, d += CPU_LANES) {
        GEMM_NO_CALL(d);
        cpu_store(d, (cpu_vec){0});
    }
    for (; n > 0; n--, d++) {
        GEMM_NO_CALL(d);
        *d = 0.0f;
    }
}

#endif
