/*
 * events.c - TensorBoard event files, encoded by hand.
 *
 * Frame: u64 length, u32 masked crc32c(length bytes), payload, u32 masked crc32c(payload), all little-endian;
 * mask(c) = rotate_right(c, 15) + 0xa282ead8 (tensorflow/core/lib/hash/crc32c.h).
 * Event: 1 wall_time double, 2 step int64, 3 file_version string, 5 summary. Summary: repeated 1 value.
 * Value: 1 tag, 2 simple_value float, 4 image. Image: 1 height, 2 width, 3 colorspace (1 grey, 3 RGB), 4
 * encoded_image_string.
 */
#include "engine/io/events.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/io/file.h"

#define BUFFER ((size_t)1 << 15)
#define MAX_TAG 1024
#define MAX_PNG ((size_t)1 << 28)
#define FRAME_BYTES 16 /* around a payload */

struct sag_events {
    int fd;
    char *path;
    int64_t size; /* of the file: where a half-written flush is cut off again */
    size_t held;
    uint8_t buffer[BUFFER];
};

/* -------------------------------------------------------------------------------------------- checksum */

/* CRC-32C (Castagnoli), reflected polynomial 0x82f63b78, four bits at a time: no table to initialise by
 * whichever thread comes first, and fast enough for a few records a second. */
static uint32_t crc32c_more(uint32_t crc, const uint8_t *p, size_t n)
{
    static const uint32_t nibble[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
        0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ nibble[crc & 15];
        crc = crc >> 4 ^ nibble[crc & 15];
    }
    return crc;
}

static uint32_t masked(uint32_t state)
{
    uint32_t crc = ~state;
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static uint32_t masked_crc(const uint8_t *p, size_t n)
{
    return masked(crc32c_more(0xffffffffu, p, n));
}

/* -------------------------------------------------------------------------------------------- encoding */

static uint8_t *put_fixed(uint8_t *p, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) *p++ = (uint8_t)(v >> (8 * i));
    return p;
}

static uint64_t get_fixed(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

static uint8_t *put_varint(uint8_t *p, uint64_t v)
{
    for (; v >= 0x80; v >>= 7) *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

static size_t varint_size(uint64_t v)
{
    size_t n = 1;
    for (; v >= 0x80; v >>= 7) n++;
    return n;
}

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

static uint8_t *put_key(uint8_t *p, int field, int wire)
{
    *p++ = (uint8_t)(field << 3 | wire);
    return p;
}

/* Key and length of a nested message or string of n bytes; all our field numbers fit one byte. */
static uint8_t *put_length(uint8_t *p, int field, size_t n)
{
    return put_varint(put_key(p, field, WIRE_BYTES), n);
}

static size_t length_size(size_t n)
{
    return 1 + varint_size(n);
}

static uint8_t *put_float(uint8_t *p, int field, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return put_fixed(put_key(p, field, WIRE_32), bits, 4);
}

static uint8_t *put_wall(uint8_t *p, double wall)
{
    uint64_t bits;
    memcpy(&bits, &wall, sizeof bits);
    return put_fixed(put_key(p, 1, WIRE_64), bits, 8);
}

/* ---------------------------------------------------------------------------------------------- output */

static sag_status write_all(sag_events *w, const uint8_t *p, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t r = write(w->fd, p + done, n - done);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) {
            int error = errno;
            /* A torn record would hide all that follows it from readers. */
            if (done > 0 && (ftruncate(w->fd, (off_t)w->size) != 0 || lseek(w->fd, (off_t)w->size, SEEK_SET) < 0))
                SAG_FAIL(SAG_ERR_IO, "%s: cannot write: %s; its last record is torn", w->path, strerror(error));
            SAG_FAIL(SAG_ERR_IO, "%s: cannot write: %s", w->path, strerror(error));
        }
        done += (size_t)r;
    }
    w->size += (int64_t)n;
    return SAG_OK;
}

sag_status sag_events_flush(sag_events *w)
{
    size_t n = w->held;
    w->held = 0; /* what cannot be written now is lost, or a full disk would fill the memory as well */
    return n > 0 ? write_all(w, w->buffer, n) : SAG_OK;
}

/* One frame around a payload that is given in two parts, so that an image is not copied once more. */
static sag_status put_record(sag_events *w, const uint8_t *head, size_t head_size, const uint8_t *tail,
                             size_t tail_size)
{
    size_t payload = head_size + tail_size;
    uint8_t front[12], back[4];
    put_fixed(front, payload, 8);
    put_fixed(front + 8, masked_crc(front, 8), 4);
    uint32_t crc = crc32c_more(0xffffffffu, head, head_size);
    if (tail_size > 0) crc = crc32c_more(crc, tail, tail_size);
    put_fixed(back, masked(crc), 4);

    const uint8_t *part[4] = {front, head, tail, back};
    size_t size[4] = {sizeof front, head_size, tail_size, sizeof back};
    uint8_t *whole = NULL, *to = w->buffer + w->held;
    if (payload + FRAME_BYTES > BUFFER - w->held) {
        SAG_TRY(sag_events_flush(w));
        to = w->buffer;
        if (payload + FRAME_BYTES > BUFFER) {
            to = whole = sag_host_alloc(payload + FRAME_BYTES);
            if (!whole) SAG_FAIL(SAG_ERR_MEMORY, "%s: no memory for a record of %zu bytes", w->path, payload);
        }
    }
    for (int i = 0; i < 4; i++) {
        if (size[i] > 0) memcpy(to, part[i], size[i]);
        to += size[i];
    }
    if (!whole) {
        w->held += payload + FRAME_BYTES;
        return SAG_OK;
    }
    sag_status status = write_all(w, whole, payload + FRAME_BYTES);
    sag_host_free(whole);
    return status;
}

static sag_status put_version(sag_events *w)
{
    static const char version[] = "brain.Event:2";
    uint8_t head[64], *p = put_wall(head, (double)time(NULL));
    p = put_length(p, 3, sizeof version - 1);
    memcpy(p, version, sizeof version - 1);
    p += sizeof version - 1;
    SAG_TRY(put_record(w, head, (size_t)(p - head), NULL, 0));
    return sag_events_flush(w);
}

static sag_status check_tag(const sag_events *w, const char *tag)
{
    size_t n = strlen(tag);
    if (n == 0 || n > MAX_TAG) SAG_FAIL(SAG_ERR_ARG, "%s: a tag has 1 to %d bytes, not %zu", w->path, MAX_TAG, n);
    return SAG_OK;
}

sag_status sag_events_scalar(sag_events *w, const char *tag, float value, int64_t step, double wall)
{
    SAG_TRY(check_tag(w, tag));
    size_t n = strlen(tag);
    size_t inner = length_size(n) + n + 5, summary = length_size(inner) + inner;
    uint8_t head[MAX_TAG + 128], *p = put_wall(head, wall);
    p = put_varint(put_key(p, 2, WIRE_VARINT), (uint64_t)step);
    p = put_length(p, 5, summary);
    p = put_length(p, 1, inner);
    p = put_length(p, 1, n);
    memcpy(p, tag, n);
    p = put_float(p + n, 2, value);
    return put_record(w, head, (size_t)(p - head), NULL, 0);
}

sag_status sag_events_image(sag_events *w, const char *tag, const void *png, size_t png_bytes, int height, int width,
                            int channels, int64_t step, double wall)
{
    SAG_TRY(check_tag(w, tag));
    if (height < 1 || width < 1 || (channels != 1 && channels != 3) || png_bytes < 1 || png_bytes > MAX_PNG)
        SAG_FAIL(SAG_ERR_ARG, "%s: image %s: %d x %d x %d in %zu bytes makes no sense", w->path, tag, height, width,
                 channels, png_bytes);
    size_t n = strlen(tag);
    size_t image =
        3 + varint_size((uint64_t)height) + varint_size((uint64_t)width) + 1 + length_size(png_bytes) + png_bytes;
    size_t inner = length_size(n) + n + length_size(image) + image, summary = length_size(inner) + inner;
    uint8_t head[MAX_TAG + 128], *p = put_wall(head, wall);
    p = put_varint(put_key(p, 2, WIRE_VARINT), (uint64_t)step);
    p = put_length(p, 5, summary);
    p = put_length(p, 1, inner);
    p = put_length(p, 1, n);
    memcpy(p, tag, n);
    p = put_length(p + n, 4, image);
    p = put_varint(put_key(p, 1, WIRE_VARINT), (uint64_t)height);
    p = put_varint(put_key(p, 2, WIRE_VARINT), (uint64_t)width);
    p = put_varint(put_key(p, 3, WIRE_VARINT), (uint64_t)channels);
    p = put_length(p, 4, png_bytes);
    return put_record(w, head, (size_t)(p - head), png, png_bytes);
}

/* ----------------------------------------------------------------------------------------- open and close */

/* The length of the whole, undamaged records at the front of the file; *records counts them. */
static sag_status whole_records(const char *path, int64_t *length, int64_t *records)
{
    sag_file_map map;
    SAG_TRY(sag_file_map_open(path, &map));
    size_t at = 0;
    *records = 0;
    while (map.size - at >= FRAME_BYTES) {
        const uint8_t *p = map.bytes + at;
        uint64_t n = get_fixed(p, 8);
        if (get_fixed(p + 8, 4) != masked_crc(p, 8) || n > map.size - at - FRAME_BYTES) break;
        if (get_fixed(p + 12 + n, 4) != masked_crc(p + 12, (size_t)n)) break;
        at += (size_t)n + FRAME_BYTES;
        ++*records;
    }
    /* A torn first record has a good length; something else altogether has not. */
    bool foreign = at == 0 && map.size >= 12 && get_fixed(map.bytes + 8, 4) != masked_crc(map.bytes, 8);
    *length = (int64_t)at;
    sag_file_map_close(&map);
    if (foreign) SAG_FAIL(SAG_ERR_FORMAT, "%s: is not a TensorBoard event file; nothing was written to it", path);
    return SAG_OK;
}

static void destroy(sag_events *w)
{
    if (w->fd >= 0) close(w->fd);
    sag_host_free(w->path);
    sag_host_free(w);
}

/* Names carry the time in ten digits, so the newest sorts last. */
static sag_status choose_file(const char *folder, bool append, char *out, size_t room)
{
    char name[600] = "";
    if (append) {
        sag_file_names names;
        SAG_TRY(sag_file_list(folder, &names));
        for (int64_t i = 0; i < names.count; i++)
            if (strstr(names.name[i], "tfevents")) snprintf(name, sizeof name, "%s", names.name[i]);
        sag_file_names_free(&names);
    }
    if (!name[0]) {
        char host[256] = "";
        if (gethostname(host, sizeof host - 1) != 0 || !host[0]) snprintf(host, sizeof host, "localhost");
        snprintf(name, sizeof name, "events.out.tfevents.%010lld.%s", (long long)time(NULL), host);
    }
    int n = snprintf(out, room, "%s/%s", folder, name);
    if (n < 0 || (size_t)n >= room) SAG_FAIL(SAG_ERR_IO, "%.60s...: the path is too long", folder);
    return SAG_OK;
}

sag_status sag_events_open(const char *path, bool append, sag_events **out)
{
    *out = NULL;
    char inside[PATH_MAX];
    sag_file_info info;
    SAG_TRY(sag_file_stat(path, &info));
    if (info.type == SAG_FILE_FOLDER) {
        SAG_TRY(choose_file(path, append, inside, sizeof inside));
        path = inside;
    }
    int64_t length = 0, records = 0;
    if (append && sag_file_exists(path)) SAG_TRY(whole_records(path, &length, &records));
    sag_events *w = sag_host_alloc(sizeof *w);
    char *copy = sag_host_alloc(strlen(path) + 1);
    if (!w || !copy) {
        sag_host_free(w);
        sag_host_free(copy);
        SAG_FAIL(SAG_ERR_MEMORY, "%s: no memory to open it", path);
    }
    w->path = memcpy(copy, path, strlen(path) + 1);
    w->size = length;
    do {
        w->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    } while (w->fd < 0 && errno == EINTR);
    sag_status status = SAG_OK;
    if (w->fd < 0 || ftruncate(w->fd, (off_t)length) != 0 || lseek(w->fd, (off_t)length, SEEK_SET) < 0)
        status = sag_fail(SAG_ERR_IO, "%s: cannot open for writing: %s", path, strerror(errno));
    if (status == SAG_OK && records == 0) status = put_version(w);
    if (status != SAG_OK) {
        destroy(w);
        return status;
    }
    *out = w;
    return SAG_OK;
}

sag_status sag_events_close(sag_events *w)
{
    if (!w) return SAG_OK;
    sag_status status = sag_events_flush(w);
    int fd = w->fd;
    w->fd = -1;
    if (close(fd) != 0 && status == SAG_OK && errno != EINTR)
        status = sag_fail(SAG_ERR_IO, "%s: cannot close: %s", w->path, strerror(errno));
    destroy(w);
    return status;
}
