/*
 * spectral_plan.h - the layers of a slab cut into tiles of rows, and the two products of layers with a vector.
 * Tiles depend on the shapes only, and sums over tiles are added in order.
 */
#ifndef SAG_CPU_SPECTRAL_PLAN_H
#define SAG_CPU_SPECTRAL_PLAN_H

#include "kernels/cpu/columns.h"

typedef struct sn_layer {
    const float *w;
    int64_t offset, rows, cols, u, v;
    int64_t first_tile, n_tiles, tile_rows;
    int64_t partial; /* n_tiles x cols floats: the tiles' shares of W^T u */
} sn_layer;

typedef struct sn_tile {
    int32_t layer;
    int64_t row, rows, partial;
} sn_tile;

/*
 * Neighbouring layers that are taken through all passes before the next ones: about what the caches hold, so that only
 * the first of the passes over W comes from memory. Which layers share a run changes no result.
 */
typedef struct sn_run {
    int64_t layer, layers, tile, tiles; /* first, count */
    bool threaded;                      /* large enough for a parallel region to pay */
} sn_run;

typedef struct sn_plan {
    const spectral_norm_args *a;
    sn_layer *layers;
    sn_tile *tiles;
    int64_t n_tiles, n_partial;
    float *partial;
    sn_run *runs, all; /* n_runs that follow each other; everything in one */
    int64_t n_runs;
} sn_plan;

/* Checks the table of layers and cuts them; BAD_INDEX where a layer leaves its slab or shares elements of w. */
int CPU_ISA(spectral_plan)(sag_kernel_env *env, const spectral_norm_args *a, sn_plan *p);
/* The layers of a run: to (a slab like v) = W^T u. */
void CPU_ISA(spectral_product_t)(sag_kernel_env *env, const sn_plan *p, const sn_run *run, float *to, const float *u);
/* The layers of a run: to (a slab like u) = W v, from the last tile to the first. */
void CPU_ISA(spectral_product)(sag_kernel_env *env, const sn_plan *p, const sn_run *run, float *to, const float *v);

#endif
