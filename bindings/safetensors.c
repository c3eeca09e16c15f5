/*
 * safetensors.c - sagan.core.safetensors: tables of named tensors in files (engine/io/safetensors.h).
 *
 *     assert(safetensors.save("g.safetensors", net:state_dict(), {step = "1000"}))
 *     local tensors, metadata = assert(safetensors.load("g.safetensors"))
 *
 * A file that is missing or broken is nil, message, code; so is one whose tensors do not fit in load_into.
 */
#include "bindings/lsag.h"

#include <string.h>

#include "engine/io/safetensors.h"

#define FILE_HANDLE "sagan.safetensors_file"

static int file_gc(lua_State *L)
{
    sag_safetensors **f = lua_touserdata(L, 1);
    sag_safetensors_close(*f);
    *f = NULL;
    return 0;
}

/* Pushes a handle that closes the file when it is collected. */
static sag_status open_file(lua_State *L, const char *path, sag_safetensors ***out)
{
    sag_safetensors **f = lua_newuserdatauv(L, sizeof *f, 0);
    *f = NULL;
    luaL_setmetatable(L, FILE_HANDLE);
    *out = f;
    return sag_safetensors_open(path, f);
}

/* The map of a large file should not wait for the collector. */
static void close_file(sag_safetensors **f)
{
    sag_safetensors_close(*f);
    *f = NULL;
}

static void push_metadata(lua_State *L, const sag_safetensors *f)
{
    lua_newtable(L);
    for (int64_t i = 0; i < sag_safetensors_meta_count(f); i++) {
        const char *key, *value;
        sag_safetensors_meta_at(f, i, &key, &value);
        lua_pushstring(L, value);
        lua_setfield(L, -2, key);
    }
}

void lsag_push_file_entry(lua_State *L, const char *dtype, int rank, const int64_t *dim, size_t bytes, bool supported)
{
    lua_createtable(L, 0, 4);
    lua_pushstring(L, dtype);
    lua_setfield(L, -2, "dtype");
    lua_createtable(L, rank, 0);
    for (int k = 0; k < rank; k++) {
        lua_pushinteger(L, dim[k]);
        lua_rawseti(L, -2, k + 1);
    }
    lua_setfield(L, -2, "shape");
    lua_pushinteger(L, (lua_Integer)bytes);
    lua_setfield(L, -2, "bytes");
    lua_pushboolean(L, supported);
    lua_setfield(L, -2, "supported");
}

/* load(path) -> {name = tensor}, metadata */
static int l_load(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    sag_safetensors **f;
    sag_status status = open_file(L, path, &f);
    for (int64_t i = 0; status == SAG_OK && i < sag_safetensors_count(*f); i++)
        status = sag_safetensors_require(*f, sag_safetensors_at(*f, i));
    if (status != SAG_OK) {
        close_file(f);
        return lsag_fail(L, status);
    }
    sag_context *ctx = lsag_context(L);
    lua_newtable(L);
    for (int64_t i = 0; i < sag_safetensors_count(*f); i++) {
        const sag_safetensors_entry *e = sag_safetensors_at(*f, i);
        sag_tensor **slot = lsag_new_tensor(L);
        LSAG_TRY(L, sag_tensor_create(ctx, e->dtype, e->shape, slot));
        lsag_check_status(L, sag_tensor_write(*slot, e->data, e->bytes));
        lua_setfield(L, -2, e->name);
    }
    push_metadata(L, *f);
    close_file(f);
    return 2;
}

/* header(path) -> {name = {dtype, shape, bytes, supported}}, metadata: without reading the tensors */
static int l_header(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    sag_safetensors **f;
    sag_status status = open_file(L, path, &f);
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_newtable(L);
    for (int64_t i = 0; i < sag_safetensors_count(*f); i++) {
        const sag_safetensors_entry *e = sag_safetensors_at(*f, i);
        lsag_push_file_entry(L, e->supported ? sag_dtype_name(e->dtype) : e->dtype_name, e->rank, e->dim, e->bytes,
                             e->supported);
        lua_setfield(L, -2, e->name);
    }
    push_metadata(L, *f);
    close_file(f);
    return 2;
}

/* -------------------------------------------------------------------------------------------------- save */

/* A tensor on another device is read into host memory when its turn comes, and that memory goes with its last
 * piece. */
typedef struct staged {
    sag_tensor *t;
    uint8_t *host;
    size_t at;
} staged;

static sag_status fill_staged(void *user, void *dst, size_t bytes)
{
    staged *s = user;
    size_t all = (size_t)sag_tensor_numel(s->t) * sag_dtype_size(sag_tensor_dtype(s->t));
    if (!s->host) {
        s->host = sag_host_alloc(all);
        if (!s->host) SAG_FAIL(SAG_ERR_MEMORY, "save: no host memory for a tensor of %zu bytes", all);
        SAG_TRY(sag_tensor_read(s->t, s->host, all));
    }
    memcpy(dst, s->host + s->at, bytes);
    s->at += bytes;
    if (s->at == all) {
        sag_host_free(s->host);
        s->host = NULL;
    }
    return SAG_OK;
}

/* The key at `index` as a C string that Lua keeps. */
static const char *check_name(lua_State *L, int index, const char *function, const char *what)
{
    if (lua_type(L, index) != LUA_TSTRING)
        luaL_error(L, "%s: the names of %s must be strings, one is a %s", function, what, luaL_typename(L, index));
    size_t n;
    const char *name = lua_tolstring(L, index, &n);
    if (strlen(name) != n) luaL_error(L, "%s: a name in %s holds a zero byte", function, what);
    return name;
}

static int64_t count_entries(lua_State *L, int index)
{
    int64_t n = 0;
    for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) n++;
    return n;
}

/* save(path, {name = tensor} [, metadata]) -> true: all or nothing, the same bytes for the same content */
static int l_save(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    if (!lua_isnoneornil(L, 3)) luaL_checktype(L, 3, LUA_TTABLE);
    lua_settop(L, 3);
    int64_t n = count_entries(L, 2), n_meta = lua_isnil(L, 3) ? 0 : count_entries(L, 3);
    sag_safetensors_item *items = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *items, 0);
    staged *stages = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *stages, 0);
    sag_safetensors_pair *meta = lua_newuserdatauv(L, (size_t)(n_meta + 1) * sizeof *meta, 0);
    int64_t i = 0;
    for (lua_pushnil(L); lua_next(L, 2) != 0; lua_pop(L, 1), i++) {
        const char *name = check_name(L, -2, "save", "tensors");
        sag_tensor *t = lsag_test_tensor(L, -1);
        if (!t) return luaL_error(L, "save: '%s' is a %s, a tensor expected", name, luaL_typename(L, -1));
        stages[i] = (staged){.t = t};
        items[i] = (sag_safetensors_item){.name = name, .dtype = sag_tensor_dtype(t), .shape = sag_tensor_shape(t)};
        if (sag_context_device(sag_tensor_context(t)) == SAG_CPU) {
            items[i].data = sag_tensor_data(t);
        } else {
            items[i].fill = fill_staged;
            items[i].user = &stages[i];
        }
    }
    i = 0;
    for (lua_pushnil(L); n_meta > 0 && lua_next(L, 3) != 0; lua_pop(L, 1), i++) {
        const char *key = check_name(L, -2, "save", "metadata");
        size_t length = 0;
        const char *value = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;
        if (!value || strlen(value) != length)
            return luaL_error(L, "save: metadata '%s' must be a string without zero bytes, it is a %s", key,
                              luaL_typename(L, -1));
        meta[i] = (sag_safetensors_pair){key, value};
    }
    sag_status status = sag_safetensors_write(path, items, n, meta, n_meta);
    for (i = 0; i < n; i++) sag_host_free(stages[i].host);
    if (status == SAG_ERR_ARG) lsag_check_status(L, status); /* a name or a value that no file can hold */
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_pushboolean(L, 1);
    return 1;
}

/* --------------------------------------------------------------------------------------------- load_into */

/* Does the file hold exactly the tensors of the table at index 2, with their shapes and dtypes? */
static sag_status check_fit(lua_State *L, const char *path, const sag_safetensors *f)
{
    const char *missing = NULL;
    int64_t n_missing = 0;
    for (lua_pushnil(L); lua_next(L, 2) != 0; lua_pop(L, 1)) {
        const char *name = check_name(L, -2, "load_into", "tensors");
        sag_tensor *t = lsag_test_tensor(L, -1);
        if (!t) luaL_error(L, "load_into: '%s' is a %s, a tensor expected", name, luaL_typename(L, -1));
        const sag_safetensors_entry *e = sag_safetensors_find(f, name);
        if (!e) {
            if (!missing || strcmp(name, missing) < 0) missing = name;
            n_missing++;
            continue;
        }
        SAG_TRY(sag_safetensors_require(f, e));
        char have[96], want[96];
        if (e->dtype != sag_tensor_dtype(t) || !sag_shape_equal(e->shape, sag_tensor_shape(t)))
            SAG_FAIL(SAG_ERR_SHAPE, "%s: tensor %s is %s %s in the file, %s %s is needed", path, name,
                     sag_shape_text(e->shape, have, sizeof have), sag_dtype_name(e->dtype),
                     sag_shape_text(sag_tensor_shape(t), want, sizeof want), sag_dtype_name(sag_tensor_dtype(t)));
    }
    if (missing)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: lacks %lld of the tensors that are needed, the first is %s", path,
                 (long long)n_missing, missing);
    for (int64_t i = 0; i < sag_safetensors_count(f); i++) {
        const char *name = sag_safetensors_at(f, i)->name;
        bool wanted = lua_getfield(L, 2, name) != LUA_TNIL;
        lua_pop(L, 1);
        if (!wanted)
            SAG_FAIL(SAG_ERR_FORMAT, "%s: holds %lld tensors where %lld are needed, the first too many is %s", path,
                     (long long)sag_safetensors_count(f), (long long)count_entries(L, 2), name);
    }
    return SAG_OK;
}

/* load_into(path, {name = tensor}) -> true, metadata: copies into tensors that exist; on a misfit nothing is
 * changed */
static int l_load_into(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    sag_safetensors **f;
    sag_status status = open_file(L, path, &f);
    if (status == SAG_OK) {
        int top = lua_gettop(L);
        status = check_fit(L, path, *f);
        lua_settop(L, top); /* a misfit is found inside a traversal */
    }
    for (int64_t i = 0; status == SAG_OK && i < sag_safetensors_count(*f); i++) {
        const sag_safetensors_entry *e = sag_safetensors_at(*f, i);
        lua_getfield(L, 2, e->name);
        status = sag_tensor_write(lsag_check_tensor(L, -1), e->data, e->bytes);
        lua_pop(L, 1);
    }
    if (status != SAG_OK) {
        close_file(f);
        return lsag_fail(L, status);
    }
    lua_pushboolean(L, 1);
    push_metadata(L, *f);
    close_file(f);
    return 2;
}

int lsag_open_safetensors(lua_State *L)
{
    if (luaL_newmetatable(L, FILE_HANDLE)) {
        lua_pushcfunction(L, file_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_pop(L, 1);
    static const luaL_Reg functions[] = {
        {"load", l_load}, {"save", l_save}, {"header", l_header}, {"load_into", l_load_into}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
