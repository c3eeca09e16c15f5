/*
 * folder.c - data sets of image files in class folders, from a folder or out of a .tar or .tar.gz as it is.
 *
 * Two passes: names first (folder_scan.c), so that classes, order and the room needed are known; then the files, some
 * hundred at a time, decoded by several threads, each straight to its place. Order and content do not depend on threads
 * or on the order in an archive. Unreadable images are left out, up to one in a hundred.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/data/folder.h"
#include "engine/io/archive.h"
#include "engine/io/file.h"
#include "engine/io/image.h"

enum { CHUNK = 512, PROBES = 32 };
#define CHUNK_BYTES ((size_t)64 << 20)

typedef struct job {
    int64_t position;
    uint8_t *bytes; /* owned; NULL: read the file */
    size_t size;
    sag_status status;
    char message[200];
} job;

typedef struct decoder {
    const sag_open_request *r;
    folder_scan *scan;
    sag_dataset *ds;
    int64_t *by_path; /* positions sorted by path, to find members; archives only */
    uint8_t *valid;   /* [count] */
    job *jobs;
    int n_jobs;
    size_t bytes;
    int64_t done, bad;
    char first_bad[256];
    /* probing: size and channels as found */
    bool probing;
    int probed, side, channels;
} decoder;

/* ------------------------------------------------------------------------------------------------ decoding */

static void decode(const decoder *d, job *j)
{
    const sag_dataset_info *in = &d->ds->info;
    const char *name = folder_path(d->scan, j->position);
    size_t out_bytes = (size_t)in->height * (size_t)in->width * (size_t)in->channels;
    sag_image image = {0};
    char *path = NULL;
    j->status = SAG_OK;
    if (!j->bytes) {
        path = sag_data_text("%s/%s", d->r->path, name);
        j->status = path ? sag_file_read(path, SAG_IMAGE_MAX_SIDE * (int64_t)SAG_IMAGE_MAX_SIDE, &j->bytes, &j->size)
                         : sag_fail(SAG_ERR_MEMORY, "out of memory");
    }
    if (j->status == SAG_OK) j->status = sag_image_decode(j->bytes, j->size, name, in->channels, &image);
    if (j->status == SAG_OK)
        j->status = sag_data_fit(image.pixels, image.height, image.width, image.channels,
                                 d->ds->owned + (size_t)j->position * out_bytes, in->height, in->width, in->channels);
    if (j->status != SAG_OK) { /* the message is this thread's */
        strncpy(j->message, sag_error_message(), sizeof j->message - 1);
        j->message[sizeof j->message - 1] = 0;
    }
    sag_image_free(&image);
    sag_host_free(path);
    sag_host_free(j->bytes);
    j->bytes = NULL;
}

static sag_status flush(decoder *d)
{
    const int threads = sag_data_threads(d->r->o), n = d->n_jobs;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 4)
    for (int i = 0; i < n; i++) decode(d, &d->jobs[i]);
    d->n_jobs = 0;
    d->bytes = 0;
    for (int i = 0; i < n; i++) {
        const job *j = &d->jobs[i];
        if (j->status != SAG_OK && j->status != SAG_ERR_FORMAT) SAG_FAIL(j->status, "%s: %s", d->r->spec, j->message);
        d->valid[j->position] = j->status == SAG_OK;
        if (j->status != SAG_OK && d->bad++ == 0) memcpy(d->first_bad, j->message, sizeof j->message);
    }
    d->done += n;
    if (d->bad * 100 > d->scan->count)
        SAG_FAIL(SAG_ERR_FORMAT,
                 "%s: more than 1 %% of its images cannot be read (%lld of the first %lld); the first: %s", d->r->spec,
                 (long long)d->bad, (long long)d->done, d->first_bad);
    return sag_data_progress(d->r->o, d->done < d->scan->count ? d->done : d->scan->count, d->scan->count);
}

static void drop_jobs(decoder *d)
{
    for (int i = 0; i < d->n_jobs; i++) sag_host_free(d->jobs[i].bytes);
    d->n_jobs = 0;
}

/* ------------------------------------------------------------------------------------------------- archive */

static int compare_paths(const void *a, const void *b, void *user)
{
    return strcmp(folder_path(user, *(const int64_t *)a), folder_path(user, *(const int64_t *)b));
}

static int64_t position_of(const decoder *d, const char *name)
{
    int64_t low = 0, high = d->scan->count - 1;
    while (low <= high) {
        int64_t mid = (low + high) / 2;
        int c = strcmp(name, folder_path(d->scan, d->by_path[mid]));
        if (c == 0) return d->by_path[mid];
        if (c < 0)
            high = mid - 1;
        else
            low = mid + 1;
    }
    return -1;
}

static bool wants_chosen(void *user, const char *name, int64_t size)
{
    (void)size;
    return position_of(user, name) >= 0;
}

static void probe(decoder *d, const char *name, const uint8_t *bytes, size_t size)
{
    int h, w, c;
    if (sag_image_probe(bytes, size, name, &h, &w, &c) != SAG_OK) return;
    int side = h < w ? h : w;
    if (d->probed == 0 || side < d->side) d->side = side;
    d->channels = c > d->channels ? c : d->channels;
    d->probed++;
}

static sag_status take_member(void *user, const sag_archive_member *m, bool *stop)
{
    decoder *d = user;
    if (d->probing) {
        probe(d, m->name, m->bytes, m->size);
        *stop = d->probed >= PROBES;
        return SAG_OK;
    }
    int64_t position = position_of(d, m->name);
    for (int i = 0; i < d->n_jobs; i++) /* the same member twice must not be decoded by two threads at once */
        if (d->jobs[i].position == position) {
            SAG_TRY(flush(d));
            break;
        }
    job *j = &d->jobs[d->n_jobs];
    *j = (job){.position = position, .bytes = sag_host_alloc(m->size + 1), .size = m->size};
    if (!j->bytes) SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory for %s", d->r->spec, m->name);
    memcpy(j->bytes, m->bytes, m->size);
    d->n_jobs++;
    d->bytes += m->size;
    return d->n_jobs == CHUNK || d->bytes > CHUNK_BYTES ? flush(d) : SAG_OK;
}

/* -------------------------------------------------------------------------------------------------- passes */

static sag_status walk(decoder *d)
{
    sag_archive_visitor v = {.user = d, .wants = wants_chosen, .visit = take_member};
    SAG_TRY(sag_archive_walk(d->r->path, &v));
    return SAG_OK;
}

/* Size and channels as found, from the first images: the shortest side, and colour if one of them has it. */
static sag_status probe_some(decoder *d)
{
    if (d->scan->archive) {
        d->probing = true;
        SAG_TRY(walk(d));
        d->probing = false;
    } else {
        int64_t n = d->scan->count < PROBES ? d->scan->count : PROBES;
        for (int64_t i = 0; i < n; i++) {
            const char *name = folder_path(d->scan, sag_data_chosen_at(i, n, d->scan->count));
            uint8_t *bytes = NULL;
            size_t size = 0;
            char *path = sag_data_text("%s/%s", d->r->path, name);
            sag_status s = path ? sag_file_read(path, 0, &bytes, &size) : sag_fail(SAG_ERR_MEMORY, "out of memory");
            sag_host_free(path);
            SAG_TRY(s);
            probe(d, name, bytes, size);
            sag_host_free(bytes);
        }
    }
    if (d->probed == 0)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: none of its first images can be read: %s", d->r->spec, sag_error_message());
    return SAG_OK;
}

/* Images that could not be read leave no gap. */
static sag_status close_gaps(decoder *d)
{
    sag_dataset *ds = d->ds;
    size_t bytes = (size_t)ds->info.height * (size_t)ds->info.width * (size_t)ds->info.channels;
    int64_t kept = 0, n = d->scan->count;
    for (int64_t i = 0; i < n; i++) {
        int32_t label = d->scan->entry[i].label;
        if (!d->valid[i]) {
            bool left = (kept > 0 && ds->labels[kept - 1] == label);
            for (int64_t j = i + 1; j < n && !left && d->scan->entry[j].label == label; j++) left = d->valid[j];
            if (!left)
                SAG_FAIL(SAG_ERR_FORMAT,
                         "%s: class %s ends up with no images: none of its files can be read; the first: %s",
                         d->r->spec, d->scan->classes[label], d->first_bad);
            continue;
        }
        ds->labels[kept] = label;
        if (kept != i) memmove(ds->owned + (size_t)kept * bytes, ds->owned + (size_t)i * bytes, bytes);
        kept++;
    }
    ds->info.skipped = n - kept;
    if (kept < n) sag_data_shrink(ds, kept);
    return SAG_OK;
}

static sag_status run(decoder *d)
{
    int64_t n = d->scan->count;
    d->jobs = sag_host_alloc(sizeof *d->jobs * CHUNK);
    d->valid = sag_host_alloc((size_t)n);
    d->by_path = d->scan->archive ? sag_host_alloc(sizeof *d->by_path * (size_t)n) : NULL;
    if (!d->jobs || !d->valid || (d->scan->archive && !d->by_path))
        SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory", d->r->spec);
    for (int64_t i = 0; i < n && d->by_path; i++) d->by_path[i] = i;
    if (d->by_path) qsort_r(d->by_path, (size_t)n, sizeof *d->by_path, compare_paths, d->scan);
    d->side = d->r->o->resolution;
    d->channels = d->r->o->channels;
    if (!d->side || !d->channels) {
        SAG_TRY(probe_some(d));
        if (d->r->o->resolution) d->side = d->r->o->resolution;
        if (d->r->o->channels) d->channels = d->r->o->channels;
    }
    SAG_TRY(sag_data_reserve(d->r, d->ds, n, d->side, d->side, d->channels));
    if (d->scan->archive) {
        SAG_TRY(walk(d));
    } else {
        for (int64_t i = 0; i < n; i++) {
            d->jobs[d->n_jobs++] = (job){.position = i};
            if (d->n_jobs == CHUNK) SAG_TRY(flush(d));
        }
    }
    SAG_TRY(flush(d));
    return close_gaps(d);
}

sag_status sag_folder_open(const sag_open_request *r, sag_dataset *ds)
{
    folder_scan scan = {.r = r};
    decoder d = {.r = r, .scan = &scan, .ds = ds};
    sag_status s = sag_data_set_name(ds, NULL);
    if (s == SAG_OK) s = sag_folder_list(&scan);
    if (s == SAG_OK) s = sag_folder_choose(&scan);
    if (s == SAG_OK) s = sag_data_set_classes(ds, scan.classes, scan.n_classes);
    if (s == SAG_OK) s = run(&d);
    drop_jobs(&d);
    sag_host_free(d.jobs);
    sag_host_free(d.valid);
    sag_host_free(d.by_path);
    sag_folder_scan_free(&scan);
    return s;
}
