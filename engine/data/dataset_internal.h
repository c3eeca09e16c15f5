/* dataset_internal.h - what the sources share: the object they fill, and the helpers that fill it. */
#ifndef SAG_DATASET_INTERNAL_H
#define SAG_DATASET_INTERNAL_H

#include "engine/data/dataset.h"

typedef struct sag_dataset_source {
    /* Draws one image; NULL: it is in ds->images. Called by several threads at once. */
    void (*read)(const sag_dataset *ds, int64_t index, uint8_t *pixels);
    int (*legs)(const sag_dataset *ds, int64_t index);
    void (*close)(sag_dataset *ds); /* frees ds->state */
} sag_dataset_source;

struct sag_dataset {
    int refs;
    const sag_dataset_source *source; /* NULL: plain images in memory */
    sag_dataset_info info;            /* its strings are owned */
    const uint8_t *images;            /* [count][height][width][channels], or NULL for sources that read */
    uint8_t *owned;                   /* images, where they are decoded ones; NULL when inside a mapped pack */
    size_t spooled;                   /* bytes of `owned` if it is a mapped temporary file, 0 if it is host memory */
    int32_t *labels;                  /* [count], owned */
    void *state;                      /* the source's own */
};

/* One call of open, as the sources see it. */
typedef struct sag_open_request {
    const char *spec;             /* whole, for messages */
    const char *path;             /* after the colon; "" when there is none */
    const sag_dataset_options *o; /* never NULL */
    const char *split;            /* "train" or "test" */
    const char *spool;            /* NULL, or what memory cannot hold goes to an unnamed file beside this path */
} sag_open_request;

bool sag_fashion_present(void);
bool sag_idx_present(const char *folder);   /* holds files named like an IDX data set */
bool sag_cifar10_present(const char *path); /* a folder or archive with the binary batches */
sag_status sag_fashion_open(const sag_open_request *r, sag_dataset *ds);
sag_status sag_idx_open(const sag_open_request *r, sag_dataset *ds);
sag_status sag_cifar10_open(const sag_open_request *r, sag_dataset *ds);
sag_status sag_folder_open(const sag_open_request *r, sag_dataset *ds);
sag_status sag_pack_open(const sag_open_request *r, sag_dataset *ds);
sag_status sag_quadrupeds_open(const sag_open_request *r, sag_dataset *ds);
/* open with a spool; the pack writer's way to more images than memory holds */
sag_status sag_dataset_open_spooled(const char *spec, const sag_dataset_options *o, const char *spool,
                                    sag_dataset **out);

/* ------------------------------------------------------------------------- data_helpers.c: for the sources */

/* The last part of a path without .tar, .tar.gz, .tgz, .gz, .safetensors; host block */
char *sag_data_base_name(const char *path);
char *sag_data_text(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* host block; NULL on failure */
sag_status sag_data_set_name(sag_dataset *ds, const char *name);                 /* NULL: after the path in the spec */
/* names NULL: "0", "1", ... */
sag_status sag_data_set_classes(sag_dataset *ds, const char *const *names, int classes);
/* Room for n images and labels, or a refusal that says what to do; sets count and sizes. */
sag_status sag_data_reserve(const sag_open_request *r, sag_dataset *ds, int64_t n, int h, int w, int c);
void sag_data_shrink(sag_dataset *ds, int64_t n); /* fewer images than reserved */
void sag_data_free_images(sag_dataset *ds);

/* `limit` takes images evenly spaced, so that data sorted by class stay balanced: how many, and which is the i-th. */
int64_t sag_data_chosen(const sag_open_request *r, int64_t n);
int64_t sag_data_chosen_at(int64_t i, int64_t chosen, int64_t n);
sag_status sag_data_progress(const sag_dataset_options *o, int64_t done, int64_t total);
int sag_data_threads(const sag_dataset_options *o);

/* One image to the data set's size: 1 <-> 3 channels, centre square, antialiased resize. Thread safe. */
sag_status sag_data_fit(const uint8_t *src, int h, int w, int c, uint8_t *dst, int dst_h, int dst_w, int dst_c);
/*
 * Raw images that lie one after another become the data set's: reserve, fit the chosen ones with threads, take their
 * labels, of 1 or 4 bytes (NULL: zeros). Without an asked resolution the size stays as it is, square or not.
 */
sag_status sag_data_take_raw(const sag_open_request *r, sag_dataset *ds, const uint8_t *src, const void *labels,
                             int label_bytes, int64_t n, int h, int w, int c);

/* --------------------------------------------------------------------------------------------- shuffle.c */

typedef enum sag_data_stream { SAG_DATA_SHUFFLE, SAG_DATA_QUADRUPEDS } sag_data_stream;
/* 64 bits of Philox 4x32-10 at (seed, stream, major, minor). */
uint64_t sag_data_random(uint64_t seed, sag_data_stream stream, uint64_t major, uint64_t minor);

#endif
