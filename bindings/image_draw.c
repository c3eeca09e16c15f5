/*
 * image_draw.c - the part of sagan.core.image that makes sheets: blank, grid, heatmap, blend, and drawing in
 * place (engine/io/image_draw.h). image.c says how pictures, positions and colours are given.
 */
#include "bindings/image.h"

#include <string.h>

#include "engine/io/image_draw.h"

/* A position counted from 1; anywhere, since drawing is clipped. */
static int check_position(lua_State *L, int index)
{
    return lsag_check_int(L, index, -(1 << 24), 1 << 24) - 1;
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

static const sag_color white = {255, 255, 255};

/* ------------------------------------------------------------------------------------------------- sheets */

/* blank(height, width, channels [, color]) */
static int l_blank(lua_State *L)
{
    sag_image im = {.height = lsag_check_int(L, 1, 1, SAG_IMAGE_MAX_SIDE),
                    .width = lsag_check_int(L, 2, 1, SAG_IMAGE_MAX_SIDE),
                    .channels = lsag_check_int(L, 3, 1, 3)};
    luaL_argcheck(L, im.channels != 2, 3, "must be 1 or 3");
    sag_color color = opt_color(L, 4, (sag_color){0, 0, 0});
    im.pixels = lsag_push_pixels(L, false, 1, im.height, im.width, im.channels);
    sag_image_fill(&im, color);
    return 1;
}

/* grid(images, columns [, pad [, color]]) -> {H,W,C}: pad 2 and white if not given */
static int l_grid(lua_State *L)
{
    int columns = lsag_check_int(L, 2, 1, INT32_MAX), pad = lsag_opt_int(L, 3, 0, SAG_IMAGE_MAX_SIDE, 2);
    sag_color color = opt_color(L, 4, white);
    lsag_images s = lsag_check_images(L, 1, true, false);
    sag_image *im = lsag_push_image(L);
    LSAG_TRY(L, sag_image_grid(s.pixels, s.count, s.height, s.width, s.channels, columns, pad, color, im));
    return lsag_push_picture(L, im);
}

/*
 * heatmap(values {h,w} or {N,h,w} [, low, high]) -> {h,w,3} or {N,h,w,3}: dark blue to yellow over low..high,
 * or else over each map's own range
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
        return luaL_argerror(
            L, 1, lua_pushfstring(L, "a map has at most %d values a side, got %s", SAG_IMAGE_MAX_SIDE, text));
    sag_dtype dtype;
    const float *values = lsag_push_host(L, t, &dtype);
    luaL_argcheck(L, dtype == SAG_F32, 1, "values are f32 or bf16");
    sag_image *im = lsag_push_image(L);
    uint8_t *to = lsag_push_pixels(L, several, n, (int)h, (int)w, 3);
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
    sag_image a = lsag_check_image(L, 1, false), b = lsag_check_image(L, 2, false), out = a;
    out.pixels = lsag_push_pixels(L, false, 1, a.height, a.width, a.channels);
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
    sag_image dst = lsag_check_image(L, 1, true), src = lsag_check_image(L, 2, false);
    if (dst.pixels == src.pixels) return luaL_argerror(L, 2, "is the image itself");
    sag_image_paste(&dst, &src, y, x);
    return changed(L);
}

/* draw_rect(image, x, y, width, height [, thickness [, color]]) */
static int l_draw_rect(lua_State *L)
{
    int x = check_position(L, 2), y = check_position(L, 3);
    int width = lsag_check_int(L, 4, 1, 1 << 24), height = lsag_check_int(L, 5, 1, 1 << 24),
        thickness = lsag_opt_int(L, 6, 1, 1 << 24, 1);
    sag_color color = opt_color(L, 7, white);
    sag_image im = lsag_check_image(L, 1, true);
    sag_image_draw_rect(&im, y, x, height, width, thickness, color);
    return changed(L);
}

/* draw_cross(image, x, y, radius [, color]) */
static int l_draw_cross(lua_State *L)
{
    int x = check_position(L, 2), y = check_position(L, 3), radius = lsag_check_int(L, 4, 0, 1 << 24);
    sag_color color = opt_color(L, 5, white);
    sag_image im = lsag_check_image(L, 1, true);
    sag_image_draw_cross(&im, y, x, radius, color);
    return changed(L);
}

/*
 * draw_line(image, x0, y0, x1, y1 [, thickness [, color [, alpha]]]): round ends, soft edges; with equal ends a disc.
 * alpha below 1 lets show through what was there
 */
static int l_draw_line(lua_State *L)
{
    int x0 = check_position(L, 2), y0 = check_position(L, 3), x1 = check_position(L, 4), y1 = check_position(L, 5);
    float thickness = (float)luaL_optnumber(L, 6, 1.0), alpha = (float)luaL_optnumber(L, 8, 1.0);
    luaL_argcheck(L, thickness > 0.0f && thickness <= (float)SAG_IMAGE_MAX_SIDE, 6, "must be above 0, in pixels");
    luaL_argcheck(L, alpha >= 0.0f && alpha <= 1.0f, 8, "must be 0 to 1");
    sag_color color = opt_color(L, 7, white);
    sag_image im = lsag_check_image(L, 1, true);
    sag_image_draw_line(&im, y0, x0, y1, x1, thickness, alpha, color);
    return changed(L);
}

/* text(image, x, y, string [, scale [, color]]): 5 x 7 letters in cells of 6 x 8, times scale; "\n" starts a
 * line */
static int l_text(lua_State *L)
{
    int x = check_position(L, 2), y = check_position(L, 3);
    const char *text = luaL_checkstring(L, 4);
    int scale = lsag_opt_int(L, 5, 1, 256, 1);
    sag_color color = opt_color(L, 6, white);
    sag_image im = lsag_check_image(L, 1, true);
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
    sag_image_text_size(text, lsag_opt_int(L, 2, 1, 256, 1), &height, &width);
    lua_pushinteger(L, width);
    lua_pushinteger(L, height);
    return 2;
}

void lsag_add_image_drawing(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"blank", l_blank},         {"grid", l_grid},           {"heatmap", l_heatmap}, {"blend", l_blend},
        {"paste", l_paste},         {"draw_rect", l_draw_rect}, {"text", l_text},       {"draw_cross", l_draw_cross},
        {"text_size", l_text_size}, {"draw_line", l_draw_line}, {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
}
