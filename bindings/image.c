/*
 * image.c - sagan.core.image: pictures as u8 tensors {H,W,C} or {N,H,W,C}, C 1 or 3, on the CPU (engine/io/image.h,
 * image_draw.h).
 *
 *     local photo = assert(image.read("cat.jpg", 3))
 *     image.text(photo, 1, 1, "cat", 2)
 *     assert(image.write("small.png", image.resize(image.crop_center(photo), 64, 64)))
 *
 * Positions are x, y and count from 1. Colours are {r, g, b} or one number, 0 to 255. What draws, changes its first argument
 * and returns it; everything else makes a new tensor. Tensors of other devices are copied when they are only read.
 */
#include "bindings/lsag.h"

#include <stdlib.h>
#include <string.h>

#include "engine/io/image.h"
#include "engine/io/image_draw.h"

#define IMAGE "sagan.image"
#define BYTES "sagan.image_bytes"

/* ------------------------------------------------------------------------------------- tensors as images */

static int image_gc(lua_State *L)
{
    sag_image_free(lua_touserdata(L, 1));
    return 0;
}

/* Pushes an empty image that is freed when it is collected. */
static sag_image *push_image(lua_State *L)
{
    sag_image *im = lua_newuserdatauv(L, sizeof *im, 0);
    *im = (sag_image){0};
    luaL_setmetatable(L, IMAGE);
    return im;
}

/* One or several images that lie in a tensor. */
typedef struct stack {
    uint8_t *pixels;
    int64_t count;
    bool several; /* rank 4 */
    int height, width, channels;
} stack;

static sag_image image_of(const stack *s, int64_t i)
{
    return (sag_image){.pixels = s->pixels + i * s->height * s->width * s->channels, .height = s->height, .width = s->width,
                       .channels = s->channels};
}

/* May push a host copy, which then has to stay on the stack. `write`: the pixels will be changed. */
static stack check_images(lua_State *L, int index, bool several, bool write)
{
    sag_tensor *t = lsag_check_tensor_of(L, index, SAG_U8, 0);
    sag_shape shape = sag_tensor_shape(t);
    char text[96];
    sag_shape_text(shape, text, sizeof text);
    if (shape.rank != 3 && !(several && shape.rank == 4))
        luaL_argerror(L, index, lua_pushfstring(L, several ? "images are {H,W,C} or {N,H,W,C}, got %s" : "an image is {H,W,C}, got %s", text));
    int64_t *d = shape.dim + shape.rank - 3;
    if (d[0] > SAG_IMAGE_MAX_SIDE || d[1] > SAG_IMAGE_MAX_SIDE || (d[2] != 1 && d[2] != 3))
        luaL_argerror(L, index, lua_pushfstring(L, "an image has 1 or 3 channels and at most %d pixels a side, got %s",
                                                SAG_IMAGE_MAX_SIDE, text));
    stack s = {.count = shape.rank == 4 ? shape.dim[0] : 1, .several = shape.rank == 4, .height = (int)d[0], .width = (int)d[1],
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

static sag_image check_image(lua_State *L, int index, bool write)
{
    stack s = check_images(L, index, false, write);
    return image_of(&s, 0);
}

static uint8_t *push_pixels(lua_State *L, bool several, int64_t n, int height, int width, int channels)
{
    sag_shape shape = several ? sag_shape4(n, height, width, channels) : sag_shape3(height, width, channels);
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_create(lsag_context_on(L, SAG_CPU), SAG_U8, shape, slot));
    return sag_tensor_data(*slot);
}

/* Pushes a tensor with the contents of im and empties im. */
static int push_result(lua_State *L, sag_image *im)
{
    memcpy(push_pixels(L, false, 1, im->height, im->width, im->channels), im->pixels, sag_image_bytes(im));
    sag_image_free(im);
    return 1;
}

/* ------------------------------------------------------------------------------------------- small arguments */

static int check_int(lua_State *L, int index, int low, int high)
{
    lua_Integer v = luaL_checkinteger(L, index);
    if (v < low || v > high) luaL_argerror(L, index, lua_pushfstring(L, "must be %d to %d", low, high));
    return (int)v;
}

static int opt_int(lua_State *L, int index, int low, int high, int fallback)
{
    return lua_isnoneornil(L, index) ? fallback : check_int(L, index, low, high);
}

/* A position counted from 1; anywhere, since drawing is clipped. */
static int check_position(lua_State *L, int index)
{
    return check_int(L, index, -(1 << 24), 1 << 24) - 1;
}

static sag_color opt_color(lua_State *L, int index, sag_color fallback)
{
    if (lua_isnoneornil(L, index)) return fallback;
    uint8_t v[3];
    for (int k = 0; k < 3; k++) {
        if (lua_istable(L, index))
            lua_rawgeti(L, index, k + 1);
        else
            lua_pushvalue(L, index);
        int ok;
        lua_Integer c = lua_tointegerx(L, -1, &ok);
        if (!ok || c < 0 || c > 255) luaL_argerror(L, index, "a colour is {r, g, b} or a number, 0 to 255");
        v[k] = (uint8_t)c;
        lua_pop(L, 1);
    }
    return (sag_color){v[0], v[1], v[2]};
}

/* 1, 3, or 0 for what the file has */
static int opt_channels(lua_State *L, int index)
{
    int channels = opt_int(L, index, 0, 3, 0);
    luaL_argcheck(L, channels != 2, index, "must be 1, 3, or 0 for what the file has");
    return channels;
}

static const sag_color white = {255, 255, 255};

/* ------------------------------------------------------------------------------------------------ files */

/* read(path [, channels]) -> {H,W,C}: PNG, JPEG or BMP */
static int l_read(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    int channels = opt_channels(L, 2);
    sag_image *im = push_image(L);
    sag_status status = sag_image_read(path, channels, im);
    return status == SAG_OK ? push_result(L, im) : lsag_fail(L, status);
}

/* decode(string [, channels [, name]]) -> {H,W,C}; the name is for the message */
static int l_decode(lua_State *L)
{
    size_t n;
    const char *bytes = luaL_checklstring(L, 1, &n);
    int channels = opt_channels(L, 2);
    const char *name = luaL_optstring(L, 3, "image");
    sag_image *im = push_image(L);
    sag_status status = sag_image_decode(bytes, n, name, channels, im);
    return status == SAG_OK ? push_result(L, im) : lsag_fail(L, status);
}

/* write(path, image) -> true: a PNG */
static int l_write(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1), *dot = strrchr(path, '.');
    if (!dot || strcmp(dot, ".png") != 0) luaL_argerror(L, 1, "pictures are written as PNG, so the name ends in .png");
    sag_image im = check_image(L, 2, false);
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
    sag_image im = check_image(L, 1, false);
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

static int map_images(lua_State *L, const stack *s, const transform *t)
{
    sag_image *im = push_image(L);
    uint8_t *to = NULL;
    for (int64_t i = 0; i < s->count; i++) {
        sag_image one = image_of(s, i);
        LSAG_TRY(L, t->run(&one, t, im));
        if (i == 0) to = push_pixels(L, s->several, s->count, im->height, im->width, im->channels);
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
    t.height = check_int(L, 2, 1, SAG_IMAGE_MAX_SIDE);
    t.width = check_int(L, 3, 1, SAG_IMAGE_MAX_SIDE);
    stack s = check_images(L, 1, true, false);
    return map_images(L, &s, &t);
}

/* crop_center(images [, height, width]): the largest square if no size is given */
static int l_crop_center(lua_State *L)
{
    lua_settop(L, 3);
    stack s = check_images(L, 1, true, false);
    int side = s.height < s.width ? s.height : s.width;
    transform t = {.run = run_crop};
    t.height = opt_int(L, 2, 1, s.height, lua_isnil(L, 3) ? side : s.height);
    t.width = opt_int(L, 3, 1, s.width, lua_isnil(L, 2) ? side : s.width);
    return map_images(L, &s, &t);
}

/* convert(images, channels): grey (1) or RGB (3) */
static int l_convert(lua_State *L)
{
    transform t = {.run = run_convert, .number = check_int(L, 2, 1, 3)};
    luaL_argcheck(L, t.number != 2, 2, "must be 1 or 3");
    stack s = check_images(L, 1, true, false);
    return map_images(L, &s, &t);
}

/* enlarge(images, factor): every pixel becomes factor x factor */
static int l_enlarge(lua_State *L)
{
    transform t = {.run = run_enlarge, .number = check_int(L, 2, 1, SAG_IMAGE_MAX_SIDE)};
    stack s = check_images(L, 1, true, false);
    return map_images(L, &s, &t);
}

/* ------------------------------------------------------------------------------------------------- sheets */

/* blank(height, width, channels [, color]) */
static int l_blank(lua_State *L)
{
    sag_image im = {.height = check_int(L, 1, 1, SAG_IMAGE_MAX_SIDE), .width = check_int(L, 2, 1, SAG_IMAGE_MAX_SIDE),
                    .channels = check_int(L, 3, 1, 3)};
    luaL_argcheck(L, im.channels != 2, 3, "must be 1 or 3");
    sag_color color = opt_color(L, 4, (sag_color){0, 0, 0});
    im.pixels = push_pixels(L, false, 1, im.height, im.width, im.channels);
    sag_image_fill(&im, color);
    return 1;
}

/* grid(images, columns [, pad [, color]]) -> {H,W,C}: pad 2 and white if not given */
static int l_grid(lua_State *L)
{
    int columns = check_int(L, 2, 1, INT32_MAX), pad = opt_int(L, 3, 0, SAG_IMAGE_MAX_SIDE, 2);
    sag_color color = opt_color(L, 4, white);
    stack s = check_images(L, 1, true, false);
    sag_image *im = push_image(L);
    LSAG_TRY(L, sag_image_grid(s.pixels, s.count, s.height, s.width, s.channels, columns, pad, color, im));
    return push_result(L, im);
}

/*
 * heatmap(values {h,w} or {N,h,w} [, low, high]) -> {h,w,3} or {N,h,w,3}: dark blue to yellow over low..high, or else
 * over each map's own range
 */
static int l_heatmap(lua_State *L)
{
    lua_settop(L, 3);
    sag_tensor *t = lsag_check_tensor(L, 1);
    sag_shape shape = sag_tensor_shape(t);
    char text[96];
    sag_shape_text(shape, text, sizeof text);
    luaL_argcheck(L, lua_isnil(L, 2) == lua_isnil(L, 3), 3, "low and high go together");
    float low = (float)luaL_optnumber(L, 2, 0.0), high = (float)luaL_optnumber(L, 3, 0.0);
    luaL_argcheck(L, lua_isnil(L, 2) || low < high, 3, "must be more than low");
    bool several = shape.rank == 3;
    if (shape.rank != 2 && shape.rank != 3)
        return luaL_argerror(L, 1, lua_pushfstring(L, "values are {h,w} or {N,h,w}, got %s", text));
    int64_t n = several ? shape.dim[0] : 1, h = shape.dim[shape.rank - 2], w = shape.dim[shape.rank - 1];
    if (h > SAG_IMAGE_MAX_SIDE || w > SAG_IMAGE_MAX_SIDE)
        return luaL_argerror(L, 1, lua_pushfstring(L, "a map has at most %d values a side, got %s", SAG_IMAGE_MAX_SIDE, text));
    sag_dtype dtype;
    const float *values = lsag_push_host(L, t, &dtype);
    luaL_argcheck(L, dtype == SAG_F32, 1, "values are f32 or bf16");
    sag_image *im = push_image(L);
    uint8_t *to = push_pixels(L, several, n, (int)h, (int)w, 3);
    for (int64_t i = 0; i < n; i++, values += h * w, to += 3 * h * w) {
        LSAG_TRY(L, sag_image_heatmap(values, (int)h, (int)w, low, high, im));
        memcpy(to, im->pixels, sag_image_bytes(im));
        sag_image_free(im);
    }
    return 1;
}

/* blend(a, b, alpha) -> (1 - alpha) a + alpha b */
static int l_blend(lua_State *L)
{
    float alpha = (float)luaL_checknumber(L, 3);
    sag_image a = check_image(L, 1, false), b = check_image(L, 2, false), out = a;
    out.pixels = push_pixels(L, false, 1, a.height, a.width, a.channels);
    memcpy(out.pixels, a.pixels, sag_image_bytes(&a));
    lsag_check_status(L, sag_image_blend(&out, &b, alpha));
    return 1;
}

/* ------------------------------------------------------------------------------------------------ drawing */

static int changed(lua_State *L)
{
    lua_pushvalue(L, 1);
    return 1;
}

/* paste(image, what, x, y): what may be grey on RGB and the other way round, and stick out */
static int l_paste(lua_State *L)
{
    int x = check_position(L, 3), y = check_position(L, 4);
    sag_image dst = check_image(L, 1, true), src = check_image(L, 2, false);
    if (dst.pixels == src.pixels) return luaL_argerror(L, 2, "is the image itself");
    sag_image_paste(&dst, &src, y, x);
    return changed(L);
}

/* draw_rect(image, x, y, width, height [, thickness [, color]]) */
static int l_draw_rect(lua_State *L)
{
    int x = check_position(L, 2), y = check_position(L, 3);
    int width = check_int(L, 4, 1, 1 << 24), height = check_int(L, 5, 1, 1 << 24), thickness = opt_int(L, 6, 1, 1 << 24, 1);
    sag_color color = opt_color(L, 7, white);
    sag_image im = check_image(L, 1, true);
    sag_image_draw_rect(&im, y, x, height, width, thickness, color);
    return changed(L);
}

/* draw_cross(image, x, y, radius [, color]) */
static int l_draw_cross(lua_State *L)
{
    int x = check_position(L, 2), y = check_position(L, 3), radius = check_int(L, 4, 0, 1 << 24);
    sag_color color = opt_color(L, 5, white);
    sag_image im = check_image(L, 1, true);
    sag_image_draw_cross(&im, y, x, radius, color);
    return changed(L);
}

/* text(image, x, y, string [, scale [, color]]): 5 x 7 letters in cells of 6 x 8, times scale; "\n" starts a line */
static int l_text(lua_State *L)
{
    int x = check_position(L, 2), y = check_position(L, 3);
    const char *text = luaL_checkstring(L, 4);
    int scale = opt_int(L, 5, 1, 256, 1);
    sag_color color = opt_color(L, 6, white);
    sag_image im = check_image(L, 1, true);
    sag_image_draw_text(&im, y, x, text, scale, color);
    return changed(L);
}

/* text_size(string [, scale]) -> width, height */
static int l_text_size(lua_State *L)
{
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    luaL_argcheck(L, n <= 1 << 16, 1, "is too long");
    int height, width;
    sag_image_text_size(text, opt_int(L, 2, 1, 256, 1), &height, &width);
    lua_pushinteger(L, width);
    lua_pushinteger(L, height);
    return 2;
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
        {"read", l_read},           {"decode", l_decode},           {"write", l_write},     {"encode_png", l_encode_png},
        {"resize", l_resize},       {"crop_center", l_crop_center}, {"convert", l_convert}, {"enlarge", l_enlarge},
        {"blank", l_blank},         {"grid", l_grid},               {"heatmap", l_heatmap}, {"blend", l_blend},
        {"paste", l_paste},         {"draw_rect", l_draw_rect},     {"text", l_text},       {"draw_cross", l_draw_cross},
        {"text_size", l_text_size}, {NULL, NULL},
    };
    make_metatable(L, IMAGE, image_gc);
    make_metatable(L, BYTES, bytes_gc);
    luaL_newlib(L, functions);
    return 1;
}
