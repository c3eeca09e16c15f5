/*
 * line_editor.c - lines edited with libedit on a terminal: emacs keys, history, completion by Tab, and text that is
 * pasted taken as it is. A line may hold newlines: one that was pasted, or an earlier input of several lines.
 */
#include "bindings/program.h"

#ifdef SAGAN_WITH_EDIT
#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#define HISTORY_LINES 2000
#define BEGIN_PASTE "\033[200~"
#define END_PASTE "\033[201~"

/* One for the process, as there is one terminal. */
static struct {
    EditLine *el;
    History *history;
    const char *prompt;
    lua_State *L;
    int completer; /* reference; LUA_NOREF: none */
} editor = {.completer = LUA_NOREF};

static char *prompt_text(EditLine *el)
{
    (void)el;
    return (char *)(uintptr_t)editor.prompt;
}

/* One character, decoded; -1 when Ctrl-C came meanwhile, which libedit's own reader would swallow. */
static int read_character(EditLine *el, wchar_t *c)
{
    mbstate_t state;
    memset(&state, 0, sizeof state);
    for (;;) {
        switch (program_wait_input(STDIN_FILENO)) {
        case PROGRAM_INPUT: break;
        case PROGRAM_INTERRUPT: errno = EINTR; return -1;
        case PROGRAM_RESIZE: el_resize(el); continue;
        case PROGRAM_CONTINUE: /* after Ctrl-Z and fg the shell's settings are in force, and its words on the screen */
            el_set(el, EL_PREP_TERM, 0);
            el_set(el, EL_PREP_TERM, 1);
            el_set(el, EL_REFRESH);
            continue;
        }
        char byte;
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n <= 0) return n == 0 ? 0 : -1;
        size_t used = mbrtowc(c, &byte, 1, &state);
        if (used == (size_t)-2) continue;
        if (used == (size_t)-1) {
            memset(&state, 0, sizeof state);
            continue;
        }
        return 1;
    }
}

/* ---------------------------------------------------------------------------------------------------- keys */

/* Tab: the Lua completer gets the line up to the cursor and returns what to insert and what to list. */
static unsigned char complete(EditLine *el, int key)
{
    (void)key;
    lua_State *L = editor.L;
    if (editor.completer == LUA_NOREF) return CC_ERROR;
    const LineInfo *info = el_line(el);
    unsigned char result = CC_ERROR;
    int top = lua_gettop(L);
    if (!lua_checkstack(L, 8)) return result;
    lua_rawgeti(L, LUA_REGISTRYINDEX, editor.completer);
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

/* Pasted text is inserted whole: its tabs complete nothing and its ends of lines run nothing before it is all there. */
static unsigned char paste(EditLine *el, int key)
{
    (void)key;
    static const wchar_t end[] = L"" END_PASTE;
    const size_t end_length = sizeof end / sizeof *end - 1;
    size_t length = 0, room = 256;
    wchar_t *text = malloc(room * sizeof *text);
    unsigned char result = CC_ERROR;
    while (text) {
        if (length + 1 == room) {
            wchar_t *larger = realloc(text, 2 * room * sizeof *text);
            if (!larger) break;
            text = larger;
            room *= 2;
        }
        wchar_t c;
        if (read_character(el, &c) != 1) break;
        text[length++] = c == L'\r' ? L'\n' : c;
        if (length < end_length || wmemcmp(text + length - end_length, end, end_length) != 0) continue;
        length -= end_length;
        while (length > 0 && text[length - 1] == L'\n') length--;
        text[length] = L'\0';
        result = el_winsertstr(el, text) == 0 ? CC_REFRESH : CC_ERROR;
        break;
    }
    free(text);
    return result;
}

/* -------------------------------------------------------------------------------------------------- history */

void program_add_history(lua_State *L, const char *text)
{
    (void)L;
    HistEvent event;
    if (!editor.history || !*text) return;
    for (int found = history(editor.history, &event, H_FIRST); found >= 0;
         found = history(editor.history, &event, H_NEXT)) {
        if (strcmp(event.str, text) != 0) continue;
        history(editor.history, &event, H_DEL, event.num);
        break;
    }
    history(editor.history, &event, H_ENTER, text);
}

/* --------------------------------------------------------------------------------------------------- editor */

static int l_editor_gc(lua_State *L)
{
    (void)L;
    if (editor.history) history_end(editor.history);
    if (editor.el) el_end(editor.el);
    editor.history = NULL;
    editor.el = NULL;
    editor.completer = LUA_NOREF;
    return 0;
}

/* Gives the terminal back when the state closes. */
static void end_with_state(lua_State *L)
{
    lua_newuserdatauv(L, 1, 0);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, l_editor_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_setfield(L, LUA_REGISTRYINDEX, "sagan.line_editor");
}

bool program_open_editor(lua_State *L)
{
    if (editor.el) return true;
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) return false;
    const char *terminal = getenv("TERM");
    if (!terminal || strcmp(terminal, "dumb") == 0) return false;
    /* Where no locale is chosen, terminals speak UTF-8 all the same. */
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
    EditLine *el = el_init("sagan-lua", stdin, stdout, stderr);
    if (!el) return false;
    HistEvent event;
    editor.el = el;
    editor.L = L;
    editor.history = history_init();
    if (editor.history) {
        history(editor.history, &event, H_SETSIZE, HISTORY_LINES);
        el_set(el, EL_HIST, history, editor.history);
    }
    el_set(el, EL_EDITOR, "emacs");
    el_set(el, EL_SIGNAL, 0);
    el_set(el, EL_PROMPT, prompt_text);
    el_set(el, EL_GETCFN, read_character);
    el_set(el, EL_ADDFN, "sagan-complete", "Complete a name", complete);
    el_set(el, EL_ADDFN, "sagan-paste", "Insert pasted text", paste);
    el_set(el, EL_BIND, "^I", "sagan-complete", NULL);
    el_set(el, EL_BIND, BEGIN_PASTE, "sagan-paste", NULL);
    el_set(el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    end_with_state(L);
    return true;
}

void program_edit_line(lua_State *L, const char *prompt)
{
    int count = 0;
    editor.prompt = prompt;
    errno = 0;
    fputs("\033[?2004h", stdout); /* pasted text comes between BEGIN_PASTE and END_PASTE */
    program_reading(true);
    el_resize(editor.el);
    const char *text = el_gets(editor.el, &count);
    bool broken_off = count < 0;
    program_reading(false);
    fputs("\033[?2004l", stdout);
    fflush(stdout);
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
    el_reset(editor.el);
    lua_pushboolean(L, 0);
}

void program_set_completer(lua_State *L)
{
    luaL_unref(L, LUA_REGISTRYINDEX, editor.completer);
    editor.completer = luaL_ref(L, LUA_REGISTRYINDEX);
}

#else

bool program_open_editor(lua_State *L)
{
    (void)L;
    return false;
}

void program_edit_line(lua_State *L, const char *prompt)
{
    (void)prompt;
    lua_pushnil(L);
}

void program_add_history(lua_State *L, const char *text)
{
    (void)L, (void)text;
}

void program_set_completer(lua_State *L)
{
    lua_pop(L, 1);
}

#endif
