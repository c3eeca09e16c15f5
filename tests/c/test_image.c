/* Decoding against Pillow's pixels, damaged files, PNG round trips, Pillow's resize bit for bit. */
#include <zlib.h>

#include "engine/io/file.h"
#include "engine/io/image.h"
#include "engine/io/image_draw.h"
#include "image_pattern.h"
#include "image_samples.h"
#include "temporary.h"

#define DECODE(sample, channels, out) assert_ok(sag_image_decode(sample, sizeof sample, #sample, channels, out))

/* ------------------------------------------------------------------------------------------------ decoding
 */

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

/* Every truncation fails; every flipped byte of a PNG fails; flipped bytes of the others may decode but never
 * crash. */
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
        if (crc32(0, out.pixels, (unsigned)sag_image_bytes(&out)) != resize_cases[i].crc)
            fail_msg("case %zu differs", i);
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
        cmocka_unit_test(png_kinds_decode),          cmocka_unit_test(jpeg_and_bmp_decode),
        cmocka_unit_test(files_are_recognised),      cmocka_unit_test(bad_files_say_what_is_wrong),
        cmocka_unit_test(damaged_files_never_crash), cmocka_unit_test(png_round_trips),
        cmocka_unit_test(resize_equals_pillow),      cmocka_unit_test(crops_and_channels),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, temp_setup, temp_teardown);
}
