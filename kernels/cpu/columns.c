/* columns.c - sums over rows, used by pointwise, pool and reduce; see columns.h for the pieces. Reads x (and z) once. */
#include "kernels/cpu/columns.h"

static void piece_sums(const float *x, const float *z, const cpu_part *q, float *sums)
{
    float line[CPU_WIDE];
    memset(line, 0, (size_t)q->width * sizeof *line);
    for (int64_t l = 0; l <= q->lines; l++) {
        int64_t n = cpu_part_line(q, l);
        const float *a = x + q->first + l * q->stride;
        if (z) {
            const float *b = z + q->first + l * q->stride;
#pragma omp simd
            for (int64_t j = 0; j < n; j++) line[j] += a[j] * b[j];
        } else {
#pragma omp simd
            for (int64_t j = 0; j < n; j++) line[j] += a[j];
        }
    }
    cpu_fold(sums, line, q->cols, q->width);
}

double *CPU_ISA(cpu_column_sums)(sag_kernel_env *env, const float *x, const float *z, int64_t outer, int64_t rows,
                                 int64_t cols)
{
    cpu_panel p = cpu_panel_of(rows, cols);
    int64_t per_panel = p.blocks * p.tiles, pieces = outer * per_panel;
    double *sums = env->scratch(env, (size_t)(outer * cols) * sizeof *sums);
    float *partial = env->scratch(env, (size_t)(outer * p.blocks * cols) * sizeof *partial);
    if (!sums || !partial) return NULL;

#pragma omp parallel for num_threads(env->threads) schedule(static) if (outer * rows * cols > CPU_SMALL)
    for (int64_t piece = 0; piece < pieces; piece++) {
        int64_t o = piece / per_panel, block = piece % per_panel / p.tiles;
        cpu_part q = cpu_panel_part(&p, block, piece % p.tiles);
        piece_sums(x + o * rows * cols, z ? z + o * rows * cols : NULL, &q,
                   partial + (o * p.blocks + block) * cols + q.column);
    }

#pragma omp parallel for num_threads(env->threads) schedule(static) if (outer * p.blocks * cols > CPU_SMALL)
    for (int64_t i = 0; i < outer * p.tiles; i++) {
        int64_t o = i / p.tiles, c0 = i % p.tiles * p.tile, c1 = cpu_min64(c0 + p.tile, cols);
        double *s = sums + o * cols;
        for (int64_t c = c0; c < c1; c++) s[c] = 0.0;
        for (int64_t b = 0; b < p.blocks; b++) {
            const float *from = partial + (o * p.blocks + b) * cols;
            for (int64_t c = c0; c < c1; c++) s[c] += (double)from[c];
        }
    }
    return sums;
}
