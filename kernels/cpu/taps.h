/*
 * taps.h - a square of the weights of a 3x3 convolution, tap by tap, with lanes over the channels that a product
 * leaves: what winograd.c and upconv.c transform.
 */
#ifndef SAG_CPU_TAPS_H
#define SAG_CPU_TAPS_H

#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/transpose.h"

/* tile[tap][c][k] for CPU_LANES inner channels from c0 and CPU_LANES output channels from k0, zeros beyond the last. w
 * {K,3,3,C}; turned, for the data gradient: w {C,3,3,K}, and the taps in reverse order. */
static inline void load_taps(const float *w, bool turned, int64_t c, int64_t k, int64_t c0, int64_t k0,
                             float (*tile)[CPU_LANES * CPU_LANES])
{
    int64_t cs = cpu_min64(CPU_LANES, c - c0), ks = cpu_min64(CPU_LANES, k - k0);
    for (int tap = 0; tap < 9; tap++) {
        float *d = tile[tap];
        if (turned) {
            for (int64_t i = 0; i < CPU_LANES; i++) {
                cpu_store(d + i * CPU_LANES,
                          i < cs ? cpu_load_part(w + ((c0 + i) * 9 + 8 - tap) * k + k0, ks) : (cpu_vec){0});
            }
        } else if (cs == CPU_LANES && ks == CPU_LANES) {
            transpose_square(w + (k0 * 9 + tap) * c + c0, 9 * c, d, CPU_LANES);
        } else {
            for (int64_t i = 0; i < CPU_LANES; i++)
                for (int64_t o = 0; o < CPU_LANES; o++)
                    d[i * CPU_LANES + o] = i < cs && o < ks ? w[((k0 + o) * 9 + tap) * c + c0 + i] : 0.0f;
        }
    }
}

#endif
