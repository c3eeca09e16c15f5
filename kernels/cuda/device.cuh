/* device.cuh - what backend.cu and blas.cu share: an open card. */
#ifndef SAG_CUDA_DEVICE_CUH
#define SAG_CUDA_DEVICE_CUH

#include "kernels/cuda/cuda.cuh"

struct cuda_device {
    cudaStream_t stream;
    void *blas;      /* cuBLAS handle, made at the first product */
    void *workspace; /* its own, so that a product allocates nothing */
    unsigned *counters;
    /* Pinned places that large copies to the card leave from, in turn, so that the host need not wait for the card. */
    struct {
        void *host;
        size_t bytes;
        cudaEvent_t left; /* the last copy from here is done */
    } quay[2];
    int turn;
    bool capturing;
    /* Blocks that were asked for during a capture, not from the pool: the stream cannot serve it then. */
    void **plain;
    size_t n_plain, cap_plain;
    /* Blocks that were given back during a capture: freed after it. */
    void **late;
    size_t n_late, cap_late;
    struct cuda_device *next;
};

/* The open card that a launch belongs to. */
struct cuda_device *cuda_device_of(const sag_kernel_env *env);
/* Keeps words for backend->last_error() and returns SAG_KERNEL_DEVICE. */
int cuda_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void cuda_blas_close(struct cuda_device *d);

#endif
