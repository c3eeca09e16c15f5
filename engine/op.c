/* op.c - the op table derived from ops.def, and the one way through which every op runs. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/internal.h"

static sag_op_entry entries[SAG_OP_COUNT] = {
#define SAG_OP_DIFF(n, s, d) [SAG_OP_##n] = {{.name = #n, .signature = s, .doc = d, .differentiable = true}, sag_op_##n##_fwd, sag_op_##n##_bwd},
#define SAG_OP_PURE(n, s, d) [SAG_OP_##n] = {{.name = #n, .signature = s, .doc = d}, sag_op_##n##_fwd, NULL},
#define SAG_KERNEL(slot, args)
#include "engine/ops.def"
};

/* Reads "name:T? name:f=0.5 name" up to a '|' or the end; returns how many. */
static int parse_params(const char **at, sag_op_param *list, int max)
{
    int n = 0;
    const char *s = *at;
    while (*s == ' ') s++;
    while (*s && *s != '|') {
        sag_op_param p = {.type = 'T'};
        size_t k = 0;
        while (*s && *s != ':' && *s != ' ' && *s != '|' && k + 1 < sizeof p.name) p.name[k++] = *s++;
        if (*s == ':') {
            p.type = *++s;
            s++;
        }
        if (*s == '!') {
            p.mutated = true;
            s++;
        }
        if (*s == '?') {
            p.optional = true;
            s++;
        } else if (*s == '=') {
            char *end = NULL;
            p.optional = true;
            p.fallback = strtod(s + 1, &end);
            s = end;
        }
        if (n < max) list[n] = p;
        n++;
        while (*s == ' ') s++;
    }
    *at = *s == '|' ? s + 1 : s;
    return n;
}

static void parse_all(void)
{
    for (int op = 0; op < SAG_OP_COUNT; op++) {
        sag_op_info *info = &entries[op].info;
        const char *s = info->signature;
        info->n_in = parse_params(&s, info->in, SAG_MAX_IN);
        info->n_attr = parse_params(&s, info->attr, SAG_MAX_ATTR);
        info->n_out = parse_params(&s, info->out, SAG_MAX_OUT);
    }
}

const sag_op_entry *sag_op_entry_of(sag_op op)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, parse_all);
    return &entries[op];
}

const sag_op_info *sag_op_describe(sag_op op)
{
    return (unsigned)op < SAG_OP_COUNT ? &sag_op_entry_of(op)->info : NULL;
}

int sag_op_find(const char *name)
{
    for (int op = 0; op < SAG_OP_COUNT; op++) {
        if (strcmp(entries[op].info.name, name) == 0) return op;
    }
    return -1;
}

/* ------------------------------------------------------------------------------------- for op authors */

sag_status sag_op_fail(const sag_op_call *c, sag_status code, const char *fmt, ...)
{
    char rule[384], shapes[512], one[96];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(rule, sizeof rule, fmt, ap);
    va_end(ap);
    const sag_op_info *info = sag_op_describe(c->op);
    size_t at = 0;
    shapes[0] = 0;
    for (int i = 0; i < info->n_in && at + 1 < sizeof shapes; i++) {
        if (c->in_shape[i].rank == 0) continue;
        int n = snprintf(shapes + at, sizeof shapes - at, "%s%s %s", at ? ", " : "", info->in[i].name,
                         sag_shape_text(c->in_shape[i], one, sizeof one));
        at += n > 0 ? (size_t)n : 0;
    }
    return sag_fail(code, "%s%s%s(%s): %s", c->ctx->path, c->ctx->path[0] ? ": " : "", info->name, shapes, rule);
}

sag_status sag_out(sag_op_call *c, int i, sag_dtype dtype, sag_shape shape)
{
    SAG_TRY(sag_tensor_create(c->ctx, dtype, shape, &c->out[i]));
    c->out_shape[i] = shape;
    return SAG_OK;
}

sag_status sag_save(sag_op_call *c, int i, sag_dtype dtype, sag_shape shape)
{
    return sag_tensor_create(c->ctx, dtype, shape, &c->saved[i]);
}

/* ------------------------------------------------------------------------------------------- profile */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static const char *const slot_names[SAG_SLOT_COUNT] = {
#define SAG_OP_DIFF(n, s, d)
#define SAG_OP_PURE(n, s, d)
#define SAG_KERNEL(slot, args) [SAG_SLOT_##slot] = #slot,
#include "engine/ops.def"
};

void sag_profile_enable(sag_context *ctx, bool on)
{
    if (on && !ctx->profile) ctx->profile = sag_host_alloc(SAG_SLOT_COUNT * sizeof *ctx->profile);
    ctx->profiling = on && ctx->profile;
}

void sag_profile_reset(sag_context *ctx)
{
    if (ctx->profile) memset(ctx->profile, 0, SAG_SLOT_COUNT * sizeof *ctx->profile);
}

int sag_profile_read(const sag_context *ctx, sag_profile_row *rows, int max)
{
    int n = 0;
    for (int i = 0; ctx->profile && i < SAG_SLOT_COUNT && n < max; i++) {
        if (ctx->profile[i].calls > 0) rows[n++] = ctx->profile[i];
    }
    return n;
}

static void profile_add(sag_context *ctx, sag_slot slot, const void *args, double seconds)
{
    sag_profile_row *row = &ctx->profile[slot];
    sag_kernel_cost cost = sag_cost_of(slot, args);
    row->kernel = slot_names[slot];
    row->calls++;
    row->seconds += seconds;
    row->flops += cost.flops;
    row->done += ctx->env.flops > 0 ? ctx->env.flops : cost.flops;
    row->bytes += cost.bytes;
}

sag_status sag_scratch_fail(const sag_op_call *c)
{
    return sag_op_fail(c, SAG_ERR_MEMORY, "out of memory for scratch; use a smaller batch, %swidth or resolution",
                       c->ctx->device == SAG_CUDA ? "precision=bf16, a smaller " : "");
}

void sag_run_begin(sag_context *ctx)
{
    if (ctx->profiling) {
        ctx->backend->synchronize(ctx->state);
        ctx->env.flops = 0;
        ctx->profile_start = now();
    }
}

sag_status sag_run_end(sag_op_call *c, sag_slot slot, const void *args, int result)
{
    sag_context *ctx = c->ctx;
    if (ctx->profiling) {
        ctx->backend->synchronize(ctx->state);
        profile_add(ctx, slot, args, now() - ctx->profile_start);
    }
    switch (result) {
    case SAG_KERNEL_OK: return SAG_OK;
    case SAG_KERNEL_NO_MEMORY:
        return sag_scratch_fail(c);
    case SAG_KERNEL_BAD_INDEX:
        return sag_op_fail(c, SAG_ERR_ARG, "an index or label lies outside its table (they count from 0)");
    case SAG_KERNEL_UNSUPPORTED:
        return sag_op_fail(c, SAG_ERR_UNSUPPORTED, "kernel %s on %s does not support this dtype or shape", slot_names[slot],
                           ctx->backend->name);
    default: return sag_op_fail(c, SAG_ERR_DEVICE, "kernel %s failed on %s: %s", slot_names[slot], ctx->backend->name,
                       ctx->backend->last_error());
    }
}

sag_status sag_run_missing(const sag_op_call *c, const char *slot)
{
    return sag_op_fail(c, SAG_ERR_UNSUPPORTED, "device '%s' has no kernel %s", c->ctx->backend->name, slot);
}

/* --------------------------------------------------------------------------------------------- apply */

static sag_status check_inputs(sag_op_call *c, const sag_op_info *info, sag_tensor *const *in)
{
    for (int i = 0; i < info->n_in; i++) {
        sag_tensor *t = in[i];
        if (!t) {
            if (info->in[i].optional) continue;
            return sag_op_fail(c, SAG_ERR_ARG, "input '%s' is missing", info->in[i].name);
        }
        c->in[i] = t;
        c->in_shape[i] = t->shape;
        c->in_dtype[i] = t->dtype;
        if (t->ctx != c->ctx) {
            return sag_op_fail(c, SAG_ERR_DEVICE, "input '%s' lives on another device or context ('%s'); move it with :to()",
                               info->in[i].name, sag_device_name(t->ctx->device));
        }
        const sag_var *root = t->var && t->var->base ? t->var->base : t->var;
        if (info->in[i].mutated && c->ctx->recording && root && !root->leaf && !root->spent) {
            return sag_op_fail(c, SAG_ERR_STATE, "'%s' is written in place but is on the tape; use no_grad or detach()", info->in[i].name);
        }
    }
    return SAG_OK;
}

sag_status sag_op_apply(sag_context *ctx, sag_op op, sag_tensor *const *in, const double *attr, sag_tensor **out)
{
    if ((unsigned)op >= SAG_OP_COUNT) SAG_FAIL(SAG_ERR_ARG, "unknown op %d", (int)op);
    const sag_op_entry *e = sag_op_entry_of(op);
    for (int i = 0; i < e->info.n_out; i++) out[i] = NULL; /* the caller need have room for no more */
    sag_op_call c = {.ctx = ctx, .op = op, .path = ctx->path};
    for (int i = 0; i < e->info.n_attr; i++) c.attr[i] = attr ? attr[i] : e->info.attr[i].fallback;
    SAG_TRY(check_inputs(&c, &e->info, in));
    if (ctx->recording && e->info.differentiable) {
        for (int i = 0; i < e->info.n_in; i++) {
            if (c.in[i] && sag_var_wants_grad(c.in[i]->var)) c.needs |= 1u << i;
        }
    }
    c.recorded = c.needs != 0;
    sag_tensor *before[SAG_MAX_IN] = {0};
    sag_status s = c.recorded && ctx->part ? sag_part_copy_written(&c, before) : SAG_OK;
    if (s == SAG_OK) s = e->fwd(&c);
    sag_arena_reset(ctx);
    if (s == SAG_OK && c.recorded) s = sag_tape_push(&c, before);
    for (int i = 0; i < SAG_MAX_IN; i++) sag_tensor_release(before[i]);
    for (int i = 0; i < SAG_MAX_SAVED; i++) sag_tensor_release(c.saved[i]);
    for (int i = 0; i < e->info.n_out; i++) {
        if (s == SAG_OK) {
            out[i] = c.out[i];
        } else {
            sag_tensor_release(c.out[i]);
        }
    }
    return s;
}
