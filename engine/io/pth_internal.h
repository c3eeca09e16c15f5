/* pth_internal.h - what pth.c (the dictionary, the zip container), pth_legacy.c (the older one) and pth_read.c (the
 * numbers) share. */
#ifndef SAG_PTH_INTERNAL_H
#define SAG_PTH_INTERNAL_H

#include "engine/io/file.h"
#include "engine/io/pickle.h"
#include "engine/io/pth.h"
#include "engine/io/zip.h"

#define PTH_MAX_RANK 8
#define PTH_MAX_KEY 100 /* bytes of a storage's name */

/* How PyTorch calls the kinds of its storages. */
typedef struct pth_type {
    const char *global; /* "torch.FloatStorage" */
    const char *name;   /* "F32" */
    size_t size;        /* bytes of an element */
    sag_dtype gives;
} pth_type;

typedef struct pth_tensor {
    sag_pth_entry entry;
    int64_t dim[PTH_MAX_RANK], stride[PTH_MAX_RANK]; /* stride and offset in elements of the storage */
    int64_t offset;
    /* the storage that it is a view of */
    const sag_pickle_value *key;
    const pth_type *type;
    int64_t numel;
    const uint8_t *bytes;        /* in the map; NULL: */
    const sag_zip_entry *packed; /* to be inflated */
} pth_tensor;

struct sag_pth {
    char *path;
    sag_file_map map;
    sag_zip *zip;      /* NULL: the older container */
    uint8_t *inflated; /* the pickle, if it was deflated */
    sag_pickle *pickle;
    char *names;
    pth_tensor *tensor;
    int64_t count;
};

extern const char *const sag_pth_globals[]; /* that a state dict's pickle may name */

sag_status sag_pth_no_memory(const char *path);
/* The stored message, with the file and the tensor in front of it. */
sag_status sag_pth_tensor_fail(const sag_pth *f, const pth_tensor *t, sag_status status);
#define PTH_TENSOR_FAIL(f, t, ...) return sag_pth_tensor_fail((f), (t), sag_fail(SAG_ERR_FORMAT, __VA_ARGS__))

/* f->pickle's root as f->tensor, where the storages lie excepted. */
sag_status sag_pth_parse_dictionary(sag_pth *f);
sag_status sag_pth_open_legacy(sag_pth *f);

#endif
