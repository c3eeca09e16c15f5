/*
 * terminal_chafa.c - what libchafa does for terminal_picture.c: it knows terminals by their environment, and turns
 * pixels into characters, sixels, kitty's or iTerm2's graphics. Without it these functions do nothing but say so.
 */
#include "engine/io/terminal_picture.h"

#include <string.h>

#ifdef SAGAN_WITH_CHAFA
#include <chafa.h>

#define TEXT_OF(x) #x
#define VERSION_TEXT(a, b, c) "chafa " TEXT_OF(a) "." TEXT_OF(b) "." TEXT_OF(c)

const char *sag_picture_library(void)
{
    return VERSION_TEXT(CHAFA_MAJOR_VERSION, CHAFA_MINOR_VERSION, CHAFA_MICRO_VERSION);
}

static ChafaTermInfo *terminal_info(void)
{
    gchar **environment = g_get_environ();
    ChafaTermInfo *info = chafa_term_db_detect(chafa_term_db_get_default(), environment);
    g_strfreev(environment);
    return info;
}

void sag_chafa_detect(sag_terminal *terminal)
{
    ChafaTermInfo *info = terminal_info();
    terminal->mode = chafa_term_info_have_seq(info, CHAFA_TERM_SEQ_BEGIN_KITTY_IMMEDIATE_IMAGE_V1) ? SAG_PICTURE_KITTY
                     : chafa_term_info_have_seq(info, CHAFA_TERM_SEQ_BEGIN_SIXELS)                 ? SAG_PICTURE_SIXEL
                     : chafa_term_info_have_seq(info, CHAFA_TERM_SEQ_BEGIN_ITERM2_IMAGE)           ? SAG_PICTURE_ITERM2
                                                                                         : SAG_PICTURE_SYMBOLS;
    if (chafa_term_info_have_seq(info, CHAFA_TERM_SEQ_SET_COLOR_FGBG_DIRECT))
        terminal->colors = SAG_TERMINAL_TRUECOLOR;
    else if (chafa_term_info_have_seq(info, CHAFA_TERM_SEQ_SET_COLOR_FGBG_256))
        terminal->colors = 256;
    else if (chafa_term_info_have_seq(info, CHAFA_TERM_SEQ_SET_COLOR_FGBG_16))
        terminal->colors = 16;
    chafa_term_info_unref(info);
}

static ChafaCanvasMode canvas_mode(const sag_terminal *terminal)
{
    int colors = terminal->colors;
    /* Pixels have a palette of their own. */
    if (colors >= SAG_TERMINAL_TRUECOLOR || terminal->mode >= SAG_PICTURE_SIXEL) return CHAFA_CANVAS_MODE_TRUECOLOR;
    if (colors >= 256) return CHAFA_CANVAS_MODE_INDEXED_240; /* the first 16 look different everywhere */
    return colors >= 16 ? CHAFA_CANVAS_MODE_INDEXED_16 : CHAFA_CANVAS_MODE_FGBG_BGFG;
}

static ChafaPixelMode pixel_mode(sag_picture_mode mode)
{
    switch (mode) {
    case SAG_PICTURE_SIXEL: return CHAFA_PIXEL_MODE_SIXELS;
    case SAG_PICTURE_KITTY: return CHAFA_PIXEL_MODE_KITTY;
    case SAG_PICTURE_ITERM2: return CHAFA_PIXEL_MODE_ITERM2;
    default: return CHAFA_PIXEL_MODE_SYMBOLS;
    }
}

static ChafaCanvasConfig *canvas_config(const sag_terminal *terminal, int columns, int rows)
{
    ChafaCanvasConfig *config = chafa_canvas_config_new();
    /* Only what the fonts of every terminal have. */
    ChafaSymbolMap *symbols = chafa_symbol_map_new();
    chafa_symbol_map_add_by_tags(symbols, CHAFA_SYMBOL_TAG_SPACE | CHAFA_SYMBOL_TAG_BLOCK | CHAFA_SYMBOL_TAG_BORDER);
    chafa_canvas_config_set_symbol_map(config, symbols);
    chafa_symbol_map_unref(symbols);
    chafa_canvas_config_set_geometry(config, columns, rows);
    chafa_canvas_config_set_cell_geometry(config, terminal->cell_width, terminal->cell_height);
    chafa_canvas_config_set_canvas_mode(config, canvas_mode(terminal));
    chafa_canvas_config_set_pixel_mode(config, pixel_mode(terminal->mode));
    if (terminal->colors <= 16 && terminal->mode == SAG_PICTURE_SYMBOLS)
        chafa_canvas_config_set_dither_mode(config, CHAFA_DITHER_MODE_DIFFUSION);
    return config;
}

sag_status sag_chafa_picture(const sag_image *rgb, const sag_terminal *terminal, int columns, int rows, char **text,
                             size_t *size)
{
    ChafaCanvasConfig *config = canvas_config(terminal, columns, rows);
    ChafaCanvas *canvas = chafa_canvas_new(config);
    chafa_canvas_draw_all_pixels(canvas, CHAFA_PIXEL_RGB8, rgb->pixels, rgb->width, rgb->height, rgb->width * 3);
    /* A mode that was asked for has to work where the terminal is not known for it. */
    ChafaTermInfo *info = terminal_info();
    ChafaTermInfo *fallback = chafa_term_db_get_fallback_info(chafa_term_db_get_default());
    chafa_term_info_supplement(info, fallback);
    GString *made = chafa_canvas_print(canvas, info);
    chafa_term_info_unref(fallback);
    chafa_term_info_unref(info);
    chafa_canvas_unref(canvas);
    chafa_canvas_config_unref(config);

    bool newline = made->len == 0 || made->str[made->len - 1] != '\n';
    *size = made->len + newline;
    *text = sag_host_alloc(*size + 1);
    if (*text) {
        memcpy(*text, made->str, made->len);
        if (newline) (*text)[made->len] = '\n';
    }
    g_string_free(made, TRUE);
    if (!*text) SAG_FAIL(SAG_ERR_MEMORY, "picture: no memory for %d x %d cells", columns, rows);
    return SAG_OK;
}

#else

const char *sag_picture_library(void)
{
    return NULL;
}

void sag_chafa_detect(sag_terminal *terminal)
{
    (void)terminal;
}

sag_status sag_chafa_picture(const sag_image *rgb, const sag_terminal *terminal, int columns, int rows, char **text,
                             size_t *size)
{
    (void)rgb, (void)columns, (void)rows, (void)text, (void)size;
    SAG_FAIL(
        SAG_ERR_UNSUPPORTED,
        "pictures as %s need libchafa, which this program was built without: install libchafa-dev and libglib2.0-dev "
        "and build it again; 'half' always works",
        sag_picture_mode_name(terminal->mode));
}

#endif
