/*
 * interrupt.c - Ctrl-C in the program sagan-lua: it stops the Lua code that runs, or ends the line that is being read.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "bindings/program.h"

/* Whose code runs, in which Ctrl-C sets its hook: the main thread, or the coroutine that it has resumed. */
static lua_State *volatile running;
static volatile sig_atomic_t interrupted;  /* Ctrl-C came since the last look */
static volatile sig_atomic_t stop_pending; /* ... and the code has not been stopped yet */
static volatile sig_atomic_t resized, continued;
static bool alive; /* the prompt: no Ctrl-C ends the program */

static void handle(int sig, void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler; /* no SA_RESTART: a read must return */
    sigemptyset(&action.sa_mask);
    sigaction(sig, &action, NULL);
}

/* --------------------------------------------------------------------------------------------- stopping Lua */

static void stop_hook(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    lua_sethook(L, NULL, 0, 0);
    if (!stop_pending) return;
    stop_pending = 0;
    luaL_error(L, "interrupted");
}

static void set_stop_hook(lua_State *L)
{
    lua_sethook(L, stop_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

/*
 * The first Ctrl-C stops the Lua code as soon as the kernel at work returns. A second one before that kills the
 * program, or where it is to stay alive says what it waits for.
 */
static void on_interrupt(int sig)
{
    static const char waiting[] = "\n(stops when the operation at work returns; Ctrl-\\ ends the program)\n";
    int saved = errno;
    if (stop_pending && alive && write(STDERR_FILENO, waiting, sizeof waiting - 1) < 0) errno = saved;
    if (!alive) signal(sig, SIG_DFL);
    interrupted = 1;
    stop_pending = 1;
    set_stop_hook(running);
    errno = saved;
}

static void on_idle_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

static void nothing_runs(void)
{
    handle(SIGINT, alive ? on_idle_interrupt : SIG_DFL);
}

/* call(handler, f, ...) -> true, results | false, what handler made of the error. Ctrl-C raises "interrupted" in f. */
static int l_call(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    luaL_checkany(L, 2);
    interrupted = stop_pending = 0;
    running = L;
    handle(SIGINT, on_interrupt);
    int status = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 1);
    nothing_runs();
    lua_sethook(L, NULL, 0, 0);
    lua_pushboolean(L, status == LUA_OK);
    lua_replace(L, 1);
    return lua_gettop(L);
}

/* interrupted() -> whether Ctrl-C was what ended the last call */
static int l_interrupted(lua_State *L)
{
    lua_pushboolean(L, interrupted != 0);
    interrupted = 0;
    return 1;
}

/* stay_alive(on): from now on Ctrl-C stops what runs, and ends the program neither in between nor when it comes twice
 */
static int l_stay_alive(lua_State *L)
{
    alive = lua_toboolean(L, 1);
    nothing_runs();
    return 0;
}

/* ------------------------------------------------------------------------------------------------ coroutines */

/* A hook belongs to one thread of Lua: `running` has to follow the code into a coroutine and out again. */
static void run_in(lua_State *L)
{
    running = L;
    if (stop_pending) set_stop_hook(L);
}

/* Calls the function on top with what lies below it, which runs in `thread`. A raise must not leave `running` behind.
 */
static int call_in(lua_State *L, lua_State *thread)
{
    lua_insert(L, 1);
    run_in(thread);
    int status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
    run_in(L);
    return status == LUA_OK ? lua_gettop(L) : lua_error(L);
}

/* Upvalue 1: the library's own coroutine.resume. */
static int l_resume(lua_State *L)
{
    lua_State *thread = lua_tothread(L, 1);
    luaL_argexpected(L, thread, 1, "coroutine");
    lua_pushvalue(L, lua_upvalueindex(1));
    return call_in(L, thread);
}

/* What our coroutine.wrap returns. Upvalue 1: the library's function; 2: the thread in it. */
static int l_wrapped(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    return call_in(L, lua_tothread(L, lua_upvalueindex(2)));
}

/* Upvalue 1: the library's own coroutine.wrap, whose function holds its thread as its only upvalue. */
static int l_wrap(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 1);
    if (!lua_getupvalue(L, -1, 1)) return 1;
    if (!lua_isthread(L, -1)) {
        lua_pop(L, 1);
        return 1;
    }
    lua_pushcclosure(L, l_wrapped, 2);
    return 1;
}

void program_add_interrupts(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"call", l_call}, {"interrupted", l_interrupted}, {"stay_alive", l_stay_alive}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    running = L;
    if (lua_getglobal(L, "coroutine") == LUA_TTABLE) {
        lua_getfield(L, -1, "resume");
        lua_pushcclosure(L, l_resume, 1);
        lua_setfield(L, -2, "resume");
        lua_getfield(L, -1, "wrap");
        lua_pushcclosure(L, l_wrap, 1);
        lua_setfield(L, -2, "wrap");
    }
    lua_pop(L, 1);
}

/* ------------------------------------------------------------------------------------------------- reading */

static void on_resize(int sig)
{
    (void)sig;
    resized = 1;
}

static void on_continue(int sig)
{
    (void)sig;
    continued = 1;
}

static void hold_signals(bool on)
{
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGWINCH);
    sigaddset(&held, SIGCONT);
    sigprocmask(on ? SIG_BLOCK : SIG_UNBLOCK, &held, NULL);
}

void program_reading(bool on)
{
    interrupted = resized = continued = 0;
    if (on) {
        hold_signals(true);
        handle(SIGINT, on_idle_interrupt);
        handle(SIGWINCH, on_resize);
        handle(SIGCONT, on_continue);
    } else {
        hold_signals(false);
        nothing_runs();
        handle(SIGWINCH, SIG_DFL);
        handle(SIGCONT, SIG_DFL);
    }
}

static bool take(volatile sig_atomic_t *mark)
{
    bool was = *mark != 0;
    *mark = 0;
    return was;
}

program_event program_wait_input(int fd)
{
    struct pollfd watched = {.fd = fd, .events = POLLIN};
    sigset_t none;
    sigemptyset(&none);
    for (;;) {
        int n = ppoll(&watched, 1, NULL, &none);
        bool readable = n > 0 || (n < 0 && errno != EINTR);
        /* With input at hand ppoll lets no signal in; but Ctrl-C counts before what was typed after it. */
        hold_signals(false);
        hold_signals(true);
        if (take(&interrupted)) return PROGRAM_INTERRUPT;
        if (take(&continued)) return PROGRAM_CONTINUE;
        if (take(&resized)) return PROGRAM_RESIZE;
        if (readable) return PROGRAM_INPUT;
    }
}
