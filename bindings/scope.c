/*
 * scope.c - functions that call a function under a condition: no_grad (nothing is recorded), scope (what it makes is
 * released at its end), recompute (what the tape would keep is computed again in backward), capture (recorded once,
 * replayed afterwards).
 *
 * The condition is undone by a to-be-closed value, not by pcall: so it holds on errors too, and the traceback of the
 * outermost handler still shows the line at fault. These functions cannot be left by yielding.
 */
#include "bindings/lsag.h"

#include <stdlib.h>
#include <string.h>

/* ----------------------------------------------------------------------------------------------- guards */

typedef struct guard {
    bool recording; /* no_grad: what to go back to */
    int depth;      /* scope: the depth it opened */
    bool armed;
} guard;

/* Puts a guard at index 1, under the arguments, that is closed when the calling C function ends. */
static guard *insert_guard(lua_State *L, const char *type)
{
    guard *g = lua_newuserdatauv(L, sizeof *g, 0);
    memset(g, 0, sizeof *g);
    luaL_setmetatable(L, type);
    lua_insert(L, 1);
    lua_toclose(L, 1); /* marks the place on the stack: only after the move */
    return g;
}

/* A function or something that can be called like one (a capture in a scope). */
static void check_callable(lua_State *L, int index)
{
    if (lua_isfunction(L, index)) return;
    if (luaL_getmetafield(L, index, "__call") == LUA_TNIL) luaL_typeerror(L, index, "function");
    lua_pop(L, 1);
}

static void set_recording(lsag_state *s, bool on)
{
    s->recording = on;
    for (int d = 0; d < SAG_DEVICE_COUNT; d++)
        if (s->contexts[d]) sag_tape_set_recording(s->contexts[d], on);
}

/* ---------------------------------------------------------------------------------------------- no_grad */

#define NO_GRAD "sagan.no_grad"

static int l_no_grad_close(lua_State *L)
{
    guard *g = luaL_checkudata(L, 1, NO_GRAD);
    if (g->armed) set_recording(lsag_state_of(L), g->recording);
    g->armed = false;
    return 0;
}

static int l_no_grad(lua_State *L)
{
    check_callable(L, 1);
    lsag_state *s = lsag_state_of(L);
    guard *g = insert_guard(L, NO_GRAD);
    g->recording = s->recording;
    g->armed = true;
    set_recording(s, false);
    lua_call(L, lua_gettop(L) - 2, LUA_MULTRET);
    return lua_gettop(L) - 1;
}

/* ------------------------------------------------------------------------------------------------ scope */

#define SCOPE "sagan.scope"

static int l_scope_close(lua_State *L)
{
    guard *g = luaL_checkudata(L, 1, SCOPE);
    lsag_state *s = lsag_state_of(L);
    if (!g->armed) return 0;
    g->armed = false;
    for (lsag_tensor *u = s->scope_list, *next; u; u = next) {
        next = u->next;
        if (u->scope >= g->depth) lsag_release(s, u);
    }
    s->scope_depth = g->depth - 1;
    return 0;
}

/* Calls move for the tensors that the value at `index` is or holds, through tables; `seen` is a table of tables visited. */
static void each_tensor(lua_State *L, int index, int seen, void (*move)(lsag_state *, lsag_tensor *, int), int depth)
{
    lsag_tensor *u = lsag_to_userdata(L, index);
    if (u) {
        move(lsag_state_of(L), u, depth);
        return;
    }
    if (!lua_istable(L, index)) return;
    index = lua_absindex(L, index);
    lua_pushvalue(L, index);
    bool visited = lua_rawget(L, seen) != LUA_TNIL;
    lua_pop(L, 1);
    if (visited) return;
    lua_pushvalue(L, index);
    lua_pushboolean(L, 1);
    lua_rawset(L, seen);
    luaL_checkstack(L, 8, "a scope's result is nested too deep");
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) each_tensor(L, -1, seen, move, depth);
}

/* What a scope returns belongs to the one around it. */
static void move_out(lsag_state *s, lsag_tensor *u, int depth)
{
    if (u->scope < depth) return;
    if (depth == 1)
        lsag_scope_leave(s, u);
    else
        u->scope = depth - 1;
}

static int l_scope(lua_State *L)
{
    check_callable(L, 1);
    lsag_state *s = lsag_state_of(L);
    guard *g = insert_guard(L, SCOPE);
    g->depth = ++s->scope_depth;
    g->armed = true;
    lua_call(L, lua_gettop(L) - 2, LUA_MULTRET);
    int n = lua_gettop(L) - 1;
    luaL_checkstack(L, 8, NULL);
    lua_newtable(L);
    for (int i = 0; i < n; i++) each_tensor(L, i + 2, n + 2, move_out, g->depth);
    lua_pop(L, 1);
    return n;
}

/* -------------------------------------------------------------------------------------------- recompute */

#define RECOMPUTE "sagan.recompute"

static void recompute_each(lsag_state *s, void (*mark)(sag_context *))
{
    for (int d = 0; d < SAG_DEVICE_COUNT; d++)
        if (s->contexts[d]) mark(s->contexts[d]);
}

static int l_recompute_close(lua_State *L)
{
    guard *g = luaL_checkudata(L, 1, RECOMPUTE);
    if (g->armed) recompute_each(lsag_state_of(L), sag_recompute_end);
    g->armed = false;
    return 0;
}

static int l_recompute(lua_State *L)
{
    check_callable(L, 1);
    guard *g = insert_guard(L, RECOMPUTE);
    lsag_context(L); /* the current device's, so that it has begun too */
    g->armed = true;
    recompute_each(lsag_state_of(L), sag_recompute_begin);
    lua_call(L, lua_gettop(L) - 2, LUA_MULTRET);
    return lua_gettop(L) - 1;
}

/* ---------------------------------------------------------------------------------------------- capture */

#define CAPTURE "sagan.capture"

/* User values: 1 the function, 2 the results of the recorded call. */
typedef struct capture {
    sag_context *ctx;
    sag_graph *graph;
    int warm;      /* eager calls still to come before recording */
    bool eager;    /* this device, or SAGAN_GRAPH=0, has no recording */
    bool recording;
    bool closed;
} capture;

static int l_capture_gc(lua_State *L)
{
    capture *c = luaL_checkudata(L, 1, CAPTURE);
    sag_graph_destroy(c->graph);
    c->graph = NULL;
    c->closed = true;
    return 0;
}

/* Runs when a recording ends early: what was recorded is thrown away. */
static int l_recording_close(lua_State *L)
{
    capture *c = *(capture **)lua_touserdata(L, 1);
    if (!c || !c->recording) return 0;
    c->recording = false;
    sag_capture_end(c->ctx, NULL);
    return 0;
}

static void leave_scope(lsag_state *s, lsag_tensor *u, int depth)
{
    (void)depth;
    lsag_scope_leave(s, u);
}

/* Calls the function while its ops are recorded, keeps its results, and launches once, since recording runs nothing. What it
 * makes besides goes before the recording ends: what is there then costs a copy at each replay (graph.c). */
static int record(lua_State *L, capture *c)
{
    capture **guarded = lua_newuserdatauv(L, sizeof *guarded, 0);
    *guarded = NULL;
    luaL_setmetatable(L, "sagan.recording");
    lua_toclose(L, -1); /* 2 */
    sag_status status = sag_capture_begin(c->ctx);
    if (status == SAG_ERR_UNSUPPORTED) {
        c->eager = true;
        lua_getiuservalue(L, 1, 1);
        lua_call(L, 0, LUA_MULTRET);
        return lua_gettop(L) - 2;
    }
    lsag_check_status(L, status);
    c->recording = true;
    *guarded = c;
    lua_pushcfunction(L, l_scope);
    lua_getiuservalue(L, 1, 1);
    lua_call(L, 1, LUA_MULTRET);
    int n = lua_gettop(L) - 2;
    c->recording = false;
    lsag_check_status(L, sag_capture_end(c->ctx, &c->graph));
    /* Replays write into these same tensors, so they live as long as the capture, whatever scope this is. */
    luaL_checkstack(L, n + 8, NULL);
    lua_createtable(L, n, 1);
    for (int i = 0; i < n; i++) {
        lua_pushvalue(L, i + 3);
        lua_rawseti(L, -2, i + 1);
    }
    lua_newtable(L);
    each_tensor(L, -2, lua_gettop(L), leave_scope, 0);
    lua_pop(L, 1);
    lua_pushinteger(L, n);
    lua_setfield(L, -2, "n");
    lua_setiuservalue(L, 1, 2);
    lsag_check_status(L, sag_graph_launch(c->graph));
    return n;
}

static int l_capture_call(lua_State *L)
{
    capture *c = luaL_checkudata(L, 1, CAPTURE);
    if (lua_gettop(L) > 1)
        return luaL_error(L, "a captured function takes no arguments: a replay would not see them change; "
                             "copy what changes into tensors that it reads");
    if (c->closed) return luaL_error(L, "this capture is closed");
    if (c->recording) return luaL_error(L, "a captured function cannot call itself");
    if (c->graph) {
        lsag_check_status(L, sag_graph_launch(c->graph));
        lua_getiuservalue(L, 1, 2);
        lua_getfield(L, 2, "n");
        int n = (int)lua_tointeger(L, -1);
        lua_pop(L, 1);
        luaL_checkstack(L, n, NULL);
        for (int i = 1; i <= n; i++) lua_rawgeti(L, 2, i);
        return n;
    }
    if (!c->eager && c->warm == 0) return record(L, c);
    if (!c->eager) c->warm--;
    lua_getiuservalue(L, 1, 1);
    lua_call(L, 0, LUA_MULTRET);
    return lua_gettop(L) - 1;
}

static int l_capture_reset(lua_State *L)
{
    capture *c = luaL_checkudata(L, 1, CAPTURE);
    if (c->recording) return luaL_error(L, "a capture cannot be reset while it is recorded");
    sag_graph_destroy(c->graph);
    c->graph = NULL;
    c->warm = 1;
    lua_pushnil(L);
    lua_setiuservalue(L, 1, 2);
    return 0;
}

/* "eager", "warming", "recording", "replaying", "closed" */
static int l_capture_mode(lua_State *L)
{
    capture *c = luaL_checkudata(L, 1, CAPTURE);
    lua_pushstring(L, c->closed ? "closed" : c->recording ? "recording" : c->eager ? "eager" : c->graph ? "replaying" : "warming");
    return 1;
}

static int l_capture(lua_State *L)
{
    check_callable(L, 1);
    capture *c = lua_newuserdatauv(L, sizeof *c, 2);
    memset(c, 0, sizeof *c);
    luaL_setmetatable(L, CAPTURE);
    c->ctx = lsag_context(L);
    const char *graphs = getenv("SAGAN_GRAPH");
    c->eager = sag_context_device(c->ctx) == SAG_CPU || (graphs && strcmp(graphs, "0") == 0);
    c->warm = 1;
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    return 1;
}

/* -------------------------------------------------------------------------------------------------- add */

static void new_class(lua_State *L, const char *name, lua_CFunction close)
{
    luaL_newmetatable(L, name);
    lua_pushcfunction(L, close);
    lua_setfield(L, -2, "__close");
    lua_pop(L, 1);
}

void lsag_add_scopes(lua_State *L)
{
    static const luaL_Reg functions[] = {{"no_grad", l_no_grad}, {"scope", l_scope}, {"recompute", l_recompute}, {"capture", l_capture}, {NULL, NULL}};
    static const luaL_Reg methods[] = {{"reset", l_capture_reset}, {"mode", l_capture_mode}, {"close", l_capture_gc}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    new_class(L, NO_GRAD, l_no_grad_close);
    new_class(L, SCOPE, l_scope_close);
    new_class(L, RECOMPUTE, l_recompute_close);
    new_class(L, "sagan.recording", l_recording_close);
    new_class(L, CAPTURE, l_capture_gc);
    luaL_getmetatable(L, CAPTURE);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, l_capture_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, l_capture_call);
    lua_setfield(L, -2, "__call");
    lua_pop(L, 1);
}
