/*
 * image_codec.c - PNG, JPEG and BMP through stb_image and stb_image_write (public domain, Sean Barrett and
 * others).
 *
 * stb is compiled here and nowhere else, with our allocator and only these three formats. It forgives what we
 * must not: it reads zeros behind the end of the data and ignores the checksums of a PNG. So it reads through
 * callbacks that notice the end, and the chunks of a PNG and the Huffman tables of a JPEG are checked first.
 */
#include "engine/io/image.h"

#include <limits.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#include "engine/io/file.h"

static unsigned char *deflate_for_stb(const unsigned char *bytes, int size, int *out_size, int quality);

/* stb forgets on some of its ways out that memory was what it lacked. */
static _Thread_local bool out_of_memory;

static void *alloc_for_stb(size_t size)
{
    void *p = sag_host_alloc(size);
    out_of_memory = out_of_memory || !p;
    return p;
}

static void *realloc_for_stb(void *old, size_t size)
{
    void *p = sag_host_realloc(old, size);
    out_of_memory = out_of_memory || !p;
    return p;
}

#define STBI_MALLOC(n) alloc_for_stb(n)
#define STBI_REALLOC(p, n) realloc_for_stb((p), (n))
#define STBI_FREE(p) sag_host_free(p)
#define STBI_ASSERT(x) ((void)0)
#define STBI_NO_STDIO
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_BMP
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_MAX_DIMENSIONS SAG_IMAGE_MAX_SIDE
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBIW_MALLOC(n) sag_host_alloc(n)
#define STBIW_REALLOC(p, n) sag_host_realloc((p), (n))
#define STBIW_FREE(p) sag_host_free(p)
#define STBIW_ASSERT(x) ((void)0)
#define STBIW_ZLIB_COMPRESS deflate_for_stb
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
/* Warnings inside system headers are off, but for declarations without a definition, which stb has for what
 * is left out. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_image.h>
#include <stb/stb_image_write.h>

static _Thread_local uint8_t *deflated; /* stb drops it when the allocation after it fails */

/* In place of stb's own compressor, which makes larger files. Above this level a sheet of samples takes five times as long
 * for a tenth less. */
#define PNG_LEVEL 5
static unsigned char *deflate_for_stb(const unsigned char *bytes, int size, int *out_size, int quality)
{
    uLongf n = compressBound((uLong)size);
    unsigned char *out = sag_host_alloc(n);
    if (!out) return NULL;
    if (compress2(out, &n, bytes, (uLong)size, quality > PNG_LEVEL ? PNG_LEVEL : quality) != Z_OK || n > INT_MAX) {
        sag_host_free(out);
        return NULL;
    }
    *out_size = (int)n;
    deflated = out;
    return out;
}

/* ------------------------------------------------------------------------------------------- recognition */

static const uint8_t png_magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

const char *sag_image_kind(const void *bytes, size_t size)
{
    const uint8_t *b = bytes;
    if (size >= 8 && memcmp(b, png_magic, 8) == 0) return "png";
    if (size >= 3 && b[0] == 0xff && b[1] == 0xd8 && b[2] == 0xff) return "jpeg";
    if (size >= 26 && b[0] == 'B' && b[1] == 'M') return "bmp";
    return NULL;
}

bool sag_image_is_name(const char *name)
{
    const char *dot = strrchr(name, '.');
    static const char *const endings[] = {".png", ".jpg", ".jpeg", ".bmp"};
    for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
        if (strcasecmp(dot, endings[i]) == 0) return true;
    return false;
}

/* ---------------------------------------------------------------------------------------------- decoding */

typedef struct source {
    const uint8_t *bytes;
    size_t size, at;
    bool overrun; /* stb wanted more than there is */
} source;

static int source_read(void *user, char *data, int size)
{
    source *s = user;
    size_t left = s->size - s->at, n = (size_t)size < left ? (size_t)size : left;
    if (n == 0 && size > 0) s->overrun = true;
    if (n > 0) memcpy(data, s->bytes + s->at, n);
    s->at += n;
    return (int)n;
}

static void source_skip(void *user, int n)
{
    source *s = user;
    if (n < 0) {
        s->at -= (size_t)-(int64_t)n < s->at ? (size_t)-(int64_t)n : s->at;
    } else if ((size_t)n > s->size - s->at) {
        s->at = s->size;
        s->overrun = true;
    } else {
        s->at += (size_t)n;
    }
}

static int source_eof(void *user)
{
    const source *s = user;
    return s->at >= s->size;
}

static const stbi_io_callbacks source_callbacks = {source_read, source_skip, source_eof};

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static sag_status check_png_chunks(const uint8_t *b, size_t size, const char *name)
{
    size_t at = sizeof png_magic;
    for (;;) {
        if (size - at < 12) SAG_FAIL(SAG_ERR_FORMAT, "%s: PNG ends at byte %zu without its end chunk", name, size);
        uint32_t length = big_endian(b + at);
        if (length > size - at - 12)
            SAG_FAIL(SAG_ERR_FORMAT, "%s: PNG chunk at byte %zu wants %u bytes, %zu are left", name, at, length,
                     size - at - 12);
        if (big_endian(b + at + 8 + length) != crc32(0, b + at + 4, length + 4))
            SAG_FAIL(SAG_ERR_FORMAT, "%s: PNG chunk at byte %zu is damaged (its checksum does not match)", name, at);
        if (memcmp(b + at + 4, "IEND", 4) == 0) return SAG_OK;
        at += (size_t)length + 12;
    }
}

static size_t byte_at(const uint8_t *b, size_t size, size_t at)
{
    return at < size ? b[at] : 0; /* as stb reads it */
}

/* The Huffman tables of one segment, `at` being its length field: sixteen counts that may not sum to more
 * than 256. */
static sag_status check_huffman(const uint8_t *b, size_t size, size_t at, const char *name)
{
    int64_t left = (int64_t)(byte_at(b, size, at) << 8 | byte_at(b, size, at + 1)) - 2;
    size_t p = at + 2;
    while (left > 0) {
        size_t codes = 0;
        for (size_t i = 1; i <= 16; i++) codes += byte_at(b, size, p + i);
        if (codes > 256)
            SAG_FAIL(SAG_ERR_FORMAT, "%s: JPEG segment at byte %zu has a broken Huffman table", name, at - 2);
        p += 17 + codes;
        left -= 17 + (int64_t)codes;
    }
    return SAG_OK;
}

/*
 * stb_image 2.27 writes behind its arrays for a table of more than 256 codes, so tables are checked before it
 * sees them: by the segments up to the first scan, and from there on, where stb may lose its place in damaged
 * data, at every two bytes that could begin a table.
 */
static sag_status check_jpeg_tables(const uint8_t *b, size_t size, const char *name)
{
    size_t at = 2;
    for (;;) {
        while (at < size && b[at] != 0xff) at++;
        while (at < size && b[at] == 0xff) at++;
        if (at >= size) return SAG_OK;
        uint8_t marker = b[at++];
        if (marker == 0xd9) return SAG_OK;
        if (marker == 0xda) break;
        if (marker == 0xc4) SAG_TRY(check_huffman(b, size, at, name));
        size_t length = byte_at(b, size, at) << 8 | byte_at(b, size, at + 1);
        if (length < 2) SAG_FAIL(SAG_ERR_FORMAT, "%s: JPEG segment at byte %zu has no length", name, at - 2);
        if (length > size - at) return SAG_OK; /* stb will run into the end */
        at += length;
    }
    for (; size - at >= 2; at++)
        if (b[at] == 0xff && b[at + 1] == 0xc4) SAG_TRY(check_huffman(b, size, at + 2, name));
    return SAG_OK;
}

static sag_status prepare(const void *bytes, size_t size, const char *name, source *s)
{
    const char *kind = sag_image_kind(bytes, size);
    if (size == 0) SAG_FAIL(SAG_ERR_FORMAT, "%s: is empty", name);
    if (!kind) SAG_FAIL(SAG_ERR_FORMAT, "%s: is neither PNG, JPEG nor BMP", name);
    if (size > INT_MAX) SAG_FAIL(SAG_ERR_FORMAT, "%s: more than 2 GiB for one image", name);
    if (kind[0] == 'p') SAG_TRY(check_png_chunks(bytes, size, name));
    if (kind[0] == 'j') SAG_TRY(check_jpeg_tables(bytes, size, name));
    *s = (source){.bytes = bytes, .size = size};
    out_of_memory = false;
    return SAG_OK;
}

static sag_status refuse(const source *s, const char *name)
{
    const char *reason = stbi_failure_reason();
    if (out_of_memory) SAG_FAIL(SAG_ERR_MEMORY, "%s: no memory to decode it", name);
    if (s->overrun) SAG_FAIL(SAG_ERR_FORMAT, "%s: is cut short: decoding needs more than its %zu bytes", name, s->size);
    SAG_FAIL(SAG_ERR_FORMAT, "%s: cannot decode: %s", name, reason ? reason : "unknown reason");
}

sag_status sag_image_decode(const void *bytes, size_t size, const char *name, int channels, sag_image *out)
{
    *out = (sag_image){0};
    if (channels != 0 && channels != 1 && channels != 3)
        SAG_FAIL(SAG_ERR_ARG, "%s: %d channels asked for; must be 1, 3, or 0 for what the file has", name, channels);
    source s;
    SAG_TRY(prepare(bytes, size, name, &s));
    int width = 0, height = 0, stored = 0;
    uint8_t *raw = stbi_load_from_callbacks(&source_callbacks, &s, &width, &height, &stored, 0);
    if (!raw) return refuse(&s, name);
    sag_status status = SAG_OK;
    sag_image image = {0};
    if (s.overrun) {
        status = refuse(&s, name);
        goto done;
    }
    size_t n = (size_t)width * (size_t)height;
    if (stored == 2 || stored == 4) { /* alpha goes; what is left moves together */
        size_t keep = (size_t)stored - 1;
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < keep; k++) raw[i * keep + k] = raw[i * (size_t)stored + k];
        stored--;
    }
    image = (sag_image){.pixels = raw, .height = height, .width = width, .channels = stored};
    if (channels != 0 && channels != stored) {
        status = sag_image_convert(&image, channels, out);
        goto done;
    }
    *out = image;
    return SAG_OK;
done:
    sag_host_free(raw);
    return status;
}

sag_status sag_image_probe(const void *bytes, size_t size, const char *name, int *height, int *width, int *channels)
{
    source s;
    *height = *width = *channels = 0;
    SAG_TRY(prepare(bytes, size, name, &s));
    int w, h, c;
    if (!stbi_info_from_callbacks(&source_callbacks, &s, &w, &h, &c)) return refuse(&s, name);
    if (s.overrun) return refuse(&s, name);
    if (w < 1 || h < 1 || w > SAG_IMAGE_MAX_SIDE || h > SAG_IMAGE_MAX_SIDE)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: %d x %d pixels: both sides must be 1 to %d", name, h, w, SAG_IMAGE_MAX_SIDE);
    *height = h;
    *width = w;
    *channels = c < 3 ? 1 : 3;
    return SAG_OK;
}

sag_status sag_image_read(const char *path, int channels, sag_image *out)
{
    *out = (sag_image){0};
    uint8_t *bytes;
    size_t size;
    SAG_TRY(sag_file_read(path, INT_MAX, &bytes, &size));
    sag_status status = sag_image_decode(bytes, size, path, channels, out);
    sag_host_free(bytes);
    return status;
}

/* ---------------------------------------------------------------------------------------------- encoding */

sag_status sag_image_encode_png(const sag_image *image, uint8_t **bytes, size_t *size)
{
    *bytes = NULL;
    *size = 0;
    int n = 0;
    deflated = NULL;
    uint8_t *png = stbi_write_png_to_mem(image->pixels, image->width * image->channels, image->width, image->height,
                                         image->channels, &n);
    if (!png) {
        sag_host_free(deflated);
        SAG_FAIL(SAG_ERR_MEMORY, "png: no memory to encode %d x %d x %d", image->height, image->width, image->channels);
    }
    *bytes = png;
    *size = (size_t)n;
    return SAG_OK;
}

sag_status sag_image_write_png(const char *path, const sag_image *image)
{
    uint8_t *bytes;
    size_t size;
    SAG_TRY(sag_image_encode_png(image, &bytes, &size));
    sag_status status = sag_file_write_atomic(path, bytes, size);
    sag_host_free(bytes);
    return status;
}
