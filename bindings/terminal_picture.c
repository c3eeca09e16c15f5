/*
 * terminal_picture.c - sagan.core.terminal_picture: images as text for the terminal (engine/io/terminal_picture.h).
 *
 *     io.write(terminal_picture.render(image, { mode = "half", columns = 40 }))
 */
#include "bindings/image.h"

#include <limits.h>
#include <string.h>

#include "engine/io/terminal_picture.h"

#define TEXT "sagan.terminal_text"

static int text_gc(lua_State *L)
{
    char **text = lua_touserdata(L, 1);
    sag_host_free(*text);
    *text = NULL;
    return 0;
}

/* detect() -> {mode, colors, columns, rows, cell_width, cell_height, library} */
static int l_detect(lua_State *L)
{
    sag_terminal t;
    sag_terminal_detect(&t);
    const struct {
        const char *name;
        int value;
    } numbers[] = {{"colors", t.colors},
                   {"columns", t.columns},
                   {"rows", t.rows},
                   {"cell_width", t.cell_width},
                   {"cell_height", t.cell_height}};
    lua_createtable(L, 0, 7);
    lua_pushstring(L, sag_picture_mode_name(t.mode));
    lua_setfield(L, -2, "mode");
    lua_pushstring(L, sag_picture_library());
    lua_setfield(L, -2, "library");
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        lua_pushinteger(L, numbers[i].value);
        lua_setfield(L, -2, numbers[i].name);
    }
    return 1;
}

/* modes() -> names of the modes */
static int l_modes(lua_State *L)
{
    lua_createtable(L, SAG_PICTURE_MODE_COUNT, 0);
    for (int i = 0; i < SAG_PICTURE_MODE_COUNT; i++) {
        lua_pushstring(L, sag_picture_mode_name((sag_picture_mode)i));
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

static sag_picture_mode check_mode(lua_State *L, const char *function, const char *name)
{
    for (int i = 0; i < SAG_PICTURE_MODE_COUNT; i++)
        if (strcmp(name, sag_picture_mode_name((sag_picture_mode)i)) == 0) return (sag_picture_mode)i;
    return luaL_error(L, "%s: no mode '%s' (half, symbols, sixel, kitty, iterm2)", function, name);
}

static int opt_size(lua_State *L, const char *function, const char *field, int fallback, int most)
{
    int64_t v = lsag_opt_integer(L, 2, function, field, fallback);
    if (v < 1 || v > most) luaL_error(L, "%s: %s must be 1 to %d", function, field, most);
    return (int)v;
}

/* render(image, {mode=, colors=, columns=, rows=}) -> text | nil, message, code; what is left out is the terminal's */
static int l_render(lua_State *L)
{
    static const char *const known[] = {"mode", "colors", "columns", "rows", NULL};
    static const char function[] = "render";
    lua_settop(L, 2);
    lsag_check_fields(L, 2, function, known);
    sag_terminal t;
    sag_terminal_detect(&t);
    const char *mode = lsag_opt_string(L, 2, function, "mode", NULL);
    if (mode) t.mode = check_mode(L, function, mode);
    t.colors = opt_size(L, function, "colors", t.colors, SAG_TERMINAL_TRUECOLOR);
    t.columns = opt_size(L, function, "columns", t.columns, 1000);
    t.rows = opt_size(L, function, "rows", t.rows, 1000);
    sag_image image = lsag_check_image(L, 1, false);

    char **text = lua_newuserdatauv(L, sizeof *text, 0);
    *text = NULL;
    luaL_setmetatable(L, TEXT);
    size_t n;
    sag_status status = sag_terminal_picture(&image, &t, text, &n);
    if (status == SAG_ERR_UNSUPPORTED) return lsag_fail(L, status);
    lsag_check_status(L, status);
    lua_pushlstring(L, *text, n);
    sag_host_free(*text);
    *text = NULL;
    return 1;
}

int lsag_open_terminal_picture(lua_State *L)
{
    static const luaL_Reg functions[] = {{"detect", l_detect}, {"modes", l_modes}, {"render", l_render}, {NULL, NULL}};
    if (luaL_newmetatable(L, TEXT)) {
        lua_pushcfunction(L, text_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_pop(L, 1);
    luaL_newlib(L, functions);
    return 1;
}
