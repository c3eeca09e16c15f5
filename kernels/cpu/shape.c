/*
 * shape.c - moving elements: strided block copies (concat, slice, assign and their gradients) and permutation.
 * Pure movement works for every dtype; adding to the destination is f32.
 */
#include "kernels/cpu/columns.h"

#define CHUNK (CPU_PIECE * 4) /* bytes of one piece of a long row */

/* Rows are cut into pieces of CHUNK bytes; short rows are taken together until they make a piece. */
static int cpu_copy_block(sag_kernel_env *env, const copy_block_args *a)
{
    if (a->accumulate && a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    int64_t cuts = a->inner > CHUNK ? cpu_ceil_div(a->inner, CHUNK) : 1;
    int64_t group = cuts > 1 || a->inner == 0 ? 1 : CHUNK / a->inner;
    int64_t groups = cpu_ceil_div(a->outer, group), pieces = groups * cuts;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->outer * a->inner > 4 * CPU_SMALL)
    for (int64_t piece = 0; piece < pieces; piece++) {
        int64_t from = piece / cuts * group, to = cpu_min64(from + group, a->outer);
        int64_t at = piece % cuts * CHUNK, bytes = cpu_min64(CHUNK, a->inner - at);
        for (int64_t row = from; row < to; row++) {
            char *dst = (char *)a->dst + row * a->dst_stride + at;
            const char *src = (const char *)a->src + row * a->src_stride + at;
            if (!a->accumulate) {
                memcpy(dst, src, (size_t)bytes);
                continue;
            }
            float *d = (float *)(void *)dst;
            const float *s = (const float *)(const void *)src;
            int64_t n = bytes / 4;
#pragma omp simd
            for (int64_t i = 0; i < n; i++) d[i] += s[i];
        }
    }
    return SAG_KERNEL_OK;
}

/*
 * The permutation after dropping dimensions of 1 and joining those that stay neighbours: y's dimension i has `size[i]`
 * elements that lie `step[i]` apart in x. Always four, padded with 1 in front.
 */
typedef struct moves {
    int64_t size[4], step[4];
} moves;

static moves moves_of(const permute_args *a)
{
    int64_t x_step[4], size[4] = {1, 1, 1, 1}, step[4] = {0};
    x_step[3] = 1;
    for (int i = 2; i >= 0; i--) x_step[i] = x_step[i + 1] * a->shape[i + 1];
    int n = 0;
    for (int i = 0; i < 4; i++) {
        int64_t s = a->shape[a->d[i]], t = x_step[a->d[i]];
        if (s == 1) continue;
        if (n > 0 && step[n - 1] == s * t) {
            size[n - 1] *= s;
            step[n - 1] = t;
        } else {
            size[n] = s;
            step[n++] = t;
        }
    }
    moves m = {.size = {1, 1, 1, 1}};
    for (int i = 0; i < n; i++) {
        m.size[4 - n + i] = size[i];
        m.step[4 - n + i] = step[i];
    }
    return m;
}

/*
 * A plane: y[i * y_step + j] = x[i * step_i + j * step_j]. In tiles of 16 x 16, so that the lines that the strided side
 * touches are used up while they are in the cache.
 */
typedef struct plane {
    int64_t rows, cols, y_step, step_i, step_j;
} plane;

#define TILE 16
#define TILES(statement)                                                                                             \
    for (int64_t i0 = 0; i0 < p->rows; i0 += TILE) {                                                                 \
        int64_t i1 = cpu_min64(i0 + TILE, p->rows);                                                                  \
        for (int64_t j0 = 0; j0 < p->cols; j0 += TILE) {                                                             \
            int64_t j1 = cpu_min64(j0 + TILE, p->cols);                                                              \
            for (int64_t i = i0; i < i1; i++) {                                                                      \
                for (int64_t j = j0; j < j1; j++) statement;                                                         \
            }                                                                                                        \
        }                                                                                                            \
    }
#define PLANE(type)                                                                                                  \
    static void plane_##type(const plane *p, const type *restrict x, type *restrict y)                               \
    {                                                                                                                \
        if (p->step_j == 1) {                                                                                        \
            for (int64_t i = 0; i < p->rows; i++)                                                                    \
                memcpy(y + i * p->y_step, x + i * p->step_i, (size_t)p->cols * sizeof *y);                           \
        } else {                                                                                                     \
            TILES(y[i * p->y_step + j] = x[i * p->step_i + j * p->step_j])                                           \
        }                                                                                                            \
    }
PLANE(uint8_t)
PLANE(uint16_t)
PLANE(uint32_t)

static void plane_add(const plane *p, const float *restrict x, float *restrict y)
{
    TILES(y[i * p->y_step + j] += x[i * p->step_i + j * p->step_j])
}

/* Planes of y's last dimension and the dimension that is innermost in x; bands of 64 rows of a plane are the pieces. */
static int cpu_permute(sag_kernel_env *env, const permute_args *a)
{
    if (a->accumulate && a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    moves m = moves_of(a);
    int64_t y_step[4] = {0, 0, 0, 1};
    for (int i = 2; i >= 0; i--) y_step[i] = y_step[i + 1] * m.size[i + 1];
    int row = 2;
    for (int i = 0; i < 3; i++) {
        if (m.size[i] > 1 && m.step[i] == 1) row = i;
    }
    int o0 = row == 0 ? 1 : 0, o1 = row == 2 ? 1 : 2;
    const int64_t band = 64;
    int64_t bands = cpu_ceil_div(m.size[row], band), pieces = m.size[o0] * m.size[o1] * bands;
    int64_t item = a->act == SAG_U8 ? 1 : a->act == SAG_BF16 ? 2 : 4;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (m.size[0] * y_step[0] > CPU_SMALL)
    for (int64_t piece = 0; piece < pieces; piece++) {
        int64_t first = piece % bands * band, k1 = piece / bands % m.size[o1], k0 = piece / bands / m.size[o1];
        plane p = {cpu_min64(band, m.size[row] - first), m.size[3], y_step[row], m.step[row], m.step[3]};
        const void *x = (const char *)a->x + (k0 * m.step[o0] + k1 * m.step[o1] + first * m.step[row]) * item;
        void *y = (char *)a->y + (k0 * y_step[o0] + k1 * y_step[o1] + first * y_step[row]) * item;
        if (a->accumulate) plane_add(&p, x, y);
        else if (item == 4) plane_uint32_t(&p, x, y);
        else if (item == 2) plane_uint16_t(&p, x, y);
        else plane_uint8_t(&p, x, y);
    }
    return SAG_KERNEL_OK;
}

void CPU_REGISTER(shape)(sag_kernel_table *t)
{
    t->copy_block = cpu_copy_block;
    t->permute = cpu_permute;
}
