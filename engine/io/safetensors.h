/*
 * safetensors.h - the one container of this project: named tensors and string metadata in one file.
 *
 * Layout: 8-byte little-endian header length N, N bytes of JSON {"name": {"dtype", "shape", "data_offsets"},
 * ...,
 * "__metadata__": {string: string}}, then the tensors' bytes back to back. A file is checked whole when it is
 * opened: header at most 100 MB and inside the file, offsets in range, without holes or overlaps, sizes equal
 * to shape times dtype.
 */
#ifndef SAG_SAFETENSORS_H
#define SAG_SAFETENSORS_H

#include "engine/sagan.h"

typedef struct sag_safetensors sag_safetensors;

typedef struct sag_safetensors_entry {
    const char *name;
    const char *dtype_name; /* as in the file: "F32", "I64", ... */
    bool supported;         /* the engine has this dtype and rank; otherwise dtype and shape mean nothing */
    sag_dtype dtype;
    sag_shape shape; /* a scalar [] is {1} */
    int rank;        /* as in the file, and its dims */
    const int64_t *dim;
    const uint8_t *data; /* in the map; not necessarily aligned in files of others */
    size_t bytes;
} sag_safetensors_entry;

sag_status sag_safetensors_open(const char *path, sag_safetensors **out);
void sag_safetensors_close(sag_safetensors *file); /* NULL is allowed */
int64_t sag_safetensors_count(const sag_safetensors *file);
const sag_safetensors_entry *sag_safetensors_at(const sag_safetensors *file, int64_t i);          /* sorted by name */
const sag_safetensors_entry *sag_safetensors_find(const sag_safetensors *file, const char *name); /* or NULL */
/* SAG_ERR_FORMAT with the file, the tensor and what is supported, if !entry->supported. */
sag_status sag_safetensors_require(const sag_safetensors *file, const sag_safetensors_entry *entry);
int64_t sag_safetensors_meta_count(const sag_safetensors *file);
/* Sorted by key. */
void sag_safetensors_meta_at(const sag_safetensors *file, int64_t i, const char **key, const char **value);
const char *sag_safetensors_meta(const sag_safetensors *file, const char *key); /* or NULL */

typedef struct sag_safetensors_item {
    const char *name;
    sag_dtype dtype;
    sag_shape shape;
    const void *data; /* host memory; or NULL, and then: */
    /* Called with successive pieces of the tensor, in order, until all its bytes were asked for. */
    sag_status (*fill)(void *user, void *dst, size_t bytes);
    void *user;
} sag_safetensors_item;

typedef struct sag_safetensors_pair {
    const char *key, *value;
} sag_safetensors_pair;

/*
 * Atomic, and the same bytes for the same content whatever the order of items. Tensors lie in the order of
 * falling element size, then of names (so every one is aligned), which is also the order in which the fill
 * functions are called.
 */
sag_status sag_safetensors_write(const char *path, const sag_safetensors_item *items, int64_t n,
                                 const sag_safetensors_pair *meta, int64_t n_meta);

#endif
