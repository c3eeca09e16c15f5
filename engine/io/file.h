/*
 * file.h - what the engine asks of the operating system about files: whole-file reads, atomic writes,
 * folders, locks, maps.
 *
 * Every failure is SAG_ERR_IO with a message that carries the path and the system's reason; nothing here
 * prints. Memory handed out belongs to the caller and goes back through sag_host_free (or the function named
 * beside it).
 */
#ifndef SAG_FILE_H
#define SAG_FILE_H

#include "engine/sagan.h"

/* The whole file; *bytes has one zero byte behind the end, so that text can be used as a C string. Larger
 * than max_bytes (0: no limit) is SAG_ERR_FORMAT. */
sag_status sag_file_read(const char *path, int64_t max_bytes, uint8_t **bytes, size_t *size);

/* All or nothing: a temporary file in the same folder, fsync, rename, fsync of the folder. On failure the
 * temporary file is removed and an old file of that name stays as it was. */
sag_status sag_file_write_atomic(const char *path, const void *bytes, size_t size);

/* The same in pieces. Exactly one of commit and abort ends a writer; commit that fails has already cleaned
 * up. */
typedef struct sag_file_writer sag_file_writer;
sag_status sag_file_writer_open(const char *path, sag_file_writer **out);
sag_status sag_file_writer_write(sag_file_writer *w, const void *bytes, size_t size);
sag_status sag_file_writer_commit(sag_file_writer *w);
void sag_file_writer_abort(sag_file_writer *w); /* NULL is allowed */

/* One write(2) with O_APPEND: lines of two processes do not mix. A short write is taken back before the
 * error. */
sag_status sag_file_append(const char *path, const void *bytes, size_t size);
/* The same; a file that it makes is its owner's alone (mode 0600). */
sag_status sag_file_append_private(const char *path, const void *bytes, size_t size);

typedef enum sag_file_type { SAG_FILE_MISSING, SAG_FILE_REGULAR, SAG_FILE_FOLDER, SAG_FILE_OTHER } sag_file_type;
typedef struct sag_file_info {
    sag_file_type type;
    int64_t size; /* bytes */
    double mtime; /* seconds since 1970 */
} sag_file_info;
/* A path that does not exist is SAG_OK with type SAG_FILE_MISSING. Symbolic links are followed. */
sag_status sag_file_stat(const char *path, sag_file_info *out);
bool sag_file_exists(const char *path);

sag_status sag_file_make_folders(const char *path); /* with parents; a folder that is there already is fine */
sag_status sag_file_remove(const char *path);       /* a file or an empty folder */
sag_status sag_file_rename(const char *from, const char *to);

/* Names in a folder without "." and "..", sorted by bytes. */
typedef struct sag_file_names {
    char **name;
    int64_t count;
} sag_file_names;
sag_status sag_file_list(const char *folder, sag_file_names *out);
void sag_file_names_free(sag_file_names *names);

/* A read-only map of the whole file. An empty file has size 0 and bytes NULL. */
typedef struct sag_file_map {
    const uint8_t *bytes;
    size_t size;
} sag_file_map;
sag_status sag_file_map_open(const char *path, sag_file_map *out);
void sag_file_map_close(sag_file_map *map); /* leaves it empty; twice is fine */

/* An exclusive flock on the file (made if missing). Held by another: SAG_ERR_STATE, after the moment that somebody who
 * only asks would need. The system drops it when the process ends, however it ends. */
typedef struct sag_file_lock {
    int fd; /* -1: not held */
} sag_file_lock;
sag_status sag_file_lock_take(const char *path, sag_file_lock *out);
void sag_file_lock_drop(sag_file_lock *lock);
/* Whether somebody holds it, without taking it; a missing file is not held. */
sag_status sag_file_lock_held(const char *path, bool *held);

sag_status sag_file_free_disk(const char *path, int64_t *bytes); /* what an unprivileged user may still write */

#endif
