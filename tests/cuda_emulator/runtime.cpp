/*
 * runtime.cpp - the runtime's calls. A stream does at once what it is given, so the order of the calls is the order of
 * the work; while it is captured it keeps the work as closures, and a graph is a list of them.
 */
#include "tests/cuda_emulator/emulator.h"

#include <map>
#include <mutex>
#include <stdarg.h>
#include <stdio.h>

struct cuda_emulator_graph {
    std::vector<std::function<cudaError_t()>> work;
};
struct cuda_emulator_stream {
    cuda_emulator_graph *capture;
    bool spoiled; /* something that cannot be captured was asked for */
};
struct cuda_emulator_event {
    int unused;
};

namespace emulator {

static cuda_emulator_report_hook hook;
static void *hook_context;
static cudaError_t last_error = cudaSuccess, sticky = cudaSuccess;
static struct {
    int64_t left;
    cudaError_t error;
} injected[CUDA_EMULATOR_CALLS];
static cuda_emulator_counts counts;
static std::recursive_mutex one_at_a_time;
static cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal; /* of the one thread that there is */
static cudaStream_t captured; /* the stream that is captured */

/* Called by fault(). */
void deliver(const char *message)
{
    if (!hook) {
        fprintf(stderr, "cuda emulator: %s\n", message);
        abort();
    }
    hook(hook_context, message);
}

static bool is_sticky(cudaError_t e)
{
    return e == cudaErrorIllegalAddress || e == cudaErrorLaunchFailure || e == cudaErrorECCUncorrectable;
}

static cudaError_t note(cudaError_t e)
{
    if (e != cudaSuccess) last_error = e;
    if (is_sticky(e)) sticky = e;
    return e;
}

/* What a call of this kind has to return before it does anything. */
static cudaError_t admission(cuda_emulator_call kind)
{
    if (sticky != cudaSuccess) return note(sticky);
    if (injected[kind].left > 0 && --injected[kind].left == 0) return note(injected[kind].error);
    return cudaSuccess;
}

/* Copies from pinned memory take place as late as they may: before the next other work, or when somebody waits. */
static std::map<char *, size_t> pinned;
static std::vector<std::function<void()>> under_way;

static bool is_pinned(const void *p)
{
    auto it = pinned.upper_bound((char *)p);
    return it != pinned.begin() && (const char *)p < std::prev(it)->first + std::prev(it)->second;
}

static void settle()
{
    for (auto &copy : under_way) copy();
    under_way.clear();
}

/* Now, or when the graph that the stream records is replayed. */
static cudaError_t enqueue(cudaStream_t stream, std::function<cudaError_t()> work)
{
    if (stream && stream->capture) {
        stream->capture->work.push_back(work);
        return cudaSuccess;
    }
    settle();
    return note(work());
}

static cudaError_t refuse_in_capture(cudaStream_t stream)
{
    if (!stream || !stream->capture) return cudaSuccess;
    stream->spoiled = true;
    return note(cudaErrorStreamCaptureUnsupported);
}

} // namespace emulator

using namespace emulator;

#define ADMIT(kind)                                              \
    std::lock_guard<std::recursive_mutex> turn(one_at_a_time);   \
    if (cudaError_t refused = admission(kind)) return refused

void cuda_emulator_on_report(cuda_emulator_report_hook f, void *context)
{
    hook = f;
    hook_context = context;
}
void cuda_emulator_reset(void)
{
    last_error = sticky = cudaSuccess;
    for (auto &i : injected) i.left = 0;
}
void cuda_emulator_fail(cuda_emulator_call kind, int64_t n, int error)
{
    injected[kind].left = n;
    injected[kind].error = (cudaError_t)error;
}
void cuda_emulator_count(cuda_emulator_counts *out)
{
    *out = counts;
    out->allocations = allocations;
    out->live = live_allocations;
    out->live_bytes = (int64_t)device_used();
}

/* ------------------------------------------------------------------------------------------------- launching */

cudaError_t cuda_emulator_submit(const char *name, dim3 grid, dim3 size, size_t dynamic, cudaStream_t stream, std::function<void()> body)
{
    ADMIT(CUDA_EMULATOR_LAUNCH);
    counts.launches++;
    size_t n = (size_t)size.x * size.y * size.z;
    if (n == 0 || n > 1024 || size.z > 64 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535) {
        return note(cudaErrorInvalidConfiguration);
    }
    if (dynamic > SHARED_BYTES) return note(cudaErrorInvalidValue);
    return enqueue(stream, [=] {
        counts.blocks += (int64_t)grid.x * grid.y * grid.z;
        memory_open();
        bool ok = run_grid(name, grid, size, dynamic, body);
        memory_close();
        return ok ? cudaSuccess : cudaErrorLaunchFailure;
    });
}

cudaError_t cuda_emulator_enqueue(cudaStream_t stream, std::function<void()> work)
{
    ADMIT(CUDA_EMULATOR_LAUNCH);
    return enqueue(stream, [=] {
        memory_open();
        work();
        memory_close();
        return cudaSuccess;
    });
}

/* ------------------------------------------------------------------------------------------------- the card */

/* SAGAN_EMULATOR_ARCH=70: an older card, without the newer instructions. */
static int architecture()
{
    const char *asked = getenv("SAGAN_EMULATOR_ARCH");
    return asked && *asked ? atoi(asked) : 90;
}

extern "C" {

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 0;
    ADMIT(CUDA_EMULATOR_QUERY);
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device)
{
    return device == 0 ? cudaSuccess : note(cudaErrorInvalidDevice);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    if (device != 0) return note(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated card");
    p->totalGlobalMem = device_total();
    p->major = architecture() / 10;
    p->minor = architecture() % 10;
    p->multiProcessorCount = 4;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
    if (device != 0) return note(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 4; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = architecture() / 10; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = architecture() % 10; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)SHARED_BYTES; return cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported: *value = 1; return cudaSuccess;
    }
    return note(cudaErrorInvalidValue);
}
cudaError_t cudaDriverGetVersion(int *version)
{
    *version = 0;
    ADMIT(CUDA_EMULATOR_QUERY);
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    *total = device_total();
    *available = *total - device_used();
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void)
{
    ADMIT(CUDA_EMULATOR_WAIT);
    counts.waits++;
    return cudaSuccess;
}
cudaError_t cudaGetLastError(void)
{
    cudaError_t e = last_error;
    last_error = sticky;
    return e;
}
cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}
const char *cudaGetErrorName(cudaError_t e)
{
    switch (e) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInitializationError: return "cudaErrorInitializationError";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorNoKernelImageForDevice: return "cudaErrorNoKernelImageForDevice";
    case cudaErrorECCUncorrectable: return "cudaErrorECCUncorrectable";
    case cudaErrorUnsupportedPtxVersion: return "cudaErrorUnsupportedPtxVersion";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorLaunchOutOfResources: return "cudaErrorLaunchOutOfResources";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorUnknown: break;
    }
    return "cudaErrorUnknown";
}
const char *cudaGetErrorString(cudaError_t e)
{
    return cudaGetErrorName(e) + strlen("cuda");
}

/* ------------------------------------------------------------------------------------------------- streams */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    *stream = new cuda_emulator_stream{};
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    settle();
    if (stream) delete stream->capture;
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    ADMIT(CUDA_EMULATOR_WAIT);
    if (cudaError_t e = refuse_in_capture(stream)) return e;
    settle();
    counts.waits++;
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    *event = new cuda_emulator_event{};
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t)
{
    return sticky;
}
cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    ADMIT(CUDA_EMULATOR_WAIT);
    settle();
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned)
{
    return sticky;
}

/* -------------------------------------------------------------------------------------------------- memory */

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int)
{
    *pool = nullptr;
    return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void *)
{
    return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t)
{
    return cudaSuccess;
}
cudaError_t cudaMalloc(void **p, size_t bytes)
{
    *p = nullptr;
    if (captured && thread_mode != cudaStreamCaptureModeRelaxed) return refuse_in_capture(captured);
    ADMIT(CUDA_EMULATOR_ALLOC);
    *p = device_alloc(bytes);
    return *p ? cudaSuccess : note(cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void *p)
{
    std::lock_guard<std::recursive_mutex> turn(one_at_a_time);
    settle(); /* in the order of the stream: a copy to it came first */
    if (captured && thread_mode != cudaStreamCaptureModeRelaxed) return refuse_in_capture(captured);
    return !p || device_free(p) ? sticky : note(cudaErrorInvalidValue);
}
/* In a capture these would become part of the graph; nothing here wants that. */
cudaError_t cudaMallocAsync(void **p, size_t bytes, cudaStream_t stream)
{
    *p = nullptr;
    if (cudaError_t e = refuse_in_capture(stream)) return e;
    return cudaMalloc(p, bytes);
}
cudaError_t cudaFreeAsync(void *p, cudaStream_t stream)
{
    if (cudaError_t e = refuse_in_capture(stream)) return e;
    return cudaFree(p);
}
cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    ADMIT(CUDA_EMULATOR_ALLOC);
    *p = aligned_alloc(256, (bytes + 255) & ~(size_t)255);
    if (*p) pinned[(char *)*p] = bytes;
    return *p ? cudaSuccess : note(cudaErrorMemoryAllocation);
}
cudaError_t cudaFreeHost(void *p)
{
    settle();
    pinned.erase((char *)p);
    free(p);
    return cudaSuccess;
}

static bool allowed(const void *p, size_t bytes, bool on_device)
{
    return !on_device || bytes == 0 || in_allocation(p, bytes);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    ADMIT(CUDA_EMULATOR_COPY);
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (!allowed(to, bytes, to_device) || !allowed(from, bytes, from_device)) return note(cudaErrorInvalidValue);
    auto work = [=] {
        counts.copies++;
        memory_open();
        memmove(to, from, bytes);
        memory_close();
        return cudaSuccess;
    };
    if (kind == cudaMemcpyHostToDevice && is_pinned(from) && !(stream && stream->capture)) {
        under_way.push_back(work);
        return cudaSuccess;
    }
    return enqueue(stream, work);
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    ADMIT(CUDA_EMULATOR_COPY);
    if (!allowed(to, bytes, true)) return note(cudaErrorInvalidValue);
    return enqueue(stream, [=] {
        counts.copies++;
        memory_open();
        memset(to, value, bytes);
        memory_close();
        return cudaSuccess;
    });
}

/* -------------------------------------------------------------------------------------------------- graphs */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode)
{
    ADMIT(CUDA_EMULATOR_GRAPH);
    if (!stream || stream->capture) return note(cudaErrorInvalidValue);
    stream->capture = new cuda_emulator_graph;
    captured = stream;
    stream->spoiled = false;
    return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode)
{
    cudaStreamCaptureMode before = thread_mode;
    thread_mode = *mode;
    *mode = before;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    *graph = nullptr;
    if (!stream || !stream->capture) return note(cudaErrorInvalidValue);
    *graph = stream->capture;
    stream->capture = nullptr;
    captured = nullptr;
    cudaError_t e = stream->spoiled ? note(cudaErrorStreamCaptureInvalidated) : admission(CUDA_EMULATOR_GRAPH);
    if (e != cudaSuccess) {
        delete *graph;
        *graph = nullptr;
    }
    return e;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    *exec = nullptr;
    ADMIT(CUDA_EMULATOR_GRAPH);
    *exec = new cuda_emulator_graph(*graph);
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t)
{
    ADMIT(CUDA_EMULATOR_GRAPH);
    settle();
    counts.replays++;
    for (auto &work : exec->work) {
        if (cudaError_t e = note(work())) return e;
    }
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return cudaSuccess;
}

} // extern "C"
