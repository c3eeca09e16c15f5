/*
 * neighbours.c - a tile of squared distances (neighbours.h). Rows of y lie across the lanes, rows of x are broadcast:
 * no sum is ever split over lanes, so each pair is added up in order. A subtraction and a multiply-add a vector.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/neighbours.h"

#define LANES (CPU_LANES / 2)             /* doubles of a vector */
#define GROUP_X (CPU_LANES == 16 ? 8 : 4) /* rows of x whose accumulators fit the registers */
#define GROUP_Y (2 * LANES)

typedef double vec __attribute__((vector_size(LANES * 8)));

static inline vec load(const double *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Columns [c0, c0 + depth) of n rows as groups, each [depth][group]; missing rows are 0. Groups lie `stride` apart. */
static void interleave(const float *x, int64_t n, int64_t d, int64_t c0, int64_t depth, int64_t group, int64_t stride,
                       double *out)
{
    for (int64_t g = 0; g * group < n; g++) {
        for (int64_t l = 0; l < group; l++) {
            double *to = out + g * stride + l;
            const float *row = x + (g * group + l) * d + c0;
            bool there = g * group + l < n;
            for (int64_t c = 0; c < depth; c++) to[c * group] = there ? (double)row[c] : 0.0;
        }
    }
}

static void pack(const float *x, int64_t n, int64_t d, double *packed)
{
    interleave(x, n, d, 0, d, GROUP_X, GROUP_X * d, packed);
}

/* sum [GROUP_X][CPU_DISTANCE_COLS] += (x - y)^2 over `depth` columns */
static inline void block(const double *x, const double *y, int64_t depth, double *sum)
{
    vec s[GROUP_X][2];
    for (int i = 0; i < GROUP_X; i++)
        for (int v = 0; v < 2; v++) s[i][v] = load(sum + i * CPU_DISTANCE_COLS + v * LANES);
    for (int64_t c = 0; c < depth; c++) {
        vec y0 = load(y + c * GROUP_Y), y1 = load(y + c * GROUP_Y + LANES);
        for (int i = 0; i < GROUP_X; i++) {
            vec a = x[c * GROUP_X + i] - y0, b = x[c * GROUP_X + i] - y1;
            s[i][0] += a * a;
            s[i][1] += b * b;
        }
    }
    for (int i = 0; i < GROUP_X; i++)
        for (int v = 0; v < 2; v++) memcpy(sum + i * CPU_DISTANCE_COLS + v * LANES, &s[i][v], sizeof s[i][v]);
}

static void tile(const double *packed, int64_t nx, const float *y, int64_t ny, int64_t d, double *scratch, double *d2,
                 int64_t ld)
{
    double *columns = (double *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    double *sums = columns + CPU_DISTANCE_COLS * CPU_DISTANCE_DEPTH;
    memset(sums, 0, sizeof *sums * CPU_DISTANCE_ROWS * CPU_DISTANCE_COLS);
    for (int64_t c = 0; c < d; c += CPU_DISTANCE_DEPTH) {
        int64_t depth = cpu_min64(CPU_DISTANCE_DEPTH, d - c);
        interleave(y, ny, d, c, depth, GROUP_Y, GROUP_Y * depth, columns);
        for (int64_t i = 0; i < nx; i += GROUP_X)
            for (int64_t j = 0; j < ny; j += GROUP_Y)
                block(packed + i * d + c * GROUP_X, columns + j * depth, depth, sums + i * CPU_DISTANCE_COLS + j);
    }
    for (int64_t i = 0; i < nx; i++) memcpy(d2 + i * ld, sums + i * CPU_DISTANCE_COLS, sizeof *d2 * (size_t)ny);
}

const cpu_neighbours CPU_ISA(cpu_neighbours) = {pack, tile};
