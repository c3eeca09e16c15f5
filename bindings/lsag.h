/*
 * lsag.h - what all Lua bindings share: the tensor userdata, argument checks, options, and how a status becomes a Lua
 * error or nil, message. Bindings are the only place that includes lua.h, and the only place that raises.
 *
 * The rule against leaks: a raise jumps over C code, so nothing that must be freed may live in a C variable while a Lua
 * call that can raise is made. Make the userdata first (lsag_new_tensor, lua_newuserdatauv), then fill it:
 *
 *     sag_tensor **slot = lsag_new_tensor(L);
 *     LSAG_TRY(L, sag_tensor_create(lsag_context(L), SAG_U8, shape, slot));
 */
#ifndef LSAG_H
#define LSAG_H

#include <lauxlib.h>
#include <lua.h>

#include "engine/sagan.h"

/* ------------------------------------------------------------------------------------------------ state */

/* One for each Lua state, in its registry. */
typedef struct lsag_tensor lsag_tensor;
typedef struct lsag_state {
    sag_context *contexts[SAG_DEVICE_COUNT]; /* opened when first asked for */
    sag_device device;                       /* where new tensors go; SAG_DEVICE_COUNT: not chosen yet */
    bool recording;                          /* what a context that is opened later starts with */
    bool retain_grads;
    int scope_depth;         /* 0: outside core.scope */
    lsag_tensor *scope_list; /* every tensor userdata made inside a scope and still in it, newest first */
    int64_t collect_at;      /* device bytes at which the collector is nudged */
    int64_t collected_bytes; /* device bytes in use after the last nudge */
} lsag_state;

lsag_state *lsag_state_of(lua_State *L);
/* The context of the current device; raises if it cannot be opened. */
sag_context *lsag_context(lua_State *L);
sag_device lsag_device(lua_State *L); /* the current device: core.device(), SAGAN_DEVICE, or the best one there is */
sag_context *lsag_context_on(lua_State *L, sag_device device);

/* ----------------------------------------------------------------------------------------------- errors */

/* Raises with the engine's message and the script's line, unless status is SAG_OK. */
void lsag_check_status(lua_State *L, sag_status status);
/* return lsag_fail(L, status): nil, message, code (the status name, "io"): for what the environment did wrong. */
int lsag_fail(lua_State *L, sag_status status);
/* The same with words of the binding's own. */
int lsag_fail_text(lua_State *L, const char *code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Calls expr; when it ran out of memory, collects all garbage and calls it once more; then checks the status. */
#define LSAG_TRY(L, expr)                               \
    do {                                                \
        sag_status lsag_try_ = (expr);                  \
        if (lsag_try_ == SAG_ERR_MEMORY) {              \
            lsag_collect(L);                            \
            lsag_try_ = (expr);                         \
        }                                               \
        lsag_check_status((L), lsag_try_);              \
    } while (0)
void lsag_collect(lua_State *L); /* a full collection; gives cached device memory back */
/* Collects if device memory has grown enough since the last time that garbage tensors are worth looking for. */
void lsag_nudge(lua_State *L, int64_t grown_bytes);

/* "bad argument '<arg>' to <function>: <expected> expected, got <what is at index>" */
int lsag_arg_error(lua_State *L, const char *function, const char *arg, const char *expected, int index);
/* " (did you mean 'x'?)" or "" on top of the stack: the key of the table at `index` that is nearest to word. */
void lsag_push_hint(lua_State *L, const char *word, int index);

/* ---------------------------------------------------------------------------------------------- tensors */

/* The userdata. It owns one reference, dropped by __gc, __close, release() or the end of the scope it was made in. */
struct lsag_tensor {
    sag_tensor *t; /* NULL: empty or released */
    int scope;     /* depth of the scope that releases it; 0: none */
    lsag_tensor *next, *prev;
};

/* Pushes an empty tensor userdata and returns the place to put an owned reference into. */
sag_tensor **lsag_new_tensor(lua_State *L);
/* Pushes a userdata with a reference of its own; the caller keeps its one. NULL pushes nil. */
void lsag_push_tensor(lua_State *L, sag_tensor *t);
/* NULL when it is no tensor; raises when it is one that was released. */
sag_tensor *lsag_test_tensor(lua_State *L, int index);
/* Argument `index` must be a tensor; raises as luaL_check* does. */
sag_tensor *lsag_check_tensor(lua_State *L, int index);
sag_tensor *lsag_opt_tensor(lua_State *L, int index); /* NULL for nil or none */
/* The same with conditions: dtype (SAG_DTYPE_COUNT: any) and rank (0: any). */
sag_tensor *lsag_check_tensor_of(lua_State *L, int index, sag_dtype dtype, int rank);
lsag_tensor *lsag_to_userdata(lua_State *L, int index); /* NULL when it is no tensor; released or not */
void lsag_release(lsag_state *s, lsag_tensor *u);
void lsag_scope_leave(lsag_state *s, lsag_tensor *u); /* no scope releases it any more */

/*
 * A shape from argument `index` on: one table {2, 3} or numbers 2, 3. Returns the index of the argument that follows.
 * allow_rest: one dimension may be -1.
 */
int lsag_check_shape(lua_State *L, int index, bool allow_rest, sag_shape *shape);
void lsag_push_shape(lua_State *L, sag_shape shape); /* a fresh table */
bool lsag_find_dtype(const char *name, sag_dtype *dtype);
bool lsag_find_device(const char *name, sag_device *device);

/* Pushes {dtype, shape, bytes, supported}: what header() of a file of tensors says about one of them. */
void lsag_push_file_entry(lua_State *L, const char *dtype, int rank, const int64_t *dim, size_t bytes, bool supported);

/* Nested table (or number) at `index` into the tensor t; shapes must agree. `function` for the messages. */
void lsag_write_table(lua_State *L, int index, sag_tensor *t, const char *function);
/* The shape of a nested table; raises naming the element where it is ragged or no number. */
sag_shape lsag_table_shape(lua_State *L, int index, const char *function);
/* Pushes the tensor's contents as a nested table. */
void lsag_push_table(lua_State *L, sag_tensor *t);
/* Host copy of t as f32 (bf16 is widened) or i32 or u8: pushes a userdata that owns the bytes. */
const void *lsag_push_host(lua_State *L, sag_tensor *t, sag_dtype *dtype);
double lsag_element(const void *data, sag_dtype dtype, int64_t i);

/* -------------------------------------------------------------------------------- named-argument tables */

/* Fields of the table at `index`; the default when absent. `function` names the caller in messages. An index of 0, or one
 * that holds nil or nothing, stands for an empty table. */
bool lsag_opt_boolean(lua_State *L, int index, const char *function, const char *field, bool fallback);
int64_t lsag_opt_integer(lua_State *L, int index, const char *function, const char *field, int64_t fallback);
double lsag_opt_number(lua_State *L, int index, const char *function, const char *field, double fallback);
/* The string lives as long as the table holds it. */
const char *lsag_opt_string(lua_State *L, int index, const char *function, const char *field, const char *fallback);
sag_dtype lsag_opt_dtype(lua_State *L, int index, const char *function, const char *field, sag_dtype fallback);
/* Raises if the table has a field that is not in `known` (ends with NULL), naming the nearest. */
void lsag_check_fields(lua_State *L, int index, const char *function, const char *const *known);

/* ---------------------------------------------------------------------------------------------- modules */

/* bindings/<x>.c: pushes the table that becomes sagan.core.<x>. */
int lsag_open_ops(lua_State *L);
int lsag_open_system(lua_State *L);
int lsag_open_safetensors(lua_State *L);
int lsag_open_image(lua_State *L);
int lsag_open_events(lua_State *L);
int lsag_open_dataset(lua_State *L);
int lsag_open_metrics(lua_State *L);
int lsag_metrics_legs(lua_State *L); /* legs.c: a function of sagan.core.metrics */
int lsag_open_pth(lua_State *L);
int lsag_open_resizer(lua_State *L);
int lsag_open_sha256(lua_State *L);
int lsag_open_socket(lua_State *L);
int lsag_open_terminal_picture(lua_State *L);
int luaopen_sagan_core(lua_State *L);

/* Parts of sagan.core itself: each adds its functions to the table on top of the stack. */
void lsag_add_constructors(lua_State *L);  /* construct.c: tensor, zeros, ... */
void lsag_add_op_functions(lua_State *L);  /* ops.c: op_names, op_info; the table holds `ops` already */
void lsag_add_scopes(lua_State *L);        /* scope.c: no_grad, scope, capture */
void lsag_add_watch(lua_State *L);         /* watch.c: watch */
void lsag_add_context(lua_State *L);       /* context.c: device, threads, memory, profile, ... */

/* Between the files of the tensor userdata. */
void lsag_state_create(lua_State *L);
void lsag_push_metatable(lua_State *L);
void lsag_open_tensor(lua_State *L);       /* needs `ops` on top of the stack; pushes the table of methods */
void lsag_add_operators(lua_State *L);     /* arith.c: into the metatable on top of the stack */
int lsag_tensor_tostring(lua_State *L);    /* tensor_text.c */
void lsag_fill(lua_State *L, sag_tensor *t, double value, const char *function); /* construct.c */
/* Runs one op with a single output and pushes it. */
sag_tensor *lsag_apply(lua_State *L, sag_op op, sag_tensor *const *in, const double *attr);

#endif
