/*
 * winograd.c - conv2d forward and data gradient by F(4x4, 3x3); winograd.h has the algebra.
 *
 * The data gradient is the same convolution of dy with the weights turned by 180 degrees and transposed. Block by block
 * of tiles: transform the inputs, 36 products with the transformed weights, transform back. The whole transformed
 * tensor never exists. Each output is the same chain of sums however the work is cut.
 */
#include "kernels/cpu/winograd.h"

#include "kernels/cpu/transpose.h"
#include "kernels/cpu/winograd_transform.h"

#define GROUP GEMM_MR       /* tiles that one register tile takes */
#define BLOCK_FLOATS 300000 /* of transformed data in a block, about, so that it stays in L2 */
#define WIDE (128 * 128)    /* more channels in times out: the weights no longer stay in L2, blocks are large */
#define WIDE_GROUPS 16
#define CHAIN (2 * WINO_STRIP)

/* Channels in (c) and out (k) of the product, whichever way it goes. */
typedef struct wino_conv {
    wino_map in;
    const float *w, *bias;
    float *y;
    bool transposed; /* weights of the data gradient: turned, and `k` is their last dimension */
    int accumulate;
    int64_t c, k, out_h, out_w; /* out: at full resolution */
    int halving;                /* 2x2 outputs are added to one of y */
    float scale;
    int64_t depth;            /* c with the zeros */
    int64_t all, groups;      /* groups of tiles: of the map, of a block */
    int64_t v_group, m_group; /* floats of a transformed group: in, out */
    int64_t u_freq, u_strip, block_floats;
    wino_layout at;
    float *u; /* transformed weights [strip of GEMM_NR k][frequency][c][k] */
} wino_conv;

/* ----------------------------------------------------------------------------------------- weights */

/* CPU_LANES inner channels from c0 by CPU_LANES output channels from k0: tile[tap][c][k] */
static void load_weights(const wino_conv *v, int64_t c0, int64_t k0, float (*tile)[CPU_LANES * CPU_LANES])
{
    int64_t cs = cpu_min64(CPU_LANES, v->c - c0), ks = cpu_min64(CPU_LANES, v->k - k0);
    for (int tap = 0; tap < 9; tap++) {
        float *d = tile[tap];
        if (v->transposed) {
            for (int64_t c = 0; c < CPU_LANES; c++)
                cpu_store(d + c * CPU_LANES,
                          c < cs ? wino_load(v->w + ((c0 + c) * 9 + 8 - tap) * v->k + k0, (int)ks) : (cpu_vec){0});
        } else if (cs == CPU_LANES && ks == CPU_LANES) {
            transpose_square(v->w + (k0 * 9 + tap) * v->c + c0, 9 * v->c, d, CPU_LANES);
        } else {
            for (int64_t c = 0; c < CPU_LANES; c++)
                for (int64_t k = 0; k < CPU_LANES; k++)
                    d[c * CPU_LANES + k] = c < cs && k < ks ? v->w[((k0 + k) * 9 + tap) * v->c + c0 + c] : 0.0f;
        }
    }
}

static void transform_weights(const wino_conv *v, int threads)
{
    enum { CHUNK = 64 }; /* inner channels of a piece of work */
    int64_t vectors = cpu_ceil_div(v->k, CPU_LANES), chunks = cpu_ceil_div(v->depth, CHUNK);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t piece = 0; piece < vectors * chunks; piece++) {
        float tile[9][CPU_LANES * CPU_LANES];
        int64_t k0 = piece / chunks * CPU_LANES, first = piece % chunks * CHUNK;
        int64_t strip = k0 / GEMM_NR, width = v->k - strip * GEMM_NR > CPU_LANES ? GEMM_NR : CPU_LANES;
        float *u = v->u + strip * v->u_strip + k0 % GEMM_NR;
        for (int64_t c0 = first; c0 < cpu_min64(v->depth, first + CHUNK); c0 += CPU_LANES) {
            load_weights(v, c0, k0, tile);
            for (int64_t c = 0; c < CPU_LANES; c++) {
                cpu_vec w[9];
                for (int tap = 0; tap < 9; tap++) w[tap] = cpu_load(tile[tap] + c * CPU_LANES);
                wino_weights(w, u + (c0 + c) * width, v->u_freq);
            }
        }
    }
}

/* ------------------------------------------------------------------------------------------- tiles */

static void product_wide(const tile_walk *walk, const float *a, const float *b, const tile_out *out)
{
    tile_run(GROUP, 2, WINO_STRIP, 1, 2 * CPU_LANES, walk, a, b, out);
}
static void product_narrow(const tile_walk *walk, const float *a, const float *b, const tile_out *out)
{
    tile_run(GROUP, 1, WINO_STRIP, 1, CPU_LANES, walk, a, b, out);
}

/* m = v u at frequencies f0 .. f1 for `groups` groups of tiles and output channels k0 .. k1. Frequencies are the outer
 * loop: the inputs of one are read for all columns, then never again. Chains of sums are CHAIN channels long. */
static void multiply(const wino_conv *j, int f0, int f1, int64_t groups, int64_t k0, int64_t k1, const float *v,
                     float *m)
{
    const int64_t strip_at[CHAIN / WINO_STRIP] = {0, j->at.strip};
    float *row[GROUP];
    for (int i = 0; i < GROUP; i++) row[i] = m + i * WINO_STRIP;
    for (int f = f0; f < f1; f++)
        for (int64_t n = k0; n < k1; n += GEMM_NR) {
            bool wide = j->k - n > CPU_LANES;
            const float *u = j->u + n / GEMM_NR * j->u_strip + f * j->u_freq;
            tile_out out = {.row = row, .rows = GROUP, .cols = wide ? GEMM_NR : CPU_LANES};
            for (int64_t c = 0; c < j->depth;) {
                int64_t left = j->depth - c;
                tile_walk walk = {.segments = left < CHAIN ? 1 : CHAIN / WINO_STRIP,
                                  .depth = cpu_min64(WINO_STRIP, left),
                                  .a_at = strip_at};
                const float *a = v + c / WINO_STRIP * j->at.strip + f * j->at.freq;
                out.col = n / WINO_STRIP * j->at.strip + n % WINO_STRIP + f * j->at.freq;
                out.add = c > 0;
                for (int64_t g = 0; g < groups; g++, a += j->v_group, out.col += j->m_group)
                    (wide ? product_wide : product_narrow)(&walk, a, u, &out);
                c += walk.segments * walk.depth;
                u += walk.segments * walk.depth * out.cols;
            }
        }
}

/* Outputs of one tile, of the pixels that the map has. */
static void store_tile(const wino_conv *j, int64_t tile, const float *m)
{
    int64_t per_image = j->in.rows * j->in.cols, image = tile / per_image, rest = tile % per_image;
    int64_t i0 = rest / j->in.cols * WINO_STEP, j0 = rest % j->in.cols * WINO_STEP;
    int side = WINO_STEP >> j->halving;
    int64_t rows = cpu_min64(WINO_STEP, j->out_h - i0) >> j->halving;
    int64_t cols = cpu_min64(WINO_STEP, j->out_w - j0) >> j->halving, width = j->out_w >> j->halving;
    float *y = j->y + ((image * (j->out_h >> j->halving) + (i0 >> j->halving)) * width + (j0 >> j->halving)) * j->k;
    cpu_vec scale = cpu_splat(j->scale);
    for (int64_t k = 0; k < j->k; k += CPU_LANES) {
        int n = (int)cpu_min64(CPU_LANES, j->k - k);
        cpu_vec o[16], bias = j->bias ? wino_load(j->bias + k, n) : (cpu_vec){0};
        wino_output(m + k / WINO_STRIP * j->at.strip + k % WINO_STRIP, j->at.freq, o);
        if (j->halving)
            for (int i = 0; i < 4; i++) {
                const cpu_vec *q = o + (i / 2) * 8 + (i % 2) * 2;
                o[i] = (q[0] + q[1]) + (q[4] + q[5]);
            }
        float *line = y + k;
        for (int r = 0; r < rows; r++, line += width * j->k)
            for (int s = 0; s < cols; s++)
                tile_store(line + s * j->k, scale * o[r * side + s] + bias, n, NULL, j->accumulate);
    }
}

/* Into and out of the other domain, one group of tiles. */
static void transform_group(const wino_conv *j, int64_t first, float *v)
{
    for (int64_t t = 0; t < GROUP; t++) wino_transform_tile(&j->in, first + t, 0, j->c, 6, v + t * WINO_STRIP, &j->at);
}
static void store_group(const wino_conv *j, int64_t first, const float *m)
{
    for (int64_t t = 0; t < GROUP && first + t < j->in.tiles; t++) store_tile(j, first + t, m + t * WINO_STRIP);
}

/* -------------------------------------------------------------------------------------------- whole */

/* Each thread has its own block. */
static void run_narrow(const wino_conv *j, float *memory, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int64_t block = 0; block < cpu_ceil_div(j->all, j->groups); block++) {
        float *v = memory + omp_get_thread_num() * j->block_floats, *m = v + j->groups * j->v_group;
        int64_t first = block * j->groups, groups = cpu_min64(j->groups, j->all - first);
        for (int64_t g = 0; g < groups; g++) transform_group(j, (first + g) * GROUP, v + g * j->v_group);
        multiply(j, 0, WINO_FREQS, groups, 0, j->k, v, m);
        for (int64_t g = 0; g < groups; g++) store_group(j, (first + g) * GROUP, m + g * j->m_group);
    }
}

/* All threads work on one block, whose products they share out. */
static void run_wide(const wino_conv *j, float *v, int threads)
{
    enum { COLUMNS = 128 };
    float *m = v + j->groups * j->v_group;
    int64_t ranges = cpu_ceil_div(j->k, COLUMNS);
    for (int64_t first = 0; first < j->all; first += j->groups) {
        int64_t groups = cpu_min64(j->groups, j->all - first);
#pragma omp parallel num_threads(threads) if (threads > 1)
        {
#pragma omp for schedule(dynamic)
            for (int64_t g = 0; g < groups; g++) transform_group(j, (first + g) * GROUP, v + g * j->v_group);
#pragma omp for schedule(dynamic)
            for (int64_t piece = 0; piece < WINO_FREQS * ranges; piece++) {
                int f = (int)(piece / ranges);
                int64_t k0 = piece % ranges * COLUMNS;
                multiply(j, f, f + 1, groups, k0, cpu_min64(j->k, k0 + COLUMNS), v, m);
            }
#pragma omp for schedule(dynamic)
            for (int64_t g = 0; g < groups; g++) store_group(j, (first + g) * GROUP, m + g * j->m_group);
        }
    }
}

static int run(sag_kernel_env *env, wino_conv *j)
{
    j->depth = round_up(j->c, WINO_DEPTH);
    j->at = wino_layout_of(GROUP, 0);
    j->v_group = cpu_ceil_div(j->c, WINO_STRIP) * j->at.strip;
    j->m_group = cpu_ceil_div(j->k, WINO_STRIP) * j->at.strip;
    j->all = cpu_ceil_div(j->in.tiles, GROUP);
    bool wide = j->c * j->k > WIDE;
    j->groups = wide ? WIDE_GROUPS : BLOCK_FLOATS / (j->v_group + j->m_group);
    if (j->groups < 1) j->groups = 1;
    j->groups = cpu_ceil_div(j->all, cpu_ceil_div(j->all, j->groups)); /* blocks as even as can be */
    j->block_floats = j->groups * (j->v_group + j->m_group);
    j->u_freq = j->depth * GEMM_NR + 16; /* off the powers of two, on which cache sets repeat */
    j->u_strip = WINO_FREQS * j->u_freq;
    int64_t u_floats = cpu_ceil_div(j->k, GEMM_NR) * j->u_strip, zeros = round_up(j->c, 16);
    int64_t floats = u_floats + zeros + (wide ? 1 : env->threads) * j->block_floats;
    float *memory = env->scratch(env, (size_t)floats * sizeof *memory);
    if (!memory) return SAG_KERNEL_NO_MEMORY;
    j->in.zeros = memory;
    j->u = memory + zeros;
    gemm_clear(memory, zeros);
    transform_weights(j, env->threads);
    (wide ? run_wide : run_narrow)(j, j->u + u_floats, env->threads);
    return SAG_KERNEL_OK;
}

static int64_t tiles_along(int64_t n)
{
    return cpu_ceil_div(n, WINO_STEP);
}

static void set_tiles(wino_conv *j, const conv_args *a)
{
    j->in.rows = tiles_along(j->out_h), j->in.cols = tiles_along(j->out_w);
    j->in.tiles = a->n * j->in.rows * j->in.cols;
}

int CPU_ISA(winograd_fwd)(sag_kernel_env *env, const conv_args *a, wino_form form)
{
    wino_shape s = wino_shape_of(a, form);
    wino_conv j = {
        .in = {.x = a->x, .h = s.h, .w = s.w, .c = a->c, .doubling = s.x_half, .top = -s.pad_h, .left = -s.pad_w},
        .w = a->w,
        .bias = a->b,
        .y = a->y,
        .c = a->c,
        .k = a->k,
        .out_h = s.p,
        .out_w = s.q,
        .halving = s.y_half,
        .scale = s.scale};
    set_tiles(&j, a);
    return run(env, &j);
}

int CPU_ISA(winograd_bwd_x)(sag_kernel_env *env, const conv_args *a, wino_form form)
{
    wino_shape s = wino_shape_of(a, form);
    wino_conv j = {
        .in =
            {.x = a->dy, .h = s.p, .w = s.q, .c = a->k, .doubling = s.y_half, .top = s.pad_h - 2, .left = s.pad_w - 2},
        .w = a->w,
        .transposed = true,
        .y = a->dx,
        .accumulate = a->accumulate,
        .c = a->k,
        .k = a->c,
        .out_h = s.h,
        .out_w = s.w,
        .halving = s.x_half,
        .scale = s.scale};
    set_tiles(&j, a);
    return run(env, &j);
}

/*
 * The one rule of when: an estimate of both ways' time, in multiply-adds at full speed, fitted to measurements over 3
 * to 1024 channels, sides 4 to 128 and batches 4 to 64 (tests/bench/bench_conv.c). A tile's channel costs about
 * TRANSFORM on its way in or out; a pair of channels NARROW_PAIR or, when transformed weights leave L2, WIDE_PAIR.
 */
bool CPU_ISA(winograd_suits)(const sag_kernel_env *env, const conv_args *a, wino_form form, wino_way way)
{
    enum { TRANSFORM = 600, NARROW_PAIR = 800, WIDE_PAIR = 3500 };
    if (env->no_winograd) return false;
    if (form == WINO_CONV && (a->r != 3 || a->s != 3 || a->stride != 1 || a->pad_h > 2 || a->pad_w > 2)) return false;
    wino_shape s = wino_shape_of(a, form);
    int64_t h = way == WINO_BWD_X ? s.h : s.p, w = way == WINO_BWD_X ? s.w : s.q;
    double tiles = (double)(a->n * tiles_along(h) * tiles_along(w));
    double whole = way == WINO_BWD_W ? tiles : ceil(tiles / GROUP) * GROUP;
    double c = (double)round_up(a->c, WINO_DEPTH), k = (double)round_up(a->k, WINO_DEPTH);
    double fast =
        WINO_FREQS * whole * c * k + TRANSFORM * tiles * (c + k) + (c * k > WIDE ? WIDE_PAIR : NARROW_PAIR) * c * k;
    /* Of the other way, for a pixel at full resolution; products of many channels do not reach full speed here. */
    double taps = form == WINO_CONV ? 9 : c * k > WIDE ? 2.8 : 4;
    return fast < taps * (double)(a->n * h * w) * (double)a->c * (double)a->k;
}
