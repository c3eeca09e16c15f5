/*
 * random.c - tensors of Philox numbers and the step clock. Element i takes word i % 4 of block i / 4 (see
 * kernels/philox.h), so the result does not depend on how the work is cut. Written once, computed in vectors of blocks.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/philox.h"

#define BLOCKS 32              /* Philox blocks computed side by side */
#define PIECE (4 * BLOCKS * 64) /* elements of a thread's piece */

typedef struct source {
    uint32_t stream, clock0, clock1, key0, key1;
} source;

/* The words of BLOCKS blocks from `block` on, in element order. */
static void words_of(const source *s, uint64_t block, uint32_t words[4 * BLOCKS])
{
    uint32_t w[4][BLOCKS];
#pragma omp simd
    for (int i = 0; i < BLOCKS; i++) {
        sag_philox_block p = sag_philox((uint32_t)block + (uint32_t)i, s->stream, s->clock0, s->clock1, s->key0, s->key1);
        w[0][i] = p.w0;
        w[1][i] = p.w1;
        w[2][i] = p.w2;
        w[3][i] = p.w3;
    }
    for (int i = 0; i < BLOCKS; i++) {
        for (int k = 0; k < 4; k++) words[4 * i + k] = w[k][i];
    }
}

/* Numbers for whole runs of words; the caller copies as many as it wants. */
static void uniform_run(const random_args *a, const uint32_t *words, float *y)
{
    float width = a->b - a->a, below = nextafterf(a->b, a->a);
#pragma omp simd
    for (int i = 0; i < 4 * BLOCKS; i++) y[i] = sag_philox_uniform(words[i], a->a, width, below);
}

static void normal_run(const random_args *a, sag_philox_gauss g, const uint32_t *words, float *y)
{
    float mean = a->a, std = a->b, bound = a->bound > 0.0f ? a->bound : 100.0f;
#pragma omp simd
    for (int i = 0; i < 4 * BLOCKS; i++) {
        float z = sag_philox_normal(words[i], g);
        z = z < bound ? z : bound; /* the quantile is an approximation: its last digit must not step over the bound */
        z = z > -bound ? z : -bound;
        y[i] = fmaf(std, z, mean);
    }
}

static void integer_run(const random_args *a, const uint32_t *words, int32_t *y)
{
    uint64_t range = (uint64_t)(a->high - a->low);
    for (int i = 0; i < 4 * BLOCKS; i++) y[i] = (int32_t)sag_philox_integer(words[i], a->low, range);
}

static int cpu_random_fill(sag_kernel_env *env, const random_args *a)
{
    source s = {a->stream, (uint32_t)a->clock[0], (uint32_t)a->clock[1], (uint32_t)a->seed, (uint32_t)(a->seed >> 32)};
    sag_philox_gauss g = sag_philox_gauss_of((double)a->bound);
    int64_t pieces = cpu_ceil_div(a->n, PIECE);
#pragma omp parallel for num_threads(env->threads) schedule(static) if (pieces > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        int64_t end = cpu_min64((piece + 1) * PIECE, a->n);
        for (int64_t i = piece * PIECE; i < end; i += 4 * BLOCKS) {
            uint32_t words[4 * BLOCKS];
            union {
                float f[4 * BLOCKS];
                int32_t i[4 * BLOCKS];
            } y;
            words_of(&s, (uint64_t)i / 4, words);
            switch (a->kind) {
            case SAG_RANDOM_UNIFORM: uniform_run(a, words, y.f); break;
            case SAG_RANDOM_NORMAL: normal_run(a, g, words, y.f); break;
            case SAG_RANDOM_INT: integer_run(a, words, y.i); break;
            }
            memcpy((float *)a->x + i, &y, (size_t)cpu_min64(4 * BLOCKS, end - i) * 4);
        }
    }
    return SAG_KERNEL_OK;
}

static int cpu_tick(sag_kernel_env *env, const tick_args *a)
{
    (void)env;
    uint64_t t = (uint64_t)(uint32_t)a->clock[0] | (uint64_t)(uint32_t)a->clock[1] << 32;
    t += (uint64_t)a->by;
    a->clock[0] = (int32_t)(uint32_t)t;
    a->clock[1] = (int32_t)(uint32_t)(t >> 32);
    return SAG_KERNEL_OK;
}

void CPU_REGISTER(random)(sag_kernel_table *t)
{
    t->random_fill = cpu_random_fill;
    t->tick = cpu_tick;
}
