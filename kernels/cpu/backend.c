/* backend.c - the CPU as a backend: picks the SIMD level, fills the table, hands out aligned memory. */
#include <stdlib.h>
#include <string.h>

#include "kernels/kernel_table.h"

#define FAMILIES(X, isa)                                                                                            \
    X(conv, isa) X(matmul, isa) X(pointwise, isa) X(norm, isa) X(pool, isa) X(shape, isa) X(reduce, isa)            \
    X(softmax, isa) X(attention, isa) X(spectral_norm, isa) X(embedding, isa) X(loss, isa) X(random, isa)           \
    X(optim, isa) X(pixels, isa)
#define DECLARE(family, isa) void cpu_register_##family##_##isa(sag_kernel_table *t);
#define CALL(family, isa) cpu_register_##family##_##isa(&table);

#ifdef SAGAN_ISA_AVX512
FAMILIES(DECLARE, avx512)
#endif
#ifdef SAGAN_ISA_AVX2
FAMILIES(DECLARE, avx2)
#endif
#ifdef SAGAN_ISA_GENERIC
FAMILIES(DECLARE, generic)
#endif

static sag_kernel_table table;
static const char *level = NULL;

/* SAGAN_ISA=avx2 asks for a lower level, to test or to compare. */
__attribute__((unused)) static bool wants(const char *name)
{
    const char *asked = getenv("SAGAN_ISA");
    return !asked || !*asked || strcmp(asked, name) == 0;
}

static void fill_table(void)
{
    if (level) return;
#if defined(__x86_64__) && defined(SAGAN_ISA_AVX512)
    if (wants("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
        FAMILIES(CALL, avx512)
        level = "avx512";
        return;
    }
#endif
#if defined(__x86_64__) && defined(SAGAN_ISA_AVX2)
    if ((wants("avx2") || wants("avx512")) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        FAMILIES(CALL, avx2)
        level = "avx2";
        return;
    }
#endif
#ifdef SAGAN_ISA_GENERIC
    FAMILIES(CALL, generic)
#ifdef __aarch64__
    level = "neon";
#else
    level = "generic";
#endif
#else
    level = "none";
#endif
}

static const char *detail(void)
{
    fill_table();
    return level;
}
static const char *last_error(void)
{
    return "";
}
static bool available(void)
{
    return true;
}
static int open_cpu(void **state)
{
    fill_table();
    *state = NULL;
    return SAG_KERNEL_OK;
}
static void close_cpu(void *state)
{
    (void)state;
}
static void *alloc_cpu(void *state, size_t bytes)
{
    (void)state;
    /* aligned_alloc wants a multiple of the alignment */
    size_t rounded = (bytes + 63) & ~(size_t)63;
    return rounded < bytes ? NULL : aligned_alloc(64, rounded ? rounded : 64);
}
static void free_cpu(void *state, void *p)
{
    (void)state;
    free(p);
}
static int copy_cpu(void *state, void *dst, const void *src, size_t bytes, sag_copy_kind kind)
{
    (void)state;
    (void)kind;
    memmove(dst, src, bytes);
    return SAG_KERNEL_OK;
}
static int zero_cpu(void *state, void *p, size_t bytes)
{
    (void)state;
    memset(p, 0, bytes);
    return SAG_KERNEL_OK;
}
static int synchronize_cpu(void *state)
{
    (void)state;
    return SAG_KERNEL_OK;
}
static void *stream_cpu(void *state)
{
    (void)state;
    return NULL;
}

const sag_backend *sag_cpu_backend(void)
{
    static const sag_backend backend = {
        .name = "cpu",
        .detail = detail,
        .last_error = last_error,
        .available = available,
        .open = open_cpu,
        .close = close_cpu,
        .alloc = alloc_cpu,
        .free = free_cpu,
        .copy = copy_cpu,
        .zero = zero_cpu,
        .synchronize = synchronize_cpu,
        .stream = stream_cpu,
        .kernels = &table,
    };
    return &backend;
}
