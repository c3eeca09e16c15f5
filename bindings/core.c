/*
 * core.c - luaopen_sagan_core: puts the parts of the C module together. As core.so for a stock lua5.4, or preloaded by the
 * program sagan-lua. scripts/sagan/init.lua builds `require "sagan"` from it.
 */
#include "bindings/lsag.h"

__attribute__((visibility("default"))) int luaopen_sagan_core(lua_State *L)
{
    luaL_checkversion(L);
    lsag_state_create(L);
    lua_newtable(L);

    lsag_open_ops(L);
    lsag_open_tensor(L);
    lua_setfield(L, -3, "tensor_methods");
    lua_setfield(L, -2, "ops");
    lsag_add_op_functions(L);
    lsag_add_constructors(L);
    lsag_add_scopes(L);
    lsag_add_watch(L);
    lsag_add_context(L);
    lua_pushliteral(L, SAGAN_VERSION);
    lua_setfield(L, -2, "version");

    /* sub-tables, one file each */
    static const luaL_Reg parts[] = {{"system", lsag_open_system}, {"safetensors", lsag_open_safetensors},
                                     {"image", lsag_open_image},   {"events", lsag_open_events},
                                     {"dataset", lsag_open_dataset}, {"metrics", lsag_open_metrics},
                                     {"pth", lsag_open_pth}, {"resizer", lsag_open_resizer},
                                     {"sha256", lsag_open_sha256}, {"socket", lsag_open_socket},
                                     {"terminal_picture", lsag_open_terminal_picture}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        parts[i].func(L);
        lua_setfield(L, -2, parts[i].name);
    }
    return 1;
}
