/*
 * terminal_picture.h - an image as the text that makes a terminal show it, and what the terminal at hand can do.
 *
 * SAG_PICTURE_HALF is ours and always there: "▀" in two colours is two pixels, one above the other. The other modes are
 * libchafa's (terminal_chafa.c); in a build without it they are SAG_ERR_UNSUPPORTED.
 */
#ifndef SAG_TERMINAL_PICTURE_H
#define SAG_TERMINAL_PICTURE_H

#include "engine/io/image.h"

typedef enum sag_picture_mode {
    SAG_PICTURE_HALF,
    SAG_PICTURE_SYMBOLS, /* Unicode blocks and lines, those that come nearest to each cell's pixels */
    SAG_PICTURE_SIXEL,   /* from here on real pixels */
    SAG_PICTURE_KITTY,
    SAG_PICTURE_ITERM2,
    SAG_PICTURE_MODE_COUNT
} sag_picture_mode;

#define SAG_TERMINAL_TRUECOLOR (1 << 24)

typedef struct sag_terminal {
    sag_picture_mode mode;
    int colors;                  /* 2, 16, 256 or SAG_TERMINAL_TRUECOLOR */
    int columns, rows;           /* cells that there are; at least 1 */
    int cell_width, cell_height; /* pixels of one cell; 8 x 16 where the terminal does not say */
} sag_terminal;

const char *sag_picture_mode_name(sag_picture_mode mode); /* "half", "symbols", ... */
/* "chafa 1.12.4", or NULL in a build without it. */
const char *sag_picture_library(void);

/*
 * From the environment (TERM, COLORTERM and what terminals add) and the size of the terminal on standard output, error or
 * input; 80 x 24 where none of them is one. Inside tmux and screen, which pass no pixels on, the mode is one of characters.
 */
void sag_terminal_detect(sag_terminal *out);

/*
 * The cells that a picture takes: as large as fits into the terminal's, in the image's proportions, but one pixel never
 * wider than two cells.
 */
void sag_terminal_picture_cells(const sag_image *image, const sag_terminal *terminal, int *columns, int *rows);

/*
 * The text of a picture of that size, ending in a newline, with a zero byte behind it. *text belongs to the caller
 * (sag_host_free). The cursor is to stand at the start of a line.
 */
sag_status sag_terminal_picture(const sag_image *image, const sag_terminal *terminal, char **text, size_t *size);

/* terminal_chafa.c: the parts that only libchafa knows. detect leaves what it is not sure of as it is. */
void sag_chafa_detect(sag_terminal *terminal);
sag_status sag_chafa_picture(const sag_image *rgb, const sag_terminal *terminal, int columns, int rows, char **text,
                             size_t *size);

#endif
