/*
 * arguments.c - what Lua functions of ours take besides tensors: shapes, and tables of named options with their checks.
 */
#include "bindings/lsag.h"

#include <string.h>

/* ----------------------------------------------------------------------------------------------- shapes */

static void add_dimension(lua_State *L, int index, int argument, bool allow_rest, sag_shape *shape)
{
    int whole = 0;
    lua_Integer d = lua_type(L, index) == LUA_TNUMBER ? lua_tointegerx(L, index, &whole) : 0;
    if (!whole)
        luaL_argerror(L, argument, lua_pushfstring(L, "dimension %d of a shape must be a whole number, got %s", shape->rank + 1,
                                                   luaL_tolstring(L, index, NULL)));
    if (shape->rank == SAG_MAX_RANK) luaL_argerror(L, argument, "a shape has at most 4 dimensions");
    if (d < 1 && !(allow_rest && d == -1))
        luaL_argerror(L, argument, lua_pushfstring(L, "dimension %d of a shape is %I, must be at least 1", shape->rank + 1,
                                                   (LUAI_UACINT)d));
    shape->dim[shape->rank++] = d;
}

int lsag_check_shape(lua_State *L, int index, bool allow_rest, sag_shape *shape)
{
    memset(shape, 0, sizeof *shape);
    if (lua_istable(L, index)) {
        lua_Integer n = luaL_len(L, index);
        if (n < 1 || n > SAG_MAX_RANK) luaL_argerror(L, index, "a shape is a table of 1 to 4 dimensions");
        for (lua_Integer i = 1; i <= n; i++) {
            lua_geti(L, index, i);
            add_dimension(L, lua_gettop(L), index, allow_rest, shape);
            lua_pop(L, 1);
        }
        return index + 1;
    }
    while (lua_type(L, index) == LUA_TNUMBER) {
        add_dimension(L, index, index, allow_rest, shape);
        index++;
    }
    if (shape->rank == 0) luaL_typeerror(L, index, "shape (a table such as {2, 3} or numbers)");
    return index;
}

void lsag_push_shape(lua_State *L, sag_shape shape)
{
    lua_createtable(L, shape.rank, 0);
    for (int i = 0; i < shape.rank; i++) {
        lua_pushinteger(L, shape.dim[i]);
        lua_rawseti(L, -2, i + 1);
    }
}

/* ---------------------------------------------------------------------------------------------- options */

/* Pushes the field and returns its type; LUA_TNIL and nothing pushed when absent. */
static int push_field(lua_State *L, int index, const char *function, const char *field)
{
    if (index == 0 || lua_isnoneornil(L, index)) return LUA_TNIL;
    if (!lua_istable(L, index)) lsag_arg_error(L, function, "options", "table", index);
    int type = lua_getfield(L, index, field);
    if (type == LUA_TNIL) lua_pop(L, 1);
    return type;
}

bool lsag_opt_boolean(lua_State *L, int index, const char *function, const char *field, bool fallback)
{
    int type = push_field(L, index, function, field);
    if (type == LUA_TNIL) return fallback;
    if (type != LUA_TBOOLEAN) lsag_arg_error(L, function, field, "boolean", -1);
    bool value = lua_toboolean(L, -1) != 0;
    lua_pop(L, 1);
    return value;
}

int64_t lsag_opt_integer(lua_State *L, int index, const char *function, const char *field, int64_t fallback)
{
    int type = push_field(L, index, function, field), whole = 0;
    if (type == LUA_TNIL) return fallback;
    lua_Integer value = type == LUA_TNUMBER ? lua_tointegerx(L, -1, &whole) : 0;
    if (!whole) lsag_arg_error(L, function, field, "whole number", -1);
    lua_pop(L, 1);
    return value;
}

double lsag_opt_number(lua_State *L, int index, const char *function, const char *field, double fallback)
{
    int type = push_field(L, index, function, field);
    if (type == LUA_TNIL) return fallback;
    if (type != LUA_TNUMBER) lsag_arg_error(L, function, field, "number", -1);
    double value = lua_tonumber(L, -1);
    lua_pop(L, 1);
    return value;
}

const char *lsag_opt_string(lua_State *L, int index, const char *function, const char *field, const char *fallback)
{
    int type = push_field(L, index, function, field);
    if (type == LUA_TNIL) return fallback;
    if (type != LUA_TSTRING) lsag_arg_error(L, function, field, "string", -1);
    const char *value = lua_tostring(L, -1);
    lua_pop(L, 1);
    return value;
}

sag_dtype lsag_opt_dtype(lua_State *L, int index, const char *function, const char *field, sag_dtype fallback)
{
    const char *name = lsag_opt_string(L, index, function, field, NULL);
    sag_dtype dtype = fallback;
    if (name && !lsag_find_dtype(name, &dtype))
        luaL_error(L, "bad argument '%s' to %s: 'f32', 'bf16', 'u8' or 'i32' expected, got '%s'", field, function, name);
    return dtype;
}

void lsag_check_fields(lua_State *L, int index, const char *function, const char *const *known)
{
    if (index == 0 || lua_isnoneornil(L, index)) return;
    if (!lua_istable(L, index)) lsag_arg_error(L, function, "options", "table", index);
    index = lua_absindex(L, index);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
        bool found = false;
        for (const char *const *k = known; name && *k && !found; k++) found = strcmp(*k, name) == 0;
        if (found) continue;
        if (!name) luaL_error(L, "%s: options are named fields, got a %s key", function, luaL_typename(L, -2));
        lua_newtable(L);
        for (const char *const *k = known; *k; k++) {
            lua_pushboolean(L, 1);
            lua_setfield(L, -2, *k);
        }
        lsag_push_hint(L, name, -1);
        luaL_error(L, "%s: no option '%s'%s", function, name, lua_tostring(L, -1));
    }
}
