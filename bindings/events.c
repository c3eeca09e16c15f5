/*
 * events.c - sagan.core.events: TensorBoard event files (engine/io/events.h).
 *
 *     local writer <close> = assert(events.open("runs/a/events", true))
 *     writer:scalar("loss/d", 0.5, step)
 */
#include "bindings/lsag.h"

#include <time.h>

#include "engine/io/events.h"

#define WRITER "sagan.events"

static int done(lua_State *L, sag_status status)
{
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_pushboolean(L, 1);
    return 1;
}

static sag_events *check_writer(lua_State *L)
{
    sag_events **w = luaL_checkudata(L, 1, WRITER);
    if (!*w) luaL_argerror(L, 1, "this event file was closed");
    return *w;
}

static double opt_wall(lua_State *L, int index)
{
    if (!lua_isnoneornil(L, index)) return luaL_checknumber(L, index);
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* events.open(path, append) -> writer: a file, or a folder, in which the newest event file goes on or a new
 * one begins */
static int l_open(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    bool append = lua_toboolean(L, 2);
    sag_events **w = lua_newuserdatauv(L, sizeof *w, 0);
    *w = NULL;
    luaL_setmetatable(L, WRITER);
    sag_status status = sag_events_open(path, append, w);
    return status == SAG_OK ? 1 : lsag_fail(L, status);
}

/* writer:scalar(tag, value, step [, wall]) */
static int l_scalar(lua_State *L)
{
    sag_events *w = check_writer(L);
    const char *tag = luaL_checkstring(L, 2);
    float value = (float)luaL_checknumber(L, 3);
    int64_t step = luaL_checkinteger(L, 4);
    return done(L, sag_events_scalar(w, tag, value, step, opt_wall(L, 5)));
}

static int check_int(lua_State *L, int index)
{
    lua_Integer v = luaL_checkinteger(L, index);
    luaL_argcheck(L, v >= 1 && v <= INT32_MAX, index, "out of range");
    return (int)v;
}

/* writer:image(tag, png, height, width, channels, step [, wall]) */
static int l_image(lua_State *L)
{
    sag_events *w = check_writer(L);
    const char *tag = luaL_checkstring(L, 2);
    size_t n;
    const char *png = luaL_checklstring(L, 3, &n);
    int height = check_int(L, 4), width = check_int(L, 5), channels = check_int(L, 6);
    int64_t step = luaL_checkinteger(L, 7);
    return done(L, sag_events_image(w, tag, png, n, height, width, channels, step, opt_wall(L, 8)));
}

static int l_flush(lua_State *L)
{
    return done(L, sag_events_flush(check_writer(L)));
}

/* writer:close() -> true; closing again does nothing */
static int l_close(lua_State *L)
{
    sag_events **slot = luaL_checkudata(L, 1, WRITER), *w = *slot;
    *slot = NULL;
    return done(L, sag_events_close(w));
}

int lsag_open_events(lua_State *L)
{
    static const luaL_Reg methods[] = {{"scalar", l_scalar}, {"image", l_image}, {"flush", l_flush}, {"close", l_close},
                                       {"__close", l_close}, {"__gc", l_close},  {NULL, NULL}};
    if (luaL_newmetatable(L, WRITER)) {
        luaL_setfuncs(L, methods, 0);
        lua_pushvalue(L, -1);
        lua_setfield(L, -2, "__index");
    }
    lua_pop(L, 1);
    static const luaL_Reg functions[] = {{"open", l_open}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
