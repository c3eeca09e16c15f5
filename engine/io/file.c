/*
 * file.c - reading, maps, folders, locks. Writing is file_write.c.
 */
#include "engine/io/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define READ_PIECE ((size_t)1 << 30) /* Linux moves at most 2 GiB - 4 KiB in one read */

static sag_status io_fail(const char *what, const char *path)
{
    return sag_fail(SAG_ERR_IO, "%s: %s: %s", path, what, strerror(errno));
}

/* An open, readable, regular file and its size. */
static sag_status open_regular(const char *path, int *fd, int64_t *size)
{
    int f;
    do {
        f = open(path, O_RDONLY | O_CLOEXEC);
    } while (f < 0 && errno == EINTR);
    if (f < 0) return io_fail("cannot open", path);
    struct stat st;
    sag_status status = SAG_OK;
    if (fstat(f, &st) != 0)
        status = io_fail("cannot stat", path);
    else if (S_ISDIR(st.st_mode))
        status = sag_fail(SAG_ERR_IO, "%s: is a folder, a file is needed", path);
    else if (!S_ISREG(st.st_mode))
        status = sag_fail(SAG_ERR_IO, "%s: is not a regular file", path);
    if (status != SAG_OK) {
        close(f);
        return status;
    }
    *fd = f;
    *size = (int64_t)st.st_size;
    return SAG_OK;
}

static sag_status read_all(int fd, const char *path, uint8_t *bytes, size_t size)
{
    size_t done = 0;
    while (done < size) {
        size_t want = size - done < READ_PIECE ? size - done : READ_PIECE;
        ssize_t got = read(fd, bytes + done, want);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return io_fail("cannot read", path);
        if (got == 0)
            return sag_fail(SAG_ERR_IO, "%s: became shorter while it was read (%zu of %zu bytes)", path, done, size);
        done += (size_t)got;
    }
    return SAG_OK;
}

/* Files of /proc and /sys say that they are empty: read on to the end, as far as 16 MiB. */
static sag_status read_unsized(int fd, const char *path, uint8_t **bytes, int64_t *size)
{
    size_t capacity = 1 << 16, n = 0;
    uint8_t *p = sag_host_alloc(capacity);
    sag_status status = SAG_OK;
    while (p) {
        ssize_t got = read(fd, p + n, capacity - 1 - n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) status = io_fail("cannot read", path);
        if (got <= 0) break;
        n += (size_t)got;
        if (n < capacity - 1) continue;
        if (capacity >= (size_t)1 << 24) {
            status = sag_fail(SAG_ERR_FORMAT, "%s: is larger than it says", path);
            break;
        }
        uint8_t *grown = sag_host_realloc(p, capacity *= 2);
        if (!grown) sag_host_free(p);
        p = grown;
    }
    if (!p) SAG_FAIL(SAG_ERR_MEMORY, "%s: no memory to read it", path);
    if (status != SAG_OK) {
        sag_host_free(p);
        return status;
    }
    *bytes = p;
    *size = (int64_t)n;
    return SAG_OK;
}

sag_status sag_file_read(const char *path, int64_t max_bytes, uint8_t **bytes, size_t *size)
{
    *bytes = NULL;
    *size = 0;
    int fd;
    int64_t n;
    SAG_TRY(open_regular(path, &fd, &n));
    sag_status status = SAG_OK;
    uint8_t *p = NULL;
    if (max_bytes > 0 && n > max_bytes) {
        status = sag_fail(SAG_ERR_FORMAT, "%s: has %lld bytes, the limit here is %lld", path, (long long)n,
                          (long long)max_bytes);
        goto done;
    }
    if (n == 0) {
        status = read_unsized(fd, path, &p, &n);
    } else {
        p = sag_host_alloc((size_t)n + 1);
        status = p ? read_all(fd, path, p, (size_t)n)
                   : sag_fail(SAG_ERR_MEMORY, "%s: no memory for its %lld bytes", path, (long long)n);
    }
    if (status != SAG_OK) goto done;
    p[n] = 0;
    *bytes = p;
    *size = (size_t)n;
    p = NULL;
done:
    sag_host_free(p);
    close(fd);
    return status;
}

sag_status sag_file_stat(const char *path, sag_file_info *out)
{
    *out = (sag_file_info){.type = SAG_FILE_MISSING};
    struct stat st;
    if (stat(path, &st) != 0) {
        if (errno == ENOENT || errno == ENOTDIR) return SAG_OK;
        return io_fail("cannot stat", path);
    }
    out->type = S_ISREG(st.st_mode) ? SAG_FILE_REGULAR : S_ISDIR(st.st_mode) ? SAG_FILE_FOLDER : SAG_FILE_OTHER;
    out->size = (int64_t)st.st_size;
    out->mtime = (double)st.st_mtim.tv_sec + 1e-9 * (double)st.st_mtim.tv_nsec;
    return SAG_OK;
}

bool sag_file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

sag_status sag_file_make_folders(const char *path)
{
    char part[PATH_MAX];
    size_t n = strlen(path);
    if (n == 0) SAG_FAIL(SAG_ERR_IO, "make folder: the path is empty");
    if (n >= sizeof part) SAG_FAIL(SAG_ERR_IO, "%.60s...: the path is longer than %zu bytes", path, sizeof part - 1);
    memcpy(part, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (part[i] != '/' && part[i] != 0) continue;
        char kept = part[i];
        part[i] = 0;
        if (mkdir(part, 0777) != 0) {
            int error = errno;
            struct stat st;
            /* Also EROFS, EACCES and the like are fine for a parent that is there. */
            if (stat(part, &st) != 0) {
                errno = error;
                return io_fail("cannot make folder", part);
            }
            if (!S_ISDIR(st.st_mode))
                SAG_FAIL(SAG_ERR_IO, "%s: cannot make folder: a file of that name is there", part);
        }
        part[i] = kept;
    }
    return SAG_OK;
}

sag_status sag_file_remove(const char *path)
{
    if (remove(path) != 0) return io_fail("cannot remove", path);
    return SAG_OK;
}

sag_status sag_file_rename(const char *from, const char *to)
{
    if (rename(from, to) != 0) SAG_FAIL(SAG_ERR_IO, "%s: cannot rename to %s: %s", from, to, strerror(errno));
    return SAG_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void sag_file_names_free(sag_file_names *names)
{
    for (int64_t i = 0; i < names->count; i++) sag_host_free(names->name[i]);
    sag_host_free(names->name);
    *names = (sag_file_names){0};
}

sag_status sag_file_list(const char *folder, sag_file_names *out)
{
    *out = (sag_file_names){0};
    DIR *dir = opendir(folder);
    if (!dir) return io_fail("cannot list folder", folder);
    sag_status status = SAG_OK;
    int64_t capacity = 0;
    for (;;) {
        errno = 0;
        const struct dirent *e = readdir(dir);
        if (!e) {
            if (errno != 0) status = io_fail("cannot list folder", folder);
            break;
        }
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (out->count == capacity) {
            int64_t wider = capacity ? capacity * 2 : 64;
            char **grown = sag_host_realloc(out->name, (size_t)wider * sizeof *grown);
            if (!grown) goto no_memory;
            out->name = grown;
            capacity = wider;
        }
        size_t n = strlen(e->d_name) + 1;
        char *copy = sag_host_alloc(n);
        if (!copy) goto no_memory;
        memcpy(copy, e->d_name, n);
        out->name[out->count++] = copy;
    }
    closedir(dir);
    if (status != SAG_OK) {
        sag_file_names_free(out);
        return status;
    }
    if (out->count > 1) qsort(out->name, (size_t)out->count, sizeof *out->name, compare_names);
    return SAG_OK;
no_memory:
    closedir(dir);
    sag_file_names_free(out);
    SAG_FAIL(SAG_ERR_MEMORY, "%s: no memory for its file names", folder);
}

sag_status sag_file_map_open(const char *path, sag_file_map *out)
{
    *out = (sag_file_map){0};
    int fd;
    int64_t size;
    SAG_TRY(open_regular(path, &fd, &size));
    sag_status status = SAG_OK;
    if (size > 0) {
        void *p = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            status = io_fail("cannot map", path);
        else
            *out = (sag_file_map){.bytes = p, .size = (size_t)size};
    }
    close(fd);
    return status;
}

void sag_file_map_close(sag_file_map *map)
{
    if (map->bytes) munmap((void *)(uintptr_t)map->bytes, map->size);
    *map = (sag_file_map){0};
}

sag_status sag_file_lock_take(const char *path, sag_file_lock *out)
{
    out->fd = -1;
    int fd;
    do {
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) return io_fail("cannot open for locking", path);
    int r;
    for (int attempt = 0;; attempt++) {
        r = flock(fd, LOCK_EX | LOCK_NB);
        if (r == 0 || (errno != EINTR && (errno != EWOULDBLOCK || attempt >= 20))) break;
        usleep(1000); /* sag_file_lock_held of another process has it for an instant */
    }
    if (r != 0) {
        int error = errno;
        close(fd);
        if (error == EWOULDBLOCK)
            SAG_FAIL(SAG_ERR_STATE, "%s: is locked by another process; wait until it ends or stop it", path);
        errno = error;
        return io_fail("cannot lock", path);
    }
    out->fd = fd;
    return SAG_OK;
}

void sag_file_lock_drop(sag_file_lock *lock)
{
    if (lock->fd >= 0) close(lock->fd);
    lock->fd = -1;
}

sag_status sag_file_lock_held(const char *path, bool *held)
{
    *held = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return SAG_OK;
    if (fd < 0) return io_fail("cannot open", path);
    /* Shared, so that two who ask do not meet each other. */
    *held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    return SAG_OK;
}

sag_status sag_file_free_disk(const char *path, int64_t *bytes)
{
    *bytes = 0;
    struct statvfs v;
    if (statvfs(path, &v) != 0) return io_fail("cannot ask for free space", path);
    uint64_t product;
    if (__builtin_mul_overflow((uint64_t)v.f_bavail, (uint64_t)v.f_frsize, &product) || product > INT64_MAX)
        product = INT64_MAX;
    *bytes = (int64_t)product;
    return SAG_OK;
}
