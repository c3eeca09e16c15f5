/* tensor.c - shapes, tensors, views, and the copies between host and device. */
#include <stdio.h>
#include <string.h>

#include "engine/internal.h"

/* ------------------------------------------------------------------------------------------------- shapes */

sag_shape sag_shape1(int64_t a)
{
    return (sag_shape){1, {a, 1, 1, 1}};
}
sag_shape sag_shape2(int64_t a, int64_t b)
{
    return (sag_shape){2, {a, b, 1, 1}};
}
sag_shape sag_shape3(int64_t a, int64_t b, int64_t c)
{
    return (sag_shape){3, {a, b, c, 1}};
}
sag_shape sag_shape4(int64_t a, int64_t b, int64_t c, int64_t d)
{
    return (sag_shape){4, {a, b, c, d}};
}

bool sag_shape_equal(sag_shape a, sag_shape b)
{
    if (a.rank != b.rank) return false;
    for (int i = 0; i < a.rank; i++) {
        if (a.dim[i] != b.dim[i]) return false;
    }
    return true;
}

const char *sag_shape_text(sag_shape s, char *buf, size_t size)
{
    size_t at = 0;
    if (size) buf[0] = 0;
    for (int i = 0; i < s.rank && i < SAG_MAX_RANK && at < size; i++) {
        int n = snprintf(buf + at, size - at, "%s%lld", i ? ", " : "{", (long long)s.dim[i]);
        at += n > 0 ? (size_t)n : 0;
    }
    if (at < size) snprintf(buf + at, size - at, "}");
    return buf;
}

sag_status sag_shape_numel(sag_shape s, int64_t *numel)
{
    char text[96];
    *numel = 0;
    if (s.rank < 1 || s.rank > SAG_MAX_RANK) {
        SAG_FAIL(SAG_ERR_SHAPE, "a shape has 1 to %d dimensions, not %d", SAG_MAX_RANK, s.rank);
    }
    int64_t n = 1;
    for (int i = 0; i < s.rank; i++) {
        if (s.dim[i] < 1) SAG_FAIL(SAG_ERR_SHAPE, "shape %s: every dimension is at least 1", sag_shape_text(s, text, sizeof text));
        /* 16 bytes an element leave room for any dtype and for the size classes */
        if (__builtin_mul_overflow(n, s.dim[i], &n) || n > INT64_MAX / 16) {
            SAG_FAIL(SAG_ERR_SHAPE, "shape %s is too large", sag_shape_text(s, text, sizeof text));
        }
    }
    *numel = n;
    return SAG_OK;
}

int64_t sag_numel(sag_shape s)
{
    int64_t n = 1;
    for (int i = 0; i < s.rank; i++) n *= s.dim[i];
    return n;
}

size_t sag_dtype_size(sag_dtype d)
{
    static const size_t sizes[SAG_DTYPE_COUNT] = {4, 2, 1, 4};
    return (unsigned)d < SAG_DTYPE_COUNT ? sizes[d] : 0;
}

const char *sag_dtype_name(sag_dtype d)
{
    static const char *const names[SAG_DTYPE_COUNT] = {"f32", "bf16", "u8", "i32"};
    return (unsigned)d < SAG_DTYPE_COUNT ? names[d] : "unknown";
}

/* ------------------------------------------------------------------------------------------------ tensors */

static sag_status tensor_over(sag_context *ctx, sag_dtype dtype, sag_shape shape, int64_t numel, sag_tensor **out)
{
    sag_tensor *t = sag_host_alloc(sizeof *t);
    if (!t) SAG_FAIL(SAG_ERR_MEMORY, "out of memory for a tensor header");
    t->refs = 1;
    t->ctx = ctx;
    t->dtype = dtype;
    t->shape = shape;
    t->numel = numel;
    ctx->stats.live_tensors++;
    ctx->refs++;
    *out = t;
    return SAG_OK;
}

sag_status sag_tensor_create(sag_context *ctx, sag_dtype dtype, sag_shape shape, sag_tensor **out)
{
    *out = NULL;
    int64_t numel = 0;
    SAG_TRY(sag_shape_numel(shape, &numel));
    if ((unsigned)dtype >= SAG_DTYPE_COUNT) SAG_FAIL(SAG_ERR_DTYPE, "unknown dtype %d", (int)dtype);
    sag_tensor *t = NULL;
    SAG_TRY(tensor_over(ctx, dtype, shape, numel, &t));
    sag_status s = sag_storage_create(ctx, (size_t)numel * sag_dtype_size(dtype), &t->storage);
    if (s != SAG_OK) {
        sag_tensor_release(t);
        return s;
    }
    *out = t;
    return SAG_OK;
}

sag_status sag_tensor_zeros(sag_context *ctx, sag_dtype dtype, sag_shape shape, sag_tensor **out)
{
    SAG_TRY(sag_tensor_create(ctx, dtype, shape, out));
    if (ctx->backend->zero(ctx->state, sag_data(*out), (size_t)(*out)->numel * sag_dtype_size(dtype)) != SAG_KERNEL_OK) {
        sag_tensor_release(*out);
        *out = NULL;
        SAG_FAIL(SAG_ERR_DEVICE, "cannot clear memory on %s: %s", ctx->backend->name, ctx->backend->last_error());
    }
    return SAG_OK;
}

void sag_tensor_retain(sag_tensor *t)
{
    t->refs++;
}

void sag_tensor_release(sag_tensor *t)
{
    if (!t || --t->refs > 0) return;
    sag_context *ctx = t->ctx;
    sag_storage_release(t->storage);
    sag_var_release(t->var);
    ctx->stats.live_tensors--;
    sag_host_free(t);
    sag_context_unref(ctx);
}

sag_context *sag_tensor_context(const sag_tensor *t)
{
    return t->ctx;
}
sag_dtype sag_tensor_dtype(const sag_tensor *t)
{
    return t->dtype;
}
sag_shape sag_tensor_shape(const sag_tensor *t)
{
    return t->shape;
}
int64_t sag_tensor_numel(const sag_tensor *t)
{
    return t->numel;
}
void *sag_tensor_data(const sag_tensor *t)
{
    if (t->ctx->recorded) sag_graph_hold(t->ctx, t->storage); /* its address goes into the recording */
    return t->storage->block.data + t->offset;
}
void *sag_data(const sag_tensor *t)
{
    return t ? sag_tensor_data(t) : NULL;
}

static size_t tensor_bytes(const sag_tensor *t)
{
    return (size_t)t->numel * sag_dtype_size(t->dtype);
}

static sag_status device_copy(sag_context *ctx, void *dst, const void *src, size_t bytes, sag_copy_kind kind)
{
    if (ctx->recorded && kind != SAG_COPY_DEVICE_TO_DEVICE) {
        SAG_FAIL(SAG_ERR_STATE, "a step under capture cannot %s the host; keep values in tensors and read them after the step",
                 kind == SAG_COPY_DEVICE_TO_HOST ? "read back to" : "copy from");
    }
    if (ctx->backend->copy(ctx->state, dst, src, bytes, kind) != SAG_KERNEL_OK) {
        SAG_FAIL(SAG_ERR_DEVICE, "copy on %s failed: %s", ctx->backend->name, ctx->backend->last_error());
    }
    return SAG_OK;
}

static sag_status check_bytes(const sag_tensor *t, size_t bytes)
{
    char text[96];
    if (bytes != tensor_bytes(t)) {
        SAG_FAIL(SAG_ERR_SHAPE, "tensor %s %s has %zu bytes, %zu were given", sag_shape_text(t->shape, text, sizeof text),
                 sag_dtype_name(t->dtype), tensor_bytes(t), bytes);
    }
    return SAG_OK;
}

sag_status sag_tensor_write(sag_tensor *t, const void *src, size_t bytes)
{
    SAG_TRY(check_bytes(t, bytes));
    return device_copy(t->ctx, sag_tensor_data(t), src, bytes, SAG_COPY_HOST_TO_DEVICE);
}

sag_status sag_tensor_read(const sag_tensor *t, void *dst, size_t bytes)
{
    SAG_TRY(check_bytes(t, bytes));
    return device_copy(t->ctx, dst, sag_tensor_data(t), bytes, SAG_COPY_DEVICE_TO_HOST);
}

sag_status sag_tensor_copy(sag_tensor *dst, const sag_tensor *src)
{
    char a[96], b[96];
    if (!sag_shape_equal(dst->shape, src->shape) || dst->dtype != src->dtype) {
        SAG_FAIL(SAG_ERR_SHAPE, "copy: destination %s %s and source %s %s must be alike", sag_shape_text(dst->shape, a, sizeof a),
                 sag_dtype_name(dst->dtype), sag_shape_text(src->shape, b, sizeof b), sag_dtype_name(src->dtype));
    }
    size_t bytes = tensor_bytes(dst);
    if (dst->ctx->device == src->ctx->device) {
        return device_copy(dst->ctx, sag_tensor_data(dst), sag_tensor_data(src), bytes, SAG_COPY_DEVICE_TO_DEVICE);
    }
    if (dst->ctx->device == SAG_CPU) return sag_tensor_read(src, sag_tensor_data(dst), bytes);
    if (src->ctx->device == SAG_CPU) return sag_tensor_write(dst, sag_tensor_data(src), bytes);
    SAG_FAIL(SAG_ERR_UNSUPPORTED, "copy between devices '%s' and '%s' goes through the CPU", sag_device_name(src->ctx->device),
             sag_device_name(dst->ctx->device));
}

static sag_status share(sag_tensor *t, sag_shape shape, int64_t numel, int64_t offset, sag_tensor **out)
{
    SAG_TRY(tensor_over(t->ctx, t->dtype, shape, numel, out));
    (*out)->storage = t->storage;
    sag_storage_retain(t->storage);
    (*out)->offset = t->offset + (size_t)offset * sag_dtype_size(t->dtype);
    return SAG_OK;
}

sag_status sag_tensor_view(sag_tensor *t, int64_t offset, sag_shape shape, sag_tensor **out)
{
    *out = NULL;
    char a[96], b[96];
    int64_t numel = 0;
    SAG_TRY(sag_shape_numel(shape, &numel));
    if (offset < 0 || offset > t->numel || numel > t->numel - offset) {
        SAG_FAIL(SAG_ERR_SHAPE, "view %s at element %lld does not fit into %s", sag_shape_text(shape, a, sizeof a),
                 (long long)offset, sag_shape_text(t->shape, b, sizeof b));
    }
    sag_tensor *v = NULL;
    SAG_TRY(share(t, shape, numel, offset, &v));
    if (t->var) {
        sag_var *var = sag_host_alloc(sizeof *var);
        if (!var) {
            sag_tensor_release(v);
            SAG_FAIL(SAG_ERR_MEMORY, "out of memory for a view");
        }
        sag_var *root = t->var->base ? t->var->base : t->var; /* a view of a view is a view of the root */
        int64_t at = (t->var->base ? t->var->offset : 0) + offset;
        *var = (sag_var){.refs = 1, .ctx = t->ctx, .shape = shape, .dtype = t->dtype, .frozen = t->var->base && t->var->frozen,
                         .base = sag_var_retain(root), .offset = at};
        v->var = var;
    }
    *out = v;
    return SAG_OK;
}

sag_status sag_tensor_detach(sag_tensor *t, sag_tensor **out)
{
    *out = NULL;
    return share(t, t->shape, t->numel, 0, out);
}
