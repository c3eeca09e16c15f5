/* Decoding against Pillow's pixels, damaged files, PNG round trips, Pillow's resize bit for bit, drawing. */
#include <zlib.h>

#include "engine/io/file.h"
#include "engine/io/image.h"
#include "engine/io/image_draw.h"
#include "image_samples.h"
#include "temporary.h"

static sag_image pattern(int height, int width, int channels)
{
    sag_image im;
    assert_ok(sag_image_create(height, width, channels, &im));
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int k = 0; k < channels; k++)
                im.pixels[(y * width + x) * channels + k] = (uint8_t)(37 * x + 59 * y + 83 * k + 7 * x * y);
    return im;
}

static void assert_image(const sag_image *im, int height, int width, int channels, const uint8_t *pixels)
{
    assert_int_equal(im->height, height);
    assert_int_equal(im->width, width);
    assert_int_equal(im->channels, channels);
    if (pixels) assert_memory_equal(im->pixels, pixels, sag_image_bytes(im));
}

static void assert_equal_images(const sag_image *a, const sag_image *b)
{
    assert_image(a, b->height, b->width, b->channels, b->pixels);
}

#define DECODE(sample, channels, out) assert_ok(sag_image_decode(sample, sizeof sample, #sample, channels, out))

/* ------------------------------------------------------------------------------------------------ decoding */

static void png_kinds_decode(void **state)
{
    (void)state;
    sag_image want = pattern(5, 7, 3), got;
    DECODE(png_rgb_5x7, 0, &got);
    assert_equal_images(&got, &want);
    sag_image_free(&got);
    sag_image_free(&want);

    want = pattern(3, 4, 3);
    DECODE(png_rgba_3x4, 0, &got); /* alpha is dropped */
    assert_equal_images(&got, &want);
    sag_image_free(&got);
    DECODE(png_rgba_3x4, 1, &got);
    assert_image(&got, 3, 4, 1, luma_3x4);
    sag_image_free(&got);
    sag_image_free(&want);

    want = pattern(3, 4, 1);
    DECODE(png_grey_3x4, 0, &got);
    assert_equal_images(&got, &want);
    sag_image_free(&got);
    DECODE(png_palette_3x4, 1, &got);
    assert_equal_images(&got, &want);
    sag_image_free(&got);
    DECODE(png_grey_3x4, 3, &got);
    for (int i = 0; i < 12; i++)
        for (int k = 0; k < 3; k++) assert_int_equal(got.pixels[3 * i + k], want.pixels[i]);
    sag_image_free(&got);
    sag_image_free(&want);

    want = pattern(2, 3, 1);
    DECODE(png_grey16_2x3, 0, &got);
    assert_equal_images(&got, &want);
    sag_image_free(&got);
    sag_image_free(&want);
}

/* JPEG leaves the rounding of the transform to the decoder: two good ones differ by a step here and there. */
static void assert_near(const sag_image *im, const uint8_t *pixels, size_t n)
{
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        int d = abs(im->pixels[i] - pixels[i]);
        assert_true(d <= 2);
        sum += d;
    }
    assert_true(sum * 2 <= (int64_t)n);
}

static void jpeg_and_bmp_decode(void **state)
{
    (void)state;
    sag_image got;
    DECODE(jpeg_rgb_16x24, 0, &got);
    assert_image(&got, 16, 24, 3, NULL);
    assert_near(&got, jpeg_rgb_16x24_pixels, sizeof jpeg_rgb_16x24_pixels);
    sag_image_free(&got);
    DECODE(jpeg_grey_8x8, 0, &got);
    assert_image(&got, 8, 8, 1, NULL);
    assert_near(&got, jpeg_grey_8x8_pixels, sizeof jpeg_grey_8x8_pixels);
    sag_image_free(&got);
    sag_image want = pattern(2, 3, 3);
    DECODE(bmp_rgb_2x3, 0, &got);
    assert_equal_images(&got, &want);
    sag_image_free(&got);
    sag_image_free(&want);
}

static void files_are_recognised(void **state)
{
    (void)state;
    assert_string_equal(sag_image_kind(png_grey_3x4, sizeof png_grey_3x4), "png");
    assert_string_equal(sag_image_kind(jpeg_grey_8x8, sizeof jpeg_grey_8x8), "jpeg");
    assert_string_equal(sag_image_kind(bmp_rgb_2x3, sizeof bmp_rgb_2x3), "bmp");
    assert_null(sag_image_kind("GIF89a", 6));
    assert_null(sag_image_kind(png_grey_3x4, 7));
    assert_true(sag_image_is_name("a/b.JPeG"));
    assert_true(sag_image_is_name(".png"));
    assert_false(sag_image_is_name("png"));
    assert_false(sag_image_is_name("a.png.txt"));
    int h, w, c;
    assert_ok(sag_image_probe(png_rgba_3x4, sizeof png_rgba_3x4, "x", &h, &w, &c));
    assert_true(h == 3 && w == 4 && c == 3);
    assert_ok(sag_image_probe(jpeg_grey_8x8, sizeof jpeg_grey_8x8, "x", &h, &w, &c));
    assert_true(h == 8 && w == 8 && c == 1);
}

static void bad_files_say_what_is_wrong(void **state)
{
    (void)state;
    sag_image im;
    uint8_t b[sizeof png_rgb_5x7];
    memcpy(b, png_rgb_5x7, sizeof b);
    assert_fails(sag_image_decode(b, 0, "e.png", 0, &im), SAG_ERR_FORMAT, "e.png: is empty");
    assert_fails(sag_image_decode("hello", 5, "t.png", 0, &im), SAG_ERR_FORMAT, "t.png: is neither PNG, JPEG nor BMP");
    assert_fails(sag_image_decode(b, sizeof b - 12, "s.png", 0, &im), SAG_ERR_FORMAT, "without its end chunk");
    assert_fails(sag_image_decode(b, 45, "s.png", 0, &im), SAG_ERR_FORMAT, "PNG chunk at byte 33 wants");
    b[50] ^= 1;
    assert_fails(sag_image_decode(b, sizeof b, "s.png", 0, &im), SAG_ERR_FORMAT, "PNG chunk at byte 33 is damaged");
    assert_fails(sag_image_decode(jpeg_grey_8x8, sizeof jpeg_grey_8x8 - 2, "j.jpg", 0, &im), SAG_ERR_FORMAT,
                 "j.jpg: is cut short");
    assert_fails(sag_image_decode(b, sizeof b, "s.png", 2, &im), SAG_ERR_ARG, "must be 1, 3, or 0");
    assert_fails(sag_image_read("/nonexistent.png", 0, &im), SAG_ERR_IO, "/nonexistent.png: cannot open");

    /* A header that promises 65535 x 65535 pixels, with a good checksum. */
    memcpy(b, png_rgb_5x7, sizeof b);
    memcpy(b + 16, "\0\0\xff\xff\0\0\xff\xff", 8);
    uint32_t crc = (uint32_t)crc32(0, b + 12, 17);
    for (int i = 0; i < 4; i++) b[29 + i] = (uint8_t)(crc >> (24 - 8 * i));
    int h, w, c;
    assert_fails(sag_image_decode(b, sizeof b, "big.png", 0, &im), SAG_ERR_FORMAT, "big.png: cannot decode");
    assert_fails(sag_image_probe(b, sizeof b, "big.png", &h, &w, &c), SAG_ERR_FORMAT, "big.png");
}

/* Every truncation fails; every flipped byte of a PNG fails; flipped bytes of the others may decode but never crash. */
static void fuzz(const unsigned char *file, size_t size, bool checked)
{
    for (size_t n = 0; n < size; n++) {
        uint8_t *b = malloc(n ? n : 1); /* of exactly this size, so that a sanitizer sees one byte too many */
        memcpy(b, file, n);
        sag_image im;
        if (sag_image_decode(b, n, "cut", 0, &im) == SAG_OK) fail_msg("decoded %zu of %zu bytes", n, size);
        assert_null(im.pixels);
        free(b);
    }
    uint8_t *b = malloc(size);
    for (size_t i = 0; i < size; i++)
        for (int k = 0; k < 3; k++) {
            memcpy(b, file, size);
            b[i] ^= k == 0 ? 0x01 : k == 1 ? 0x80 : 0xff;
            sag_image im;
            sag_status s = sag_image_decode(b, size, "flipped", 0, &im);
            if (checked && s == SAG_OK) fail_msg("byte %zu may change unnoticed", i);
            if (s != SAG_OK && s != SAG_ERR_FORMAT) fail_msg("byte %zu: %s", i, sag_status_name(s));
            sag_image_free(&im);
        }
    free(b);
}

static void damaged_files_never_crash(void **state)
{
    (void)state;
    fuzz(png_rgb_5x7, sizeof png_rgb_5x7, true);
    fuzz(png_palette_3x4, sizeof png_palette_3x4, true);
    fuzz(png_grey16_2x3, sizeof png_grey16_2x3, true);
    fuzz(jpeg_rgb_16x24, sizeof jpeg_rgb_16x24, false);
    fuzz(jpeg_grey_8x8, sizeof jpeg_grey_8x8, false);
    fuzz(bmp_rgb_2x3, sizeof bmp_rgb_2x3 - 2, false); /* the last two bytes are padding of the last row */
}

static void png_round_trips(void **state)
{
    (void)state;
    static const int sizes[][3] = {{1, 1, 1}, {1, 1, 3}, {5, 7, 3}, {28, 28, 1}, {63, 200, 3}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        sag_image im = pattern(sizes[i][0], sizes[i][1], sizes[i][2]), back;
        uint8_t *png, *again;
        size_t n, m;
        assert_ok(sag_image_encode_png(&im, &png, &n));
        assert_ok(sag_image_encode_png(&im, &again, &m));
        assert_true(n == m && memcmp(png, again, n) == 0);
        assert_ok(sag_image_decode(png, n, "png", 0, &back));
        assert_equal_images(&back, &im);
        sag_host_free(png);
        sag_host_free(again);
        sag_image_free(&back);
        assert_ok(sag_image_write_png(temp_path("x.png"), &im));
        assert_ok(sag_image_read(temp_path("x.png"), 0, &back));
        assert_equal_images(&back, &im);
        sag_image_free(&back);
        sag_image_free(&im);
    }
}

/* ------------------------------------------------------------------------------------- crop and resize */

static void resize_equals_pillow(void **state)
{
    (void)state;
    sag_image im = pattern(7, 5, 3), out;
    assert_ok(sag_image_resize(&im, 3, 4, &out));
    assert_image(&out, 3, 4, 3, resize_7x5x3_to_3x4);
    sag_image_free(&out);
    assert_ok(sag_image_resize(&im, 7, 5, &out));
    assert_equal_images(&out, &im);
    sag_image_free(&out);
    sag_image_free(&im);
    im = pattern(4, 3, 1);
    assert_ok(sag_image_resize(&im, 7, 9, &out));
    assert_image(&out, 7, 9, 1, resize_4x3x1_to_7x9);
    sag_image_free(&out);
    assert_fails(sag_image_resize(&im, 0, 9, &out), SAG_ERR_ARG, "resize: to 0 x 9");
    assert_fails(sag_image_resize(&im, 9, 16385, &out), SAG_ERR_ARG, "1 to 16384");
    sag_image_free(&im);
    for (size_t i = 0; i < sizeof resize_cases / sizeof *resize_cases; i++) {
        im = pattern(resize_cases[i].height, resize_cases[i].width, resize_cases[i].channels);
        assert_ok(sag_image_resize(&im, resize_cases[i].to_height, resize_cases[i].to_width, &out));
        if (crc32(0, out.pixels, (unsigned)sag_image_bytes(&out)) != resize_cases[i].crc) fail_msg("case %zu differs", i);
        sag_image_free(&out);
        sag_image_free(&im);
    }
}

static void crops_and_channels(void **state)
{
    (void)state;
    sag_image im = pattern(4, 7, 3), out;
    assert_ok(sag_image_crop_square(&im, &out));
    assert_image(&out, 4, 4, 3, NULL);
    for (int y = 0; y < 4; y++) assert_memory_equal(out.pixels + y * 12, im.pixels + (y * 7 + 1) * 3, 12);
    sag_image_free(&out);
    assert_ok(sag_image_crop(&im, 1, 2, 3, 5, &out));
    assert_memory_equal(out.pixels + 2 * 15, im.pixels + (3 * 7 + 2) * 3, 15);
    sag_image_free(&out);
    assert_fails(sag_image_crop(&im, 2, 0, 3, 1, &out), SAG_ERR_ARG, "does not lie inside");
    assert_fails(sag_image_crop(&im, 0, INT32_MAX, 1, 1, &out), SAG_ERR_ARG, "does not lie inside");
    sag_image_free(&im);
    im = pattern(3, 4, 3);
    assert_ok(sag_image_convert(&im, 1, &out));
    assert_image(&out, 3, 4, 1, luma_3x4);
    sag_image_free(&out);
    sag_image_free(&im);
    assert_fails(sag_image_create(1, 1, 4, &out), SAG_ERR_ARG, "must be 1 or 3");
    assert_fails(sag_image_create(0, 1, 1, &out), SAG_ERR_ARG, "both sides");
}

/* ------------------------------------------------------------------------------------------------ drawing */

static const sag_color red = {200, 10, 20};

static bool is_red(const sag_image *im, int y, int x)
{
    const uint8_t *p = im->pixels + (y * im->width + x) * 3;
    return p[0] == 200 && p[1] == 10 && p[2] == 20;
}

static int count_red(const sag_image *im)
{
    int n = 0;
    for (int y = 0; y < im->height; y++)
        for (int x = 0; x < im->width; x++) n += is_red(im, y, x);
    return n;
}

static void marks_are_clipped(void **state)
{
    (void)state;
    sag_image im;
    assert_ok(sag_image_create(10, 12, 3, &im));
    sag_image_draw_rect(&im, 2, 3, 5, 6, 1, red);
    assert_int_equal(count_red(&im), 2 * 5 + 2 * 6 - 4);
    assert_true(is_red(&im, 2, 3) && is_red(&im, 6, 8) && !is_red(&im, 3, 4) && !is_red(&im, 7, 8));
    sag_image_fill(&im, (sag_color){0, 0, 0});
    sag_image_draw_rect(&im, -2, -2, 5, 5, 2, red); /* bottom and right edges show, two thick */
    assert_int_equal(count_red(&im), 9 - 1);
    sag_image_fill(&im, (sag_color){0, 0, 0});
    sag_image_draw_cross(&im, 4, 5, 2, red);
    assert_int_equal(count_red(&im), 9);
    assert_true(is_red(&im, 2, 5) && is_red(&im, 4, 7));
    sag_image_draw_cross(&im, INT32_MAX, INT32_MIN, INT32_MAX, red);
    sag_image_draw_rect(&im, INT32_MIN, INT32_MIN, INT32_MAX, INT32_MAX, INT32_MAX, red);
    sag_image_draw_text(&im, INT32_MAX, INT32_MAX, "far", 3, red);
    sag_image_draw_text(&im, INT32_MIN, 0, "far", 16384, red);
    sag_image_free(&im);
}

static void paste_blend_enlarge(void **state)
{
    (void)state;
    sag_image dst, src = pattern(3, 4, 3), big;
    assert_ok(sag_image_create(4, 5, 3, &dst));
    sag_image_paste(&dst, &src, -1, 2);
    assert_memory_equal(dst.pixels + 2 * 3, src.pixels + 4 * 3, 9);
    assert_memory_equal(dst.pixels + (5 + 2) * 3, src.pixels + 8 * 3, 9);
    for (int x = 0; x < 5 * 3; x++) assert_int_equal(dst.pixels[2 * 15 + x], 0);
    assert_fails(sag_image_blend(&dst, &src, 0.5f), SAG_ERR_SHAPE, "blend: 3 x 4 x 3 over 4 x 5 x 3");
    assert_ok(sag_image_enlarge(&src, 3, &big));
    assert_image(&big, 9, 12, 3, NULL);
    for (int y = 0; y < 9; y++)
        for (int x = 0; x < 12; x++)
            assert_memory_equal(big.pixels + (y * 12 + x) * 3, src.pixels + (y / 3 * 4 + x / 3) * 3, 3);
    sag_image other;
    assert_ok(sag_image_create(9, 12, 3, &other));
    sag_image_fill(&other, red);
    assert_fails(sag_image_blend(&big, &other, 1.5f), SAG_ERR_ARG, "outside [0, 1]");
    uint8_t first = big.pixels[1];
    assert_ok(sag_image_blend(&big, &other, 0.0f));
    assert_int_equal(big.pixels[1], first);
    assert_ok(sag_image_blend(&big, &other, 0.25f));
    assert_int_equal(big.pixels[1], (first * 3 + 10 + 2) / 4);
    assert_ok(sag_image_blend(&big, &other, 1.0f));
    assert_equal_images(&big, &other);
    sag_image_free(&other);
    assert_fails(sag_image_enlarge(&src, 6000, &other), SAG_ERR_ARG, "enlarge: 3 x 4 by 6000");
    sag_image_free(&big);
    sag_image_free(&dst);
    sag_image_free(&src);
}

static void grids_hold_every_image(void **state)
{
    (void)state;
    uint8_t pixels[5][2][3];
    for (int i = 0; i < 5; i++) memset(pixels[i], 10 * (i + 1), 6);
    sag_image out;
    assert_ok(sag_image_grid(&pixels[0][0][0], 5, 2, 3, 1, 3, 1, (sag_color){255, 255, 255}, &out));
    assert_image(&out, 7, 13, 1, NULL);
    for (int y = 0; y < 7; y++)
        for (int x = 0; x < 13; x++) {
            int i = y / 3 * 3 + x / 4;
            bool gap = y % 3 == 0 || x % 4 == 0 || i >= 5;
            assert_int_equal(out.pixels[y * 13 + x], gap ? 255 : 10 * (i + 1));
        }
    sag_image_free(&out);
    assert_fails(sag_image_grid(&pixels[0][0][0], 5, 2, 3, 1, 0, 1, red, &out), SAG_ERR_ARG, "grid: needs");
    assert_fails(sag_image_grid(&pixels[0][0][0], INT64_MAX, 2, 3, 1, 1, 1, red, &out), SAG_ERR_ARG, "draw fewer");
}

/* Lightness of an sRGB colour in CIELAB. */
static double lightness(sag_color c)
{
    double v[3] = {c.r / 255.0, c.g / 255.0, c.b / 255.0}, w[3] = {0.2126729, 0.7151522, 0.0721750}, y = 0.0;
    for (int i = 0; i < 3; i++) y += w[i] * (v[i] <= 0.04045 ? v[i] / 12.92 : pow((v[i] + 0.055) / 1.055, 2.4));
    return y > 0.008856 ? 116.0 * cbrt(y) - 16.0 : 903.3 * y;
}

static void heat_rises_evenly(void **state)
{
    (void)state;
    for (int i = 0; i <= 256; i++) {
        double l = lightness(sag_image_heat((float)i / 256.0f));
        if (fabs(l - (12.0 + 80.0 * i / 256.0)) > 1.5) fail_msg("lightness %.2f at %d of 256", l, i);
    }
    float values[6] = {-1.0f, 3.0f, 1.0f, NAN, INFINITY, -INFINITY};
    sag_image im;
    assert_ok(sag_image_heatmap(values, 2, 3, 0.0f, 0.0f, &im));
    sag_color want[6] = {sag_image_heat(0.0f), sag_image_heat(1.0f), sag_image_heat(0.5f),
                         {128, 128, 128},      sag_image_heat(1.0f), sag_image_heat(0.0f)};
    for (int i = 0; i < 6; i++)
        assert_true(im.pixels[3 * i] == want[i].r && im.pixels[3 * i + 1] == want[i].g && im.pixels[3 * i + 2] == want[i].b);
    sag_image_free(&im);
    float flat[2] = {0.25f, 0.25f};
    assert_ok(sag_image_heatmap(flat, 1, 2, 0.0f, 0.0f, &im));
    assert_int_equal(im.pixels[2], sag_image_heat(0.0f).b);
    sag_image_free(&im);
}

static void text_is_drawn_by_cells(void **state)
{
    (void)state;
    sag_image im, twice;
    int h, w;
    sag_image_text_size("Ab\nxyz", 2, &h, &w);
    assert_int_equal(h, 32);
    assert_int_equal(w, 36);
    assert_ok(sag_image_create(16, 12, 3, &im));
    sag_image_draw_text(&im, 0, 0, "TI", 1, red);
    assert_int_equal(count_red(&im), 11 + 11); /* a T has 5 + 6 dots, an I 3 + 3 + 5 */
    for (int x = 0; x < 5; x++) assert_true(is_red(&im, 0, x));
    assert_true(is_red(&im, 6, 2) && !is_red(&im, 7, 2) && is_red(&im, 3, 8));
    assert_ok(sag_image_create(32, 24, 3, &twice));
    sag_image_draw_text(&twice, 0, 0, "TI", 2, red);
    for (int y = 0; y < 32; y++)
        for (int x = 0; x < 24; x++) assert_int_equal(is_red(&twice, y, x), is_red(&im, y / 2, x / 2));
    /* Every printable character has dots of its own. */
    for (int a = '!'; a <= '~'; a++) {
        char text[2] = {(char)a, 0};
        sag_image_fill(&im, (sag_color){0, 0, 0});
        sag_image_draw_text(&im, 0, 0, text, 1, red);
        assert_true(count_red(&im) > 0);
        for (int b = '!'; b < a; b++) {
            sag_image other;
            char before[2] = {(char)b, 0};
            assert_ok(sag_image_create(16, 12, 3, &other));
            sag_image_draw_text(&other, 0, 0, before, 1, red);
            if (memcmp(other.pixels, im.pixels, sag_image_bytes(&im)) == 0) fail_msg("%c looks like %c", a, b);
            sag_image_free(&other);
        }
    }
    sag_image_free(&twice);
    sag_image_free(&im);
}

static sag_status everything(void)
{
    sag_image a = {0}, b = {0};
    uint8_t *png = NULL;
    size_t n;
    float v[4] = {0.0f, 1.0f, 2.0f, 3.0f};
    sag_status s = sag_image_decode(jpeg_rgb_16x24, sizeof jpeg_rgb_16x24, "j", 1, &a);
    sag_image_free(&a);
    if (s == SAG_OK) s = sag_image_decode(jpeg_grey_8x8, sizeof jpeg_grey_8x8, "j", 3, &a);
    sag_image_free(&a);
    if (s == SAG_OK) s = sag_image_decode(png_palette_3x4, sizeof png_palette_3x4, "p", 0, &a);
    if (s == SAG_OK) s = sag_image_resize(&a, 9, 9, &b);
    sag_image_free(&a);
    if (s == SAG_OK) s = sag_image_encode_png(&b, &png, &n);
    sag_host_free(png);
    sag_image_free(&b);
    if (s == SAG_OK) s = sag_image_heatmap(v, 2, 2, 0.0f, 0.0f, &a);
    if (s == SAG_OK) s = sag_image_enlarge(&a, 2, &b);
    sag_image_free(&b);
    sag_image_free(&a);
    return s;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    int64_t before = sag_debug_live_host_blocks();
    for (int n = 1;; n++) {
        sag_debug_fail_allocation(n);
        sag_status s = everything();
        sag_debug_fail_allocation(0);
        assert_int_equal(sag_debug_live_host_blocks(), before);
        if (s == SAG_OK) {
            assert_true(n > 20);
            break;
        }
        if (s != SAG_ERR_MEMORY) fail_msg("allocation %d: %s: %s", n, sag_status_name(s), sag_error_message());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(png_kinds_decode),
        cmocka_unit_test(jpeg_and_bmp_decode),
        cmocka_unit_test(files_are_recognised),
        cmocka_unit_test(bad_files_say_what_is_wrong),
        cmocka_unit_test(damaged_files_never_crash),
        cmocka_unit_test(png_round_trips),
        cmocka_unit_test(resize_equals_pillow),
        cmocka_unit_test(crops_and_channels),
        cmocka_unit_test(marks_are_clipped),
        cmocka_unit_test(paste_blend_enlarge),
        cmocka_unit_test(grids_hold_every_image),
        cmocka_unit_test(heat_rises_evenly),
        cmocka_unit_test(text_is_drawn_by_cells),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, temp_setup, temp_teardown);
}
