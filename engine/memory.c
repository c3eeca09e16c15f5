/*
 * memory.c - host blocks, device storages and the scratch arena.
 *
 * Large storages and large scratch share the heap's segments (heap.c); small storages come from a cache by size, small
 * scratch from one block that grows. A step of a fixed shape asks for the same sizes in the same order every time, so
 * after the first step no allocation reaches the device (DESIGN 3).
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine/internal.h"

static atomic_llong live_host_blocks;
static atomic_llong fail_countdown;

/* True for the one allocation that a test asked to fail. */
static bool injected_failure(void)
{
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) <= 0) return false;
    return atomic_fetch_sub(&fail_countdown, 1) == 1;
}

void sag_debug_fail_allocation(int64_t n)
{
    atomic_store(&fail_countdown, n);
}

int64_t sag_debug_live_host_blocks(void)
{
    return atomic_load(&live_host_blocks);
}

void *sag_host_alloc(size_t bytes)
{
    if (injected_failure()) return NULL;
    void *p = calloc(1, bytes ? bytes : 1);
    if (p) atomic_fetch_add(&live_host_blocks, 1);
    return p;
}

void *sag_host_realloc(void *p, size_t bytes)
{
    if (injected_failure()) return NULL;
    void *q = realloc(p, bytes ? bytes : 1);
    if (q && !p) atomic_fetch_add(&live_host_blocks, 1);
    return q;
}

void sag_host_free(void *p)
{
    if (!p) return;
    atomic_fetch_sub(&live_host_blocks, 1);
    free(p);
}

/* ---------------------------------------------------------------------------------------------- storages */

#define LARGE ((size_t)64 << 10) /* bytes from which the heap serves a request */

/* Size classes of small storages: four steps per octave from 256 bytes, so a block is at most 25 % larger than asked for. */
static size_t size_class(size_t bytes, int *index)
{
    size_t step = 64, base = 256;
    int i = 0;
    while (base + 4 * step < bytes) {
        base *= 2;
        step *= 2;
        i += 4;
    }
    for (int k = 0; k < 4; k++) {
        size_t size = base + (size_t)k * step;
        if (bytes <= size) {
            *index = i + k;
            return size;
        }
    }
    *index = i + 4;
    return base * 2;
}

static void note_peak(sag_context *ctx)
{
    int64_t now = ctx->stats.bytes_in_use + (int64_t)ctx->arena_used;
    if (now > ctx->stats.bytes_peak) ctx->stats.bytes_peak = now;
}

void *sag_device_alloc(sag_context *ctx, size_t bytes)
{
    if (injected_failure()) return NULL;
    void *p = ctx->backend->alloc(ctx->state, bytes);
    if (!p) { /* what the cache holds may be in the way */
        sag_context_trim(ctx);
        p = ctx->backend->alloc(ctx->state, bytes);
    }
    if (p) ctx->stats.device_allocs++;
    return p;
}

static sag_status memory_failure(const sag_context *ctx, size_t bytes)
{
    SAG_FAIL(SAG_ERR_MEMORY, "out of memory on %s: %.1f MiB more were asked for, %.1f MiB are in use; use a smaller batch, %swidth or resolution",
             ctx->backend->name, (double)bytes / 1048576.0, (double)ctx->stats.bytes_in_use / 1048576.0,
             ctx->device == SAG_CUDA ? "precision=bf16, a smaller " : "");
}

/* Bytes to the next multiple of 64: what blocks of the heap and scratch are aligned to. 0: more than there can be. */
static size_t round_up(size_t bytes)
{
    size_t rounded = (bytes + 63) & ~(size_t)63;
    return rounded >= bytes ? rounded : 0;
}

/* A block of the heap; with a new segment if need be. */
static bool heap_take(sag_context *ctx, sag_heap_block *b, size_t size)
{
    if (size == 0 || injected_failure()) return false;
    b->size = size;
    if (sag_heap_place(&ctx->heap, b)) return true;
    ctx->stats.device_allocs++;
    if (sag_heap_grow(&ctx->heap, b, ctx->backend, ctx->state)) return true;
    sag_context_trim(ctx);
    return sag_heap_grow(&ctx->heap, b, ctx->backend, ctx->state);
}

/* The same from the memory of the graph that is recorded. */
static bool graph_take(sag_context *ctx, sag_heap_block *b, size_t size)
{
    return size > 0 && !injected_failure() && sag_graph_take(ctx, b, size);
}

/* The device memory of a new storage. */
static bool fill_storage(sag_context *ctx, sag_storage *s, size_t bytes)
{
    int index = 0;
    if (ctx->recorded) {
        s->large = !ctx->exact;
        if (!graph_take(ctx, &s->block, ctx->exact ? bytes : round_up(bytes))) return false;
        s->graph = sag_graph_memory_retain(ctx->recorded);
        return true;
    }
    if (ctx->exact) {
        s->block.size = bytes;
        s->block.data = sag_device_alloc(ctx, bytes);
        return s->block.data != NULL;
    }
    s->large = bytes >= LARGE;
    if (s->large) return heap_take(ctx, &s->block, round_up(bytes));
    s->block.size = size_class(bytes, &index);
    s->block.data = sag_device_alloc(ctx, s->block.size);
    return s->block.data != NULL;
}

sag_status sag_storage_create(sag_context *ctx, size_t bytes, sag_storage **out)
{
    int index = 0;
    sag_storage *s = NULL;
    if (bytes < LARGE && !ctx->recorded && !ctx->exact) {
        size_class(bytes, &index);
        s = ctx->free_list[index];
    }
    if (s) {
        ctx->free_list[index] = s->next_free;
        ctx->stats.bytes_cached -= (int64_t)s->block.size;
    } else {
        s = sag_host_alloc(sizeof *s);
        if (!s) return memory_failure(ctx, sizeof *s);
        if (!fill_storage(ctx, s, bytes)) {
            sag_host_free(s);
            return memory_failure(ctx, bytes);
        }
    }
    s->refs = 1;
    s->ctx = ctx;
    s->held_by = 0;
    s->next_free = NULL;
    ctx->refs++;
    ctx->stats.live_storages++;
    ctx->stats.bytes_in_use += (int64_t)s->block.size;
    note_peak(ctx);
    *out = s;
    return SAG_OK;
}

void sag_storage_retain(sag_storage *s)
{
    s->refs++;
}

void sag_storage_release(sag_storage *s)
{
    if (!s || --s->refs > 0) return;
    sag_context *ctx = s->ctx;
    ctx->stats.live_storages--;
    ctx->stats.bytes_in_use -= (int64_t)s->block.size;
    if (s->graph) {
        sag_graph_give(s->graph, &s->block);
        sag_graph_memory_release(s->graph);
        sag_host_free(s);
    } else if (s->large) {
        sag_heap_remove(&ctx->heap, &s->block);
        sag_host_free(s);
    } else if (ctx->exact) {
        ctx->backend->free(ctx->state, s->block.data);
        sag_host_free(s);
    } else {
        int index = 0;
        size_class(s->block.size, &index);
        s->next_free = ctx->free_list[index];
        ctx->free_list[index] = s;
        ctx->stats.bytes_cached += (int64_t)s->block.size;
    }
    sag_context_unref(ctx);
}

void sag_context_trim(sag_context *ctx)
{
    if (ctx->recorded) return;
    sag_heap_trim(&ctx->heap, ctx->backend, ctx->state);
    for (int i = 0; i < SAG_SIZE_CLASSES; i++) {
        while (ctx->free_list[i]) {
            sag_storage *s = ctx->free_list[i];
            ctx->free_list[i] = s->next_free;
            ctx->stats.bytes_cached -= (int64_t)s->block.size;
            ctx->backend->free(ctx->state, s->block.data);
            sag_host_free(s);
        }
    }
}

/* ------------------------------------------------------------------------------------------------- arena */

/* One call's large scratch, in the heap; all of it, where a graph is recorded or memory is exact. */
struct sag_arena_large {
    sag_heap_block block;
    sag_graph_memory *graph; /* whose memory it is; NULL: the context's */
    struct sag_arena_large *next;
};

static void *large_scratch(sag_context *ctx, size_t size)
{
    sag_arena_large *l = sag_host_alloc(sizeof *l);
    if (!l) return NULL;
    bool taken = false;
    if (ctx->recorded) {
        taken = graph_take(ctx, &l->block, size);
        l->graph = ctx->recorded;
    } else if (ctx->exact) {
        taken = (l->block.data = sag_device_alloc(ctx, size)) != NULL;
    } else {
        taken = heap_take(ctx, &l->block, size);
    }
    if (!taken) {
        sag_host_free(l);
        return NULL;
    }
    l->next = ctx->arena_large;
    ctx->arena_large = l;
    return l->block.data;
}

static void *small_scratch(sag_context *ctx, size_t size)
{
    sag_arena_block *b = ctx->arena;
    if (!b || b->size - b->used < size) {
        b = sag_host_alloc(sizeof *b);
        if (!b) return NULL;
        b->size = 4 * LARGE;
        b->data = sag_device_alloc(ctx, b->size);
        if (!b->data) {
            sag_host_free(b);
            return NULL;
        }
        b->next = ctx->arena;
        ctx->arena = b;
    }
    void *p = (char *)b->data + b->used;
    b->used += size;
    return p;
}

void *sag_arena_scratch(sag_kernel_env *env, size_t bytes)
{
    sag_context *ctx = env->owner;
    const bool own = ctx->exact, large = own || ctx->recorded;
    size_t size = own ? (bytes ? bytes : 1) : round_up(bytes ? bytes : 1);
    void *p = size == 0 ? NULL : large || size >= LARGE ? large_scratch(ctx, size) : small_scratch(ctx, size);
    if (!p) return NULL;
    ctx->arena_used += size;
    note_peak(ctx);
    return p;
}

/* Several blocks mean that the arena had to grow during the op: merge them into one that fits next time. */
void sag_arena_reset(sag_context *ctx)
{
    ctx->arena_used = 0;
    while (ctx->arena_large) {
        sag_arena_large *l = ctx->arena_large;
        ctx->arena_large = l->next;
        if (l->graph) {
            sag_graph_give(l->graph, &l->block);
        } else if (ctx->exact) {
            ctx->backend->free(ctx->state, l->block.data);
        } else {
            sag_heap_remove(&ctx->heap, &l->block);
        }
        sag_host_free(l);
    }
    if (!ctx->arena || ctx->recorded) return;
    if (!ctx->arena->next) {
        ctx->arena->used = 0;
        return;
    }
    size_t total = 0;
    while (ctx->arena) {
        sag_arena_block *b = ctx->arena;
        ctx->arena = b->next;
        total += b->size;
        ctx->backend->free(ctx->state, b->data);
        sag_host_free(b);
    }
    sag_arena_block *b = sag_host_alloc(sizeof *b);
    void *data = b ? sag_device_alloc(ctx, total) : NULL;
    if (!data) { /* the next scratch call will ask again and report */
        sag_host_free(b);
        return;
    }
    b->data = data;
    b->size = total;
    ctx->arena = b;
}
