/*
 * tape.c - define-by-run reverse mode.
 *
 * Each differentiable call leaves a node that keeps just what its backward reads. Backward walks the nodes from the last
 * to the first; a node is dropped, with the activations it kept, as soon as its rule has run, so memory shrinks as the
 * tape unwinds. The tape decides whether a gradient is overwritten or added to: a rule asks sag_grad_in where to write.
 *
 * The gradient of a view is a part of the gradient of what it views. Views are resolved to their root when made. A root
 * knows the gaps that nobody has written yet: a part inside one gap is overwritten, any other is added to, its gaps
 * cleared first. The gaps that are left are cleared when somebody reads the whole. So a slab of weights, each the
 * operand of one call, is not cleared at all.
 */
#include <string.h>

#include "engine/internal.h"

sag_var *sag_var_retain(sag_var *v)
{
    v->refs++;
    return v;
}

void sag_var_release(sag_var *v)
{
    while (v && --v->refs == 0) {
        sag_var *base = v->base;
        sag_tensor_release(v->grad);
        sag_tensor_release(v->grad_view);
        sag_host_free(v->gaps);
        sag_host_free(v);
        v = base;
    }
}

static void drop_grad(sag_var *v)
{
    sag_tensor_release(v->grad);
    v->grad = NULL;
    v->touched = false;
    v->n_gaps = 0;
}

bool sag_var_wants_grad(const sag_var *v)
{
    return v && !v->frozen && !v->spent && !(v->base && (v->base->frozen || v->base->spent));
}

bool sag_tensor_wants_grad(const sag_tensor *t)
{
    return sag_var_wants_grad(t->var);
}

static sag_status new_var(const sag_tensor *t, sag_var **out)
{
    sag_var *v = sag_host_alloc(sizeof *v);
    if (!v) SAG_FAIL(SAG_ERR_MEMORY, "out of memory for a gradient slot");
    *v = (sag_var){.refs = 1, .ctx = t->ctx, .shape = t->shape, .dtype = t->dtype};
    *out = v;
    return SAG_OK;
}

sag_status sag_tensor_require_grad(sag_tensor *t)
{
    if (t->var && t->var->leaf) return SAG_OK;
    if (t->var) SAG_FAIL(SAG_ERR_STATE, "only a tensor that no op made and that is no view can become a leaf; detach it first");
    if (t->dtype != SAG_F32) SAG_FAIL(SAG_ERR_DTYPE, "a leaf is f32, not %s", sag_dtype_name(t->dtype));
    sag_var *v = NULL;
    SAG_TRY(new_var(t, &v));
    v->leaf = true;
    t->var = v;
    return SAG_OK;
}

void sag_tensor_set_frozen(sag_tensor *t, bool frozen)
{
    if (t->var) t->var->frozen = frozen;
}

/* ------------------------------------------------------------------------------------------------ gaps */

static sag_status run_fill(sag_context *ctx, sag_tensor *t, sag_span part, double value)
{
    fill_args a = {.x = (char *)sag_data(t) + (size_t)part.begin * sag_dtype_size(t->dtype),
                   .n = part.end - part.begin,
                   .value = value,
                   .dtype = t->dtype};
    sag_op_call fill = {.ctx = ctx, .op = SAG_OP_fill};
    return SAG_RUN(&fill, fill, &a);
}

static sag_span span_of(const sag_var *v)
{
    return (sag_span){v->offset, v->offset + sag_numel(v->shape)};
}

static bool overlap(sag_span a, sag_span b)
{
    return a.begin < b.end && b.begin < a.end;
}

static sag_status make_room(sag_var *root)
{
    if (root->n_gaps < root->cap_gaps) return SAG_OK;
    int cap = root->cap_gaps ? 2 * root->cap_gaps : 4;
    sag_span *gaps = sag_host_realloc(root->gaps, (size_t)cap * sizeof *gaps);
    if (!gaps) SAG_FAIL(SAG_ERR_MEMORY, "out of memory for a gradient slot");
    root->gaps = gaps;
    root->cap_gaps = cap;
    return SAG_OK;
}

/*
 * Takes a part out of the gaps. *fresh: it lay in one gap and is left as it is, to be overwritten; otherwise what of it
 * was in gaps is cleared, to be added to. clear: always so.
 */
static sag_status claim(sag_var *root, sag_span part, bool clear, bool *fresh)
{
    *fresh = false;
    if (root->n_gaps > 0) SAG_TRY(make_room(root)); /* a gap may become two */
    for (int k = 0; k < root->n_gaps;) {
        sag_span *g = &root->gaps[k], left = *g, right = *g, both = part;
        if (!overlap(*g, part)) {
            k++;
            continue;
        }
        if (both.begin < g->begin) both.begin = g->begin;
        if (both.end > g->end) both.end = g->end;
        *fresh = !clear && both.end - both.begin == part.end - part.begin;
        if (!*fresh) SAG_TRY(run_fill(root->ctx, root->grad, both, 0));
        left.end = both.begin;
        right.begin = both.end;
        const int has_left = left.begin < left.end, rest = has_left + (right.begin < right.end);
        memmove(g + rest, g + 1, (size_t)(root->n_gaps - k - 1) * sizeof *g);
        if (has_left) g[0] = left;
        if (rest > has_left) g[has_left] = right;
        root->n_gaps += rest - 1;
        k += rest;
    }
    return SAG_OK;
}

/* Before the gradient of a root is read as a whole. */
static sag_status close_gaps(sag_var *root)
{
    bool fresh;
    return claim(root, span_of(root), true, &fresh);
}

sag_tensor *sag_tensor_grad(const sag_tensor *t)
{
    sag_var *v = t->var;
    if (!v) return NULL;
    sag_var *root = sag_var_root(v);
    if (root->leaf && !root->grad && sag_tensor_zeros(t->ctx, root->dtype, root->shape, &root->grad) != SAG_OK) return NULL;
    if (close_gaps(root) != SAG_OK) return NULL;
    if (!v->base) return v->leaf || v->touched ? v->grad : NULL;
    if (v->grad_view && root->leaf && v->grad_view->storage == root->grad->storage) return v->grad_view; /* it persists too */
    sag_tensor_release(v->grad_view);
    v->grad_view = NULL;
    if (!root->grad || !(root->leaf || root->touched)) return NULL;
    if (sag_tensor_view(root->grad, v->offset, v->shape, &v->grad_view) != SAG_OK) return NULL;
    return v->grad_view;
}

sag_status sag_tensor_zero_grad(sag_tensor *t)
{
    if (!t->var) return SAG_OK;
    sag_var *root = sag_var_root(t->var);
    if (!root->leaf) return SAG_OK; /* an intermediate's gradient lives no longer than one backward */
    if (!root->grad) return SAG_OK; /* reads as 0 */
    bool fresh;
    SAG_TRY(claim(root, span_of(t->var), false, &fresh));
    SAG_TRY(run_fill(t->ctx, root->grad, span_of(t->var), 0)); /* what no op reaches must read as 0 */
    root->touched = true;
    return SAG_OK;
}

void sag_tensor_release_grad(sag_tensor *t)
{
    sag_var *root = t->var ? sag_var_root(t->var) : NULL;
    if (!root || !root->leaf) return;
    drop_grad(root);
}

void sag_tape_set_recording(sag_context *ctx, bool on)
{
    ctx->recording = on;
}
bool sag_tape_recording(const sag_context *ctx)
{
    return ctx->recording;
}
void sag_tape_retain_grads(sag_context *ctx, bool on)
{
    ctx->retain_grads = on;
}
int64_t sag_tape_length(const sag_context *ctx)
{
    return ctx->n_nodes;
}

void sag_call_release(sag_op_call *c)
{
    for (int i = 0; i < SAG_MAX_IN; i++) {
        sag_tensor_release(c->in[i]);
        sag_var_release(c->in_var[i]);
    }
    for (int i = 0; i < SAG_MAX_OUT; i++) {
        sag_tensor_release(c->out[i]);
        sag_var_release(c->out_var[i]);
        sag_tensor_release(c->dout[i]);
    }
    for (int i = 0; i < SAG_MAX_SAVED; i++) sag_tensor_release(c->saved[i]);
}

/* What the node made is a constant from now on: no gradient could flow on from it. */
static void drop_node(sag_context *ctx, int64_t i)
{
    sag_op_call *node = ctx->nodes[i];
    ctx->nodes[i] = NULL;
    for (int k = 0; k < SAG_MAX_OUT; k++) {
        if (node->out_var[k]) node->out_var[k]->spent = true;
    }
    sag_call_release(node);
    sag_host_free(node);
}

static void drop_retained(sag_context *ctx)
{
    for (int64_t i = 0; i < ctx->n_retained; i++) {
        drop_grad(ctx->retained[i]);
        sag_var_release(ctx->retained[i]);
    }
    ctx->n_retained = 0;
}

void sag_tape_clear(sag_context *ctx)
{
    ctx->refs++; /* dropping the last tensors must not free ctx under us */
    while (ctx->n_nodes > 0) drop_node(ctx, --ctx->n_nodes);
    drop_retained(ctx);
    sag_context_unref(ctx);
}

static void keep_tensors(sag_op_call *node, sag_op_call *c)
{
    for (int i = 0; i < SAG_MAX_IN; i++) {
        node->in[i] = c->keep_in >> i & 1u ? c->in[i] : NULL;
        if (node->in[i]) sag_tensor_retain(node->in[i]);
    }
    for (int i = 0; i < SAG_MAX_OUT; i++) {
        node->out[i] = c->keep_out >> i & 1u ? c->out[i] : NULL;
        if (node->out[i]) sag_tensor_retain(node->out[i]);
    }
    memset(c->saved, 0, sizeof c->saved);
}

/* Keeps of a finished forward call what its backward reads: takes over saved[], retains the rest. In a part that is to be
 * recomputed, what it reads to run again; before[i]: what in[i] held before it was written to. */
sag_status sag_tape_push(sag_op_call *c, sag_tensor *before[])
{
    sag_context *ctx = c->ctx;
    if (ctx->n_nodes == ctx->cap_nodes) {
        int64_t cap = ctx->cap_nodes ? 2 * ctx->cap_nodes : 256;
        sag_op_call **nodes = sag_host_realloc(ctx->nodes, (size_t)cap * sizeof(sag_op_call *));
        if (!nodes) SAG_FAIL(SAG_ERR_MEMORY, "out of memory for the tape");
        ctx->nodes = nodes;
        ctx->cap_nodes = cap;
    }
    sag_op_call *node = sag_host_alloc(sizeof *node);
    if (!node) SAG_FAIL(SAG_ERR_MEMORY, "out of memory for the tape");
    const sag_op_info *info = sag_op_describe(c->op);
    sag_var *fresh[SAG_MAX_OUT] = {0};
    for (int i = 0; i < info->n_out; i++) {
        sag_status s = new_var(c->out[i], &fresh[i]);
        if (s != SAG_OK) {
            for (int k = 0; k < i; k++) sag_var_release(fresh[k]);
            sag_host_free(node);
            return s;
        }
    }
    *node = *c;
    for (int i = 0; i < SAG_MAX_IN; i++) {
        node->in_var[i] = c->needs >> i & 1u ? sag_var_retain(c->in[i]->var) : NULL;
    }
    for (int i = 0; i < SAG_MAX_OUT; i++) {
        if (i < info->n_out) {
            c->out[i]->var = fresh[i];
            node->out_var[i] = sag_var_retain(fresh[i]);
            node->out_shape[i] = c->out[i]->shape;
        }
    }
    if (ctx->part) {
        sag_part_empty(node, c, before);
    } else {
        keep_tensors(node, c);
    }
    ctx->nodes[ctx->n_nodes++] = node;
    return SAG_OK;
}

/* ---------------------------------------------------------------------------------------------- backward */

/* True if another input of the call leads to the same elements: a kernel may write the two in any order. */
static bool shared(const sag_op_call *c, int i)
{
    const sag_var *v = c->in_var[i];
    for (int j = 0; j < SAG_MAX_IN; j++) {
        if (j != i && sag_needs(c, j) && sag_var_root(c->in_var[j]) == sag_var_root(c->in_var[i]) &&
            overlap(span_of(c->in_var[j]), span_of(v)))
            return true;
    }
    return false;
}

sag_status sag_grad_in(sag_op_call *c, int i, sag_grad *g)
{
    *g = (sag_grad){0};
    if (!sag_needs(c, i)) return SAG_OK;
    sag_var *v = c->in_var[i];
    sag_var *root = sag_var_root(v);
    if (!root->grad) {
        SAG_TRY(sag_tensor_create(c->ctx, root->dtype, root->shape, &root->grad));
        root->touched = false;
    } else if (root->touched && !root->leaf && root->grad->refs > 1) { /* handed over by sag_grad_pass: others read it too */
        sag_tensor *own = NULL;
        SAG_TRY(sag_tensor_create(c->ctx, root->dtype, root->shape, &own));
        sag_status s = sag_tensor_copy(own, root->grad);
        if (s != SAG_OK) {
            sag_tensor_release(own);
            return s;
        }
        sag_tensor_release(root->grad);
        root->grad = own;
    }
    const bool clear = shared(c, i);
    bool fresh = !root->touched && !clear && sag_numel(v->shape) == sag_numel(root->shape);
    if (!root->touched && !fresh) {
        SAG_TRY(make_room(root));
        root->gaps[root->n_gaps++] = span_of(root);
    }
    root->touched = true;
    if (!fresh) SAG_TRY(claim(root, span_of(v), clear, &fresh));
    g->data = (char *)sag_tensor_data(root->grad) + (size_t)v->offset * sag_dtype_size(root->dtype);
    g->accumulate = !fresh;
    return SAG_OK;
}

sag_status sag_grad_pass(sag_op_call *c, int i, int o)
{
    if (!sag_needs(c, i) || !c->dout[o]) return SAG_OK;
    sag_var *v = c->in_var[i];
    if (!v->base && !v->leaf && !v->touched && v->dtype == c->dout[o]->dtype) {
        sag_tensor_release(v->grad);
        v->grad = c->dout[o];
        sag_tensor_retain(v->grad);
        v->touched = true;
        return SAG_OK;
    }
    sag_grad g;
    SAG_TRY(sag_grad_in(c, i, &g));
    int64_t bytes = c->dout[o]->numel * (int64_t)sag_dtype_size(c->dout[o]->dtype);
    copy_block_args a = {.src = sag_data(c->dout[o]), .dst = g.data, .outer = 1, .inner = bytes, .dst_stride = bytes,
                         .src_stride = bytes, .accumulate = g.accumulate, .act = c->dout[o]->dtype};
    return SAG_RUN(c, copy_block, &a);
}

static sag_status keep_for_inspection(sag_context *ctx, sag_var *v)
{
    if (ctx->n_retained == ctx->cap_retained) {
        int64_t cap = ctx->cap_retained ? 2 * ctx->cap_retained : 64;
        sag_var **list = sag_host_realloc(ctx->retained, (size_t)cap * sizeof *list);
        if (!list) SAG_FAIL(SAG_ERR_MEMORY, "out of memory while keeping gradients");
        ctx->retained = list;
        ctx->cap_retained = cap;
    }
    ctx->retained[ctx->n_retained++] = sag_var_retain(v);
    return SAG_OK;
}

static sag_status run_node(sag_context *ctx, sag_op_call *node)
{
    const sag_op_entry *e = sag_op_entry_of(node->op);
    bool any = false;
    for (int i = 0; i < e->info.n_out; i++) {
        sag_var *v = node->out_var[i];
        if (v->touched && v->grad) {
            SAG_TRY(close_gaps(v));
            node->dout[i] = v->grad;
            sag_tensor_retain(v->grad);
            any = true;
            if (ctx->retain_grads) {
                SAG_TRY(keep_for_inspection(ctx, v));
            } else {
                drop_grad(v);
            }
        }
    }
    if (!any) return SAG_OK;
    if (node->empty) SAG_TRY(sag_part_fill(ctx));
    const char *path = ctx->path;
    ctx->path = node->path;
    sag_status s = e->bwd(node);
    sag_arena_reset(ctx);
    ctx->path = path;
    return s;
}

static sag_status unwind(sag_context *ctx)
{
    sag_status s = SAG_OK;
    ctx->refs++;
    while (s == SAG_OK && ctx->n_nodes > 0) {
        s = run_node(ctx, ctx->nodes[ctx->n_nodes - 1]);
        drop_node(ctx, --ctx->n_nodes);
    }
    while (ctx->n_nodes > 0) { /* after a failure: no gradient may linger in an intermediate */
        sag_op_call *node = ctx->nodes[ctx->n_nodes - 1];
        for (int i = 0; i < SAG_MAX_OUT; i++) {
            sag_var *v = node->out_var[i];
            if (v) drop_grad(v);
        }
        drop_node(ctx, --ctx->n_nodes);
    }
    sag_context_unref(ctx);
    return s;
}

static sag_status check_start(const sag_tensor *y)
{
    if (y->ctx->part) SAG_FAIL(SAG_ERR_STATE, "backward: it cannot run inside a part that is to be recomputed");
    if (!y->var || !sag_var_wants_grad(y->var)) {
        SAG_FAIL(SAG_ERR_STATE, "backward: this tensor depends on nothing that wants a gradient (no_grad, frozen, a constant, or its tape is gone after an earlier backward?)");
    }
    return SAG_OK;
}

sag_status sag_tape_backward_from(sag_tensor *y, sag_tensor *dy)
{
    char a[96], b[96];
    SAG_TRY(check_start(y));
    if (!sag_shape_equal(y->shape, dy->shape) || y->dtype != dy->dtype) {
        SAG_FAIL(SAG_ERR_SHAPE, "backward: the gradient %s must have the shape and dtype of the tensor %s",
                 sag_shape_text(dy->shape, a, sizeof a), sag_shape_text(y->shape, b, sizeof b));
    }
    sag_op_call start = {.ctx = y->ctx, .op = SAG_OP_add, .needs = 1u};
    start.in_var[0] = y->var;
    sag_grad g;
    sag_status s = sag_grad_in(&start, 0, &g);
    if (s == SAG_OK) {
        int64_t bytes = dy->numel * (int64_t)sag_dtype_size(dy->dtype);
        copy_block_args args = {.src = sag_data(dy), .dst = g.data, .outer = 1, .inner = bytes, .dst_stride = bytes,
                                .src_stride = bytes, .accumulate = g.accumulate, .act = dy->dtype};
        s = SAG_RUN(&start, copy_block, &args);
    }
    if (s != SAG_OK) {
        sag_tape_clear(y->ctx);
        return s;
    }
    drop_retained(y->ctx); /* gradients kept for inspection are those of the last backward */
    return unwind(y->ctx);
}

sag_status sag_tape_backward(sag_tensor *loss, float seed)
{
    if (loss->numel != 1) {
        char text[96];
        SAG_FAIL(SAG_ERR_SHAPE, "backward starts from one number, not from %s; take mean() or sum() first, or give a gradient",
                 sag_shape_text(loss->shape, text, sizeof text));
    }
    SAG_TRY(check_start(loss));
    sag_tensor *dy = NULL;
    SAG_TRY(sag_tensor_create(loss->ctx, loss->dtype, loss->shape, &dy));
    sag_status s = run_fill(loss->ctx, dy, (sag_span){0, 1}, (double)seed);
    if (s == SAG_OK) s = sag_tape_backward_from(loss, dy);
    sag_tensor_release(dy);
    return s;
}
