/* hooks.h - what a test may ask of the emulated card. Plain C. */
#ifndef SAG_CUDA_EMULATOR_HOOKS_H
#define SAG_CUDA_EMULATOR_HOOKS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Called with the words for each fault of a kernel, which then ends with cudaErrorLaunchFailure; every later call fails
 * too, until cuda_emulator_reset. Without a hook a fault is printed and the process aborts. */
typedef void (*cuda_emulator_report_hook)(void *context, const char *message);
void cuda_emulator_on_report(cuda_emulator_report_hook hook, void *context);

/* A card as new: errors are forgotten. Memory stays. */
void cuda_emulator_reset(void);

/* The n-th call of this kind from now on fails with `error` (a cudaError_t). n = 0: none. */
typedef enum cuda_emulator_call {
    CUDA_EMULATOR_QUERY,  /* device count, driver version */
    CUDA_EMULATOR_ALLOC,
    CUDA_EMULATOR_COPY,   /* copies and memsets */
    CUDA_EMULATOR_LAUNCH, /* kernels */
    CUDA_EMULATOR_WAIT,   /* stream and device synchronisation */
    CUDA_EMULATOR_GRAPH,  /* capture, instantiation, replay */
    CUDA_EMULATOR_CALLS
} cuda_emulator_call;
void cuda_emulator_fail(cuda_emulator_call kind, int64_t n, int error);

/* Counts since the start, for tests. */
typedef struct cuda_emulator_counts {
    int64_t launches, blocks, waits, copies, allocations, live, live_bytes, replays;
} cuda_emulator_counts;
void cuda_emulator_count(cuda_emulator_counts *out);

/* Whether kernels of this build are watched (checker.cpp). */
int cuda_emulator_checks(void);

#ifdef __cplusplus
}
#endif

#endif
