/*
 * pth.h - the tensors of a PyTorch state dict, as torch.save writes it: a flat dictionary of names and tensors. Both
 * containers are read, the zip archive (PyTorch 1.6 and later; stored or deflated) and the older one of pickles and raw
 * storages one after the other. The pickle is read as data (pickle.h): nothing of the file is run.
 *
 * What a tensor is in the file and what reading gives: F32, F16 and F64 give f32; BF16 gives bf16; I32 and I64 give i32
 * (a number beyond 32 bits is refused); U8 gives u8. Strides are those of the file; reading gives contiguous tensors.
 */
#ifndef SAG_PTH_H
#define SAG_PTH_H

#include "engine/sagan.h"

typedef struct sag_pth sag_pth;

typedef struct sag_pth_entry {
    const char *name;
    const char *dtype_name; /* as safetensors calls it: "F32", "I64", ... */
    bool supported;         /* the engine has this rank and the tensor is not empty; otherwise shape means nothing */
    sag_dtype dtype;        /* of what reading gives, as are shape and bytes */
    sag_shape shape;        /* a scalar is {1} */
    size_t bytes;
    int rank; /* as in the file, and its dims */
    const int64_t *dim;
} sag_pth_entry;

sag_status sag_pth_open(const char *path, sag_pth **out);
void sag_pth_close(sag_pth *file); /* NULL is allowed */
int64_t sag_pth_count(const sag_pth *file);
const sag_pth_entry *sag_pth_at(const sag_pth *file, int64_t i);          /* sorted by name */
const sag_pth_entry *sag_pth_find(const sag_pth *file, const char *name); /* or NULL */
/* SAG_ERR_FORMAT with the file, the tensor and what is supported, if !entry->supported. */
sag_status sag_pth_require(const sag_pth *file, const sag_pth_entry *entry);
/* entry->bytes bytes in host memory. */
sag_status sag_pth_read(sag_pth *file, const sag_pth_entry *entry, void *dst);

#endif
