/*
 * pth.c - opening a PyTorch state dict: which container, what its pickle says, where the storages of a zip
 * archive lie. The older container is pth_legacy.c's, the numbers are read by pth_read.c.
 *
 * In the pickle a tensor is a call
 *     torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)
 * where `storage` is a persistent id ("storage", torch.FloatStorage, key, device, numel): numbers that lie elsewhere,
 * in the zip entry <archive>/data/<key>, or in the older container behind the pickles.
 */
#include "engine/io/pth_internal.h"

#include <stdlib.h>
#include <string.h>

#define REBUILD "torch._utils._rebuild_tensor"
#define REBUILD_V2 "torch._utils._rebuild_tensor_v2"
#define REBUILD_PARAMETER "torch._utils._rebuild_parameter"

static const pth_type types[] = {
    {"torch.FloatStorage", "F32", 4, SAG_F32},  {"torch.HalfStorage", "F16", 2, SAG_F32},
    {"torch.DoubleStorage", "F64", 8, SAG_F32}, {"torch.BFloat16Storage", "BF16", 2, SAG_BF16},
    {"torch.IntStorage", "I32", 4, SAG_I32},    {"torch.LongStorage", "I64", 8, SAG_I32},
    {"torch.ByteStorage", "U8", 1, SAG_U8},
};
#define N_TYPES (sizeof types / sizeof *types)

const char *const sag_pth_globals[] = {REBUILD,
                                       REBUILD_V2,
                                       REBUILD_PARAMETER,
                                       "torch.FloatStorage",
                                       "torch.HalfStorage",
                                       "torch.DoubleStorage",
                                       "torch.BFloat16Storage",
                                       "torch.IntStorage",
                                       "torch.LongStorage",
                                       "torch.ByteStorage",
                                       NULL};

sag_status sag_pth_no_memory(const char *path)
{
    return sag_fail(SAG_ERR_MEMORY, "%s: no memory for its list of tensors", path);
}

/* -------------------------------------------------------------------------------- a tensor in the pickle */

sag_status sag_pth_tensor_fail(const sag_pth *f, const pth_tensor *t, sag_status status)
{
    return sag_fail(status, "%s: tensor %.200s %s", f->path, t->entry.name, sag_error_message());
}

static bool is_call(const sag_pickle_value *v, const char *global)
{
    return v->kind == SAG_PICKLE_CALL && strcmp(v->item[0]->text, global) == 0;
}

/* Whole numbers from 0 in a tuple: sizes or strides. */
static bool read_numbers(const sag_pickle_value *v, int64_t *out, int *n)
{
    if (v->kind != SAG_PICKLE_TUPLE || v->count > PTH_MAX_RANK) return false;
    for (int64_t i = 0; i < v->count; i++) {
        if (v->item[i]->kind != SAG_PICKLE_INT || v->item[i]->whole < 0) return false;
        out[i] = v->item[i]->whole;
    }
    *n = (int)v->count;
    return true;
}

static sag_status parse_storage(const sag_pth *f, pth_tensor *t, const sag_pickle_value *v)
{
    const sag_pickle_value *id = v->kind == SAG_PICKLE_PERSISTENT ? v->item[0] : v;
    if (v->kind != SAG_PICKLE_PERSISTENT || id->kind != SAG_PICKLE_TUPLE || id->count < 5 ||
        !sag_pickle_is_text(id->item[0], "storage") || id->item[1]->kind != SAG_PICKLE_GLOBAL ||
        id->item[2]->kind != SAG_PICKLE_TEXT || id->item[4]->kind != SAG_PICKLE_INT || id->item[4]->whole < 0)
        PTH_TENSOR_FAIL(f, t, "does not say where its storage lies");
    if (id->count > 5 && id->item[5]->kind != SAG_PICKLE_NONE)
        PTH_TENSOR_FAIL(f, t,
                        "lies in a storage that is a view of another one, as old versions of PyTorch wrote it; "
                        "save it again with a newer one");
    for (size_t i = 0; i < N_TYPES && !t->type; i++)
        if (strcmp(id->item[1]->text, types[i].global) == 0) t->type = &types[i];
    if (!t->type) PTH_TENSOR_FAIL(f, t, "lies in a %s, which is no storage", id->item[1]->text);
    if (id->item[2]->length > PTH_MAX_KEY) PTH_TENSOR_FAIL(f, t, "has a storage key of %zu bytes", id->item[2]->length);
    t->key = id->item[2];
    t->numel = id->item[4]->whole;
    return SAG_OK;
}

/* Does every element lie inside the storage? A tensor that repeats elements (stride 0) could be larger than the file.
 */
static sag_status check_extent(const sag_pth *f, const pth_tensor *t, int64_t *numel)
{
    int64_t last = t->offset, span;
    *numel = 1;
    for (int i = 0; i < t->entry.rank; i++)
        if (t->dim[i] == 0) *numel = 0;
    if (*numel == 0) return SAG_OK;
    for (int i = 0; i < t->entry.rank; i++)
        if (__builtin_mul_overflow(*numel, t->dim[i], numel) ||
            __builtin_mul_overflow(t->dim[i] - 1, t->stride[i], &span) || __builtin_add_overflow(last, span, &last))
            PTH_TENSOR_FAIL(f, t, "has a shape whose size overflows");
    if (last >= t->numel || *numel > t->numel)
        PTH_TENSOR_FAIL(f, t, "has %lld elements, the last at %lld, in a storage of %lld", (long long)*numel,
                        (long long)last, (long long)t->numel);
    return SAG_OK;
}

static sag_status parse_tensor(const sag_pth *f, pth_tensor *t, const sag_pickle_value *v)
{
    if (is_call(v, REBUILD_PARAMETER) && v->item[1]->count > 0) v = v->item[1]->item[0];
    if (!is_call(v, REBUILD_V2) && !is_call(v, REBUILD))
        PTH_TENSOR_FAIL(f, t, "is %s; a flat state dict, of names and tensors alone, is needed",
                        sag_pickle_kind_name(v->kind));
    const sag_pickle_value *a = v->item[1];
    int strides = 0;
    if (a->count < 4) PTH_TENSOR_FAIL(f, t, "is made from %lld arguments", (long long)a->count);
    SAG_TRY(parse_storage(f, t, a->item[0]));
    if (a->item[1]->kind != SAG_PICKLE_INT || a->item[1]->whole < 0 ||
        !read_numbers(a->item[2], t->dim, &t->entry.rank) || !read_numbers(a->item[3], t->stride, &strides) ||
        strides != t->entry.rank)
        PTH_TENSOR_FAIL(f, t, "has an offset, sizes or strides that make no sense, or more than %d dimensions",
                        PTH_MAX_RANK);
    t->offset = a->item[1]->whole;
    int64_t numel;
    SAG_TRY(check_extent(f, t, &numel));

    sag_pth_entry *e = &t->entry;
    e->dtype_name = t->type->name;
    e->dtype = t->type->gives;
    e->bytes = (size_t)numel * sag_dtype_size(e->dtype); /* numel elements of the storage lie in the file */
    e->supported = e->rank <= SAG_MAX_RANK && numel > 0;
    if (e->supported) {
        e->shape = sag_shape1(1);
        if (e->rank > 0) e->shape.rank = e->rank;
        for (int i = 0; i < e->rank; i++) e->shape.dim[i] = t->dim[i];
    }
    return SAG_OK;
}

/* ------------------------------------------------------------------------------------------ the dictionary */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const pth_tensor *)a)->entry.name, ((const pth_tensor *)b)->entry.name);
}

/* Zero-terminated copies of the names, in f->names. */
static sag_status copy_names(sag_pth *f, const sag_pickle_value *dict)
{
    size_t total = 0;
    for (int64_t i = 0; i < dict->count; i += 2) {
        const sag_pickle_value *key = dict->item[i];
        if (key->kind != SAG_PICKLE_TEXT)
            SAG_FAIL(SAG_ERR_FORMAT, "%s: a name in its dictionary is %s", f->path, sag_pickle_kind_name(key->kind));
        if (memchr(key->text, 0, key->length))
            SAG_FAIL(SAG_ERR_FORMAT, "%s: the name of a tensor holds a zero byte", f->path);
        if (__builtin_add_overflow(total, key->length + 1, &total)) return sag_pth_no_memory(f->path);
    }
    f->names = sag_host_alloc(total);
    if (!f->names) return sag_pth_no_memory(f->path);
    char *p = f->names;
    for (int64_t i = 0; i < dict->count; i += 2) {
        const sag_pickle_value *key = dict->item[i];
        memcpy(p, key->text, key->length);
        f->tensor[i / 2].entry.name = p;
        p += key->length + 1;
    }
    return SAG_OK;
}

sag_status sag_pth_parse_dictionary(sag_pth *f)
{
    const sag_pickle_value *dict = sag_pickle_root(f->pickle);
    if (dict->kind != SAG_PICKLE_DICT)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: holds %s, not a state dict", f->path, sag_pickle_kind_name(dict->kind));
    f->tensor = sag_host_alloc((size_t)(dict->count / 2) * sizeof *f->tensor);
    if (!f->tensor) return sag_pth_no_memory(f->path);
    f->count = dict->count / 2;
    SAG_TRY(copy_names(f, dict));
    for (int64_t i = 0; i < f->count; i++) SAG_TRY(parse_tensor(f, &f->tensor[i], dict->item[2 * i + 1]));
    if (f->count > 1) qsort(f->tensor, (size_t)f->count, sizeof *f->tensor, by_name);
    for (int64_t i = 0; i < f->count; i++) {
        f->tensor[i].entry.dim = f->tensor[i].dim; /* the array no longer moves */
        if (i > 0 && by_name(&f->tensor[i - 1], &f->tensor[i]) == 0)
            SAG_FAIL(SAG_ERR_FORMAT, "%s: tensor %.200s comes twice", f->path, f->tensor[i].entry.name);
    }
    return SAG_OK;
}

/* ------------------------------------------------------------------------------------------ zip container */

/* "<archive>/data.pkl", whatever the archive is called: the files lie in one folder of it. */
static const sag_zip_entry *find_pickle(const sag_zip *z, size_t *folder)
{
    static const char name[] = "/data.pkl";
    const size_t n = sizeof name - 1;
    for (int64_t i = 0; i < sag_zip_count(z); i++) {
        const sag_zip_entry *e = sag_zip_at(z, i);
        if (e->name_length <= n || memcmp(e->name + e->name_length - n, name, n) != 0) continue;
        *folder = e->name_length - n + 1;
        if (*folder <= PTH_MAX_KEY && !memchr(e->name, '/', *folder - 1)) return e;
    }
    return NULL;
}

/* The entry <folder><inner><key>. */
static const sag_zip_entry *find_part(const sag_zip *z, const sag_zip_entry *pickle, size_t folder, const char *inner,
                                      const char *key, size_t key_length)
{
    char name[2 * PTH_MAX_KEY + 32] = {0};
    size_t n = strlen(inner);
    memcpy(name, pickle->name, folder);
    memcpy(name + folder, inner, n);
    memcpy(name + folder + n, key, key_length);
    return sag_zip_find(z, name);
}

static sag_status open_zip(sag_pth *f)
{
    size_t folder = 0, at = 0;
    SAG_TRY(sag_zip_open(f->map.bytes, f->map.size, f->path, &f->zip));
    const sag_zip_entry *pickle = find_pickle(f->zip, &folder);
    if (!pickle) SAG_FAIL(SAG_ERR_FORMAT, "%s: is a zip archive without data.pkl, not a file of PyTorch's", f->path);
    const sag_zip_entry *order = find_part(f->zip, pickle, folder, "byteorder", "", 0);
    if (order && order->size == 3) /* "big", against "little" */
        SAG_FAIL(SAG_ERR_UNSUPPORTED, "%s: was written on a big-endian machine", f->path);
    const uint8_t *bytes = pickle->packed;
    if (pickle->deflated) {
        f->inflated = sag_host_alloc(pickle->size);
        if (!f->inflated) return sag_pth_no_memory(f->path);
        SAG_TRY(sag_zip_read(f->zip, pickle, f->inflated));
        bytes = f->inflated;
    }
    SAG_TRY(sag_pickle_read(bytes, pickle->size, &at, f->path, sag_pth_globals, &f->pickle));
    SAG_TRY(sag_pth_parse_dictionary(f));
    for (int64_t i = 0; i < f->count; i++) {
        pth_tensor *t = &f->tensor[i];
        const sag_zip_entry *e = find_part(f->zip, pickle, folder, "data/", t->key->text, t->key->length);
        if (!e) PTH_TENSOR_FAIL(f, t, "lies in storage %.*s, which the file lacks", (int)t->key->length, t->key->text);
        if (e->size / t->type->size != (uint64_t)t->numel || e->size % t->type->size != 0)
            PTH_TENSOR_FAIL(f, t, "lies in a storage of %lld %s elements, but there are %zu bytes", (long long)t->numel,
                            t->type->name, e->size);
        if (e->deflated)
            t->packed = e;
        else
            t->bytes = e->packed;
    }
    return SAG_OK;
}

/* ----------------------------------------------------------------------------------------------- interface */

static sag_status read_file(sag_pth *f, const char *path)
{
    f->path = sag_host_alloc(strlen(path) + 1);
    if (!f->path) return sag_pth_no_memory(path);
    memcpy(f->path, path, strlen(path) + 1);
    SAG_TRY(sag_file_map_open(path, &f->map));
    return sag_zip_is(f->map.bytes, f->map.size) ? open_zip(f) : sag_pth_open_legacy(f);
}

sag_status sag_pth_open(const char *path, sag_pth **out)
{
    *out = NULL;
    sag_pth *f = sag_host_alloc(sizeof *f);
    if (!f) return sag_pth_no_memory(path);
    sag_status status = read_file(f, path);
    if (status != SAG_OK)
        sag_pth_close(f);
    else
        *out = f;
    return status;
}

void sag_pth_close(sag_pth *f)
{
    if (!f) return;
    sag_pickle_free(f->pickle);
    sag_zip_close(f->zip);
    sag_file_map_close(&f->map);
    sag_host_free(f->inflated);
    sag_host_free(f->names);
    sag_host_free(f->tensor);
    sag_host_free(f->path);
    sag_host_free(f);
}

int64_t sag_pth_count(const sag_pth *f)
{
    return f->count;
}

const sag_pth_entry *sag_pth_at(const sag_pth *f, int64_t i)
{
    return i >= 0 && i < f->count ? &f->tensor[i].entry : NULL;
}

const sag_pth_entry *sag_pth_find(const sag_pth *f, const char *name)
{
    pth_tensor key = {.entry.name = name};
    const pth_tensor *t = f->count ? bsearch(&key, f->tensor, (size_t)f->count, sizeof *f->tensor, by_name) : NULL;
    return t ? &t->entry : NULL;
}

sag_status sag_pth_require(const sag_pth *f, const sag_pth_entry *e)
{
    if (e->supported) return SAG_OK;
    SAG_FAIL(SAG_ERR_FORMAT, "%s: tensor %.200s has %d dimensions%s; supported are up to %d, and no empty tensors",
             f->path, e->name, e->rank, e->bytes == 0 ? " and is empty" : "", SAG_MAX_RANK);
}
