/*
 * image.c - image memory, channels, cropping, resizing.
 *
 * resize: out(x) = sum_i w_i in(i), w_i = tri((i + 0.5 - c) / s) / sum, c = (x + 0.5) r, r = in/out, s =
 * max(1, r), tri(t) = max(0, 1 - |t|). The arithmetic is that of Pillow's 8-bit BILINEAR (weights to 22 bits,
 * the rows' result rounded to 8 bits before the columns'), which is the resizer that data preparation in the
 * literature used.
 */
#include "engine/io/image.h"

#include <limits.h>
#include <math.h>
#include <string.h>

sag_status sag_image_create(int height, int width, int channels, sag_image *out)
{
    *out = (sag_image){0};
    if (height < 1 || width < 1 || height > SAG_IMAGE_MAX_SIDE || width > SAG_IMAGE_MAX_SIDE)
        SAG_FAIL(SAG_ERR_ARG, "image: %d x %d: both sides must be 1 to %d", height, width, SAG_IMAGE_MAX_SIDE);
    if (channels != 1 && channels != 3) SAG_FAIL(SAG_ERR_ARG, "image: %d channels: must be 1 or 3", channels);
    /* 16384 * 16384 * 3 fits in 31 bits */
    uint8_t *pixels = sag_host_alloc((size_t)height * (size_t)width * (size_t)channels);
    if (!pixels) SAG_FAIL(SAG_ERR_MEMORY, "image: no memory for %d x %d x %d", height, width, channels);
    *out = (sag_image){.pixels = pixels, .height = height, .width = width, .channels = channels};
    return SAG_OK;
}

void sag_image_free(sag_image *image)
{
    sag_host_free(image->pixels);
    *image = (sag_image){0};
}

size_t sag_image_bytes(const sag_image *image)
{
    return (size_t)image->height * (size_t)image->width * (size_t)image->channels;
}

sag_status sag_image_convert(const sag_image *image, int channels, sag_image *out)
{
    SAG_TRY(sag_image_create(image->height, image->width, channels, out));
    size_t n = (size_t)image->height * (size_t)image->width;
    const uint8_t *s = image->pixels;
    uint8_t *d = out->pixels;
    if (channels == image->channels) {
        memcpy(d, s, n * (size_t)channels);
    } else if (channels == 1) {
        for (size_t i = 0; i < n; i++)
            d[i] = (uint8_t)((19595u * s[3 * i] + 38470u * s[3 * i + 1] + 7471u * s[3 * i + 2] + 32768u) >> 16);
    } else {
        for (size_t i = 0; i < n; i++) d[3 * i] = d[3 * i + 1] = d[3 * i + 2] = s[i];
    }
    return SAG_OK;
}

sag_status sag_image_crop(const sag_image *image, int y, int x, int height, int width, sag_image *out)
{
    *out = (sag_image){0};
    if (y < 0 || x < 0 || height < 1 || width < 1 || height > image->height || width > image->width ||
        y > image->height - height || x > image->width - width)
        SAG_FAIL(SAG_ERR_ARG, "crop: %d x %d at (%d, %d) does not lie inside an image of %d x %d", height, width, y, x,
                 image->height, image->width);
    SAG_TRY(sag_image_create(height, width, image->channels, out));
    size_t c = (size_t)image->channels, row = (size_t)width * c;
    for (int i = 0; i < height; i++)
        memcpy(out->pixels + (size_t)i * row, image->pixels + ((size_t)(y + i) * (size_t)image->width + (size_t)x) * c,
               row);
    return SAG_OK;
}

sag_status sag_image_crop_square(const sag_image *image, sag_image *out)
{
    int side = image->height < image->width ? image->height : image->width;
    return sag_image_crop(image, (image->height - side) / 2, (image->width - side) / 2, side, side, out);
}

/* ------------------------------------------------------------------------------------------------ resize */

#define WEIGHT_BITS 22 /* 8 bits of pixel, 2 of headroom: sums stay inside 32 bits */

typedef struct resize_taps {
    int most;        /* weights kept per output position */
    int *first;      /* [out] */
    int *count;      /* [out] */
    int32_t *weight; /* [out][most] */
} resize_taps;

static void taps_free(resize_taps *t)
{
    sag_host_free(t->first);
    sag_host_free(t->count);
    sag_host_free(t->weight);
    *t = (resize_taps){0};
}

static sag_status taps_create(int in, int out, resize_taps *t)
{
    double ratio = (double)in / (double)out;
    double stretch = ratio < 1.0 ? 1.0 : ratio;
    int most = (int)ceil(stretch) * 2 + 1;
    *t = (resize_taps){.most = most};
    t->first = sag_host_alloc((size_t)out * sizeof *t->first);
    t->count = sag_host_alloc((size_t)out * sizeof *t->count);
    t->weight = sag_host_alloc((size_t)out * (size_t)most * sizeof *t->weight);
    double *exact = sag_host_alloc((size_t)most * sizeof *exact);
    if (!t->first || !t->count || !t->weight || !exact) {
        sag_host_free(exact);
        taps_free(t);
        SAG_FAIL(SAG_ERR_MEMORY, "resize: no memory for %d x %d weights", out, most);
    }
    for (int x = 0; x < out; x++) {
        double centre = ((double)x + 0.5) * ratio;
        int lo = (int)(centre - stretch + 0.5), hi = (int)(centre + stretch + 0.5);
        if (lo < 0) lo = 0;
        if (hi > in) hi = in;
        double sum = 0.0, scale = 1.0 / stretch;
        for (int i = lo; i < hi; i++) {
            double distance = fabs(((double)i - centre + 0.5) * scale);
            exact[i - lo] = distance < 1.0 ? 1.0 - distance : 0.0;
            sum += exact[i - lo];
        }
        for (int i = lo; i < hi; i++)
            t->weight[(size_t)x * (size_t)most + (size_t)(i - lo)] =
                (int32_t)(0.5 + exact[i - lo] / sum * (double)(1 << WEIGHT_BITS));
        t->first[x] = lo;
        t->count[x] = hi - lo;
    }
    sag_host_free(exact);
    return SAG_OK;
}

static uint8_t round_to_u8(int32_t sum)
{
    int32_t v = sum >> WEIGHT_BITS;
    return (uint8_t)(v > 255 ? 255 : v);
}

static void resize_rows(const sag_image *image, const resize_taps *t, sag_image *out)
{
    int c = image->channels;
    for (int y = 0; y < out->height; y++) {
        const uint8_t *s = image->pixels + (size_t)y * (size_t)image->width * (size_t)c;
        uint8_t *d = out->pixels + (size_t)y * (size_t)out->width * (size_t)c;
        for (int x = 0; x < out->width; x++) {
            const int32_t *w = t->weight + (size_t)x * (size_t)t->most;
            const uint8_t *p = s + (size_t)t->first[x] * (size_t)c;
            int count = t->count[x];
            if (c == 1) {
                int32_t sum = 1 << (WEIGHT_BITS - 1);
                for (int i = 0; i < count; i++) sum += p[i] * w[i];
                d[x] = round_to_u8(sum);
            } else {
                int32_t r = 1 << (WEIGHT_BITS - 1), g = r, b = r;
                for (int i = 0; i < count; i++) {
                    r += p[3 * i] * w[i];
                    g += p[3 * i + 1] * w[i];
                    b += p[3 * i + 2] * w[i];
                }
                d[3 * x] = round_to_u8(r);
                d[3 * x + 1] = round_to_u8(g);
                d[3 * x + 2] = round_to_u8(b);
            }
        }
    }
}

/* One output row at a time, so that the inner loops run along memory. */
static sag_status resize_columns(const sag_image *image, const resize_taps *t, sag_image *out)
{
    size_t row = (size_t)image->width * (size_t)image->channels;
    int32_t *sum = sag_host_alloc(row * sizeof *sum);
    if (!sum) SAG_FAIL(SAG_ERR_MEMORY, "resize: no memory for a row of %zu", row);
    for (int y = 0; y < out->height; y++) {
        const int32_t *w = t->weight + (size_t)y * (size_t)t->most;
        for (size_t x = 0; x < row; x++) sum[x] = 1 << (WEIGHT_BITS - 1);
        for (int i = 0; i < t->count[y]; i++) {
            const uint8_t *s = image->pixels + (size_t)(t->first[y] + i) * row;
            int32_t weight = w[i];
            for (size_t x = 0; x < row; x++) sum[x] += s[x] * weight;
        }
        uint8_t *d = out->pixels + (size_t)y * row;
        for (size_t x = 0; x < row; x++) d[x] = round_to_u8(sum[x]);
    }
    sag_host_free(sum);
    return SAG_OK;
}

sag_status sag_image_resize(const sag_image *image, int height, int width, sag_image *out)
{
    *out = (sag_image){0};
    if (height < 1 || width < 1 || height > SAG_IMAGE_MAX_SIDE || width > SAG_IMAGE_MAX_SIDE)
        SAG_FAIL(SAG_ERR_ARG, "resize: to %d x %d: both sides must be 1 to %d", height, width, SAG_IMAGE_MAX_SIDE);
    sag_image across = {0};
    resize_taps t = {0};
    sag_status status;
    if (width != image->width) {
        status = taps_create(image->width, width, &t);
        if (status == SAG_OK) status = sag_image_create(image->height, width, image->channels, &across);
        if (status == SAG_OK) resize_rows(image, &t, &across);
        taps_free(&t);
        if (status != SAG_OK) goto done;
    } else {
        SAG_TRY(sag_image_convert(image, image->channels, &across));
    }
    if (height == image->height) {
        *out = across;
        return SAG_OK;
    }
    status = taps_create(image->height, height, &t);
    if (status == SAG_OK) status = sag_image_create(height, width, image->channels, out);
    if (status == SAG_OK) status = resize_columns(&across, &t, out);
    taps_free(&t);
    if (status != SAG_OK) sag_image_free(out);
done:
    sag_image_free(&across);
    return status;
}
