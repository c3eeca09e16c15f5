/* image.h - what the two files of sagan.core.image share: tensors seen as images, and checks of small
 * arguments. */
#ifndef LSAG_IMAGE_H
#define LSAG_IMAGE_H

#include "bindings/lsag.h"
#include "engine/io/image.h"

/* One or several images that lie in a tensor. */
typedef struct lsag_images {
    uint8_t *pixels;
    int64_t count;
    bool several; /* rank 4 */
    int height, width, channels;
} lsag_images;

sag_image lsag_image_of(const lsag_images *s, int64_t i);

/* Pushes an empty image that is freed when it is collected. */
sag_image *lsag_push_image(lua_State *L);
/*
 * The images in argument `index`: {H,W,C}, or {N,H,W,C} if `several`. May push a host copy, which then has to
 * stay on the stack. `write`: the pixels will be changed.
 */
lsag_images lsag_check_images(lua_State *L, int index, bool several, bool write);
sag_image lsag_check_image(lua_State *L, int index, bool write);
/* Pushes a new tensor and returns its pixels. */
uint8_t *lsag_push_pixels(lua_State *L, bool several, int64_t n, int height, int width, int channels);
/* Pushes a tensor with the contents of im and empties im; returns 1. */
int lsag_push_picture(lua_State *L, sag_image *im);

int lsag_check_int(lua_State *L, int index, int low, int high);
int lsag_opt_int(lua_State *L, int index, int low, int high, int fallback);

/* image_draw.c: adds its functions to the table on top of the stack. */
void lsag_add_image_drawing(lua_State *L);

#endif
