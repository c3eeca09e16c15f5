/*
 * vec_math.h - exp, log, tanh, sigmoid, softplus without branches, on vectors (cpu_exp) and on single floats (cpu_exp1).
 *
 * Both forms come from the one text in vec_math_body.h and do the same operations in the same order, so a tail that is
 * computed by the scalar form has the bits that the vector form would have given. The scalar forms are plain C that the
 * compiler can vectorise under `omp simd`.
 *
 * Accuracy over the whole float range, in units of the last place: exp and log 1, tanh 1.5, softplus 2, sigmoid 3.
 * NaN stays NaN, exp overflows to infinity and underflows through the subnormal numbers, log(0) = -inf, log(<0) = NaN.
 * Each is written for -ffp-contract=fast and gives slightly different last bits on levels without fused multiply-add.
 */
#ifndef SAG_CPU_VEC_MATH_H
#define SAG_CPU_VEC_MATH_H

#include "kernels/cpu/cpu.h"

/* mask: lanes of 0 or -1, as a comparison gives. */
static inline cpu_vec cpu_select(cpu_ivec mask, cpu_vec yes, cpu_vec no)
{
    return (cpu_vec)((mask & (cpu_ivec)yes) | (~mask & (cpu_ivec)no));
}
static inline cpu_vec cpu_max(cpu_vec a, cpu_vec b) /* b where a is NaN */
{
    return cpu_select(a > b, a, b);
}
static inline float cpu_lane_sum(cpu_vec v) /* a tree, the same at every call */
{
    float t[CPU_LANES];
    memcpy(t, &v, sizeof t);
    for (int half = CPU_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) t[i] += t[i + half];
    return t[0];
}
static inline float cpu_lane_max(cpu_vec v)
{
    float t[CPU_LANES];
    memcpy(t, &v, sizeof t);
    for (int half = CPU_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) t[i] = t[i] > t[i + half] ? t[i] : t[i + half];
    return t[0];
}

typedef uint32_t cpu_uvec __attribute__((vector_size(CPU_LANES * 4)));

#define VM_NAME(f) f
#define VM_F cpu_vec
#define VM_I cpu_ivec
#define VM_U cpu_uvec
#define VM_ALL(c) cpu_splat(c)
#define VM_SELECT(mask, yes, no) cpu_select(mask, yes, no)
#define VM_BITS(x) ((cpu_ivec)(x))
#define VM_FLOAT(i) ((cpu_vec)(i))
#define VM_CONVERT(i) __builtin_convertvector(i, cpu_vec)
#include "kernels/cpu/vec_math_body.h"

static inline int32_t cpu_float_bits(float x)
{
    int32_t i;
    memcpy(&i, &x, sizeof i);
    return i;
}
static inline float cpu_bits_float(uint32_t i)
{
    float x;
    memcpy(&x, &i, sizeof x);
    return x;
}
#define VM_NAME(f) f##1
#define VM_F float
#define VM_I int32_t
#define VM_U uint32_t
#define VM_ALL(c) (c)
#define VM_SELECT(mask, yes, no) ((mask) ? (yes) : (no))
#define VM_BITS(x) cpu_float_bits(x)
#define VM_FLOAT(i) cpu_bits_float((uint32_t)(i))
#define VM_CONVERT(i) ((float)(i))
#include "kernels/cpu/vec_math_body.h"

#endif
