/* Legs counted in pictures: the drawn quadrupeds against their truth, also with a leg taken away; plain boxes on
 * stilts; what has no legs. */
#include "engine/data/dataset.h"
#include "engine/data/quadruped.h"
#include "engine/metrics/metrics.h"
#include "testing.h"

enum { SIDE = 64, MOST = 400 };

static int32_t legs_of(const uint8_t *pixels, int height, int width, int channels, int32_t expected)
{
    int32_t legs = -1;
    sag_pictures p = {pixels, 1, height, width, channels};
    assert_ok(sag_legs(&p, &expected, 1, &legs));
    return legs;
}

/* ------------------------------------------------------------------------------------------------ stilts */

/* A box on `n` stilts `thick` wide and `apart` from left to left, on ground; soft: with a shadow over the feet. */
static void draw_stilts(uint8_t *px, int n, int thick, int apart, bool dark, bool shadow)
{
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            double ground = y < 30 ? 200 : 120 + y, u = (x - 32) / 26.0, v = (y - 51) / 3.0;
            if (shadow && u * u + v * v < 1) ground *= 1 - 0.3 * (1 - u * u - v * v);
            int at = x - (32 - (n - 1) * apart / 2);
            bool leg = y >= 30 && y < 52 && at >= 0 && at % apart < thick && at / apart < n;
            bool body = y >= 18 && y < 38 && x >= 8 && x < 56;
            px[y * SIDE + x] = (uint8_t)(leg || body ? (dark ? 30 : 250) : ground);
        }
}

static void stilts_are_counted(void **state)
{
    (void)state;
    static uint8_t px[SIDE * SIDE];
    for (int n = 1; n <= 6; n++)
        for (int thick = 2; thick <= 4; thick++)
            for (int kind = 0; kind < 4; kind++) {
                draw_stilts(px, n, thick, 8, kind & 1, kind & 2);
                int32_t got = legs_of(px, SIDE, SIDE, 1, 4);
                /* light legs in a shadow: the shadow between them is no leg */
                if (got != n)
                    fail_msg("%d stilts of %d, %s%s: %d", n, thick, kind & 1 ? "dark" : "light",
                             kind & 2 ? ", shadow" : "", got);
            }
}

static void stilts_that_touch_are_one(void **state)
{
    (void)state;
    static uint8_t px[SIDE * SIDE];
    draw_stilts(px, 4, 8, 8, true, false);
    assert_int_equal(legs_of(px, SIDE, SIDE, 1, 4), 1);
    draw_stilts(px, 4, 2, 8, true, false); /* and joined in pairs */
    for (int y = 38; y < 52; y++)
        for (int x = 0; x < SIDE; x++)
            if ((x >= 20 && x < 30) || (x >= 36 && x < 46)) px[y * SIDE + x] = 30;
    assert_int_equal(legs_of(px, SIDE, SIDE, 1, 4), 2);
}

static void without_ground_nothing_stands(void **state)
{
    (void)state;
    static uint8_t px[SIDE * SIDE], cut[SIDE * SIDE];
    draw_stilts(px, 4, 3, 8, true, false);
    assert_int_equal(legs_of(px, SIDE, SIDE, 1, 4), 4);
    memcpy(cut + 12 * SIDE, px, (SIDE - 12) * SIDE); /* the feet at the lower edge */
    memset(cut, 200, 12 * SIDE);
    assert_int_equal(legs_of(cut, SIDE, SIDE, 1, 4), 0);
    memset(px, 77, sizeof px);
    assert_int_equal(legs_of(px, SIDE, SIDE, 1, 4), 0);
    memset(px, 0, sizeof px);
    assert_int_equal(legs_of(px, SIDE, SIDE, 1, 4), 0);
}

/* Half of the rows show four, half three: the count that was expected, else the larger. */
static void equal_votes_go_to_the_expected(void **state)
{
    (void)state;
    static uint8_t px[SIDE * SIDE];
    draw_stilts(px, 4, 3, 8, true, false);
    for (int y = 49; y < 51; y++) /* the rows that vote are 47 to 50 */
        for (int x = 0; x < 26; x++) px[y * SIDE + x] = px[y * SIDE];
    assert_int_equal(legs_of(px, SIDE, SIDE, 1, 4), 4);
    assert_int_equal(legs_of(px, SIDE, SIDE, 1, 3), 3);
    assert_int_equal(legs_of(px, SIDE, SIDE, 1, 7), 4);
}

/* ------------------------------------------------------------------------------------------- quadrupeds */

/* The share of MOST pictures whose count is `want`, after `spoil`. */
static double share(const char *split, int side, int channels, int want, void (*spoil)(uint8_t *, int, int))
{
    sag_dataset *ds = NULL;
    sag_dataset_options o = {.resolution = side, .channels = channels, .split = split};
    assert_ok(sag_dataset_open("quadrupeds", &o, &ds));
    size_t bytes = (size_t)(side * side * channels);
    uint8_t *px = malloc(bytes * MOST);
    int32_t expected[MOST], legs[MOST];
    int right = 0;
    for (int i = 0; i < MOST; i++) {
        assert_ok(sag_dataset_get(ds, i, px + (size_t)i * bytes, NULL));
        if (spoil) spoil(px + (size_t)i * bytes, side, channels);
        expected[i] = sag_dataset_legs(ds, i);
    }
    sag_pictures p = {px, MOST, side, side, channels};
    assert_ok(sag_legs(&p, expected, 2, legs));
    for (int i = 0; i < MOST; i++) right += legs[i] == (want < 0 ? expected[i] : want);
    free(px);
    sag_dataset_release(ds);
    return (double)right / MOST;
}

static void real_figures_have_their_legs(void **state)
{
    (void)state;
    static const struct {
        const char *split;
        int side, channels;
    } cases[] = {{"train", 32, 3}, {"test", 32, 3}, {"train", 64, 3}, {"test", 64, 3},
                 {"train", 32, 1}, {"test", 64, 1}, {"train", 128, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double right = share(cases[i].split, cases[i].side, cases[i].channels, -1, NULL);
        print_message("%s at %d, %d channels: %.4f\n", cases[i].split, cases[i].side, cases[i].channels, right);
        assert_true(right >= (cases[i].channels == 3 ? 0.97 : 0.96));
    }
}

static uint64_t seed;

static void noise(uint8_t *px, int side, int channels)
{
    float *x = malloc((size_t)(side * side * channels) * sizeof *x);
    random_fill(x, side * side * channels, ++seed, 0, 256);
    for (int i = 0; i < side * side * channels; i++) px[i] = (uint8_t)x[i];
    free(x);
}

/* Twice a mean over 7 x 7 at 64, in which two legs of a pair become one. */
static void blur(uint8_t *px, int side, int channels)
{
    int reach = side * 3 / 64;
    size_t bytes = (size_t)(side * side * channels);
    uint8_t *from = malloc(bytes);
    for (int pass = 0; pass < 2; pass++) {
        memcpy(from, px, bytes);
        for (int y = 0; y < side; y++)
            for (int x = 0; x < side; x++)
                for (int c = 0; c < channels; c++) {
                    int sum = 0, n = 0;
                    for (int j = y - reach; j <= y + reach; j++)
                        for (int i = x - reach; i <= x + reach; i++)
                            if (j >= 0 && j < side && i >= 0 && i < side) {
                                sum += from[(j * side + i) * channels + c];
                                n++;
                            }
                    px[(y * side + x) * channels + c] = (uint8_t)(sum / n);
                }
    }
    free(from);
}

static void upside_down(uint8_t *px, int side, int channels)
{
    int stride = side * channels;
    for (int y = 0; y < side / 2; y++)
        for (int k = 0; k < stride; k++) {
            uint8_t t = px[y * stride + k];
            px[y * stride + k] = px[(side - 1 - y) * stride + k];
            px[(side - 1 - y) * stride + k] = t;
        }
}

static void what_has_no_legs_has_few(void **state)
{
    (void)state;
    for (int side = 32; side <= 64; side += 32) {
        double n = share("train", side, 3, -1, noise), b = share("train", side, 3, -1, blur),
               u = share("train", side, 3, -1, upside_down);
        print_message("%d: noise %.4f, blurred %.4f, upside down %.4f\n", side, n, b, u);
        assert_true(n <= 0.01);
        assert_true(b <= 0.25);
        assert_true(u <= 0.15);
    }
}

/* How many of MOST figures show each count; drawn as the data set draws, with the shapes of one leg left out (`cut`),
 * or with the legs of each pair one behind the other (`joined`). */
static void counts_of(int side, bool cut, bool joined, int *counts)
{
    static uint8_t px[SIDE * SIDE * 3];
    memset(counts, 0, 16 * sizeof *counts);
    for (int i = 0; i < MOST; i++) {
        chance c = {99, (uint64_t)i, 1};
        figure_scene s = {.scale = 0.5f, .cosine = 1, .mirror = 1, .tx = 0.45f, .ty = 0.9f, .horizon = 0.7f};
        coat k = {.base = {0.5f, 0.3f, 0.16f}, .second = {0.2f, 0.1f, 0.05f}, .dark = {0.15f, 0.12f, 0.12f}};
        s.sky_top = s.sky_low = (rgb){0.6f, 0.75f, 0.9f};
        s.ground_far = s.ground_near = (rgb){0.8f, 0.85f, 0.6f};
        s.shadow[2] = s.shadow[3] = 1e-3f;
        int animal = i % QUADRUPEDS, away = i / QUADRUPEDS % 4, seen = 0, kept = 0;
        pose p = sag_quadruped_pose(&c, animal);
        if (joined) p.spread_hind = p.spread_front = 0;
        sag_quadruped_draw(&s, &p, &k, animal, &c);
        for (int j = 0; j < s.n; j++) { /* three shapes a leg */
            bool dropped = s.shape[j].leg && seen++ / 3 == away && cut;
            if (!dropped) s.shape[kept++] = s.shape[j];
        }
        assert_int_equal(seen, 12);
        s.n = kept;
        sag_figure_finish(&s);
        sag_figure_draw(&s, px, side, side, 3);
        counts[legs_of(px, side, side, 3, 4)]++;
    }
}

static void legs_that_lack_are_missed(void **state)
{
    (void)state;
    int counts[16];
    for (int side = 32; side <= 64; side += 32) {
        counts_of(side, false, false, counts);
        print_message("%d: of %d whole figures %d have four\n", side, MOST, counts[4]);
        assert_true(counts[4] >= 0.97 * MOST);
        counts_of(side, true, false, counts);
        print_message("%d: of %d with a leg cut off %d have three, %d four\n", side, MOST, counts[3], counts[4]);
        assert_true(counts[3] >= 0.9 * MOST);
        assert_true(counts[4] <= 0.1 * MOST); /* an elephant's trunk stands in for a leg at 32 */
        counts_of(side, false, true, counts);
        print_message("%d: of %d with pairs joined %d have two, %d four\n", side, MOST, counts[2], counts[4]);
        assert_true(counts[2] >= 0.85 * MOST);
        assert_true(counts[4] <= 0.02 * MOST);
    }
}

/* ---------------------------------------------------------------------------------------------- contract */

static void any_threads_and_bad_sizes(void **state)
{
    (void)state;
    enum { N = 600 };
    static uint8_t px[N * SIDE * SIDE];
    int32_t expected[N], one[N], three[N];
    for (int i = 0; i < N; i++) {
        draw_stilts(px + i * SIDE * SIDE, 1 + i % 5, 3, 8, true, false);
        expected[i] = 4;
    }
    sag_pictures p = {px, N, SIDE, SIDE, 1};
    assert_ok(sag_legs(&p, expected, 1, one));
    assert_ok(sag_legs(&p, expected, 3, three));
    assert_memory_equal(one, three, sizeof one);
    for (int i = 0; i < N; i++) assert_int_equal(one[i], 1 + i % 5);
    p.n = 0;
    assert_ok(sag_legs(&p, expected, 1, one));
    p.width = 8;
    assert_fails(sag_legs(&p, expected, 1, one), SAG_ERR_SHAPE, "64x8 with 1 channels");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stilts_are_counted),
        cmocka_unit_test(stilts_that_touch_are_one),
        cmocka_unit_test(without_ground_nothing_stands),
        cmocka_unit_test(equal_votes_go_to_the_expected),
        cmocka_unit_test(real_figures_have_their_legs),
        cmocka_unit_test(what_has_no_legs_has_few),
        cmocka_unit_test(legs_that_lack_are_missed),
        cmocka_unit_test(any_threads_and_bad_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
