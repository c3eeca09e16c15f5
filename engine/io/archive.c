/*
 * archive.c - walks the members of a tar archive; gunzip of a whole file.
 *
 * POSIX.1-1988 ustar headers, the GNU extensions L/K (long names) and base-256 numbers, and pax headers (x,
 * g), of which only path and size concern us. A header block is 512 bytes, data is padded to 512, two zero
 * blocks end the archive.
 */
#include "engine/io/archive.h"

#include <stdlib.h>
#include <string.h>

#include "engine/io/stream.h"

#define BLOCK 512
#define PIECE ((size_t)1 << 20)
#define MAX_EXTENSION ((int64_t)1 << 20) /* bytes of a long name or a pax header */
#define DEFAULT_MAX_MEMBER ((int64_t)1 << 30)
#define DEFAULT_MAX_GUNZIP ((int64_t)1 << 32)

typedef struct buffer {
    uint8_t *bytes;
    size_t size, capacity;
} buffer;

typedef struct walk {
    sag_stream *stream;
    const char *path;
    uint8_t block[BLOCK];
    buffer data;
    buffer long_name;  /* for the next member; size 0: none */
    int64_t long_size; /* from pax; -1: none */
    bool sparse;       /* pax said so */
} walk;

#define FORMAT_FAIL(w, at, ...) return format_fail((w), (at), sag_fail(SAG_ERR_FORMAT, __VA_ARGS__))

static sag_status format_fail(const walk *w, int64_t at, sag_status status)
{
    char reason[512];
    strncpy(reason, sag_error_message(), sizeof reason - 1);
    reason[sizeof reason - 1] = 0;
    return sag_fail(status, "%s: byte %lld%s: %s", w->path, (long long)at,
                    sag_stream_compressed(w->stream) ? " of the uncompressed data" : "", reason);
}

static sag_status reserve(buffer *b, size_t capacity, const char *path)
{
    if (capacity <= b->capacity) return SAG_OK;
    uint8_t *grown = sag_host_realloc(b->bytes, capacity);
    if (!grown) SAG_FAIL(SAG_ERR_MEMORY, "%s: no memory for %zu bytes of it", path, capacity);
    b->bytes = grown;
    b->capacity = capacity;
    return SAG_OK;
}

/*
 * Exactly `size` bytes, then a zero byte. The buffer grows with what really arrives, so that a lying header
 * of a short file costs no memory.
 */
static sag_status read_bytes(walk *w, buffer *b, int64_t size)
{
    b->size = 0;
    int64_t start = sag_stream_offset(w->stream);
    while ((int64_t)b->size < size) {
        size_t left = (size_t)size - b->size, piece = left < PIECE ? left : PIECE;
        size_t need = b->size + piece + 1;
        if (need > b->capacity) {
            size_t wider = b->capacity + b->capacity / 2;
            SAG_TRY(reserve(b, wider > need ? wider : need, w->path));
        }
        size_t got;
        SAG_TRY(sag_stream_read(w->stream, b->bytes + b->size, piece, &got));
        b->size += got;
        if (got < piece)
            FORMAT_FAIL(w, sag_stream_offset(w->stream), "is cut short: the member at byte %lld has %lld bytes",
                        (long long)start, (long long)size);
    }
    SAG_TRY(reserve(b, b->size + 1, w->path));
    b->bytes[b->size] = 0;
    return SAG_OK;
}

static sag_status skip_bytes(walk *w, int64_t size)
{
    uint8_t sink[16 * BLOCK];
    while (size > 0) {
        size_t n = size < (int64_t)sizeof sink ? (size_t)size : sizeof sink, got;
        SAG_TRY(sag_stream_read(w->stream, sink, n, &got));
        if (got < n)
            FORMAT_FAIL(w, sag_stream_offset(w->stream), "is cut short: %lld bytes are missing", (long long)size);
        size -= (int64_t)n;
    }
    return SAG_OK;
}

static int64_t padding(int64_t size)
{
    return (BLOCK - size % BLOCK) % BLOCK;
}

/* Octal digits between spaces and zero bytes, or base 256 if the top bit is set. -1: neither, or too large. */
static int64_t number(const uint8_t *p, int n)
{
    uint64_t v = 0;
    int i = 0;
    if (p[0] & 0x80) {
        if (p[0] != 0x80) return -1; /* negative, or more than 88 bits */
        for (i = 1; i < n; i++) {
            if (v >> 55) return -1;
            v = v << 8 | p[i];
        }
        return (int64_t)v;
    }
    while (i < n && p[i] == ' ') i++;
    for (; i < n && p[i] >= '0' && p[i] <= '7'; i++) v = v << 3 | (uint64_t)(p[i] - '0'); /* 12 digits: 36 bits */
    for (; i < n; i++)
        if (p[i] != ' ' && p[i] != 0) return -1;
    return (int64_t)v;
}

static bool is_zero(const uint8_t *block)
{
    for (int i = 0; i < BLOCK; i++)
        if (block[i]) return false;
    return true;
}

/* The sum of all bytes with the checksum field read as spaces; old archives summed signed chars. */
static bool checksum_fits(const uint8_t *block)
{
    int64_t stored = number(block + 148, 8), unsigned_sum = 0, signed_sum = 0;
    for (int i = 0; i < BLOCK; i++) {
        uint8_t c = i >= 148 && i < 156 ? ' ' : block[i];
        unsigned_sum += c;
        signed_sum += (int8_t)c;
    }
    return stored == unsigned_sum || stored == signed_sum;
}

/* Records "LENGTH KEY=VALUE\n", LENGTH counting all of the record. */
static sag_status parse_pax(walk *w, int64_t at)
{
    char *p = (char *)w->data.bytes, *end = p + w->data.size;
    while (p < end) {
        char *after;
        if (*p < '0' || *p > '9') FORMAT_FAIL(w, at, "pax header: a record does not begin with its length");
        long long length = strtoll(p, &after, 10);
        if (*after != ' ' || length <= after + 1 - p || length > end - p || p[length - 1] != '\n')
            FORMAT_FAIL(w, at, "pax header: a record has a wrong length");
        char *key = after + 1, *stop = p + length - 1;
        char *equals = memchr(key, '=', (size_t)(stop - key));
        if (!equals) FORMAT_FAIL(w, at, "pax header: a record without '='");
        *equals = *stop = 0;
        const char *value = equals + 1;
        if (strcmp(key, "path") == 0) {
            size_t n = (size_t)(stop - value);
            SAG_TRY(reserve(&w->long_name, n + 1, w->path));
            memcpy(w->long_name.bytes, value, n + 1);
            w->long_name.size = n;
        } else if (strcmp(key, "size") == 0) {
            char *rest;
            long long v = strtoll(value, &rest, 10);
            if (*rest || value == rest || v < 0) FORMAT_FAIL(w, at, "pax header: size '%.40s' is no size", value);
            w->long_size = v;
        } else if (strncmp(key, "GNU.sparse.", 11) == 0) {
            w->sparse = true;
        }
        p += length;
    }
    return SAG_OK;
}

static sag_status store_name(walk *w, char *out, size_t room)
{
    const uint8_t *b = w->block;
    size_t n = 0;
    if (w->long_name.size > 0) {
        n = strlen((const char *)w->long_name.bytes);
        if (n >= room) SAG_FAIL(SAG_ERR_FORMAT, "%s: a member's name has more than %zu bytes", w->path, room - 1);
        memcpy(out, w->long_name.bytes, n + 1);
    } else {
        if (memcmp(b + 257, "ustar\0", 6) == 0 && b[345]) { /* GNU's "ustar  " keeps other things there */
            n = strnlen((const char *)b + 345, 155);
            memcpy(out, b + 345, n);
            out[n++] = '/';
        }
        size_t m = strnlen((const char *)b, 100);
        memcpy(out + n, b, m);
        out[n + m] = 0;
    }
    while (out[0] == '.' && out[1] == '/') memmove(out, out + 2, strlen(out + 2) + 1);
    return SAG_OK;
}

static void forget_extensions(walk *w)
{
    w->long_name.size = 0;
    w->long_size = -1;
    w->sparse = false;
}

static sag_status one_extension(walk *w, char type, int64_t size, int64_t at)
{
    if (size > MAX_EXTENSION)
        FORMAT_FAIL(w, at, "a header extension of %lld bytes (at most %lld)", (long long)size,
                    (long long)MAX_EXTENSION);
    if (type == 'K' || type == 'g') return skip_bytes(w, size + padding(size));
    if (type == 'L') {
        SAG_TRY(read_bytes(w, &w->long_name, size));
    } else {
        SAG_TRY(read_bytes(w, &w->data, size));
        SAG_TRY(parse_pax(w, at));
    }
    return skip_bytes(w, padding(size));
}

static sag_status one_file(walk *w, const sag_archive_visitor *v, const char *name, int64_t size, bool *stop)
{
    if (v->wants && !v->wants(v->user, name, size)) return skip_bytes(w, size + padding(size));
    int64_t most = v->max_member > 0 ? v->max_member : DEFAULT_MAX_MEMBER;
    int64_t at = sag_stream_offset(w->stream);
    if (size > most)
        FORMAT_FAIL(w, at, "member %.200s has %lld bytes, the limit here is %lld", name, (long long)size,
                    (long long)most);
    if (w->sparse) FORMAT_FAIL(w, at, "member %.200s is a GNU sparse file; pack it without --sparse", name);
    SAG_TRY(read_bytes(w, &w->data, size));
    sag_archive_member member = {.name = name, .bytes = w->data.bytes, .size = w->data.size, .offset = at};
    SAG_TRY(v->visit(v->user, &member, stop));
    return *stop ? SAG_OK : skip_bytes(w, padding(size));
}

/* What follows the end blocks is padding; reading it lets gzip check its checksum. */
static sag_status drain(walk *w)
{
    size_t got;
    do {
        SAG_TRY(sag_stream_read(w->stream, w->block, BLOCK, &got));
    } while (got > 0);
    return SAG_OK;
}

static sag_status walk_members(walk *w, const sag_archive_visitor *v)
{
    char name[4096];
    for (int64_t members = 0;; members++) {
        int64_t at = sag_stream_offset(w->stream);
        size_t got;
        SAG_TRY(sag_stream_read(w->stream, w->block, BLOCK, &got));
        if (got < BLOCK)
            FORMAT_FAIL(w, at + (int64_t)got,
                        members == 0 ? "is not a tar archive" : "is cut short: the end mark is missing");
        if (is_zero(w->block)) return drain(w);
        if (!checksum_fits(w->block))
            FORMAT_FAIL(w, at, members == 0 ? "is not a tar archive" : "a member's header is damaged (wrong checksum)");
        char type = (char)w->block[156];
        int64_t size = number(w->block + 124, 12);
        if (size < 0 || size > INT64_MAX - at - 2 * BLOCK) FORMAT_FAIL(w, at, "a member's size makes no sense");
        if (type == 'L' || type == 'K' || type == 'x' || type == 'g') {
            SAG_TRY(one_extension(w, type, size, at));
            continue;
        }
        if (w->long_size >= 0) size = w->long_size;
        if (size > INT64_MAX - at - 2 * BLOCK) FORMAT_FAIL(w, at, "a member's size makes no sense");
        SAG_TRY(store_name(w, name, sizeof name));
        size_t length = strlen(name);
        bool folder = type == '5' || (type == 0 && length > 0 && name[length - 1] == '/');
        bool stop = false;
        if (type == 'S') FORMAT_FAIL(w, at, "member %.200s is a GNU sparse file; pack it without --sparse", name);
        if (!folder && (type == '0' || type == 0 || type == '7'))
            SAG_TRY(one_file(w, v, name, size, &stop));
        else if (type < '1' || type > '6') /* links, devices, folders carry no data; unknown types do */
            SAG_TRY(skip_bytes(w, size + padding(size)));
        if (stop) return SAG_OK;
        forget_extensions(w);
    }
}

sag_status sag_archive_walk(const char *path, const sag_archive_visitor *visitor)
{
    walk w = {.path = path, .long_size = -1};
    SAG_TRY(sag_stream_open(path, &w.stream));
    sag_status status = walk_members(&w, visitor);
    sag_host_free(w.data.bytes);
    sag_host_free(w.long_name.bytes);
    sag_stream_close(w.stream);
    return status;
}

bool sag_archive_is(const char *path)
{
    sag_stream *s;
    if (sag_stream_open(path, &s) != SAG_OK) return false;
    uint8_t block[BLOCK];
    size_t got;
    bool yes =
        sag_stream_read(s, block, BLOCK, &got) == SAG_OK && got == BLOCK && !is_zero(block) && checksum_fits(block);
    sag_stream_close(s);
    return yes;
}

sag_status sag_gunzip_file(const char *path, int64_t max_bytes, uint8_t **bytes, size_t *size)
{
    *bytes = NULL;
    *size = 0;
    if (max_bytes <= 0) max_bytes = DEFAULT_MAX_GUNZIP;
    sag_stream *s;
    SAG_TRY(sag_stream_open(path, &s));
    buffer b = {0};
    sag_status status = SAG_OK;
    for (size_t got = PIECE; status == SAG_OK && got == PIECE;) {
        size_t need = b.size + PIECE + 1;
        if (need > b.capacity) {
            size_t wider = b.capacity + b.capacity / 2;
            status = reserve(&b, wider > need ? wider : need, path);
            if (status != SAG_OK) break;
        }
        status = sag_stream_read(s, b.bytes + b.size, PIECE, &got);
        b.size += got;
        if (status == SAG_OK && b.size > (uint64_t)max_bytes)
            status =
                sag_fail(SAG_ERR_FORMAT, "%s: has more than %lld bytes, the limit here", path, (long long)max_bytes);
    }
    sag_stream_close(s);
    if (status != SAG_OK) {
        sag_host_free(b.bytes);
        return status;
    }
    b.bytes[b.size] = 0;
    *bytes = b.bytes;
    *size = b.size;
    return SAG_OK;
}
