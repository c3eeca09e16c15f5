/* gif.c - colours, then LZW (Welch 1984) in the form of the GIF89a specification, appendix F. */
#include "engine/io/gif.h"

#include <stdlib.h>
#include <string.h>

#include "engine/io/file.h"

#define COLORS 256
#define BINS 32768 /* 5 bits a channel */

/* ------------------------------------------------------------------------------------------------ colours */

typedef struct palette {
    uint8_t rgb[COLORS][3];
    int count;
    bool exact;
    uint8_t of_bin[BINS]; /* not exact: the index for each bin */
} palette;

static void color_of(const sag_image *im, size_t i, uint8_t c[3])
{
    const uint8_t *p = im->pixels + i * (size_t)im->channels;
    c[0] = p[0];
    c[1] = im->channels == 3 ? p[1] : p[0];
    c[2] = im->channels == 3 ? p[2] : p[0];
}

static size_t pixels_of(const sag_image *im)
{
    return (size_t)im->height * (size_t)im->width;
}

static int bin_of(const uint8_t c[3])
{
    return (c[0] >> 3) << 10 | (c[1] >> 3) << 5 | c[2] >> 3;
}

static int find(const palette *p, const uint8_t c[3])
{
    int low = 0, high = p->count; /* the first that is not below c */
    while (low < high) {
        int middle = (low + high) / 2;
        if (memcmp(p->rgb[middle], c, 3) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The colours themselves, sorted; false if there are too many. */
static bool collect(const sag_image *frames, int64_t n, palette *p)
{
    uint8_t last[3] = {0};
    for (int64_t f = 0; f < n; f++) {
        for (size_t i = 0; i < pixels_of(&frames[f]); i++) {
            uint8_t c[3];
            color_of(&frames[f], i, c);
            if (p->count > 0 && memcmp(c, last, 3) == 0) continue;
            memcpy(last, c, 3);
            int at = find(p, c);
            if (at < p->count && memcmp(p->rgb[at], c, 3) == 0) continue;
            if (p->count == COLORS) return false;
            memmove(p->rgb[at + 1], p->rgb[at], (size_t)(p->count - at) * 3);
            memcpy(p->rgb[at], c, 3);
            p->count++;
        }
    }
    return true;
}

typedef struct bin {
    int64_t count, sum[3];
    uint16_t key;
} bin;

typedef struct box {
    int first, count; /* of the bins */
    int64_t pixels;
    int axis, width; /* the longest side, in bins */
} box;

static int side_of(const bin *b, int axis)
{
    return b->key >> (10 - 5 * axis) & 31;
}

static void measure(const bin *bins, box *b)
{
    b->width = -1;
    b->pixels = 0;
    for (int axis = 0; axis < 3; axis++) {
        int low = 31, high = 0;
        for (int i = b->first; i < b->first + b->count; i++) {
            int v = side_of(&bins[i], axis);
            low = v < low ? v : low;
            high = v > high ? v : high;
        }
        if (high - low > b->width) {
            b->width = high - low;
            b->axis = axis;
        }
    }
    for (int i = b->first; i < b->first + b->count; i++) b->pixels += bins[i].count;
}

#define COMPARE_ALONG(axis)                                                                                            \
    static int compare_##axis(const void *a, const void *b)                                                            \
    {                                                                                                                  \
        const bin *x = a, *y = b;                                                                                      \
        int d = side_of(x, axis) - side_of(y, axis);                                                                   \
        return d ? d : x->key - y->key;                                                                                \
    }
COMPARE_ALONG(0)
COMPARE_ALONG(1)
COMPARE_ALONG(2)

/* The box with the most pixels times extent; -1 if none can be divided. */
static int choose(const box *boxes, int n)
{
    int best = -1;
    for (int i = 0; i < n; i++) {
        if (boxes[i].width < 1) continue;
        if (best < 0 || boxes[i].pixels * boxes[i].width > boxes[best].pixels * boxes[best].width) best = i;
    }
    return best;
}

/* Where the bins of a sorted box are cut: half of the pixels on either side, and no side empty. */
static int cut_of(const bin *bins, const box *b)
{
    int64_t seen = 0;
    int k = 1;
    for (; k < b->count - 1; k++) {
        seen += bins[b->first + k - 1].count;
        if (2 * seen >= b->pixels) break;
    }
    return k;
}

static void median_cut(bin *bins, int n, palette *p)
{
    static int (*const compare[3])(const void *, const void *) = {compare_0, compare_1, compare_2};
    box boxes[COLORS] = {{.first = 0, .count = n}};
    measure(bins, &boxes[0]);
    p->count = 1;
    while (p->count < COLORS) {
        int i = choose(boxes, p->count);
        if (i < 0) break;
        box *b = &boxes[i], *fresh = &boxes[p->count++];
        qsort(bins + b->first, (size_t)b->count, sizeof *bins, compare[b->axis]);
        int k = cut_of(bins, b);
        *fresh = (box){.first = b->first + k, .count = b->count - k};
        b->count = k;
        measure(bins, b);
        measure(bins, fresh);
    }
    for (int i = 0; i < p->count; i++) {
        const box *b = &boxes[i];
        for (int axis = 0; axis < 3; axis++) {
            int64_t sum = 0;
            for (int k = b->first; k < b->first + b->count; k++) sum += bins[k].sum[axis];
            p->rgb[i][axis] = (uint8_t)((sum + b->pixels / 2) / b->pixels);
        }
        for (int k = b->first; k < b->first + b->count; k++) p->of_bin[bins[k].key] = (uint8_t)i;
    }
}

static sag_status reduce(const sag_image *frames, int64_t n, palette *p)
{
    bin *bins = sag_host_alloc(BINS * sizeof *bins);
    if (!bins) SAG_FAIL(SAG_ERR_MEMORY, "out of memory for the colours of a GIF");
    memset(bins, 0, BINS * sizeof *bins);
    for (int64_t f = 0; f < n; f++) {
        for (size_t i = 0; i < pixels_of(&frames[f]); i++) {
            uint8_t c[3];
            color_of(&frames[f], i, c);
            bin *b = &bins[bin_of(c)];
            b->count++;
            for (int axis = 0; axis < 3; axis++) b->sum[axis] += c[axis];
        }
    }
    int used = 0;
    for (int i = 0; i < BINS; i++) {
        if (!bins[i].count) continue;
        bins[used] = bins[i];
        bins[used++].key = (uint16_t)i;
    }
    median_cut(bins, used, p);
    sag_host_free(bins);
    return SAG_OK;
}

/* ------------------------------------------------------------------------------------------------- output */

typedef struct output {
    uint8_t *bytes;
    size_t size, room;
    bool failed;
    uint32_t bits; /* not yet written */
    int n_bits;
    uint8_t block[255];
    int in_block;
} output;

static void put(output *o, const void *bytes, size_t n)
{
    if (o->failed) return;
    if (o->size + n > o->room) {
        size_t room = 2 * (o->size + n) + 4096;
        uint8_t *more = sag_host_realloc(o->bytes, room);
        if (!more) {
            o->failed = true;
            return;
        }
        o->bytes = more;
        o->room = room;
    }
    memcpy(o->bytes + o->size, bytes, n);
    o->size += n;
}

static void put_byte(output *o, int byte)
{
    uint8_t b = (uint8_t)byte;
    put(o, &b, 1);
}

static void put_short(output *o, int value)
{
    put_byte(o, value & 255);
    put_byte(o, value >> 8);
}

static void end_block(output *o)
{
    if (o->in_block == 0) return;
    put_byte(o, o->in_block);
    put(o, o->block, (size_t)o->in_block);
    o->in_block = 0;
}

static void put_code(output *o, int code, int width)
{
    o->bits |= (uint32_t)code << o->n_bits;
    o->n_bits += width;
    while (o->n_bits >= 8) {
        o->block[o->in_block++] = (uint8_t)o->bits;
        o->bits >>= 8;
        o->n_bits -= 8;
        if (o->in_block == 255) end_block(o);
    }
}

/* ---------------------------------------------------------------------------------------------------- LZW */

#define CLEAR 256
#define END 257
#define CODES 4096

/* The strings as a trie: 0 is no child, since no string begins with another one's end. */
typedef struct strings {
    uint16_t child[CODES], sibling[CODES];
    uint8_t symbol[CODES];
    int next, width;
} strings;

static void forget(strings *s)
{
    memset(s->child, 0, sizeof s->child);
    s->next = END + 1;
    s->width = 9;
}

static int child_of(const strings *s, int code, int symbol)
{
    int k = s->child[code];
    while (k && s->symbol[k] != symbol) k = s->sibling[k];
    return k;
}

static void put_pixels(output *o, strings *s, const sag_image *im, const palette *p)
{
    int code = -1;
    put_byte(o, 8);
    forget(s);
    put_code(o, CLEAR, s->width);
    for (size_t i = 0; i < pixels_of(im); i++) {
        uint8_t c[3];
        color_of(im, i, c);
        int symbol = p->exact ? find(p, c) : p->of_bin[bin_of(c)];
        int longer = code < 0 ? symbol : child_of(s, code, symbol);
        if (code < 0 || longer) {
            code = longer;
            continue;
        }
        put_code(o, code, s->width);
        if (s->next < CODES) {
            s->symbol[s->next] = (uint8_t)symbol;
            s->sibling[s->next] = s->child[code];
            s->child[code] = (uint16_t)s->next++;
            if (s->next > 1 << s->width && s->width < 12) s->width++; /* the reader is one string behind */
        } else {
            put_code(o, CLEAR, s->width);
            forget(s);
        }
        code = symbol;
    }
    put_code(o, code, s->width);
    /* The reader has taken in one string more by now, and may have widened its codes. */
    if (s->next == 1 << s->width && s->width < 12) s->width++;
    put_code(o, END, s->width);
    if (o->n_bits > 0) put_code(o, 0, 8 - o->n_bits);
    end_block(o);
    put_byte(o, 0);
}

/* ------------------------------------------------------------------------------------------------ the file */

static void put_head(output *o, const sag_image *im, const palette *p)
{
    static const uint8_t none[3];
    put(o, "GIF89a", 6);
    put_short(o, im->width);
    put_short(o, im->height);
    put_byte(o, 0xf7); /* a table of 256 colours for all frames */
    put_short(o, 0);
    for (int i = 0; i < COLORS; i++) put(o, i < p->count ? p->rgb[i] : none, 3);
    put(o, "\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0", 19); /* for ever */
}

static void put_frame(output *o, strings *s, const sag_image *im, const palette *p, int delay)
{
    put(o, "\x21\xf9\x04\x04", 4); /* stays until the next */
    put_short(o, delay);
    put_short(o, 0);
    put_byte(o, 0x2c);
    put_short(o, 0);
    put_short(o, 0);
    put_short(o, im->width);
    put_short(o, im->height);
    put_byte(o, 0);
    put_pixels(o, s, im, p);
}

sag_status sag_gif_encode(const sag_image *frames, int64_t n, int delay, uint8_t **bytes, size_t *size)
{
    *bytes = NULL;
    *size = 0;
    if (n < 1) SAG_FAIL(SAG_ERR_ARG, "a GIF has one frame at least");
    if (delay < 0 || delay > 65535) SAG_FAIL(SAG_ERR_ARG, "the delay of a GIF is 0 to 65535 hundredths of a second");
    for (int64_t f = 1; f < n; f++) {
        if (frames[f].height != frames[0].height || frames[f].width != frames[0].width)
            SAG_FAIL(SAG_ERR_SHAPE, "frame %lld of a GIF is %dx%d, the first is %dx%d", (long long)f + 1,
                     frames[f].width, frames[f].height, frames[0].width, frames[0].height);
    }
    palette *p = sag_host_alloc(sizeof *p);
    strings *s = sag_host_alloc(sizeof *s);
    sag_status status = SAG_OK;
    output o = {.failed = !p || !s};
    if (!o.failed) {
        p->count = 0;
        p->exact = collect(frames, n, p);
        if (!p->exact) status = reduce(frames, n, p);
    }
    if (!o.failed && status == SAG_OK) {
        put_head(&o, &frames[0], p);
        for (int64_t f = 0; f < n; f++) put_frame(&o, s, &frames[f], p, delay);
        put_byte(&o, 0x3b);
    }
    sag_host_free(p);
    sag_host_free(s);
    if (status == SAG_OK && !o.failed) {
        *bytes = o.bytes;
        *size = o.size;
        return SAG_OK;
    }
    sag_host_free(o.bytes);
    if (status != SAG_OK) return status;
    SAG_FAIL(SAG_ERR_MEMORY, "out of memory for a GIF of %lld frames", (long long)n);
}

sag_status sag_gif_write(const char *path, const sag_image *frames, int64_t n, int delay)
{
    uint8_t *bytes;
    size_t size;
    SAG_TRY(sag_gif_encode(frames, n, delay, &bytes, &size));
    sag_status s = sag_file_write_atomic(path, bytes, size);
    sag_host_free(bytes);
    return s;
}
