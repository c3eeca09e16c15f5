/*
 * sha256.c - sagan.core.sha256: digests as 64 hexadecimal digits (engine/io/sha256.h).
 *
 *     sha256.text("abc"), assert(sha256.file(path))
 */
#include "bindings/lsag.h"

#include "engine/io/sha256.h"

static int l_text(lua_State *L)
{
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    char hex[SAG_SHA256_HEX];
    sag_sha256(text, n, hex);
    lua_pushstring(L, hex);
    return 1;
}

static int l_file(lua_State *L)
{
    char hex[SAG_SHA256_HEX];
    sag_status status = sag_sha256_file(luaL_checkstring(L, 1), hex);
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_pushstring(L, hex);
    return 1;
}

int lsag_open_sha256(lua_State *L)
{
    static const luaL_Reg functions[] = {{"text", l_text}, {"file", l_file}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
