/*
 * tile_grid.h - NHWC maps cut into tiles of step x step pixels, and how a kernel that works block by block of tiles
 * asks for the pixels of the next block while this one multiplies: rows of tiles are too many streams for the hardware
 * to follow, and a transform that waits for memory is as long as the products.
 */
#ifndef SAG_CPU_TILE_GRID_H
#define SAG_CPU_TILE_GRID_H

#include "kernels/cpu/cpu.h"

typedef struct tile_grid {
    const float *x;
    int64_t h, w, c;
    int64_t rows, cols; /* tiles of an image */
    int64_t step;
    int64_t tiles; /* of all images */
} tile_grid;

/* Asks for part i of `parts` of `count` tiles from `first` on, of those that exist, `channels` of their channels from
 * c0 on. write: 0 or 1. */
CPU_INLINE void tile_grid_prefetch(const tile_grid *g, int64_t first, int64_t count, int i, int parts, int64_t c0,
                                   int64_t channels, const int write)
{
    count = cpu_min64(count, g->tiles - first);
    for (int64_t t = first + count * i / parts; t < first + count * (i + 1) / parts; t++) {
        int64_t line = t / g->cols, left = t % g->cols * g->step, top = line % g->rows * g->step;
        int64_t rows = cpu_min64(g->step, g->h - top), cols = cpu_min64(g->step, g->w - left);
        const float *p = g->x + ((line / g->rows * g->h + top) * g->w + left) * g->c + c0;
        for (int64_t r = 0; r < rows; r++, p += g->w * g->c)
            for (int64_t s = 0; s < cols; s++)
                for (int64_t c = 0; c < channels; c += 16) __builtin_prefetch(p + s * g->c + c, write, 2);
    }
}

#endif
