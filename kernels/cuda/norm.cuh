/*
 * norm.cuh - what forward (norm.cu) and backward (norm_bwd.cu) of batch normalisation share: how a block of threads lies over
 * {rows, c}, 16-byte loads, and the values of a thread's channels.
 *
 * A thread has LANE neighbouring channels (16 bytes of them, or 1 where rows are not aligned so) and every `step`-th row of its
 * block's piece; a warp's threads have neighbouring channels first. Pieces depend on the shapes and the alignment only.
 */
#ifndef SAG_CUDA_NORM_CUH
#define SAG_CUDA_NORM_CUH

#include "kernels/cuda/cuda.cuh"

#define NORM_THREADS 256
#define NORM_AHEAD 4        /* rows that a thread has under way */
#define NORM_MOST_PARTS 1024 /* pieces of all rows, over which partial sums are combined */

/* Columns of threads (a power of two, at most 32), rows of threads, and the pieces of `rows` rows. */
struct norm_grid {
    int64_t rows, c;      /* of one image, or of all */
    int64_t part_rows;    /* of a piece */
    int64_t parts, tiles; /* pieces of the rows; tiles of channels */
    int wide, step;
};

static inline norm_grid norm_grid_of(int64_t images, int64_t rows, int64_t c, int lane)
{
    norm_grid g = {};
    g.rows = rows;
    g.c = c;
    g.wide = 1;
    while (g.wide < 32 && (int64_t)g.wide * lane < c) g.wide *= 2;
    g.step = NORM_THREADS / g.wide;
    g.tiles = cuda_ceil_div(c, (int64_t)g.wide * lane);
    const int64_t most = images < NORM_MOST_PARTS ? NORM_MOST_PARTS / images : 1, least = (int64_t)g.step * NORM_AHEAD;
    g.part_rows = cuda_ceil_div(rows, most);
    if (g.part_rows < least) g.part_rows = least;
    g.part_rows = cuda_ceil_div(g.part_rows, g.step) * g.step;
    g.parts = cuda_ceil_div(rows, g.part_rows);
    return g;
}

/* Whether a thread may load 16 bytes at once. */
template <typename T> static inline bool norm_aligned(int64_t c, const void *x, const void *y, const void *z)
{
    return (size_t)c * sizeof(T) % 16 == 0 && ((uintptr_t)x | (uintptr_t)y | (uintptr_t)z) % 16 == 0;
}

/* A thread's elements of a row as they lie in memory: rows under way cost no more registers than that. */
template <int LANE, typename T> struct norm_raw {
    uint4 bits;
    __device__ void load(const T *from)
    {
        bits = *(const uint4 *)from;
    }
    __device__ void unpack(float (&to)[LANE]) const
    {
        T few[LANE];
        memcpy(few, &bits, sizeof few);
#pragma unroll
        for (int j = 0; j < LANE; j++) to[j] = cuda_float(few[j]);
    }
    __device__ static void store(T *to, const float (&from)[LANE])
    {
        T few[LANE];
        uint4 bits;
#pragma unroll
        for (int j = 0; j < LANE; j++) cuda_store(few + j, from[j]);
        memcpy(&bits, few, sizeof bits);
        *(uint4 *)to = bits;
    }
};
template <typename T> struct norm_raw<1, T> {
    T one;
    __device__ void load(const T *from)
    {
        one = *from;
    }
    __device__ void unpack(float (&to)[1]) const
    {
        to[0] = cuda_float(one);
    }
    __device__ static void store(T *to, const float (&from)[1])
    {
        cuda_store(to, from[0]);
    }
};

/*
 * How the sums of pieces come together without a launch of their own: the block that finishes a group of pieces as its last adds them
 * up, the block that finishes the last group of a tile of channels adds up the groups. One block for all pieces would read them
 * for longer than a launch takes. The order is that of the pieces, whichever block it is.
 */
struct norm_groups {
    unsigned *counters; /* {tiles, groups + 1} */
    int64_t pieces, size, groups;
};

/* False: there are more channels than counters. */
static inline bool norm_groups_of(sag_kernel_env *env, int64_t pieces, int64_t tiles, norm_groups *g)
{
    const int64_t side = 32; /* of the square of pieces, at most */
    g->pieces = pieces;
    g->size = pieces <= side * side ? side : cuda_ceil_div(pieces, side);
    if (tiles * (side + 1) > CUDA_COUNTERS) g->size = pieces;
    g->groups = cuda_ceil_div(pieces, g->size);
    g->counters = cuda_counters(env);
    return g->counters && tiles * (g->groups + 1) <= CUDA_COUNTERS;
}

/* The whole block, when it has stored what it found of (piece, tile): add(group, first piece, end) and finish(), each if it is the
 * last block that they need. */
template <typename Add, typename Finish>
__device__ static inline void norm_gather(const norm_groups &g, int64_t piece, int64_t tile, Add add, Finish finish)
{
    unsigned *counters = g.counters + tile * (g.groups + 1);
    const int64_t group = piece / g.size, first = group * g.size, end = first + g.size < g.pieces ? first + g.size : g.pieces;
    if (!cuda_last_block(counters + group, (unsigned)(end - first))) return;
    add(group, first, end);
    if (cuda_last_block(counters + g.groups, (unsigned)g.groups)) finish();
}

/* Sum over the lines of a block of {lines, CHANNELS} threads, in order; every thread gets it. Starts and ends with a barrier. */
template <int CHANNELS, int LINES> __device__ static inline double norm_over_lines(double (*table)[CHANNELS], double x)
{
    const int column = (int)threadIdx.x % CHANNELS, line = (int)threadIdx.x / CHANNELS;
    __syncthreads();
    table[line][column] = x;
    __syncthreads();
    double sum = 0.0;
    for (int l = 0; l < LINES; l++) sum += table[l][column];
    return sum;
}

/* The label of an image; -1 if it has no row in the tables. */
__device__ static inline int64_t norm_label(const batch_norm_args &a, int64_t image)
{
    if (!a.labels) return 0;
    const int64_t label = a.labels[image];
    return label >= 0 && label < a.classes ? label : -1;
}

/* gain + gain_offset of a channel, 1 without a gain. */
__device__ static inline float norm_gain(const batch_norm_args &a, int64_t label, int64_t c)
{
    return a.gain ? a.gain[label * a.c + c] + a.gain_offset : 1.0f;
}

/* What a thread needs of its channels, for one label. */
template <int LANE> struct norm_channels {
    float mean[LANE], factor[LANE], bias[LANE];
    int64_t label;
    int64_t image_end; /* first row behind the image that follow is in; 0 at first */

    __device__ void load(const batch_norm_args &a, int64_t image, int64_t c)
    {
        label = norm_label(a, image);
#pragma unroll
        for (int j = 0; j < LANE; j++) {
            mean[j] = a.mean[c + j];
            factor[j] = label < 0 ? 0.0f : a.rstd[c + j] * norm_gain(a, label, c + j);
            bias[j] = label < 0 || !a.bias ? 0.0f : a.bias[label * a.c + c + j];
        }
    }
    /* Loads where a row, never less than the one before, begins another image. */
    __device__ void follow(const batch_norm_args &a, int64_t row, int64_t c)
    {
        if (row < image_end) return;
        const int64_t image = row / a.spatial;
        image_end = (image + 1) * a.spatial;
        load(a, image, c);
    }
    /* The value before the ReLU from x - mean: one expression, so that backward's mask is forward's to the bit. */
    __device__ float affine(int j, float centred) const
    {
        return fmaf(centred, factor[j], bias[j]);
    }
};

#endif
