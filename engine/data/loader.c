/*
 * loader.c - batches by number, prepared ahead by threads of its own.
 *
 * A ring of slots holds the batches of the window [next, next + slots). A worker takes the first slot of the window
 * that nobody prepares, fills it without the lock, and marks it ready. The caller's slot leaves the window when the
 * next step is asked for. Workers touch the slots, the orders and nothing else: no tensor, no allocation, no Lua.
 */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "engine/data/dataset_internal.h"

enum { EMPTY, BUSY, READY };

typedef struct slot {
    int64_t step; /* -1: none */
    int state;
    uint8_t *images;
    int32_t *labels;
    int64_t *indices;
    sag_status status;
    char message[256];
} slot;

/* Permutations of the epochs in use: the window may reach over an epoch's end. */
typedef struct epoch_order {
    int64_t epoch; /* -1: none */
    int32_t *order;
} epoch_order;

struct sag_loader {
    sag_dataset *ds;
    int64_t batch, next; /* next: the step that the caller asks for or holds */
    uint64_t seed;
    int n_slots, n_workers;
    slot *slots;
    epoch_order epochs[2];
    pthread_t *workers;
    pthread_mutex_t lock;
    pthread_cond_t wake, ready; /* something to prepare; something is prepared */
    bool stop;
    bool has_lock;
};

/* Under the lock. The permutation of an epoch, made in the place of the one that was not asked for last. */
static const int32_t *order_of(sag_loader *l, int64_t epoch)
{
    int i = (int)(epoch & 1);
    if (l->epochs[i].epoch != epoch) {
        sag_shuffle_epoch(l->seed, epoch, l->ds->info.count, l->epochs[i].order);
        l->epochs[i].epoch = epoch;
    }
    return l->epochs[i].order;
}

static void choose_indices(sag_loader *l, slot *s)
{
    int64_t count = l->ds->info.count, place = s->step * l->batch; /* cannot overflow: checked in take */
    for (int64_t j = 0; j < l->batch; j++, place++) s->indices[j] = order_of(l, place / count)[place % count];
}

/* Under the lock: the slot of the earliest step in the window that is not prepared. A slot serves step % n_slots. */
static slot *claim(sag_loader *l)
{
    for (int64_t step = l->next; step < l->next + l->n_slots; step++) {
        slot *s = &l->slots[step % l->n_slots];
        if (s->state == BUSY || (s->state == READY && s->step == step)) continue;
        s->step = step;
        s->state = BUSY;
        choose_indices(l, s);
        return s;
    }
    return NULL;
}

static void *worker_main(void *arg)
{
    sag_loader *l = arg;
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        slot *s = claim(l);
        if (!s) {
            pthread_cond_wait(&l->wake, &l->lock);
            continue;
        }
        pthread_mutex_unlock(&l->lock);
        sag_status status = sag_dataset_batch(l->ds, s->indices, l->batch, s->images, s->labels);
        if (status != SAG_OK) {
            strncpy(s->message, sag_error_message(), sizeof s->message - 1);
            s->message[sizeof s->message - 1] = 0;
        }
        pthread_mutex_lock(&l->lock);
        s->status = status;
        s->state = READY; /* of s->step; if the window has moved away meanwhile, claim takes the slot again */
        pthread_cond_broadcast(&l->ready);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

sag_status sag_loader_take(sag_loader *l, int64_t step, const uint8_t **images, const int32_t **labels)
{
    if (step < 0 || step > (INT64_MAX >> 1) / l->batch - l->n_slots)
        SAG_FAIL(SAG_ERR_ARG, "loader: step %lld is out of range", (long long)step);
    slot *s = &l->slots[step % l->n_slots];
    pthread_mutex_lock(&l->lock);
    l->next = step;
    pthread_cond_broadcast(&l->wake);
    while (s->state != READY || s->step != step) {
        pthread_cond_wait(&l->ready, &l->lock);
        pthread_cond_broadcast(&l->wake); /* a slot that was busy with another step is free to claim now */
    }
    pthread_mutex_unlock(&l->lock);
    if (s->status != SAG_OK) SAG_FAIL(s->status, "loader: step %lld: %s", (long long)step, s->message);
    *images = s->images;
    *labels = s->labels;
    return SAG_OK;
}

void sag_loader_destroy(sag_loader *l)
{
    if (!l) return;
    if (l->has_lock) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_broadcast(&l->wake);
        pthread_mutex_unlock(&l->lock);
        for (int i = 0; i < l->n_workers; i++) pthread_join(l->workers[i], NULL);
        pthread_cond_destroy(&l->wake);
        pthread_cond_destroy(&l->ready);
        pthread_mutex_destroy(&l->lock);
    }
    for (int i = 0; l->slots && i < l->n_slots; i++) {
        sag_host_free(l->slots[i].images);
        sag_host_free(l->slots[i].labels);
        sag_host_free(l->slots[i].indices);
    }
    sag_host_free(l->slots);
    sag_host_free(l->epochs[0].order);
    sag_host_free(l->epochs[1].order);
    sag_host_free(l->workers);
    sag_dataset_release(l->ds);
    sag_host_free(l);
}

static bool allocate(sag_loader *l)
{
    const sag_dataset_info *in = &l->ds->info;
    size_t batch = (size_t)l->batch, pixels = batch * (size_t)in->height * (size_t)in->width * (size_t)in->channels;
    bool ok = (l->slots = sag_host_alloc(sizeof *l->slots * (size_t)l->n_slots)) != NULL;
    for (int i = 0; ok && i < l->n_slots; i++) {
        slot *s = &l->slots[i];
        s->step = -1;
        s->images = sag_host_alloc(pixels);
        s->labels = sag_host_alloc(sizeof *s->labels * batch);
        s->indices = sag_host_alloc(sizeof *s->indices * batch);
        ok = s->images && s->labels && s->indices;
    }
    for (int i = 0; ok && i < 2; i++) {
        l->epochs[i].epoch = -1;
        ok = (l->epochs[i].order = sag_host_alloc(sizeof(int32_t) * (size_t)in->count)) != NULL;
    }
    return ok && (l->workers = sag_host_alloc(sizeof *l->workers * (size_t)l->n_workers));
}

sag_status sag_loader_create(sag_dataset *ds, int64_t batch, uint64_t seed, int slots, int workers, sag_loader **out)
{
    *out = NULL;
    int64_t image = (int64_t)ds->info.height * ds->info.width * ds->info.channels;
    if (batch < 1 || batch > ((int64_t)1 << 40) / image)
        SAG_FAIL(SAG_ERR_ARG, "loader: batch %lld is out of range", (long long)batch);
    if (slots < 2 || slots > 1024) SAG_FAIL(SAG_ERR_ARG, "loader: slots %d; 2 to 1024", slots);
    if (workers < 0 || workers > 64) SAG_FAIL(SAG_ERR_ARG, "loader: workers %d; 1 to 64, or 0", workers);
    if (workers == 0) {
        long cores = ds->images ? 0 : sysconf(_SC_NPROCESSORS_ONLN) / 4;
        workers = cores < 1 ? 1 : cores > 8 ? 8 : (int)cores;
    }
    sag_loader *l = sag_host_alloc(sizeof *l);
    if (!l) SAG_FAIL(SAG_ERR_MEMORY, "loader: out of memory");
    sag_dataset_retain(ds);
    l->ds = ds;
    l->batch = batch;
    l->seed = seed;
    l->n_slots = slots;
    l->n_workers = workers;
    if (!allocate(l)) {
        l->n_workers = 0;
        sag_loader_destroy(l);
        SAG_FAIL(SAG_ERR_MEMORY, "loader: out of memory for %d slots of %lld images", slots, (long long)batch);
    }
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->wake, NULL);
    pthread_cond_init(&l->ready, NULL);
    l->has_lock = true;
    for (int i = 0; i < workers; i++)
        if (pthread_create(&l->workers[i], NULL, worker_main, l) != 0) {
            l->n_workers = i;
            sag_loader_destroy(l);
            SAG_FAIL(SAG_ERR_IO, "loader: the system has no thread left for prefetching");
        }
    *out = l;
    return SAG_OK;
}
