/* gemm_pack.c - lays B out in strips, as the register tiles read it; see gemm_pack.h. */
#include "kernels/cpu/gemm_pack.h"

#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/transpose.h"

static int64_t b_at(const gemm_b *b, int64_t k)
{
    return b->offset ? b->offset[k] : k * b->row;
}

/* Do the next CPU_LANES of k lie together in memory? */
static bool runs_along(const gemm_b *b, int64_t k)
{
    int64_t first = b_at(b, k);
    for (int64_t i = 1; i < CPU_LANES; i++)
        if (b_at(b, k + i) != first + i) return false;
    return true;
}

/* Columns n0 .. n0+cols of k0 .. k0+depth, zeros behind, to dst[k][column], or by groups to [k / g][column][k % g]. */
void CPU_ISA(gemm_pack_strip)(const gemm_b *b, int64_t k0, int64_t depth, int64_t n0, int64_t cols, float *dst)
{
    strip_kind kind = strip_kind_of(cols);
    int64_t width = kind == STRIP_WIDE ? GEMM_NR : CPU_LANES, g = strip_group(kind);
    if (g > 1) {
        gemm_clear(dst, round_up(depth, g) * width / g);
        for (int64_t k = 0; k < depth; k++) {
            const float *src = b->data + b_at(b, k0 + k) + n0 * b->column;
            for (int64_t j = 0; j < cols; j++) dst[k / g * width + j * g + k % g] = src[j * b->column];
        }
        return;
    }
    if (b->column == 1 && cols == GEMM_NR) { /* a constant: two vectors */
        for (int64_t k = 0; k < depth; k++, dst += GEMM_NR) gemm_copy(dst, b->data + b_at(b, k0 + k) + n0, GEMM_NR);
        return;
    }
    if (b->column == 1) {
        for (int64_t k = 0; k < depth; k++, dst += width) {
            gemm_copy(dst, b->data + b_at(b, k0 + k) + n0, cols);
            gemm_clear(dst + cols, width - cols);
        }
        return;
    }
    int64_t k = 0;
    while (k < depth) {
        const float *src = b->data + b_at(b, k0 + k) + n0 * b->column;
        if (k + CPU_LANES <= depth && runs_along(b, k0 + k)) { /* transpose squares */
            int64_t j = 0;
            for (; j + CPU_LANES <= cols; j += CPU_LANES)
                transpose_square(src + j * b->column, b->column, dst + k * width + j, width);
            for (; j < cols; j++)
                for (int64_t i = 0; i < CPU_LANES; i++) dst[(k + i) * width + j] = src[j * b->column + i];
            for (int64_t i = 0; i < CPU_LANES; i++) gemm_clear(dst + (k + i) * width + cols, width - cols);
            k += CPU_LANES;
        } else {
            for (int64_t j = 0; j < cols; j++) dst[k * width + j] = src[j * b->column];
            gemm_clear(dst + k * width + cols, width - cols);
            k++;
        }
    }
}

void CPU_ISA(gemm_pack)(const gemm_b *b, int64_t n, int64_t k, int64_t depth, float *packed, int threads)
{
    int64_t strips = cpu_ceil_div(n, GEMM_NR), blocks = cpu_ceil_div(k, depth);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && k * n > 16384)
    for (int64_t u = 0; u < strips * blocks; u++) {
        int64_t k0 = u / strips * depth, n0 = u % strips * GEMM_NR;
        int64_t d = cpu_min64(depth, k - k0), cols = cpu_min64(GEMM_NR, n - n0);
        CPU_ISA(gemm_pack_strip)(b, k0, d, n0, cols, packed + packed_offset(n, k0, d, u % strips));
    }
}
