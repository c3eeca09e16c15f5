/*
 * lsag.c - the shared part of the bindings: the Lua state's own data, errors, argument and option checks, and the tensor
 * userdata's life (lsag.h has the contracts).
 */
#include "bindings/lsag.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Registry keys are the addresses of these. */
static const char state_key, tensor_key;

/* Garbage tensors are worth a collection once device memory has grown by this much and by as much again as was left. */
#define COLLECT_FLOOR ((int64_t)64 << 20)

/* ------------------------------------------------------------------------------------------------ state */

static int l_state_gc(lua_State *L)
{
    lsag_state *s = lua_touserdata(L, 1);
    for (int d = 0; d < SAG_DEVICE_COUNT; d++) {
        if (s->contexts[d]) {
            sag_tape_clear(s->contexts[d]);
            sag_context_destroy(s->contexts[d]);
        }
        s->contexts[d] = NULL;
    }
    return 0;
}

void lsag_state_create(lua_State *L)
{
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key) == LUA_TUSERDATA) {
        lua_pop(L, 1);
        return;
    }
    lua_pop(L, 1);
    lsag_state *s = lua_newuserdatauv(L, sizeof *s, 0);
    memset(s, 0, sizeof *s);
    s->recording = true;
    s->collect_at = COLLECT_FLOOR;
    s->device = SAG_DEVICE_COUNT;
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, l_state_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
}

lsag_state *lsag_state_of(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
    lsag_state *s = lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (!s) luaL_error(L, "sagan.core is not loaded");
    return s;
}

sag_context *lsag_context_on(lua_State *L, sag_device device)
{
    lsag_state *s = lsag_state_of(L);
    if (!s->contexts[device]) {
        lsag_check_status(L, sag_context_create(device, &s->contexts[device]));
        sag_tape_set_recording(s->contexts[device], s->recording);
        sag_tape_retain_grads(s->contexts[device], s->retain_grads);
    }
    return s->contexts[device];
}

/* The device is chosen when the first tensor asks for it: looking for a card at start-up would cost every small script. */
sag_device lsag_device(lua_State *L)
{
    lsag_state *s = lsag_state_of(L);
    if (s->device != SAG_DEVICE_COUNT) return s->device;
    const char *name = getenv("SAGAN_DEVICE");
    sag_device device = SAG_CPU;
    if (name && *name && !lsag_find_device(name, &device))
        luaL_error(L, "SAGAN_DEVICE is '%s', must be 'cpu' or 'cuda'", name);
    if (!name || !*name) device = sag_device_available(SAG_CUDA) ? SAG_CUDA : SAG_CPU;
    s->device = device;
    return device;
}

sag_context *lsag_context(lua_State *L)
{
    return lsag_context_on(L, lsag_device(L));
}

/* ----------------------------------------------------------------------------------------------- errors */

void lsag_check_status(lua_State *L, sag_status status)
{
    if (status != SAG_OK) luaL_error(L, "%s", sag_error_message());
}

int lsag_fail(lua_State *L, sag_status status)
{
    return lsag_fail_text(L, sag_status_name(status), "%s", sag_error_message());
}

int lsag_fail_text(lua_State *L, const char *code, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    lua_pushnil(L);
    lua_pushstring(L, text);
    lua_pushstring(L, code);
    return 3;
}

static int64_t bytes_in_use(const lsag_state *s)
{
    int64_t bytes = 0;
    for (int d = 0; d < SAG_DEVICE_COUNT; d++) {
        if (!s->contexts[d]) continue;
        sag_memory_stats stats;
        sag_context_memory(s->contexts[d], &stats);
        bytes += stats.bytes_in_use;
    }
    return bytes;
}

static void collect(lua_State *L, lsag_state *s)
{
    lua_gc(L, LUA_GCCOLLECT);
    s->collected_bytes = bytes_in_use(s);
    s->collect_at = s->collected_bytes + (s->collected_bytes > COLLECT_FLOOR ? s->collected_bytes : COLLECT_FLOOR);
}

void lsag_collect(lua_State *L)
{
    lsag_state *s = lsag_state_of(L);
    collect(L, s);
    for (int d = 0; d < SAG_DEVICE_COUNT; d++)
        if (s->contexts[d] && !sag_context_recording_graph(s->contexts[d])) sag_context_trim(s->contexts[d]);
}

void lsag_nudge(lua_State *L, int64_t grown_bytes)
{
    lsag_state *s = lsag_state_of(L);
    if (bytes_in_use(s) - s->collected_bytes >= grown_bytes && lua_gc(L, LUA_GCISRUNNING)) collect(L, s);
}

int lsag_arg_error(lua_State *L, const char *function, const char *arg, const char *expected, int index)
{
    return luaL_error(L, "bad argument '%s' to %s: %s expected, got %s", arg, function, expected,
                      lua_isnone(L, index) ? "no value" : lsag_test_tensor(L, index) ? "tensor" : luaL_typename(L, index));
}

void lsag_push_hint(lua_State *L, const char *word, int index)
{
    int top = lua_gettop(L);
    index = lua_absindex(L, index);
    luaL_checkstack(L, 8, NULL);
    if (lua_getglobal(L, "require") == LUA_TFUNCTION) {
        lua_pushstring(L, "sagan.nearest");
        if (lua_pcall(L, 1, 1, 0) == LUA_OK && lua_isfunction(L, -1)) {
            lua_pushstring(L, word);
            lua_newtable(L);
            lua_Integer n = 0;
            for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
                if (lua_type(L, -2) != LUA_TSTRING) continue;
                lua_pushvalue(L, -2);
                lua_rawseti(L, -4, ++n);
            }
            if (lua_pcall(L, 2, 1, 0) == LUA_OK && lua_isstring(L, -1)) {
                lua_pushfstring(L, " (did you mean '%s'?)", lua_tostring(L, -1));
                lua_replace(L, top + 1);
                lua_settop(L, top + 1);
                return;
            }
        }
    }
    lua_settop(L, top);
    lua_pushliteral(L, "");
}

/* ---------------------------------------------------------------------------------------------- tensors */

lsag_tensor *lsag_to_userdata(lua_State *L, int index)
{
    lsag_tensor *u = lua_touserdata(L, index);
    if (!u || !lua_getmetatable(L, index)) return NULL;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &tensor_key);
    bool same = lua_rawequal(L, -1, -2) != 0;
    lua_pop(L, 2);
    return same ? u : NULL;
}

/* Pushes the metatable that all tensors share; made empty the first time. */
void lsag_push_metatable(lua_State *L)
{
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &tensor_key) == LUA_TTABLE) return;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &tensor_key);
}

sag_tensor **lsag_new_tensor(lua_State *L)
{
    lsag_state *s = lsag_state_of(L);
    if (bytes_in_use(s) >= s->collect_at && lua_gc(L, LUA_GCISRUNNING)) collect(L, s);
    lsag_tensor *u = lua_newuserdatauv(L, sizeof *u, 0);
    memset(u, 0, sizeof *u);
    lsag_push_metatable(L);
    lua_setmetatable(L, -2);
    if (s->scope_depth > 0) {
        u->scope = s->scope_depth;
        u->next = s->scope_list;
        if (u->next) u->next->prev = u;
        s->scope_list = u;
    }
    return &u->t;
}

void lsag_scope_leave(lsag_state *s, lsag_tensor *u)
{
    if (u->scope == 0) return;
    if (u->prev)
        u->prev->next = u->next;
    else
        s->scope_list = u->next;
    if (u->next) u->next->prev = u->prev;
    u->next = u->prev = NULL;
    u->scope = 0;
}

void lsag_release(lsag_state *s, lsag_tensor *u)
{
    sag_tensor *t = u->t;
    lsag_scope_leave(s, u);
    u->t = NULL;
    sag_tensor_release(t);
}

void lsag_push_tensor(lua_State *L, sag_tensor *t)
{
    if (!t) {
        lua_pushnil(L);
        return;
    }
    sag_tensor **slot = lsag_new_tensor(L);
    sag_tensor_retain(t);
    *slot = t;
}

static sag_tensor *live_tensor(lua_State *L, lsag_tensor *u)
{
    if (!u->t)
        luaL_error(L, "this tensor was released, by release() or at the end of the scope it was made in "
                      "(return it from the scope or call keep() on it)");
    return u->t;
}

sag_tensor *lsag_test_tensor(lua_State *L, int index)
{
    lsag_tensor *u = lsag_to_userdata(L, index);
    return u ? live_tensor(L, u) : NULL;
}

sag_tensor *lsag_check_tensor(lua_State *L, int index)
{
    lsag_tensor *u = lsag_to_userdata(L, index);
    if (!u) luaL_typeerror(L, index, "tensor");
    return live_tensor(L, u);
}

sag_tensor *lsag_opt_tensor(lua_State *L, int index)
{
    return lua_isnoneornil(L, index) ? NULL : lsag_check_tensor(L, index);
}

sag_tensor *lsag_check_tensor_of(lua_State *L, int index, sag_dtype dtype, int rank)
{
    sag_tensor *t = lsag_check_tensor(L, index);
    if (dtype != SAG_DTYPE_COUNT && sag_tensor_dtype(t) != dtype)
        luaL_argerror(L, index, lua_pushfstring(L, "%s tensor expected, got %s", sag_dtype_name(dtype),
                                                sag_dtype_name(sag_tensor_dtype(t))));
    sag_shape shape = sag_tensor_shape(t);
    char text[96];
    if (rank != 0 && shape.rank != rank)
        luaL_argerror(L, index, lua_pushfstring(L, "tensor of rank %d expected, got %s", rank,
                                                sag_shape_text(shape, text, sizeof text)));
    return t;
}

bool lsag_find_dtype(const char *name, sag_dtype *dtype)
{
    for (int d = 0; d < SAG_DTYPE_COUNT; d++) {
        if (strcmp(name, sag_dtype_name((sag_dtype)d)) != 0) continue;
        *dtype = (sag_dtype)d;
        return true;
    }
    return false;
}

bool lsag_find_device(const char *name, sag_device *device)
{
    for (int d = 0; d < SAG_DEVICE_COUNT; d++) {
        if (strcmp(name, sag_device_name((sag_device)d)) != 0) continue;
        *device = (sag_device)d;
        return true;
    }
    return false;
}
