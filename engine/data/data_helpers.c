/* data_helpers.c - what every source needs: names, room for the images, limits, and fitting one image to the asked
 * size. */
#include <errno.h>
#include <fcntl.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/data/dataset_internal.h"
#include "engine/io/file.h"
#include "engine/io/image.h"

char *sag_data_text(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) return NULL;
    char *s = sag_host_alloc((size_t)n + 1);
    if (!s) return NULL;
    va_start(ap, fmt);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return s;
}

char *sag_data_base_name(const char *path)
{
    static const char *const endings[] = {".tar.gz", ".tgz", ".tar", ".gz", ".safetensors"};
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/') start--;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(endings[i]);
        if (end - start > n && strncmp(path + end - n, endings[i], n) == 0) {
            end -= n;
            break;
        }
    }
    return sag_data_text("%.*s", (int)(end - start), path + start);
}

sag_status sag_data_set_name(sag_dataset *ds, const char *name)
{
    char *copy = name ? sag_data_text("%s", name) : sag_data_base_name(strchr(ds->info.spec, ':') + 1);
    if (!copy) SAG_FAIL(SAG_ERR_MEMORY, "data set %s: out of memory for its name", ds->info.spec);
    sag_host_free((void *)ds->info.name);
    ds->info.name = copy;
    return SAG_OK;
}

sag_status sag_data_set_classes(sag_dataset *ds, const char *const *names, int classes)
{
    char **list = sag_host_alloc(sizeof *list * (size_t)classes);
    if (!list) SAG_FAIL(SAG_ERR_MEMORY, "data set: out of memory for %d class names", classes);
    ds->info.class_names = (const char *const *)list;
    ds->info.classes = classes;
    for (int i = 0; i < classes; i++) {
        list[i] = names ? sag_data_text("%s", names[i]) : sag_data_text("%d", i);
        if (!list[i]) SAG_FAIL(SAG_ERR_MEMORY, "data set: out of memory for class names");
    }
    return SAG_OK;
}

/* ------------------------------------------------------------------------------------------------- room */

static int64_t memory_limit(const sag_dataset_options *o)
{
    if (o->max_bytes > 0) return o->max_bytes;
    int64_t pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? pages * page / 2 : (int64_t)1 << 31;
}

/* A mapped file without a name in the folder of `beside`: pages that do not fit in memory go to disk by themselves. */
static sag_status spool_open(const char *beside, size_t bytes, uint8_t **out)
{
    const char *slash = strrchr(beside, '/');
    char *folder = slash ? sag_data_text("%.*s", (int)(slash - beside) + 1, beside) : sag_data_text(".");
    if (!folder) SAG_FAIL(SAG_ERR_MEMORY, "pack %s: out of memory", beside);
    sag_status s = SAG_OK;
    int fd = -1;
    int64_t disk = 0;
    if ((s = sag_file_free_disk(folder, &disk)) != SAG_OK) goto done;
    if (disk / 2 < (int64_t)bytes) {
        s = sag_fail(SAG_ERR_IO,
                     "pack %s: needs %.1f GB on its disk while it is written, %.1f GB are free: choose another disk, a "
                     "lower resolution or a limit",
                     beside, 2e-9 * (double)bytes, 1e-9 * (double)disk);
        goto done;
    }
    fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) { /* not every file system has O_TMPFILE */
        char *name = sag_data_text("%s.spool-XXXXXX", beside);
        if (!name) {
            s = sag_fail(SAG_ERR_MEMORY, "pack %s: out of memory", beside);
            goto done;
        }
        fd = mkostemp(name, O_CLOEXEC);
        if (fd >= 0) unlink(name);
        sag_host_free(name);
    }
    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0) {
        s = sag_fail(SAG_ERR_IO, "pack %s: cannot make a temporary file beside it: %s", beside, strerror(errno));
        goto done;
    }
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        s = sag_fail(SAG_ERR_IO, "pack %s: cannot map %zu bytes of a temporary file: %s", beside, bytes,
                     strerror(errno));
    else
        *out = map;
done:
    if (fd >= 0) close(fd);
    sag_host_free(folder);
    return s;
}

sag_status sag_data_reserve(const sag_open_request *r, sag_dataset *ds, int64_t n, int h, int w, int c)
{
    int64_t bytes = 0;
    if (n < 1) SAG_FAIL(SAG_ERR_FORMAT, "%s: no images", r->spec);
    if (h < 1 || w < 1 || h > SAG_IMAGE_MAX_SIDE || w > SAG_IMAGE_MAX_SIDE || (c != 1 && c != 3))
        SAG_FAIL(SAG_ERR_FORMAT, "%s: images of %dx%d pixels with %d channels: sides are 1 to %d, channels 1 or 3",
                 r->spec, h, w, c, SAG_IMAGE_MAX_SIDE);
    /* labels and loaders count images in 31 bits */
    if (n > INT32_MAX || __builtin_mul_overflow(n, (int64_t)h * w * c, &bytes))
        SAG_FAIL(SAG_ERR_FORMAT,
                 "%s: %lld images of %dx%dx%d do not fit in any memory: is the count in the file right?", r->spec,
                 (long long)n, h, w, c);
    int64_t most = memory_limit(r->o);
    bool spooled = r->spool && bytes > most;
    if (!spooled && bytes > most)
        SAG_FAIL(
            SAG_ERR_ARG,
            "%s: %lld images at %dx%dx%d need %.2f GB of memory, the limit is %.2f GB: write them once with `sagan-lua "
            "pack %s -o FILE` and train from pack:FILE, or ask for a lower resolution or a limit",
            r->spec, (long long)n, h, w, c, 1e-9 * (double)bytes, 1e-9 * (double)most, r->spec);
    if (spooled) {
        SAG_TRY(spool_open(r->spool, (size_t)bytes, &ds->owned));
        ds->spooled = (size_t)bytes;
    } else {
        ds->owned = sag_host_alloc((size_t)bytes);
    }
    ds->labels = sag_host_alloc(sizeof *ds->labels * (size_t)n);
    if (!ds->owned || !ds->labels)
        SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory for %lld images at %dx%dx%d (%.2f GB)", r->spec, (long long)n, h, w,
                 c, 1e-9 * (double)bytes);
    ds->images = ds->owned;
    ds->info.count = n;
    ds->info.height = h;
    ds->info.width = w;
    ds->info.channels = c;
    return SAG_OK;
}

void sag_data_shrink(sag_dataset *ds, int64_t n)
{
    ds->info.count = n;
    if (ds->spooled || n < 1) return;
    size_t bytes = (size_t)n * (size_t)ds->info.height * (size_t)ds->info.width * (size_t)ds->info.channels;
    uint8_t *smaller = sag_host_realloc(ds->owned, bytes);
    if (smaller) ds->images = ds->owned = smaller; /* else the larger block serves as well */
}

void sag_data_free_images(sag_dataset *ds)
{
    if (ds->spooled)
        munmap(ds->owned, ds->spooled);
    else
        sag_host_free(ds->owned);
    ds->owned = NULL;
    ds->images = NULL;
    ds->spooled = 0;
}

/* -------------------------------------------------------------------------------------- limit, progress */

int64_t sag_data_chosen(const sag_open_request *r, int64_t n)
{
    return r->o->limit > 0 && r->o->limit < n ? r->o->limit : n;
}

int64_t sag_data_chosen_at(int64_t i, int64_t chosen, int64_t n)
{
    return (int64_t)((__int128)i * n / chosen);
}

sag_status sag_data_progress(const sag_dataset_options *o, int64_t done, int64_t total)
{
    if (o->progress && !o->progress(o->progress_user, done, total)) SAG_FAIL(SAG_ERR_STATE, "stopped on request");
    return SAG_OK;
}

int sag_data_threads(const sag_dataset_options *o)
{
#ifdef __SANITIZE_THREAD__
    (void)o;
    return 1; /* libgomp's barriers are invisible to the thread sanitizer */
#else
    int n = o->threads > 0 ? o->threads : omp_get_max_threads();
    return n > 64 ? 64 : n;
#endif
}

/* -------------------------------------------------------------------------------------------------- fit */

sag_status sag_data_fit(const uint8_t *src, int h, int w, int c, uint8_t *dst, int dst_h, int dst_w, int dst_c)
{
    size_t bytes = (size_t)dst_h * (size_t)dst_w * (size_t)dst_c;
    sag_image in = {(uint8_t *)src, h, w, c}, stage[3] = {{0}}; /* `in` is only read */
    const sag_image *now = &in;
    sag_status s = SAG_OK;
    if (c != dst_c) {
        if ((s = sag_image_convert(now, dst_c, &stage[0])) != SAG_OK) goto done;
        now = &stage[0];
    }
    if (h != w && (h != dst_h || w != dst_w)) {
        if ((s = sag_image_crop_square(now, &stage[1])) != SAG_OK) goto done;
        now = &stage[1];
    }
    if (now->height != dst_h || now->width != dst_w) {
        if ((s = sag_image_resize(now, dst_h, dst_w, &stage[2])) != SAG_OK) goto done;
        now = &stage[2];
    }
    memcpy(dst, now->pixels, bytes);
done:
    for (int i = 0; i < 3; i++) sag_image_free(&stage[i]);
    return s;
}

static int32_t label_at(const void *labels, int label_bytes, int64_t i)
{
    int32_t x = 0;
    if (!labels) return 0;
    if (label_bytes == 1) return ((const uint8_t *)labels)[i];
    memcpy(&x, (const uint8_t *)labels + 4 * i, 4); /* in a map, perhaps unaligned */
    return x;
}

sag_status sag_data_take_raw(const sag_open_request *r, sag_dataset *ds, const uint8_t *src, const void *labels,
                             int label_bytes, int64_t n, int h, int w, int c)
{
    enum { CHUNK = 2048 };
    int side = r->o->resolution, channels = r->o->channels ? r->o->channels : c;
    int64_t chosen = sag_data_chosen(r, n);
    SAG_TRY(sag_data_reserve(r, ds, chosen, side ? side : h, side ? side : w, channels));
    const int64_t in_bytes = (int64_t)h * w * c;
    const int64_t out_bytes = (int64_t)ds->info.height * ds->info.width * channels;
    const int out_h = ds->info.height, out_w = ds->info.width, threads = sag_data_threads(r->o);
    for (int64_t first = 0; first < chosen; first += CHUNK) {
        int64_t last = first + CHUNK < chosen ? first + CHUNK : chosen;
        int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : failed)
        for (int64_t i = first; i < last; i++) {
            int64_t from = sag_data_chosen_at(i, chosen, n);
            ds->labels[i] = label_at(labels, label_bytes, from);
            failed |= sag_data_fit(src + from * in_bytes, h, w, c, ds->owned + i * out_bytes, out_h, out_w, channels) !=
                      SAG_OK;
        }
        if (failed) SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory while resizing images", r->spec);
        SAG_TRY(sag_data_progress(r->o, last, chosen));
    }
    return SAG_OK;
}
