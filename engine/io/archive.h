/*
 * archive.h - members of .tar and .tar.gz files, and gzip files, read as streams. Nothing is ever unpacked to
 * disk.
 *
 * Reads ustar, GNU long names and base-256 sizes, pax path and size. Links, folders and devices are passed
 * over; GNU sparse members are refused. Truncated or corrupt data is SAG_ERR_FORMAT with the file and the
 * byte offset.
 */
#ifndef SAG_ARCHIVE_H
#define SAG_ARCHIVE_H

#include "engine/sagan.h"

typedef struct sag_archive_member {
    const char *name;     /* as stored, a leading "./" removed */
    const uint8_t *bytes; /* valid until the callback returns */
    size_t size;
    int64_t offset; /* of the bytes in the uncompressed archive: in a plain .tar, where a map finds them again */
} sag_archive_member;

typedef struct sag_archive_visitor {
    void *user;
    /* NULL: every file is wanted. A member that is not wanted is passed over without being kept in memory. */
    bool (*wants)(void *user, const char *name, int64_t size);
    /* A status other than SAG_OK ends the walk and is returned; *stop = true ends it with SAG_OK. */
    sag_status (*visit)(void *user, const sag_archive_member *member, bool *stop);
    int64_t max_member; /* a wanted member that is larger is SAG_ERR_FORMAT; 0: 1 GiB */
} sag_archive_visitor;

/* Every regular file in the order of the archive. Compressed or not is seen from the content. */
sag_status sag_archive_walk(const char *path, const sag_archive_visitor *visitor);
/* By content: a tar archive, or a gzip file whose content begins like one. False for anything else,
 * unreadable files too. */
bool sag_archive_is(const char *path);

/* The whole content of a gzip file, or of a plain file as it is. More than max_bytes (0: 4 GiB) is
 * SAG_ERR_FORMAT. */
sag_status sag_gunzip_file(const char *path, int64_t max_bytes, uint8_t **bytes, size_t *size);

#endif
