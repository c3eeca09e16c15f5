/* internal.h - what the engine's own files share: tensor and context layouts, the op call, helpers for op authors. */
#ifndef SAG_INTERNAL_H
#define SAG_INTERNAL_H

#include "engine/heap.h"
#include "engine/sagan.h"
#include "kernels/kernel_table.h"

/* ---------------------------------------------------------------------------------------------- layouts */

typedef struct sag_graph_memory sag_graph_memory; /* graph.c */
typedef struct sag_graph_block sag_graph_block;

/* Device bytes. Freed small ones go to the context's cache. Outlives its context's user handle if need be. */
typedef struct sag_storage {
    int refs;
    bool large; /* `block` is in a heap; else block.data is the device's own and block.size a size class */
    sag_context *ctx;
    sag_graph_memory *graph;         /* whose memory it is; NULL: the context's */
    int64_t held_by;                 /* number of the last recording that touched it */
    sag_heap_block block;
    struct sag_storage *next_free;
} sag_storage;

/*
 * The gradient identity of a tensor: who made it and where its gradient goes. A view's var points to the var of what it
 * is a view of (`base`), and its gradient is a part of the base's.
 */
typedef struct sag_span {
    int64_t begin, end; /* elements */
} sag_span;

typedef struct sag_var {
    int refs;
    sag_context *ctx;
    sag_shape shape;
    sag_dtype dtype;
    bool leaf;         /* made by the user: the gradient persists */
    bool frozen;
    bool touched;      /* grad holds something to add to */
    bool spent;        /* its op has left the tape: a constant from now on */
    struct sag_var *base;
    int64_t offset;    /* elements into base */
    sag_tensor *grad;  /* NULL until first needed, or once released; unused when base is set, but for leaf views (see grad_view) */
    sag_tensor *grad_view;
    sag_span *gaps; /* what of grad nobody has written yet, in order, once touched; none where base is set */
    int n_gaps, cap_gaps;
    int64_t part;      /* of the tape that is recomputed and made it; 0: none */
    sag_tensor *value; /* while its part is recomputed */
    int readers;       /* calls that have yet to read value */
} sag_var;

/* What v is a view of, or v. */
static inline sag_var *sag_var_root(sag_var *v)
{
    return v->base ? v->base : v;
}

struct sag_tensor {
    int refs;
    sag_context *ctx;
    sag_dtype dtype;
    sag_shape shape;
    int64_t numel;
    sag_storage *storage;
    size_t offset; /* bytes */
    sag_var *var;  /* NULL: no gradient can reach it */
};

#define SAG_MAX_SAVED 5

/*
 * One call of an op, and what the tape keeps of it. In forward, `in` and `attr` are set and the op fills `out`, lists what
 * its backward needs in keep_in / keep_out / saved. In backward, in[i] is NULL unless kept, out[0] likewise.
 */
typedef struct sag_op_call {
    sag_context *ctx;
    sag_op op;
    const char *path; /* interned module path at the time of the call */
    sag_tensor *in[SAG_MAX_IN];
    sag_shape in_shape[SAG_MAX_IN];
    sag_dtype in_dtype[SAG_MAX_IN];
    double attr[SAG_MAX_ATTR];
    sag_tensor *out[SAG_MAX_OUT];
    sag_shape out_shape[SAG_MAX_OUT];
    sag_tensor *saved[SAG_MAX_SAVED]; /* owned by the call */
    unsigned keep_in, keep_out;       /* bit i: backward reads in[i] / out[i] */
    bool recorded;                    /* forward: true if a backward may follow, so that saved tensors are worth keeping */
    unsigned needs;                   /* bit i: in[i] wants a gradient */
    sag_var *in_var[SAG_MAX_IN];
    sag_var *out_var[SAG_MAX_OUT];
    sag_tensor *dout[SAG_MAX_OUT];    /* backward: gradients of the outputs; NULL where none arrived */
    int64_t part;                     /* of the tape that is recomputed; 0: none */
    bool empty;                       /* what backward reads is yet to be recomputed */
    bool again;                       /* recomputing it takes another run of the op */
    unsigned inside;                  /* bit i: in[i] was made in the same part */
} sag_op_call;

/* ------------------------------------------------------------------------------------- for op authors
 *
 *   sag_status sag_op_relu_fwd(sag_op_call *c)
 *   {
 *       SAG_TRY(sag_out(c, 0, SAG_F32, sag_tensor_shape(c->in[0])));
 *       unary_args a = {.kind = SAG_UNARY_RELU, .x = sag_data(c->in[0]), .y = sag_data(c->out[0]), ...};
 *       c->keep_out = 1u << 0;
 *       return SAG_RUN(c, unary_fwd, &a);
 *   }
 *   sag_status sag_op_relu_bwd(sag_op_call *c)
 *   {
 *       sag_grad dx;
 *       SAG_TRY(sag_grad_in(c, 0, &dx));
 *       if (!dx.data) return SAG_OK;
 *       unary_args a = {..., .dy = sag_data(c->dout[0]), .dx = dx.data, .accumulate = dx.accumulate};
 *       return SAG_RUN(c, unary_bwd, &a);
 *   }
 */

/* Creates out[i]. */
sag_status sag_out(sag_op_call *c, int i, sag_dtype dtype, sag_shape shape);
/* Creates saved[i], a tensor that lives as long as the call (scratch that backward reads). */
sag_status sag_save(sag_op_call *c, int i, sag_dtype dtype, sag_shape shape);
/* Shape error that names op, module path and both shapes: "G.block1.conv1: conv2d: x {..}, w {..}: <rule>". */
sag_status sag_op_fail(const sag_op_call *c, sag_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

typedef struct sag_grad {
    void *data;     /* NULL: this input needs no gradient */
    int accumulate; /* 0: overwrite */
} sag_grad;
/* Where the gradient of input i goes. Call at most once per input and backward, and then fill or add to it. */
sag_status sag_grad_in(sag_op_call *c, int i, sag_grad *g);
/* The gradient of input i is dout[o] itself (equal shapes): handed over without a copy where nothing is there yet. */
sag_status sag_grad_pass(sag_op_call *c, int i, int o);
static inline bool sag_needs(const sag_op_call *c, int i)
{
    return (c->needs >> i & 1u) != 0;
}

/* Numbers of the kernel table's slots. */
typedef enum sag_slot {
#define SAG_OP_DIFF(name, signature, doc)
#define SAG_OP_PURE(name, signature, doc)
#define SAG_KERNEL(slot, args) SAG_SLOT_##slot,
#include "engine/ops.def"
    SAG_SLOT_COUNT
} sag_slot;

typedef struct sag_kernel_cost {
    double flops, bytes;
} sag_kernel_cost;
/* What one call with these arguments stands for (profile_cost.c). */
sag_kernel_cost sag_cost_of(sag_slot slot, const void *args);

/* The table's slot under the op's name, with missing kernels, results and device errors turned into a status. */
#define SAG_RUN(c, slot, args)                                                                                   \
    ((c)->ctx->backend->kernels->slot == NULL                                                                    \
         ? sag_run_missing((c), #slot)                                                                           \
         : (sag_run_begin((c)->ctx),                                                                             \
            sag_run_end((c), SAG_SLOT_##slot, (args), (c)->ctx->backend->kernels->slot(&(c)->ctx->env, (args)))))
/* What an op says that could not have its scratch. */
sag_status sag_scratch_fail(const sag_op_call *c);
sag_status sag_run_missing(const sag_op_call *c, const char *slot);
void sag_run_begin(sag_context *ctx);
sag_status sag_run_end(sag_op_call *c, sag_slot slot, const void *args, int result);

void *sag_data(const sag_tensor *t); /* NULL for NULL */
int64_t sag_numel(sag_shape s);      /* of a shape that was checked before */

typedef struct sag_op_entry {
    sag_op_info info;
    sag_status (*fwd)(sag_op_call *);
    sag_status (*bwd)(sag_op_call *); /* NULL: PURE */
} sag_op_entry;
const sag_op_entry *sag_op_entry_of(sag_op op);
/* Ops whose forward can run again from what it saved (saved[] is there when it begins): it takes no statistics a second time and
 * writes to no input. */
static inline bool sag_op_resumes(sag_op op)
{
    return op == SAG_OP_batch_norm || op == SAG_OP_cond_batch_norm;
}

#define SAG_OP_DIFF(name, signature, doc)            \
    sag_status sag_op_##name##_fwd(sag_op_call *c);  \
    sag_status sag_op_##name##_bwd(sag_op_call *c);
#define SAG_OP_PURE(name, signature, doc) sag_status sag_op_##name##_fwd(sag_op_call *c);
#define SAG_KERNEL(slot, args)
#include "engine/ops.def"

/* ---------------------------------------------------------------------------------------------- context */

#define SAG_SIZE_CLASSES 40

typedef struct sag_arena_block {
    struct sag_arena_block *next;
    void *data;
    size_t size, used;
} sag_arena_block;
typedef struct sag_arena_large sag_arena_large;

struct sag_context {
    sag_device device;
    const sag_backend *backend;
    void *state;
    int refs; /* the user's handle and every storage */
    sag_kernel_env env;
    /* storages */
    sag_heap heap;
    sag_storage *free_list[SAG_SIZE_CLASSES]; /* small ones, by size class */
    sag_memory_stats stats;
    /* arena */
    sag_arena_block *arena;       /* small scratch */
    sag_arena_large *arena_large; /* until the op's end */
    size_t arena_used;
    /* tape */
    sag_op_call **nodes;
    int64_t n_nodes, cap_nodes;
    bool recording, retain_grads;
    sag_var **retained; /* vars whose gradients outlive backward, while retain_grads */
    int64_t n_retained, cap_retained;
    int64_t part, n_parts; /* the part that is being recorded to be recomputed, 0: none; how many there were */
    int part_depth;
    const char *path;
    char **paths; /* interned */
    int64_t n_paths, cap_paths;
    sag_graph_memory *recorded; /* while a graph is recorded */
    int64_t recordings;
    sag_heap replays; /* what recordings ask for; free but while one is under way (graph.c) */
    int graphs;       /* that write to it, with the one that is recorded */
    bool exact; /* SAGAN_EXACT_MEMORY=1: each storage and scratch is the device's own block, for checkers of memory */
    /* profile */
    bool profiling;
    double profile_start;
    sag_profile_row *profile; /* one row a slot; NULL until first enabled */
};

sag_status sag_storage_create(sag_context *ctx, size_t bytes, sag_storage **out);
void sag_storage_retain(sag_storage *s);
void sag_storage_release(sag_storage *s);
void *sag_arena_scratch(sag_kernel_env *env, size_t bytes);
void sag_arena_reset(sag_context *ctx);
void *sag_device_alloc(sag_context *ctx, size_t bytes);
/* graph.c, while a graph is recorded: memory of its own for b; what it touches and must outlive it. */
bool sag_graph_take(sag_context *ctx, sag_heap_block *b, size_t size);
void sag_graph_give(sag_graph_memory *m, sag_heap_block *b);
void sag_graph_hold(sag_context *ctx, sag_storage *s);
sag_graph_memory *sag_graph_memory_retain(sag_graph_memory *m);
void sag_graph_memory_release(sag_graph_memory *m);
void sag_context_unref(sag_context *ctx);
sag_var *sag_var_retain(sag_var *v);
void sag_var_release(sag_var *v);
sag_status sag_tape_push(sag_op_call *c, sag_tensor *before[]);
/* recompute.c: copies what the op is about to write to; makes a new node an empty one; fills the part that ends in the last node. */
sag_status sag_part_copy_written(const sag_op_call *c, sag_tensor *before[]);
void sag_part_empty(sag_op_call *node, sag_op_call *c, sag_tensor *before[]);
sag_status sag_part_fill(sag_context *ctx);
void sag_call_release(sag_op_call *c); /* drops all references of a call */
bool sag_var_wants_grad(const sag_var *v);

#endif
