/*
 * norm_lines.h - what forward (norm.c) and backward (norm_bwd.c) of batch normalisation share: the pieces, each inside
 * one image so that it has one label, and the values of its channels laid out as a line.
 */
#ifndef SAG_CPU_NORM_LINES_H
#define SAG_CPU_NORM_LINES_H

#include "kernels/cpu/columns.h"
#include "kernels/cpu/vec_math.h"

#define CHANNELS 64 /* combined at a time by one thread */

typedef struct grid {
    cpu_panel p;
    int64_t image; /* elements */
    int64_t parts; /* blocks of all images: the rows of the tables of partial sums */
    int64_t pieces;
} grid;

static inline grid grid_of(int64_t images, int64_t rows, int64_t cols)
{
    grid g = {.p = cpu_panel_of(rows, cols), .image = rows * cols};
    g.parts = images * g.p.blocks;
    g.pieces = g.parts * g.p.tiles;
    return g;
}

typedef struct place {
    cpu_part q;
    int64_t part, image, at; /* row in the tables; image; element of x */
} place;

static inline place place_of(const grid *g, int64_t piece)
{
    place w = {.part = piece / g->p.tiles};
    w.image = w.part / g->p.blocks;
    w.q = cpu_panel_part(&g->p, w.part % g->p.blocks, piece % g->p.tiles);
    w.at = w.image * g->image + w.q.first;
    return w;
}

static inline bool labels_fit(const batch_norm_args *a)
{
    if (!a->labels) return true;
    for (int64_t i = 0; i < a->n; i++) {
        if (a->labels[i] < 0 || a->labels[i] >= a->classes) return false;
    }
    return true;
}

static inline const float *row_of(const batch_norm_args *a, const float *table, int64_t image)
{
    return table + (a->labels ? (int64_t)a->labels[image] * a->c : 0);
}

/*
 * Calls body(element, column, columns) for each vector of a piece, whole vectors as a constant. In the order of memory:
 * several lines side by side would load the channels' values less often, but prefetching fails and memory is slower by
 * half.
 */
#define FOR_VECTORS(q, body) FOR_VECTORS_FROM(q, 0, body)
#define FOR_VECTORS_FROM(q, line, body)                                                                                \
    for (int64_t l_ = (line); l_ <= (q)->lines; l_++) {                                                                \
        int64_t j_ = 0, width_ = cpu_part_line(q, l_), at_ = l_ * (q)->stride;                                         \
        for (; j_ + CPU_LANES <= width_; j_ += CPU_LANES) body(at_ + j_, j_, CPU_LANES);                               \
        if (j_ < width_) body(at_ + j_, j_, width_ - j_);                                                              \
    }

/*
 * Sums of a line stay in registers where the line is SIDE vectors. Most pieces lie together in memory and their
 * channels come again within such a line: then it is their line. Others are left as they are, and the sums of their
 * lines go through memory.
 */
#define SIDE 8
#define SIDE_LINES 64 /* added up before they join the sums before them: short chains round less */
#define SIDE_WIDTH (SIDE * CPU_LANES)

static inline bool side_by_side(cpu_part *q)
{
    if (SIDE_WIDTH % q->cols != 0 || q->width % SIDE_WIDTH != 0 || q->stride != q->width) return false;
    const int64_t n = q->lines * q->width + q->tail;
    q->width = q->stride = SIDE_WIDTH;
    q->lines = n / SIDE_WIDTH;
    q->tail = n % SIDE_WIDTH;
    return true;
}

/* What a piece needs of its channels, laid out as a line. */
typedef struct lines {
    float mean[CPU_WIDE], factor[CPU_WIDE], bias[CPU_WIDE], shift[CPU_WIDE], slope[CPU_WIDE], rest[CPU_WIDE];
} lines;

static inline void lines_of(lines *t, const batch_norm_args *a, const place *w)
{
    const cpu_part *q = &w->q;
    const float *gain = a->gain ? row_of(a, a->gain, w->image) + q->column : NULL;
    float few[CPU_WIDE];
    for (int64_t j = 0; j < q->cols; j++) few[j] = a->rstd[q->column + j] * (gain ? gain[j] + a->gain_offset : 1.0f);
    cpu_repeat(t->factor, few, q->cols, q->width);
    cpu_repeat(t->mean, a->mean + q->column, q->cols, q->width);
    if (a->bias)
        cpu_repeat(t->bias, row_of(a, a->bias, w->image) + q->column, q->cols, q->width);
    else
        memset(t->bias, 0, (size_t)q->width * sizeof *t->bias);
}

/* The value before the ReLU from x - mean: one expression, so that backward's mask is forward's to the bit. */
CPU_INLINE cpu_vec affine(cpu_vec centred, cpu_vec factor, cpu_vec bias)
{
    return centred * factor + bias;
}

/* norm_bwd.c */
int CPU_ISA(batch_norm_bwd)(sag_kernel_env *env, const batch_norm_args *a);

#endif
