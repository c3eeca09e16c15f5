/*
 * socket.c - sagan.core.socket: messages between processes of one user (engine/io/socket.h).
 *
 *     local listener <close> = assert(socket.listen("control.sock"))     -- one process
 *     local peer <close> = assert(socket.connect("control.sock"))        -- another one
 *     peer:send("hello")
 *
 * Nothing here blocks but wait. What the other side or the system did wrong is nil, message, code.
 */
#include "bindings/lsag.h"

#include <string.h>

#include "engine/io/socket.h"

#define SOCKET "sagan.socket"
#define MOST ((size_t)4 << 20) /* bytes of a message, and bytes that may wait for whoever does not read */

static sag_socket **new_socket(lua_State *L)
{
    sag_socket **s = lua_newuserdatauv(L, sizeof *s, 0);
    *s = NULL;
    luaL_setmetatable(L, SOCKET);
    return s;
}

static sag_socket *check_socket(lua_State *L, int index)
{
    sag_socket **s = luaL_checkudata(L, index, SOCKET);
    if (!*s) luaL_argerror(L, index, "this socket was closed");
    return *s;
}

static int make(lua_State *L, sag_status (*open)(const char *, size_t, sag_socket **))
{
    size_t n;
    const char *path = luaL_checklstring(L, 1, &n);
    luaL_argcheck(L, n > 0 && strlen(path) == n, 1, "a path is empty or holds a zero byte");
    sag_status status = open(path, MOST, new_socket(L));
    return status == SAG_OK ? 1 : lsag_fail(L, status);
}

/* listen(path) -> listener: a private file (mode 0600) of that name; it replaces a socket that is there */
static int l_listen(lua_State *L)
{
    return make(L, sag_socket_listen);
}

/* connect(path) -> peer; the code "state": a socket is there, but no process listens */
static int l_connect(lua_State *L)
{
    return make(L, sag_socket_connect);
}

/* wait({sockets}, seconds) -> how many have something to receive or to accept; ends early with a signal. Sends what
 * waits. */
static int l_wait(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    double seconds = luaL_checknumber(L, 2);
    sag_socket *list[SAG_SOCKET_WAIT_MAX];
    lua_Unsigned n = lua_rawlen(L, 1);
    luaL_argcheck(L, n <= SAG_SOCKET_WAIT_MAX, 1, "too many sockets");
    for (lua_Unsigned i = 0; i < n; i++) {
        lua_rawgeti(L, 1, (lua_Integer)i + 1);
        list[i] = check_socket(L, -1);
        lua_pop(L, 1); /* the table holds it */
    }
    int ready;
    sag_status status = sag_socket_wait(list, (int)n, seconds, &ready);
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_pushinteger(L, ready);
    return 1;
}

/* listener:accept() -> peer, or nil if nobody waits */
static int l_accept(lua_State *L)
{
    sag_socket *listener = check_socket(L, 1);
    sag_socket **peer = new_socket(L);
    sag_status status = sag_socket_accept(listener, peer);
    if (status != SAG_OK) return lsag_fail(L, status);
    if (!*peer) lua_pushnil(L);
    return 1;
}

/* peer:send(message) -> true */
static int l_send(lua_State *L)
{
    sag_socket *s = check_socket(L, 1);
    size_t n;
    const char *bytes = luaL_checklstring(L, 2, &n);
    sag_status status = sag_socket_send(s, bytes, n);
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_pushboolean(L, 1);
    return 1;
}

/* peer:receive() -> message; nil if none is complete yet; nil, message, code when none will come any more */
static int l_receive(lua_State *L)
{
    sag_socket *s = check_socket(L, 1);
    const uint8_t *bytes;
    size_t n;
    sag_status status = sag_socket_receive(s, &bytes, &n);
    if (status != SAG_OK) return lsag_fail(L, status);
    if (bytes)
        lua_pushlstring(L, (const char *)bytes, n);
    else
        lua_pushnil(L);
    return 1;
}

/* peer:unsent() -> bytes that wait for the other side to read */
static int l_unsent(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)sag_socket_unsent(check_socket(L, 1)));
    return 1;
}

/* socket:close(); closing again does nothing */
static int l_close(lua_State *L)
{
    sag_socket **s = luaL_checkudata(L, 1, SOCKET);
    sag_socket_close(*s);
    *s = NULL;
    return 0;
}

int lsag_open_socket(lua_State *L)
{
    static const luaL_Reg methods[] = {{"accept", l_accept}, {"send", l_send},   {"receive", l_receive},
                                       {"unsent", l_unsent}, {"close", l_close}, {"__close", l_close},
                                       {"__gc", l_close},    {NULL, NULL}};
    if (luaL_newmetatable(L, SOCKET)) {
        luaL_setfuncs(L, methods, 0);
        lua_pushvalue(L, -1);
        lua_setfield(L, -2, "__index");
    }
    lua_pop(L, 1);
    static const luaL_Reg functions[] = {{"listen", l_listen}, {"connect", l_connect}, {"wait", l_wait}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
