/*
 * kernel_table.h - what a backend is: one table of kernels and a handful of memory calls. The engine knows no device
 * but through this. A NULL slot means that the backend lacks the kernel (the op then fails with a message).
 */
#ifndef SAG_KERNEL_TABLE_H
#define SAG_KERNEL_TABLE_H

#include "kernels/kernel_args.h"

typedef struct sag_kernel_table {
#define SAG_OP_DIFF(name, signature, doc)
#define SAG_OP_PURE(name, signature, doc)
#define SAG_KERNEL(slot, args) int (*slot)(sag_kernel_env * env, const args *a);
#include "engine/ops.def"
} sag_kernel_table;

typedef enum sag_copy_kind { SAG_COPY_HOST_TO_DEVICE, SAG_COPY_DEVICE_TO_HOST, SAG_COPY_DEVICE_TO_DEVICE } sag_copy_kind;

/* Calls return 0 or a sag_kernel_result. `state` is the backend's own (device index, stream, handles). */
typedef struct sag_backend {
    const char *name;
    const char *(*detail)(void); /* SIMD level or card and driver, for doctor */
    const char *(*last_error)(void);
    bool (*available)(void);
    int (*open)(void **state);
    void (*close)(void *state);
    void *(*alloc)(void *state, size_t bytes); /* at least 64-byte aligned; NULL when there is none */
    void (*free)(void *state, void *p);
    int (*copy)(void *state, void *dst, const void *src, size_t bytes, sag_copy_kind kind); /* to host: waits */
    int (*zero)(void *state, void *p, size_t bytes);
    int (*synchronize)(void *state);
    void *(*stream)(void *state);
    /* Capture; NULL where a step is simply called. */
    int (*capture_begin)(void *state);
    int (*capture_end)(void *state, void **graph);
    int (*graph_launch)(void *state, void *graph);
    void (*graph_free)(void *state, void *graph);
    const sag_kernel_table *kernels;
} sag_backend;

const sag_backend *sag_cpu_backend(void);
#ifdef SAGAN_WITH_CUDA
const sag_backend *sag_cuda_backend(void);
#endif

#endif
