/* Marks, lines, paste, blend, enlargement, grids, heat maps, text. */
#include "engine/io/image_draw.h"
#include "image_pattern.h"
#include "temporary.h"

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

/* How far a pixel lies from a segment, by its nearest point among many. */
static double distance_to(double y, double x, double y0, double x0, double y1, double x1)
{
    double least = INFINITY;
    for (int i = 0; i <= 4000; i++) {
        double t = i / 4000.0, d = hypot(y - (y0 + t * (y1 - y0)), x - (x0 + t * (x1 - x0)));
        if (d < least) least = d;
    }
    return least;
}

static void lines_cover_what_lies_near(void **state)
{
    (void)state;
    static const struct {
        int y0, x0, y1, x1;
        float thickness, alpha;
    } lines[] = {{3, 2, 20, 25, 1.0f, 1.0f}, {20, 25, 3, 2, 3.5f, 0.4f},   {10, 4, 10, 22, 2.0f, 1.0f},
                 {22, 9, 1, 9, 4.0f, 0.75f}, {12, 14, 12, 14, 9.0f, 1.0f}, {-30, -10, 40, 50, 5.0f, 0.5f},
                 {5, -4, 30, 3, 0.5f, 1.0f}};
    sag_image im, grey;
    for (size_t k = 0; k < sizeof lines / sizeof *lines; k++) {
        assert_ok(sag_image_create(24, 28, 3, &im));
        assert_ok(sag_image_create(24, 28, 1, &grey));
        sag_image_fill(&im, (sag_color){40, 80, 120});
        sag_image_draw_line(&im, lines[k].y0, lines[k].x0, lines[k].y1, lines[k].x1, lines[k].thickness, lines[k].alpha,
                            red);
        sag_image_draw_line(&grey, lines[k].y0, lines[k].x0, lines[k].y1, lines[k].x1, lines[k].thickness,
                            lines[k].alpha, (sag_color){200, 200, 200});
        for (int y = 0; y < 24; y++)
            for (int x = 0; x < 28; x++) {
                double d = distance_to(y, x, lines[k].y0, lines[k].x0, lines[k].y1, lines[k].x1);
                double covered = 0.5 * (double)lines[k].thickness + 0.5 - d;
                covered = (double)lines[k].alpha * (covered < 0.0 ? 0.0 : covered > 1.0 ? 1.0 : covered);
                const uint8_t *p = im.pixels + (y * 28 + x) * 3;
                if (fabs(p[0] - (40 + covered * 160)) > 1.0 || fabs(p[1] - (80 - covered * 70)) > 1.0 ||
                    fabs(p[2] - (120 - covered * 100)) > 1.0 || fabs(grey.pixels[y * 28 + x] - covered * 200) > 1.0)
                    fail_msg("line %zu at %d, %d: %d %d %d, grey %d, covered %.3f", k, y, x, p[0], p[1], p[2],
                             grey.pixels[y * 28 + x], covered);
            }
        sag_image_free(&im);
        sag_image_free(&grey);
    }
    assert_ok(sag_image_create(6, 6, 3, &im));
    sag_image_draw_line(&im, INT32_MIN, INT32_MIN, INT32_MAX, INT32_MAX, 1.0f, 1.0f,
                        red); /* the diagonal, near enough */
    assert_true(is_red(&im, 3, 3));
    sag_image_fill(&im, (sag_color){0, 0, 0});
    sag_image_draw_line(&im, INT32_MAX, 0, INT32_MAX, 5, 3.0f, 1.0f, red);
    sag_image_draw_line(&im, 2, 2, 4, 4, 0.0f, 1.0f, red);
    sag_image_draw_line(&im, 2, 2, 4, 4, NAN, 1.0f, red);
    sag_image_draw_line(&im, 2, 2, 4, 4, 2.0f, 0.0f, red);
    for (size_t i = 0; i < sag_image_bytes(&im); i++) assert_int_equal(im.pixels[i], 0);
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
        assert_true(im.pixels[3 * i] == want[i].r && im.pixels[3 * i + 1] == want[i].g &&
                    im.pixels[3 * i + 2] == want[i].b);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_are_clipped),   cmocka_unit_test(lines_cover_what_lies_near),
        cmocka_unit_test(paste_blend_enlarge), cmocka_unit_test(grids_hold_every_image),
        cmocka_unit_test(heat_rises_evenly),   cmocka_unit_test(text_is_drawn_by_cells),
    };
    return cmocka_run_group_tests(tests, temp_setup, temp_teardown);
}
