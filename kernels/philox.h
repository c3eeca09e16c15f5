/*
 * philox.h - Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11) and the maps from its
 * words to numbers. Plain C that a host and a CUDA compiler both take; every product that meets a sum is an explicit
 * fmaf, and the functions are our own polynomials, so that both sides draw the same bits.
 *
 * The key is the seed; the counter is (block, stream, clock low, clock high). Element i of a tensor uses word i % 4 of
 * block i / 4. One word makes one number:
 *   uniform   its upper 24 bits / 2^24
 *   normal    the quantile of (word + 1/2) / 2^32: the top bit is the sign, the other 31 the distance from the tail
 *   truncated the same quantile, over the part of the distribution that lies inside +- bound
 *   integer   low + (word * range) / 2^32
 */
#ifndef SAG_PHILOX_H
#define SAG_PHILOX_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define SAG_HD __host__ __device__ static inline
#else
#define SAG_HD static inline __attribute__((always_inline))
#endif

typedef struct sag_philox_block {
    uint32_t w0, w1, w2, w3;
} sag_philox_block;

SAG_HD sag_philox_block sag_philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1)
{
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    sag_philox_block out = {c0, c1, c2, c3};
    return out;
}

/* [0, 1) in steps of 2^-24. */
SAG_HD float sag_philox_unit(uint32_t word)
{
    return (float)(int32_t)(word >> 8) * 5.9604644775390625e-8f;
}

/* [low, low + width), where `below` is the largest float under low + width: the sum may round up to the end. */
SAG_HD float sag_philox_uniform(uint32_t word, float low, float width, float below)
{
    float y = fmaf(sag_philox_unit(word), width, low);
    return y <= below ? y : below;
}

SAG_HD int64_t sag_philox_integer(uint32_t word, int64_t low, uint64_t range) /* range 1 .. 2^32 */
{
    return low + (int64_t)(((uint64_t)word * range) >> 32);
}

/* Natural logarithm of a normal float > 0: k ln 2 + f + f^2 (f P(f) - 1/2), as in kernels/cpu/vec_math_body.h. */
SAG_HD float sag_philox_log(float x)
{
    int32_t i;
    memcpy(&i, &x, sizeof i);
    i -= 0x3f3504f3;
    float k = (float)(i >> 23);
    int32_t m = (i & 0x007fffff) + 0x3f3504f3;
    float f;
    memcpy(&f, &m, sizeof f);
    f -= 1.0f;
    float p = fmaf(f, 6.97168186e-2f, -0.114798367f);
    p = fmaf(p, f, 0.116854429f);
    p = fmaf(p, f, -0.12425676f);
    p = fmaf(p, f, 0.142490536f);
    p = fmaf(p, f, -0.166678026f);
    p = fmaf(p, f, 0.200007156f);
    p = fmaf(p, f, -0.24999997f);
    p = fmaf(p, f, 0.333333313f);
    p = fmaf(p, f, -0.5f);
    float square = f * f;
    float y = fmaf(square, p, f);
    y = fmaf(k, -2.12194440e-4f, y);
    return fmaf(k, 0.693359375f, y);
}

/* What the normal transform needs to know of the bound: `tail` is the probability beyond it on one side, `step` the
 * probability of one of the 2^31 cells between it and 0. */
typedef struct sag_philox_gauss {
    float tail, step;
} sag_philox_gauss;

static inline sag_philox_gauss sag_philox_gauss_of(double bound) /* in standard deviations; <= 0: none. Host only. */
{
    double tail = bound > 0.0 ? 0.5 * erfc(bound * 0.70710678118654752440) : 0.0;
    sag_philox_gauss g = {(float)tail, (float)((0.5 - tail) / 2147483648.0)};
    return g;
}

/*
 * Standard normal number of a word. p = P(X > z) comes from the integer with full relative precision, q = 1/2 - p
 * likewise; z = q R(w) with w = -log(4 p (1 - p)) (the form of Giles, "Approximating the erfinv function", 2010), R a
 * polynomial in w below 6.25 and in sqrt(w) above. Relative error of z below 1e-6, |z| <= 6.3.
 */
SAG_HD float sag_philox_normal(uint32_t word, sag_philox_gauss g)
{
    int32_t k = (int32_t)(word & 0x7fffffffu);
    float p = fmaf((float)k + 0.5f, g.step, g.tail);
    float q = ((float)(0x7fffffff - k) + 0.5f) * g.step;
    float p4 = p * 4.0f;
    float w = -sag_philox_log(fmaf(-p4, p, p4));

    float t = w - 3.125f;
    float near = fmaf(t, -1.30486715e-8f, -2.4120677e-8f);
    near = fmaf(near, t, 1.20425773e-6f);
    near = fmaf(near, t, -4.31937906e-6f);
    near = fmaf(near, t, -3.92800757e-5f);
    near = fmaf(near, t, 5.29697922e-4f);
    near = fmaf(near, t, -2.0950099e-3f);
    near = fmaf(near, t, -1.70676373e-2f);
    near = fmaf(near, t, 0.67926991f);
    near = fmaf(near, t, 4.6772418f);

    float s = sqrtf(w > 6.25f ? w : 6.25f) - 3.4f;
    float far = fmaf(s, -5.15533262e-4f, 1.92066364e-3f);
    far = fmaf(far, s, -3.14591476e-3f);
    far = fmaf(far, s, 4.18854551e-3f);
    far = fmaf(far, s, -7.15623703e-3f);
    far = fmaf(far, s, 1.12373587e-2f);
    far = fmaf(far, s, 2.84721303f);
    far = fmaf(far, s, 9.14935017f);

    float z = q * (w > 6.25f ? far : near);
    return (word >> 31) != 0u ? -z : z;
}

#endif
