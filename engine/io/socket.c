/*
 * socket.c - frames over Unix stream sockets, without ever blocking.
 */
#include "engine/io/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define HEADER ((size_t)4)
#define PIECE ((size_t)1 << 16) /* what a buffer begins with and grows by */
#define BACKLOG 16
#define NAME_MOST 64 /* bytes of a socket's name; fits with /proc/self/fd/<n>/ into an address */

/* Bytes [from, size) are in use. */
typedef struct buffer {
    uint8_t *bytes;
    size_t from, size, capacity;
} buffer;

struct sag_socket {
    int fd;
    bool listening;
    size_t most;  /* bytes of a frame, and bytes that may wait to be sent */
    buffer in;    /* what came, from the frame that is next */
    buffer out;   /* what could not be sent yet */
    size_t taken; /* bytes of `in` that the last frame handed out takes up */
    char *path;   /* of a listener */
    dev_t device; /* of its file */
    ino_t inode;
};

/* --------------------------------------------------------------------------------------------- addresses */

static sag_status too_long(const char *path)
{
    SAG_FAIL(SAG_ERR_IO, "%.60s...: the path is longer than %d bytes", path, PATH_MAX - 1);
}

/*
 * The address of a path. sun_path has 108 bytes, and run folders may lie deeper: then the folder is opened, and the
 * socket is named through the process's own descriptor of it. *folder stays open until the address was used; -1: there
 * is none.
 */
static sag_status address_of(const char *path, struct sockaddr_un *address, int *folder)
{
    *folder = -1;
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    size_t n = strlen(path);
    if (n < sizeof address->sun_path) {
        memcpy(address->sun_path, path, n + 1);
        return SAG_OK;
    }
    const char *slash = strrchr(path, '/');
    char above[PATH_MAX];
    if (n >= sizeof above) return too_long(path);
    if (!slash || strlen(slash + 1) > NAME_MOST)
        SAG_FAIL(SAG_ERR_IO, "%.60s...: the name of a socket has at most %d bytes", slash ? slash + 1 : path,
                 NAME_MOST);
    memcpy(above, path, (size_t)(slash - path) + 1);
    above[slash - path + 1] = 0;
    int fd = open(above, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) SAG_FAIL(SAG_ERR_IO, "%s: %s", path, strerror(errno));
    snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/%s", fd, slash + 1);
    *folder = fd;
    return SAG_OK;
}

static sag_status new_socket(int fd, size_t most, sag_socket **out)
{
    sag_socket *s = sag_host_alloc(sizeof *s);
    if (!s) SAG_FAIL(SAG_ERR_MEMORY, "no memory for a socket");
    s->fd = fd;
    s->most = most;
    *out = s;
    return SAG_OK;
}

/* A socket that is not connected to anything yet. */
static sag_status make(size_t most, sag_socket **out)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) SAG_FAIL(SAG_ERR_IO, "cannot make a socket: %s", strerror(errno));
    sag_status status = new_socket(fd, most, out);
    if (status != SAG_OK) close(fd);
    return status;
}

/* --------------------------------------------------------------------------------------------- listening */

/* Binds to a name of its own beside the path and listens there. */
static sag_status bind_to(sag_socket *s, const char *path)
{
    struct sockaddr_un address;
    int folder;
    SAG_TRY(address_of(path, &address, &folder));
    unlink(address.sun_path);
    /* The file gets the mode of the socket's descriptor: nobody else can connect, not even for an instant. */
    bool ok = fchmod(s->fd, 0600) == 0 && bind(s->fd, (const struct sockaddr *)&address, sizeof address) == 0;
    struct stat st;
    if (ok && (stat(address.sun_path, &st) != 0 || (st.st_mode & 077))) {
        errno = EPERM;
        ok = false;
    }
    ok = ok && listen(s->fd, BACKLOG) == 0;
    int error = errno;
    if (folder >= 0) close(folder);
    if (!ok) SAG_FAIL(SAG_ERR_IO, "%s: cannot make a socket there: %s", path, strerror(error));
    s->device = st.st_dev;
    s->inode = st.st_ino;
    return SAG_OK;
}

sag_status sag_socket_listen(const char *path, size_t most, sag_socket **out)
{
    *out = NULL;
    struct stat st;
    if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
        SAG_FAIL(SAG_ERR_IO, "%s: something other than a socket of that name is there", path);
    char temporary[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) + 1 : 0;
    int n = snprintf(temporary, sizeof temporary, "%.*s.%s.tmp-%ld-0", folder, path, path + folder, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof temporary) return too_long(path);
    sag_socket *s;
    SAG_TRY(make(most, &s));
    sag_status status = bind_to(s, temporary);
    size_t size = strlen(path) + 1;
    if (status == SAG_OK && !(s->path = sag_host_alloc(size)))
        status = sag_fail(SAG_ERR_MEMORY, "%s: no memory for a socket", path);
    /* Whoever sees the name finds somebody who listens. */
    if (status == SAG_OK && rename(temporary, path) != 0)
        status = sag_fail(SAG_ERR_IO, "%s: cannot put the socket in place: %s", path, strerror(errno));
    if (status != SAG_OK) {
        unlink(temporary);
        sag_socket_close(s);
        return status;
    }
    memcpy(s->path, path, size);
    s->listening = true;
    *out = s;
    return SAG_OK;
}

sag_status sag_socket_accept(sag_socket *listener, sag_socket **out)
{
    *out = NULL;
    for (;;) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
        if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return SAG_OK;
        if (fd < 0) SAG_FAIL(SAG_ERR_IO, "cannot accept a connection: %s", strerror(errno));
        struct ucred peer;
        socklen_t size = sizeof peer;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid()) {
            sag_status status = new_socket(fd, listener->most, out);
            if (status != SAG_OK) close(fd);
            return status;
        }
        close(fd);
    }
}

sag_status sag_socket_connect(const char *path, size_t most, sag_socket **out)
{
    *out = NULL;
    struct sockaddr_un address;
    int folder;
    SAG_TRY(address_of(path, &address, &folder));
    sag_socket *s = NULL;
    sag_status status = make(most, &s);
    if (status == SAG_OK && connect(s->fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        if (errno == ECONNREFUSED)
            status = sag_fail(SAG_ERR_STATE, "%s: no process listens at this socket any more", path);
        else if (errno == EAGAIN)
            status = sag_fail(SAG_ERR_IO, "%s: too many wait to be heard here; try again", path);
        else
            status = sag_fail(SAG_ERR_IO, "%s: cannot connect: %s", path, strerror(errno));
    }
    if (folder >= 0) close(folder);
    if (status != SAG_OK) {
        sag_socket_close(s);
        return status;
    }
    *out = s;
    return SAG_OK;
}

/* ------------------------------------------------------------------------------------------------ frames */

/* Room for `more` bytes behind those in use. */
static bool reserve(buffer *b, size_t more)
{
    if (b->from > 0) {
        memmove(b->bytes, b->bytes + b->from, b->size - b->from);
        b->size -= b->from;
        b->from = 0;
    }
    if (b->size + more <= b->capacity) return true;
    size_t wanted = (b->size + more + PIECE - 1) / PIECE * PIECE;
    uint8_t *grown = sag_host_realloc(b->bytes, wanted);
    if (!grown) return false;
    b->bytes = grown;
    b->capacity = wanted;
    return true;
}

static void append(buffer *b, const void *bytes, size_t size)
{
    if (size > 0) memcpy(b->bytes + b->size, bytes, size);
    b->size += size;
}

size_t sag_socket_unsent(const sag_socket *s)
{
    return s->out.size - s->out.from;
}

/* Sends what waits, as far as the other side takes it. */
static sag_status flush(sag_socket *s)
{
    while (s->out.from < s->out.size) {
        ssize_t n = send(s->fd, s->out.bytes + s->out.from, s->out.size - s->out.from, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return SAG_OK;
        if (n < 0) SAG_FAIL(SAG_ERR_IO, "the other side is gone: %s", strerror(errno));
        s->out.from += (size_t)n;
    }
    s->out.from = s->out.size = 0;
    return SAG_OK;
}

sag_status sag_socket_send(sag_socket *s, const void *bytes, size_t size)
{
    size_t waiting = sag_socket_unsent(s);
    if (size > s->most || size > UINT32_MAX || waiting > s->most - size)
        SAG_FAIL(SAG_ERR_STATE, "%zu bytes to send and %zu that wait for the other side to read: more than %zu", size,
                 waiting, s->most);
    if (!reserve(&s->out, HEADER + size)) SAG_FAIL(SAG_ERR_MEMORY, "no memory for %zu bytes to send", size);
    uint8_t header[HEADER] = {(uint8_t)size, (uint8_t)(size >> 8), (uint8_t)(size >> 16), (uint8_t)(size >> 24)};
    append(&s->out, header, HEADER);
    append(&s->out, bytes, size);
    return flush(s);
}

/* Bytes that the next frame takes up, with its header; 0: not even that is there. */
static size_t next_frame(const sag_socket *s)
{
    size_t from = s->in.from + s->taken;
    if (s->in.size - from < HEADER) return 0;
    const uint8_t *h = s->in.bytes + from;
    return HEADER + ((size_t)h[0] | (size_t)h[1] << 8 | (size_t)h[2] << 16 | (size_t)h[3] << 24);
}

sag_status sag_socket_receive(sag_socket *s, const uint8_t **bytes, size_t *size)
{
    *bytes = NULL;
    *size = 0;
    s->in.from += s->taken;
    s->taken = 0;
    for (;;) {
        size_t whole = next_frame(s), there = s->in.size - s->in.from;
        if (whole > HEADER + s->most)
            SAG_FAIL(SAG_ERR_FORMAT, "a message of %zu bytes was announced; at most %zu are taken", whole - HEADER,
                     s->most);
        if (whole > 0 && there >= whole) {
            *bytes = s->in.bytes + s->in.from + HEADER;
            *size = whole - HEADER;
            s->taken = whole;
            return SAG_OK;
        }
        if (!reserve(&s->in, whole > there ? whole - there : PIECE))
            SAG_FAIL(SAG_ERR_MEMORY, "no memory for a message");
        ssize_t n = recv(s->fd, s->in.bytes + s->in.size, s->in.capacity - s->in.size, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return SAG_OK;
        if (n <= 0) SAG_FAIL(SAG_ERR_IO, "the other side is gone%s%s", n < 0 ? ": " : "", n < 0 ? strerror(errno) : "");
        s->in.size += (size_t)n;
    }
}

/* ----------------------------------------------------------------------------------------------- waiting */

sag_status sag_socket_wait(sag_socket *const *sockets, int count, double seconds, int *ready)
{
    *ready = 0;
    if (count < 0 || count > SAG_SOCKET_WAIT_MAX)
        SAG_FAIL(SAG_ERR_ARG, "wait: %d sockets; at most %d at once", count, SAG_SOCKET_WAIT_MAX);
    struct pollfd list[SAG_SOCKET_WAIT_MAX];
    bool held[SAG_SOCKET_WAIT_MAX], any = false; /* frames that were received already, of which poll knows nothing */
    for (int i = 0; i < count; i++) {
        const sag_socket *s = sockets[i];
        size_t whole = next_frame(s);
        held[i] = whole > 0 && s->in.size - s->in.from - s->taken >= whole;
        any = any || held[i];
        list[i] = (struct pollfd){.fd = s->fd, .events = POLLIN};
        if (sag_socket_unsent(s) > 0) list[i].events |= POLLOUT;
    }
    double ms = seconds * 1e3;
    int timeout = any ? 0 : seconds < 0 ? -1 : ms >= (double)INT_MAX ? INT_MAX : (int)(ms + 0.999);
    int n = poll(list, (nfds_t)count, timeout);
    if (n < 0 && errno != EINTR) SAG_FAIL(SAG_ERR_IO, "cannot wait for sockets: %s", strerror(errno));
    for (int i = 0; i < count; i++) {
        int events = n > 0 ? list[i].revents : 0;
        if (events & POLLOUT) (void)flush(sockets[i]); /* a failure shows at the next receive */
        *ready += held[i] || (events & ~POLLOUT);
    }
    return SAG_OK;
}

void sag_socket_close(sag_socket *s)
{
    if (!s) return;
    if (s->listening) {
        struct stat st;
        if (lstat(s->path, &st) == 0 && st.st_dev == s->device && st.st_ino == s->inode) unlink(s->path);
    }
    close(s->fd);
    sag_host_free(s->path);
    sag_host_free(s->in.bytes);
    sag_host_free(s->out.bytes);
    sag_host_free(s);
}
