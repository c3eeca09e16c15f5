/*
 * pixels.c - between stored pictures and activations, and between dtypes.
 *
 * u8 -> f32: (x - 127.5) / 127.5, so that 0 and 255 are exactly -1 and 1; optionally mirrored left-right and dithered by
 * keyed random numbers (pixels_args). f32 -> u8: floor(x * 127.5 + 128), clipped, NaN to 0: its inverse, and nearest
 * rounding in between. Casts to whole numbers drop the fraction and clip to the range; NaN becomes 0.
 */
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/columns.h"
#include "kernels/philox.h"

static void row_to_float(const uint8_t *restrict x, float *restrict y, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = ((float)x[i] - 127.5f) / 127.5f;
}

static void row_mirrored(const uint8_t *restrict x, float *restrict y, int64_t width, int64_t c)
{
    for (int64_t j = 0; j < width; j++) {
        const uint8_t *from = x + (width - 1 - j) * c;
        for (int64_t k = 0; k < c; k++) y[j * c + k] = ((float)from[k] - 127.5f) / 127.5f;
    }
}

/* Noise of element i: word i % 4 of block (i / 4, stream + 1, clock). */
static void add_noise(const pixels_args *a, float *y, int64_t first, int64_t n)
{
    uint32_t c2 = (uint32_t)a->clock[0], c3 = (uint32_t)a->clock[1], k0 = (uint32_t)a->seed, k1 = (uint32_t)(a->seed >> 32);
    for (int64_t block = first / 4; block * 4 < first + n; block++) {
        sag_philox_block p = sag_philox((uint32_t)block, a->stream + 1, c2, c3, k0, k1);
        const uint32_t w[4] = {p.w0, p.w1, p.w2, p.w3};
        for (int k = 0; k < 4; k++) {
            int64_t i = block * 4 + k - first;
            if (i >= 0 && i < n) y[i] = fmaf(sag_philox_unit(w[k]), a->dequantize, y[i]);
        }
    }
}

static int cpu_pixels_to_float(sag_kernel_env *env, const pixels_args *a)
{
    const uint8_t *x = a->x;
    float *y = a->y;
    int64_t line = a->w_in * a->c, rows = a->n * a->h;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (rows * line > CPU_SMALL)
    for (int64_t r = 0; r < rows; r++) {
        bool mirrored = false;
        if (a->flip) {
            sag_philox_block p = sag_philox((uint32_t)(r / a->h), a->stream, (uint32_t)a->clock[0], (uint32_t)a->clock[1],
                                            (uint32_t)a->seed, (uint32_t)(a->seed >> 32));
            mirrored = (p.w0 & 1u) != 0u;
        }
        if (mirrored) row_mirrored(x + r * line, y + r * line, a->w_in, a->c);
        else row_to_float(x + r * line, y + r * line, line);
        if (a->dequantize > 0.0f) add_noise(a, y + r * line, r * line, line);
    }
    return SAG_KERNEL_OK;
}

static int cpu_float_to_pixels(sag_kernel_env *env, const pixels_args *a)
{
    const float *x = a->x;
    uint8_t *y = a->y;
    int64_t n = a->n * a->h * a->w_in * a->c;
#pragma omp parallel for simd num_threads(env->threads) schedule(static, CPU_PIECE) if (parallel : n > CPU_SMALL)
    for (int64_t i = 0; i < n; i++) {
        float t = x[i] * 127.5f + 128.0f;
        t = t > 0.0f ? t : 0.0f; /* NaN too */
        t = t < 255.0f ? t : 255.0f;
        y[i] = (uint8_t)(int32_t)t;
    }
    return SAG_KERNEL_OK;
}

/* ------------------------------------------------------------------------------------------------- casts */

static inline float clip(float x, float low, float high)
{
    x = x == x ? x : 0.0f;
    x = x > low ? x : low;
    return x < high ? x : high;
}
static inline int32_t i32_of(float x)
{
    int32_t v = (int32_t)clip(x, -2147483648.0f, 2147483520.0f); /* the largest float below 2^31 */
    return x >= 2147483648.0f ? INT32_MAX : v;
}
static inline uint8_t u8_of(float x)
{
    return (uint8_t)(int32_t)clip(x, 0.0f, 255.0f);
}
static inline uint8_t u8_of_whole(int32_t x)
{
    return (uint8_t)(x < 0 ? 0 : x > 255 ? 255 : x);
}

/* Every pair that is not a copy: from, to, types, the conversion of v. Whole numbers reach bf16 through f32. */
#define CASTS(X)                                                                                                     \
    X(F32, BF16, float, uint16_t, cpu_bf16_of(v))                                                                    \
    X(F32, U8, float, uint8_t, u8_of(v))                                                                             \
    X(F32, I32, float, int32_t, i32_of(v))                                                                           \
    X(BF16, F32, uint16_t, float, cpu_bf16_float(v))                                                                 \
    X(BF16, U8, uint16_t, uint8_t, u8_of(cpu_bf16_float(v)))                                                         \
    X(BF16, I32, uint16_t, int32_t, i32_of(cpu_bf16_float(v)))                                                       \
    X(U8, F32, uint8_t, float, (float)v)                                                                             \
    X(U8, BF16, uint8_t, uint16_t, cpu_bf16_of((float)v))                                                            \
    X(U8, I32, uint8_t, int32_t, (int32_t)v)                                                                         \
    X(I32, F32, int32_t, float, (float)v)                                                                            \
    X(I32, BF16, int32_t, uint16_t, cpu_bf16_of((float)v))                                                           \
    X(I32, U8, int32_t, uint8_t, u8_of_whole(v))
#define FUNCTION(from, to, from_type, to_type, conversion)                                                           \
    static void cast_##from##_##to(const void *x, void *y, int64_t first, int64_t n)                                 \
    {                                                                                                                \
        const from_type *restrict p = (const from_type *)x + first;                                                  \
        to_type *restrict q = (to_type *)y + first;                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                            \
            from_type v = p[i];                                                                                      \
            q[i] = (conversion);                                                                                     \
        }                                                                                                            \
    }
CASTS(FUNCTION)

typedef void (*cast_piece)(const void *x, void *y, int64_t first, int64_t n);
#define ENTRY(from, to, from_type, to_type, conversion) [SAG_##from][SAG_##to] = cast_##from##_##to,
static const cast_piece casts[SAG_DTYPE_COUNT][SAG_DTYPE_COUNT] = {CASTS(ENTRY)};

static int cpu_cast(sag_kernel_env *env, const cast_args *a)
{
    cast_piece run = casts[a->from][a->to];
    size_t item = a->from == SAG_U8 ? 1 : a->from == SAG_BF16 ? 2 : 4;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->n > CPU_SMALL)
    for (int64_t i = 0; i < a->n; i += CPU_PIECE) {
        int64_t n = cpu_min64(CPU_PIECE, a->n - i);
        if (run) run(a->x, a->y, i, n);
        else memcpy((char *)a->y + (size_t)i * item, (const char *)a->x + (size_t)i * item, (size_t)n * item);
    }
    return SAG_KERNEL_OK;
}

void CPU_REGISTER(pixels)(sag_kernel_table *t)
{
    t->pixels_to_float = cpu_pixels_to_float;
    t->float_to_pixels = cpu_float_to_pixels;
    t->cast = cpu_cast;
}
