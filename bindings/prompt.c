/*
 * prompt.c - reading lines for the prompt: with an editor, history and completion (line_editor.c) on a terminal,
 * plainly elsewhere. What is read and what completes it is decided in scripts/sagan/repl.lua.
 */
#include <stdio.h>
#include <unistd.h>

#include "bindings/program.h"

/* From a file or a pipe, through stdio: scripts may read from it too. */
static int piped_line(lua_State *L)
{
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    int c;
    bool any = false;
    while ((c = getc(stdin)) != EOF && c != '\n') {
        any = true;
        luaL_addchar(&b, (char)c);
    }
    luaL_pushresult(&b);
    if (c == EOF && !any) lua_pushnil(L);
    return 1;
}

/* From a terminal that cannot move its cursor. */
static int plain_line(lua_State *L, const char *prompt)
{
    fputs(prompt, stdout);
    fflush(stdout);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    bool any = false, broken_off = false, ended = false;
    program_reading(true);
    for (;;) {
        program_event event = program_wait_input(STDIN_FILENO);
        broken_off = event == PROGRAM_INTERRUPT;
        if (broken_off) break;
        if (event != PROGRAM_INPUT) continue;
        char c;
        ended = read(STDIN_FILENO, &c, 1) != 1;
        if (ended || c == '\n') break;
        any = true;
        luaL_addchar(&b, c);
    }
    program_reading(false);
    luaL_pushresult(&b);
    if (broken_off) {
        fputc('\n', stdout);
        lua_pushboolean(L, 0);
    } else if (ended && !any) {
        lua_pushnil(L);
    }
    return 1;
}

/* read_line(prompt) -> line | nil at the end of input | false after Ctrl-C */
static int l_read_line(lua_State *L)
{
    const char *prompt = luaL_checkstring(L, 1);
    if (!isatty(STDIN_FILENO)) return piped_line(L);
    if (!program_open_editor(L)) return plain_line(L, prompt);
    program_edit_line(L, prompt);
    return 1;
}

/* add_history(text): the newest line of the editor's history; an older one that equals it goes */
static int l_add_history(lua_State *L)
{
    const char *text = luaL_checkstring(L, 1);
    if (program_open_editor(L)) program_add_history(L, text);
    return 0;
}

/* set_completer(f): f(text up to the cursor) -> what to insert or nil, what to list or nil */
static int l_set_completer(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    program_set_completer(L);
    return 0;
}

static int l_isatty(lua_State *L)
{
    lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
    return 1;
}

void program_add_prompt(lua_State *L)
{
    static const luaL_Reg functions[] = {{"read_line", l_read_line},
                                         {"add_history", l_add_history},
                                         {"set_completer", l_set_completer},
                                         {"isatty", l_isatty},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
