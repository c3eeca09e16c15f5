/*
 * main.c - the program sagan-lua: a Lua 5.4 with the engine linked in. It finds the scripts, preloads sagan.core and hands
 * its arguments to scripts/sagan/cli.lua, which decides what to do. What only C can do for that is in the preloaded module
 * sagan.program: running Lua so that Ctrl-C stops it (interrupt.c), and reading lines (prompt.c).
 */
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bindings/program.h"

/* ----------------------------------------------------------------------------------------------- scripts */

static bool has_scripts(const char *folder)
{
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/sagan/init.lua", folder);
    return n > 0 && (size_t)n < sizeof path && access(path, R_OK) == 0;
}

/*
 * Where sagan/init.lua is: beside a build in its source tree, installed beside the program, or where this was built from.
 * false: nowhere.
 */
static bool find_scripts(char *folder, size_t size)
{
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(exe, '/');
    if (slash) {
        static const char *const beside[] = {"../scripts", "../share/lua/5.4"};
        *slash = '\0';
        for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
            char joined[4200];
            snprintf(joined, sizeof joined, "%s/%s", exe, beside[i]);
            if (!has_scripts(joined)) continue;
            char *real = realpath(joined, NULL);
            if (!real) continue;
            snprintf(folder, size, "%s", real);
            free(real);
            return true;
        }
    }
    snprintf(folder, size, "%s/scripts", SAGAN_SOURCE_DIR);
    return has_scripts(folder);
}

static int open_program(lua_State *L)
{
    lua_newtable(L);
    lua_getfield(L, LUA_REGISTRYINDEX, "sagan.scripts");
    lua_setfield(L, -2, "scripts");
    program_add_interrupts(L);
    program_add_prompt(L);
    return 1;
}

static void preload(lua_State *L, const char *name, lua_CFunction open)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, open);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
}

/* Everything that may raise; arguments: argc, argv. Returns the exit status. */
static int protected_main(lua_State *L)
{
    int argc = (int)lua_tointeger(L, 1);
    char **argv = lua_touserdata(L, 2);
    luaL_checkversion(L);
    luaL_openlibs(L);

    char scripts[4096];
    if (!find_scripts(scripts, sizeof scripts))
        return luaL_error(L, "the scripts are missing: no sagan/init.lua in ../scripts or ../share/lua/5.4 beside the program, "
                             "nor in %s", scripts);
    lua_pushstring(L, scripts);
    lua_setfield(L, LUA_REGISTRYINDEX, "sagan.scripts");
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "path");
    lua_pushfstring(L, "%s/?.lua;%s/?/init.lua;%s", scripts, scripts, lua_tostring(L, -1));
    lua_setfield(L, -3, "path");
    preload(L, "sagan.core", luaopen_sagan_core);
    preload(L, "sagan.program", open_program);

    lua_getglobal(L, "require");
    lua_pushliteral(L, "sagan.cli");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "main");
    lua_createtable(L, argc, 0);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i);
    }
    lua_call(L, 1, 1);
    return 1;
}

/*
 * OpenMP's idle threads spin for milliseconds by default. On a machine with other work they then hold the very core that the
 * working thread waits for, and a step takes many times longer. The runtime reads its settings before main, so the program
 * sets them and starts itself once more (about a millisecond); whoever sets one of them is left alone.
 */
static void limit_spinning(char **argv)
{
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    setenv("GOMP_SPINCOUNT", "2000", 1);
    execv("/proc/self/exe", argv); /* comes back only if it could not: then all is as before */
}

int main(int argc, char **argv)
{
    limit_spinning(argv);
    lua_State *L = luaL_newstate();
    if (!L) {
        fputs("sagan-lua: not enough memory\n", stderr);
        return 1;
    }
    lua_pushcfunction(L, protected_main);
    lua_pushinteger(L, argc);
    lua_pushlightuserdata(L, argv);
    int code = 1;
    if (lua_pcall(L, 2, 1, 0) == LUA_OK)
        code = lua_isinteger(L, -1) ? (int)lua_tointeger(L, -1) : 0;
    else
        fprintf(stderr, "sagan-lua: %s\n", luaL_tolstring(L, -1, NULL));
    lua_close(L);
    return code;
}
