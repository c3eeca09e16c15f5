/*
 * system.c - sagan.core.system: time, files, folders, locks, the terminal, Ctrl-C (engine/io/file.h).
 *
 * What concerns files returns nil, message, code when it fails; the message names the file and the reason.
 */
#include "bindings/lsag.h"

#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "engine/io/file.h"

#define LOCK "sagan.lock"
#define BYTES "sagan.bytes"

static int done(lua_State *L, sag_status status)
{
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_pushboolean(L, 1);
    return 1;
}

/* A path cannot hold a zero byte; a string that does would silently name another file. */
static const char *check_path(lua_State *L, int index)
{
    size_t n;
    const char *path = luaL_checklstring(L, index, &n);
    luaL_argcheck(L, n > 0, index, "a path is empty");
    luaL_argcheck(L, strlen(path) == n, index, "a path holds a zero byte");
    return path;
}

/* -------------------------------------------------------------------------------------------------- time */

static double clock_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* now() -> seconds of a clock that only goes forward */
static int l_now(lua_State *L)
{
    lua_pushnumber(L, clock_seconds(CLOCK_MONOTONIC));
    return 1;
}

/* time() -> seconds since 1970 */
static int l_time(lua_State *L)
{
    lua_pushnumber(L, clock_seconds(CLOCK_REALTIME));
    return 1;
}

/* ------------------------------------------------------------------------------------------------- files */

/* mkdir(path) -> true: with parents; a folder that is there already is fine */
static int l_mkdir(lua_State *L)
{
    return done(L, sag_file_make_folders(check_path(L, 1)));
}

static int names_gc(lua_State *L)
{
    sag_file_names_free(lua_touserdata(L, 1));
    return 0;
}

/* list(folder) -> names, sorted */
static int l_list(lua_State *L)
{
    const char *path = check_path(L, 1);
    sag_file_names *names = lua_newuserdatauv(L, sizeof *names, 0);
    *names = (sag_file_names){0};
    if (luaL_newmetatable(L, "sagan.names")) {
        lua_pushcfunction(L, names_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    sag_status status = sag_file_list(path, names);
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_createtable(L, names->count > INT_MAX ? 0 : (int)names->count, 0);
    for (int64_t i = 0; i < names->count; i++) {
        lua_pushstring(L, names->name[i]);
        lua_rawseti(L, -2, i + 1);
    }
    sag_file_names_free(names);
    return 1;
}

/* stat(path) -> {type = "file"|"folder"|"other", size, mtime} */
static int l_stat(lua_State *L)
{
    const char *path = check_path(L, 1);
    sag_file_info info;
    sag_status status = sag_file_stat(path, &info);
    if (status != SAG_OK) return lsag_fail(L, status);
    if (info.type == SAG_FILE_MISSING) return lsag_fail_text(L, "io", "%s: no such file or folder", path);
    lua_createtable(L, 0, 3);
    lua_pushstring(L, info.type == SAG_FILE_REGULAR ? "file" : info.type == SAG_FILE_FOLDER ? "folder" : "other");
    lua_setfield(L, -2, "type");
    lua_pushinteger(L, info.size);
    lua_setfield(L, -2, "size");
    lua_pushnumber(L, info.mtime);
    lua_setfield(L, -2, "mtime");
    return 1;
}

/* remove(path) -> true: a file or an empty folder */
static int l_remove(lua_State *L)
{
    return done(L, sag_file_remove(check_path(L, 1)));
}

/* rename(from, to) -> true */
static int l_rename(lua_State *L)
{
    return done(L, sag_file_rename(check_path(L, 1), check_path(L, 2)));
}

/* write_atomic(path, string) -> true: the old file or the new one, never half of it */
static int l_write_atomic(lua_State *L)
{
    size_t n;
    const char *bytes = luaL_checklstring(L, 2, &n);
    return done(L, sag_file_write_atomic(check_path(L, 1), bytes, n));
}

/* append(path, string [, private]) -> true; private: a file that it makes is its owner's alone */
static int l_append(lua_State *L)
{
    size_t n;
    const char *path = check_path(L, 1), *bytes = luaL_checklstring(L, 2, &n);
    return done(L, lua_toboolean(L, 3) ? sag_file_append_private(path, bytes, n) : sag_file_append(path, bytes, n));
}

static int bytes_gc(lua_State *L)
{
    uint8_t **bytes = lua_touserdata(L, 1);
    sag_host_free(*bytes);
    *bytes = NULL;
    return 0;
}

/* read(path) -> string */
static int l_read(lua_State *L)
{
    const char *path = check_path(L, 1);
    uint8_t **bytes = lua_newuserdatauv(L, sizeof *bytes, 0);
    *bytes = NULL;
    if (luaL_newmetatable(L, BYTES)) {
        lua_pushcfunction(L, bytes_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    size_t n;
    sag_status status = sag_file_read(path, 0, bytes, &n);
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_pushlstring(L, (const char *)*bytes, n);
    sag_host_free(*bytes);
    *bytes = NULL;
    return 1;
}

/* free_disk(path) -> bytes that may still be written there */
static int l_free_disk(lua_State *L)
{
    int64_t bytes;
    sag_status status = sag_file_free_disk(check_path(L, 1), &bytes);
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_pushinteger(L, bytes);
    return 1;
}

static int l_lock_close(lua_State *L)
{
    sag_file_lock_drop(luaL_checkudata(L, 1, LOCK));
    return 0;
}

/* lock(path) -> handle that holds an exclusive lock until it is closed (h:close(), <close>, or collected) */
static int l_lock(lua_State *L)
{
    const char *path = check_path(L, 1);
    sag_file_lock *lock = lua_newuserdatauv(L, sizeof *lock, 0);
    lock->fd = -1;
    luaL_setmetatable(L, LOCK);
    sag_status status = sag_file_lock_take(path, lock);
    return status == SAG_OK ? 1 : lsag_fail(L, status);
}

/* lock_held(path) -> whether somebody holds that lock */
static int l_lock_held(lua_State *L)
{
    bool held;
    sag_status status = sag_file_lock_held(check_path(L, 1), &held);
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_pushboolean(L, held);
    return 1;
}

/* ------------------------------------------------------------------------------------------- the machine */

/* isatty(fd) -> boolean */
static int l_isatty(lua_State *L)
{
    lua_Integer fd = luaL_checkinteger(L, 1);
    lua_pushboolean(L, fd >= 0 && fd <= INT_MAX && isatty((int)fd));
    return 1;
}

/* terminal_width() -> columns, or nil if no standard stream is a terminal */
static int l_terminal_width(lua_State *L)
{
    static const int streams[] = {STDERR_FILENO, STDOUT_FILENO, STDIN_FILENO};
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        struct winsize w;
        if (ioctl(streams[i], TIOCGWINSZ, &w) == 0 && w.ws_col > 0) {
            lua_pushinteger(L, w.ws_col);
            return 1;
        }
    }
    lua_pushnil(L);
    return 1;
}

static int l_getpid(lua_State *L)
{
    lua_pushinteger(L, getpid());
    return 1;
}

static int l_hostname(lua_State *L)
{
    char name[256] = "";
    if (gethostname(name, sizeof name - 1) != 0 || !name[0]) strcpy(name, "localhost");
    lua_pushstring(L, name);
    return 1;
}

/* cpu_count() -> cores of the machine; nproc() -> those this process may use */
static int l_cpu_count(lua_State *L)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    lua_pushinteger(L, n > 0 ? n : 1);
    return 1;
}

static int l_nproc(lua_State *L)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return l_cpu_count(L);
    lua_pushinteger(L, CPU_COUNT(&set));
    return 1;
}

/* executable_path() -> the program that runs */
static int l_executable_path(lua_State *L)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path);
    if (n <= 0 || n == sizeof path) return lsag_fail_text(L, "io", "the path of the program is unknown");
    lua_pushlstring(L, path, (size_t)n);
    return 1;
}

/* working_folder() -> the folder that relative paths begin in */
static int l_working_folder(lua_State *L)
{
    char path[PATH_MAX];
    if (!getcwd(path, sizeof path)) return lsag_fail_text(L, "io", "the working folder is unknown; was it removed?");
    lua_pushstring(L, path);
    return 1;
}

/* env(name) -> value or nil */
static int l_env(lua_State *L)
{
    lua_pushstring(L, getenv(check_path(L, 1)));
    return 1;
}

/* ------------------------------------------------------------------------------------------------ Ctrl-C */

/* Signals belong to the process, not to a Lua state. */
static volatile sig_atomic_t interrupt_seen;
static bool interrupts_caught;
static struct sigaction interrupts_before;

/* The first Ctrl-C leaves a mark; the second meets the default action, in case the mark is never read. */
static void on_interrupt(int signal_number)
{
    struct sigaction fallback;
    memset(&fallback, 0, sizeof fallback);
    fallback.sa_handler = SIG_DFL;
    sigaction(signal_number, &fallback, NULL);
    interrupt_seen = 1;
}

/* catch_interrupts(on): while on, Ctrl-C only makes interrupted() true; off brings back what was there before
 */
static int l_catch_interrupts(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TBOOLEAN);
    bool on = lua_toboolean(L, 1);
    if (on) {
        struct sigaction action;
        memset(&action, 0, sizeof action);
        action.sa_handler = on_interrupt;
        action.sa_flags = SA_RESTART;
        sigemptyset(&action.sa_mask);
        interrupt_seen = 0;
        sigaction(SIGINT, &action, interrupts_caught ? NULL : &interrupts_before);
    } else if (interrupts_caught) {
        sigaction(SIGINT, &interrupts_before, NULL);
    }
    interrupts_caught = on;
    return 0;
}

/* interrupted() -> true once after Ctrl-C */
static int l_interrupted(lua_State *L)
{
    lua_pushboolean(L, interrupt_seen != 0);
    interrupt_seen = 0;
    return 1;
}

static const luaL_Reg functions[] = {
    {"now", l_now},
    {"time", l_time},
    {"mkdir", l_mkdir},
    {"list", l_list},
    {"stat", l_stat},
    {"remove", l_remove},
    {"rename", l_rename},
    {"write_atomic", l_write_atomic},
    {"append", l_append},
    {"read", l_read},
    {"free_disk", l_free_disk},
    {"lock", l_lock},
    {"lock_held", l_lock_held},
    {"isatty", l_isatty},
    {"terminal_width", l_terminal_width},
    {"getpid", l_getpid},
    {"hostname", l_hostname},
    {"cpu_count", l_cpu_count},
    {"nproc", l_nproc},
    {"executable_path", l_executable_path},
    {"working_folder", l_working_folder},
    {"env", l_env},
    {"catch_interrupts", l_catch_interrupts},
    {"interrupted", l_interrupted},
    {NULL, NULL},
};

int lsag_open_system(lua_State *L)
{
    if (luaL_newmetatable(L, LOCK)) {
        static const luaL_Reg meta[] = {
            {"__gc", l_lock_close}, {"__close", l_lock_close}, {"close", l_lock_close}, {NULL, NULL}};
        luaL_setfuncs(L, meta, 0);
        lua_pushvalue(L, -1);
        lua_setfield(L, -2, "__index");
    }
    lua_pop(L, 1);
    luaL_newlib(L, functions);
    return 1;
}
