/*
 * resizer.c - sagan.core.resizer: u8 pictures to the Inception network's input (engine/data/resizer.h).
 *
 *     local x = resizer.run(images, "clean")        -- u8 {N,H,W,C} -> f32 {N,299,299,3}
 */
#include "bindings/image.h"

#include <string.h>

#include "engine/data/resizer.h"

#define SIDE 299

static sag_resizer check_kind(lua_State *L, int index)
{
    const char *name = luaL_checkstring(L, index);
    for (int k = 0; k < SAG_RESIZER_COUNT; k++)
        if (strcmp(name, sag_resizer_name((sag_resizer)k)) == 0) return (sag_resizer)k;
    luaL_argerror(L, index, lua_pushfstring(L, "no resizer is called '%s' (tf1, torch, clean)", name));
    return SAG_RESIZER_COUNT;
}

/* run(images, name [, side]) -> {N,side,side,3} on the current device */
static int l_run(lua_State *L)
{
    lua_settop(L, 3);
    sag_resizer kind = check_kind(L, 2);
    int side = lsag_opt_int(L, 3, 1, SAG_IMAGE_MAX_SIDE, SIDE);
    lsag_images s = lsag_check_images(L, 1, true, false);
    sag_context *ctx = lsag_context(L);
    int threads = sag_context_threads(ctx);
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_create(ctx, SAG_F32, sag_shape4(s.count, side, side, 3), slot));
    if (sag_context_device(ctx) == SAG_CPU) {
        LSAG_TRY(L, sag_resizer_run(kind, s.pixels, s.count, s.height, s.width, s.channels, side, threads,
                                    sag_tensor_data(*slot)));
        return 1;
    }
    size_t bytes = (size_t)sag_tensor_numel(*slot) * sizeof(float);
    float *host = lua_newuserdatauv(L, bytes, 0);
    LSAG_TRY(L, sag_resizer_run(kind, s.pixels, s.count, s.height, s.width, s.channels, side, threads, host));
    lsag_check_status(L, sag_tensor_write(*slot, host, bytes));
    lua_pop(L, 1);
    return 1;
}

/* names() -> {"tf1", "torch", "clean"} */
static int l_names(lua_State *L)
{
    lua_createtable(L, SAG_RESIZER_COUNT, 0);
    for (int k = 0; k < SAG_RESIZER_COUNT; k++) {
        lua_pushstring(L, sag_resizer_name((sag_resizer)k));
        lua_rawseti(L, -2, k + 1);
    }
    return 1;
}

int lsag_open_resizer(lua_State *L)
{
    static const luaL_Reg functions[] = {{"run", l_run}, {"names", l_names}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
