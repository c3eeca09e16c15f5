/* patches.c - fetches rows of patches and finds places of pixels; patches.h has the geometry. */
#include "kernels/cpu/patches.h"

/* One patch that hangs over the border: columns k0 .. k0+depth of it, zeros where there is no pixel. */
static void fetch_clipped(const patches *p, int64_t image, int64_t i0, int64_t j0, int64_t k0, int64_t depth,
                          float *dst)
{
    int64_t run = p->s * p->c; /* one row of the patch lies together in memory */
    int64_t first = j0 < 0 ? cpu_min64(-j0 * p->c, run) : 0;
    int64_t last = j0 + p->s > p->w ? (p->w - j0) * p->c : run;
    if (last < first) last = first;
    for (int64_t k = k0; k < k0 + depth;) {
        int64_t r = k / run, i = i0 + r, a = k - r * run, b = cpu_min64(run, a + k0 + depth - k);
        float *d = dst + (k - k0) - a;
        if (i < 0 || i >= p->h) {
            gemm_clear(d + a, b - a);
        } else {
            const float *src = p->x + ((image * p->h + i) * p->w + j0) * p->c;
            int64_t from = a > first ? a : first, to = b < last ? b : last;
            if (to <= from) {
                gemm_clear(d + a, b - a);
            } else {
                if (from > a) gemm_clear(d + a, from - a);
                gemm_copy(d + from, src + from, to - from);
                if (b > to) gemm_clear(d + to, b - to);
            }
        }
        k += b - a;
    }
}

void CPU_ISA(patches_fetch)(const void *a, int64_t m0, int64_t rows, int64_t k0, int64_t depth, float *panel,
                            int64_t ld)
{
    const patches *p = a;
    int64_t run = p->s * p->c, line = p->w * p->c;
    int64_t r0 = k0 / run, skip = k0 - r0 * run; /* where the columns begin */
    int64_t per_image = p->rows * p->cols;
    int64_t image = m0 / per_image, i = m0 % per_image / p->cols, j = m0 % p->cols;
    for (int64_t m = 0; m < rows; m++) {
        int64_t i0 = i * p->stride + p->top, j0 = j * p->stride + p->left;
        float *d = panel + m * ld;
        if (i0 >= 0 && j0 >= 0 && i0 + p->r <= p->h && j0 + p->s <= p->w) {
            const float *src = p->x + ((image * p->h + i0 + r0) * p->w + j0) * p->c;
            int64_t left = depth, n = cpu_min64(run - skip, left);
            gemm_copy(d, src + skip, n);
            while (left -= n, d += n, src += line, left > 0) {
                n = cpu_min64(run, left);
                gemm_copy(d, src, n);
            }
        } else {
            fetch_clipped(p, image, i0, j0, k0, depth, d);
        }
        if (++j == p->cols) {
            j = 0;
            if (++i == p->rows) i = 0, image++;
        }
    }
}

void CPU_ISA(patches_copy_rows)(const patches *x, int64_t image, int64_t i0, int64_t rows, int64_t in_cols,
                                int64_t row_ld, float *band)
{
    int64_t first = x->left < 0 ? cpu_min64(-x->left, in_cols) : 0, last = cpu_min64(in_cols, x->w - x->left);
    if (last < first) last = first;
    for (int64_t i = i0; i < i0 + rows; i++, band += row_ld) {
        const float *src = x->x + ((image * x->h + i) * x->w + x->left) * x->c;
        if (i < 0 || i >= x->h) {
            gemm_clear(band, row_ld);
            continue;
        }
        gemm_clear(band, first * x->c);
        gemm_copy(band + first * x->c, src + first * x->c, (last - first) * x->c);
        gemm_clear(band + last * x->c, row_ld - last * x->c);
    }
}

void CPU_ISA(places_rows)(const void *c, int64_t m0, int64_t rows, float **row)
{
    const places *p = c;
    int64_t per_image = p->rows * p->cols;
    int64_t image = m0 / per_image, i = m0 % per_image / p->cols, j = m0 % p->cols;
    for (int64_t m = 0; m < rows; m++) {
        row[m] = p->map + ((image * p->h + i * p->step + p->top) * p->w + j * p->step + p->left) * p->c;
        if (++j == p->cols) {
            j = 0;
            if (++i == p->rows) i = 0, image++;
        }
    }
}
