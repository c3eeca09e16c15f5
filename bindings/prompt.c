/*
 * prompt.c - reading lines for the prompt: with libedit (history, completion) on a terminal, plainly elsewhere or where the
 * program was built without it. What is read and what completes it is decided in scripts/sagan/repl.lua.
 */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "bindings/program.h"

#ifdef SAGAN_WITH_EDIT
#include <histedit.h>

#define HISTORY_LINES 2000

/* One for the process, as there is one terminal. */
static struct {
    EditLine *el;
    History *history;
    const char *prompt;
    lua_State *L;
    int completer; /* reference; LUA_NOREF: none */
} line_editor = {.completer = LUA_NOREF};

static char *prompt_text(EditLine *el)
{
    (void)el;
    return (char *)(uintptr_t)line_editor.prompt;
}

/* One character, decoded; -1 when Ctrl-C came meanwhile, which libedit's own reader would swallow. */
static int read_character(EditLine *el, wchar_t *c)
{
    (void)el;
    mbstate_t state;
    memset(&state, 0, sizeof state);
    for (;;) {
        char byte;
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n == 0) return 0;
        if (n < 0 && errno == EINTR) {
            if (program_take_interrupt()) {
                errno = EINTR;
                return -1;
            }
            continue;
        }
        if (n < 0) return -1;
        size_t used = mbrtowc(c, &byte, 1, &state);
        if (used == (size_t)-2) continue;
        if (used == (size_t)-1) {
            memset(&state, 0, sizeof state);
            continue;
        }
        return 1;
    }
}

/* Tab: the Lua completer gets the line up to the cursor and returns what to insert and what to list. */
static unsigned char complete(EditLine *el, int key)
{
    (void)key;
    lua_State *L = line_editor.L;
    if (line_editor.completer == LUA_NOREF) return CC_ERROR;
    const LineInfo *info = el_line(el);
    unsigned char result = CC_ERROR;
    int top = lua_gettop(L);
    if (!lua_checkstack(L, 8)) return result;
    lua_rawgeti(L, LUA_REGISTRYINDEX, line_editor.completer);
    lua_pushlstring(L, info->buffer, (size_t)(info->cursor - info->buffer));
    if (lua_pcall(L, 1, 2, 0) == LUA_OK) {
        if (lua_isstring(L, -1)) {
            fputc('\n', stdout);
            fputs(lua_tostring(L, -1), stdout);
            fputc('\n', stdout);
            fflush(stdout);
            result = CC_REDISPLAY;
        }
        if (lua_isstring(L, -2) && *lua_tostring(L, -2) && el_insertstr(el, lua_tostring(L, -2)) == 0)
            result = result == CC_REDISPLAY ? CC_REDISPLAY : CC_REFRESH;
    }
    lua_settop(L, top);
    return result;
}

static bool open_editor(lua_State *L)
{
    if (line_editor.el) return true;
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) return false;
    const char *terminal = getenv("TERM");
    if (!terminal || strcmp(terminal, "dumb") == 0) return false;
    setlocale(LC_CTYPE, "");
    EditLine *el = el_init("sagan-lua", stdin, stdout, stderr);
    if (!el) return false;
    HistEvent event;
    line_editor.el = el;
    line_editor.L = L;
    line_editor.history = history_init();
    if (line_editor.history) {
        history(line_editor.history, &event, H_SETSIZE, HISTORY_LINES);
        history(line_editor.history, &event, H_SETUNIQUE, 1);
        el_set(el, EL_HIST, history, line_editor.history);
    }
    el_set(el, EL_EDITOR, "emacs");
    el_set(el, EL_SIGNAL, 0);
    el_set(el, EL_PROMPT, prompt_text);
    el_set(el, EL_GETCFN, read_character);
    el_set(el, EL_ADDFN, "sagan-complete", "Complete a name", complete);
    el_set(el, EL_BIND, "^I", "sagan-complete", NULL);
    el_set(el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    return true;
}

static int l_editor_gc(lua_State *L)
{
    (void)L;
    if (line_editor.history) history_end(line_editor.history);
    if (line_editor.el) el_end(line_editor.el);
    line_editor.history = NULL;
    line_editor.el = NULL;
    line_editor.completer = LUA_NOREF;
    return 0;
}

/* nil at the end of input, false after Ctrl-C */
static void edit_line(lua_State *L, const char *prompt)
{
    int count = 0;
    line_editor.prompt = prompt;
    errno = 0;
    program_prompt_signals(true);
    const char *text = el_gets(line_editor.el, &count);
    bool broken_off = count < 0;
    program_prompt_signals(false);
    if (text && count > 0) {
        size_t length = strlen(text);
        while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r')) length--;
        lua_pushlstring(L, text, length);
        return;
    }
    fputc('\n', stdout);
    fflush(stdout);
    if (!broken_off) {
        lua_pushnil(L);
        return;
    }
    el_reset(line_editor.el);
    lua_pushboolean(L, 0);
}
#endif

static int plain_line(lua_State *L, const char *prompt)
{
    if (isatty(STDIN_FILENO)) {
        fputs(prompt, stdout);
        fflush(stdout);
    }
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    program_prompt_signals(true);
    int c;
    bool any = false, broken_off = false;
    for (;;) {
        c = getc(stdin);
        if (c == EOF && ferror(stdin) && errno == EINTR) {
            clearerr(stdin);
            if (!program_take_interrupt()) continue;
            broken_off = true;
        }
        if (c == EOF || c == '\n') break;
        any = true;
        luaL_addchar(&b, (char)c);
    }
    program_prompt_signals(false);
    luaL_pushresult(&b);
    if (broken_off) {
        fputc('\n', stdout);
        lua_pushboolean(L, 0);
    } else if (c == EOF && !any) {
        lua_pushnil(L);
    }
    return 1;
}

/* read_line(prompt) -> line | nil at the end of input | false after Ctrl-C */
static int l_read_line(lua_State *L)
{
    const char *prompt = luaL_checkstring(L, 1);
#ifdef SAGAN_WITH_EDIT
    if (open_editor(L)) {
        edit_line(L, prompt);
        return 1;
    }
#endif
    return plain_line(L, prompt);
}

/* add_history(line), load_history(path), save_history(path) -> true | false */
static int l_add_history(lua_State *L)
{
    const char *text = luaL_checkstring(L, 1);
#ifdef SAGAN_WITH_EDIT
    HistEvent event;
    if (open_editor(L) && line_editor.history && *text) history(line_editor.history, &event, H_ENTER, text);
#else
    (void)text;
#endif
    return 0;
}

static int l_load_history(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    bool done = false;
#ifdef SAGAN_WITH_EDIT
    HistEvent event;
    done = open_editor(L) && line_editor.history && history(line_editor.history, &event, H_LOAD, path) >= 0;
#else
    (void)path;
#endif
    lua_pushboolean(L, done);
    return 1;
}

static int l_save_history(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    bool done = false;
#ifdef SAGAN_WITH_EDIT
    HistEvent event;
    done = line_editor.history && history(line_editor.history, &event, H_SAVE, path) >= 0;
#else
    (void)path;
#endif
    lua_pushboolean(L, done);
    return 1;
}

/* set_completer(f): f(text up to the cursor) -> what to insert or nil, what to list or nil */
static int l_set_completer(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
#ifdef SAGAN_WITH_EDIT
    luaL_unref(L, LUA_REGISTRYINDEX, line_editor.completer);
    lua_settop(L, 1);
    line_editor.completer = luaL_ref(L, LUA_REGISTRYINDEX);
#endif
    return 0;
}

static int l_isatty(lua_State *L)
{
    lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
    return 1;
}

void program_add_prompt(lua_State *L)
{
    static const luaL_Reg functions[] = {{"read_line", l_read_line},       {"add_history", l_add_history},
                                         {"load_history", l_load_history}, {"save_history", l_save_history},
                                         {"set_completer", l_set_completer}, {"isatty", l_isatty}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
#ifdef SAGAN_WITH_EDIT
    /* Restores the terminal when the state closes. */
    lua_newuserdatauv(L, 1, 0);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, l_editor_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_setfield(L, LUA_REGISTRYINDEX, "sagan.line_editor");
#endif
}
