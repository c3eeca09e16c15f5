/*
 * image_draw.c - fills, marks, lines, paste, blend, enlargement, grids, heat maps. The font is image_font.c.
 */
#include "engine/io/image_draw.h"

#include <math.h>
#include <string.h>

static uint8_t luma(sag_color c)
{
    return (uint8_t)((19595u * c.r + 38470u * c.g + 7471u * c.b + 32768u) >> 16);
}

/* Rows [y0, y1), columns [x0, x1), clipped. */
static void fill_box(sag_image *image, int64_t y0, int64_t x0, int64_t y1, int64_t x1, sag_color color)
{
    if (y0 < 0) y0 = 0;
    if (x0 < 0) x0 = 0;
    if (y1 > image->height) y1 = image->height;
    if (x1 > image->width) x1 = image->width;
    uint8_t grey = luma(color);
    for (int64_t y = y0; y < y1; y++)
        for (int64_t x = x0; x < x1; x++) {
            uint8_t *p = image->pixels + (y * image->width + x) * image->channels;
            if (image->channels == 1) {
                p[0] = grey;
            } else {
                p[0] = color.r;
                p[1] = color.g;
                p[2] = color.b;
            }
        }
}

void sag_image_fill(sag_image *image, sag_color color)
{
    fill_box(image, 0, 0, image->height, image->width, color);
}

void sag_image_draw_rect(sag_image *image, int y, int x, int height, int width, int thickness, sag_color color)
{
    if (height < 1 || width < 1 || thickness < 1) return;
    int64_t t = thickness, y0 = y, x0 = x, y1 = y0 + height, x1 = x0 + width;
    if (2 * t >= height || 2 * t >= width) {
        fill_box(image, y0, x0, y1, x1, color);
        return;
    }
    fill_box(image, y0, x0, y0 + t, x1, color);
    fill_box(image, y1 - t, x0, y1, x1, color);
    fill_box(image, y0, x0, y1, x0 + t, color);
    fill_box(image, y0, x1 - t, y1, x1, color);
}

void sag_image_draw_cross(sag_image *image, int y, int x, int radius, sag_color color)
{
    if (radius < 0) return;
    int64_t r = radius, y0 = y, x0 = x;
    fill_box(image, y0 - r, x0, y0 + r + 1, x0 + 1, color);
    fill_box(image, y0, x0 - r, y0 + 1, x0 + r + 1, color);
}

static int clip(double v, int high)
{
    return v < 0.0 ? 0 : v > (double)high ? high : (int)v;
}

static void cover(uint8_t *p, uint8_t value, double share)
{
    *p = (uint8_t)lrint((1.0 - share) * *p + share * value);
}

void sag_image_draw_line(sag_image *image, int y0, int x0, int y1, int x1, float thickness, float alpha,
                         sag_color color)
{
    if (!(thickness > 0.0f && alpha > 0.0f)) return;
    /* A pixel is covered by how far its centre lies inside the edge, half a pixel out to half a pixel in. */
    const double reach = 0.5 * (double)thickness + 0.5, share = alpha < 1.0f ? (double)alpha : 1.0;
    const double dy = (double)y1 - y0, dx = (double)x1 - x0, length2 = dy * dy + dx * dx;
    const int top = clip(fmin(y0, y1) - reach, image->height), bottom = clip(fmax(y0, y1) + reach + 1, image->height);
    const int left = clip(fmin(x0, x1) - reach, image->width), right = clip(fmax(x0, x1) + reach + 1, image->width);
    const uint8_t grey = luma(color);
    for (int y = top; y < bottom; y++)
        for (int x = left; x < right; x++) {
            const double py = (double)y - y0, px = (double)x - x0, along = py * dy + px * dx;
            const double t = length2 > 0.0 ? fmin(fmax(along / length2, 0.0), 1.0) : 0.0;
            const double inside = reach - hypot(py - t * dy, px - t * dx);
            if (inside <= 0.0) continue;
            const double covered = share * fmin(inside, 1.0);
            uint8_t *p = image->pixels + ((int64_t)y * image->width + x) * image->channels;
            if (image->channels == 1) {
                cover(p, grey, covered);
            } else {
                cover(p, color.r, covered);
                cover(p + 1, color.g, covered);
                cover(p + 2, color.b, covered);
            }
        }
}

void sag_image_paste(sag_image *dst, const sag_image *src, int y, int x)
{
    for (int64_t i = 0; i < src->height; i++) {
        int64_t ty = i + y;
        if (ty < 0 || ty >= dst->height) continue;
        for (int64_t j = 0; j < src->width; j++) {
            int64_t tx = j + x;
            if (tx < 0 || tx >= dst->width) continue;
            const uint8_t *s = src->pixels + (i * src->width + j) * src->channels;
            uint8_t *d = dst->pixels + (ty * dst->width + tx) * dst->channels;
            if (dst->channels == src->channels)
                memcpy(d, s, (size_t)dst->channels);
            else if (dst->channels == 1)
                d[0] = luma((sag_color){s[0], s[1], s[2]});
            else
                d[0] = d[1] = d[2] = s[0];
        }
    }
}

sag_status sag_image_blend(sag_image *dst, const sag_image *src, float alpha)
{
    if (dst->height != src->height || dst->width != src->width || dst->channels != src->channels)
        SAG_FAIL(SAG_ERR_SHAPE, "blend: %d x %d x %d over %d x %d x %d: both must have the same size and channels",
                 src->height, src->width, src->channels, dst->height, dst->width, dst->channels);
    if (!(alpha >= 0.0f && alpha <= 1.0f)) SAG_FAIL(SAG_ERR_ARG, "blend: alpha %g is outside [0, 1]", (double)alpha);
    uint32_t a = (uint32_t)lrintf(alpha * 65536.0f), b = 65536u - a;
    size_t n = sag_image_bytes(dst);
    for (size_t i = 0; i < n; i++) dst->pixels[i] = (uint8_t)((dst->pixels[i] * b + src->pixels[i] * a + 32768u) >> 16);
    return SAG_OK;
}

sag_status sag_image_enlarge(const sag_image *image, int factor, sag_image *out)
{
    *out = (sag_image){0};
    if (factor < 1 || factor > SAG_IMAGE_MAX_SIDE / image->height || factor > SAG_IMAGE_MAX_SIDE / image->width)
        SAG_FAIL(SAG_ERR_ARG, "enlarge: %d x %d by %d: the factor must be >= 1 and the sides stay <= %d", image->height,
                 image->width, factor, SAG_IMAGE_MAX_SIDE);
    SAG_TRY(sag_image_create(image->height * factor, image->width * factor, image->channels, out));
    size_t c = (size_t)image->channels, row = (size_t)out->width * c;
    for (int y = 0; y < image->height; y++) {
        uint8_t *first = out->pixels + (size_t)y * (size_t)factor * row, *d = first;
        const uint8_t *s = image->pixels + (size_t)y * (size_t)image->width * c;
        for (int x = 0; x < image->width; x++, s += c)
            for (int k = 0; k < factor; k++, d += c) memcpy(d, s, c);
        for (int k = 1; k < factor; k++) memcpy(first + (size_t)k * row, first, row);
    }
    return SAG_OK;
}

sag_status sag_image_grid(const uint8_t *pixels, int64_t n, int height, int width, int channels, int columns, int pad,
                          sag_color background, sag_image *out)
{
    *out = (sag_image){0};
    if (n < 1 || columns < 1 || pad < 0) SAG_FAIL(SAG_ERR_ARG, "grid: needs n >= 1, columns >= 1 and pad >= 0");
    if (height < 1 || width < 1 || height > SAG_IMAGE_MAX_SIDE || width > SAG_IMAGE_MAX_SIDE ||
        pad > SAG_IMAGE_MAX_SIDE)
        SAG_FAIL(SAG_ERR_ARG, "grid: images of %d x %d, pad %d: must be at most %d", height, width, pad,
                 SAG_IMAGE_MAX_SIDE);
    if (columns > n) columns = (int)n;
    int64_t rows = n / columns + (n % columns != 0);
    int64_t full_width = (int64_t)columns * (width + pad) + pad;
    if (rows > SAG_IMAGE_MAX_SIDE || rows * (height + pad) + pad > SAG_IMAGE_MAX_SIDE ||
        full_width > SAG_IMAGE_MAX_SIDE)
        SAG_FAIL(SAG_ERR_ARG,
                 "grid: %lld images of %d x %d in %d columns: a sheet may have %d pixels a side; draw fewer",
                 (long long)n, height, width, columns, SAG_IMAGE_MAX_SIDE);
    SAG_TRY(sag_image_create((int)(rows * (height + pad) + pad), (int)full_width, channels, out));
    sag_image_fill(out, background);
    int64_t one = (int64_t)height * width * channels;
    for (int64_t i = 0; i < n; i++) {
        /* paste only reads its source */
        sag_image tile = {
            .pixels = (uint8_t *)(uintptr_t)(pixels + i * one), .height = height, .width = width, .channels = channels};
        sag_image_paste(out, &tile, (int)(i / columns * (height + pad) + pad),
                        (int)(i % columns * (width + pad) + pad));
    }
    return SAG_OK;
}

/* ---------------------------------------------------------------------------------------------- heat map */

/*
 * CIELAB lightness rising evenly from 12 to 92 while the hue turns evenly from 300 degrees (violet blue) to
 * 100 (yellow), with chroma 44 + 34 t^2 reduced to what sRGB can show. Equal steps of the value look like
 * equal steps, in grey print too.
 */
static const uint8_t heat_table[17][3] = {
    {18, 23, 85},   {1, 40, 93},     {0, 54, 97},    {1, 68, 104},   {3, 81, 112},   {2, 95, 121},
    {0, 109, 129},  {3, 123, 136},   {1, 138, 141},  {2, 153, 144},  {5, 169, 142},  {0, 186, 132},
    {66, 200, 116}, {117, 211, 103}, {161, 222, 89}, {204, 230, 78}, {249, 236, 71},
};

sag_color sag_image_heat(float t)
{
    if (t != t) return (sag_color){128, 128, 128};
    float at = (t < 0.0f ? 0.0f : t > 1.0f ? 1.0f : t) * 16.0f;
    int i = at >= 16.0f ? 15 : (int)at;
    float f = at - (float)i;
    uint8_t c[3];
    for (int k = 0; k < 3; k++)
        c[k] = (uint8_t)lrintf((1.0f - f) * (float)heat_table[i][k] + f * (float)heat_table[i + 1][k]);
    return (sag_color){c[0], c[1], c[2]};
}

sag_status sag_image_heatmap(const float *values, int height, int width, float low, float high, sag_image *out)
{
    SAG_TRY(sag_image_create(height, width, 3, out));
    int64_t n = (int64_t)height * width;
    if (low == high) {
        low = INFINITY;
        high = -INFINITY;
        for (int64_t i = 0; i < n; i++) {
            if (!isfinite(values[i])) continue;
            if (values[i] < low) low = values[i];
            if (values[i] > high) high = values[i];
        }
    }
    /* In double: high - low of finite floats can overflow a float. A flat map is drawn at its low end. */
    double span = (double)high - (double)low;
    for (int64_t i = 0; i < n; i++) {
        double t = span > 0.0 ? ((double)values[i] - (double)low) / span : 0.0;
        sag_color c = sag_image_heat(values[i] != values[i] ? NAN : (float)t);
        out->pixels[3 * i] = c.r;
        out->pixels[3 * i + 1] = c.g;
        out->pixels[3 * i + 2] = c.b;
    }
    return SAG_OK;
}
