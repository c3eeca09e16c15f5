/* dataset.c - opening a data set by its spec, and what can be asked of any of them. The sources are in their own files.
 */
#include <stdio.h>
#include <string.h>

#include "engine/data/dataset_internal.h"
#include "engine/io/archive.h"
#include "engine/io/file.h"
#include "engine/io/image.h"

typedef sag_status (*open_fn)(const sag_open_request *r, sag_dataset *ds);

static const struct {
    const char *name;
    bool needs_path;
    open_fn open;
} sources[] = {
    {"fashion-mnist", false, sag_fashion_open},
    {"idx", true, sag_idx_open},
    {"cifar10", true, sag_cifar10_open},
    {"folder", true, sag_folder_open},
    {"pack", true, sag_pack_open},
    {"quadrupeds", false, sag_quadrupeds_open},
};
#define N_SOURCES ((int)(sizeof sources / sizeof *sources))
#define SPEC_FORMS "auto, fashion-mnist, idx:PATH, cifar10:PATH, folder:PATH, pack:FILE, quadrupeds[:COUNT] or a path"

/* ------------------------------------------------------------------------------------------- recognition */

/* What a bare path is, from what it holds. */
static sag_status recognise(const char *path, const char **kind)
{
    sag_file_info info;
    SAG_TRY(sag_file_stat(path, &info));
    *kind = NULL;
    if (info.type == SAG_FILE_MISSING)
        SAG_FAIL(SAG_ERR_IO, "data set %s: neither a source nor a path that exists; a data set is one of " SPEC_FORMS,
                 path);
    if (info.type == SAG_FILE_FOLDER) {
        *kind = sag_idx_present(path) ? "idx" : sag_cifar10_present(path) ? "cifar10" : "folder";
        return SAG_OK;
    }
    if (sag_archive_is(path)) {
        *kind = sag_cifar10_present(path) ? "cifar10" : "folder";
        return SAG_OK;
    }
    uint8_t head[16] = {0};
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(head, 1, sizeof head, f) : 0;
    if (f) fclose(f);
    bool gzip = n > 2 && head[0] == 0x1f && head[1] == 0x8b;
    bool idx = n > 4 && head[0] == 0 && head[1] == 0 && head[2] >= 8 && head[2] <= 14 && head[3] >= 1 && head[3] <= 4;
    if (gzip || idx)
        *kind = "idx";
    else if (n > 9 && head[8] == '{') /* safetensors: 8 bytes of header length, then JSON */
        *kind = "pack";
    else
        SAG_FAIL(SAG_ERR_FORMAT, "data set %s: not a pack, an archive (.tar, .tar.gz) or an IDX file", path);
    return SAG_OK;
}

static sag_status choose_source(const char *spec, int *source, char **resolved)
{
    char *s = NULL;
    *resolved = NULL;
    *source = -1;
    if (strcmp(spec, "auto") == 0) spec = sag_fashion_present() ? "fashion-mnist" : "quadrupeds";
    size_t n = strcspn(spec, ":");
    for (int i = 0; i < N_SOURCES; i++)
        if (strlen(sources[i].name) == n && strncmp(spec, sources[i].name, n) == 0) *source = i;
    if (*source >= 0) {
        if (sources[*source].needs_path && (spec[n] == 0 || spec[n + 1] == 0))
            SAG_FAIL(SAG_ERR_ARG, "data set %s: needs a path: %s:PATH", spec, sources[*source].name);
        s = sag_data_text("%s", spec);
    } else {
        const char *kind;
        if (spec[0] == 0) SAG_FAIL(SAG_ERR_ARG, "data set: the spec is empty; it is one of " SPEC_FORMS);
        SAG_TRY(recognise(spec, &kind));
        for (int i = 0; i < N_SOURCES; i++)
            if (strcmp(sources[i].name, kind) == 0) *source = i;
        s = sag_data_text("%s:%s", kind, spec);
    }
    if (!s) SAG_FAIL(SAG_ERR_MEMORY, "data set %s: out of memory", spec);
    *resolved = s;
    return SAG_OK;
}

/* -------------------------------------------------------------------------------------------------- open */

static sag_status check_options(const char *spec, const sag_dataset_options *o)
{
    if (o->resolution < 0 || o->resolution > SAG_IMAGE_MAX_SIDE)
        SAG_FAIL(SAG_ERR_ARG, "data set %s: resolution %d is not in 1..%d", spec, o->resolution, SAG_IMAGE_MAX_SIDE);
    if (o->channels != 0 && o->channels != 1 && o->channels != 3)
        SAG_FAIL(SAG_ERR_ARG, "data set %s: channels %d; images have 1 or 3", spec, o->channels);
    if (o->split && strcmp(o->split, "train") != 0 && strcmp(o->split, "test") != 0)
        SAG_FAIL(SAG_ERR_ARG, "data set %s: split \"%s\"; it is \"train\" or \"test\"", spec, o->split);
    if (o->limit < 0) SAG_FAIL(SAG_ERR_ARG, "data set %s: limit %lld is negative", spec, (long long)o->limit);
    return SAG_OK;
}

sag_status sag_dataset_open_spooled(const char *spec, const sag_dataset_options *o, const char *spool,
                                    sag_dataset **out)
{
    static const sag_dataset_options none = {0};
    int source = -1;
    char *resolved = NULL;
    *out = NULL;
    if (!spec) SAG_FAIL(SAG_ERR_ARG, "data set: no spec; it is one of " SPEC_FORMS);
    if (!o) o = &none;
    SAG_TRY(check_options(spec, o));
    SAG_TRY(choose_source(spec, &source, &resolved));
    sag_dataset *ds = sag_host_alloc(sizeof *ds);
    if (!ds) {
        sag_host_free(resolved);
        SAG_FAIL(SAG_ERR_MEMORY, "data set %s: out of memory", spec);
    }
    ds->refs = 1;
    ds->info.spec = resolved; /* owned by ds from here */
    ds->info.split = o->split && strcmp(o->split, "test") == 0 ? "test" : "train";
    const char *colon = strchr(resolved, ':');
    sag_open_request r = {
        .spec = resolved, .path = colon ? colon + 1 : "", .o = o, .split = ds->info.split, .spool = spool};
    sag_status s = sources[source].open(&r, ds);
    if (s != SAG_OK) {
        sag_dataset_release(ds);
        return s;
    }
    *out = ds;
    return SAG_OK;
}

sag_status sag_dataset_open(const char *spec, const sag_dataset_options *options, sag_dataset **out)
{
    return sag_dataset_open_spooled(spec, options, NULL, out);
}

void sag_dataset_retain(sag_dataset *ds)
{
    ds->refs++;
}

void sag_dataset_release(sag_dataset *ds)
{
    if (!ds || --ds->refs > 0) return;
    if (ds->source && ds->source->close) ds->source->close(ds);
    sag_data_free_images(ds);
    sag_host_free(ds->labels);
    for (int i = 0; i < ds->info.classes && ds->info.class_names; i++) sag_host_free((void *)ds->info.class_names[i]);
    sag_host_free((void *)ds->info.class_names);
    sag_host_free((void *)ds->info.name);
    sag_host_free((void *)ds->info.spec);
    sag_host_free(ds);
}

const sag_dataset_info *sag_dataset_describe(const sag_dataset *ds)
{
    return &ds->info;
}

/* ----------------------------------------------------------------------------------------------- reading */

static size_t image_bytes(const sag_dataset *ds)
{
    return (size_t)ds->info.height * (size_t)ds->info.width * (size_t)ds->info.channels;
}

sag_status sag_dataset_get(const sag_dataset *ds, int64_t index, uint8_t *pixels, int32_t *label)
{
    if (index < 0 || index >= ds->info.count)
        SAG_FAIL(SAG_ERR_ARG, "%s: image %lld of %lld (counted from 0)", ds->info.name, (long long)index,
                 (long long)ds->info.count);
    if (label) *label = ds->labels[index];
    if (!pixels) return SAG_OK;
    if (ds->images)
        memcpy(pixels, ds->images + (size_t)index * image_bytes(ds), image_bytes(ds));
    else
        ds->source->read(ds, index, pixels);
    return SAG_OK;
}

sag_status sag_dataset_batch(const sag_dataset *ds, const int64_t *indices, int64_t n, uint8_t *pixels, int32_t *labels)
{
    for (int64_t i = 0; i < n; i++)
        SAG_TRY(sag_dataset_get(ds, indices[i], pixels ? pixels + (size_t)i * image_bytes(ds) : NULL,
                                labels ? labels + i : NULL));
    return SAG_OK;
}

void sag_dataset_histogram(const sag_dataset *ds, int64_t *counts)
{
    memset(counts, 0, sizeof *counts * (size_t)ds->info.classes);
    for (int64_t i = 0; i < ds->info.count; i++) counts[ds->labels[i]]++;
}

int sag_dataset_legs(const sag_dataset *ds, int64_t index)
{
    if (!ds->source || !ds->source->legs || index < 0 || index >= ds->info.count) return -1;
    return ds->source->legs(ds, index);
}

/* ------------------------------------------------------------------------------------------ hash and check */

typedef struct digest {
    uint64_t a, b;
} digest;

/* Two 64-bit multiply-and-fold lanes; for telling data apart, not against an adversary. */
static void digest_word(digest *d, uint64_t w)
{
    d->a = (d->a ^ w) * 0x9e3779b97f4a7c15u;
    d->a ^= d->a >> 32;
    d->b = (d->b + w + 0x632be59bd9b4e019u) * 0xd6e8feb86659fd93u;
    d->b ^= d->b >> 29;
}

static void digest_bytes(digest *d, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    digest_word(d, n);
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        digest_word(d, w);
    }
    uint64_t last = 0;
    if (n) memcpy(&last, p, n);
    digest_word(d, last);
}

sag_status sag_dataset_hash(const sag_dataset *ds, char hex[33])
{
    enum { SAMPLES = 1024 };
    const sag_dataset_info *in = &ds->info;
    digest d = {1, 2};
    uint8_t *pixels = sag_host_alloc(image_bytes(ds));
    if (!pixels) SAG_FAIL(SAG_ERR_MEMORY, "%s: hash: out of memory", in->name);
    const int64_t size[5] = {in->count, in->height, in->width, in->channels, in->classes};
    digest_bytes(&d, size, sizeof size);
    for (int c = 0; c < in->classes; c++) digest_bytes(&d, in->class_names[c], strlen(in->class_names[c]));
    digest_bytes(&d, ds->labels, sizeof *ds->labels * (size_t)in->count);
    int64_t n = in->count < SAMPLES ? in->count : SAMPLES;
    sag_status s = SAG_OK;
    for (int64_t i = 0; i < n && s == SAG_OK; i++) {
        s = sag_dataset_get(ds, sag_data_chosen_at(i, n, in->count), pixels, NULL);
        digest_bytes(&d, pixels, image_bytes(ds));
    }
    sag_host_free(pixels);
    for (int i = 0; i < 4; i++) digest_word(&d, 0);
    snprintf(hex, 33, "%016llx%016llx", (unsigned long long)d.a, (unsigned long long)d.b);
    return s;
}

sag_status sag_dataset_check(const sag_dataset *ds)
{
    enum { SAMPLES = 256 };
    const sag_dataset_info *in = &ds->info;
    int filled = 0;
    for (int64_t i = 1; i < in->count && !filled; i++) filled = ds->labels[i] != ds->labels[0];
    if (!filled)
        SAG_FAIL(
            SAG_ERR_FORMAT,
            "%s: all %lld images are of one class (\"%s\"): check the path and its class sub-folders, or the labels",
            in->name, (long long)in->count, in->class_names[ds->labels[0]]);
    size_t bytes = image_bytes(ds);
    uint8_t *first = sag_host_alloc(2 * bytes), *now = first ? first + bytes : NULL;
    if (!first) SAG_FAIL(SAG_ERR_MEMORY, "%s: check: out of memory", in->name);
    int64_t n = in->count < SAMPLES ? in->count : SAMPLES, plain = 0, same = 0;
    sag_status s = sag_dataset_get(ds, 0, first, NULL);
    for (int64_t i = 0; i < n && s == SAG_OK; i++) {
        s = sag_dataset_get(ds, sag_data_chosen_at(i, n, in->count), now, NULL);
        plain += memcmp(now, now + in->channels, bytes - (size_t)in->channels) == 0;
        same += i > 0 && memcmp(now, first, bytes) == 0;
    }
    sag_host_free(first);
    if (s != SAG_OK) return s;
    if (plain * 10 > n * 9)
        SAG_FAIL(SAG_ERR_FORMAT,
                 "%s: %lld of %lld sampled images are one flat colour: the source is empty or was read wrongly",
                 in->name, (long long)plain, (long long)n);
    if (n > 2 && same * 10 > (n - 1) * 9)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: %lld of %lld sampled images are the same image: the source was read wrongly",
                 in->name, (long long)same + 1, (long long)n);
    return SAG_OK;
}
