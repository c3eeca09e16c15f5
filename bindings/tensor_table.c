/*
 * tensor_table.c - between tensors and Lua numbers: nested tables in, nested tables and host copies out. A nested table is
 * checked element by element, and messages name the element: "[2][1]".
 */
#include "bindings/lsag.h"

#include <math.h>
#include <string.h>

typedef struct walk {
    const char *function;
    sag_shape shape;
    int64_t at[SAG_MAX_RANK]; /* where we are, from 1 */
    sag_dtype dtype;
    void *data;
    int64_t next;
} walk;

/* Dimensions follow after this one (a rank is at most 4, which the compiler cannot know). */
static inline bool is_outer(const sag_shape *shape, int depth)
{
    return depth + 1 < shape->rank && depth + 1 < SAG_MAX_RANK;
}

/* "[2][1]", "the argument" for depth 0 */
static const char *place(lua_State *L, const walk *w, int depth)
{
    if (depth == 0) return "the argument";
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addstring(&b, "element ");
    for (int i = 0; i < depth; i++) {
        char text[32];
        snprintf(text, sizeof text, "[%lld]", (long long)w->at[i]);
        luaL_addstring(&b, text);
    }
    luaL_pushresult(&b);
    return lua_tostring(L, -1);
}

sag_shape lsag_table_shape(lua_State *L, int index, const char *function)
{
    walk w = {.function = function, .at = {1, 1, 1, 1}};
    int top = lua_gettop(L);
    if (lua_type(L, index) == LUA_TNUMBER) return sag_shape1(1);
    lua_pushvalue(L, index);
    while (lua_istable(L, -1)) {
        if (w.shape.rank == SAG_MAX_RANK)
            luaL_error(L, "%s: tables are nested more than 4 deep", function);
        int64_t n = luaL_len(L, -1);
        if (n == 0) luaL_error(L, "%s: %s is an empty table", function, place(L, &w, w.shape.rank));
        w.shape.dim[w.shape.rank++] = n;
        lua_geti(L, -1, 1);
    }
    if (lua_type(L, -1) != LUA_TNUMBER) {
        const char *got = luaL_typename(L, -1);
        luaL_error(L, "%s: %s: number or table expected, got %s", function, place(L, &w, w.shape.rank), got);
    }
    lua_settop(L, top);
    return w.shape;
}

static void put_number(lua_State *L, walk *w, int depth)
{
    if (lua_type(L, -1) != LUA_TNUMBER) {
        const char *got = lua_istable(L, -1) ? "a table: the tables are nested unevenly" : luaL_typename(L, -1);
        luaL_error(L, "%s: %s: number expected, got %s", w->function, place(L, w, depth), got);
    }
    double v = lua_tonumber(L, -1);
    int64_t i = w->next++;
    if (w->dtype == SAG_F32) {
        ((float *)w->data)[i] = (float)v;
        return;
    }
    double low = w->dtype == SAG_U8 ? 0 : INT32_MIN, high = w->dtype == SAG_U8 ? 255 : INT32_MAX;
    if (!(v >= low && v <= high) || v != floor(v)) {
        const char *number = luaL_tolstring(L, -1, NULL);
        luaL_error(L, "%s: %s is %s, which does not fit %s", w->function, place(L, w, depth), number, sag_dtype_name(w->dtype));
    }
    if (w->dtype == SAG_U8)
        ((uint8_t *)w->data)[i] = (uint8_t)v;
    else
        ((int32_t *)w->data)[i] = (int32_t)v;
}

static void put_table(lua_State *L, walk *w, int depth)
{
    int64_t n = w->shape.dim[depth];
    int64_t got = lua_istable(L, -1) ? luaL_len(L, -1) : -1;
    if (got < 0) {
        const char *type = luaL_typename(L, -1);
        luaL_error(L, "%s: %s: table of %I expected, got %s", w->function, place(L, w, depth), (LUAI_UACINT)n, type);
    }
    if (got != n)
        luaL_error(L, "%s: %s holds %I, %I expected as in the others", w->function, place(L, w, depth),
                   (LUAI_UACINT)got, (LUAI_UACINT)n);
    for (int64_t i = 1; i <= n; i++) {
        w->at[depth] = i;
        lua_geti(L, -1, i);
        if (is_outer(&w->shape, depth))
            put_table(L, w, depth + 1);
        else
            put_number(L, w, depth + 1);
        lua_pop(L, 1);
    }
}

void lsag_write_table(lua_State *L, int index, sag_tensor *t, const char *function)
{
    index = lua_absindex(L, index);
    int top = lua_gettop(L);
    luaL_checkstack(L, SAG_MAX_RANK + 8, NULL);
    sag_dtype dtype = sag_tensor_dtype(t);
    walk w = {.function = function, .shape = sag_tensor_shape(t), .dtype = dtype == SAG_BF16 ? SAG_F32 : dtype};
    size_t bytes = (size_t)sag_tensor_numel(t) * sag_dtype_size(w.dtype);
    w.data = lua_newuserdatauv(L, bytes, 0);
    lua_pushvalue(L, index);
    if (lua_type(L, -1) == LUA_TNUMBER && sag_tensor_numel(t) == 1)
        put_number(L, &w, 0);
    else
        put_table(L, &w, 0);
    if (dtype == SAG_BF16) {
        sag_tensor **wide = lsag_new_tensor(L);
        LSAG_TRY(L, sag_tensor_create(sag_tensor_context(t), SAG_F32, w.shape, wide));
        LSAG_TRY(L, sag_tensor_write(*wide, w.data, bytes));
        sag_tensor *narrow = lsag_apply(L, SAG_OP_cast, wide, (double[]){SAG_BF16});
        LSAG_TRY(L, sag_tensor_copy(t, narrow));
    } else {
        LSAG_TRY(L, sag_tensor_write(t, w.data, bytes));
    }
    lua_settop(L, top);
}

const void *lsag_push_host(lua_State *L, sag_tensor *t, sag_dtype *dtype)
{
    *dtype = sag_tensor_dtype(t);
    lua_pushnil(L); /* keeps a widened copy alive until it is read */
    if (*dtype == SAG_BF16) {
        t = lsag_apply(L, SAG_OP_cast, &t, (double[]){SAG_F32});
        lua_replace(L, -2);
        *dtype = SAG_F32;
    }
    size_t bytes = (size_t)sag_tensor_numel(t) * sag_dtype_size(*dtype);
    void *host = lua_newuserdatauv(L, bytes, 0);
    LSAG_TRY(L, sag_tensor_read(t, host, bytes));
    lua_remove(L, -2);
    return host;
}

double lsag_element(const void *data, sag_dtype dtype, int64_t i)
{
    switch (dtype) {
    case SAG_U8: return ((const uint8_t *)data)[i];
    case SAG_I32: return ((const int32_t *)data)[i];
    default: return (double)((const float *)data)[i];
    }
}

static int64_t push_level(lua_State *L, const void *data, sag_dtype dtype, sag_shape shape, int depth, int64_t next)
{
    int64_t n = shape.dim[depth];
    lua_createtable(L, n > INT32_MAX ? 0 : (int)n, 0);
    for (int64_t i = 1; i <= n; i++) {
        if (is_outer(&shape, depth))
            next = push_level(L, data, dtype, shape, depth + 1, next);
        else if (dtype == SAG_F32)
            lua_pushnumber(L, lsag_element(data, dtype, next++));
        else
            lua_pushinteger(L, (lua_Integer)lsag_element(data, dtype, next++));
        lua_rawseti(L, -2, i);
    }
    return next;
}

void lsag_push_table(lua_State *L, sag_tensor *t)
{
    luaL_checkstack(L, SAG_MAX_RANK + 8, NULL);
    sag_dtype dtype;
    const void *host = lsag_push_host(L, t, &dtype);
    push_level(L, host, dtype, sag_tensor_shape(t), 0, 0);
    lua_remove(L, -2);
}
