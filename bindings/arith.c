/*
 * arith.c - + - * / and unary minus between tensors and numbers. The engine's binary ops repeat their second operand over
 * the first; here the smaller one may stand on either side.
 */
#include "bindings/lsag.h"

static const char *const symbols[] = {[SAG_OP_add] = "+", [SAG_OP_sub] = "-", [SAG_OP_mul] = "*", [SAG_OP_div] = "/"};

/* a * x + b, pushed */
static sag_tensor *scale(lua_State *L, sag_tensor *x, double a, double b)
{
    return lsag_apply(L, SAG_OP_scale, &x, (double[]){a, b});
}

/* A tensor like `like` full of value, pushed; no gradient reaches it. */
static sag_tensor *constant(lua_State *L, sag_tensor *like, double value)
{
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_create(sag_tensor_context(like), SAG_F32, sag_tensor_shape(like), slot));
    LSAG_TRY(L, sag_op_apply(sag_tensor_context(like), SAG_OP_fill, slot, &value, NULL));
    return *slot;
}

/* tensor op number */
static void with_number(lua_State *L, sag_op op, sag_tensor *x, double n)
{
    switch (op) {
    case SAG_OP_add: scale(L, x, 1, n); break;
    case SAG_OP_sub: scale(L, x, 1, -n); break;
    case SAG_OP_mul: scale(L, x, n, 0); break;
    default: scale(L, x, 1 / n, 0);
    }
}

/* number op tensor */
static void number_with(lua_State *L, sag_op op, double n, sag_tensor *x)
{
    switch (op) {
    case SAG_OP_sub: scale(L, x, -1, n); break;
    case SAG_OP_div: lsag_apply(L, op, (sag_tensor *[]){constant(L, x, n), x}, NULL); break;
    default: with_number(L, op, x, n);
    }
}

/* tensor op tensor where the first one is the smaller and has to be repeated */
static void small_first(lua_State *L, sag_op op, sag_tensor *a, sag_tensor *b)
{
    switch (op) {
    case SAG_OP_sub: {
        sag_tensor *minus_b = scale(L, b, -1, 0);
        lsag_apply(L, SAG_OP_add, (sag_tensor *[]){minus_b, a}, NULL);
        break;
    }
    case SAG_OP_div: {
        sag_tensor *ones = constant(L, b, 1);
        sag_tensor *spread = lsag_apply(L, SAG_OP_mul, (sag_tensor *[]){ones, a}, NULL);
        lsag_apply(L, SAG_OP_div, (sag_tensor *[]){spread, b}, NULL);
        break;
    }
    default: lsag_apply(L, op, (sag_tensor *[]){b, a}, NULL);
    }
}

static int l_binary(lua_State *L)
{
    sag_op op = (sag_op)lua_tointeger(L, lua_upvalueindex(1));
    sag_tensor *a = lsag_test_tensor(L, 1), *b = lsag_test_tensor(L, 2);
    for (int i = 1; i <= 2; i++)
        if (!(i == 1 ? a : b) && lua_type(L, i) != LUA_TNUMBER)
            return luaL_error(L, "bad operand of '%s': tensor or number expected, got %s", symbols[op], luaL_typename(L, i));
    lua_settop(L, 2);
    if (a && b && sag_tensor_numel(a) < sag_tensor_numel(b))
        small_first(L, op, a, b);
    else if (a && b)
        lsag_apply(L, op, (sag_tensor *[]){a, b}, NULL);
    else if (a)
        with_number(L, op, a, lua_tonumber(L, 2));
    else
        number_with(L, op, lua_tonumber(L, 1), b);
    return 1;
}

static int l_minus(lua_State *L)
{
    scale(L, lsag_check_tensor(L, 1), -1, 0);
    return 1;
}

void lsag_add_operators(lua_State *L)
{
    static const struct {
        const char *name;
        sag_op op;
    } binary[] = {{"__add", SAG_OP_add}, {"__sub", SAG_OP_sub}, {"__mul", SAG_OP_mul}, {"__div", SAG_OP_div}};
    for (size_t i = 0; i < sizeof binary / sizeof *binary; i++) {
        lua_pushinteger(L, binary[i].op);
        lua_pushcclosure(L, l_binary, 1);
        lua_setfield(L, -2, binary[i].name);
    }
    lua_pushcfunction(L, l_minus);
    lua_setfield(L, -2, "__unm");
}
