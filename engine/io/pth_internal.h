/* pth_internal.h - what pth.c (containers, the dictionary) and pth_read.c (the numbers) share. */
#ifndef SAG_PTH_INTERNAL_H
#define SAG_PTH_INTERNAL_H

#include "engine/io/file.h"
#include "engine/io/pickle.h"
#include "engine/io/pth.h"
#include "engine/io/zip.h"

#define PTH_MAX_RANK 8

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

#endif
