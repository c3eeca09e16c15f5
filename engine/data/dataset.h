/*
 * dataset.h - labelled u8 images, NHWC, all of one size, and the loader that feeds them to training.
 *
 *   [1] data   spec -> sag_dataset (decode, mmap or draw) -> sag_loader (keyed shuffle, prefetch threads) -> host batch
 *
 * A data set is immutable after open, so any thread may read it. Images of a source that does not have the asked size
 * are cropped to their centre square and resized when it is opened, not in training.
 */
#ifndef SAG_DATASET_H
#define SAG_DATASET_H

#include "engine/sagan.h"

typedef struct sag_dataset sag_dataset;

/* Called now and then while opening or packing; false stops with SAG_ERR_STATE. total is 0 while it is unknown. */
typedef bool (*sag_progress_fn)(void *user, int64_t done, int64_t total);

typedef struct sag_dataset_options {
    int resolution;    /* side in pixels; 0: as found (quadrupeds: 64) */
    int channels;      /* 1 or 3; 0: as found */
    const char *split; /* "train" (NULL) or "test" */
    int64_t limit;     /* use this many images, evenly spaced over the source; 0: all */
    int64_t max_bytes; /* refuse to hold more decoded bytes than this in memory; 0: half of the machine's memory */
    int threads;       /* decoding threads; 0: all cores. The result does not depend on it */
    sag_progress_fn progress;
    void *progress_user;
} sag_dataset_options;

typedef struct sag_dataset_info {
    int64_t count, skipped; /* skipped: unreadable images that were left out */
    int height, width, channels, classes;
    const char *name; /* "fashion-mnist", a folder's name, ... */
    const char *spec; /* opens the same data again: never "auto" */
    const char *split;
    const char *const *class_names; /* [classes] */
} sag_dataset_info;

/*
 * spec: "auto" (fashion-mnist where its files are, else quadrupeds), "fashion-mnist", "idx:PATH", "cifar10:PATH",
 * "folder:PATH", "pack:FILE", "quadrupeds[:COUNT]", or a bare path, which is recognised by what it holds.
 * options may be NULL.
 */
sag_status sag_dataset_open(const char *spec, const sag_dataset_options *options, sag_dataset **out);
void sag_dataset_retain(sag_dataset *ds);
void sag_dataset_release(sag_dataset *ds); /* NULL is allowed */
const sag_dataset_info *sag_dataset_describe(const sag_dataset *ds);

/* pixels: [height, width, channels]. index counts from 0. Either output may be NULL. */
sag_status sag_dataset_get(const sag_dataset *ds, int64_t index, uint8_t *pixels, int32_t *label);
sag_status sag_dataset_batch(const sag_dataset *ds, const int64_t *indices, int64_t n, uint8_t *pixels,
                             int32_t *labels);
/* counts: [classes]. */
void sag_dataset_histogram(const sag_dataset *ds, int64_t *counts);
/*
 * 32 hex digits: size, class names, every label, and the pixels of up to 1024 evenly spaced images. Equal content gives
 * equal digits whatever file it came from; a change of a few pixels in a large set may go unseen.
 */
sag_status sag_dataset_hash(const sag_dataset *ds, char hex[33]);
/* SAG_ERR_FORMAT with the reason when no conditional model can be trained on this: one class, or constant images. */
sag_status sag_dataset_check(const sag_dataset *ds);
/* How many legs the figure has (quadrupeds only; -1 for other sources). */
int sag_dataset_legs(const sag_dataset *ds, int64_t index);

/*
 * Writes the data as a pack file: a safetensors file with `images` u8 {N,H,W,C}, `labels` i32 {N} and metadata. Decoded
 * images go through an unnamed file in the folder of `path`, so they may be larger than memory (and twice their size
 * is needed on that disk). Atomic: the file appears when it is complete.
 */
sag_status sag_dataset_pack(const char *spec, const sag_dataset_options *options, const char *path, int64_t *count);
/* The same of a data set that is already open. */
sag_status sag_dataset_write_pack(const sag_dataset *ds, const char *path, sag_progress_fn progress, void *user);

/* ------------------------------------------------------------------------------------------------ shuffle */

/* order[k] is the image at place k of an epoch: a Fisher-Yates permutation, keyed by (seed, epoch). */
void sag_shuffle_epoch(uint64_t seed, int64_t epoch, int64_t n, int32_t *order);

/* ------------------------------------------------------------------------------------------------- loader */

typedef struct sag_loader sag_loader;

/*
 * Batch `step` holds the images at places step*batch .. step*batch + batch - 1 of the endless stream of shuffled
 * epochs. Its content depends on (data, seed, batch, step) only; `slots` batches are prepared ahead by `workers`
 * threads (0: one, or several where images are drawn and cores are many).
 */
sag_status sag_loader_create(sag_dataset *ds, int64_t batch, uint64_t seed, int slots, int workers, sag_loader **out);
/*
 * The batch of any step; waits for it. The pointers are the loader's and hold until the next call. Steps in a row are
 * prefetched, a jump restarts the prefetch there. One thread calls this.
 */
sag_status sag_loader_take(sag_loader *loader, int64_t step, const uint8_t **images, const int32_t **labels);
void sag_loader_destroy(sag_loader *loader); /* stops the threads; NULL is allowed */

#endif
