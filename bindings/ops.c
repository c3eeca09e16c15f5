/*
 * ops.c - one Lua function for each op of ops.def, made at load from the parsed signature: sagan.core.ops.<name>, which
 * is also a method of tensors.
 *
 *     ops.conv2d(x, w, b, nil, 1, 1, 1)                       tensors, then attributes, in the order of ops.def
 *     ops.conv2d(x, w, b, {stride = 1, pad_h = 1})            or the rest by name
 *
 * Trailing optional arguments may be left out or nil. Positions (type 'a') count from 1 in Lua. In-place ops return their
 * first tensor.
 */
#include "bindings/lsag.h"

#include <math.h>
#include <string.h>

/* Whole numbers reach the engine as doubles. */
#define LARGEST_WHOLE 9007199254740992.0

typedef struct op_args {
    const sag_op_info *info;
    int n;     /* positional arguments */
    int named; /* stack index of the table of named ones; 0: none */
} op_args;

/* Pushes parameter number i (inputs, then attributes), nil where it was not given. */
static void push_argument(lua_State *L, const op_args *args, int i, const char *name)
{
    bool positional = i < args->n && !lua_isnil(L, i + 1);
    if (args->named) {
        lua_pushstring(L, name);
        lua_rawget(L, args->named);
        if (positional && !lua_isnil(L, -1)) luaL_error(L, "argument '%s' to %s is given twice", name, args->info->name);
        if (!positional) return;
        lua_pop(L, 1);
    }
    if (positional)
        lua_pushvalue(L, i + 1);
    else
        lua_pushnil(L);
}

static void check_names(lua_State *L, const op_args *args)
{
    const sag_op_info *info = args->info;
    for (lua_pushnil(L); lua_next(L, args->named); lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
        if (!key)
            luaL_error(L, "%s: a table argument holds named attributes, got a %s key", info->name, luaL_typename(L, -2));
        bool known = false;
        for (int i = 0; i < info->n_in; i++) known = known || strcmp(key, info->in[i].name) == 0;
        for (int i = 0; i < info->n_attr; i++) known = known || strcmp(key, info->attr[i].name) == 0;
        if (known) continue;
        lua_newtable(L);
        for (int i = 0; i < info->n_in + info->n_attr; i++) {
            lua_pushboolean(L, 1);
            lua_setfield(L, -2, i < info->n_in ? info->in[i].name : info->attr[i - info->n_in].name);
        }
        lsag_push_hint(L, key, -1);
        luaL_error(L, "%s has no attribute '%s'%s", info->name, key, lua_tostring(L, -1));
    }
}

static int bad_argument(lua_State *L, const op_args *args, const sag_op_param *p, const char *expected)
{
    /* An absent argument was pushed as nil; say so rather than "nil". */
    if (lua_isnil(L, -1)) luaL_error(L, "bad argument '%s' to %s: %s expected, got nothing", p->name, args->info->name, expected);
    if (lua_type(L, -1) == LUA_TNUMBER && strcmp(expected, "tensor") != 0)
        luaL_error(L, "bad argument '%s' to %s: %s expected, got %s", p->name, args->info->name, expected,
                   luaL_tolstring(L, -1, NULL));
    return lsag_arg_error(L, args->info->name, p->name, expected, -1);
}

static double read_attribute(lua_State *L, const op_args *args, const sag_op_param *p)
{
    int type = lua_type(L, -1), whole = 0;
    if (type == LUA_TNIL && p->optional) return p->fallback;
    lua_Integer integer = type == LUA_TNUMBER ? lua_tointegerx(L, -1, &whole) : 0;
    switch (p->type) {
    case 'b':
        if (type != LUA_TBOOLEAN) bad_argument(L, args, p, "boolean");
        return lua_toboolean(L, -1) ? 1.0 : 0.0;
    case 'a':
        if (!whole || integer < 1) bad_argument(L, args, p, "position (counted from 1)");
        return (double)(integer - 1);
    case 'i': {
        sag_dtype dtype;
        if (type == LUA_TSTRING && strcmp(p->name, "dtype") == 0) {
            if (!lsag_find_dtype(lua_tostring(L, -1), &dtype))
                luaL_error(L, "bad argument 'dtype' to %s: 'f32', 'bf16', 'u8' or 'i32' expected, got '%s'", args->info->name,
                           lua_tostring(L, -1));
            return dtype;
        }
        if (!whole || fabs((double)integer) > LARGEST_WHOLE) bad_argument(L, args, p, "whole number");
        return (double)integer;
    }
    default:
        if (type != LUA_TNUMBER) bad_argument(L, args, p, "number");
        return lua_tonumber(L, -1);
    }
}

static int l_op(lua_State *L)
{
    sag_op op = (sag_op)lua_tointeger(L, lua_upvalueindex(1));
    const sag_op_info *info = sag_op_describe(op);
    op_args args = {.info = info, .n = lua_gettop(L)};
    if (args.n > 0 && lua_istable(L, args.n)) {
        args.named = args.n--;
        check_names(L, &args);
    }
    if (args.n > info->n_in + info->n_attr)
        return luaL_error(L, "%s takes at most %d arguments, got %d", info->name, info->n_in + info->n_attr, args.n);
    luaL_checkstack(L, info->n_in + info->n_attr + SAG_MAX_OUT + 8, NULL);

    sag_tensor *in[SAG_MAX_IN] = {NULL};
    double attr[SAG_MAX_ATTR] = {0};
    int first = lua_gettop(L) + 1; /* the inputs stay on the stack from here */
    bool mutates = false;
    for (int i = 0; i < info->n_in; i++) {
        push_argument(L, &args, i, info->in[i].name);
        if (lua_isnil(L, -1) && info->in[i].optional) continue;
        in[i] = lsag_test_tensor(L, -1);
        if (!in[i]) bad_argument(L, &args, &info->in[i], "tensor");
        mutates = mutates || info->in[i].mutated;
    }
    for (int i = 0; i < info->n_attr; i++) {
        push_argument(L, &args, info->n_in + i, info->attr[i].name);
        attr[i] = read_attribute(L, &args, &info->attr[i]);
        lua_pop(L, 1);
    }

    sag_tensor **slot[SAG_MAX_OUT], *out[SAG_MAX_OUT] = {NULL};
    for (int i = 0; i < info->n_out; i++) slot[i] = lsag_new_tensor(L);
    sag_context *ctx = in[0] ? sag_tensor_context(in[0]) : lsag_context(L);
    sag_status status = sag_op_apply(ctx, op, in, attr, out);
    /* An in-place op that failed half-way must not be repeated; an output that found no room is asked for before anything
     * is written. */
    if (status == SAG_ERR_MEMORY && (info->n_out > 0 || !mutates)) {
        lsag_collect(L);
        status = sag_op_apply(ctx, op, in, attr, out);
    }
    lsag_check_status(L, status);
    for (int i = 0; i < info->n_out; i++) *slot[i] = out[i];
    if (info->n_out > 0) return info->n_out;
    lua_pushvalue(L, first);
    return 1;
}

sag_tensor *lsag_apply(lua_State *L, sag_op op, sag_tensor *const *in, const double *attr)
{
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_op_apply(sag_tensor_context(in[0]), op, in, attr, slot));
    return *slot;
}

/* ops.<unknown> */
static int l_unknown_op(lua_State *L)
{
    const char *name = luaL_tolstring(L, 2, NULL);
    lsag_push_hint(L, name, 1);
    return luaL_error(L, "no op '%s'%s", name, lua_tostring(L, -1));
}

int lsag_open_ops(lua_State *L)
{
    lua_createtable(L, 0, SAG_OP_COUNT);
    for (int op = 0; op < SAG_OP_COUNT; op++) {
        lua_pushinteger(L, op);
        lua_pushcclosure(L, l_op, 1);
        lua_setfield(L, -2, sag_op_describe((sag_op)op)->name);
    }
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, l_unknown_op);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    return 1;
}

/* ------------------------------------------------------------------------------------------ description */

static int l_op_names(lua_State *L)
{
    lua_createtable(L, SAG_OP_COUNT, 0);
    for (int op = 0; op < SAG_OP_COUNT; op++) {
        lua_pushstring(L, sag_op_describe((sag_op)op)->name);
        lua_rawseti(L, -2, op + 1);
    }
    return 1;
}

static const char *type_name(char type)
{
    switch (type) {
    case 'T': return "tensor";
    case 'b': return "boolean";
    case 'i': return "integer";
    case 'a': return "position";
    default: return "number";
    }
}

/* The default as Lua writes it: positions from 1, no position is nil. */
static void push_default(lua_State *L, const sag_op_param *p)
{
    switch (p->type) {
    case 'b': lua_pushboolean(L, p->fallback != 0); break;
    case 'i': lua_pushinteger(L, (lua_Integer)p->fallback); break;
    case 'a':
        if (p->fallback < 0)
            lua_pushnil(L);
        else
            lua_pushinteger(L, (lua_Integer)p->fallback + 1);
        break;
    default: lua_pushnumber(L, p->fallback);
    }
}

static void push_params(lua_State *L, const sag_op_param *params, int n, const char *field)
{
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        const sag_op_param *p = &params[i];
        lua_createtable(L, 0, 5);
        lua_pushstring(L, p->name);
        lua_setfield(L, -2, "name");
        lua_pushstring(L, type_name(p->type));
        lua_setfield(L, -2, "type");
        lua_pushboolean(L, p->optional);
        lua_setfield(L, -2, "optional");
        if (p->type == 'T') {
            lua_pushboolean(L, p->mutated);
            lua_setfield(L, -2, "mutated");
        } else if (p->optional) {
            push_default(L, p);
            lua_setfield(L, -2, "default");
        }
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, field);
}

/* op_info(name) -> {name, doc, differentiable, inputs, attributes, outputs} */
static int l_op_info(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    int op = sag_op_find(name);
    if (op < 0) {
        lua_pushvalue(L, lua_upvalueindex(1));
        lsag_push_hint(L, name, -1);
        return luaL_error(L, "no op '%s'%s", name, lua_tostring(L, -1));
    }
    const sag_op_info *info = sag_op_describe((sag_op)op);
    lua_createtable(L, 0, 6);
    lua_pushstring(L, info->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, info->doc);
    lua_setfield(L, -2, "doc");
    lua_pushboolean(L, info->differentiable);
    lua_setfield(L, -2, "differentiable");
    push_params(L, info->in, info->n_in, "inputs");
    push_params(L, info->attr, info->n_attr, "attributes");
    lua_createtable(L, info->n_out, 0);
    for (int i = 0; i < info->n_out; i++) {
        lua_pushstring(L, info->out[i].name);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "outputs");
    return 1;
}

void lsag_add_op_functions(lua_State *L)
{
    lua_pushcfunction(L, l_op_names);
    lua_setfield(L, -2, "op_names");
    lua_getfield(L, -1, "ops");
    lua_pushcclosure(L, l_op_info, 1);
    lua_setfield(L, -2, "op_info");
}
