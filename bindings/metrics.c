/*
 * metrics.c - sagan.core.metrics: scores from features (engine/metrics/metrics.h). scripts/sagan/metrics.lua is its
 * face.
 *
 *     local m = metrics.moments()
 *     assert(m:add(features))                       -- f32 {N, D}, as often as wanted
 *     local d2 = assert(metrics.frechet(m, other))
 *
 * What is wrong with the numbers (too few, NaN, widths that differ) is nil, message, code; wrong arguments raise.
 */
#include "bindings/lsag.h"

#include <string.h>

#include "engine/data/dataset.h"
#include "engine/metrics/metrics.h"

#define MOMENTS "sagan.moments"
#define NEIGHBOURS "sagan.neighbours"

/* Rows of the f32 {N, D} tensor at `index`; one on another device is copied, into a tensor that takes its place. */
static sag_rows check_rows(lua_State *L, int index)
{
    sag_tensor *t = lsag_check_tensor_of(L, index, SAG_F32, 2);
    if (sag_context_device(sag_tensor_context(t)) != SAG_CPU) {
        sag_tensor **host = lsag_new_tensor(L);
        LSAG_TRY(L, sag_tensor_create(lsag_context_on(L, SAG_CPU), SAG_F32, sag_tensor_shape(t), host));
        lsag_check_status(L, sag_tensor_copy(*host, t));
        t = *host;
        lua_replace(L, index);
    }
    sag_shape shape = sag_tensor_shape(t);
    return (sag_rows){sag_tensor_data(t), shape.dim[0], shape.dim[1]};
}

static int threads(lua_State *L)
{
    return sag_context_threads(lsag_context_on(L, SAG_CPU));
}

/* Calls expr; when it ran out of memory, collects all garbage and calls it once more. */
#define TRY_AGAIN(L, status, expr)                                                                                     \
    do {                                                                                                               \
        (status) = (expr);                                                                                             \
        if ((status) != SAG_ERR_MEMORY) break;                                                                         \
        lsag_collect(L);                                                                                               \
        (status) = (expr);                                                                                             \
    } while (0)

static int done(lua_State *L, sag_status status)
{
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_pushboolean(L, 1);
    return 1;
}

/* metrics.check(features [, what]) -> true | nil, message */
static int l_check(lua_State *L)
{
    sag_rows x = check_rows(L, 1);
    return done(L, sag_rows_check(x, luaL_optstring(L, 2, "features")));
}

/* metrics.singular_values(matrix) -> values | nil, message */
static int l_singular_values(lua_State *L)
{
    sag_rows x = check_rows(L, 1);
    int64_t n = x.n < x.d ? x.n : x.d;
    double *values = lua_newuserdatauv(L, (size_t)n * sizeof *values, 0);
    sag_status status;
    TRY_AGAIN(L, status, sag_singular_values(x, threads(L), values));
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_createtable(L, (int)n, 0);
    for (int64_t i = 0; i < n; i++) {
        lua_pushnumber(L, values[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* ------------------------------------------------------------------------------------------------ moments */

static sag_moments *check_moments(lua_State *L, int index)
{
    sag_moments **u = luaL_checkudata(L, index, MOMENTS);
    if (!*u) luaL_argerror(L, index, "these moments were closed");
    return *u;
}

static sag_moments **new_moments(lua_State *L)
{
    sag_moments **u = lua_newuserdatauv(L, sizeof *u, 0);
    *u = NULL;
    luaL_setmetatable(L, MOMENTS);
    return u;
}

static int l_moments(lua_State *L)
{
    sag_moments **u = new_moments(L);
    LSAG_TRY(L, sag_moments_create(u));
    return 1;
}

/* m:add(features) -> m | nil, message */
static int l_add(lua_State *L)
{
    sag_moments *m = check_moments(L, 1);
    sag_rows x = check_rows(L, 2);
    sag_status status;
    TRY_AGAIN(L, status, sag_moments_add(m, x, threads(L)));
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_settop(L, 1);
    return 1;
}

/* m:merge(other) -> m | nil, message */
static int l_merge(lua_State *L)
{
    sag_moments *m = check_moments(L, 1), *other = check_moments(L, 2);
    sag_status status;
    TRY_AGAIN(L, status, sag_moments_merge(m, other));
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_settop(L, 1);
    return 1;
}

static int l_count(lua_State *L)
{
    lua_pushinteger(L, sag_moments_count(check_moments(L, 1)));
    return 1;
}

static int l_width(lua_State *L)
{
    lua_pushinteger(L, sag_moments_width(check_moments(L, 1)));
    return 1;
}

static sag_tensor *new_bytes(lua_State *L, int64_t doubles)
{
    sag_tensor **slot = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_create(lsag_context_on(L, SAG_CPU), SAG_U8, sag_shape2(doubles, 8), slot));
    return *slot;
}

/* m:export() -> mean, scatter | nil, message: f64 as u8 {D, 8} and {D (D + 1) / 2, 8} */
static int l_export(lua_State *L)
{
    sag_moments *m = check_moments(L, 1);
    int64_t width = sag_moments_width(m);
    if (width == 0) return lsag_fail_text(L, "argument", "moments: nothing was added yet");
    sag_tensor *mean = new_bytes(L, width), *scatter = new_bytes(L, width * (width + 1) / 2);
    sag_status status = sag_moments_export(m, sag_tensor_data(mean), sag_tensor_data(scatter));
    return status == SAG_OK ? 2 : lsag_fail(L, status);
}

static sag_tensor *check_bytes(lua_State *L, int index)
{
    sag_tensor *t = lsag_check_tensor_of(L, index, SAG_U8, 2);
    if (sag_context_device(sag_tensor_context(t)) != SAG_CPU || sag_tensor_shape(t).dim[1] != 8)
        luaL_argerror(L, index, "u8 tensor {n, 8} on the CPU expected");
    return t;
}

/* metrics.import(n, mean, scatter) -> moments | nil, message */
static int l_import(lua_State *L)
{
    int64_t n = luaL_checkinteger(L, 1);
    sag_tensor *mean = check_bytes(L, 2), *scatter = check_bytes(L, 3);
    int64_t width = sag_tensor_shape(mean).dim[0], entries = sag_tensor_shape(scatter).dim[0];
    if (width > 1 << 20 || entries != width * (width + 1) / 2)
        return lsag_fail_text(L, "shape", "moments: a mean of %lld features and a scatter of %lld numbers",
                              (long long)width, (long long)entries);
    sag_moments **u = new_moments(L);
    sag_status status;
    TRY_AGAIN(L, status, sag_moments_import(n, width, sag_tensor_data(mean), sag_tensor_data(scatter), u));
    return status == SAG_OK ? 1 : lsag_fail(L, status);
}

static int l_moments_close(lua_State *L)
{
    sag_moments **u = luaL_checkudata(L, 1, MOMENTS), *m = *u;
    *u = NULL;
    sag_moments_destroy(m);
    return 0;
}

static int l_moments_tostring(lua_State *L)
{
    sag_moments **u = luaL_checkudata(L, 1, MOMENTS);
    if (!*u)
        lua_pushliteral(L, "moments (closed)");
    else
        lua_pushfstring(L, "moments of %I rows of %I features", (LUAI_UACINT)sag_moments_count(*u),
                        (LUAI_UACINT)sag_moments_width(*u));
    return 1;
}

/* metrics.frechet(a, b) -> distance, {mean_term, covariance_term, collapsed = {a, b}} | nil, message */
static int l_frechet(lua_State *L)
{
    sag_moments *a = check_moments(L, 1), *b = check_moments(L, 2);
    sag_frechet f;
    sag_status status;
    TRY_AGAIN(L, status, sag_frechet_distance(a, b, threads(L), &f));
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_pushnumber(L, f.distance);
    lua_createtable(L, 0, 3);
    lua_pushnumber(L, f.mean_term);
    lua_setfield(L, -2, "mean_term");
    lua_pushnumber(L, f.covariance_term);
    lua_setfield(L, -2, "covariance_term");
    lua_createtable(L, 2, 0);
    for (int i = 0; i < 2; i++) {
        lua_pushboolean(L, f.collapsed[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "collapsed");
    return 2;
}

/* ---------------------------------------------------------------------------------------- inception score */

/* Pushes a userdata of n row numbers from 0: what options.order or options.shuffle asks for; NULL if neither. */
static const int32_t *push_order(lua_State *L, int index, const char *function, int64_t n)
{
    if (lua_isnoneornil(L, index)) return NULL;
    bool given = lua_getfield(L, index, "order") != LUA_TNIL, drawn = lua_getfield(L, index, "shuffle") != LUA_TNIL;
    lua_pop(L, 2);
    if (!given && !drawn) return NULL;
    if (given && drawn) luaL_error(L, "%s: either order or shuffle", function);
    if (n > INT32_MAX) luaL_error(L, "%s: more rows than an order can name", function);
    int32_t *order = lua_newuserdatauv(L, sizeof *order * (size_t)n, 0);
    if (drawn) {
        sag_shuffle_epoch((uint64_t)lsag_opt_integer(L, index, function, "shuffle", 0), 0, n, order);
        return order;
    }
    if (lua_getfield(L, index, "order") != LUA_TTABLE) lsag_arg_error(L, function, "order", "list of row numbers", -1);
    if (luaL_len(L, -1) != n)
        luaL_error(L, "%s: an order of %I rows for %I", function, luaL_len(L, -1), (LUAI_UACINT)n);
    for (int64_t i = 0; i < n; i++) {
        int whole = 0;
        lua_geti(L, -1, i + 1);
        lua_Integer row = lua_tointegerx(L, -1, &whole);
        order[i] = whole && row >= 1 && row <= n ? (int32_t)(row - 1) : -1; /* the engine says which is wrong */
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return order;
}

/* metrics.inception_score(logits, {splits, order, shuffle}) -> the splits' scores | nil, message */
static int l_inception_score(lua_State *L)
{
    static const char *const function = "metrics.inception_score";
    static const char *const known[] = {"splits", "order", "shuffle", NULL};
    sag_rows x = check_rows(L, 1);
    lsag_check_fields(L, 2, function, known);
    int64_t splits = lsag_opt_integer(L, 2, function, "splits", 10);
    if (splits < 1) luaL_error(L, "%s: %I splits, 1 at least are needed", function, (LUAI_UACINT)splits);
    const int32_t *order = push_order(L, 2, function, x.n);
    /* more splits than rows are refused before the scores are written */
    double *scores = lua_newuserdatauv(L, sizeof *scores * (size_t)(splits < x.n ? splits : x.n), 0);
    sag_status status;
    TRY_AGAIN(L, status, sag_inception_score(x, splits, order, threads(L), scores));
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_createtable(L, (int)splits, 0);
    for (int64_t i = 0; i < splits; i++) {
        lua_pushnumber(L, scores[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* ---------------------------------------------------------------------------------------------------- KID */

/* metrics.kid_subset(x, y, subset, {size, degree, gamma, coef, seed}) -> MMD^2 | nil, message; subsets from 0 */
static int l_kid_subset(lua_State *L)
{
    static const char *const function = "metrics.kid_subset";
    static const char *const known[] = {"size", "degree", "gamma", "coef", "seed", NULL};
    sag_rows x = check_rows(L, 1), y = check_rows(L, 2);
    int64_t subset = luaL_checkinteger(L, 3);
    luaL_argcheck(L, subset >= 0, 3, "subsets count from 0");
    lsag_check_fields(L, 4, function, known);
    int64_t degree = lsag_opt_integer(L, 4, function, "degree", 3);
    if (degree < 1 || degree > 64) luaL_error(L, "%s: degree is %I, must be 1 to 64", function, (LUAI_UACINT)degree);
    sag_kid_options o = {
        .size = lsag_opt_integer(L, 4, function, "size", 1000),
        .degree = (int)degree,
        .gamma = lsag_opt_number(L, 4, function, "gamma", 0),
        .coef = lsag_opt_number(L, 4, function, "coef", 1),
        .seed = (uint64_t)lsag_opt_integer(L, 4, function, "seed", 0),
    };
    double mmd2 = 0;
    sag_status status;
    TRY_AGAIN(L, status, sag_kid_subset(x, y, &o, subset, threads(L), &mmd2));
    if (status != SAG_OK) return lsag_fail(L, status);
    lua_pushnumber(L, mmd2);
    return 1;
}

/* --------------------------------------------------------------------------------------------- neighbours */

typedef struct neighbours_box {
    sag_neighbours *job;
    sag_tensor *real, *fake; /* references: the job reads their rows */
} neighbours_box;

static int l_neighbours_close(lua_State *L)
{
    neighbours_box *u = luaL_checkudata(L, 1, NEIGHBOURS), old = *u;
    memset(u, 0, sizeof *u);
    sag_neighbours_destroy(old.job);
    sag_tensor_release(old.real);
    sag_tensor_release(old.fake);
    return 0;
}

static sag_neighbours *check_neighbours(lua_State *L)
{
    neighbours_box *u = luaL_checkudata(L, 1, NEIGHBOURS);
    if (!u->job) luaL_argerror(L, 1, "this computation was closed");
    return u->job;
}

/* metrics.neighbours(real, fake, {k, inclusive}) -> a computation | nil, message */
static int l_neighbours(lua_State *L)
{
    static const char *const function = "metrics.neighbours";
    static const char *const known[] = {"k", "inclusive", NULL};
    lua_settop(L, 3);
    sag_rows real = check_rows(L, 1), fake = check_rows(L, 2);
    lsag_check_fields(L, 3, function, known);
    int64_t k = lsag_opt_integer(L, 3, function, "k", 5);
    bool inclusive = lsag_opt_boolean(L, 3, function, "inclusive", false);
    if (k < 1) luaL_error(L, "%s: k is %I, must be 1 at least", function, (LUAI_UACINT)k);
    neighbours_box *u = lua_newuserdatauv(L, sizeof *u, 0);
    memset(u, 0, sizeof *u);
    luaL_setmetatable(L, NEIGHBOURS);
    u->real = lsag_check_tensor(L, 1);
    u->fake = lsag_check_tensor(L, 2);
    sag_tensor_retain(u->real);
    sag_tensor_retain(u->fake);
    sag_status status;
    TRY_AGAIN(L, status, sag_neighbours_create(real, fake, k, inclusive, threads(L), &u->job));
    return status == SAG_OK ? 1 : lsag_fail(L, status);
}

/* computation:step() -> whether there is more to do */
static int l_step(lua_State *L)
{
    lua_pushboolean(L, sag_neighbours_step(check_neighbours(L)));
    return 1;
}

/* computation:progress() -> done, total */
static int l_progress(lua_State *L)
{
    int64_t so_far, total;
    sag_neighbours_progress(check_neighbours(L), &so_far, &total);
    lua_pushinteger(L, so_far);
    lua_pushinteger(L, total);
    return 2;
}

static int l_result(lua_State *L)
{
    sag_prdc r;
    lsag_check_status(L, sag_neighbours_result(check_neighbours(L), &r));
    const struct {
        const char *name;
        double value;
    } shares[] = {{"precision", r.precision}, {"recall", r.recall}, {"density", r.density}, {"coverage", r.coverage}};
    lua_createtable(L, 0, 6);
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        lua_pushnumber(L, shares[i].value);
        lua_setfield(L, -2, shares[i].name);
    }
    lua_pushinteger(L, r.zero_radii[0]);
    lua_setfield(L, -2, "repeated_real");
    lua_pushinteger(L, r.zero_radii[1]);
    lua_setfield(L, -2, "repeated_fake");
    return 1;
}

/* ------------------------------------------------------------------------------------------------- module */

/* Pushes nothing: a class whose methods are found in its metatable. */
static void add_class(lua_State *L, const char *name, const luaL_Reg *methods)
{
    if (luaL_newmetatable(L, name)) {
        luaL_setfuncs(L, methods, 0);
        lua_pushvalue(L, -1);
        lua_setfield(L, -2, "__index");
    }
    lua_pop(L, 1);
}

int lsag_open_metrics(lua_State *L)
{
    static const luaL_Reg moments[] = {{"add", l_add},
                                       {"merge", l_merge},
                                       {"count", l_count},
                                       {"width", l_width},
                                       {"export", l_export},
                                       {"close", l_moments_close},
                                       {"__close", l_moments_close},
                                       {"__gc", l_moments_close},
                                       {"__tostring", l_moments_tostring},
                                       {NULL, NULL}};
    static const luaL_Reg neighbours[] = {{"step", l_step},
                                          {"progress", l_progress},
                                          {"result", l_result},
                                          {"close", l_neighbours_close},
                                          {"__close", l_neighbours_close},
                                          {"__gc", l_neighbours_close},
                                          {NULL, NULL}};
    static const luaL_Reg functions[] = {{"check", l_check},
                                         {"moments", l_moments},
                                         {"import", l_import},
                                         {"frechet", l_frechet},
                                         {"inception_score", l_inception_score},
                                         {"kid_subset", l_kid_subset},
                                         {"neighbours", l_neighbours},
                                         {"legs", lsag_metrics_legs},
                                         {"singular_values", l_singular_values},
                                         {NULL, NULL}};
    add_class(L, MOMENTS, moments);
    add_class(L, NEIGHBOURS, neighbours);
    luaL_newlib(L, functions);
    return 1;
}
