/*
 * terminal_picture.c - pictures for terminals: what the terminal can do, how large a picture becomes, half blocks.
 * The other modes are terminal_chafa.c.
 */
#include "engine/io/terminal_picture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/io/image_draw.h"

const char *sag_picture_mode_name(sag_picture_mode mode)
{
    static const char *const names[] = {"half", "symbols", "sixel", "kitty", "iterm2"};
    return mode < SAG_PICTURE_MODE_COUNT ? names[mode] : "?";
}

/* ------------------------------------------------------------------------------------------ the terminal */

static bool holds(const char *variable, const char *part)
{
    const char *value = getenv(variable);
    return value && strstr(value, part);
}

void sag_terminal_detect(sag_terminal *out)
{
    *out = (sag_terminal){.columns = 80, .rows = 24, .cell_width = 8, .cell_height = 16};
    out->colors = holds("COLORTERM", "truecolor") || holds("COLORTERM", "24bit") ? SAG_TERMINAL_TRUECOLOR : 256;
    sag_chafa_detect(out);
    if (getenv("TMUX") || getenv("STY") || holds("TERM", "tmux") || holds("TERM", "screen"))
        out->mode = sag_picture_library() ? SAG_PICTURE_SYMBOLS : SAG_PICTURE_HALF;
    static const int streams[] = {STDOUT_FILENO, STDERR_FILENO, STDIN_FILENO};
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        struct winsize w;
        if (ioctl(streams[i], TIOCGWINSZ, &w) != 0 || w.ws_col == 0 || w.ws_row == 0) continue;
        out->columns = w.ws_col;
        out->rows = w.ws_row;
        int width = w.ws_xpixel / w.ws_col, height = w.ws_ypixel / w.ws_row;
        if (width > 2 && height > 2) {
            out->cell_width = width;
            out->cell_height = height;
        }
        return;
    }
}

/* -------------------------------------------------------------------------------------------------- size */

static int rounded(double cells, int most)
{
    if (cells < 1) return 1;
    return cells < most ? (int)(cells + 0.5) : most;
}

void sag_terminal_picture_cells(const sag_image *image, const sag_terminal *terminal, int *columns, int *rows)
{
    double zoom = 2.0 * terminal->cell_width; /* terminal pixels for a pixel of the image */
    double across = (double)terminal->columns * terminal->cell_width / image->width;
    double down = (double)terminal->rows * terminal->cell_height / image->height;
    if (across < zoom) zoom = across;
    if (down < zoom) zoom = down;
    *columns = rounded(image->width * zoom / terminal->cell_width, terminal->columns);
    *rows = rounded(image->height * zoom / terminal->cell_height, terminal->rows);
}

/* ------------------------------------------------------------------------------------------- half blocks */

#define HALF_BLOCK "\xe2\x96\x80"
#define CELL_BYTES 48 /* two colours, each at most "\033[38;2;255;255;255m", and the block */
#define ROW_BYTES 8   /* "\033[0m\n" */

/* The entry of the 6 x 6 x 6 cube (from 16) or the grey ramp (from 232) that is nearest. */
static int indexed(const uint8_t *p)
{
    static const int levels[] = {0, 95, 135, 175, 215, 255};
    int cube = 0, off_cube = 0;
    for (int c = 0; c < 3; c++) {
        int best = 0;
        for (int i = 1; i < 6; i++)
            if (abs(levels[i] - p[c]) < abs(levels[best] - p[c])) best = i;
        cube = cube * 6 + best;
        off_cube += (levels[best] - p[c]) * (levels[best] - p[c]);
    }
    int grey = (p[0] + p[1] + p[2]) / 3, step = grey < 8 ? 0 : grey > 238 ? 23 : (grey - 3) / 10, off_grey = 0;
    for (int c = 0; c < 3; c++) off_grey += (8 + 10 * step - p[c]) * (8 + 10 * step - p[c]);
    return off_grey < off_cube ? 232 + step : 16 + cube;
}

static char *put_color(char *at, size_t room, int layer, const uint8_t *p, bool truecolor)
{
    int n = truecolor ? snprintf(at, room, "\033[%d;2;%d;%d;%dm", layer, p[0], p[1], p[2])
                      : snprintf(at, room, "\033[%d;5;%dm", layer, indexed(p));
    return at + n;
}

/* pixels: RGB, two rows for each row of cells. A colour is written where it changes. */
static void put_half_blocks(const sag_image *pixels, bool truecolor, char *at, char *end)
{
    size_t stride = (size_t)pixels->width * 3;
    for (int y = 0; y + 1 < pixels->height; y += 2) {
        const uint8_t *upper = pixels->pixels + (size_t)y * stride, *lower = upper + stride;
        for (int x = 0; x < pixels->width; x++, upper += 3, lower += 3) {
            if (x == 0 || memcmp(upper, upper - 3, 3) != 0)
                at = put_color(at, (size_t)(end - at), 38, upper, truecolor);
            if (x == 0 || memcmp(lower, lower - 3, 3) != 0)
                at = put_color(at, (size_t)(end - at), 48, lower, truecolor);
            memcpy(at, HALF_BLOCK, 3);
            at += 3;
        }
        memcpy(at, "\033[0m\n", 5);
        at += 5;
    }
    *at = '\0';
}

static sag_status half_picture(const sag_image *rgb, const sag_terminal *terminal, int columns, int rows, char **text,
                               size_t *size)
{
    sag_image pixels;
    SAG_TRY(sag_image_resize(rgb, 2 * rows, columns, &pixels));
    size_t room = (size_t)rows * ((size_t)columns * CELL_BYTES + ROW_BYTES) + 1;
    *text = sag_host_alloc(room);
    sag_status status = SAG_OK;
    if (*text) {
        put_half_blocks(&pixels, terminal->colors >= SAG_TERMINAL_TRUECOLOR, *text, *text + room);
        *size = strlen(*text);
    } else {
        status = sag_fail(SAG_ERR_MEMORY, "picture: no memory for %d x %d cells", columns, rows);
    }
    sag_image_free(&pixels);
    return status;
}

/* -------------------------------------------------------------------------------------------------- main */

/* Pixels as squares: the smooth enlargement that follows then shows them as they are. */
static sag_status crisp(const sag_image *rgb, int pixels_across, sag_image *out)
{
    int factor = pixels_across / rgb->width, most = SAG_IMAGE_MAX_SIDE / rgb->height;
    if (factor > most) factor = most;
    return sag_image_enlarge(rgb, factor > 1 ? factor : 1, out);
}

sag_status sag_terminal_picture(const sag_image *image, const sag_terminal *terminal, char **text, size_t *size)
{
    *text = NULL;
    *size = 0;
    if (terminal->columns < 1 || terminal->rows < 1 || terminal->cell_width < 1 || terminal->cell_height < 1)
        SAG_FAIL(SAG_ERR_ARG, "picture: a terminal of %d x %d cells of %d x %d pixels", terminal->columns,
                 terminal->rows, terminal->cell_width, terminal->cell_height);
    int columns, rows;
    sag_terminal_picture_cells(image, terminal, &columns, &rows);
    sag_image rgb, large = {0};
    SAG_TRY(sag_image_convert(image, 3, &rgb));
    bool half = terminal->mode == SAG_PICTURE_HALF;
    sag_status status = crisp(&rgb, half ? columns : columns * terminal->cell_width, &large);
    sag_image_free(&rgb);
    if (status != SAG_OK) return status;
    status = half ? half_picture(&large, terminal, columns, rows, text, size)
                  : sag_chafa_picture(&large, terminal, columns, rows, text, size);
    sag_image_free(&large);
    return status;
}
