/*
 * embedding.c - rows of a table, y[i] = table[index[i]], and dtable[index[i]] += dy[i] in order of i.
 *
 * Backward is cut by columns, never by i, so that rows that occur twice are added in one order on any number of
 * threads.
 */
#include "kernels/cpu/cpu.h"

#define COLUMNS 64
#define SERIAL_ELEMENTS 16384

static bool indices_fit(const embedding_args *a)
{
    for (int64_t i = 0; i < a->n; i++)
        if (a->index[i] < 0 || a->index[i] >= a->v) return false;
    return true;
}

static int cpu_embedding_fwd(sag_kernel_env *env, const embedding_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (!indices_fit(a)) return SAG_KERNEL_BAD_INDEX;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->n * a->d > SERIAL_ELEMENTS)
    for (int64_t i = 0; i < a->n; i++)
        memcpy((float *)a->y + i * a->d, a->table + a->index[i] * a->d, (size_t)a->d * sizeof(float));
    return SAG_KERNEL_OK;
}

static int cpu_embedding_bwd(sag_kernel_env *env, const embedding_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (!indices_fit(a)) return SAG_KERNEL_BAD_INDEX;
    const int64_t blocks = cpu_ceil_div(a->d, COLUMNS);
#pragma omp parallel for num_threads(env->threads) schedule(static) if ((a->n + a->v) * a->d > SERIAL_ELEMENTS)
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t c0 = b * COLUMNS, width = cpu_min64(COLUMNS, a->d - c0);
        if (!a->accumulate)
            for (int64_t r = 0; r < a->v; r++) memset(a->dtable + r * a->d + c0, 0, (size_t)width * sizeof(float));
        for (int64_t i = 0; i < a->n; i++) {
            const float *from = (const float *)a->dy + i * a->d + c0;
            float *to = a->dtable + a->index[i] * a->d + c0;
#pragma omp simd
            for (int64_t c = 0; c < width; c++) to[c] += from[c];
        }
    }
    return SAG_KERNEL_OK;
}

void CPU_REGISTER(embedding)(sag_kernel_table *t)
{
    t->embedding_fwd = cpu_embedding_fwd;
    t->embedding_bwd = cpu_embedding_bwd;
}
