/* Pictures for terminals: how large they become, half blocks, the nearest of 240 colours, libchafa's modes. */
#include "engine/io/terminal_picture.h"
#include "image_pattern.h"

static sag_terminal terminal(sag_picture_mode mode, int colors, int columns, int rows)
{
    return (sag_terminal){
        .mode = mode, .colors = colors, .columns = columns, .rows = rows, .cell_width = 8, .cell_height = 16};
}

static sag_image flat(int height, int width, int channels, const uint8_t *pixel)
{
    sag_image im;
    assert_ok(sag_image_create(height, width, channels, &im));
    for (size_t i = 0; i < sag_image_bytes(&im); i++) im.pixels[i] = pixel[i % (size_t)channels];
    return im;
}

static void sizes_keep_the_proportions(void **state)
{
    (void)state;
    static const struct {
        int width, height, columns, rows, want_columns, want_rows;
    } cases[] = {
        {32, 32, 80, 20, 40, 20}, /* the rows bound */
        {200, 20, 80, 20, 80, 4}, /* the columns bound */
        {8, 8, 200, 100, 16, 8},  /* a pixel is never wider than two cells */
        {1, 1, 80, 24, 2, 1},     /* at least one cell */
        {1000, 1, 80, 24, 80, 1}, /* ... in both directions */
        {1, 1000, 80, 24, 1, 24}, {16384, 16384, 80, 24, 48, 24},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sag_image im = {.width = cases[i].width, .height = cases[i].height, .channels = 3};
        sag_terminal t = terminal(SAG_PICTURE_HALF, 256, cases[i].columns, cases[i].rows);
        int columns, rows;
        sag_terminal_picture_cells(&im, &t, &columns, &rows);
        if (columns != cases[i].want_columns || rows != cases[i].want_rows)
            fail_msg("case %zu: %d x %d, wanted %d x %d", i, columns, rows, cases[i].want_columns, cases[i].want_rows);
    }
}

static void half_blocks_are_two_pixels(void **state)
{
    (void)state;
    /* Red over blue, green over white, in two cells that are two pixels high: every pixel is its own half. */
    static uint8_t pixels[] = {255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255};
    sag_image im = {.pixels = pixels, .height = 2, .width = 2, .channels = 3};
    sag_terminal t = terminal(SAG_PICTURE_HALF, SAG_TERMINAL_TRUECOLOR, 2, 1);
    char *text;
    size_t size;
    assert_ok(sag_terminal_picture(&im, &t, &text, &size));
    assert_string_equal(text, "\033[38;2;255;0;0m\033[48;2;0;0;255m\xe2\x96\x80"
                              "\033[38;2;0;255;0m\033[48;2;255;255;255m\xe2\x96\x80\033[0m\n");
    assert_int_equal(size, strlen(text));
    sag_host_free(text);

    /* A grey picture, larger than a pixel a cell: a colour is named once in each row. */
    static const uint8_t grey[] = {77};
    im = flat(4, 4, 1, grey);
    t = terminal(SAG_PICTURE_HALF, SAG_TERMINAL_TRUECOLOR, 3, 2);
    assert_ok(sag_terminal_picture(&im, &t, &text, &size));
    assert_string_equal(text, "\033[38;2;77;77;77m\033[48;2;77;77;77m\xe2\x96\x80\xe2\x96\x80\xe2\x96\x80\033[0m\n"
                              "\033[38;2;77;77;77m\033[48;2;77;77;77m\xe2\x96\x80\xe2\x96\x80\xe2\x96\x80\033[0m\n");
    sag_host_free(text);
    sag_image_free(&im);
}

/* What the 240 fixed colours of a terminal are: a cube of six levels, then a ramp of greys. */
static int distance_to(int index, const uint8_t *p)
{
    static const int levels[] = {0, 95, 135, 175, 215, 255};
    int color[3];
    for (int c = 0; c < 3; c++)
        color[c] = index >= 232 ? 8 + 10 * (index - 232) : levels[(index - 16) / (c == 0 ? 36 : c == 1 ? 6 : 1) % 6];
    int d = 0;
    for (int c = 0; c < 3; c++) d += (color[c] - p[c]) * (color[c] - p[c]);
    return d;
}

static void fewer_colors_are_the_nearest(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4096; i++) {
        uint8_t pixel[3];
        for (unsigned c = 0; c < 3; c++) pixel[c] = (uint8_t)((i * 2654435761u) >> (8 * c + (i & 7)));
        if (i % 5 == 0) pixel[1] = pixel[2] = pixel[0];
        sag_image im = flat(1, 1, 3, pixel);
        sag_terminal t = terminal(SAG_PICTURE_HALF, 256, 1, 1);
        char *text;
        size_t size;
        int fg, bg, best = 1 << 30;
        assert_ok(sag_terminal_picture(&im, &t, &text, &size));
        assert_int_equal(sscanf(text, "\033[38;5;%dm\033[48;5;%dm", &fg, &bg), 2);
        for (int k = 16; k < 256; k++)
            if (distance_to(k, pixel) < best) best = distance_to(k, pixel);
        assert_int_equal(distance_to(fg, pixel), best);
        assert_int_equal(fg, bg);
        sag_host_free(text);
        sag_image_free(&im);
    }
}

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

static void other_modes_are_libchafas(void **state)
{
    (void)state;
    sag_image im = pattern(12, 16, 3);
    char *text;
    size_t size;
    for (int mode = SAG_PICTURE_SYMBOLS; mode < SAG_PICTURE_MODE_COUNT; mode++) {
        sag_terminal t = terminal((sag_picture_mode)mode, SAG_TERMINAL_TRUECOLOR, 20, 8);
        if (!sag_picture_library()) {
            assert_fails(sag_terminal_picture(&im, &t, &text, &size), SAG_ERR_UNSUPPORTED, "install libchafa-dev");
            continue;
        }
        assert_ok(sag_terminal_picture(&im, &t, &text, &size));
        assert_int_equal(size, strlen(text));
        assert_int_equal(text[size - 1], '\n');
        int lines = 0;
        for (size_t i = 0; i < size; i++) lines += text[i] == '\n';
        if (mode == SAG_PICTURE_SYMBOLS) assert_int_equal(lines, 8);
        /* Raster attributes of sixels: 1:1 pixels, 20 columns of 8 and 8 rows of 16 at most. */
        if (mode == SAG_PICTURE_SIXEL) assert_true(starts_with(text, "\033P") && strstr(text, "q\"1;1;160;12"));
        if (mode == SAG_PICTURE_KITTY) assert_true(starts_with(text, "\033_G") && strstr(text, ",c=20,r=8"));
        if (mode == SAG_PICTURE_ITERM2)
            assert_true(starts_with(text, "\033]1337;File=") && strstr(text, "width=20;height=8"));
        sag_host_free(text);
    }
    sag_image_free(&im);
}

static void failures_leave_nothing(void **state)
{
    (void)state;
    sag_image im = pattern(9, 7, 1);
    sag_terminal t = terminal(SAG_PICTURE_HALF, 256, 0, 8);
    char *text;
    size_t size;
    assert_fails(sag_terminal_picture(&im, &t, &text, &size), SAG_ERR_ARG, "a terminal of 0 x 8 cells");
    for (int mode = 0; mode <= (sag_picture_library() ? SAG_PICTURE_SYMBOLS : SAG_PICTURE_HALF); mode++) {
        t = terminal((sag_picture_mode)mode, 256, 10, 8);
        int64_t before = sag_debug_live_host_blocks();
        int failed = 0;
        for (;;) {
            sag_debug_fail_allocation(failed + 1);
            sag_status status = sag_terminal_picture(&im, &t, &text, &size);
            sag_debug_fail_allocation(0);
            if (status == SAG_OK) break;
            assert_int_equal(status, SAG_ERR_MEMORY);
            assert_null(text);
            assert_int_equal(sag_debug_live_host_blocks(), before);
            failed++;
        }
        assert_in_range(failed, 3, 50);
        sag_host_free(text);
        assert_int_equal(sag_debug_live_host_blocks(), before);
    }
    sag_image_free(&im);
}

static void terminals_are_known_by_the_environment(void **state)
{
    (void)state;
    sag_terminal t;
    static const char *const variables[] = {"TMUX",       "STY", "COLORTERM", "TERM_PROGRAM", "KITTY_WINDOW_ID",
                                            "VTE_VERSION"};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) unsetenv(variables[i]);
    setenv("TERM", "xterm", 1);
    setenv("COLORTERM", "truecolor", 1);
    sag_terminal_detect(&t);
    assert_int_equal(t.colors, SAG_TERMINAL_TRUECOLOR);
    assert_int_equal(t.mode, sag_picture_library() ? SAG_PICTURE_SYMBOLS : SAG_PICTURE_HALF);
    assert_true(t.columns > 0 && t.rows > 0 && t.cell_width > 0 && t.cell_height > 0);
    unsetenv("COLORTERM");
    sag_terminal_detect(&t);
    assert_int_equal(t.colors, 256);
    if (!sag_picture_library()) return;
    setenv("TERM", "xterm-kitty", 1);
    sag_terminal_detect(&t);
    assert_int_equal(t.mode, SAG_PICTURE_KITTY);
    setenv("TERM", "mlterm", 1);
    sag_terminal_detect(&t);
    assert_int_equal(t.mode, SAG_PICTURE_SIXEL);
    setenv("TMUX", "/tmp/socket,1,0", 1); /* the terminal outside does not see what is drawn inside */
    sag_terminal_detect(&t);
    assert_int_equal(t.mode, SAG_PICTURE_SYMBOLS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_keep_the_proportions),   cmocka_unit_test(half_blocks_are_two_pixels),
        cmocka_unit_test(fewer_colors_are_the_nearest), cmocka_unit_test(other_modes_are_libchafas),
        cmocka_unit_test(failures_leave_nothing),       cmocka_unit_test(terminals_are_known_by_the_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
