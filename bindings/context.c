/*
 * context.c - the functions of sagan.core about the device and the engine's state: device, threads, memory, module path,
 * tape, profile, and the counters that specs watch.
 */
#include "bindings/lsag.h"

#include <string.h>

/* device() -> name of the current device. device(name): new tensors go there from now on. */
static int l_device(lua_State *L)
{
    if (!lua_isnoneornil(L, 1)) {
        const char *name = luaL_checkstring(L, 1);
        sag_device device;
        if (!lsag_find_device(name, &device))
            return luaL_argerror(L, 1, lua_pushfstring(L, "'cpu' or 'cuda' expected, got '%s'", name));
        if (!sag_device_available(device))
            return luaL_error(L, "device: '%s' is not available here (core.devices() lists what is)", name);
        lsag_context_on(L, device);
        lsag_state_of(L)->device = device;
    }
    lua_pushstring(L, sag_device_name(lsag_device(L)));
    return 1;
}

static int l_devices(lua_State *L)
{
    lua_newtable(L);
    for (int d = 0, n = 0; d < SAG_DEVICE_COUNT; d++) {
        if (!sag_device_available((sag_device)d)) continue;
        lua_pushstring(L, sag_device_name((sag_device)d));
        lua_rawseti(L, -2, ++n);
    }
    return 1;
}

/* cuda.is_available() -> true, or false and why not */
static int l_cuda_is_available(lua_State *L)
{
    bool there = sag_device_available(SAG_CUDA);
    lua_pushboolean(L, there);
    if (there) return 1;
    lua_pushstring(L, sag_device_problem(SAG_CUDA));
    return 2;
}

/* cuda.name() -> card, memory, compute capability, driver; "" without a card */
static int l_cuda_name(lua_State *L)
{
    lua_pushstring(L, sag_device_detail(SAG_CUDA));
    return 1;
}

static int l_isa(lua_State *L)
{
    lua_pushstring(L, sag_cpu_isa());
    return 1;
}

/* threads([n]) -> threads in use; 0 means all cores */
static int l_threads(lua_State *L)
{
    sag_context *ctx = lsag_context(L);
    if (!lua_isnoneornil(L, 1)) {
        lua_Integer n = luaL_checkinteger(L, 1);
        luaL_argcheck(L, n >= 0 && n <= 1024, 1, "0 (all cores) to 1024 expected");
        sag_context_set_threads(ctx, (int)n);
    }
    lua_pushinteger(L, sag_context_threads(ctx));
    return 1;
}

/* winograd([on]) -> whether 3x3 convolutions on the CPU may use it */
static int l_winograd(lua_State *L)
{
    sag_context *ctx = lsag_context(L);
    if (!lua_isnoneornil(L, 1)) {
        luaL_checktype(L, 1, LUA_TBOOLEAN);
        sag_context_set_winograd(ctx, lua_toboolean(L, 1));
    }
    lua_pushboolean(L, sag_context_winograd(ctx));
    return 1;
}

static int l_synchronize(lua_State *L)
{
    lsag_check_status(L, sag_context_synchronize(lsag_context(L)));
    return 0;
}

/* set_path(s) -> the path before; nil means none */
static int l_set_path(lua_State *L)
{
    const char *path = luaL_optstring(L, 1, "");
    sag_context *ctx = lsag_context(L);
    const char *before = sag_context_path(ctx);
    if (before && *before)
        lua_pushstring(L, before);
    else
        lua_pushnil(L);
    sag_context_set_path(ctx, path);
    return 1;
}

static int l_path(lua_State *L)
{
    const char *path = sag_context_path(lsag_context(L));
    if (path && *path)
        lua_pushstring(L, path);
    else
        lua_pushnil(L);
    return 1;
}

/* ----------------------------------------------------------------------------------------------- memory */

static void set_integer(lua_State *L, const char *field, int64_t value)
{
    lua_pushinteger(L, value);
    lua_setfield(L, -2, field);
}

static int l_memory(lua_State *L)
{
    sag_memory_stats m;
    sag_context_memory(lsag_context(L), &m);
    lua_createtable(L, 0, 6);
    set_integer(L, "live_tensors", m.live_tensors);
    set_integer(L, "live_storages", m.live_storages);
    set_integer(L, "bytes_in_use", m.bytes_in_use);
    set_integer(L, "bytes_peak", m.bytes_peak);
    set_integer(L, "bytes_cached", m.bytes_cached);
    set_integer(L, "device_allocs", m.device_allocs);
    return 1;
}

static int l_reset_peak(lua_State *L)
{
    sag_context_reset_peak(lsag_context(L));
    return 0;
}

static int l_trim(lua_State *L)
{
    sag_context_trim(lsag_context(L));
    return 0;
}

/* live() -> {tensors, storages, host_blocks, tape} over all devices; collects nothing by itself */
static int l_live(lua_State *L)
{
    lsag_state *s = lsag_state_of(L);
    int64_t tensors = 0, storages = 0, tape = 0;
    for (int d = 0; d < SAG_DEVICE_COUNT; d++) {
        if (!s->contexts[d]) continue;
        sag_memory_stats m;
        sag_context_memory(s->contexts[d], &m);
        tensors += m.live_tensors;
        storages += m.live_storages;
        tape += sag_tape_length(s->contexts[d]);
    }
    lua_createtable(L, 0, 4);
    set_integer(L, "tensors", tensors);
    set_integer(L, "storages", storages);
    set_integer(L, "host_blocks", sag_debug_live_host_blocks());
    set_integer(L, "tape", tape);
    return 1;
}

static int l_fail_allocation(lua_State *L)
{
    lua_Integer n = luaL_checkinteger(L, 1);
    luaL_argcheck(L, n >= 0, 1, "must be at least 0");
    sag_debug_fail_allocation(n);
    return 0;
}

/* ------------------------------------------------------------------------------------------------- tape */

static int l_retain_grads(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TBOOLEAN);
    lsag_state *s = lsag_state_of(L);
    s->retain_grads = lua_toboolean(L, 1) != 0;
    for (int d = 0; d < SAG_DEVICE_COUNT; d++)
        if (s->contexts[d]) sag_tape_retain_grads(s->contexts[d], s->retain_grads);
    return 0;
}

static int l_is_recording(lua_State *L)
{
    lua_pushboolean(L, lsag_state_of(L)->recording);
    return 1;
}

static int l_clear_tape(lua_State *L)
{
    lsag_state *s = lsag_state_of(L);
    for (int d = 0; d < SAG_DEVICE_COUNT; d++)
        if (s->contexts[d]) sag_tape_clear(s->contexts[d]);
    return 0;
}

/* ---------------------------------------------------------------------------------------------- profile */

#define MAX_ROWS 256

/* profile(true) starts from zero, profile(false) stops */
static int l_profile(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TBOOLEAN);
    bool on = lua_toboolean(L, 1) != 0;
    sag_context *ctx = lsag_context(L);
    if (on) sag_profile_reset(ctx);
    sag_profile_enable(ctx, on);
    return 0;
}

static int l_profile_rows(lua_State *L)
{
    sag_profile_row *rows = lua_newuserdatauv(L, MAX_ROWS * sizeof *rows, 0);
    int n = sag_profile_read(lsag_context(L), rows, MAX_ROWS);
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        lua_createtable(L, 0, 6);
        lua_pushstring(L, rows[i].kernel);
        lua_setfield(L, -2, "kernel");
        set_integer(L, "calls", rows[i].calls);
        lua_pushnumber(L, rows[i].seconds);
        lua_setfield(L, -2, "seconds");
        lua_pushnumber(L, rows[i].flops);
        lua_setfield(L, -2, "flops");
        lua_pushnumber(L, rows[i].done);
        lua_setfield(L, -2, "done");
        lua_pushnumber(L, rows[i].bytes);
        lua_setfield(L, -2, "bytes");
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

static int l_is_tensor(lua_State *L)
{
    lua_pushboolean(L, lsag_to_userdata(L, 1) != NULL);
    return 1;
}

void lsag_add_context(lua_State *L)
{
    static const luaL_Reg functions[] = {{"device", l_device},
                                         {"devices", l_devices},
                                         {"isa", l_isa},
                                         {"threads", l_threads},
                                         {"winograd", l_winograd},
                                         {"synchronize", l_synchronize},
                                         {"set_path", l_set_path},
                                         {"path", l_path},
                                         {"memory", l_memory},
                                         {"reset_peak", l_reset_peak},
                                         {"trim", l_trim},
                                         {"live", l_live},
                                         {"fail_allocation", l_fail_allocation},
                                         {"retain_grads", l_retain_grads},
                                         {"is_recording", l_is_recording},
                                         {"clear_tape", l_clear_tape},
                                         {"profile", l_profile},
                                         {"profile_rows", l_profile_rows},
                                         {"is_tensor", l_is_tensor},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    static const luaL_Reg cuda[] = {{"is_available", l_cuda_is_available}, {"name", l_cuda_name}, {NULL, NULL}};
    luaL_newlib(L, cuda);
    lua_setfield(L, -2, "cuda");
}
