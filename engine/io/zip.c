/*
 * zip.c - PKWARE's APPNOTE 6.3: the end record (4.3.16), its zip64 form (4.3.14, 4.3.15), the central directory
 * (4.3.12, extra field 1 for 64-bit sizes: 4.5.3) and the local headers in front of the data (4.3.7).
 */
#include "engine/io/zip.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "engine/io/zlib_memory.h"

enum { LOCAL = 30, CENTRAL = 46, END = 22, LOCATOR = 20, END64 = 56 }; /* bytes of the records, without names */

/* The best that deflate can do is 258 bytes from two bits: what claims more has a lying header. */
#define MAX_RATIO ((uint64_t)1032)

struct sag_zip {
    char *path;
    const uint8_t *bytes;
    size_t size;
    sag_zip_entry *entry;
    int64_t count;
};

static uint64_t number(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

static bool signature(const uint8_t *p, char a, char b)
{
    return p[0] == 'P' && p[1] == 'K' && p[2] == a && p[3] == b;
}

bool sag_zip_is(const uint8_t *bytes, size_t size)
{
    return size >= END && (signature(bytes, 3, 4) || signature(bytes, 5, 6));
}

/* ------------------------------------------------------------------------------------------- directory */

/* Where the directory begins, its bytes and its entries. */
typedef struct directory {
    uint64_t at, bytes, count;
} directory;

/* From the end record, which may have a comment of up to 64 KiB behind it. */
static sag_status find_directory(const sag_zip *z, directory *d)
{
    size_t least = z->size > END + 65535 ? z->size - END - 65535 : 0;
    size_t at = z->size - END;
    while (!signature(z->bytes + at, 5, 6) || at + END + number(z->bytes + at + 20, 2) != z->size) {
        if (at == least) SAG_FAIL(SAG_ERR_FORMAT, "%s: is cut short: the zip archive has no end record", z->path);
        at--;
    }
    const uint8_t *end = z->bytes + at;
    if (number(end + 4, 2) != 0 || number(end + 6, 2) != 0)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: is a part of a zip archive in several parts", z->path);
    *d = (directory){.at = number(end + 16, 4), .bytes = number(end + 12, 4), .count = number(end + 10, 2)};
    if (d->count != 0xffff && d->bytes != 0xffffffff && d->at != 0xffffffff) return SAG_OK;
    if (at < LOCATOR || !signature(end - LOCATOR, 6, 7)) return SAG_OK; /* the numbers may be what they say */
    uint64_t at64 = number(end - LOCATOR + 8, 8);
    if (at < END64 || at64 > at - END64 || !signature(z->bytes + at64, 6, 6))
        SAG_FAIL(SAG_ERR_FORMAT, "%s: the zip64 end record is not where it should be", z->path);
    const uint8_t *end64 = z->bytes + at64;
    *d = (directory){.at = number(end64 + 48, 8), .bytes = number(end64 + 40, 8), .count = number(end64 + 32, 8)};
    return SAG_OK;
}

/* 64-bit sizes and offset, for those of the three that do not fit into 32 bits. */
static bool read_zip64(const uint8_t *extra, size_t length, uint64_t *value[3])
{
    while (length >= 4) {
        uint64_t id = number(extra, 2), bytes = number(extra + 2, 2);
        if (bytes > length - 4) return false;
        const uint8_t *p = extra + 4;
        if (id == 1) {
            for (int i = 0; i < 3; i++) {
                if (*value[i] != 0xffffffff) continue;
                if (bytes < 8) return false;
                *value[i] = number(p, 8);
                p += 8;
                bytes -= 8;
            }
            return true;
        }
        extra += 4 + bytes;
        length -= 4 + bytes;
    }
    return true;
}

#define ENTRY_FAIL(z, e, ...) return entry_fail((z), (e), sag_fail(SAG_ERR_FORMAT, __VA_ARGS__))

static sag_status entry_fail(const sag_zip *z, const sag_zip_entry *e, sag_status status)
{
    return sag_fail(status, "%s: zip entry %.*s %s", z->path, (int)(e->name_length < 200 ? e->name_length : 200),
                    e->name, sag_error_message());
}

/* One record of the directory; `left` bytes of it remain. Gives the record's length. */
static sag_status read_entry(const sag_zip *z, const uint8_t *p, uint64_t left, sag_zip_entry *e, uint64_t *length)
{
    if (left < CENTRAL || !signature(p, 1, 2))
        SAG_FAIL(SAG_ERR_FORMAT, "%s: the zip archive's directory is damaged", z->path);
    uint64_t flags = number(p + 8, 2), method = number(p + 10, 2);
    uint64_t packed = number(p + 20, 4), size = number(p + 24, 4), at = number(p + 42, 4);
    uint64_t name = number(p + 28, 2), extra = number(p + 30, 2);
    *length = CENTRAL + name + extra + number(p + 32, 2);
    if (*length > left) SAG_FAIL(SAG_ERR_FORMAT, "%s: the zip archive's directory is damaged", z->path);
    *e = (sag_zip_entry){.name = (const char *)p + CENTRAL, .name_length = (size_t)name, .deflated = method == 8};
    if (!read_zip64(p + CENTRAL + name, (size_t)extra, (uint64_t *[]){&size, &packed, &at}))
        ENTRY_FAIL(z, e, "has damaged sizes");
    if (flags & 1) ENTRY_FAIL(z, e, "is encrypted");
    if (method != 0 && method != 8)
        ENTRY_FAIL(z, e, "is packed by method %d; stored and deflated are known", (int)method);
    if (z->size < LOCAL || at > z->size - LOCAL || !signature(z->bytes + at, 3, 4))
        ENTRY_FAIL(z, e, "does not begin where the directory says");
    uint64_t data = at + LOCAL + number(z->bytes + at + 26, 2) + number(z->bytes + at + 28, 2);
    if (data > z->size || packed > z->size - data) ENTRY_FAIL(z, e, "ends behind the end of the file");
    if (method == 0 && packed != size) ENTRY_FAIL(z, e, "is stored but has two sizes");
    if (size / MAX_RATIO > packed) ENTRY_FAIL(z, e, "claims a size that its packed bytes cannot hold");
    e->packed = z->bytes + data;
    e->packed_size = (size_t)packed;
    e->size = (size_t)size;
    return SAG_OK;
}

static int compare_names(const void *a, const void *b)
{
    const sag_zip_entry *x = a, *y = b;
    size_t n = x->name_length < y->name_length ? x->name_length : y->name_length;
    int order = memcmp(x->name, y->name, n);
    if (order != 0) return order;
    return x->name_length < y->name_length ? -1 : x->name_length > y->name_length;
}

static sag_status read_directory(sag_zip *z)
{
    directory d = {0};
    SAG_TRY(find_directory(z, &d));
    if (d.at > z->size || d.bytes > z->size - d.at || d.count > d.bytes / CENTRAL)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: the zip archive's directory does not lie inside the file", z->path);
    z->entry = sag_host_alloc((size_t)d.count * sizeof *z->entry + 1);
    if (!z->entry) SAG_FAIL(SAG_ERR_MEMORY, "%s: no memory for its directory", z->path);
    uint64_t done = 0, length = 0;
    for (; z->count < (int64_t)d.count; z->count++, done += length)
        SAG_TRY(read_entry(z, z->bytes + d.at + done, d.bytes - done, &z->entry[z->count], &length));
    if (z->count > 1) qsort(z->entry, (size_t)z->count, sizeof *z->entry, compare_names);
    for (int64_t i = 1; i < z->count; i++)
        if (compare_names(&z->entry[i - 1], &z->entry[i]) == 0) ENTRY_FAIL(z, &z->entry[i], "comes twice");
    return SAG_OK;
}

sag_status sag_zip_open(const uint8_t *bytes, size_t size, const char *path, sag_zip **out)
{
    *out = NULL;
    if (!sag_zip_is(bytes, size)) SAG_FAIL(SAG_ERR_FORMAT, "%s: is not a zip archive", path);
    sag_zip *z = sag_host_alloc(sizeof *z);
    if (!z) SAG_FAIL(SAG_ERR_MEMORY, "%s: no memory to read it", path);
    *z = (sag_zip){.bytes = bytes, .size = size, .path = sag_host_alloc(strlen(path) + 1)};
    sag_status status = z->path ? SAG_OK : sag_fail(SAG_ERR_MEMORY, "%s: no memory to read it", path);
    if (status == SAG_OK) {
        memcpy(z->path, path, strlen(path) + 1);
        status = read_directory(z);
    }
    if (status == SAG_OK)
        *out = z;
    else
        sag_zip_close(z);
    return status;
}

void sag_zip_close(sag_zip *z)
{
    if (!z) return;
    sag_host_free(z->path);
    sag_host_free(z->entry);
    sag_host_free(z);
}

int64_t sag_zip_count(const sag_zip *z)
{
    return z->count;
}

const sag_zip_entry *sag_zip_at(const sag_zip *z, int64_t i)
{
    return i >= 0 && i < z->count ? &z->entry[i] : NULL;
}

const sag_zip_entry *sag_zip_find(const sag_zip *z, const char *name)
{
    sag_zip_entry key = {.name = name, .name_length = strlen(name)};
    return z->count ? bsearch(&key, z->entry, (size_t)z->count, sizeof key, compare_names) : NULL;
}

/* -------------------------------------------------------------------------------------------- contents */

/* zlib counts in unsigned ints, so both sides are handed over in pieces. */
static int inflate_all(z_stream *s, const sag_zip_entry *e, uint8_t *dst)
{
    const size_t piece = (size_t)1 << 30;
    size_t given = 0, asked = 0;
    int result = Z_OK;
    while (result == Z_OK) {
        if (s->avail_in == 0 && given < e->packed_size) {
            size_t n = e->packed_size - given < piece ? e->packed_size - given : piece;
            s->next_in = (Bytef *)(uintptr_t)(e->packed + given); /* zlib's interface knows no const */
            s->avail_in = (unsigned)n;
            given += n;
        }
        if (s->avail_out == 0 && asked < e->size) {
            size_t n = e->size - asked < piece ? e->size - asked : piece;
            s->next_out = dst + asked;
            s->avail_out = (unsigned)n;
            asked += n;
        }
        result = inflate(s, Z_NO_FLUSH);
    }
    return result == Z_STREAM_END && asked == e->size && s->avail_out == 0 ? Z_OK : result;
}

sag_status sag_zip_read(const sag_zip *z, const sag_zip_entry *e, uint8_t *dst)
{
    if (!e->deflated) {
        if (e->size > 0) memcpy(dst, e->packed, e->size);
        return SAG_OK;
    }
    uint8_t none; /* where an empty entry's output would go: zlib wants an address */
    z_stream s = {.zalloc = sag_zlib_alloc, .zfree = sag_zlib_free, .next_out = &none};
    int result = inflateInit2(&s, -15); /* no header: raw deflate */
    if (result == Z_OK) {
        result = inflate_all(&s, e, dst);
        inflateEnd(&s);
    }
    if (result == Z_MEM_ERROR) SAG_FAIL(SAG_ERR_MEMORY, "%s: no memory to inflate it", z->path);
    if (result != Z_OK) ENTRY_FAIL(z, e, "is damaged: it does not inflate to its %zu bytes", e->size);
    return SAG_OK;
}
