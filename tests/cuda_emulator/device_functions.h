/* device_functions.h - what a kernel calls: barriers, a warp's exchanges, atomics, cached loads, arithmetic intrinsics. */
#ifndef SAG_CUDA_EMULATOR_DEVICE_FUNCTIONS_H
#define SAG_CUDA_EMULATOR_DEVICE_FUNCTIONS_H

/* ------------------------------------------------------------------------------------------------- waiting */

void cuda_emulator_barrier(cuda_emulator_site at);
void cuda_emulator_syncwarp(unsigned mask, cuda_emulator_site at);
enum cuda_emulator_exchange {
    CUDA_EMULATOR_SHFL,
    CUDA_EMULATOR_SHFL_XOR,
    CUDA_EMULATOR_SHFL_UP,
    CUDA_EMULATOR_SHFL_DOWN,
    CUDA_EMULATOR_BALLOT
};
uint64_t cuda_emulator_exchange_bits(cuda_emulator_exchange kind, unsigned mask, uint64_t bits, int argument, int width,
                                     cuda_emulator_site at);

static inline void __syncthreads(CUDA_EMULATOR_HERE)
{
    cuda_emulator_barrier(CUDA_EMULATOR_SITE);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, CUDA_EMULATOR_HERE)
{
    cuda_emulator_syncwarp(mask, CUDA_EMULATOR_SITE);
}

template <typename T>
static inline T cuda_emulator_shuffle(cuda_emulator_exchange kind, unsigned mask, T x, int argument, int width, cuda_emulator_site at)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &x, sizeof x);
    bits = cuda_emulator_exchange_bits(kind, mask, bits, argument, width, at);
    memcpy(&x, &bits, sizeof x);
    return x;
}
template <typename T> static inline T __shfl_sync(unsigned mask, T x, int lane, int width = 32, CUDA_EMULATOR_HERE)
{
    return cuda_emulator_shuffle(CUDA_EMULATOR_SHFL, mask, x, lane, width, CUDA_EMULATOR_SITE);
}
template <typename T> static inline T __shfl_xor_sync(unsigned mask, T x, int lanes, int width = 32, CUDA_EMULATOR_HERE)
{
    return cuda_emulator_shuffle(CUDA_EMULATOR_SHFL_XOR, mask, x, lanes, width, CUDA_EMULATOR_SITE);
}
template <typename T> static inline T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32, CUDA_EMULATOR_HERE)
{
    return cuda_emulator_shuffle(CUDA_EMULATOR_SHFL_UP, mask, x, (int)by, width, CUDA_EMULATOR_SITE);
}
template <typename T> static inline T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32, CUDA_EMULATOR_HERE)
{
    return cuda_emulator_shuffle(CUDA_EMULATOR_SHFL_DOWN, mask, x, (int)by, width, CUDA_EMULATOR_SITE);
}
static inline unsigned __ballot_sync(unsigned mask, int yes, CUDA_EMULATOR_HERE)
{
    return (unsigned)cuda_emulator_exchange_bits(CUDA_EMULATOR_BALLOT, mask, yes != 0, 0, 32, CUDA_EMULATOR_SITE);
}
static inline int __any_sync(unsigned mask, int yes, CUDA_EMULATOR_HERE)
{
    return __ballot_sync(mask, yes, file, line) != 0;
}
static inline int __all_sync(unsigned mask, int yes, CUDA_EMULATOR_HERE)
{
    return __ballot_sync(mask, yes, file, line) == mask;
}
void cuda_emulator_fence();
static inline void __threadfence()
{
    cuda_emulator_fence();
}
static inline void __threadfence_block() {}

/* ------------------------------------------------------------------------------------------------- atomics */

/* Threads take turns, so a plain read and write is atomic; the checker is told that it is meant so. */
void cuda_emulator_atomic(const volatile void *p, size_t bytes);
__attribute__((noinline)) int cuda_emulator_swap(void *p, void *old, const void *value, size_t bytes);

#define CUDA_EMULATOR_ATOMIC(name, expression)                                   \
    template <typename T, typename U> static inline T name(T *p, U given)        \
    {                                                                            \
        cuda_emulator_atomic(p, sizeof *p);                                      \
        T old, value = (T)given, next;                                           \
        cuda_emulator_swap(p, &old, nullptr, sizeof old);                        \
        next = (T)(expression);                                                  \
        cuda_emulator_swap(p, &old, &next, sizeof old);                          \
        return old;                                                              \
    }
CUDA_EMULATOR_ATOMIC(atomicAdd, old + value)
CUDA_EMULATOR_ATOMIC(atomicSub, old - value)
CUDA_EMULATOR_ATOMIC(atomicMax, old > value ? old : value)
CUDA_EMULATOR_ATOMIC(atomicMin, old < value ? old : value)
CUDA_EMULATOR_ATOMIC(atomicOr, old | value)
CUDA_EMULATOR_ATOMIC(atomicAnd, old &value)
CUDA_EMULATOR_ATOMIC(atomicExch, value)
/* 0, 1, ..., limit, 0, ... */
CUDA_EMULATOR_ATOMIC(cuda_emulator_increment, old >= value ? 0 : old + 1)
/* What kernels count blocks with: they say by it that their stores can be read. */
void cuda_emulator_arrival();
static inline unsigned atomicInc(unsigned *p, unsigned limit)
{
    cuda_emulator_arrival();
    return cuda_emulator_increment(p, limit);
}
template <typename T> static inline T atomicCAS(T *p, T expected, T desired)
{
    cuda_emulator_atomic(p, sizeof *p);
    T old;
    cuda_emulator_swap(p, &old, nullptr, sizeof old);
    if (memcmp(&old, &expected, sizeof old) == 0) cuda_emulator_swap(p, &old, &desired, sizeof old);
    return old;
}

/* ---------------------------------------------------------------------------------------- loads and stores */

template <typename T> static inline T __ldg(const T *p)
{
    return *p;
}
template <typename T> static inline T __ldcs(const T *p)
{
    return *p;
}
template <typename T> static inline T __ldcg(const T *p)
{
    return *p;
}
template <typename T> static inline void __stcs(T *p, T x)
{
    *p = x;
}
template <typename T> static inline void __stcg(T *p, T x)
{
    *p = x;
}

/* ---------------------------------------------------------------------------------------------- arithmetic */

/* As on the card, float arguments take the float function. */
#define CUDA_EMULATOR_MINMAX(type)                                                      \
    static inline type min(type a, type b) { return b < a ? b : a; }                    \
    static inline type max(type a, type b) { return a < b ? b : a; }
CUDA_EMULATOR_MINMAX(int)
CUDA_EMULATOR_MINMAX(unsigned)
CUDA_EMULATOR_MINMAX(long)
CUDA_EMULATOR_MINMAX(unsigned long)
CUDA_EMULATOR_MINMAX(long long)
CUDA_EMULATOR_MINMAX(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
/* glibc declares functions of these names for itself. */
#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
#define __sincosf sincosf
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
/* Rounded one by one, whatever the compiler would join: extern, so that it cannot. */
float cuda_emulator_add(float a, float b);
float cuda_emulator_mul(float a, float b);
double cuda_emulator_add(double a, double b);
double cuda_emulator_mul(double a, double b);
static inline float __fadd_rn(float a, float b) { return cuda_emulator_add(a, b); }
static inline float __fsub_rn(float a, float b) { return cuda_emulator_add(a, -b); }
static inline float __fmul_rn(float a, float b) { return cuda_emulator_mul(a, b); }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return cuda_emulator_add(a, b); }
static inline double __dsub_rn(double a, double b) { return cuda_emulator_add(a, -b); }
static inline double __dmul_rn(double a, double b) { return cuda_emulator_mul(a, b); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

static inline int __float_as_int(float x) { int r; memcpy(&r, &x, sizeof r); return r; }
static inline unsigned __float_as_uint(float x) { unsigned r; memcpy(&r, &x, sizeof r); return r; }
static inline float __int_as_float(int x) { float r; memcpy(&r, &x, sizeof r); return r; }
static inline float __uint_as_float(unsigned x) { float r; memcpy(&r, &x, sizeof r); return r; }
static inline long long __double_as_longlong(double x) { long long r; memcpy(&r, &x, sizeof r); return r; }
static inline double __longlong_as_double(long long x) { double r; memcpy(&r, &x, sizeof r); return r; }
static inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
static inline int __float2int_rd(float x) { return (int)floorf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }

static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline int __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector)
{
    uint64_t both = (uint64_t)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) r |= (unsigned)(both >> 8 * (selector >> 4 * i & 7u) & 0xffu) << 8 * i;
    return r;
}
void __trap();

#endif
