/*
 * watch.c - core.watch: runs a function that somebody else wrote, and can end it.
 *
 * A hook calls check() every INTERVAL instructions; what check raises ends the function, through its to-be-closed
 * variables. After that the hook lets them do their work undisturbed for as long. A function that catches the error and
 * goes on is ended again, and after PATIENCE times at every instruction, so that no loop around a pcall holds out.
 * Coroutines inherit the hook. What runs in C is not interrupted.
 */
#include "bindings/lsag.h"

#include <string.h>

#define WATCH "sagan.watch"
#define INTERVAL 20000 /* a few hundred microseconds */
#define PATIENCE 20

/* The check function of the watch that runs lies in the registry under this address. */
static const char check_key;

typedef struct watch {
    struct watch *outer; /* for one inside another */
    int raised;
    lua_Hook hook; /* what to go back to */
    int mask, count;
    bool armed;
} watch;

static watch *current; /* hooks know no context of their own; one Lua state at a time is watched */

static void hook(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    if (!current) return; /* a coroutine that outlived its watch */
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &check_key) == LUA_TNIL) return;
    if (lua_pcall(L, 0, 0, 0) == LUA_OK) return;
    if (++current->raised >= PATIENCE) lua_sethook(L, hook, LUA_MASKCOUNT, 1);
    lua_error(L);
}

static int l_watch_close(lua_State *L)
{
    watch *w = luaL_checkudata(L, 1, WATCH);
    if (!w->armed) return 0;
    w->armed = false;
    lua_sethook(L, w->hook, w->mask, w->count);
    current = w->outer;
    lua_getiuservalue(L, 1, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &check_key);
    return 0;
}

/* watch(check, f, ...) -> f(...) */
static int l_watch(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    watch *w = lua_newuserdatauv(L, sizeof *w, 1);
    memset(w, 0, sizeof *w);
    luaL_setmetatable(L, WATCH);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &check_key);
    lua_setiuservalue(L, -2, 1);
    lua_insert(L, 1);
    lua_toclose(L, 1);
    lua_pushvalue(L, 2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &check_key);
    *w = (watch){.outer = current,
                 .hook = lua_gethook(L),
                 .mask = lua_gethookmask(L),
                 .count = lua_gethookcount(L),
                 .armed = true};
    current = w;
    lua_sethook(L, hook, LUA_MASKCOUNT, INTERVAL);
    lua_call(L, lua_gettop(L) - 3, LUA_MULTRET);
    return lua_gettop(L) - 2;
}

void lsag_add_watch(lua_State *L)
{
    static const luaL_Reg functions[] = {{"watch", l_watch}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    luaL_newmetatable(L, WATCH);
    lua_pushcfunction(L, l_watch_close);
    lua_setfield(L, -2, "__close");
    lua_pop(L, 1);
}
