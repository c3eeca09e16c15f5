/*
 * zip.h - the entries of a zip archive that lies in memory, stored or deflated, zip64 included: the container of
 * PyTorch's files (pth.h). Encrypted and multi-part archives are refused.
 *
 * The archive's directory alone is trusted for names, sizes and methods, and each entry is checked to lie inside the
 * bytes. Checksums are not compared: PyTorch can be told to write none, and what must be the right file is told by
 * its SHA-256.
 */
#ifndef SAG_ZIP_H
#define SAG_ZIP_H

#include "engine/sagan.h"

typedef struct sag_zip sag_zip;

typedef struct sag_zip_entry {
    const char *name; /* in the archive, not zero-terminated */
    size_t name_length;
    const uint8_t *packed; /* the bytes themselves if they are only stored */
    size_t packed_size, size;
    bool deflated;
} sag_zip_entry;

bool sag_zip_is(const uint8_t *bytes, size_t size);
/* `bytes` must outlive the archive; `path` is for messages and is copied. */
sag_status sag_zip_open(const uint8_t *bytes, size_t size, const char *path, sag_zip **out);
void sag_zip_close(sag_zip *zip); /* NULL is allowed */
int64_t sag_zip_count(const sag_zip *zip);
const sag_zip_entry *sag_zip_at(const sag_zip *zip, int64_t i);          /* sorted by name */
const sag_zip_entry *sag_zip_find(const sag_zip *zip, const char *name); /* or NULL */
/* The entry's `size` bytes, inflated if need be. */
sag_status sag_zip_read(const sag_zip *zip, const sag_zip_entry *entry, uint8_t *dst);

#endif
