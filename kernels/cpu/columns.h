/*
 * columns.h - how the reductions over rows are cut into pieces of fixed size, and the plain column sum.
 *
 * A panel is rows x cols, contiguous. Few columns: several rows are joined into one wide row, so that vectors are full
 * even with 3 channels, and the sums of the wide row are folded at the end. Many columns: tiles. A piece is a block of
 * rows of one tile, about CPU_PIECE elements; its sums are f32. The pieces' sums are combined in f64, in order. The cut
 * depends on the sizes alone, so results do not depend on the number of threads.
 */
#ifndef SAG_CPU_COLUMNS_H
#define SAG_CPU_COLUMNS_H

#include "kernels/cpu/cpu.h"

#define CPU_WIDE 1024   /* longest wide row or tile, in floats */
#define CPU_PIECE 32768 /* elements of a piece, about */
#define CPU_SMALL 32768 /* elements below which one thread does all */

typedef struct cpu_panel {
    int64_t rows, cols;
    int64_t repeat;     /* rows in a wide row; 1 with tiles */
    int64_t tile;       /* columns of a tile; cols if it is one */
    int64_t block_rows; /* rows of a piece, a multiple of repeat */
    int64_t blocks, tiles;
} cpu_panel;

/* A wide row is a few hundred floats, and whole vectors of every level where the columns allow it. */
static inline cpu_panel cpu_panel_of(int64_t rows, int64_t cols)
{
    cpu_panel p = {.rows = rows, .cols = cols, .repeat = 1, .tile = cpu_min64(cols, CPU_WIDE)};
    int64_t whole = 16; /* rows that make whole vectors */
    while (whole > 1 && cols * (whole / 2) % 16 == 0) whole /= 2;
    if (cols * whole > CPU_WIDE) whole = 1;
    if (cols < 256) p.repeat = cpu_ceil_div(256, cols * whole) * whole;
    p.repeat = cpu_min64(p.repeat, rows);
    p.block_rows = cpu_ceil_div(CPU_PIECE, p.tile * p.repeat) * p.repeat;
    p.blocks = cpu_ceil_div(rows, p.block_rows);
    p.tiles = cpu_ceil_div(cols, p.tile);
    return p;
}

/*
 * The pieces of the calling thread inside a parallel region: a run of neighbours, the same in every region over as many
 * pieces, so that a second pass finds in the thread's caches what the first one left there.
 */
typedef struct cpu_share {
    int64_t first, end;
} cpu_share;

static inline cpu_share cpu_share_of(int64_t pieces)
{
    int64_t t = omp_get_thread_num(), all = omp_get_num_threads();
    return (cpu_share){pieces * t / all, pieces * (t + 1) / all};
}

/* One piece: `lines` lines of `width` floats, `stride` apart, and one more of `tail` floats (perhaps 0). */
typedef struct cpu_part {
    int64_t first;  /* element of the panel where it starts */
    int64_t column; /* of its first element */
    int64_t cols;   /* columns it covers: width = cols * repeat */
    int64_t rows;   /* of the panel */
    int64_t lines, width, stride, tail;
} cpu_part;

static inline cpu_part cpu_panel_part(const cpu_panel *p, int64_t block, int64_t tile)
{
    cpu_part q = {.column = tile * p->tile};
    q.cols = cpu_min64(p->tile, p->cols - q.column);
    q.rows = cpu_min64(p->block_rows, p->rows - block * p->block_rows);
    q.first = block * p->block_rows * p->cols + q.column;
    q.width = q.cols * p->repeat;
    q.stride = p->cols * p->repeat;
    q.lines = q.rows / p->repeat;
    q.tail = (q.rows % p->repeat) * p->cols;
    return q;
}
static inline int64_t cpu_part_line(const cpu_part *q, int64_t line) /* length of line 0 .. lines (the last: the tail) */
{
    return line < q->lines ? q->width : q->tail;
}

/* Writes `cols` values over and over into a line of `width`. */
static inline void cpu_repeat(float *line, const float *values, int64_t cols, int64_t width)
{
    for (int64_t j = 0; j < width; j += cols) memcpy(line + j, values, (size_t)cols * sizeof *line);
}

/* The sums of a wide row folded onto its columns. */
static inline void cpu_fold(float *sums, const float *line, int64_t cols, int64_t width)
{
    for (int64_t c = 0; c < cols; c++) {
        double s = 0.0;
        for (int64_t j = c; j < width; j += cols) s += (double)line[j];
        sums[c] = (float)s;
    }
}

/*
 * sums[o][c] = sum over r of x[o][r][c], or of x * z if z is given (z = x: squares); in scratch, NULL when there is none.
 */
double *CPU_ISA(cpu_column_sums)(sag_kernel_env *env, const float *x, const float *z, int64_t outer, int64_t rows,
                                 int64_t cols);

#endif
