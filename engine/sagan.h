/*
 * sagan.h - the public C interface of the engine: tensors, ops, tape, parameters, random numbers, capture.
 * Files, images and data sets have their own headers under engine/io and engine/data.
 *
 * Every function that can fail returns a sag_status; the words are in sag_error_message() (thread local).
 * The engine never exits, aborts or prints. A context and all that belongs to it is used by one thread.
 *
 * Conventions: activations NHWC, conv weights KRSC, everything contiguous, rank 1 to 4, a scalar is {1}.
 */
#ifndef SAGAN_H
#define SAGAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernel_types.h"

#define SAGAN_VERSION "0.1.0"

typedef enum sag_status {
    SAG_OK = 0,
    SAG_ERR_ARG,    /* a value outside its range */
    SAG_ERR_SHAPE,  /* shapes that do not fit each other */
    SAG_ERR_DTYPE,
    SAG_ERR_DEVICE, /* tensors of different devices, or the device failed */
    SAG_ERR_MEMORY,
    SAG_ERR_IO,     /* the operating system said no */
    SAG_ERR_FORMAT, /* a file is not what it should be */
    SAG_ERR_STATE,  /* a call in the wrong order */
    SAG_ERR_UNSUPPORTED
} sag_status;

const char *sag_status_name(sag_status s);
const char *sag_error_message(void);
/* Stores the message and returns `code`; use through SAG_FAIL so that the compiler checks the format. */
sag_status sag_fail(sag_status code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define SAG_FAIL(code, ...) return sag_fail((code), __VA_ARGS__)
#define SAG_TRY(expr)                              \
    do {                                           \
        sag_status sag_try_ = (expr);              \
        if (sag_try_ != SAG_OK) return sag_try_;   \
    } while (0)

/* ------------------------------------------------------------------------------------------------ memory */

/* Host memory. All of the engine's own allocations go through these, so that a test can make each one fail. */
void *sag_host_alloc(size_t bytes); /* zeroed; NULL on failure */
void *sag_host_realloc(void *p, size_t bytes);
void sag_host_free(void *p);
/* n counts allocations (host and device) from now: the n-th one fails, once. 0 turns it off. */
void sag_debug_fail_allocation(int64_t n);
int64_t sag_debug_live_host_blocks(void);

/* ----------------------------------------------------------------------------------------------- context */

typedef enum sag_device { SAG_CPU, SAG_CUDA, SAG_DEVICE_COUNT } sag_device;

typedef struct sag_context sag_context;
typedef struct sag_tensor sag_tensor;

bool sag_device_available(sag_device device);
const char *sag_device_name(sag_device device); /* "cpu", "cuda" */
/* A card and its driver, or "": where there is none, sag_device_problem says why. */
const char *sag_device_detail(sag_device device);
const char *sag_device_problem(sag_device device);
const char *sag_cpu_isa(void);                  /* the SIMD level in use: "avx512", "avx2", "neon", "generic" */

sag_status sag_context_create(sag_device device, sag_context **out);
void sag_context_destroy(sag_context *ctx); /* tensors that are still alive keep what they need until released */
sag_device sag_context_device(const sag_context *ctx);
void sag_context_set_threads(sag_context *ctx, int threads); /* 0: all cores. Results do not depend on it */
int sag_context_threads(const sag_context *ctx);
/* May 3x3 convolutions use Winograd's algorithm, in f32 on the CPU? On at first: faster, and other roundings. */
void sag_context_set_winograd(sag_context *ctx, bool on);
bool sag_context_winograd(const sag_context *ctx);
/* May products of f32 round their factors to tf32, on CUDA? Off at first. */
void sag_context_set_tf32(sag_context *ctx, bool on);
bool sag_context_tf32(const sag_context *ctx);
sag_status sag_context_synchronize(sag_context *ctx);
/* The module path that error messages and the profile carry, "G.block3.conv2"; the string is copied. */
void sag_context_set_path(sag_context *ctx, const char *path);
const char *sag_context_path(const sag_context *ctx);

typedef struct sag_memory_stats {
    int64_t live_tensors;  /* tensor headers */
    int64_t live_storages;
    int64_t bytes_in_use;  /* device bytes held by live storages */
    int64_t bytes_peak;    /* highest bytes_in_use plus scratch since the last reset */
    int64_t bytes_cached;  /* freed storages kept for reuse */
    int64_t device_allocs; /* calls that reached the device allocator */
} sag_memory_stats;
void sag_context_memory(const sag_context *ctx, sag_memory_stats *out);
void sag_context_reset_peak(sag_context *ctx);
void sag_context_trim(sag_context *ctx); /* gives cached device memory back */

/* ----------------------------------------------------------------------------------------------- tensors */

#define SAG_MAX_RANK 4

typedef struct sag_shape {
    int rank; /* 1..4 */
    int64_t dim[SAG_MAX_RANK];
} sag_shape;

sag_shape sag_shape1(int64_t a);
sag_shape sag_shape2(int64_t a, int64_t b);
sag_shape sag_shape3(int64_t a, int64_t b, int64_t c);
sag_shape sag_shape4(int64_t a, int64_t b, int64_t c, int64_t d);
bool sag_shape_equal(sag_shape a, sag_shape b);
/* Checks rank, dims >= 1 and that bytes fit in an int64; the only place that multiplies dims. */
sag_status sag_shape_numel(sag_shape s, int64_t *numel);
const char *sag_shape_text(sag_shape s, char *buf, size_t size); /* "{2, 3}" */
size_t sag_dtype_size(sag_dtype d);
const char *sag_dtype_name(sag_dtype d); /* "f32", "bf16", "u8", "i32" */

sag_status sag_tensor_create(sag_context *ctx, sag_dtype dtype, sag_shape shape, sag_tensor **out); /* contents undefined */
sag_status sag_tensor_zeros(sag_context *ctx, sag_dtype dtype, sag_shape shape, sag_tensor **out);
void sag_tensor_retain(sag_tensor *t);
void sag_tensor_release(sag_tensor *t); /* NULL is allowed */
sag_context *sag_tensor_context(const sag_tensor *t);
sag_dtype sag_tensor_dtype(const sag_tensor *t);
sag_shape sag_tensor_shape(const sag_tensor *t);
int64_t sag_tensor_numel(const sag_tensor *t);
void *sag_tensor_data(const sag_tensor *t); /* device pointer */
/* Host <-> device; `bytes` must be the tensor's size. read waits for the device and is refused while recording. */
sag_status sag_tensor_write(sag_tensor *t, const void *src, size_t bytes);
sag_status sag_tensor_read(const sag_tensor *t, void *dst, size_t bytes);
/* Copies between tensors of equal shape and dtype, any devices. Not recorded on the tape. */
sag_status sag_tensor_copy(sag_tensor *dst, const sag_tensor *src);
/*
 * A contiguous part: `shape` starting `offset` elements into t. Shares storage. Gradients of the view flow into
 * the same part of t's gradient without a kernel; this is also reshape, and how parameters are carved from a slab.
 */
sag_status sag_tensor_view(sag_tensor *t, int64_t offset, sag_shape shape, sag_tensor **out);
/* The same data outside the tape. */
sag_status sag_tensor_detach(sag_tensor *t, sag_tensor **out);

/* -------------------------------------------------------------------------------------------------- tape */

/* A leaf with a persistent gradient buffer (a parameter slab, or an input under a gradient check). */
sag_status sag_tensor_require_grad(sag_tensor *t);
/* Frozen: ops record no gradient for this leaf and its views until it is thawed. */
void sag_tensor_set_frozen(sag_tensor *t, bool frozen);
bool sag_tensor_wants_grad(const sag_tensor *t);
/* The gradient of a leaf or of a view of one (borrowed, NULL before the first backward); intermediates have one only
 * under sag_tape_retain_grads(true), from one backward to the next or to a clear. */
sag_tensor *sag_tensor_grad(const sag_tensor *t);
sag_status sag_tensor_zero_grad(sag_tensor *t); /* of a leaf, or of the part of it that a view covers */
void sag_tensor_release_grad(sag_tensor *t);    /* of a leaf: it is 0 and takes no memory until it is asked for or added to */
void sag_tape_set_recording(sag_context *ctx, bool on); /* off: no_grad */
bool sag_tape_recording(const sag_context *ctx);
/* What is recorded between the two keeps no activation but what comes from outside: backward computes it again, with the
 * same bits, from what the ops read. State that ops write moves once. Pairs may be nested; the outermost counts. */
void sag_recompute_begin(sag_context *ctx);
void sag_recompute_end(sag_context *ctx);
void sag_tape_retain_grads(sag_context *ctx, bool on); /* for inspection: keep gradients of intermediates */
/* d loss / d everything on the tape. loss has one element; seed is its gradient (1). The tape is cleared, and
 * what was on it counts as constant afterwards: a second backward from there is an error. */
sag_status sag_tape_backward(sag_tensor *loss, float seed);
/* The same from a tensor of any shape with the given gradient. */
sag_status sag_tape_backward_from(sag_tensor *y, sag_tensor *dy);
void sag_tape_clear(sag_context *ctx);
int64_t sag_tape_length(const sag_context *ctx);

/* --------------------------------------------------------------------------------------------------- ops */

#define SAG_MAX_IN 9
#define SAG_MAX_ATTR 8
#define SAG_MAX_OUT 3

/* One enum value an op, from ops.def: SAG_OP_conv2d, ... */
typedef enum sag_op {
#define SAG_OP_DIFF(name, signature, doc) SAG_OP_##name,
#define SAG_OP_PURE(name, signature, doc) SAG_OP_##name,
#define SAG_KERNEL(slot, args)
#include "engine/ops.def"
    SAG_OP_COUNT
} sag_op;

typedef struct sag_op_param {
    char name[24];
    char type;       /* 'T' tensor, 'f' number, 'i' whole number, 'b' boolean, 'a' axis or position */
    bool optional;   /* tensors: may be NULL; attributes: has a default */
    bool mutated;    /* tensors: written in place */
    double fallback; /* the default of an optional attribute */
} sag_op_param;

/* The signature of an op, parsed from ops.def. */
typedef struct sag_op_info {
    const char *name, *signature, *doc;
    bool differentiable;
    int n_in, n_attr, n_out; /* n_out == 0: in place, the result is in[0] */
    sag_op_param in[SAG_MAX_IN], attr[SAG_MAX_ATTR], out[SAG_MAX_OUT];
} sag_op_info;

const sag_op_info *sag_op_describe(sag_op op);
int sag_op_find(const char *name); /* -1 when there is none */

/*
 * Runs one op. in[] and attr[] follow the signature in ops.def; absent optional tensors are NULL. out[] receives new
 * references (n_out of them, none for in-place ops). Recorded on the tape if recording is on and an input wants a gradient.
 */
sag_status sag_op_apply(sag_context *ctx, sag_op op, sag_tensor *const *in, const double *attr, sag_tensor **out);

/* -------------------------------------------------------------------------------------------------- capture */

typedef struct sag_graph sag_graph;
/* Between begin and end the ops of `ctx` are recorded, not run; on the CPU begin returns SAG_ERR_UNSUPPORTED and the
 * caller simply calls its step each time. A read-back while recording is an error. Memory that the recording asks for
 * is written by replays alone, and what else it touches lives as long as the graph does: no op between replays can get it.
 * Tensors that outlive the recording hold their content until the next replay of their own graph. `out` NULL: what was recorded is
 * thrown away. */
sag_status sag_capture_begin(sag_context *ctx);
sag_status sag_capture_end(sag_context *ctx, sag_graph **out);
sag_status sag_graph_launch(sag_graph *g);
void sag_graph_destroy(sag_graph *g);
bool sag_context_recording_graph(const sag_context *ctx);

/* -------------------------------------------------------------------------------------------------- profile */

typedef struct sag_profile_row {
    const char *kernel; /* slot name */
    int64_t calls;
    double seconds, bytes;
    double flops; /* of the direct method */
    double done;  /* really done: fewer where a kernel saves multiplies */
} sag_profile_row;
void sag_profile_enable(sag_context *ctx, bool on);
/* Rows with calls > 0, at most `max`; returns how many. */
int sag_profile_read(const sag_context *ctx, sag_profile_row *rows, int max);
void sag_profile_reset(sag_context *ctx);

#endif
