/*
 * backend.cu - a CUDA card as a backend: one stream, memory from the driver's stream-ordered pool, graphs, and the words
 * for what went wrong. Everything that a context does is on its stream, in the order of the calls.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/device.cuh"

#define FAMILIES(X)                                                                                              \
    X(conv) X(matmul) X(pointwise) X(norm) X(pool) X(shape) X(reduce) X(softmax) X(attention) X(spectral_norm)   \
    X(embedding) X(loss) X(random) X(optim) X(pixels)
/* Weak: a family that is not compiled in leaves its slots empty, and its ops say so. */
#define DECLARE(family) extern "C" __attribute__((weak)) void cuda_register_##family(sag_kernel_table *t);
FAMILIES(DECLARE)

static sag_kernel_table table;
static cuda_device *open_devices;
static thread_local char words[512];
static thread_local char card[384];

/* -------------------------------------------------------------------------------------------------- errors */

int cuda_fail(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vsnprintf(words, sizeof words, format, ap);
    va_end(ap);
    return SAG_KERNEL_DEVICE;
}

/* What a user can do about it. */
static const char *advice(cudaError_t e)
{
    switch (e) {
    case cudaErrorMemoryAllocation:
        return "the card is out of memory: use a smaller batch, precision=bf16, or a smaller width or resolution";
    case cudaErrorInsufficientDriver: return "the driver is older than this program needs: update it";
    case cudaErrorNoDevice: return "no card is visible (CUDA_VISIBLE_DEVICES?)";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
        return "this build has no code for the card: configure with -DSAGAN_CUDA_ARCHITECTURES=native and build again";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
    case cudaErrorUnknown:
        return "the card is lost to this process; the last checkpoint is whole: the same command continues from it";
    default: return NULL;
    }
}

extern "C" int cuda_report(cudaError_t e, const char *what)
{
    if (e == cudaSuccess) return SAG_KERNEL_OK;
    const char *hint = advice(e);
    cuda_fail("%s: %s (%s)%s%s", what, cudaGetErrorString(e), cudaGetErrorName(e), hint ? "; " : "", hint ? hint : "");
    cudaGetLastError(); /* what is not sticky is told once */
    return SAG_KERNEL_DEVICE;
}

static const char *last_error(void)
{
    return words;
}

/* ------------------------------------------------------------------------------------------------- the card */

static bool available(void)
{
    int driver = 0, runtime = 0, count = 0;
    cudaRuntimeGetVersion(&runtime);
    cudaError_t e = cudaDriverGetVersion(&driver);
    if (e == cudaSuccess && driver == 0) {
        cuda_fail("no NVIDIA driver is loaded");
        return false;
    }
    if (e == cudaSuccess) e = cudaGetDeviceCount(&count);
    if (e == cudaErrorInsufficientDriver) {
        cuda_fail("the driver knows CUDA %d.%d, this program needs %d.%d: update the driver", driver / 1000, driver % 1000 / 10,
                  runtime / 1000, runtime % 1000 / 10);
        cudaGetLastError();
        return false;
    }
    if (e == cudaSuccess && count == 0) e = cudaErrorNoDevice;
    if (cuda_report(e, "looking for a card") != SAG_KERNEL_OK) return false;
    int major = 0, minor = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0);
    if (major < 7) {
        cuda_fail("the card has compute capability %d.%d; 7.0 is the least", major, minor);
        return false;
    }
    return true;
}

/* "NVIDIA H200, 140 GiB, sm_90, driver for CUDA 13.0" */
static const char *detail(void)
{
    cudaDeviceProp p;
    int driver = 0;
    if (!available() || cudaGetDeviceProperties(&p, 0) != cudaSuccess) return "";
    cudaDriverGetVersion(&driver);
    snprintf(card, sizeof card, "%s, %.0f GiB, sm_%d%d, driver for CUDA %d.%d", p.name, (double)p.totalGlobalMem / 1073741824.0, p.major,
             p.minor, driver / 1000, driver % 1000 / 10);
    return card;
}

extern "C" int cuda_tensor_cores(void)
{
    int major = 0;
    return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess && major >= 8;
}

cuda_device *cuda_device_of(const sag_kernel_env *env)
{
    cuda_device *d = open_devices;
    while (d && d->stream != (cudaStream_t)env->stream) d = d->next;
    return d;
}

extern "C" unsigned *cuda_counters(const sag_kernel_env *env)
{
    const cuda_device *d = cuda_device_of(env);
    return d ? d->counters : NULL;
}

static int make_counters(cuda_device *d)
{
    const size_t bytes = CUDA_COUNTERS * sizeof *d->counters;
    CUDA_TRY(cuda_report(cudaMallocAsync((void **)&d->counters, bytes, d->stream), "asking for memory"));
    return cuda_report(cudaMemsetAsync(d->counters, 0, bytes, d->stream), "clearing memory");
}

static int open_cuda(void **state)
{
    *state = NULL;
#define CALL(family) \
    if (cuda_register_##family) cuda_register_##family(&table);
    FAMILIES(CALL)
    CUDA_TRY(cuda_report(cudaSetDevice(0), "opening the card"));
    cuda_device *d = (cuda_device *)calloc(1, sizeof *d);
    if (!d) return cuda_fail("out of host memory");
    int r = cuda_report(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "making a stream");
    if (r != SAG_KERNEL_OK) {
        free(d);
        return r;
    }
    /* Memory that is given back stays in the pool until the context closes: the engine's caches decide, not the driver. */
    cudaMemPool_t pool;
    if (cudaDeviceGetDefaultMemPool(&pool, 0) == cudaSuccess) {
        unsigned long long all = UINT64_MAX;
        cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all);
    }
    r = make_counters(d);
    if (r != SAG_KERNEL_OK) {
        if (d->counters) cudaFreeAsync(d->counters, d->stream);
        cudaStreamDestroy(d->stream);
        free(d);
        return r;
    }
    d->next = open_devices;
    open_devices = d;
    *state = d;
    return SAG_KERNEL_OK;
}

/* What was given back to the pool, and would stay there, goes back to the card. */
static void empty_pool(void)
{
    cudaMemPool_t pool;
    if (cudaDeviceGetDefaultMemPool(&pool, 0) == cudaSuccess) cudaMemPoolTrimTo(pool, 0);
}

static void close_quay(cuda_device *d)
{
    for (auto &q : d->quay) {
        if (q.host) cudaFreeHost(q.host);
        if (q.left) cudaEventDestroy(q.left);
    }
}

static void close_cuda(void *state)
{
    cuda_device *d = (cuda_device *)state, **at = &open_devices;
    while (*at != d) at = &(*at)->next;
    *at = d->next;
    cudaStreamSynchronize(d->stream);
    cuda_blas_close(d);
    cudaFreeAsync(d->counters, d->stream);
    cudaStreamSynchronize(d->stream);
    close_quay(d);
    if (!open_devices) empty_pool();
    cudaStreamDestroy(d->stream);
    cudaGetLastError();
    free(d->plain);
    free(d->late);
    free(d);
}

static void *stream_of(void *state)
{
    return ((cuda_device *)state)->stream;
}

/* -------------------------------------------------------------------------------------------------- memory */

static bool push(void ***list, size_t *n, size_t *cap, void *p)
{
    if (*n == *cap) {
        size_t more = *cap ? 2 * *cap : 64;
        void **longer = (void **)realloc(*list, more * sizeof *longer);
        if (!longer) return false;
        *list = longer;
        *cap = more;
    }
    (*list)[(*n)++] = p;
    return true;
}

/* During a capture the stream would record the request: the memory comes from the card directly, as the driver allows
 * to a thread that says it knows (the relaxed mode), and goes back there. */
static void *alloc_in_capture(cuda_device *d, size_t bytes)
{
    void *p = NULL;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaThreadExchangeStreamCaptureMode(&mode);
    int r = cuda_report(cudaMalloc(&p, bytes), "asking for memory");
    cudaThreadExchangeStreamCaptureMode(&mode);
    if (r != SAG_KERNEL_OK) return NULL;
    if (push(&d->plain, &d->n_plain, &d->cap_plain, p)) return p;
    cudaFree(p);
    cuda_fail("out of host memory");
    return NULL;
}

static void *alloc_cuda(void *state, size_t bytes)
{
    cuda_device *d = (cuda_device *)state;
    void *p = NULL;
    if (bytes == 0) bytes = 1;
    if (d->capturing) return alloc_in_capture(d, bytes);
    return cuda_report(cudaMallocAsync(&p, bytes, d->stream), "asking for memory") == SAG_KERNEL_OK ? p : NULL;
}

static void free_cuda(void *state, void *p)
{
    cuda_device *d = (cuda_device *)state;
    if (!p || (d->capturing && push(&d->late, &d->n_late, &d->cap_late, p))) return;
    for (size_t i = 0; i < d->n_plain; i++) {
        if (d->plain[i] != p) continue;
        d->plain[i] = d->plain[--d->n_plain];
        cuda_report(cudaFree(p), "giving memory back");
        return;
    }
    cuda_report(cudaFreeAsync(p, d->stream), "giving memory back");
}

static int synchronize(void *state)
{
    return cuda_report(cudaStreamSynchronize((cudaStream_t)stream_of(state)), "waiting for the card");
}

/*
 * Host memory as the caller has it must be read before the call returns, and a copy from it waits for all that the stream has to
 * do. A copy from pinned memory does not; so it goes there first, to the place whose last copy is the longest ago. NULL: no
 * such memory.
 */
static void *pinned_place(cuda_device *d, size_t bytes, cudaEvent_t *left)
{
    d->turn = !d->turn;
    auto *q = &d->quay[d->turn];
    if (!q->left && cudaEventCreateWithFlags(&q->left, cudaEventDisableTiming) != cudaSuccess) q->left = NULL;
    if (q->left && q->bytes < bytes) {
        if (q->host && cudaEventSynchronize(q->left) == cudaSuccess) cudaFreeHost(q->host);
        q->host = NULL;
        q->bytes = cudaMallocHost(&q->host, bytes) == cudaSuccess ? bytes : 0;
    } else if (q->left && cudaEventSynchronize(q->left) != cudaSuccess) {
        return NULL;
    }
    *left = q->left;
    if (!q->left || !q->bytes) {
        cudaGetLastError(); /* the plain copy will do */
        return NULL;
    }
    return q->host;
}

#define PINNED ((size_t)64 << 10) /* smaller copies are staged by the driver */

static int copy(void *state, void *dst, const void *src, size_t bytes, sag_copy_kind kind)
{
    static const cudaMemcpyKind kinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice};
    cudaEvent_t left = NULL;
    if (bytes == 0) return SAG_KERNEL_OK;
    void *place = kind == SAG_COPY_HOST_TO_DEVICE && bytes >= PINNED ? pinned_place((cuda_device *)state, bytes, &left) : NULL;
    if (place) src = memcpy(place, src, bytes);
    CUDA_TRY(cuda_report(cudaMemcpyAsync(dst, src, bytes, kinds[kind], (cudaStream_t)stream_of(state)), "copying"));
    if (place) return cuda_report(cudaEventRecord(left, (cudaStream_t)stream_of(state)), "copying");
    return kind == SAG_COPY_DEVICE_TO_HOST ? synchronize(state) : (int)SAG_KERNEL_OK;
}

static int zero(void *state, void *p, size_t bytes)
{
    if (bytes == 0) return SAG_KERNEL_OK;
    return cuda_report(cudaMemsetAsync(p, 0, bytes, (cudaStream_t)stream_of(state)), "clearing memory");
}

/* -------------------------------------------------------------------------------------------------- graphs */

static int capture_begin(void *state)
{
    cuda_device *d = (cuda_device *)state;
    CUDA_TRY(synchronize(d));
    empty_pool(); /* what is asked for during the capture does not come from there */
    CUDA_TRY(cuda_report(cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeThreadLocal), "beginning a capture"));
    d->capturing = true;
    return SAG_KERNEL_OK;
}

static int capture_end(void *state, void **graph)
{
    cudaGraph_t recorded = NULL;
    cudaGraphExec_t exec = NULL;
    cuda_device *d = (cuda_device *)state;
    *graph = NULL;
    d->capturing = false;
    cudaError_t e = cudaStreamEndCapture(d->stream, &recorded);
    while (d->n_late) free_cuda(d, d->late[--d->n_late]);
    CUDA_TRY(cuda_report(e, "ending a capture"));
    int r = cuda_report(cudaGraphInstantiate(&exec, recorded, 0), "making a graph");
    cudaGraphDestroy(recorded);
    *graph = exec;
    return r;
}

static int graph_launch(void *state, void *graph)
{
    return cuda_report(cudaGraphLaunch((cudaGraphExec_t)graph, (cudaStream_t)stream_of(state)), "replaying a graph");
}

static void graph_free(void *state, void *graph)
{
    if (!graph) return;
    cudaStreamSynchronize((cudaStream_t)stream_of(state));
    cudaGraphExecDestroy((cudaGraphExec_t)graph);
}

extern "C" const sag_backend *sag_cuda_backend(void)
{
    static sag_backend b;
    b.name = "cuda";
    b.detail = detail;
    b.last_error = last_error;
    b.available = available;
    b.open = open_cuda;
    b.close = close_cuda;
    b.alloc = alloc_cuda;
    b.free = free_cuda;
    b.copy = copy;
    b.zero = zero;
    b.synchronize = synchronize;
    b.stream = stream_of;
    b.capture_begin = capture_begin;
    b.capture_end = capture_end;
    b.graph_launch = graph_launch;
    b.graph_free = graph_free;
    b.kernels = &table;
    return &b;
}
