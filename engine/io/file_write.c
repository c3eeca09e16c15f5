/*
 * file_write.c - writing so that a reader, or a machine that loses power, sees the old file or the new one,
 * never half.
 *
 * Temporary file in the same folder (rename(2) is atomic only within a file system), fsync, rename, fsync of
 * the folder (the rename itself is data of the folder).
 */
#include "engine/io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRITE_PIECE ((size_t)1 << 30)
#define COLLECT ((size_t)1 << 16) /* small writes are put together up to this size */

struct sag_file_writer {
    char path[PATH_MAX];
    char temporary[PATH_MAX];
    int fd;
    bool failed;
    size_t held;
    uint8_t buffer[COLLECT];
};

static sag_status io_fail(const char *what, const char *path)
{
    return sag_fail(SAG_ERR_IO, "%s: %s: %s", path, what, strerror(errno));
}

static sag_status write_all(int fd, const char *path, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, bytes, size < WRITE_PIECE ? size : WRITE_PIECE);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return io_fail("cannot write", path);
        bytes += n;
        size -= (size_t)n;
    }
    return SAG_OK;
}

static int open_again(const char *path, int flags, mode_t mode)
{
    int fd;
    do {
        fd = open(path, flags | O_CLOEXEC, mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

/* The folder part of a path, "." if it has none. */
static void folder_of(const char *path, char *out)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (!slash) {
        memcpy(out, ".", 2);
    } else if (n == 0) {
        memcpy(out, "/", 2);
    } else {
        memcpy(out, path, n);
        out[n] = 0;
    }
}

sag_status sag_file_writer_open(const char *path, sag_file_writer **out)
{
    static atomic_uint counter;
    *out = NULL;
    size_t n = strlen(path);
    if (n == 0 || path[n - 1] == '/') SAG_FAIL(SAG_ERR_IO, "'%s': is not the name of a file", path);
    if (n >= PATH_MAX) SAG_FAIL(SAG_ERR_IO, "%.60s...: the path is longer than %d bytes", path, PATH_MAX - 1);
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        SAG_FAIL(SAG_ERR_IO, "%s: cannot write: %s of that name is there", path,
                 S_ISDIR(st.st_mode) ? "a folder" : "something other than a file");
    sag_file_writer *w = sag_host_alloc(sizeof *w);
    if (!w) SAG_FAIL(SAG_ERR_MEMORY, "%s: no memory for writing it", path);
    memcpy(w->path, path, n + 1);
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) + 1 : 0;
    /* The base name is cut so that the temporary name stays within NAME_MAX. */
    int written = snprintf(w->temporary, sizeof w->temporary, "%.*s.%.180s.tmp-%ld-%u", folder, path, path + folder,
                           (long)getpid(), atomic_fetch_add(&counter, 1u));
    if (written < 0 || (size_t)written >= sizeof w->temporary) {
        sag_host_free(w);
        SAG_FAIL(SAG_ERR_IO, "%.60s...: the path is too long for a temporary file beside it", path);
    }
    w->fd = open_again(w->temporary, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (w->fd < 0) {
        sag_status status = io_fail("cannot create", path);
        sag_host_free(w);
        return status;
    }
    *out = w;
    return SAG_OK;
}

static sag_status flush(sag_file_writer *w)
{
    size_t n = w->held;
    w->held = 0;
    return write_all(w->fd, w->path, w->buffer, n);
}

sag_status sag_file_writer_write(sag_file_writer *w, const void *bytes, size_t size)
{
    if (w->failed) SAG_FAIL(SAG_ERR_STATE, "%s: an earlier write failed", w->path);
    sag_status status = SAG_OK;
    if (size > COLLECT - w->held) status = flush(w);
    if (status == SAG_OK) {
        if (size > COLLECT) {
            status = write_all(w->fd, w->path, bytes, size);
        } else if (size > 0) {
            memcpy(w->buffer + w->held, bytes, size);
            w->held += size;
        }
    }
    w->failed = status != SAG_OK;
    return status;
}

static sag_status sync_folder(const char *path)
{
    char folder[PATH_MAX];
    folder_of(path, folder);
    int fd = open_again(folder, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return io_fail("cannot open folder to sync it", folder);
    sag_status status = SAG_OK;
    /* EINVAL: a file system that cannot sync folders; then the rename is as safe as it gets. */
    if (fsync(fd) != 0 && errno != EINVAL) status = io_fail("cannot sync folder", folder);
    close(fd);
    return status;
}

sag_status sag_file_writer_commit(sag_file_writer *w)
{
    sag_status status = SAG_OK;
    if (w->failed)
        status = sag_fail(SAG_ERR_STATE, "%s: an earlier write failed", w->path);
    else
        status = flush(w);
    if (status == SAG_OK && fsync(w->fd) != 0) status = io_fail("cannot sync", w->path);
    int fd = w->fd;
    w->fd = -1;
    /* Network file systems report a full disk only here. */
    if (close(fd) != 0 && status == SAG_OK && errno != EINTR) status = io_fail("cannot close", w->path);
    if (status == SAG_OK && rename(w->temporary, w->path) != 0)
        status = io_fail("cannot put the new file in place", w->path);
    if (status == SAG_OK)
        status = sync_folder(w->path);
    else
        unlink(w->temporary);
    sag_host_free(w);
    return status;
}

void sag_file_writer_abort(sag_file_writer *w)
{
    if (!w) return;
    close(w->fd);
    unlink(w->temporary);
    sag_host_free(w);
}

sag_status sag_file_write_atomic(const char *path, const void *bytes, size_t size)
{
    sag_file_writer *w;
    SAG_TRY(sag_file_writer_open(path, &w));
    sag_status status = sag_file_writer_write(w, bytes, size);
    if (status != SAG_OK) {
        sag_file_writer_abort(w);
        return status;
    }
    return sag_file_writer_commit(w);
}

static sag_status append(const char *path, const void *bytes, size_t size, mode_t mode)
{
    int fd = open_again(path, O_WRONLY | O_CREAT | O_APPEND, mode);
    if (fd < 0) return io_fail("cannot open for appending", path);
    sag_status status = SAG_OK;
    ssize_t n;
    do {
        n = write(fd, bytes, size);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        status = io_fail("cannot append", path);
    } else if ((size_t)n < size) {
        status = sag_fail(SAG_ERR_IO, "%s: cannot append: only %zd of %zu bytes fit", path, n, size);
        /* Half a line would spoil the next one; but cut only what is certainly ours. */
        off_t end = lseek(fd, 0, SEEK_CUR);
        struct stat st;
        if (n > 0 && end >= n && fstat(fd, &st) == 0 && st.st_size == end && ftruncate(fd, end - n) != 0)
            status = sag_fail(SAG_ERR_IO, "%s: cannot append, and %zd bytes of it could not be taken back", path, n);
    }
    if (close(fd) != 0 && status == SAG_OK && errno != EINTR) status = io_fail("cannot close", path);
    return status;
}

sag_status sag_file_append(const char *path, const void *bytes, size_t size)
{
    return append(path, bytes, size, 0666);
}

sag_status sag_file_append_private(const char *path, const void *bytes, size_t size)
{
    return append(path, bytes, size, 0600);
}
