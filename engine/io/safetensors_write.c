/*
 * safetensors_write.c - writing: header with spaces to a multiple of 8, then the tensors, streamed into an
 * atomic writer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "engine/io/safetensors.h"

#define PIECE ((size_t)1 << 20)

static const char *dtype_text(sag_dtype d)
{
    switch (d) {
    case SAG_F32: return "F32";
    case SAG_BF16: return "BF16";
    case SAG_U8: return "U8";
    case SAG_I32: return "I32";
    default: return NULL;
    }
}

static int item_order(const void *a, const void *b)
{
    const sag_safetensors_item *s = *(const sag_safetensors_item *const *)a,
                               *t = *(const sag_safetensors_item *const *)b;
    size_t ss = sag_dtype_size(s->dtype), st = sag_dtype_size(t->dtype);
    if (ss != st) return ss > st ? -1 : 1;
    return strcmp(s->name, t->name);
}

static int item_name(const void *a, const void *b)
{
    return strcmp((*(const sag_safetensors_item *const *)a)->name, (*(const sag_safetensors_item *const *)b)->name);
}

static int pair_key(const void *a, const void *b)
{
    return strcmp((*(const sag_safetensors_pair *const *)a)->key, (*(const sag_safetensors_pair *const *)b)->key);
}

static sag_status item_bytes(const sag_safetensors_item *item, int64_t *bytes)
{
    int64_t numel;
    SAG_TRY(sag_shape_numel(item->shape, &numel)); /* has checked that 8 bytes each would fit */
    *bytes = numel * (int64_t)sag_dtype_size(item->dtype);
    return SAG_OK;
}

/* Checks everything that could make a file that no one can read. *room: enough bytes for the header. */
static sag_status check(const char *path, const sag_safetensors_item **items, int64_t n,
                        const sag_safetensors_pair **meta, int64_t n_meta, size_t *room)
{
    size_t total = 64;
    if (n > 1) qsort(items, (size_t)n, sizeof *items, item_name);
    if (n_meta > 1) qsort(meta, (size_t)n_meta, sizeof *meta, pair_key);
    for (int64_t i = 0; i < n; i++) {
        if (!sag_utf8_valid(items[i]->name)) SAG_FAIL(SAG_ERR_ARG, "%s: the name of a tensor is not UTF-8", path);
        if (strcmp(items[i]->name, "__metadata__") == 0)
            SAG_FAIL(SAG_ERR_ARG, "%s: no tensor can be called __metadata__", path);
        if (i > 0 && strcmp(items[i]->name, items[i - 1]->name) == 0)
            SAG_FAIL(SAG_ERR_ARG, "%s: two tensors are called %s", path, items[i]->name);
        if (!dtype_text(items[i]->dtype)) SAG_FAIL(SAG_ERR_DTYPE, "%s: tensor %s has no dtype", path, items[i]->name);
        if (!items[i]->data && !items[i]->fill)
            SAG_FAIL(SAG_ERR_ARG, "%s: tensor %s has no data", path, items[i]->name);
        int64_t bytes;
        SAG_TRY(item_bytes(items[i], &bytes));
        total += strlen(items[i]->name) * 6 + 256;
    }
    for (int64_t i = 0; i < n_meta; i++) {
        if (!sag_utf8_valid(meta[i]->key) || !sag_utf8_valid(meta[i]->value))
            SAG_FAIL(SAG_ERR_ARG, "%s: metadata must be UTF-8", path);
        if (i > 0 && strcmp(meta[i]->key, meta[i - 1]->key) == 0)
            SAG_FAIL(SAG_ERR_ARG, "%s: metadata has two values for %s", path, meta[i]->key);
        total += (strlen(meta[i]->key) + strlen(meta[i]->value)) * 6 + 16;
    }
    if (n > 1) qsort(items, (size_t)n, sizeof *items, item_order);
    *room = total;
    return SAG_OK;
}

static size_t put(char *out, const char *text)
{
    size_t n = strlen(text);
    memcpy(out, text, n);
    return n;
}

static size_t make_header(char *out, const sag_safetensors_item **items, int64_t n, const sag_safetensors_pair **meta,
                          int64_t n_meta)
{
    char *o = out;
    *o++ = '{';
    if (n_meta > 0) {
        o += put(o, "\"__metadata__\":{");
        for (int64_t i = 0; i < n_meta; i++) {
            if (i > 0) *o++ = ',';
            o += sag_json_quote(meta[i]->key, o);
            *o++ = ':';
            o += sag_json_quote(meta[i]->value, o);
        }
        *o++ = '}';
        if (n > 0) *o++ = ',';
    }
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t bytes = 0;
        if (item_bytes(items[i], &bytes) != SAG_OK) return 0;
        if (i > 0) *o++ = ',';
        o += sag_json_quote(items[i]->name, o);
        o += sprintf(o, ":{\"dtype\":\"%s\",\"shape\":[", dtype_text(items[i]->dtype));
        for (int k = 0; k < items[i]->shape.rank; k++)
            o += sprintf(o, k ? ",%lld" : "%lld", (long long)items[i]->shape.dim[k]);
        o += sprintf(o, "],\"data_offsets\":[%lld,%lld]}", (long long)at, (long long)(at + bytes));
        at += bytes;
    }
    *o++ = '}';
    while ((o - out) % 8 != 0) *o++ = ' ';
    return (size_t)(o - out);
}

static sag_status write_tensor(sag_file_writer *w, const sag_safetensors_item *item, uint8_t *piece)
{
    int64_t bytes;
    SAG_TRY(item_bytes(item, &bytes));
    if (item->data) return sag_file_writer_write(w, item->data, (size_t)bytes);
    for (int64_t done = 0; done < bytes;) {
        size_t n = bytes - done < (int64_t)PIECE ? (size_t)(bytes - done) : PIECE;
        SAG_TRY(item->fill(item->user, piece, n));
        SAG_TRY(sag_file_writer_write(w, piece, n));
        done += (int64_t)n;
    }
    return SAG_OK;
}

static sag_status write_parts(const char *path, const char *header, size_t header_size,
                              const sag_safetensors_item **items, int64_t n, uint8_t *piece)
{
    sag_file_writer *w;
    SAG_TRY(sag_file_writer_open(path, &w));
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)header_size >> (8 * i));
    sag_status status = sag_file_writer_write(w, length, sizeof length);
    if (status == SAG_OK) status = sag_file_writer_write(w, header, header_size);
    for (int64_t i = 0; i < n && status == SAG_OK; i++) status = write_tensor(w, items[i], piece);
    if (status == SAG_OK) return sag_file_writer_commit(w);
    sag_file_writer_abort(w);
    return status;
}

sag_status sag_safetensors_write(const char *path, const sag_safetensors_item *items, int64_t n,
                                 const sag_safetensors_pair *meta, int64_t n_meta)
{
    sag_status status = SAG_OK;
    const sag_safetensors_item **item = sag_host_alloc((size_t)n * sizeof *item);
    const sag_safetensors_pair **pair = sag_host_alloc((size_t)n_meta * sizeof *pair);
    uint8_t *piece = sag_host_alloc(PIECE);
    char *header = NULL;
    if (!item || !pair || !piece) goto no_memory;
    for (int64_t i = 0; i < n; i++) item[i] = &items[i];
    for (int64_t i = 0; i < n_meta; i++) pair[i] = &meta[i];
    size_t room = 0;
    status = check(path, item, n, pair, n_meta, &room);
    if (status != SAG_OK) goto done;
    header = sag_host_alloc(room);
    if (!header) goto no_memory;
    size_t size = make_header(header, item, n, pair, n_meta);
    if (size > 100000000) {
        status =
            sag_fail(SAG_ERR_ARG, "%s: the header would have %zu bytes, readers take at most 100000000", path, size);
        goto done;
    }
    status = write_parts(path, header, size, item, n, piece);
    goto done;
no_memory:
    status = sag_fail(SAG_ERR_MEMORY, "%s: no memory to write it", path);
done:
    sag_host_free(header);
    sag_host_free(piece);
    sag_host_free(pair);
    sag_host_free(item);
    return status;
}
