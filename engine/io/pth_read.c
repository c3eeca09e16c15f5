/* pth_read.c - the numbers of a tensor: gathered by its strides out of the storage, converted to a dtype of ours. */
#include "engine/io/pth_internal.h"

#include <string.h>

/* IEEE 754 half precision, subnormal numbers and NaN included. */
static float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff, bits;
    float f;
    if (exponent == 0) { /* fraction * 2^-24 */
        f = (float)fraction * 5.9604644775390625e-8f;
        return sign ? -f : f;
    }
    bits = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* n elements that lie `stride` elements of the storage apart, not necessarily aligned. False: beyond 32 bits. */
static bool convert(const pth_type *type, const uint8_t *from, int64_t stride, int64_t n, void *to)
{
    const size_t size = type->size, step = (size_t)stride * size;
    uint16_t half;
    int64_t whole;
    double number;
    if (strcmp(type->name, "F16") == 0) {
        for (int64_t i = 0; i < n; i++) {
            memcpy(&half, from + (size_t)i * step, size);
            ((float *)to)[i] = half_to_float(half);
        }
    } else if (strcmp(type->name, "F64") == 0) {
        for (int64_t i = 0; i < n; i++) {
            memcpy(&number, from + (size_t)i * step, size);
            ((float *)to)[i] = (float)number;
        }
    } else if (strcmp(type->name, "I64") == 0) {
        for (int64_t i = 0; i < n; i++) {
            memcpy(&whole, from + (size_t)i * step, size);
            if (whole < INT32_MIN || whole > INT32_MAX) return false;
            ((int32_t *)to)[i] = (int32_t)whole;
        }
    } else if (stride == 1) {
        memcpy(to, from, (size_t)n * size);
    } else {
        for (int64_t i = 0; i < n; i++) memcpy((uint8_t *)to + (size_t)i * size, from + (size_t)i * step, size);
    }
    return true;
}

/* Dimensions of 1 dropped, and neighbours that lie as one joined: a contiguous tensor is one row. Gives the rank. */
static int join_dimensions(const pth_tensor *t, int64_t *dim, int64_t *stride)
{
    int n = 0;
    for (int i = 0; i < t->entry.rank; i++) {
        if (t->dim[i] == 1) continue;
        if (n > 0 && stride[n - 1] == t->dim[i] * t->stride[i]) {
            dim[n - 1] *= t->dim[i];
            stride[n - 1] = t->stride[i];
        } else {
            dim[n] = t->dim[i];
            stride[n++] = t->stride[i];
        }
    }
    if (n == 0) dim[n] = stride[n] = 1, n++;
    return n;
}

/* One row along the last dimension after the other. */
static bool gather(const pth_tensor *t, const uint8_t *storage, uint8_t *to)
{
    int64_t dim[PTH_MAX_RANK + 1], stride[PTH_MAX_RANK + 1], index[PTH_MAX_RANK + 1] = {0}, at = t->offset;
    const int last = join_dimensions(t, dim, stride) - 1;
    const size_t row = (size_t)dim[last] * sag_dtype_size(t->entry.dtype);
    for (;;) {
        if (!convert(t->type, storage + (size_t)at * t->type->size, stride[last], dim[last], to)) return false;
        to += row;
        int i = last - 1;
        for (; i >= 0; i--) {
            at += stride[i];
            if (++index[i] < dim[i]) break;
            at -= stride[i] * dim[i];
            index[i] = 0;
        }
        if (i < 0) return true;
    }
}

sag_status sag_pth_read(sag_pth *f, const sag_pth_entry *e, void *dst)
{
    const pth_tensor *t = (const pth_tensor *)e; /* its first member */
    const uint8_t *storage = t->bytes;
    uint8_t *inflated = NULL;
    SAG_TRY(sag_pth_require(f, e));
    if (!storage) {
        inflated = sag_host_alloc(t->packed->size);
        if (!inflated) SAG_FAIL(SAG_ERR_MEMORY, "%s: no memory to inflate tensor %.200s", f->path, e->name);
        sag_status status = sag_zip_read(f->zip, t->packed, inflated);
        if (status != SAG_OK) {
            sag_host_free(inflated);
            return status;
        }
        storage = inflated;
    }
    bool fits = gather(t, storage, dst);
    sag_host_free(inflated);
    if (!fits) SAG_FAIL(SAG_ERR_FORMAT, "%s: tensor %.200s holds a number of more than 32 bits", f->path, e->name);
    return SAG_OK;
}
