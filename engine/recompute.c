/*
 * recompute.c - parts of the tape whose activations are dropped after forward and computed again in backward: memory
 * for time (Chen et al. 2016, arXiv 1604.06174).
 *
 * Between sag_recompute_begin and _end each recorded call leaves its node empty: it holds the tensors that came from
 * outside the part, and only the identity (sag_var) of those made inside. When backward first comes to a node of the
 * part, the calls run again in their order, from the same inputs with the same kernels, and each node gets just what
 * its backward reads; from there on it is a tape like any other. So gradients have the same bits either way, and there
 * is nothing that an op has to know about it.
 *
 * A call runs again only if its output, or what it saved, is read: by its own backward, or by a call that runs again.
 * The last convolution of a residual block, whose output is merely added to, does not.
 *
 * An op that writes to an input (spectral norm's u and v) must do so once: what the input held before the call is copied
 * in forward, and the second run reads and writes the copy. One that resumes (batch norm) keeps what it saved, a few
 * numbers a channel, and its second run begins there.
 */
#include "engine/internal.h"

void sag_recompute_begin(sag_context *ctx)
{
    if (ctx->part_depth++ == 0) ctx->part = ++ctx->n_parts;
}

/* ----------------------------------------------------------------------------------------------- forward */

sag_status sag_part_copy_written(const sag_op_call *c, sag_tensor *before[])
{
    const sag_op_info *info = sag_op_describe(c->op);
    for (int i = 0; i < info->n_in; i++) {
        if (!c->in[i] || !info->in[i].mutated || sag_op_resumes(c->op)) continue;
        SAG_TRY(sag_tensor_create(c->ctx, c->in_dtype[i], c->in_shape[i], &before[i]));
        SAG_TRY(sag_tensor_copy(before[i], c->in[i]));
    }
    return SAG_OK;
}

void sag_part_empty(sag_op_call *node, sag_op_call *c, sag_tensor *before[])
{
    const bool resumes = sag_op_resumes(c->op);
    node->part = c->ctx->part;
    node->empty = true;
    node->again = c->keep_out != 0;
    for (int i = 0; i < SAG_MAX_SAVED; i++) {
        node->again = node->again || (c->saved[i] && !resumes);
        node->saved[i] = resumes ? c->saved[i] : NULL;
        if (resumes) c->saved[i] = NULL;
    }
    for (int i = 0; i < SAG_MAX_IN; i++) {
        bool inside = node->in_var[i] && sag_var_root(node->in_var[i])->part == node->part;
        if (inside) node->inside |= 1u << i;
        node->in[i] = inside ? NULL : before[i] ? before[i] : c->in[i];
        if (node->in[i]) sag_tensor_retain(node->in[i]);
    }
    for (int i = 0; i < SAG_MAX_OUT; i++) {
        node->out[i] = NULL;
        if (node->out_var[i]) node->out_var[i]->part = node->part;
    }
}

/* ------------------------------------------------------------------------------------------ end of forward */

static bool reads(const sag_op_call *c, int i)
{
    return (c->inside >> i & 1u) && (c->again || (c->keep_in >> i & 1u));
}

/* Which calls run again, and how often the value of each is read, counted from the last to the first. */
static void count_readers(sag_op_call **node, int64_t n)
{
    for (int64_t k = n - 1; k >= 0; k--) {
        sag_op_call *c = node[k];
        for (int o = 0; o < SAG_MAX_OUT; o++) c->again = c->again || (c->out_var[o] && c->out_var[o]->readers > 0);
        for (int i = 0; i < SAG_MAX_IN; i++) {
            if (reads(c, i)) sag_var_root(c->in_var[i])->readers++;
        }
    }
}

/* All calls are known: what none of them will read is let go of, such as the residual of a block's last convolution. */
static void settle(sag_context *ctx)
{
    int64_t first = ctx->n_nodes;
    while (first > 0 && ctx->nodes[first - 1]->part == ctx->part) first--;
    count_readers(ctx->nodes + first, ctx->n_nodes - first);
    for (int64_t k = first; k < ctx->n_nodes; k++) {
        sag_op_call *c = ctx->nodes[k];
        for (int i = 0; i < SAG_MAX_IN; i++) {
            if (c->again || (c->keep_in >> i & 1u)) continue;
            sag_tensor_release(c->in[i]);
            c->in[i] = NULL;
        }
    }
}

void sag_recompute_end(sag_context *ctx)
{
    if (ctx->part_depth == 0 || --ctx->part_depth > 0) return;
    settle(ctx);
    ctx->part = 0;
}

/* ---------------------------------------------------------------------------------------------- backward */

/* in[i] from the value of what it is, or is a view of. */
static sag_status fetch(sag_op_call *c, int i)
{
    sag_var *v = c->in_var[i];
    if (v->base) return sag_tensor_view(v->base->value, v->offset, v->shape, &c->in[i]);
    c->in[i] = v->value;
    sag_tensor_retain(c->in[i]);
    return SAG_OK;
}

static void drop_value(sag_var *v)
{
    sag_tensor_release(v->value);
    v->value = NULL;
    v->readers = 0;
}

static sag_status fill_node(sag_op_call *c)
{
    sag_context *ctx = c->ctx;
    for (int i = 0; i < SAG_MAX_IN; i++) {
        if (reads(c, i)) SAG_TRY(fetch(c, i));
    }
    if (c->again) {
        ctx->path = c->path;
        sag_status s = sag_op_entry_of(c->op)->fwd(c);
        sag_arena_reset(ctx);
        SAG_TRY(s);
    }
    for (int i = 0; i < SAG_MAX_IN; i++) {
        if (reads(c, i) && --sag_var_root(c->in_var[i])->readers == 0) drop_value(sag_var_root(c->in_var[i]));
        if (c->keep_in >> i & 1u) continue;
        sag_tensor_release(c->in[i]);
        c->in[i] = NULL;
    }
    for (int o = 0; o < SAG_MAX_OUT; o++) {
        if (!c->out[o]) continue;
        if (c->out_var[o]->readers > 0) {
            c->out_var[o]->value = c->out[o];
            sag_tensor_retain(c->out[o]);
        }
        if (c->keep_out >> o & 1u) continue;
        sag_tensor_release(c->out[o]);
        c->out[o] = NULL;
    }
    c->empty = false;
    return SAG_OK;
}

sag_status sag_part_fill(sag_context *ctx)
{
    const char *path = ctx->path;
    int64_t last = ctx->n_nodes - 1, first = last;
    while (first > 0 && ctx->nodes[first - 1]->part == ctx->nodes[last]->part) first--;
    sag_op_call **node = ctx->nodes + first;
    int64_t n = last - first + 1;
    sag_status s = SAG_OK;
    for (int64_t k = 0; k < n && s == SAG_OK; k++) s = fill_node(node[k]);
    for (int64_t k = 0; k < n && s != SAG_OK; k++) {
        for (int o = 0; o < SAG_MAX_OUT; o++) {
            if (node[k]->out_var[o]) drop_value(node[k]->out_var[o]);
        }
    }
    ctx->path = path;
    return s;
}
