/*
 * image.c - sagan.core.image: pictures as u8 tensors {H,W,C} or {N,H,W,C}, C 1 or 3, on the CPU
 * (engine/io/image.h). Drawing is image_draw.c.
 *
 *     local photo = assert(image.read("cat.jpg", 3))
 *     image.text(photo, 1, 1, "cat", 2)
 *     assert(image.write("small.png", image.resize(image.crop_center(photo), 64, 64)))
 *
 * Positions are x, y and count from 1. Colours are {r, g, b} or one number, 0 to 255. What draws, changes its
 * first argument and returns it; everything else makes a new tensor. Tensors of other devices are copied when
 * they are only read.
 */
#include "bindings/image.h"

#include <string.h>

#include "engine/io/gif.h"
#include "engine/io/image_draw.h"

#define IMAGE "sagan.image"
#define BYTES "sagan.image_bytes"

/* ------------------------------------------------------------------------------------- tensors as images */

static int image_gc(lua_State *L)
{
    sag_image_free(lua_touserdata(L, 1));
    return 0;
}

sag_image *lsag_push_image(lua_State *L)
{
    sag_image *im = lua_newuserdatauv(L, sizeof *im, 0);
    *im = (sag_image){0};
    luaL_setmetatable(L, IMAGE);
    return im;
}

sag_image lsag_image_of(const lsag_images *s, int64_t i)
{
    return (sag_image){.pixels = s->pixels + i * s->height * s->width * s->channels,
                       .height = s->height,
                       .width = s->width,
                       .channels = s->channels};
}

lsag_images lsag_check_images(lua_State *L, int index, bool several, bool write)
{
    sag_tensor *t = lsag_check_tensor_of(L, index, SAG_U8, 0);
    sag_shape shape = sag_tensor_shape(t);
    char text[96];
    sag_shape_text(shape, text, sizeof text);
    if (shape.rank != 3 && !(several && shape.rank == 4))
        luaL_argerror(L, index,
                      lua_pushfstring(L, "%s, got %s",
                                      several ? "images are {H,W,C} or {N,H,W,C}" : "an image is {H,W,C}", text));
    int64_t *d = shape.dim + shape.rank - 3;
    if (d[0] > SAG_IMAGE_MAX_SIDE || d[1] > SAG_IMAGE_MAX_SIDE || (d[2] != 1 && d[2] != 3))
        luaL_argerror(L, index,
                      lua_pushfstring(L, "an image has 1 or 3 channels and at most %d pixels a side, got %s",
                                      SAG_IMAGE_MAX_SIDE, text));
    lsag_images s = {.count = shape.rank == 4 ? shape.dim[0] : 1,
                     .several = shape.rank == 4,
                     .height = (int)d[0],
                     .width = (int)d[1],
                     .channels = (int)d[2]};
    if (sag_context_device(sag_tensor_context(t)) == SAG_CPU) {
        s.pixels = sag_tensor_data(t);
    } else {
        sag_dtype dtype;
        if (write) luaL_argerror(L, index, "drawing needs a tensor on the cpu");
        s.pixels = (uint8_t *)(uintptr_t)lsag_push_host(L, t, &dtype); /* only read from here on */
    }
    return s;
}

sag_image lsag_check_image(lua_State *L, int index, bool write)
{
    lsag_images s = lsag_check_images(L, index, false, write);
    return lsag_image_of(&s, 0);
}

uint8_t *lsag_push_pixels(lua_State *L, bool several, int64_t n, int height, int width, int channels)
{
    sag_shape shape = several ? sag_shape4(n, height, width, channels) : sag_shape3(height, width, channels);
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_create(lsag_context_on(L, SAG_CPU), SAG_U8, shape, slot));
    return sag_tensor_data(*slot);
}

int lsag_push_picture(lua_State *L, sag_image *im)
{
    memcpy(lsag_push_pixels(L, false, 1, im->height, im->width, im->channels), im->pixels, sag_image_bytes(im));
    sag_image_free(im);
    return 1;
}

/* ------------------------------------------------------------------------------------------- small arguments
 */

int lsag_check_int(lua_State *L, int index, int low, int high)
{
    lua_Integer v = luaL_checkinteger(L, index);
    if (v < low || v > high) luaL_argerror(L, index, lua_pushfstring(L, "must be %d to %d", low, high));
    return (int)v;
}

int lsag_opt_int(lua_State *L, int index, int low, int high, int fallback)
{
    return lua_isnoneornil(L, index) ? fallback : lsag_check_int(L, index, low, high);
}

/* 1, 3, or 0 for what the file has */
static int opt_channels(lua_State *L, int index)
{
    int channels = lsag_opt_int(L, index, 0, 3, 0);
    luaL_argcheck(L, channels != 2, index, "must be 1, 3, or 0 for what the file has");
    return channels;
}

/* ------------------------------------------------------------------------------------------------ files */

/* read(path [, channels]) -> {H,W,C}: PNG, JPEG or BMP */
static int l_read(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    int channels = opt_channels(L, 2);
    sag_image *im = lsag_push_image(L);
    sag_status status = sag_image_read(path, channels, im);
    return status == SAG_OK ? lsag_push_picture(L, im) : lsag_fail(L, status);
}

/* decode(string [, channels [, name]]) -> {H,W,C}; the name is for the message */
static int l_decode(lua_State *L)
{
    size_t n;
    const char *bytes = luaL_checklstring(L, 1, &n);
    int channels = opt_channels(L, 2);
    const char *name = luaL_optstring(L, 3, "image");
    sag_image *im = lsag_push_image(L);
    sag_status status = sag_image_decode(bytes, n, name, channels, im);
    return status == SAG_OK ? lsag_push_picture(L, im) : lsag_fail(L, status);
}

/* write(path, image) -> true: a PNG */
static int l_write(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1), *dot = strrchr(path, '.');
    if (!dot || strcmp(dot, ".png") != 0) luaL_argerror(L, 1, "pictures are written as PNG, so the name ends in .png");
    sag_image im = lsag_check_image(L, 2, false);
    sag_status status = sag_image_write_png(path, &im);
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_pushboolean(L, 1);
    return 1;
}

static int bytes_gc(lua_State *L)
{
    uint8_t **bytes = lua_touserdata(L, 1);
    sag_host_free(*bytes);
    *bytes = NULL;
    return 0;
}

/* encode_png(image) -> string */
static int l_encode_png(lua_State *L)
{
    sag_image im = lsag_check_image(L, 1, false);
    uint8_t **bytes = lua_newuserdatauv(L, sizeof *bytes, 0);
    *bytes = NULL;
    luaL_setmetatable(L, BYTES);
    size_t n;
    LSAG_TRY(L, sag_image_encode_png(&im, bytes, &n));
    lua_pushlstring(L, (const char *)*bytes, n);
    sag_host_free(*bytes);
    *bytes = NULL;
    return 1;
}

/* write_gif(path, images {N,H,W,C} [, seconds]) -> true: an animation; seconds from one to the next, 0.2 */
static int l_write_gif(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1), *dot = strrchr(path, '.');
    if (!dot || strcmp(dot, ".gif") != 0) luaL_argerror(L, 1, "the name of an animation ends in .gif");
    lsag_images s = lsag_check_images(L, 2, true, false);
    double seconds = luaL_optnumber(L, 3, 0.2);
    luaL_argcheck(L, seconds >= 0 && seconds <= 655, 3, "must be 0 to 655 seconds");
    sag_image *frames = lua_newuserdatauv(L, (size_t)s.count * sizeof *frames, 0);
    for (int64_t i = 0; i < s.count; i++) frames[i] = lsag_image_of(&s, i);
    sag_status status = sag_gif_write(path, frames, s.count, (int)(100 * seconds + 0.5));
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_pushboolean(L, 1);
    return 1;
}

/* ------------------------------------------------------------------------------- one image after another */

typedef struct transform {
    sag_status (*run)(const sag_image *in, const struct transform *t, sag_image *out);
    int height, width, number;
} transform;

static sag_status run_resize(const sag_image *in, const transform *t, sag_image *out)
{
    return sag_image_resize(in, t->height, t->width, out);
}

static sag_status run_crop(const sag_image *in, const transform *t, sag_image *out)
{
    return sag_image_crop(in, (in->height - t->height) / 2, (in->width - t->width) / 2, t->height, t->width, out);
}

static sag_status run_convert(const sag_image *in, const transform *t, sag_image *out)
{
    return sag_image_convert(in, t->number, out);
}

static sag_status run_enlarge(const sag_image *in, const transform *t, sag_image *out)
{
    return sag_image_enlarge(in, t->number, out);
}

static int map_images(lua_State *L, const lsag_images *s, const transform *t)
{
    sag_image *im = lsag_push_image(L);
    uint8_t *to = NULL;
    for (int64_t i = 0; i < s->count; i++) {
        sag_image one = lsag_image_of(s, i);
        LSAG_TRY(L, t->run(&one, t, im));
        if (i == 0) to = lsag_push_pixels(L, s->several, s->count, im->height, im->width, im->channels);
        size_t n = sag_image_bytes(im);
        memcpy(to, im->pixels, n);
        to += n;
        sag_image_free(im);
    }
    return 1;
}

/* resize(images, height, width): antialiased, as Pillow's BILINEAR */
static int l_resize(lua_State *L)
{
    transform t = {.run = run_resize};
    t.height = lsag_check_int(L, 2, 1, SAG_IMAGE_MAX_SIDE);
    t.width = lsag_check_int(L, 3, 1, SAG_IMAGE_MAX_SIDE);
    lsag_images s = lsag_check_images(L, 1, true, false);
    return map_images(L, &s, &t);
}

/* crop_center(images [, height, width]): the largest square if no size is given */
static int l_crop_center(lua_State *L)
{
    lua_settop(L, 3);
    lsag_images s = lsag_check_images(L, 1, true, false);
    int side = s.height < s.width ? s.height : s.width;
    transform t = {.run = run_crop};
    t.height = lsag_opt_int(L, 2, 1, s.height, lua_isnil(L, 3) ? side : s.height);
    t.width = lsag_opt_int(L, 3, 1, s.width, lua_isnil(L, 2) ? side : s.width);
    return map_images(L, &s, &t);
}

/* convert(images, channels): grey (1) or RGB (3) */
static int l_convert(lua_State *L)
{
    transform t = {.run = run_convert, .number = lsag_check_int(L, 2, 1, 3)};
    luaL_argcheck(L, t.number != 2, 2, "must be 1 or 3");
    lsag_images s = lsag_check_images(L, 1, true, false);
    return map_images(L, &s, &t);
}

/* enlarge(images, factor): every pixel becomes factor x factor */
static int l_enlarge(lua_State *L)
{
    transform t = {.run = run_enlarge, .number = lsag_check_int(L, 2, 1, SAG_IMAGE_MAX_SIDE)};
    lsag_images s = lsag_check_images(L, 1, true, false);
    return map_images(L, &s, &t);
}

static void make_metatable(lua_State *L, const char *name, lua_CFunction gc)
{
    if (luaL_newmetatable(L, name)) {
        lua_pushcfunction(L, gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_pop(L, 1);
}

int lsag_open_image(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"read", l_read},     {"decode", l_decode},           {"write", l_write},     {"encode_png", l_encode_png},
        {"resize", l_resize}, {"crop_center", l_crop_center}, {"convert", l_convert}, {"enlarge", l_enlarge},
        {"write_gif", l_write_gif},
        {NULL, NULL},
    };
    make_metatable(L, IMAGE, image_gc);
    make_metatable(L, BYTES, bytes_gc);
    luaL_newlib(L, functions);
    lsag_add_image_drawing(L);
    return 1;
}
