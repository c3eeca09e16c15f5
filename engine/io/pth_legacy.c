/*
 * pth_legacy.c - the container of PyTorch before 1.6.
 *
 * It is, one after the other: the pickles of a magic number, of the protocol 1001, of facts about the
 * writer's machine, of the state dict and of the list of storage keys; then for each key an 8-byte count of elements
 * and the elements.
 */
#include "engine/io/pth_internal.h"

#include <stdlib.h>
#include <string.h>

static const char *const no_globals[] = {NULL};

static int compare_keys(const sag_pickle_value *a, const sag_pickle_value *b)
{
    if (a->length != b->length) return a->length < b->length ? -1 : 1;
    return memcmp(a->text, b->text, a->length);
}

static int by_key(const void *a, const void *b)
{
    return compare_keys((*(pth_tensor *const *)a)->key, (*(pth_tensor *const *)b)->key);
}

/* The storage at bytes[*at] to all tensors that lie in it. sorted: by key. */
static sag_status place_storage(const sag_pth *f, pth_tensor **sorted, const sag_pickle_value *key, size_t *at)
{
    int64_t first = 0, end = f->count;
    while (first < end) {
        int64_t middle = first + (end - first) / 2;
        if (compare_keys(sorted[middle]->key, key) < 0)
            first = middle + 1;
        else
            end = middle;
    }
    if (first == f->count || compare_keys(sorted[first]->key, key) != 0)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: storage %.*s belongs to no tensor", f->path, (int)key->length, key->text);
    const pth_tensor *owner = sorted[first];
    if (owner->bytes) SAG_FAIL(SAG_ERR_FORMAT, "%s: storage %.*s comes twice", f->path, (int)key->length, key->text);
    if (f->map.size - *at < 8) SAG_FAIL(SAG_ERR_FORMAT, "%s: is cut short: storages are missing", f->path);
    uint64_t numel = 0;
    for (int i = 7; i >= 0; i--) numel = numel << 8 | f->map.bytes[*at + (size_t)i];
    *at += 8;
    for (int64_t i = first; i < f->count && compare_keys(sorted[i]->key, key) == 0; i++) {
        pth_tensor *t = sorted[i];
        if (t->type != owner->type || (uint64_t)t->numel != numel)
            PTH_TENSOR_FAIL(f, t, "lies in a storage of %lld %s elements, but there are %llu %s", (long long)t->numel,
                            t->type->name, (unsigned long long)numel, owner->type->name);
        t->bytes = f->map.bytes + *at;
    }
    if (numel > (f->map.size - *at) / owner->type->size)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: is cut short: storage %.*s should have %llu elements", f->path, (int)key->length,
                 key->text, (unsigned long long)numel);
    *at += (size_t)numel * owner->type->size;
    return SAG_OK;
}

static sag_status place_storages(const sag_pth *f, const sag_pickle_value *keys, size_t at)
{
    if (keys->kind != SAG_PICKLE_LIST) SAG_FAIL(SAG_ERR_FORMAT, "%s: lacks the list of its storages", f->path);
    pth_tensor **sorted = sag_host_alloc((size_t)f->count * sizeof *sorted);
    if (!sorted) return sag_pth_no_memory(f->path);
    for (int64_t i = 0; i < f->count; i++) sorted[i] = &f->tensor[i];
    if (f->count > 1) qsort(sorted, (size_t)f->count, sizeof *sorted, by_key);
    sag_status status = SAG_OK;
    for (int64_t i = 0; i < keys->count && status == SAG_OK; i++) {
        if (keys->item[i]->kind != SAG_PICKLE_TEXT || keys->item[i]->length > PTH_MAX_KEY)
            status = sag_fail(SAG_ERR_FORMAT, "%s: the list of its storages is damaged", f->path);
        else
            status = place_storage(f, sorted, keys->item[i], &at);
    }
    sag_host_free(sorted);
    SAG_TRY(status);
    for (int64_t i = 0; i < f->count; i++)
        if (!f->tensor[i].bytes) PTH_TENSOR_FAIL(f, &f->tensor[i], "lies in a storage that the file lacks");
    return SAG_OK;
}

/* A pickle of plain data in front of or behind the state dict: passes it to check, then forgets it. */
static sag_status side_pickle(const sag_pth *f, size_t *at,
                              sag_status (*check)(const sag_pth *, const sag_pickle_value *))
{
    sag_pickle *p;
    SAG_TRY(sag_pickle_read(f->map.bytes, f->map.size, at, f->path, no_globals, &p));
    sag_status status = check(f, sag_pickle_root(p));
    sag_pickle_free(p);
    return status;
}

static sag_status check_magic(const sag_pth *f, const sag_pickle_value *v)
{
    static const uint8_t magic[] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
    if (v->kind == SAG_PICKLE_BIG && v->length == sizeof magic && memcmp(v->text, magic, sizeof magic) == 0)
        return SAG_OK;
    SAG_FAIL(SAG_ERR_FORMAT, "%s: is a pickle, but not a file of PyTorch's", f->path);
}

static sag_status check_protocol(const sag_pth *f, const sag_pickle_value *v)
{
    if (v->kind == SAG_PICKLE_INT && v->whole == 1001) return SAG_OK;
    SAG_FAIL(SAG_ERR_UNSUPPORTED, "%s: has another version of PyTorch's older container than 1001", f->path);
}

static sag_status check_machine(const sag_pth *f, const sag_pickle_value *v)
{
    for (int64_t i = 0; v->kind == SAG_PICKLE_DICT && i < v->count; i += 2)
        if (sag_pickle_is_text(v->item[i], "little_endian") && v->item[i + 1]->kind == SAG_PICKLE_BOOL &&
            !v->item[i + 1]->whole)
            SAG_FAIL(SAG_ERR_UNSUPPORTED, "%s: was written on a big-endian machine", f->path);
    return SAG_OK;
}

sag_status sag_pth_open_legacy(sag_pth *f)
{
    size_t at = 0;
    if (f->map.size < 2 || f->map.bytes[0] != 0x80)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: is neither of the two containers of PyTorch's files", f->path);
    SAG_TRY(side_pickle(f, &at, check_magic));
    SAG_TRY(side_pickle(f, &at, check_protocol));
    SAG_TRY(side_pickle(f, &at, check_machine));
    SAG_TRY(sag_pickle_read(f->map.bytes, f->map.size, &at, f->path, sag_pth_globals, &f->pickle));
    SAG_TRY(sag_pth_parse_dictionary(f));
    sag_pickle *keys;
    SAG_TRY(sag_pickle_read(f->map.bytes, f->map.size, &at, f->path, no_globals, &keys));
    sag_status status = place_storages(f, sag_pickle_root(keys), at);
    sag_pickle_free(keys);
    return status;
}
