/*
 * neighbours.h - squared Euclidean distances between rows, in f64, for the scores that look for nearest neighbours.
 *
 * d2[i][j] = sum_c (x[i][c] - y[j][c])^2, added up in the order of c whatever the place in the tile. So the distance of
 * a pair is one number: swapping the pair or cutting the rows elsewhere gives the same bits, equal rows are at distance
 * 0, and "<" differs from "<=" exactly where distances tie. |x|^2 + |y|^2 - 2 x.y would cost half as much on some
 * processors and keeps none of this.
 *
 * Not a slot of the kernel table: the scores run on host memory whatever the device.
 */
#ifndef SAG_CPU_NEIGHBOURS_H
#define SAG_CPU_NEIGHBOURS_H

#include <stdint.h>

#define CPU_DISTANCE_ROWS 128 /* most rows of x in a tile */
#define CPU_DISTANCE_COLS 64  /* most rows of y in a tile */
#define CPU_DISTANCE_DEPTH 256
/* doubles; 8 of them to begin at a cache line */
#define CPU_DISTANCE_SCRATCH (8 + CPU_DISTANCE_COLS * CPU_DISTANCE_DEPTH + CPU_DISTANCE_ROWS * CPU_DISTANCE_COLS)

typedef struct cpu_neighbours {
    /* x {n, d}, n <= CPU_DISTANCE_ROWS, into packed [CPU_DISTANCE_ROWS * d] */
    void (*pack)(const float *x, int64_t n, int64_t d, double *packed);
    /* d2[i * ld + j] of packed rows and y {ny, d}; scratch [CPU_DISTANCE_SCRATCH] is the calling thread's */
    void (*tile)(const double *packed, int64_t nx, const float *y, int64_t ny, int64_t d, double *scratch, double *d2,
                 int64_t ld);
} cpu_neighbours;

/* One for each SIMD level of the build. */
extern const cpu_neighbours cpu_neighbours_avx512, cpu_neighbours_avx2, cpu_neighbours_generic;

#endif
