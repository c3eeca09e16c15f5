/*
 * graph.c - a step recorded once and replayed. A replay writes to the same addresses each time, so they must belong to
 * nothing else: what is asked for during a recording comes from memory that only replays write to. What was there before and is
 * read or written by the recording is held as long as the graph.
 *
 * Replays of a context run one after another, and what a recording gives back before it ends is of no use after its replay. So
 * all recordings place their blocks in one heap (`replays` of the context): a step of D and one of G take the memory of the larger,
 * not of both. What is still in use when a recording ends must keep its content while other graphs are replayed: the recording
 * ends with its copy to memory of the graph's own, which it is in from then on. That is right since a replay writes whatever
 * it reads of its own: a storage made while recording has no content before.
 */
#include <stddef.h>
#include <stdint.h>

#include "engine/internal.h"

/* The graph and each storage in its memory have a reference. */
struct sag_graph_memory {
    int refs;
    int64_t number; /* counts recordings of the context from 1 */
    sag_context *ctx;
    sag_heap heap;         /* what outlives the recording */
    sag_graph_block *kept; /* blocks of their own, where memory is exact */
    sag_storage **held;
    int64_t n_held, cap_held;
    bool failed; /* something could not be held */
};

struct sag_graph_block {
    sag_graph_block *next;
    void *data;
};

struct sag_graph {
    sag_context *ctx;
    void *handle;
    sag_graph_memory *memory;
};

/* ------------------------------------------------------------------------------------------- its memory */

static void memory_unref(sag_graph_memory *m)
{
    if (--m->refs > 0) return;
    sag_context *ctx = m->ctx;
    sag_heap_trim(&m->heap, ctx->backend, ctx->state);
    while (m->kept) {
        sag_graph_block *b = m->kept;
        m->kept = b->next;
        ctx->backend->free(ctx->state, b->data);
        sag_host_free(b);
    }
    sag_host_free(m);
    sag_context_unref(ctx);
}

static sag_graph_memory *memory_create(sag_context *ctx)
{
    sag_graph_memory *m = sag_host_alloc(sizeof *m);
    if (!m) return NULL;
    m->refs = 1;
    m->ctx = ctx;
    m->number = ++ctx->recordings;
    ctx->refs++;
    sag_heap_init(&m->heap, ctx->device == SAG_CPU);
    m->heap.replayed = true;
    m->heap.grow = (size_t)1 << 20; /* mostly losses and other numbers */
    ctx->graphs++;
    return m;
}

/* Replays of a graph have come to an end. The heap of replays goes with the last one's. */
static void leave_replays(sag_context *ctx)
{
    if (--ctx->graphs == 0) sag_heap_trim(&ctx->replays, ctx->backend, ctx->state);
}

/* Whether b lies in the heap of replays, where nothing may stay. */
static bool in_replays(const sag_context *ctx, const sag_heap_block *b)
{
    const sag_heap_segment *s = &ctx->replays.segment[b->segment];
    return (uintptr_t)b->data - (uintptr_t)s->data < s->size;
}

static void drop_held(sag_graph_memory *m)
{
    for (int64_t i = 0; i < m->n_held; i++) sag_storage_release(m->held[i]);
    sag_host_free(m->held);
    m->held = NULL;
    m->n_held = m->cap_held = 0;
}

void sag_graph_hold(sag_context *ctx, sag_storage *s)
{
    sag_graph_memory *m = ctx->recorded;
    if (s->graph == m || s->held_by == m->number) return;
    if (m->n_held == m->cap_held) {
        int64_t cap = m->cap_held ? 2 * m->cap_held : 64;
        sag_storage **held = sag_host_realloc(m->held, (size_t)cap * sizeof *held);
        if (!held) {
            m->failed = true;
            return;
        }
        m->held = held;
        m->cap_held = cap;
    }
    s->held_by = m->number;
    sag_storage_retain(s);
    m->held[m->n_held++] = s;
}

/* A block of its own stays until the graph goes: its address is in the recording. */
static bool take_exact(sag_graph_memory *m, sag_heap_block *b, size_t size)
{
    sag_graph_block *kept = sag_host_alloc(sizeof *kept);
    if (!kept) return false;
    kept->data = sag_device_alloc(m->ctx, size);
    if (!kept->data) {
        sag_host_free(kept);
        return false;
    }
    kept->next = m->kept;
    m->kept = kept;
    b->data = kept->data;
    b->size = size;
    return true;
}

static bool place(sag_context *ctx, sag_heap *h, sag_heap_block *b)
{
    if (sag_heap_place(h, b)) return true;
    ctx->stats.device_allocs++;
    return sag_heap_grow(h, b, ctx->backend, ctx->state);
}

bool sag_graph_take(sag_context *ctx, sag_heap_block *b, size_t size)
{
    if (ctx->exact) return take_exact(ctx->recorded, b, size);
    b->size = size;
    return place(ctx, &ctx->replays, b);
}

void sag_graph_give(sag_graph_memory *m, sag_heap_block *b)
{
    sag_context *ctx = m->ctx;
    if (ctx->exact) return;
    if (!in_replays(ctx, b)) {
        sag_heap_remove(&m->heap, b);
        return;
    }
    sag_heap_remove(&ctx->replays, b);
    if (ctx->graphs == 0) sag_heap_trim(&ctx->replays, ctx->backend, ctx->state); /* left over from a recording that failed */
}

/* Records the copies of what is in use to memory of the graph's own. */
static bool move_out(sag_graph_memory *m)
{
    sag_context *ctx = m->ctx;
    for (int i = 0; i < SAG_HEAP_SEGMENTS && ctx->replays.segment[i].data; i++) {
        for (sag_heap_block *b = ctx->replays.segment[i].first, *after; b; b = after) {
            after = b->after;
            sag_storage *s = (sag_storage *)((char *)b - offsetof(sag_storage, block));
            if (s->graph != m) continue; /* left over from a recording that failed */
            const char *from = b->data;
            sag_heap_remove(&ctx->replays, b);
            if (!place(ctx, &m->heap, b)) {
                sag_heap_place(&ctx->replays, b); /* where there is room for it: some heap has to have it */
                return false;
            }
            if (ctx->backend->copy(ctx->state, b->data, from, b->size, SAG_COPY_DEVICE_TO_DEVICE) != SAG_KERNEL_OK) return false;
        }
    }
    return true;
}

sag_graph_memory *sag_graph_memory_retain(sag_graph_memory *m)
{
    m->refs++;
    return m;
}

void sag_graph_memory_release(sag_graph_memory *m)
{
    memory_unref(m);
}

/* ------------------------------------------------------------------------------------------- recording */

sag_status sag_capture_begin(sag_context *ctx)
{
    if (!ctx->backend->capture_begin) {
        SAG_FAIL(SAG_ERR_UNSUPPORTED, "device '%s' does not record graphs; call the step instead", ctx->backend->name);
    }
    if (ctx->recorded) SAG_FAIL(SAG_ERR_STATE, "a capture is already under way");
    sag_context_trim(ctx); /* the cache of the calls before would lie unused beside what they are recorded to */
    sag_graph_memory *m = memory_create(ctx);
    if (!m) SAG_FAIL(SAG_ERR_MEMORY, "out of memory while beginning a capture");
    if (ctx->backend->capture_begin(ctx->state) != SAG_KERNEL_OK) {
        leave_replays(ctx);
        memory_unref(m);
        SAG_FAIL(SAG_ERR_DEVICE, "cannot begin a capture: %s", ctx->backend->last_error());
    }
    ctx->recorded = m;
    return SAG_OK;
}

sag_status sag_capture_end(sag_context *ctx, sag_graph **out)
{
    if (out) *out = NULL;
    if (!ctx->recorded) SAG_FAIL(SAG_ERR_STATE, "no capture is under way");
    sag_graph_memory *m = ctx->recorded;
    sag_arena_reset(ctx);
    if (out && !move_out(m)) m->failed = true;
    ctx->recorded = NULL;
    void *handle = NULL;
    sag_status s = SAG_OK;
    if (ctx->backend->capture_end(ctx->state, &handle) != SAG_KERNEL_OK) {
        s = sag_fail(SAG_ERR_DEVICE, "cannot end the capture: %s", ctx->backend->last_error());
    }
    sag_graph *g = s == SAG_OK && out && !m->failed ? sag_host_alloc(sizeof *g) : NULL;
    if (!g) {
        if (s == SAG_OK) {
            ctx->backend->graph_free(ctx->state, handle);
            if (out) s = sag_fail(SAG_ERR_MEMORY, "out of memory while ending a capture");
        }
        drop_held(m);
        leave_replays(ctx);
        memory_unref(m);
        return s;
    }
    *g = (sag_graph){ctx, handle, m};
    ctx->refs++;
    *out = g;
    return SAG_OK;
}

sag_status sag_graph_launch(sag_graph *g)
{
    if (g->ctx->backend->graph_launch(g->ctx->state, g->handle) != SAG_KERNEL_OK) {
        SAG_FAIL(SAG_ERR_DEVICE, "cannot replay a captured step: %s", g->ctx->backend->last_error());
    }
    return SAG_OK;
}

void sag_graph_destroy(sag_graph *g)
{
    if (!g) return;
    sag_context *ctx = g->ctx;
    ctx->backend->graph_free(ctx->state, g->handle);
    drop_held(g->memory);
    leave_replays(ctx);
    memory_unref(g->memory);
    sag_host_free(g);
    sag_context_unref(ctx);
}

bool sag_context_recording_graph(const sag_context *ctx)
{
    return ctx->recorded != NULL;
}
