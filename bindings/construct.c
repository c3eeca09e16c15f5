/*
 * construct.c - the functions of sagan.core that make tensors: tensor, zeros, ones, full, empty, arange. Their last
 * argument may be a table of options, {dtype = "f32", device = "cpu"}.
 */
#include "bindings/lsag.h"

#include <string.h>

typedef struct options {
    sag_context *ctx;
    sag_dtype dtype;
} options;

static options read_options(lua_State *L, int index, const char *function)
{
    static const char *const known[] = {"dtype", "device", NULL};
    lsag_check_fields(L, index, function, known);
    options o = {.dtype = lsag_opt_dtype(L, index, function, "dtype", SAG_F32)};
    const char *name = lsag_opt_string(L, index, function, "device", NULL);
    sag_device device = SAG_CPU;
    if (name && !lsag_find_device(name, &device))
        luaL_error(L, "bad argument 'device' to %s: 'cpu' or 'cuda' expected, got '%s'", function, name);
    o.ctx = name ? lsag_context_on(L, device) : lsag_context(L);
    if (lua_gettop(L) > index) luaL_error(L, "too many arguments to %s", function);
    return o;
}

void lsag_fill(lua_State *L, sag_tensor *t, double value, const char *function)
{
    sag_dtype dtype = sag_tensor_dtype(t);
    if (dtype == SAG_F32) {
        sag_status status = sag_op_apply(sag_tensor_context(t), SAG_OP_fill, &t, &value, NULL);
        lsag_check_status(L, status);
        return;
    }
    /* The other types are filled from the host. */
    if (dtype == SAG_BF16) {
        sag_tensor **wide = lsag_new_tensor(L);
        LSAG_TRY(L, sag_tensor_create(sag_tensor_context(t), SAG_F32, sag_tensor_shape(t), wide));
        lsag_fill(L, *wide, value, function);
        sag_tensor *narrow = lsag_apply(L, SAG_OP_cast, wide, (double[]){SAG_BF16});
        LSAG_TRY(L, sag_tensor_copy(t, narrow));
        lua_pop(L, 2);
        return;
    }
    double low = dtype == SAG_U8 ? 0 : INT32_MIN, high = dtype == SAG_U8 ? 255 : INT32_MAX;
    if (!(value >= low && value <= high) || value != (double)(int64_t)value)
        luaL_error(L, "%s: %f does not fit %s", function, value, sag_dtype_name(dtype));
    int64_t n = sag_tensor_numel(t);
    size_t bytes = (size_t)n * sag_dtype_size(dtype);
    void *host = lua_newuserdatauv(L, bytes, 0);
    if (dtype == SAG_U8)
        memset(host, (int)value, bytes);
    else
        for (int64_t i = 0; i < n; i++) ((int32_t *)host)[i] = (int32_t)value;
    LSAG_TRY(L, sag_tensor_write(t, host, bytes));
    lua_pop(L, 1);
}

/* tensor(nested table or number [, options]) */
static int l_tensor(lua_State *L)
{
    if (!lua_istable(L, 1) && lua_type(L, 1) != LUA_TNUMBER) return lsag_arg_error(L, "tensor", "values", "number or nested table", 1);
    options o = read_options(L, 2, "tensor");
    sag_shape shape = lsag_table_shape(L, 1, "tensor");
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_create(o.ctx, o.dtype, shape, slot));
    lsag_write_table(L, 1, *slot, "tensor");
    return 1;
}

static int l_empty(lua_State *L)
{
    sag_shape shape;
    options o = read_options(L, lsag_check_shape(L, 1, false, &shape), "empty");
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_create(o.ctx, o.dtype, shape, slot));
    return 1;
}

static int l_zeros(lua_State *L)
{
    sag_shape shape;
    options o = read_options(L, lsag_check_shape(L, 1, false, &shape), "zeros");
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_zeros(o.ctx, o.dtype, shape, slot));
    return 1;
}

static int l_ones(lua_State *L)
{
    sag_shape shape;
    options o = read_options(L, lsag_check_shape(L, 1, false, &shape), "ones");
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_create(o.ctx, o.dtype, shape, slot));
    lsag_fill(L, *slot, 1, "ones");
    return 1;
}

/* full({2, 3}, value [, options]): the shape must be a table here, or the value would be one more dimension */
static int l_full(lua_State *L)
{
    sag_shape shape;
    luaL_checktype(L, 1, LUA_TTABLE);
    lsag_check_shape(L, 1, false, &shape);
    double value = luaL_checknumber(L, 2);
    options o = read_options(L, 3, "full");
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_create(o.ctx, o.dtype, shape, slot));
    lsag_fill(L, *slot, value, "full");
    return 1;
}

/* arange(n [, options]): 0 .. n-1 */
static int l_arange(lua_State *L)
{
    lua_Integer n = luaL_checkinteger(L, 1);
    options o = read_options(L, 2, "arange");
    if (n < 1) return luaL_argerror(L, 1, "must be at least 1");
    if (o.dtype == SAG_U8 && n > 256) return luaL_argerror(L, 1, "0 to n-1 does not fit u8");
    if (o.dtype == SAG_BF16 && n > 257) return luaL_argerror(L, 1, "bf16 holds whole numbers up to 256 only");
    if (n > 16777217) return luaL_argerror(L, 1, "f32 holds whole numbers up to 16777216 only");
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_create(o.ctx, o.dtype, sag_shape1(n), slot));
    lua_createtable(L, (int)n, 0);
    for (lua_Integer i = 0; i < n; i++) {
        lua_pushinteger(L, i);
        lua_rawseti(L, -2, i + 1);
    }
    lsag_write_table(L, -1, *slot, "arange");
    lua_pop(L, 1);
    return 1;
}

void lsag_add_constructors(lua_State *L)
{
    static const luaL_Reg functions[] = {{"tensor", l_tensor}, {"empty", l_empty}, {"zeros", l_zeros}, {"ones", l_ones},
                                         {"full", l_full},     {"arange", l_arange}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
