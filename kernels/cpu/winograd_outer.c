/*
 * winograd_outer.c - weight gradient of a 3x3 convolution by F(4x4, 3x3): dw = G^T [sum over tiles of
 * (A dy A^T) * (B^T x B)] G. winograd.h has the algebra.
 *
 * A piece of work is a slice of the tiles times a range of K times a range of C: block by block of tiles it transforms
 * both sides and adds their 36 products to its sums. The slices depend on the shape alone and are added in order, so
 * the result is bit-equal for any number of threads.
 */
#include "kernels/cpu/winograd.h"

#include "kernels/cpu/winograd_transform.h"

#define BLOCK 56 /* tiles whose products are one chain of sums */
#define K_RANGE 128
#define C_RANGE 128

#define OUTER_DEFINE_WIDE(family, row, v)                                                                              \
    TILE_FUNCTION(family, wide, v)                                                                                     \
    {                                                                                                                  \
        tile_run(2 * v, 2, 1, WINO_STRIP, WINO_STRIP, w, a, b, out);                                                   \
    }
#define OUTER_DEFINE_NARROW(family, row, v)                                                                            \
    TILE_FUNCTION(family, narrow, v)                                                                                   \
    {                                                                                                                  \
        tile_run(2 * v, 1, 1, WINO_STRIP, WINO_STRIP, w, a, b, out);                                                   \
    }
TILE_SIZES(OUTER_DEFINE_WIDE, product, 1)
TILE_SIZES(OUTER_DEFINE_NARROW, product, 1)
static tile_kernel *const wide_tiles[TILE_VARIANTS] = {NULL, TILE_SIZES(TILE_ENTRY_WIDE, product, 1)};
static tile_kernel *const narrow_tiles[TILE_VARIANTS] = {NULL, TILE_SIZES(TILE_ENTRY_NARROW, product, 1)};

typedef struct wino_outer {
    wino_map x, dy;
    wino_layout at;
    float scale;
    int64_t k_ranges, c_ranges, slices, per_slice;  /* blocks in a slice */
    int64_t c_ld, freq, range_floats, slice_floats; /* of the sums: [slice][k range][c range][frequency][k][c] */
    int64_t x_floats, own_floats;
} wino_outer;

/* Rows of one strip of y, `ks` of them real, times all strips of v: sums (+)= over `depth` tiles. */
static void multiply_strip(const wino_outer *j, const float *y, int64_t ks, const float *v, int64_t cs, int64_t depth,
                           float *sums, bool add)
{
    tile_walk walk = {.segments = 1, .depth = depth, .b_step = WINO_STRIP};
    int64_t each = tile_rows(ks, 2);
    for (int64_t c = 0; c < cs; c += GEMM_NR) {
        bool wide = cs - c > CPU_LANES;
        const float *b = v + c / WINO_STRIP * j->at.strip + c % WINO_STRIP;
        for (int64_t k = 0; k < ks; k += each) {
            float *row[GEMM_MR];
            tile_out out = {.row = row,
                            .col = c,
                            .rows = (int)cpu_min64(each, ks - k),
                            .cols = wide ? GEMM_NR : CPU_LANES,
                            .add = add};
            for (int i = 0; i < out.rows; i++) row[i] = sums + (k + i) * j->c_ld;
            (wide ? wide_tiles : narrow_tiles)[cpu_ceil_div(out.rows, 2)](&walk, y + k, b, &out);
        }
    }
}

static void run_piece(const wino_outer *j, int64_t first, int64_t last, int64_t k0, int64_t ks, int64_t c0, int64_t cs,
                      float *memory, float *sums)
{
    float *v = memory, *y = memory + j->x_floats;
    for (int64_t t0 = first; t0 < last; t0 += BLOCK) {
        int64_t depth = cpu_min64(BLOCK, last - t0);
        for (int64_t t = 0; t < depth; t++) {
            wino_transform_tile(&j->x, t0 + t, c0, cs, 6, v + t * WINO_STRIP, &j->at);
            wino_transform_tile(&j->dy, t0 + t, k0, ks, 4, y + t * WINO_STRIP, &j->at);
        }
        for (int f = 0; f < WINO_FREQS; f++)
            for (int64_t k = 0; k < ks; k += WINO_STRIP)
                multiply_strip(j, y + k / WINO_STRIP * j->at.strip + f * j->at.freq, cpu_min64(WINO_STRIP, ks - k),
                               v + f * j->at.freq, cs, depth, sums + f * j->freq + k * j->c_ld, t0 > first);
    }
}

/* dw (+)= G^T (the slices' sums, in order) G */
static void finish(const wino_outer *j, const float *sums, const conv_args *a, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t k = 0; k < a->k; k++)
        for (int64_t c = 0; c < a->c; c += CPU_LANES) {
            int n = (int)cpu_min64(CPU_LANES, a->c - c);
            const float *s = sums + (k / K_RANGE * j->c_ranges + c / C_RANGE) * j->range_floats +
                             k % K_RANGE * j->c_ld + c % C_RANGE;
            cpu_vec u[WINO_FREQS], w[9];
            for (int f = 0; f < WINO_FREQS; f++) u[f] = cpu_load(s + f * j->freq);
            for (int64_t slice = 1; slice < j->slices; slice++)
                for (int f = 0; f < WINO_FREQS; f++) u[f] += cpu_load(s + slice * j->slice_floats + f * j->freq);
            wino_weight_gradient(u, w);
            for (int t = 0; t < 9; t++)
                tile_store(a->dw + (k * 9 + t) * a->c + c, cpu_splat(j->scale) * w[t], n, NULL, a->accumulate_dw);
        }
}

int CPU_ISA(winograd_bwd_w)(sag_kernel_env *env, const conv_args *a, wino_form form)
{
    wino_shape s = wino_shape_of(a, form);
    int64_t rows = cpu_ceil_div(s.p, WINO_STEP), cols = cpu_ceil_div(s.q, WINO_STEP), tiles = a->n * rows * cols;
    wino_outer j = {
        .x = {.x = a->x, .h = s.h, .w = s.w, .c = a->c, .doubling = s.x_half, .top = -s.pad_h, .left = -s.pad_w},
        .dy = {.x = a->dy, .h = s.p, .w = s.q, .c = a->k, .doubling = s.y_half},
        .scale = s.scale};
    j.x.rows = j.dy.rows = rows, j.x.cols = j.dy.cols = cols, j.x.tiles = j.dy.tiles = tiles;
    j.at = (wino_layout){.freq = BLOCK * WINO_STRIP + 16}, j.at.strip = WINO_FREQS * j.at.freq;
    j.k_ranges = cpu_ceil_div(a->k, K_RANGE), j.c_ranges = cpu_ceil_div(a->c, C_RANGE);
    int64_t ks = cpu_min64(a->k, K_RANGE), cs = cpu_min64(a->c, C_RANGE);
    j.c_ld = round_up(cs, WINO_DEPTH) + 16;
    j.freq = ks * j.c_ld;
    j.range_floats = WINO_FREQS * j.freq;
    j.slice_floats = j.k_ranges * j.c_ranges * j.range_floats;
    j.x_floats = cpu_ceil_div(cs, WINO_STRIP) * j.at.strip;
    j.own_floats = j.x_floats + cpu_ceil_div(ks, WINO_STRIP) * j.at.strip;

    /* Slices: enough for 32 pieces of work, none below a few blocks, the sums not above 32 MiB unless one will do. */
    int64_t blocks = cpu_ceil_div(tiles, BLOCK);
    j.slices = cpu_min64(cpu_ceil_div(32, j.k_ranges * j.c_ranges), cpu_ceil_div(blocks, 3));
    j.slices = cpu_min64(j.slices, 8 * 1024 * 1024 / j.slice_floats + 1);
    j.per_slice = cpu_ceil_div(blocks, j.slices);
    j.slices = cpu_ceil_div(blocks, j.per_slice);

    int64_t zeros = round_up(a->c > a->k ? a->c : a->k, 16);
    float *memory =
        env->scratch(env, (size_t)(zeros + j.slices * j.slice_floats + env->threads * j.own_floats) * sizeof *memory);
    if (!memory) return SAG_KERNEL_NO_MEMORY;
    gemm_clear(memory, zeros);
    j.x.zeros = j.dy.zeros = memory;
    float *sums = memory + zeros, *own = sums + j.slices * j.slice_floats;
    int64_t ranges = j.k_ranges * j.c_ranges;
#pragma omp parallel for num_threads(env->threads) schedule(dynamic) if (env->threads > 1)
    for (int64_t piece = 0; piece < j.slices * ranges; piece++) {
        int64_t slice = piece / ranges, k0 = piece % ranges / j.c_ranges * K_RANGE, c0 = piece % j.c_ranges * C_RANGE;
        int64_t first = slice * j.per_slice * BLOCK, last = cpu_min64(tiles, first + j.per_slice * BLOCK);
        run_piece(&j, first, last, k0, cpu_min64(K_RANGE, a->k - k0), c0, cpu_min64(C_RANGE, a->c - c0),
                  own + omp_get_thread_num() * j.own_floats,
                  sums + slice * j.slice_floats + piece % ranges * j.range_floats);
    }
    finish(&j, sums, a, env->threads);
    return SAG_KERNEL_OK;
}
