/*
 * dataset.c - sagan.core.dataset: open and pack data sets, look at their images, feed them to training (engine/data).
 *
 *     local ds = assert(dataset.open("fashion-mnist", {resolution = 32, channels = 1, split = "train"}))
 *     local loader = ds:loader{batch = 64, seed = 1}
 *     loader:fill(step, images, labels)
 *
 * Images count from 1, labels and steps from 0. Whatever is wrong with a file or a spec is nil, message, code.
 */
#include "bindings/lsag.h"

#include <string.h>

#include "engine/data/dataset.h"

#define DATASET "sagan.dataset"
#define LOADER "sagan.loader"

static sag_dataset *check_dataset(lua_State *L, int index)
{
    sag_dataset **u = luaL_checkudata(L, index, DATASET);
    if (!*u) luaL_argerror(L, index, "this data set was closed");
    return *u;
}

/* ------------------------------------------------------------------------------------------------ options */

/* The engine calls back from inside open or pack: an error in the script's function must not jump over C. */
typedef struct script_progress {
    lua_State *L;
    int function; /* stack index; 0: none */
    bool raised;  /* the error value is on top of the stack */
} script_progress;

static bool report(void *user, int64_t done, int64_t total)
{
    script_progress *p = user;
    lua_pushvalue(p->L, p->function);
    lua_pushinteger(p->L, done);
    lua_pushinteger(p->L, total);
    if (lua_pcall(p->L, 2, 1, 0) != LUA_OK) {
        p->raised = true;
        return false;
    }
    bool stop = lua_isboolean(p->L, -1) && !lua_toboolean(p->L, -1);
    lua_pop(p->L, 1);
    return !stop;
}

/* Fields of the table at `index` (absent: none). The strings live in that table. */
static void read_options(lua_State *L, int index, const char *function, sag_dataset_options *o, script_progress *p)
{
    static const char *const known[] = {"resolution", "channels", "split",    "limit",
                                        "max_bytes",  "threads",  "progress", NULL};
    memset(o, 0, sizeof *o);
    *p = (script_progress){.L = L};
    if (lua_isnoneornil(L, index)) return;
    luaL_checktype(L, index, LUA_TTABLE);
    lsag_check_fields(L, index, function, known);
    int64_t resolution = lsag_opt_integer(L, index, function, "resolution", 0);
    int64_t channels = lsag_opt_integer(L, index, function, "channels", 0);
    int64_t threads = lsag_opt_integer(L, index, function, "threads", 0);
    if (resolution < 0 || resolution > 1 << 20)
        luaL_error(L, "%s: resolution %I is out of range", function, (LUAI_UACINT)resolution);
    if (channels != 0 && channels != 1 && channels != 3)
        luaL_error(L, "%s: channels is 1 or 3, got %I", function, (LUAI_UACINT)channels);
    o->resolution = (int)resolution;
    o->channels = (int)channels;
    o->threads = threads < 0 || threads > 1024 ? 0 : (int)threads;
    o->split = lsag_opt_string(L, index, function, "split", NULL);
    o->limit = lsag_opt_integer(L, index, function, "limit", 0);
    o->max_bytes = lsag_opt_integer(L, index, function, "max_bytes", 0);
    if (lua_getfield(L, index, "progress") != LUA_TNIL) {
        luaL_checkstack(L, 10, NULL);
        p->function = lua_gettop(L); /* stays there */
        o->progress = report;
        o->progress_user = p;
    }
}

/* ------------------------------------------------------------------------------------------------ data set */

static sag_dataset **new_dataset(lua_State *L)
{
    sag_dataset **u = lua_newuserdatauv(L, sizeof *u, 0);
    *u = NULL;
    luaL_setmetatable(L, DATASET);
    return u;
}

static int l_open(lua_State *L)
{
    const char *spec = luaL_checkstring(L, 1);
    sag_dataset_options o;
    script_progress p;
    lua_settop(L, 2);
    read_options(L, 2, "dataset.open", &o, &p);
    sag_dataset **u = new_dataset(L);
    int slot = lua_gettop(L);
    sag_status s = sag_dataset_open(spec, &o, u);
    if (p.raised) return lua_error(L);
    if (s != SAG_OK) return lsag_fail(L, s);
    lua_settop(L, slot);
    return 1;
}

/* dataset.pack(ds or spec, path [, options]) -> count | nil, message */
static int l_pack(lua_State *L)
{
    sag_dataset_options o;
    script_progress p;
    const char *path = luaL_checkstring(L, 2);
    int64_t count = 0;
    lua_settop(L, 3);
    read_options(L, 3, "dataset.pack", &o, &p);
    sag_status s;
    if (lua_type(L, 1) == LUA_TSTRING) {
        s = sag_dataset_pack(lua_tostring(L, 1), &o, path, &count);
    } else {
        sag_dataset *ds = check_dataset(L, 1);
        if (o.resolution || o.channels || o.split || o.limit)
            return luaL_error(L,
                              "dataset.pack: an open data set is packed as it is: give resolution, channels, split and "
                              "limit to dataset.open, or pack its spec");
        s = sag_dataset_write_pack(ds, path, o.progress, o.progress_user);
        count = sag_dataset_describe(ds)->count;
    }
    if (p.raised) return lua_error(L);
    if (s != SAG_OK) return lsag_fail(L, s);
    lua_pushinteger(L, count);
    return 1;
}

static int l_dataset_close(lua_State *L)
{
    sag_dataset **u = luaL_checkudata(L, 1, DATASET), *ds = *u;
    *u = NULL;
    sag_dataset_release(ds);
    return 0;
}

static int l_dataset_tostring(lua_State *L)
{
    sag_dataset **u = luaL_checkudata(L, 1, DATASET);
    if (!*u) {
        lua_pushliteral(L, "dataset (closed)");
        return 1;
    }
    const sag_dataset_info *in = sag_dataset_describe(*u);
    lua_pushfstring(L, "dataset %s (%s): %I images %dx%dx%d, %d classes", in->name, in->split, (LUAI_UACINT)in->count,
                    in->height, in->width, in->channels, in->classes);
    return 1;
}

/* Pushes a tensor of the current device with n images ({H, W, C} if n is 0), and one of their labels if asked. */
static int push_images(lua_State *L, sag_dataset *ds, const int64_t *indices, int64_t n, bool single)
{
    const sag_dataset_info *in = sag_dataset_describe(ds);
    size_t bytes = (size_t)in->height * (size_t)in->width * (size_t)in->channels;
    sag_context *ctx = lsag_context(L);
    uint8_t *pixels = lua_newuserdatauv(L, bytes * (size_t)n, 0);
    int32_t *labels = lua_newuserdatauv(L, sizeof *labels * (size_t)n, 0);
    lsag_check_status(L, sag_dataset_batch(ds, indices, n, pixels, labels));
    sag_shape shape =
        single ? sag_shape3(in->height, in->width, in->channels) : sag_shape4(n, in->height, in->width, in->channels);
    sag_tensor **images = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_create(ctx, SAG_U8, shape, images));
    lsag_check_status(L, sag_tensor_write(*images, pixels, bytes * (size_t)n));
    if (single) {
        lua_pushinteger(L, labels[0]);
        return 2;
    }
    sag_tensor **numbers = lsag_new_tensor(L);
    LSAG_TRY(L, sag_tensor_create(ctx, SAG_I32, sag_shape1(n), numbers));
    lsag_check_status(L, sag_tensor_write(*numbers, labels, sizeof *labels * (size_t)n));
    return 2;
}

static int64_t check_index(lua_State *L, const sag_dataset *ds, lua_Integer i, int arg)
{
    int64_t count = sag_dataset_describe(ds)->count;
    if (i < 1 || i > count)
        luaL_argerror(L, arg,
                      lua_pushfstring(L, "image %I of %I (counted from 1)", (LUAI_UACINT)i, (LUAI_UACINT)count));
    return i - 1;
}

static int l_get(lua_State *L)
{
    sag_dataset *ds = check_dataset(L, 1);
    int64_t index = check_index(L, ds, luaL_checkinteger(L, 2), 2);
    return push_images(L, ds, &index, 1, true);
}

static int l_batch(lua_State *L)
{
    sag_dataset *ds = check_dataset(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_Integer n = luaL_len(L, 2);
    luaL_argcheck(L, n >= 1 && n <= 1 << 24, 2, "a list of image numbers expected, it is empty");
    int64_t *indices = lua_newuserdatauv(L, sizeof *indices * (size_t)n, 0);
    for (lua_Integer i = 1; i <= n; i++) {
        int whole = 0;
        lua_geti(L, 2, i);
        lua_Integer index = lua_tointegerx(L, -1, &whole);
        if (!whole)
            luaL_argerror(L, 2, lua_pushfstring(L, "image number %I is a %s", (LUAI_UACINT)i, luaL_typename(L, -1)));
        indices[i - 1] = check_index(L, ds, index, 2);
        lua_pop(L, 1);
    }
    return push_images(L, ds, indices, n, false);
}

static int l_label(lua_State *L)
{
    sag_dataset *ds = check_dataset(L, 1);
    int32_t label = 0;
    lsag_check_status(L, sag_dataset_get(ds, check_index(L, ds, luaL_checkinteger(L, 2), 2), NULL, &label));
    lua_pushinteger(L, label);
    return 1;
}

static int l_legs(lua_State *L)
{
    sag_dataset *ds = check_dataset(L, 1);
    int legs = sag_dataset_legs(ds, check_index(L, ds, luaL_checkinteger(L, 2), 2));
    if (legs < 0)
        lua_pushnil(L);
    else
        lua_pushinteger(L, legs);
    return 1;
}

static int l_histogram(lua_State *L)
{
    sag_dataset *ds = check_dataset(L, 1);
    int classes = sag_dataset_describe(ds)->classes;
    int64_t *counts = lua_newuserdatauv(L, sizeof *counts * (size_t)classes, 0);
    sag_dataset_histogram(ds, counts);
    lua_createtable(L, classes, 0);
    for (int c = 0; c < classes; c++) {
        lua_pushinteger(L, counts[c]);
        lua_rawseti(L, -2, c + 1);
    }
    return 1;
}

static int l_hash(lua_State *L)
{
    char hex[33];
    lsag_check_status(L, sag_dataset_hash(check_dataset(L, 1), hex));
    lua_pushstring(L, hex);
    return 1;
}

static int l_check(lua_State *L)
{
    sag_status s = sag_dataset_check(check_dataset(L, 1));
    if (s == SAG_ERR_FORMAT)
        lua_pushstring(L, sag_error_message());
    else {
        lsag_check_status(L, s);
        lua_pushnil(L);
    }
    return 1;
}

/* -------------------------------------------------------------------------------------------------- loader */

typedef struct loader_box {
    sag_loader *loader;
    int64_t batch;
    sag_dataset_info info; /* sizes only: its strings belong to the data set, which the loader keeps */
} loader_box;

static int l_loader(lua_State *L)
{
    static const char *const known[] = {"batch", "seed", "slots", "workers", NULL};
    sag_dataset *ds = check_dataset(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    lsag_check_fields(L, 2, "dataset:loader", known);
    int64_t batch = lsag_opt_integer(L, 2, "dataset:loader", "batch", 0);
    int64_t seed = lsag_opt_integer(L, 2, "dataset:loader", "seed", 0);
    int64_t slots = lsag_opt_integer(L, 2, "dataset:loader", "slots", 3);
    int64_t workers = lsag_opt_integer(L, 2, "dataset:loader", "workers", 0);
    if (batch < 1) luaL_error(L, "dataset:loader: batch must be at least 1");
    if (slots < 2 || slots > 1024) luaL_error(L, "dataset:loader: slots must be 2 to 1024, got %I", (LUAI_UACINT)slots);
    if (workers < 0 || workers > 64)
        luaL_error(L, "dataset:loader: workers must be 0 to 64, got %I", (LUAI_UACINT)workers);
    loader_box *u = lua_newuserdatauv(L, sizeof *u, 0);
    memset(u, 0, sizeof *u);
    u->batch = batch;
    u->info = *sag_dataset_describe(ds);
    luaL_setmetatable(L, LOADER);
    LSAG_TRY(L, sag_loader_create(ds, batch, (uint64_t)seed, (int)slots, (int)workers, &u->loader));
    return 1;
}

static void check_target(lua_State *L, int index, sag_tensor *t, sag_shape want)
{
    char have[96], wanted[96];
    if (sag_shape_equal(sag_tensor_shape(t), want)) return;
    luaL_argerror(L, index,
                  lua_pushfstring(L, "tensor %s, this loader fills %s",
                                  sag_shape_text(sag_tensor_shape(t), have, sizeof have),
                                  sag_shape_text(want, wanted, sizeof wanted)));
}

/* loader:fill(step, images [, labels]) */
static int l_fill(lua_State *L)
{
    loader_box *u = luaL_checkudata(L, 1, LOADER);
    if (!u->loader) luaL_argerror(L, 1, "this loader was closed");
    lua_Integer step = luaL_checkinteger(L, 2);
    luaL_argcheck(L, step >= 0, 2, "steps count from 0");
    sag_tensor *images = lsag_check_tensor_of(L, 3, SAG_U8, 4);
    sag_tensor *labels = lua_isnoneornil(L, 4) ? NULL : lsag_check_tensor_of(L, 4, SAG_I32, 1);
    check_target(L, 3, images, sag_shape4(u->batch, u->info.height, u->info.width, u->info.channels));
    if (labels) check_target(L, 4, labels, sag_shape1(u->batch));
    const uint8_t *pixels;
    const int32_t *numbers;
    lsag_check_status(L, sag_loader_take(u->loader, step, &pixels, &numbers));
    lsag_check_status(L, sag_tensor_write(images, pixels, (size_t)sag_tensor_numel(images)));
    if (labels) lsag_check_status(L, sag_tensor_write(labels, numbers, sizeof *numbers * (size_t)u->batch));
    return 0;
}

static int l_loader_close(lua_State *L)
{
    loader_box *u = luaL_checkudata(L, 1, LOADER);
    sag_loader *loader = u->loader;
    u->loader = NULL;
    sag_loader_destroy(loader);
    return 0;
}

/* -------------------------------------------------------------------------------------------------- module */

static int l_dataset_index(lua_State *L)
{
    const char *key = luaL_checkstring(L, 2);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1; /* a method */
    const sag_dataset_info *in = sag_dataset_describe(check_dataset(L, 1));
    const struct {
        const char *name;
        lua_Integer value;
    } numbers[] = {{"count", in->count},       {"height", in->height},   {"width", in->width},
                   {"channels", in->channels}, {"classes", in->classes}, {"skipped", in->skipped}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(key, numbers[i].name) == 0) {
            lua_pushinteger(L, numbers[i].value);
            return 1;
        }
    if (strcmp(key, "class_names") == 0) {
        lua_createtable(L, in->classes, 0);
        for (int c = 0; c < in->classes; c++) {
            lua_pushstring(L, in->class_names[c]);
            lua_rawseti(L, -2, c + 1);
        }
    } else if (strcmp(key, "name") == 0) {
        lua_pushstring(L, in->name);
    } else if (strcmp(key, "spec") == 0) {
        lua_pushstring(L, in->spec);
    } else if (strcmp(key, "split") == 0) {
        lua_pushstring(L, in->split);
    } else {
        lua_pushnil(L);
    }
    return 1;
}

int lsag_open_dataset(lua_State *L)
{
    static const luaL_Reg methods[] = {{"get", l_get},     {"batch", l_batch},   {"label", l_label},
                                       {"legs", l_legs},   {"hash", l_hash},     {"histogram", l_histogram},
                                       {"check", l_check}, {"loader", l_loader}, {"close", l_dataset_close},
                                       {NULL, NULL}};
    static const luaL_Reg dataset_meta[] = {
        {"__gc", l_dataset_close}, {"__close", l_dataset_close}, {"__tostring", l_dataset_tostring}, {NULL, NULL}};
    static const luaL_Reg loader_methods[] = {{"fill", l_fill}, {"close", l_loader_close}, {NULL, NULL}};
    static const luaL_Reg loader_meta[] = {{"__gc", l_loader_close}, {"__close", l_loader_close}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"open", l_open}, {"pack", l_pack}, {NULL, NULL}};
    if (luaL_newmetatable(L, DATASET)) {
        luaL_setfuncs(L, dataset_meta, 0);
        luaL_newlib(L, methods);
        lua_pushcclosure(L, l_dataset_index, 1);
        lua_setfield(L, -2, "__index");
    }
    if (luaL_newmetatable(L, LOADER)) {
        luaL_setfuncs(L, loader_meta, 0);
        luaL_newlib(L, loader_methods);
        lua_setfield(L, -2, "__index");
    }
    lua_pop(L, 2);
    luaL_newlib(L, functions);
    return 1;
}
