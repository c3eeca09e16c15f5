/*
 * winograd.c - conv2d forward and data gradient by F(4x4, 3x3); winograd.h has the algebra.
 *
 * The data gradient is the same convolution of dy with the weights turned by 180 degrees and transposed. Block by block
 * of tiles: transform the inputs, 36 products with the transformed weights, transform back. The whole transformed
 * tensor never exists. Each output is the same chain of sums however the work is cut.
 */
#include "kernels/cpu/winograd.h"

#include "kernels/cpu/taps.h"
#include "kernels/cpu/winograd_transform.h"

#define OWN_FLOATS 100000  /* of transformed data in a block of one thread, about: with weights beside it in L2 */
#define OWN_TILES 28       /* but no fewer tiles that use weights on their way through */
#define OUTPUTS 64         /* channels whose products such a block has at once */
#define SHARED_TILES 64    /* in a block that the threads share */
#define WIDE (128 * 256)   /* more channels in times out: the transformed weights are not stored */
#define STORED (128 * 128) /* and from so many on only if threads have more than a block each */
#define CHAIN_STRIPS 2
#define CHAIN (CHAIN_STRIPS * WINO_STRIP) /* channels whose products are one chain of sums */

/* One copy in the program: inlined twice, the compiler might round a * b + c * d in two ways, and which of the two runs
 * below does the work depends on the number of threads. */
#define ONE_COPY __attribute__((noinline, noclone)) static

/* y as it is; where `beside` is above 0, else 0 (relu's gradient); y + beside; y + beside's number for 2x2 pixels. */
typedef enum wino_finish { AS_IT_IS, MASK, ADD, ADD_HALF } wino_finish;

/* Channels in (c) and out (k) of the product, whichever way it goes. */
typedef struct wino_conv {
    wino_map in;
    const float *w, *bias;
    float scale; /* of the products, 1 / sigma */
    float *y;
    const float *beside; /* what finish has to do with y; y's shape, with ADD_HALF half its height and width */
    wino_finish finish;
    bool transposed; /* weights of the data gradient: turned, and `k` is their last dimension */
    int accumulate;
    int64_t c, k, out_h, out_w; /* out: at full resolution */
    int64_t depth;              /* c with the zeros */
    int64_t rows, tiles;        /* tiles of a group, which one register tile takes, even; tiles of a block */
    wino_layout v_at, m_at;     /* transformed inputs and products */
    int64_t u_freq;             /* transformed weights: [frequency][strip of GEMM_NR k][c][k] */
} wino_conv;

/* ----------------------------------------------------------------------------------------- weights */

static int64_t strip_width(const wino_conv *j, int64_t k)
{
    return j->k - k > CPU_LANES ? GEMM_NR : CPU_LANES;
}

/* The weights from `depth` inner channels from c0 to the strip of output channels at k. */
ONE_COPY void transform_weights(const wino_conv *j, int64_t c0, int64_t depth, int64_t k, float *u)
{
    float tile[9][CPU_LANES * CPU_LANES];
    int64_t width = strip_width(j, k);
    for (int64_t k0 = 0; k0 < width; k0 += CPU_LANES)
        for (int64_t c = 0; c < depth; c++) {
            if (c % CPU_LANES == 0) load_taps(j->w, j->transposed, j->c, j->k, c0 + c, k + k0, tile);
            cpu_vec w[9];
            for (int tap = 0; tap < 9; tap++) w[tap] = cpu_load(tile[tap] + c % CPU_LANES * CPU_LANES);
            wino_weights(w, u + c * width + k0, j->u_freq);
        }
}

/* ---------------------------------------------------------------------------------------- products */

#define DEFINE_NARROW(family, row, v)                                                                                  \
    TILE_FUNCTION(family, narrow, v)                                                                                   \
    {                                                                                                                  \
        tile_run(2 * v, 1, row, 1, CPU_LANES, w, a, b, out);                                                           \
    }
TILE_SIZES(TILE_DEFINE_WIDE, product, WINO_STRIP)
TILE_SIZES(DEFINE_NARROW, product, WINO_STRIP)
static tile_kernel *const wide_tiles[TILE_VARIANTS] = {NULL, TILE_SIZES(TILE_ENTRY_WIDE, product, WINO_STRIP)};
static tile_kernel *const narrow_tiles[TILE_VARIANTS] = {NULL, TILE_SIZES(TILE_ENTRY_NARROW, product, WINO_STRIP)};

/* One frequency: m (+)= v u for `tiles` tiles, an even number, in groups of which the last may be smaller, a strip of
 * `width` outputs and `depth` <= CHAIN inner channels. */
static void multiply(const wino_conv *j, int64_t tiles, int64_t depth, int64_t width, const float *v, const float *u,
                     float *m, bool add)
{
    const int64_t strip_at[CHAIN_STRIPS] = {0, j->v_at.strip};
    float *row[GEMM_MR];
    for (int i = 0; i < j->rows; i++) row[i] = m + i * WINO_STRIP;
    tile_walk walk = {
        .segments = cpu_ceil_div(depth, WINO_STRIP), .depth = cpu_min64(depth, WINO_STRIP), .a_at = strip_at};
    tile_out out = {.row = row, .cols = (int)width, .add = add};
    tile_kernel *const *kernel = width == GEMM_NR ? wide_tiles : narrow_tiles;
    for (int64_t t = 0; t < tiles; t += j->rows) {
        out.rows = (int)cpu_min64(j->rows, tiles - t);
        kernel[out.rows / 2](&walk, v, u, &out);
        v += j->rows * WINO_STRIP, out.col += j->rows * WINO_STRIP;
    }
}

/* Channels of the chain that starts at c: whole strips, or less than one. */
static int64_t chain_depth(const wino_conv *j, int64_t c)
{
    int64_t left = j->depth - c;
    return left >= CHAIN ? CHAIN : cpu_min64(left, WINO_STRIP);
}

/* ------------------------------------------------------------------------------------------- tiles */

ONE_COPY void load_tile(const wino_conv *j, int64_t tile, int64_t c0, int64_t count, float *v)
{
    wino_transform_tile(&j->in, tile, c0, count, 6, v, &j->v_at);
}

/* The first rows x cols of the 4x4 pixels of a tile and n channels, to y from them; `beside`: its place. */
CPU_INLINE void store_pixels(const wino_conv *j, const cpu_vec *o, int64_t rows, int64_t cols, int n, float *y,
                             const float *beside, const wino_finish finish)
{
    int64_t line = j->out_w * j->k, half_line = j->out_w / 2 * j->k;
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int s = 0; s < cols; s++) {
            cpu_vec v = o[r * 4 + s];
            if (finish == MASK) v = cpu_relu_gradient(cpu_load_part(beside + r * line + s * j->k, n), v);
            if (finish == ADD) v += cpu_load_part(beside + r * line + s * j->k, n);
            if (finish == ADD_HALF) v += cpu_load_part(beside + r / 2 * half_line + s / 2 * j->k, n);
            tile_store(y + r * line + s * j->k, v, n, NULL, j->accumulate);
        }
}

/* Outputs k0 .. k1 of one tile, of the pixels that the map has. m: from the strip of k0 */
ONE_COPY void store_tile(const wino_conv *j, int64_t tile, int64_t k0, int64_t k1, const float *m)
{
    uint32_t rows_in = (uint32_t)j->in.rows, cols_in = (uint32_t)j->in.cols, line_of = (uint32_t)tile / cols_in;
    int64_t image = line_of / rows_in, i0 = line_of % rows_in * WINO_STEP, j0 = (uint32_t)tile % cols_in * WINO_STEP;
    int64_t rows = cpu_min64(WINO_STEP, j->out_h - i0);
    int64_t cols = cpu_min64(WINO_STEP, j->out_w - j0), width = j->out_w;
    int64_t first = (image * j->out_h + i0) * width + j0;
    if (j->finish == ADD_HALF) first = (image * (j->out_h / 2) + i0 / 2) * (width / 2) + j0 / 2;
    float *y = j->y + ((image * j->out_h + i0) * width + j0) * j->k;
    const float *beside = j->finish == AS_IT_IS ? y : j->beside + first * j->k;
    bool whole = rows == WINO_STEP && cols == WINO_STEP;
#define STORE(finish)                                                                                                  \
    do {                                                                                                               \
        if (whole && n == CPU_LANES) /* the common case: no outputs by way of memory */                                \
            store_pixels(j, o, 4, 4, CPU_LANES, y + k, beside + k, finish);                                            \
        else                                                                                                           \
            store_pixels(j, o, rows, cols, n, y + k, beside + k, finish);                                              \
    } while (0)
    for (int64_t k = k0; k < k1; k += CPU_LANES) {
        int n = (int)cpu_min64(CPU_LANES, j->k - k);
        cpu_vec o[16], scale = cpu_splat(j->scale), bias = j->bias ? cpu_load_part(j->bias + k, n) : (cpu_vec){0};
        wino_output(m + (k - k0) / WINO_STRIP * j->m_at.strip + k % WINO_STRIP, j->m_at.freq, o);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) o[i] = scale * o[i] + bias;
        switch (j->finish) {
        case MASK: STORE(MASK); break;
        case ADD: STORE(ADD); break;
        case ADD_HALF: STORE(ADD_HALF); break;
        default: STORE(AS_IT_IS); break;
        }
    }
#undef STORE
}

/* -------------------------------------------------------------------------------------------- whole */

/* Takes the next `tiles` of those that the threads share: known before the block in front is worked on, so that they
 * can be asked for. */
static int64_t take(int64_t *taken, int64_t tiles)
{
    int64_t first;
#pragma omp atomic capture
    {
        first = *taken;
        *taken += tiles;
    }
    return first;
}

/* The maps that a thread's blocks come from and go to. */
typedef struct own_grids {
    tile_grid in, out, beside;
    bool comes; /* `beside` is read */
} own_grids;

/* Outputs k0 .. k1 of a block: the products of what is in v, by way of m to y. With the last ones, the pixels of the
 * block from `next` on are asked for. */
static void own_outputs(const wino_conv *j, const own_grids *g, int64_t first, int64_t tiles, int64_t next, int64_t k0,
                        int64_t k1, const float *v, const float *u, float *m)
{
    for (int f = 0; f < WINO_FREQS; f++) {
        if (k1 == j->k) tile_grid_prefetch(&g->in, next, j->tiles, f, WINO_FREQS, 0, j->c, 0);
        tile_grid_prefetch(&g->out, first, tiles, f, WINO_FREQS, k0, k1 - k0, 1);
        if (g->comes) tile_grid_prefetch(&g->beside, first, tiles, f, WINO_FREQS, k0, k1 - k0, 0);
        for (int64_t k = k0; k < k1; k += GEMM_NR)
            for (int64_t c = 0, depth, width = strip_width(j, k), s = k - k0; c < j->depth; c += depth) {
                depth = chain_depth(j, c);
                multiply(j, round_up(tiles, 2), depth, width, v + f * j->v_at.freq + c / WINO_STRIP * j->v_at.strip,
                         u + f * j->u_freq + k * j->depth + c * width,
                         m + f * j->m_at.freq + s / WINO_STRIP * j->m_at.strip + s % WINO_STRIP, c > 0);
            }
    }
    for (int64_t t = 0; t < tiles; t++) store_tile(j, first + t, k0, k1, m + t * WINO_STRIP);
}

/* Each thread has its own blocks, of whose outputs it makes OUTPUTS at a time; transformed weights are stored. */
static int run_own(sag_kernel_env *env, const wino_conv *j)
{
    int64_t v_floats = WINO_FREQS * j->v_at.freq, floats = v_floats + WINO_FREQS * j->m_at.freq;
    float *u = env->scratch(env, (size_t)(WINO_FREQS * j->u_freq) * sizeof *u);
    float *memory = env->scratch(env, (size_t)(env->threads * floats) * sizeof *memory);
    if (!u || !memory) return SAG_KERNEL_NO_MEMORY;
    int64_t chains = cpu_ceil_div(j->depth, CHAIN), strips = cpu_ceil_div(j->k, GEMM_NR), taken = 0;
    own_grids g = {.in = wino_grid(&j->in, j->in.x, j->in.h, j->in.w, j->c),
                   .out = wino_grid(&j->in, j->y, j->out_h, j->out_w, j->k),
                   .beside = wino_grid(&j->in, j->beside, j->out_h, j->out_w, j->k),
                   .comes = j->finish == MASK || j->finish == ADD};
#pragma omp parallel num_threads(env->threads) if (env->threads > 1)
    {
#pragma omp for schedule(static)
        for (int64_t piece = 0; piece < strips * chains; piece++) {
            int64_t k = piece / chains * GEMM_NR, c = piece % chains * CHAIN;
            transform_weights(j, c, cpu_min64(CHAIN, j->depth - c), k, u + k * j->depth + c * strip_width(j, k));
        }
        float *v = memory + omp_get_thread_num() * floats, *m = v + v_floats;
        int64_t first = take(&taken, j->tiles);
        for (int64_t next; first < j->in.tiles; first = next) {
            next = take(&taken, j->tiles);
            int64_t tiles = cpu_min64(j->tiles, j->in.tiles - first);
            for (int64_t t = 0; t < round_up(tiles, 2); t++) load_tile(j, first + t, 0, j->c, v + t * WINO_STRIP);
            for (int64_t k = 0; k < j->k; k += OUTPUTS)
                own_outputs(j, &g, first, tiles, next, k, cpu_min64(j->k, k + OUTPUTS), v, u, m);
        }
    }
    return SAG_KERNEL_OK;
}

/*
 * Many channels and few tiles: 36/9 times the weights would go through memory. So the threads share the inputs of a
 * block and take strips of outputs; weights are transformed chain by chain and used at once, out of L2.
 */
static int run_shared(sag_kernel_env *env, const wino_conv *j)
{
    int64_t u_floats = WINO_FREQS * j->u_freq, floats = u_floats + WINO_FREQS * j->m_at.freq;
    float *v = env->scratch(env, (size_t)(WINO_FREQS * j->v_at.freq) * sizeof *v);
    float *memory = env->scratch(env, (size_t)(env->threads * floats) * sizeof *memory);
    if (!v || !memory) return SAG_KERNEL_NO_MEMORY;
    int64_t chains = cpu_ceil_div(j->c, CHAIN);
#pragma omp parallel num_threads(env->threads) if (env->threads > 1)
    for (int64_t first = 0; first < j->in.tiles; first += j->tiles) {
        int64_t tiles = cpu_min64(j->tiles, j->in.tiles - first), even = round_up(tiles, 2);
#pragma omp for schedule(dynamic, 4)
        for (int64_t piece = 0; piece < even * chains; piece++) {
            int64_t t = piece % even, c = piece / even * CHAIN;
            load_tile(j, first + t, c, cpu_min64(CHAIN, j->c - c), v + c / WINO_STRIP * j->v_at.strip + t * WINO_STRIP);
        }
#pragma omp for schedule(dynamic)
        for (int64_t k0 = 0; k0 < j->k; k0 += WINO_STRIP) {
            float *u = memory + omp_get_thread_num() * floats, *m = u + u_floats;
            int64_t k1 = cpu_min64(j->k, k0 + WINO_STRIP);
            for (int64_t c = 0, depth; c < j->depth; c += depth) {
                depth = chain_depth(j, c);
                for (int64_t k = k0; k < k1; k += GEMM_NR) transform_weights(j, c, depth, k, u + (k - k0) * depth);
                for (int f = 0; f < WINO_FREQS; f++)
                    for (int64_t k = k0; k < k1; k += GEMM_NR)
                        multiply(j, even, depth, strip_width(j, k),
                                 v + f * j->v_at.freq + c / WINO_STRIP * j->v_at.strip,
                                 u + f * j->u_freq + (k - k0) * depth, m + f * j->m_at.freq + k - k0, c > 0);
            }
            for (int64_t t = 0; t < tiles; t++) store_tile(j, first + t, k0, k1, m + t * WINO_STRIP);
        }
    }
    return SAG_KERNEL_OK;
}

/*
 * Cuts the tiles into blocks of an even number up to `most`, and these into even groups: of the sizes not far below it
 * that by which the sharer with the most to do has the least.
 */
static void cut(wino_conv *j, int64_t most, int64_t sharers)
{
    int64_t n = j->in.tiles, least = INT64_MAX;
    if (most < GEMM_MR) most = GEMM_MR;
    for (int64_t tiles = round_up(most, 2); tiles > most * 2 / 3; tiles--) {
        int64_t own = cpu_ceil_div(cpu_ceil_div(n, tiles), sharers) * tiles;
        if (tiles % 2 != 0 || own >= least) continue;
        least = own;
        j->tiles = tiles;
    }
    if (j->tiles > round_up(n, 2)) j->tiles = round_up(n, 2);
    j->rows = round_up(cpu_ceil_div(j->tiles, cpu_ceil_div(j->tiles, GEMM_MR)), 2);
}

static int run(sag_kernel_env *env, wino_conv *j)
{
    j->depth = round_up(j->c, WINO_DEPTH);
    int64_t zeros = round_up(j->c, 16);
    float *memory = env->scratch(env, (size_t)zeros * sizeof *memory);
    if (!memory) return SAG_KERNEL_NO_MEMORY;
    gemm_clear(memory, zeros);
    j->in.zeros = memory;
    env->flops = 2.0 * WINO_FREQS * (double)(j->in.tiles * j->c * j->k);
    /* Stored weights of many channels pay when each thread reads them for two blocks. */
    int64_t least = env->threads * OWN_TILES * (j->c * j->k < STORED ? 1 : 2);
    bool shared = j->c * j->k > WIDE || j->in.tiles < least;
    int64_t each = OWN_FLOATS / (WINO_FREQS * (j->c + cpu_min64(j->k, OUTPUTS)));
    cut(j, shared ? SHARED_TILES : each > OWN_TILES ? each : OWN_TILES, shared ? 1 : env->threads);
    j->v_at = wino_layout_of(round_up(j->tiles, 2), j->c);
    j->m_at = wino_layout_of(round_up(j->tiles, 2), shared ? WINO_STRIP : cpu_min64(j->k, OUTPUTS));
    j->u_freq = (shared ? CHAIN * WINO_STRIP : j->depth * round_up(j->k, CPU_LANES)) + 16;
    return (shared ? run_shared : run_own)(env, j);
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

int CPU_ISA(winograd_fwd)(sag_kernel_env *env, const conv_args *a)
{
    wino_conv j = {
        .in = {.x = a->x, .h = a->h, .w = a->w_in, .c = a->c, .top = -a->pad_h, .left = -a->pad_w, .relu = a->relu},
        .w = a->w,
        .bias = a->b,
        .scale = cpu_inverse_sigma(a),
        .y = a->y,
        .beside = a->residual,
        .finish = !a->residual       ? AS_IT_IS
                  : a->residual_half ? ADD_HALF
                                     : ADD,
        .c = a->c,
        .k = a->k,
        .out_h = a->p,
        .out_w = a->q};
    set_tiles(&j, a);
    return run(env, &j);
}

int CPU_ISA(winograd_bwd_x)(sag_kernel_env *env, const conv_args *a)
{
    wino_conv j = {.in = {.x = a->dy, .h = a->p, .w = a->q, .c = a->k, .top = a->pad_h - 2, .left = a->pad_w - 2},
                   .w = a->w,
                   .scale = cpu_inverse_sigma(a),
                   .transposed = true,
                   .y = a->dx,
                   .beside = a->x,
                   .finish = a->relu ? MASK : AS_IT_IS,
                   .accumulate = a->accumulate,
                   .c = a->k,
                   .k = a->c,
                   .out_h = a->h,
                   .out_w = a->w_in};
    set_tiles(&j, a);
    return run(env, &j);
}

/*
 * The one rule of when: an estimate of both ways' time, in multiply-adds at full speed, fitted to measurements over 3
 * to 1024 channels, sides 4 to 128 and batches 1 to 64 (tests/bench/bench_conv.c). A product counts a little more than
 * one; a tile's channel costs about TRANSFORM on its way in or out, a pair of channels, transformed once, PAIR or
 * PAIR_BACK.
 */
bool CPU_ISA(winograd_suits)(const sag_kernel_env *env, const conv_args *a, wino_way way)
{
    enum { TRANSFORM = 300, PAIR = 100, PAIR_BACK = 300 };
    if (env->no_winograd) return false;
    if (a->r != 3 || a->s != 3 || a->stride != 1 || a->pad_h > 2 || a->pad_w > 2) return false;
    int64_t h = way == WINO_BWD_X ? a->h : a->p, w = way == WINO_BWD_X ? a->w_in : a->q;
    double tiles = (double)(a->n * tiles_along(h) * tiles_along(w));
    double c = (double)round_up(a->c, WINO_DEPTH), k = (double)round_up(a->k, WINO_DEPTH);
    double least = way == WINO_BWD_W ? 6 : 4; /* tiles that a product costs */
    double product = 1.15 * WINO_FREQS * (tiles < least ? least : tiles) * c * k;
    double fast = product + TRANSFORM * tiles * (c + k) + (way == WINO_BWD_W ? PAIR_BACK : PAIR) * c * k;
    return fast < 9 * (double)(a->n * h * w) * (double)a->c * (double)a->k;
}
