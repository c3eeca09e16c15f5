/* The drawn animals: four legs each, the same at every look, at any size, in both splits. */
#include "engine/data/dataset.h"
#include "testing.h"

static sag_dataset *open_at(const char *spec, int resolution, int channels, const char *split)
{
    sag_dataset *ds = NULL;
    sag_dataset_options o = {.resolution = resolution, .channels = channels, .split = split};
    assert_ok(sag_dataset_open(spec, &o, &ds));
    return ds;
}

static void four_legs_that_do_not_touch(void **state)
{
    (void)state;
    const char *const splits[] = {"train", "test"};
    for (int s = 0; s < 2; s++) {
        sag_dataset *ds = open_at("quadrupeds:1500", 16, 1, splits[s]);
        for (int64_t i = 0; i < 1500; i++)
            if (sag_dataset_legs(ds, i) != 4)
                fail_msg("%s image %d has %d legs", splits[s], (int)i, sag_dataset_legs(ds, i));
        assert_int_equal(sag_dataset_legs(ds, 1500), -1);
        sag_dataset_release(ds);
    }
}

static void description(void **state)
{
    (void)state;
    sag_dataset *ds = open_at("quadrupeds", 0, 0, NULL);
    const sag_dataset_info *in = sag_dataset_describe(ds);
    assert_int_equal(in->count, 10000);
    assert_int_equal(in->height, 64);
    assert_int_equal(in->width, 64);
    assert_int_equal(in->channels, 3);
    assert_int_equal(in->classes, 8);
    assert_string_equal(in->class_names[0], "horse");
    assert_string_equal(in->split, "train");
    int64_t counts[8], sum = 0;
    sag_dataset_histogram(ds, counts);
    for (int c = 0; c < 8; c++) {
        assert_in_range(counts[c], 1080, 1420); /* 1250 +- 5 standard deviations */
        sum += counts[c];
    }
    assert_int_equal(sum, 10000);
    assert_ok(sag_dataset_check(ds));
    sag_dataset_release(ds);
}

static void the_same_at_every_look(void **state)
{
    (void)state;
    sag_dataset *a = open_at("quadrupeds:64", 40, 3, "train"), *b = open_at("quadrupeds:500", 40, 3, "train");
    sag_dataset *other = open_at("quadrupeds:64", 40, 3, "test");
    uint8_t x[40 * 40 * 3], y[40 * 40 * 3], z[40 * 40 * 3];
    int32_t lx, ly;
    int same = 0;
    for (int64_t i = 63; i >= 0; i--) {
        assert_ok(sag_dataset_get(a, i, x, &lx));
        assert_ok(sag_dataset_get(b, i, y, &ly));
        assert_ok(sag_dataset_get(other, i, z, NULL));
        assert_memory_equal(x, y, sizeof x);
        assert_int_equal(lx, ly);
        same += memcmp(x, z, sizeof x) == 0;
    }
    assert_int_equal(same, 0);
    char ha[33], hb[33], hc[33];
    assert_ok(sag_dataset_hash(a, ha));
    assert_ok(sag_dataset_hash(a, hb));
    assert_ok(sag_dataset_hash(other, hc));
    assert_string_equal(ha, hb);
    assert_string_not_equal(ha, hc);
    sag_dataset_release(a);
    sag_dataset_release(b);
    sag_dataset_release(other);
}

/* An image drawn at 96 and averaged down to 32 is nearly the one drawn at 32: edges are antialiased, nothing moves. */
static void sizes_agree(void **state)
{
    (void)state;
    enum { SMALL = 32, TIMES = 3, LARGE = SMALL * TIMES };
    sag_dataset *small = open_at("quadrupeds:40", SMALL, 3, NULL), *large = open_at("quadrupeds:40", LARGE, 3, NULL);
    static uint8_t a[SMALL * SMALL * 3], b[LARGE * LARGE * 3];
    double error = 0;
    for (int64_t i = 0; i < 40; i++) {
        assert_ok(sag_dataset_get(small, i, a, NULL));
        assert_ok(sag_dataset_get(large, i, b, NULL));
        for (int y = 0; y < SMALL; y++)
            for (int x = 0; x < SMALL; x++)
                for (int c = 0; c < 3; c++) {
                    int sum = 0;
                    for (int j = 0; j < TIMES; j++)
                        for (int k = 0; k < TIMES; k++) sum += b[((y * TIMES + j) * LARGE + x * TIMES + k) * 3 + c];
                    error += abs(sum / (TIMES * TIMES) - a[(y * SMALL + x) * 3 + c]);
                }
    }
    error /= 40.0 * SMALL * SMALL * 3;
    if (error > 4) fail_msg("sizes differ by %.2f levels on average", error);
    sag_dataset_release(small);
    sag_dataset_release(large);
}

static void grey_is_the_luma_of_colour(void **state)
{
    (void)state;
    sag_dataset *grey = open_at("quadrupeds:8", 24, 1, NULL), *rgb = open_at("quadrupeds:8", 24, 3, NULL);
    uint8_t g[24 * 24], c[24 * 24 * 3];
    for (int64_t i = 0; i < 8; i++) {
        assert_ok(sag_dataset_get(grey, i, g, NULL));
        assert_ok(sag_dataset_get(rgb, i, c, NULL));
        for (int p = 0; p < 24 * 24; p++) {
            double want = 0.299 * c[3 * p] + 0.587 * c[3 * p + 1] + 0.114 * c[3 * p + 2];
            if (fabs(want - g[p]) > 1.01) fail_msg("grey %d, wanted %.2f", g[p], want);
        }
    }
    sag_dataset_release(grey);
    sag_dataset_release(rgb);
}

static void counts_are_checked(void **state)
{
    (void)state;
    sag_dataset *ds = NULL;
    sag_dataset_options limited = {.limit = 7};
    assert_fails(sag_dataset_open("quadrupeds:0", NULL, &ds), SAG_ERR_ARG, "quadrupeds:0");
    assert_fails(sag_dataset_open("quadrupeds:many", NULL, &ds), SAG_ERR_ARG, "count");
    assert_fails(sag_dataset_open("quadrupeds:99999999999", NULL, &ds), SAG_ERR_ARG, "count");
    assert_null(ds);
    assert_ok(sag_dataset_open("quadrupeds", &limited, &ds));
    assert_int_equal(sag_dataset_describe(ds)->count, 7);
    assert_fails(sag_dataset_get(ds, 7, NULL, NULL), SAG_ERR_ARG, "image 7 of 7");
    assert_fails(sag_dataset_get(ds, -1, NULL, NULL), SAG_ERR_ARG, "image -1");
    sag_dataset_release(ds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(four_legs_that_do_not_touch), cmocka_unit_test(description),
        cmocka_unit_test(the_same_at_every_look),      cmocka_unit_test(sizes_agree),
        cmocka_unit_test(grey_is_the_luma_of_colour),  cmocka_unit_test(counts_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
