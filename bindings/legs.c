/* legs.c - sagan.core.metrics.legs: legs counted in pictures (engine/metrics/legs.c). */
#include "bindings/image.h"

#include "engine/metrics/metrics.h"

/* metrics.legs(images, expected) -> counts: images u8 {N,H,W,C}; expected: a number of legs, or one for each */
int lsag_metrics_legs(lua_State *L)
{
    lua_settop(L, 2);
    if (!lua_istable(L, 2)) luaL_checkinteger(L, 2);
    lsag_images s = lsag_check_images(L, 1, true, false);
    if (lua_istable(L, 2) && (int64_t)lua_rawlen(L, 2) != s.count)
        luaL_argerror(L, 2,
                      lua_pushfstring(L, "%I numbers of legs for %I images", (LUAI_UACINT)lua_rawlen(L, 2),
                                      (LUAI_UACINT)s.count));
    int32_t *expected = lua_newuserdatauv(L, (size_t)s.count * 2 * sizeof *expected, 0), *legs = expected + s.count;
    for (int64_t i = 0; i < s.count; i++) {
        if (lua_istable(L, 2)) {
            int whole;
            lua_rawgeti(L, 2, i + 1);
            expected[i] = (int32_t)lua_tointegerx(L, -1, &whole);
            if (!whole) luaL_argerror(L, 2, lua_pushfstring(L, "entry %I is no whole number", (LUAI_UACINT)(i + 1)));
            lua_pop(L, 1);
        } else {
            expected[i] = (int32_t)lua_tointeger(L, 2);
        }
    }
    sag_pictures p = {s.pixels, s.count, s.height, s.width, s.channels};
    LSAG_TRY(L, sag_legs(&p, expected, sag_context_threads(lsag_context_on(L, SAG_CPU)), legs));
    lua_createtable(L, (int)s.count, 0);
    for (int64_t i = 0; i < s.count; i++) {
        lua_pushinteger(L, legs[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}
