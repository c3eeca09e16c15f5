/* The three resizers against plain loops over every output pixel, in f64. tests/spec/resizer_spec.lua has the programs
 * whose rules they are. */
#include "engine/data/resizer.h"
#include "temporary.h"

enum { SIDE = 299 };

static double weight(sag_resizer kind, int in, int side, int i, int k)
{
    float scale = (float)in / (float)side; /* positions in f32, as the programs have them */
    if (kind == SAG_RESIZER_CLEAN) {
        double ratio = (double)in / side, stretch = ratio > 1 ? ratio : 1,
               x = fabs(k + 0.5 - (i + 0.5) * ratio) / stretch;
        if (x >= 2) return 0;
        return x < 1 ? 1 - 2.5 * x * x + 1.5 * x * x * x : 2 - 4 * x + 2.5 * x * x - 0.5 * x * x * x;
    }
    double at = kind == SAG_RESIZER_TF1 ? (double)((float)i * scale) : (double)(((float)i + 0.5f) * scale - 0.5f);
    at = at < 0 ? 0 : at > in - 1 ? in - 1 : at;
    double x = fabs(at - k);
    return x < 1 ? 1 - x : 0;
}

static double plain(sag_resizer kind, const uint8_t *image, int h, int w, int c, int side, int y, int x, int k)
{
    double sum = 0, down = 0, across = 0;
    for (int j = 0; j < w; j++) across += weight(kind, w, side, x, j);
    for (int i = 0; i < h; i++) {
        double wy = weight(kind, h, side, y, i);
        down += wy;
        if (wy == 0) continue;
        for (int j = 0; j < w; j++) sum += wy * weight(kind, w, side, x, j) * image[(i * w + j) * c + (c == 1 ? 0 : k)];
    }
    double v = sum / down / across, zero = kind == SAG_RESIZER_TORCH ? 127.5 : 128;
    return ((v < 0 ? 0 : v > 255 ? 255 : v) - zero) / zero;
}

static void all_rules_against_plain_loops(void **state)
{
    (void)state;
    static const int sizes[][4] = {{32, 32, 3, SIDE}, {28, 28, 1, SIDE}, {64, 48, 3, SIDE},
                                   {1, 1, 1, 5},      {2, 1, 3, 7},      {400, 20, 3, 40},
                                   {13, 13, 3, 13},   {31, 57, 1, 3},    {299, 50, 3, 1}};
    static uint8_t images[2 * 400 * 60 * 3];
    static float noise[2 * 400 * 60 * 3], got[2 * SIDE * SIDE * 3];
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int h = sizes[s][0], w = sizes[s][1], c = sizes[s][2], side = sizes[s][3], step = side > 50 ? 7 : 1;
        random_fill(noise, 2 * h * w * c, 5 + s, 0, 256);
        for (int i = 0; i < 2 * h * w * c; i++) images[i] = (uint8_t)noise[i];
        for (int kind = 0; kind < SAG_RESIZER_COUNT; kind++) {
            assert_ok(sag_resizer_run((sag_resizer)kind, images, 2, h, w, c, side, 2, got));
            for (int y = 0; y < side; y += step)
                for (int x = 0; x < side; x += step)
                    for (int k = 0; k < 3; k++) {
                        double want = plain((sag_resizer)kind, images + h * w * c, h, w, c, side, y, x, k);
                        double have = (double)got[((side + y) * side + x) * 3 + k];
                        if (!(fabs(have - want) <= 1e-5))
                            fail_msg("%s %dx%dx%d to %d at %d, %d, %d: %g, not %g", sag_resizer_name((sag_resizer)kind),
                                     h, w, c, side, y, x, k, have, want);
                    }
        }
    }
}

static void bad_sizes_are_refused(void **state)
{
    (void)state;
    uint8_t image[12] = {0};
    float out[12];
    assert_fails(sag_resizer_run(SAG_RESIZER_TF1, image, 1, 2, 3, 2, 2, 1, out), SAG_ERR_ARG, "1 or 3 channels");
    assert_fails(sag_resizer_run(SAG_RESIZER_TF1, image, 1, 0, 3, 3, 2, 1, out), SAG_ERR_ARG, "0 x 3 x 3 to 2");
    assert_fails(sag_resizer_run(SAG_RESIZER_TF1, image, 1, 2, 2, 3, 20000, 1, out), SAG_ERR_ARG, "1 to 16384");
    assert_fails(sag_resizer_run(SAG_RESIZER_TF1, image, 0, 2, 2, 3, 2, 1, out), SAG_ERR_ARG, "resizer");
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    uint8_t image[24] = {0};
    float out[24];
    for (int n = 1;; n++) {
        sag_debug_fail_allocation(n);
        sag_status s = sag_resizer_run(SAG_RESIZER_CLEAN, image, 2, 2, 2, 3, 2, 1, out);
        sag_debug_fail_allocation(0);
        if (s == SAG_OK) {
            assert_int_equal(n, 11);
            break;
        }
        if (s != SAG_ERR_MEMORY) fail_msg("allocation %d: %s", n, sag_error_message());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_rules_against_plain_loops),
                                       cmocka_unit_test(bad_sizes_are_refused),
                                       cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, temp_setup, temp_teardown);
}
