/* bf16.h - bfloat16, the upper half of an f32: rounding to nearest, ties to even; NaN stays NaN, overflow is infinity. */
#ifndef SAG_CPU_BF16_H
#define SAG_CPU_BF16_H

#include <stdint.h>
#include <string.h>

static inline uint16_t cpu_bf16_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    uint32_t rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
    uint32_t quiet = u >> 16 | 0x40u; /* adding to the bits of a NaN could carry it to infinity or zero */
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

static inline float cpu_bf16_float(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

#endif
