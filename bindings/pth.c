/*
 * pth.c - sagan.core.pth: PyTorch state dicts, read as data (engine/io/pth.h). The same face as core.safetensors:
 *
 *     local tensors = assert(pth.load("weights.pth"))
 *
 * Layouts are the file's: convolution weights {K, C, R, S}. A file that is missing or broken, or that holds anything
 * but a flat dictionary of tensors, is nil, message, code.
 */
#include "bindings/lsag.h"

#include "engine/io/pth.h"

#define FILE_HANDLE "sagan.pth_file"

static int file_gc(lua_State *L)
{
    sag_pth **f = lua_touserdata(L, 1);
    sag_pth_close(*f);
    *f = NULL;
    return 0;
}

/* Pushes a handle that closes the file when it is collected. */
static sag_status open_file(lua_State *L, const char *path, sag_pth ***out)
{
    sag_pth **f = lua_newuserdatauv(L, sizeof *f, 0);
    *f = NULL;
    luaL_setmetatable(L, FILE_HANDLE);
    *out = f;
    return sag_pth_open(path, f);
}

static int fail(lua_State *L, sag_pth **f, sag_status status)
{
    sag_pth_close(*f);
    *f = NULL;
    return lsag_fail(L, status);
}

/* load(path) -> {name = tensor} */
static int l_load(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    sag_pth **f;
    sag_status status = open_file(L, path, &f);
    for (int64_t i = 0; status == SAG_OK && i < sag_pth_count(*f); i++) status = sag_pth_require(*f, sag_pth_at(*f, i));
    if (status != SAG_OK) return fail(L, f, status);
    sag_context *ctx = lsag_context(L);
    lua_newtable(L);
    for (int64_t i = 0; i < sag_pth_count(*f); i++) {
        const sag_pth_entry *e = sag_pth_at(*f, i);
        sag_tensor **slot = lsag_new_tensor(L);
        LSAG_TRY(L, sag_tensor_create(ctx, e->dtype, e->shape, slot));
        if (sag_context_device(ctx) == SAG_CPU) {
            status = sag_pth_read(*f, e, sag_tensor_data(*slot));
        } else {
            void *host = lua_newuserdatauv(L, e->bytes, 0);
            status = sag_pth_read(*f, e, host);
            if (status == SAG_OK) lsag_check_status(L, sag_tensor_write(*slot, host, e->bytes));
            lua_pop(L, 1);
        }
        if (status != SAG_OK) return fail(L, f, status);
        lua_setfield(L, -2, e->name);
    }
    sag_pth_close(*f);
    *f = NULL;
    return 1;
}

/* header(path) -> {name = {dtype, shape, bytes, supported}}: what load would give, without reading the tensors */
static int l_header(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    sag_pth **f;
    sag_status status = open_file(L, path, &f);
    if (status != SAG_OK) return fail(L, f, status);
    lua_newtable(L);
    for (int64_t i = 0; i < sag_pth_count(*f); i++) {
        const sag_pth_entry *e = sag_pth_at(*f, i);
        lsag_push_file_entry(L, e->supported ? sag_dtype_name(e->dtype) : e->dtype_name, e->rank, e->dim, e->bytes, e->supported);
        lua_setfield(L, -2, e->name);
    }
    sag_pth_close(*f);
    *f = NULL;
    return 1;
}

int lsag_open_pth(lua_State *L)
{
    if (luaL_newmetatable(L, FILE_HANDLE)) {
        lua_pushcfunction(L, file_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_pop(L, 1);
    static const luaL_Reg functions[] = {{"load", l_load}, {"header", l_header}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
