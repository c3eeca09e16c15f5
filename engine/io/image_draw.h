/*
 * image_draw.h - what sheets of samples and attention maps are made of: grids, heat maps, marks, labels.
 *
 * Drawing is clipped to the image, so no position is an error. Colours are R, G, B; a grey image takes their
 * luma.
 */
#ifndef SAG_IMAGE_DRAW_H
#define SAG_IMAGE_DRAW_H

#include "engine/io/image.h"

typedef struct sag_color {
    uint8_t r, g, b;
} sag_color;

void sag_image_fill(sag_image *image, sag_color color);
/* The outline of a rectangle, `thickness` pixels inwards. */
void sag_image_draw_rect(sag_image *image, int y, int x, int height, int width, int thickness, sag_color color);
/* A plus sign of arms `radius` around (y, x). */
void sag_image_draw_cross(sag_image *image, int y, int x, int radius, sag_color color);
/* A straight line with round ends between the centres of two pixels, `thickness` pixels wide with soft edges; with
 * equal ends a disc. The colour covers what is there by `alpha`, 0 to 1. */
void sag_image_draw_line(sag_image *image, int y0, int x0, int y1, int x1, float thickness, float alpha,
                         sag_color color);
/* Copies src over dst with its corner at (y, x), converting grey and RGB. */
void sag_image_paste(sag_image *dst, const sag_image *src, int y, int x);
/* dst = (1 - alpha) dst + alpha src, equal sizes and channels; alpha in [0, 1]. */
sag_status sag_image_blend(sag_image *dst, const sag_image *src, float alpha);

/* Whole-number enlargement: every pixel becomes factor x factor. Smooth enlargement is sag_image_resize. */
sag_status sag_image_enlarge(const sag_image *image, int factor, sag_image *out);
/* n images [n][height][width][channels] in rows of `columns`, `pad` pixels of `background` around and between
 * them. */
sag_status sag_image_grid(const uint8_t *pixels, int64_t n, int height, int width, int channels, int columns, int pad,
                          sag_color background, sag_image *out);

/* values[height][width] through a perceptual map (dark blue, green, yellow), low..high onto its ends; low ==
 * high asks for the range of the values themselves. NaN is drawn grey. */
sag_status sag_image_heatmap(const float *values, int height, int width, float low, float high, sag_image *out);
sag_color sag_image_heat(float t); /* t in [0, 1] */

/* A fixed 5x7 font (6x8 cells) for printable ASCII, enlarged `scale` times; '\n' starts a line, others are
 * drawn as a box. */
#define SAG_FONT_CELL_WIDTH 6
#define SAG_FONT_CELL_HEIGHT 8
void sag_image_draw_text(sag_image *image, int y, int x, const char *text, int scale, sag_color color);
void sag_image_text_size(const char *text, int scale, int *height, int *width);

#endif
