/*
 * stream.c - see stream.h. gzip is zlib's inflate; concatenated gzip members and zero padding behind them are
 * fine, anything else behind the end is not. The checksum at the end of each member is verified by inflate.
 */
#include "engine/io/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "engine/io/zlib_memory.h"

#define INPUT ((size_t)1 << 17)

struct sag_stream {
    int fd;
    char *path;
    bool compressed;
    bool inflating; /* inside a gzip member */
    bool ended;     /* no more input from the file */
    z_stream z;     /* next_in, avail_in describe the unread input for plain files too */
    int64_t read;   /* bytes taken from the file */
    int64_t given;  /* bytes handed out */
    uint8_t input[INPUT];
};

static sag_status refill(sag_stream *s)
{
    ssize_t n;
    do {
        n = read(s->fd, s->input, INPUT);
    } while (n < 0 && errno == EINTR);
    if (n < 0) SAG_FAIL(SAG_ERR_IO, "%s: cannot read at byte %lld: %s", s->path, (long long)s->read, strerror(errno));
    s->z.next_in = s->input;
    s->z.avail_in = (unsigned)n;
    s->read += n;
    s->ended = n == 0;
    return SAG_OK;
}

static int64_t file_offset(const sag_stream *s)
{
    return s->read - (int64_t)s->z.avail_in;
}

sag_status sag_stream_open(const char *path, sag_stream **out)
{
    *out = NULL;
    sag_stream *s = sag_host_alloc(sizeof *s);
    if (!s) SAG_FAIL(SAG_ERR_MEMORY, "%s: no memory to read it", path);
    sag_status status = SAG_OK;
    s->path = sag_host_alloc(strlen(path) + 1);
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) {
        status = sag_fail(SAG_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
        goto fail;
    }
    if (!s->path) {
        status = sag_fail(SAG_ERR_MEMORY, "%s: no memory to read it", path);
        goto fail;
    }
    memcpy(s->path, path, strlen(path) + 1);
    struct stat st;
    if (fstat(s->fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        status = sag_fail(SAG_ERR_IO, "%s: is not a regular file", path);
        goto fail;
    }
    status = refill(s);
    if (status != SAG_OK) goto fail;
    if (s->z.avail_in >= 2 && s->input[0] == 0x1f && s->input[1] == 0x8b) {
        s->z.zalloc = sag_zlib_alloc;
        s->z.zfree = sag_zlib_free;
        if (inflateInit2(&s->z, 15 + 16) != Z_OK) { /* 16: gzip framing only */
            status = sag_fail(SAG_ERR_MEMORY, "%s: no memory to decompress it", path);
            goto fail;
        }
        s->compressed = s->inflating = true;
    }
    *out = s;
    return SAG_OK;
fail:
    sag_stream_close(s);
    return status;
}

void sag_stream_close(sag_stream *s)
{
    if (!s) return;
    if (s->compressed) inflateEnd(&s->z);
    if (s->fd >= 0) close(s->fd);
    sag_host_free(s->path);
    sag_host_free(s);
}

static sag_status read_plain(sag_stream *s, uint8_t *dst, size_t size, size_t *got)
{
    while (*got < size) {
        if (s->z.avail_in == 0) {
            if (!s->ended) SAG_TRY(refill(s));
            if (s->ended) break;
        }
        size_t n = size - *got < s->z.avail_in ? size - *got : s->z.avail_in;
        memcpy(dst + *got, s->z.next_in, n);
        s->z.next_in += n;
        s->z.avail_in -= (unsigned)n;
        *got += n;
    }
    return SAG_OK;
}

/* Behind the end of a gzip member: another one, padding, or the end of the file. */
static sag_status next_member(sag_stream *s, bool *more)
{
    *more = false;
    for (;;) {
        if (s->z.avail_in == 0) {
            if (!s->ended) SAG_TRY(refill(s));
            if (s->ended) return SAG_OK;
        }
        if (*s->z.next_in == 0x1f) break;
        if (*s->z.next_in != 0)
            SAG_FAIL(SAG_ERR_FORMAT, "%s: byte %lld: something that is not gzip follows the gzip data", s->path,
                     (long long)file_offset(s));
        s->z.next_in++;
        s->z.avail_in--;
    }
    inflateReset(&s->z);
    s->inflating = *more = true;
    return SAG_OK;
}

static sag_status read_gzip(sag_stream *s, uint8_t *dst, size_t size, size_t *got)
{
    while (*got < size) {
        if (!s->inflating) {
            bool more;
            SAG_TRY(next_member(s, &more));
            if (!more) break;
        }
        if (s->z.avail_in == 0 && !s->ended) SAG_TRY(refill(s));
        size_t room = size - *got < (size_t)1 << 30 ? size - *got : (size_t)1 << 30;
        s->z.next_out = dst + *got;
        s->z.avail_out = (unsigned)room;
        int r = inflate(&s->z, Z_NO_FLUSH);
        *got += room - s->z.avail_out;
        if (r == Z_STREAM_END) {
            s->inflating = false;
        } else if (r == Z_BUF_ERROR) {
            if (s->ended)
                SAG_FAIL(SAG_ERR_FORMAT, "%s: gzip data is cut short at byte %lld", s->path, (long long)file_offset(s));
        } else if (r == Z_MEM_ERROR) {
            SAG_FAIL(SAG_ERR_MEMORY, "%s: no memory to decompress it", s->path);
        } else if (r != Z_OK) {
            SAG_FAIL(SAG_ERR_FORMAT, "%s: gzip data is damaged near byte %lld: %s", s->path, (long long)file_offset(s),
                     s->z.msg ? s->z.msg : "needs a dictionary");
        }
    }
    return SAG_OK;
}

sag_status sag_stream_read(sag_stream *s, void *dst, size_t size, size_t *got)
{
    *got = 0;
    sag_status status = s->compressed ? read_gzip(s, dst, size, got) : read_plain(s, dst, size, got);
    s->given += (int64_t)*got;
    return status;
}

int64_t sag_stream_offset(const sag_stream *s)
{
    return s->given;
}

const char *sag_stream_path(const sag_stream *s)
{
    return s->path;
}

bool sag_stream_compressed(const sag_stream *s)
{
    return s->compressed;
}
