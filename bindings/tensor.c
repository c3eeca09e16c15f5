/*
 * tensor.c - the tensor userdata as Lua sees it: fields, methods, and its place in the collector. Every op whose first
 * input is a tensor is a method too (ops.c); operators are in arith.c, tostring in tensor_text.c.
 */
#include "bindings/lsag.h"

#include <string.h>

/* ---------------------------------------------------------------------------------------------- reading */

static int l_numel(lua_State *L)
{
    lua_pushinteger(L, sag_tensor_numel(lsag_check_tensor(L, 1)));
    return 1;
}

static int l_size(lua_State *L)
{
    sag_shape s = sag_tensor_shape(lsag_check_tensor(L, 1));
    lua_Integer i = luaL_checkinteger(L, 2);
    if (i < 1 || i > s.rank)
        return luaL_argerror(L, 2, lua_pushfstring(L, "dimension 1 to %d expected, got %I", s.rank, (LUAI_UACINT)i));
    lua_pushinteger(L, s.dim[i - 1]);
    return 1;
}

static int l_len(lua_State *L)
{
    lua_pushinteger(L, sag_tensor_shape(lsag_check_tensor(L, 1)).dim[0]);
    return 1;
}

static int push_element(lua_State *L, sag_tensor *t)
{
    sag_dtype dtype;
    const void *host = lsag_push_host(L, t, &dtype);
    double v = lsag_element(host, dtype, 0);
    if (dtype == SAG_F32)
        lua_pushnumber(L, v);
    else
        lua_pushinteger(L, (lua_Integer)v);
    return 1;
}

static int l_item(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1);
    char text[96];
    if (sag_tensor_numel(t) != 1)
        return luaL_error(L, "item: a tensor with one element expected, got %s",
                          sag_shape_text(sag_tensor_shape(t), text, sizeof text));
    return push_element(L, t);
}

static int l_get(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1);
    sag_shape s = sag_tensor_shape(t);
    if (lua_gettop(L) != s.rank + 1)
        return luaL_error(L, "get: %d indices expected, got %d", s.rank, lua_gettop(L) - 1);
    int64_t offset = 0;
    for (int d = 0; d < s.rank; d++) {
        lua_Integer i = luaL_checkinteger(L, d + 2);
        if (i < 1 || i > s.dim[d])
            return luaL_error(L, "get: index %d is %I, must be 1 to %I", d + 1, (LUAI_UACINT)i, (LUAI_UACINT)s.dim[d]);
        offset = offset * s.dim[d] + i - 1;
    }
    sag_tensor **detached = lsag_new_tensor(L), **view = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_detach(t, detached));
    LSAG_TRY(L, sag_tensor_view(*detached, offset, sag_shape1(1), view));
    push_element(L, *view);
    /* Nothing waits for the collector, so that a loop over elements leaves no garbage headers. */
    lsag_state *state = lsag_state_of(L);
    lsag_release(state, lsag_to_userdata(L, s.rank + 2));
    lsag_release(state, lsag_to_userdata(L, s.rank + 3));
    return 1;
}

static int l_totable(lua_State *L)
{
    lsag_push_table(L, lsag_check_tensor(L, 1));
    return 1;
}

static int l_bytes(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1);
    size_t bytes = (size_t)sag_tensor_numel(t) * sag_dtype_size(sag_tensor_dtype(t));
    luaL_Buffer b;
    char *host = luaL_buffinitsize(L, &b, bytes);
    LSAG_TRY(L, sag_tensor_read(t, host, bytes));
    luaL_pushresultsize(&b, bytes);
    return 1;
}

/* ---------------------------------------------------------------------------------------- views, copies */

static int l_reshape(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1);
    sag_shape s;
    if (lsag_check_shape(L, 2, true, &s) <= lua_gettop(L)) return luaL_error(L, "reshape takes one shape");
    int rest = -1;
    int64_t known = 1, n = sag_tensor_numel(t);
    char from[96], to[96];
    sag_shape_text(sag_tensor_shape(t), from, sizeof from);
    sag_shape_text(s, to, sizeof to);
    for (int d = 0; d < s.rank; d++) {
        if (s.dim[d] == -1) {
            if (rest >= 0) return luaL_error(L, "reshape: %s to %s: only one dimension may be -1", from, to);
            rest = d;
        } else if (__builtin_mul_overflow(known, s.dim[d], &known)) {
            return luaL_error(L, "reshape: %s to %s: too many elements", from, to);
        }
    }
    if (rest >= 0 && n % known == 0) s.dim[rest] = n / known;
    if ((rest >= 0 && n % known != 0) || (rest < 0 && known != n))
        return luaL_error(L, "reshape: %s to %s: the number of elements differs (%I)", from, to, (LUAI_UACINT)n);
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_view(t, 0, s, slot));
    return 1;
}

/* part(start, shape): shape's elements from element number start on (from 1), a view */
static int l_part(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1);
    lua_Integer start = luaL_checkinteger(L, 2);
    sag_shape s;
    int64_t n;
    if (lsag_check_shape(L, 3, false, &s) <= lua_gettop(L)) return luaL_error(L, "part takes a start and one shape");
    lsag_check_status(L, sag_shape_numel(s, &n));
    if (start < 1 || start - 1 > sag_tensor_numel(t) - n)
        return luaL_error(L, "part: %I elements from number %I on are outside of the tensor's %I", (LUAI_UACINT)n,
                          (LUAI_UACINT)start, (LUAI_UACINT)sag_tensor_numel(t));
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_view(t, start - 1, s, slot));
    return 1;
}

/* rows(first, count): a view of `count` entries of the leading dimension */
static int l_rows(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1);
    lua_Integer first = luaL_checkinteger(L, 2), count = luaL_optinteger(L, 3, 1);
    sag_shape s = sag_tensor_shape(t);
    if (first < 1 || count < 1 || count > s.dim[0] || first - 1 > s.dim[0] - count)
        return luaL_error(L, "rows: %I rows from %I are outside of the leading dimension's %I", (LUAI_UACINT)count,
                          (LUAI_UACINT)first, (LUAI_UACINT)s.dim[0]);
    int64_t offset = (first - 1) * (sag_tensor_numel(t) / s.dim[0]);
    s.dim[0] = count;
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_view(t, offset, s, slot));
    return 1;
}

static int l_detach(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1);
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_detach(t, slot));
    return 1;
}

static sag_tensor *push_copy(lua_State *L, sag_tensor *t, sag_context *ctx)
{
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_create(ctx, sag_tensor_dtype(t), sag_tensor_shape(t), slot));
    LSAG_TRY(L, sag_tensor_copy(*slot, t));
    return *slot;
}

static int l_clone(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1);
    push_copy(L, t, sag_tensor_context(t));
    return 1;
}

/* to("bf16") or to("cuda"): itself when it is there already */
static int l_to(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1);
    const char *name = luaL_checkstring(L, 2);
    sag_dtype dtype;
    sag_device device;
    if (lsag_find_dtype(name, &dtype)) {
        if (dtype != sag_tensor_dtype(t)) {
            lsag_apply(L, SAG_OP_cast, &t, (double[]){dtype});
            return 1;
        }
    } else if (lsag_find_device(name, &device)) {
        sag_context *ctx = lsag_context_on(L, device);
        if (ctx != sag_tensor_context(t)) {
            push_copy(L, t, ctx);
            return 1;
        }
    } else {
        return luaL_argerror(L, 2, lua_pushfstring(L, "a dtype (f32, bf16, u8, i32) or a device (cpu, cuda) expected, got '%s'", name));
    }
    lua_settop(L, 1);
    return 1;
}

/* ---------------------------------------------------------------------------------------------- writing */

static int self(lua_State *L)
{
    lua_settop(L, 1);
    return 1;
}

static int l_copy_(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1), *source = lsag_test_tensor(L, 2);
    if (source)
        LSAG_TRY(L, sag_tensor_copy(t, source));
    else if (lua_istable(L, 2) || lua_type(L, 2) == LUA_TNUMBER)
        lsag_write_table(L, 2, t, "copy_");
    else
        return lsag_arg_error(L, "copy_", "source", "tensor or nested table", 2);
    return self(L);
}

static int l_fill_(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1);
    lsag_fill(L, t, luaL_checknumber(L, 2), "fill_");
    return self(L);
}

static int l_zero_(lua_State *L)
{
    lsag_fill(L, lsag_check_tensor(L, 1), 0, "zero_");
    return self(L);
}

static int l_set_bytes(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1);
    size_t bytes;
    const char *source = luaL_checklstring(L, 2, &bytes);
    lsag_check_status(L, sag_tensor_write(t, source, bytes));
    return self(L);
}

/* -------------------------------------------------------------------------------------------- gradients */

static int l_requires_grad_(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1);
    LSAG_TRY(L, sag_tensor_require_grad(t));
    return self(L);
}

static int l_freeze(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1);
    sag_tensor_set_frozen(t, lua_isnone(L, 2) || lua_toboolean(L, 2));
    return self(L);
}

static int l_release_grad(lua_State *L)
{
    sag_tensor_release_grad(lsag_check_tensor(L, 1));
    return self(L);
}

static int l_zero_grad(lua_State *L)
{
    lsag_check_status(L, sag_tensor_zero_grad(lsag_check_tensor(L, 1)));
    return self(L);
}

/* backward(): of a tensor with one element. backward(dy): from a tensor of y's shape, or a number for one element. */
static int l_backward(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1), *dy = lsag_test_tensor(L, 2);
    double seed = 1;
    if (!dy && !lua_isnoneornil(L, 2)) {
        if (lua_type(L, 2) != LUA_TNUMBER) return lsag_arg_error(L, "backward", "dy", "tensor or number", 2);
        seed = lua_tonumber(L, 2);
    }
    /* Activations that nothing but garbage holds make room for the gradients. A backward is not repeated when memory runs
     * out in the middle: gradients would be added twice. */
    lsag_nudge(L, (int64_t)16 << 20);
    lsag_check_status(L, dy ? sag_tape_backward_from(t, dy) : sag_tape_backward(t, (float)seed));
    return 0;
}

/* ------------------------------------------------------------------------------------------------- life */

static int l_release(lua_State *L)
{
    lsag_tensor *u = lsag_to_userdata(L, 1);
    if (!u) return luaL_typeerror(L, 1, "tensor");
    lsag_release(lsag_state_of(L), u);
    return 0;
}

static int l_keep(lua_State *L)
{
    lsag_check_tensor(L, 1);
    lsag_scope_leave(lsag_state_of(L), lsag_to_userdata(L, 1));
    return self(L);
}

/* ----------------------------------------------------------------------------------------------- fields */

static int l_index(lua_State *L)
{
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    sag_tensor *t = lsag_check_tensor(L, 1);
    if (lua_type(L, 2) != LUA_TSTRING)
        return luaL_error(L, "tensors have no element access by []: use x:get(i, ...), x:rows(first, count) or x:totable()");
    const char *name = lua_tostring(L, 2);
    if (strcmp(name, "shape") == 0)
        lsag_push_shape(L, sag_tensor_shape(t));
    else if (strcmp(name, "dtype") == 0)
        lua_pushstring(L, sag_dtype_name(sag_tensor_dtype(t)));
    else if (strcmp(name, "device") == 0)
        lua_pushstring(L, sag_device_name(sag_context_device(sag_tensor_context(t))));
    else if (strcmp(name, "rank") == 0)
        lua_pushinteger(L, sag_tensor_shape(t).rank);
    else if (strcmp(name, "grad") == 0)
        lsag_push_tensor(L, sag_tensor_grad(t));
    else if (strcmp(name, "requires_grad") == 0)
        lua_pushboolean(L, sag_tensor_wants_grad(t));
    else {
        lsag_push_hint(L, name, lua_upvalueindex(1));
        return luaL_error(L, "a tensor has no field or method '%s'%s", name, lua_tostring(L, -1));
    }
    return 1;
}

static int l_newindex(lua_State *L)
{
    return luaL_error(L, "tensor fields cannot be assigned (%s); use copy_(), fill_() or zero_grad()", luaL_tolstring(L, 2, NULL));
}

static const luaL_Reg methods[] = {
    {"numel", l_numel},     {"size", l_size},       {"item", l_item},
    {"get", l_get},         {"totable", l_totable}, {"bytes", l_bytes},
    {"reshape", l_reshape}, {"part", l_part},       {"rows", l_rows},
    {"detach", l_detach},   {"clone", l_clone},     {"to", l_to},
    {"copy_", l_copy_},     {"fill_", l_fill_},     {"zero_", l_zero_},
    {"set_bytes", l_set_bytes},
    {"requires_grad_", l_requires_grad_},
    {"freeze", l_freeze},   {"zero_grad", l_zero_grad},   {"release_grad", l_release_grad},
    {"backward", l_backward},
    {"release", l_release}, {"keep", l_keep},
    {NULL, NULL}};

/* Expects the table of ops on top of the stack; leaves the table of methods above it. */
void lsag_open_tensor(lua_State *L)
{
    lua_newtable(L);
    for (lua_pushnil(L); lua_next(L, -3);) { /* every op is a method, unless a method has its name */
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, -4);
    }
    luaL_setfuncs(L, methods, 0);
    lsag_push_metatable(L);
    lsag_add_operators(L);
    lua_pushvalue(L, -2);
    lua_pushcclosure(L, l_index, 1);
    lua_setfield(L, -2, "__index");
    static const luaL_Reg metamethods[] = {{"__newindex", l_newindex}, {"__gc", l_release}, {"__close", l_release},
                                           {"__len", l_len}, {"__tostring", lsag_tensor_tostring}, {NULL, NULL}};
    luaL_setfuncs(L, metamethods, 0);
    lua_pushliteral(L, "tensor");
    lua_setfield(L, -2, "__name");
    lua_pop(L, 1);
}
