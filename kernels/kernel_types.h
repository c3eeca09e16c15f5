/* Types that the engine and every kernel share. No pointers to engine objects here. */
#ifndef SAG_KERNEL_TYPES_H
#define SAG_KERNEL_TYPES_H

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum sag_dtype { SAG_F32, SAG_BF16, SAG_U8, SAG_I32, SAG_DTYPE_COUNT } sag_dtype;

/* What a kernel returns; the engine turns it into a status that names the op and its shapes. */
typedef enum sag_kernel_result {
    SAG_KERNEL_OK = 0,
    SAG_KERNEL_NO_MEMORY,   /* env->scratch failed */
    SAG_KERNEL_BAD_INDEX,   /* a label or index outside its table (CPU only; CUDA skips the row) */
    SAG_KERNEL_UNSUPPORTED, /* this dtype or shape has no kernel on this backend */
    SAG_KERNEL_DEVICE       /* the device reported an error; backend->last_error() has the words */
} sag_kernel_result;

/*
 * The environment of one launch. scratch() hands out device memory, aligned to 64 bytes, that lives until the
 * op returns; it is an arena, so inside a warmed-up step it allocates nothing. Results must not depend on
 * `threads`: split work into pieces of a fixed size and combine partial sums in a fixed order.
 */
typedef struct sag_kernel_env {
    void *stream; /* cudaStream_t on CUDA, NULL on the CPU */
    int threads;  /* CPU: width of every `omp parallel` */
    int no_winograd; /* CPU: 3x3 convolutions by plain sums only */
    int tf32;        /* CUDA: products of f32 may round their factors to 10 bits of mantissa */
    void *(*scratch)(struct sag_kernel_env *env, size_t bytes); /* NULL when out of memory */
    void *owner;  /* the context that the arena belongs to */
    double flops; /* for the profile: multiplies and adds that a kernel really did, where it saves some; 0: it does not */
} sag_kernel_env;

#endif
