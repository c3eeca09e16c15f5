/*
 * pack.c - data sets decoded once and for all: a safetensors file with `images` u8 {N,H,W,C} and `labels` i32 {N},
 * which training maps instead of decoding.
 *
 * Metadata: format "sagan-pack", name, split, source, skipped, and class_names with a newline between names.
 * Asked for another resolution, other channels or a limit, a pack is not mapped: its images are fitted into memory,
 * like those of any other source.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/data/dataset_internal.h"
#include "engine/io/safetensors.h"

/* ------------------------------------------------------------------------------------------------- reading */

static void pack_close(sag_dataset *ds)
{
    sag_safetensors_close(ds->state);
}

static sag_status read_class_names(sag_dataset *ds, const char *joined, int highest, const char *path)
{
    if (!joined) return sag_data_set_classes(ds, NULL, highest + 1);
    int n = 1;
    for (const char *p = joined; *p; p++) n += *p == '\n';
    if (highest >= n)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: label %d is out of range for the %d class names of the metadata", path, highest,
                 n);
    char *text = sag_data_text("%s", joined);
    const char **names = sag_host_alloc(sizeof *names * (size_t)n);
    sag_status s = SAG_ERR_MEMORY;
    if (text && names) {
        char *p = text;
        for (int i = 0; i < n; i++) {
            names[i] = p;
            p += strcspn(p, "\n");
            if (*p) *p++ = 0;
        }
        s = sag_data_set_classes(ds, names, n);
    } else {
        sag_fail(s, "%s: out of memory for class names", path);
    }
    sag_host_free(names);
    sag_host_free(text);
    return s;
}

static sag_status check_tensors(const char *path, const sag_safetensors_entry *im, const sag_safetensors_entry *la)
{
    if (!im || !la)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: not a pack: no tensor `%s` in it; `sagan-lua pack SOURCE -o FILE` writes packs",
                 path, im ? "labels" : "images");
    if (!im->supported || im->dtype != SAG_U8 || im->rank != 4 || (im->dim[3] != 1 && im->dim[3] != 3))
        SAG_FAIL(SAG_ERR_FORMAT, "%s: tensor `images` is %s of rank %d; a pack has U8 {N, H, W, 1 or 3}", path,
                 im->dtype_name, im->rank);
    if (!la->supported || la->dtype != SAG_I32 || la->rank != 1 || la->dim[0] != im->dim[0])
        SAG_FAIL(SAG_ERR_FORMAT, "%s: tensor `labels` is %s with %lld elements; a pack has I32 {N}, here N = %lld",
                 path, la->dtype_name, la->rank == 1 ? (long long)la->dim[0] : 0, (long long)im->dim[0]);
    if (im->dim[0] < 1 || im->dim[0] > INT32_MAX || im->dim[1] < 1 || im->dim[1] > 1 << 14 || im->dim[2] < 1 ||
        im->dim[2] > 1 << 14)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: %lld images of %lldx%lld: nothing to train on", path, (long long)im->dim[0],
                 (long long)im->dim[1], (long long)im->dim[2]);
    return SAG_OK;
}

sag_status sag_pack_open(const sag_open_request *r, sag_dataset *ds)
{
    static const sag_dataset_source source = {.close = pack_close};
    sag_safetensors *file = NULL;
    SAG_TRY(sag_safetensors_open(r->path, &file));
    ds->source = &source;
    ds->state = file; /* closed with ds */
    const sag_safetensors_entry *im = sag_safetensors_find(file, "images"), *la = sag_safetensors_find(file, "labels");
    SAG_TRY(check_tensors(r->path, im, la));
    const char *split = sag_safetensors_meta(file, "split"), *name = sag_safetensors_meta(file, "name");
    if (split && strcmp(split, r->split) != 0)
        SAG_FAIL(SAG_ERR_IO, "%s: this pack holds the %s split, not %s: pack that one into a file of its own", r->spec,
                 split, r->split);
    int64_t n = im->dim[0];
    int32_t highest = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t label;
        memcpy(&label, la->data + 4 * i, 4);
        if (label < 0) SAG_FAIL(SAG_ERR_FORMAT, "%s: label %lld is %d: negative", r->path, (long long)i, label);
        highest = label > highest ? label : highest;
    }
    if (highest > 1 << 24)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: a label is %d: more classes than anyone trains on", r->path, highest);
    SAG_TRY(read_class_names(ds, sag_safetensors_meta(file, "class_names"), highest, r->path));
    SAG_TRY(sag_data_set_name(ds, name));
    const char *skipped = sag_safetensors_meta(file, "skipped");
    ds->info.skipped = skipped ? strtoll(skipped, NULL, 10) : 0;
    int h = (int)im->dim[1], w = (int)im->dim[2], c = (int)im->dim[3];
    bool same = (r->o->resolution == 0 || (r->o->resolution == h && h == w)) &&
                (r->o->channels == 0 || r->o->channels == c) && sag_data_chosen(r, n) == n;
    if (!same) return sag_data_take_raw(r, ds, im->data, la->data, 4, n, h, w, c);
    ds->labels = sag_host_alloc(sizeof *ds->labels * (size_t)n);
    if (!ds->labels) SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory for %lld labels", r->path, (long long)n);
    memcpy(ds->labels, la->data, sizeof *ds->labels * (size_t)n);
    ds->images = im->data;
    ds->info.count = n;
    ds->info.height = h;
    ds->info.width = w;
    ds->info.channels = c;
    return SAG_OK;
}

/* ------------------------------------------------------------------------------------------------- writing */

typedef struct pack_stream {
    const sag_dataset *ds;
    uint8_t *image; /* the one that is being handed out */
    size_t bytes, used;
    int64_t next;
    sag_dataset_options o; /* progress */
} pack_stream;

static sag_status fill(void *user, void *dst, size_t bytes)
{
    pack_stream *p = user;
    uint8_t *out = dst;
    while (bytes > 0) {
        if (p->used == p->bytes) {
            SAG_TRY(sag_dataset_get(p->ds, p->next++, p->image, NULL));
            p->used = 0;
            if (p->next % 256 == 0 || p->next == p->ds->info.count)
                SAG_TRY(sag_data_progress(&p->o, p->next, p->ds->info.count));
        }
        size_t n = p->bytes - p->used < bytes ? p->bytes - p->used : bytes;
        memcpy(out, p->image + p->used, n);
        p->used += n;
        out += n;
        bytes -= n;
    }
    return SAG_OK;
}

static char *join_class_names(const sag_dataset *ds)
{
    size_t n = 1;
    for (int i = 0; i < ds->info.classes; i++) n += strlen(ds->info.class_names[i]) + 1;
    char *all = sag_host_alloc(n), *p = all;
    for (int i = 0; all && i < ds->info.classes; i++) {
        if (i) *p++ = '\n';
        for (const char *q = ds->info.class_names[i]; *q; q++) *p++ = *q == '\n' ? ' ' : *q;
    }
    return all;
}

sag_status sag_dataset_write_pack(const sag_dataset *ds, const char *path, sag_progress_fn progress, void *user)
{
    const sag_dataset_info *in = &ds->info;
    size_t bytes = (size_t)in->height * (size_t)in->width * (size_t)in->channels;
    pack_stream p = {.ds = ds,
                     .image = sag_host_alloc(bytes),
                     .bytes = bytes,
                     .used = bytes,
                     .o = {.progress = progress, .progress_user = user}};
    char *names = join_class_names(ds);
    char skipped[32];
    snprintf(skipped, sizeof skipped, "%lld", (long long)in->skipped);
    sag_status s = SAG_ERR_MEMORY;
    if (p.image && names) {
        sag_safetensors_item items[2] = {
            {.name = "images",
             .dtype = SAG_U8,
             .shape = sag_shape4(in->count, in->height, in->width, in->channels),
             .fill = fill,
             .user = &p},
            {.name = "labels", .dtype = SAG_I32, .shape = sag_shape1(in->count), .data = ds->labels}};
        sag_safetensors_pair meta[6] = {{"format", "sagan-pack"}, {"name", in->name},     {"split", in->split},
                                        {"source", in->spec},     {"class_names", names}, {"skipped", skipped}};
        s = sag_safetensors_write(path, items, 2, meta, 6);
    } else {
        sag_fail(s, "pack %s: out of memory", path);
    }
    sag_host_free(names);
    sag_host_free(p.image);
    return s;
}

sag_status sag_dataset_pack(const char *spec, const sag_dataset_options *options, const char *path, int64_t *count)
{
    sag_dataset *ds = NULL;
    SAG_TRY(sag_dataset_open_spooled(spec, options, path, &ds));
    sag_status s =
        sag_dataset_write_pack(ds, path, options ? options->progress : NULL, options ? options->progress_user : NULL);
    if (s == SAG_OK && count) *count = ds->info.count;
    sag_dataset_release(ds);
    return s;
}
