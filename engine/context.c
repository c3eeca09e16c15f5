/* context.c - a device with its kernels, memory and tape. */
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "engine/internal.h"

static const sag_backend *backend_of(sag_device device)
{
    switch (device) {
    case SAG_CPU: return sag_cpu_backend();
#ifdef SAGAN_WITH_CUDA
    case SAG_CUDA: return sag_cuda_backend();
#endif
    default: return NULL;
    }
}

bool sag_device_available(sag_device device)
{
    const sag_backend *b = backend_of(device);
    return b && b->available();
}

const char *sag_device_detail(sag_device device)
{
    return sag_device_available(device) ? backend_of(device)->detail() : "";
}

const char *sag_device_problem(sag_device device)
{
    const sag_backend *b = backend_of(device);
    if (!b) return "this program was built without it";
    return b->available() ? "" : b->last_error();
}

const char *sag_device_name(sag_device device)
{
    return device == SAG_CPU ? "cpu" : device == SAG_CUDA ? "cuda" : "unknown";
}

const char *sag_cpu_isa(void)
{
    return sag_cpu_backend()->detail();
}

sag_status sag_context_create(sag_device device, sag_context **out)
{
    *out = NULL;
    const sag_backend *b = backend_of(device);
    if (!b) SAG_FAIL(SAG_ERR_DEVICE, "this build has no backend for device '%s'", sag_device_name(device));
    if (!b->available()) SAG_FAIL(SAG_ERR_DEVICE, "device '%s' is not available: %s", b->name, b->last_error());
    sag_context *ctx = sag_host_alloc(sizeof *ctx);
    if (!ctx) SAG_FAIL(SAG_ERR_MEMORY, "out of memory while opening device '%s'", b->name);
    ctx->device = device;
    ctx->backend = b;
    ctx->refs = 1;
    ctx->path = "";
    ctx->recording = true;
    sag_heap_init(&ctx->heap, device == SAG_CPU);
    sag_heap_init(&ctx->replays, device == SAG_CPU);
    ctx->replays.replayed = true;
    const char *exact = getenv("SAGAN_EXACT_MEMORY");
    ctx->exact = exact && strcmp(exact, "1") == 0;
    if (b->open(&ctx->state) != SAG_KERNEL_OK) {
        sag_host_free(ctx);
        SAG_FAIL(SAG_ERR_DEVICE, "cannot open device '%s': %s", b->name, b->last_error());
    }
    ctx->env = (sag_kernel_env){.stream = b->stream(ctx->state), .scratch = sag_arena_scratch, .owner = ctx};
    sag_context_set_threads(ctx, 0);
    *out = ctx;
    return SAG_OK;
}

void sag_context_unref(sag_context *ctx)
{
    if (--ctx->refs > 0) return;
    sag_context_trim(ctx);
    while (ctx->arena) {
        sag_arena_block *b = ctx->arena;
        ctx->arena = b->next;
        ctx->backend->free(ctx->state, b->data);
        sag_host_free(b);
    }
    for (int64_t i = 0; i < ctx->n_paths; i++) sag_host_free(ctx->paths[i]);
    sag_host_free(ctx->paths);
    sag_host_free(ctx->nodes);
    sag_host_free(ctx->retained);
    sag_host_free(ctx->profile);
    ctx->backend->close(ctx->state);
    sag_host_free(ctx);
}

void sag_context_destroy(sag_context *ctx)
{
    if (!ctx) return;
    if (ctx->recorded) sag_capture_end(ctx, NULL); /* a recording that nobody ended */
    sag_tape_clear(ctx);
    sag_context_unref(ctx);
}

sag_device sag_context_device(const sag_context *ctx)
{
    return ctx->device;
}

void sag_context_set_threads(sag_context *ctx, int threads)
{
    ctx->env.threads = threads > 0 ? threads : omp_get_num_procs();
}

int sag_context_threads(const sag_context *ctx)
{
    return ctx->env.threads;
}

void sag_context_set_winograd(sag_context *ctx, bool on)
{
    ctx->env.no_winograd = !on;
}

bool sag_context_winograd(const sag_context *ctx)
{
    return !ctx->env.no_winograd;
}

void sag_context_set_tf32(sag_context *ctx, bool on)
{
    ctx->env.tf32 = on;
}

bool sag_context_tf32(const sag_context *ctx)
{
    return ctx->env.tf32 != 0;
}

sag_status sag_context_synchronize(sag_context *ctx)
{
    if (ctx->backend->synchronize(ctx->state) != SAG_KERNEL_OK) {
        SAG_FAIL(SAG_ERR_DEVICE, "device '%s' failed: %s", ctx->backend->name, ctx->backend->last_error());
    }
    return SAG_OK;
}

void sag_context_set_path(sag_context *ctx, const char *path)
{
    if (strcmp(ctx->path, path) == 0) return;
    for (int64_t i = 0; i < ctx->n_paths; i++) {
        if (strcmp(ctx->paths[i], path) == 0) {
            ctx->path = ctx->paths[i];
            return;
        }
    }
    ctx->path = "";
    if (ctx->n_paths == ctx->cap_paths) {
        int64_t cap = ctx->cap_paths ? 2 * ctx->cap_paths : 64;
        char **paths = sag_host_realloc(ctx->paths, (size_t)cap * sizeof *paths);
        if (!paths) return; /* a message without its path is better than a failed step */
        ctx->paths = paths;
        ctx->cap_paths = cap;
    }
    size_t n = strlen(path) + 1;
    char *copy = sag_host_alloc(n);
    if (!copy) return;
    memcpy(copy, path, n);
    ctx->path = ctx->paths[ctx->n_paths++] = copy;
}

const char *sag_context_path(const sag_context *ctx)
{
    return ctx->path;
}

void sag_context_memory(const sag_context *ctx, sag_memory_stats *out)
{
    *out = ctx->stats;
    out->bytes_cached += (int64_t)sag_heap_idle(&ctx->heap);
}

void sag_context_reset_peak(sag_context *ctx)
{
    ctx->stats.bytes_peak = ctx->stats.bytes_in_use;
}
