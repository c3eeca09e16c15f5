/*
 * figure.h - flat figures made of tapered capsules and ellipses, drawn with analytic antialiasing at any resolution.
 *
 * A figure lives in coordinates of its own (x towards its head, y up, feet at y = 0); the scene places it in the unit
 * square. Edges are soft over one pixel by signed distance, so nothing is supersampled and no memory is needed.
 */
#ifndef SAG_FIGURE_H
#define SAG_FIGURE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct rgb {
    float r, g, b; /* 0..1 */
} rgb;

typedef enum figure_pattern { FIGURE_PLAIN, FIGURE_STRIPES, FIGURE_PATCHES, FIGURE_TILES, FIGURE_WOOL } figure_pattern;

typedef struct figure_shape {
    bool ellipse;
    bool leg;     /* part of a leg below the body, for sag_figure_legs */
    float x0, y0; /* capsule: first end; ellipse: centre */
    float x1, y1; /* capsule: second end; ellipse: cosine and sine of its angle */
    float r0, r1; /* radii at the two ends; ellipse: its half axes */
    rgb color;
    float volume; /* how much lighter above and darker below than `color` */
    figure_pattern pattern;
    float box[4]; /* lowest x, y, highest x, y; set by sag_figure_finish */
} figure_shape;

#define FIGURE_SHAPES 96
#define FIGURE_PATCH_COUNT 7

typedef struct figure_scene {
    figure_shape shape[FIGURE_SHAPES]; /* back to front */
    int n;
    /* the coat's second colour and where it is */
    rgb coat2;
    float stripe_pitch, stripe_phase, tile_pitch;
    uint32_t tile_seed;
    float patch[FIGURE_PATCH_COUNT][4]; /* x, y, half axes */
    /* figure to unit square: u = mirror * scale * rot(x, y) + (tx, ty), v downward */
    float scale, cosine, sine, tx, ty, mirror;
    /* what is behind */
    rgb sky_top, sky_low, ground_far, ground_near;
    float horizon;    /* v; above 1: no ground */
    float hill[2][3]; /* u, height, width; height 0: none */
    rgb hill_color;
    float shadow[4]; /* u, v, half axes */
} figure_scene;

figure_shape *sag_figure_capsule(figure_scene *s, float x0, float y0, float r0, float x1, float y1, float r1,
                                 rgb color);
figure_shape *sag_figure_ellipse(figure_scene *s, float x, float y, float rx, float ry, float angle, rgb color);
/* Extent of all shapes in the figure's coordinates, after the scene's rotation. */
void sag_figure_bounds(const figure_scene *s, float *x0, float *y0, float *x1, float *y1);
void sag_figure_finish(figure_scene *s);
/*
 * Legs as the eye counts them: stretches of leg on the horizontal line at height y with at least `gap` between them.
 * *narrowest: the narrowest gap (a large number if there is none).
 */
int sag_figure_legs(const figure_scene *s, float y, float gap, float *narrowest);
void sag_figure_draw(const figure_scene *s, uint8_t *pixels, int height, int width, int channels);

rgb sag_rgb_mix(rgb a, rgb b, float t);
rgb sag_rgb_scale(rgb a, float k);
float sag_rgb_luma(rgb a);

#endif
