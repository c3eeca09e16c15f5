/*
 * safetensors.c - opening and checking a safetensors file (format: huggingface/safetensors, README "Format").
 * Writing is safetensors_write.c.
 *
 * The file is mapped; the header is parsed once, then the offsets are sorted and must tile the data part
 * exactly.
 */
#include "engine/io/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "engine/io/file.h"
#include "engine/io/json.h"

#define MAX_HEADER ((uint64_t)100000000) /* the limit of the reference implementation */
#define MAX_FILE_RANK 8

typedef struct tensor_info {
    sag_safetensors_entry entry;
    int64_t dim[MAX_FILE_RANK];
    int64_t begin, end; /* bytes into the data part */
} tensor_info;

struct sag_safetensors {
    char *path;
    sag_file_map map;
    const uint8_t *data;
    size_t data_size;
    char *strings; /* names, keys and values */
    tensor_info *tensor;
    int64_t count, capacity;
    sag_safetensors_pair *meta;
    int64_t n_meta, meta_capacity;
};

static const struct dtype_info {
    const char *name;
    int size;
    int ours; /* sag_dtype, or -1 */
} dtypes[] = {
    {"F32", 4, SAG_F32}, {"BF16", 2, SAG_BF16}, {"U8", 1, SAG_U8}, {"I32", 4, SAG_I32}, {"F64", 8, -1},
    {"F16", 2, -1},      {"I64", 8, -1},        {"I16", 2, -1},    {"I8", 1, -1},       {"U64", 8, -1},
    {"U32", 4, -1},      {"U16", 2, -1},        {"BOOL", 1, -1},   {"C64", 8, -1},      {"F8_E4M3", 1, -1},
    {"F8_E5M2", 1, -1},  {"F8_E8M0", 1, -1},
};

static sag_status no_memory(const char *path)
{
    return sag_fail(SAG_ERR_MEMORY, "%s: no memory for its header", path);
}

/* --------------------------------------------------------------------------------------------- the header */

static sag_status parse_metadata(sag_safetensors *f, sag_json *j)
{
    if (f->n_meta > 0) SAG_FAIL(SAG_ERR_FORMAT, "%s: __metadata__ comes twice", f->path);
    SAG_TRY(sag_json_take(j, '{'));
    if (sag_json_takes(j, '}')) return SAG_OK;
    do {
        sag_safetensors_pair pair;
        SAG_TRY(sag_json_string(j, &pair.key));
        SAG_TRY(sag_json_take(j, ':'));
        SAG_TRY(sag_json_string(j, &pair.value));
        if (f->n_meta == f->meta_capacity) {
            int64_t wider = f->meta_capacity ? f->meta_capacity * 2 : 16;
            sag_safetensors_pair *grown = sag_host_realloc(f->meta, (size_t)wider * sizeof *grown);
            if (!grown) return no_memory(f->path);
            f->meta = grown;
            f->meta_capacity = wider;
        }
        f->meta[f->n_meta++] = pair;
    } while (sag_json_takes(j, ','));
    return sag_json_take(j, '}');
}

static sag_status parse_shape(const sag_safetensors *f, sag_json *j, tensor_info *t)
{
    t->entry.rank = 0;
    SAG_TRY(sag_json_take(j, '['));
    if (sag_json_takes(j, ']')) return SAG_OK;
    do {
        if (t->entry.rank == MAX_FILE_RANK)
            SAG_FAIL(SAG_ERR_FORMAT, "%s: tensor %s has more than %d dimensions", f->path, t->entry.name,
                     MAX_FILE_RANK);
        SAG_TRY(sag_json_whole(j, &t->dim[t->entry.rank++]));
    } while (sag_json_takes(j, ','));
    return sag_json_take(j, ']');
}

/* What the numbers of one tensor must satisfy by themselves. */
static sag_status check_tensor(const sag_safetensors *f, tensor_info *t)
{
    const char *name = t->entry.name;
    const struct dtype_info *d = NULL;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes && !d; i++)
        if (strcmp(dtypes[i].name, t->entry.dtype_name) == 0) d = &dtypes[i];
    if (!d) SAG_FAIL(SAG_ERR_FORMAT, "%s: tensor %s has the unknown dtype %.40s", f->path, name, t->entry.dtype_name);
    int64_t bytes = d->size;
    bool empty = false;
    for (int i = 0; i < t->entry.rank; i++) empty = empty || t->dim[i] == 0;
    for (int i = 0; i < t->entry.rank; i++)
        if (__builtin_mul_overflow(bytes, t->dim[i], &bytes) && !empty)
            SAG_FAIL(SAG_ERR_FORMAT, "%s: tensor %s has a shape whose size overflows", f->path, name);
    if (empty) bytes = 0;
    if (t->begin > t->end || (uint64_t)t->end > f->data_size)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: tensor %s has offsets %lld to %lld, the data part has %zu bytes", f->path, name,
                 (long long)t->begin, (long long)t->end, f->data_size);
    if (t->end - t->begin != bytes)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: tensor %s has %lld bytes where its shape and dtype %s need %lld", f->path, name,
                 (long long)(t->end - t->begin), d->name, (long long)bytes);
    t->entry.dtype_name = d->name;
    t->entry.bytes = (size_t)bytes;
    t->entry.data = f->data + t->begin;
    t->entry.supported = d->ours >= 0 && t->entry.rank <= SAG_MAX_RANK && !empty;
    if (t->entry.supported) {
        t->entry.dtype = (sag_dtype)d->ours;
        t->entry.shape = sag_shape1(1);
        if (t->entry.rank > 0) t->entry.shape.rank = t->entry.rank;
        for (int i = 0; i < t->entry.rank; i++) t->entry.shape.dim[i] = t->dim[i];
    }
    return SAG_OK;
}

static sag_status parse_tensor(sag_safetensors *f, sag_json *j, const char *name)
{
    tensor_info t = {.entry.name = name};
    unsigned seen = 0;
    SAG_TRY(sag_json_take(j, '{'));
    do {
        const char *key;
        SAG_TRY(sag_json_string(j, &key));
        SAG_TRY(sag_json_take(j, ':'));
        unsigned bit;
        if (strcmp(key, "dtype") == 0) {
            bit = 1;
            SAG_TRY(sag_json_string(j, &t.entry.dtype_name));
        } else if (strcmp(key, "shape") == 0) {
            bit = 2;
            SAG_TRY(parse_shape(f, j, &t));
        } else if (strcmp(key, "data_offsets") == 0) {
            bit = 4;
            SAG_TRY(sag_json_take(j, '['));
            SAG_TRY(sag_json_whole(j, &t.begin));
            SAG_TRY(sag_json_take(j, ','));
            SAG_TRY(sag_json_whole(j, &t.end));
            SAG_TRY(sag_json_take(j, ']'));
        } else {
            SAG_FAIL(SAG_ERR_FORMAT, "%s: tensor %s has an unknown field %.40s", f->path, name, key);
        }
        if (seen & bit) SAG_FAIL(SAG_ERR_FORMAT, "%s: tensor %s has its %s twice", f->path, name, key);
        seen |= bit;
    } while (sag_json_takes(j, ','));
    SAG_TRY(sag_json_take(j, '}'));
    if (seen != 7) SAG_FAIL(SAG_ERR_FORMAT, "%s: tensor %s needs dtype, shape and data_offsets", f->path, name);
    SAG_TRY(check_tensor(f, &t));
    if (f->count == f->capacity) {
        int64_t wider = f->capacity ? f->capacity * 2 : 64;
        tensor_info *grown = sag_host_realloc(f->tensor, (size_t)wider * sizeof *grown);
        if (!grown) return no_memory(f->path);
        f->tensor = grown;
        f->capacity = wider;
    }
    f->tensor[f->count++] = t;
    return SAG_OK;
}

static sag_status parse_header(sag_safetensors *f, sag_json *j)
{
    bool metadata = false;
    SAG_TRY(sag_json_take(j, '{'));
    if (!sag_json_takes(j, '}')) {
        do {
            const char *name;
            SAG_TRY(sag_json_string(j, &name));
            SAG_TRY(sag_json_take(j, ':'));
            if (strcmp(name, "__metadata__") == 0) {
                if (metadata) SAG_FAIL(SAG_ERR_FORMAT, "%s: __metadata__ comes twice", f->path);
                metadata = true;
                SAG_TRY(parse_metadata(f, j));
            } else {
                SAG_TRY(parse_tensor(f, j, name));
            }
        } while (sag_json_takes(j, ','));
        SAG_TRY(sag_json_take(j, '}'));
    }
    return sag_json_end(j);
}

/* ------------------------------------------------------------------------------------------ the whole file
 */

static int by_offset(const void *a, const void *b)
{
    const tensor_info *s = a, *t = b;
    if (s->begin != t->begin) return s->begin < t->begin ? -1 : 1;
    return s->end < t->end ? -1 : s->end > t->end;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const tensor_info *)a)->entry.name, ((const tensor_info *)b)->entry.name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const sag_safetensors_pair *)a)->key, ((const sag_safetensors_pair *)b)->key);
}

static sag_status check_tiling(sag_safetensors *f)
{
    int64_t at = 0;
    if (f->count > 1) qsort(f->tensor, (size_t)f->count, sizeof *f->tensor, by_offset);
    for (int64_t i = 0; i < f->count; i++) {
        const tensor_info *t = &f->tensor[i];
        if (t->begin != at)
            SAG_FAIL(SAG_ERR_FORMAT, "%s: tensor %s begins at data byte %lld, the one before it ends at %lld: %s",
                     f->path, t->entry.name, (long long)t->begin, (long long)at,
                     t->begin < at ? "they overlap" : "a hole");
        at = t->end;
    }
    if ((uint64_t)at != f->data_size)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: %lld bytes of tensors, but %zu bytes of data", f->path, (long long)at,
                 f->data_size);
    return SAG_OK;
}

static sag_status check_names(sag_safetensors *f)
{
    if (f->count > 1) qsort(f->tensor, (size_t)f->count, sizeof *f->tensor, by_name);
    if (f->n_meta > 1) qsort(f->meta, (size_t)f->n_meta, sizeof *f->meta, by_key);
    for (int64_t i = 1; i < f->count; i++)
        if (by_name(&f->tensor[i - 1], &f->tensor[i]) == 0)
            SAG_FAIL(SAG_ERR_FORMAT, "%s: two tensors are called %s", f->path, f->tensor[i].entry.name);
    for (int64_t i = 1; i < f->n_meta; i++)
        if (by_key(&f->meta[i - 1], &f->meta[i]) == 0)
            SAG_FAIL(SAG_ERR_FORMAT, "%s: metadata has two values for %s", f->path, f->meta[i].key);
    for (int64_t i = 0; i < f->count; i++) f->tensor[i].entry.dim = f->tensor[i].dim; /* the array no longer moves */
    return SAG_OK;
}

static sag_status read_file(sag_safetensors *f, const char *path)
{
    f->path = sag_host_alloc(strlen(path) + 1);
    if (!f->path) return no_memory(path);
    memcpy(f->path, path, strlen(path) + 1);
    SAG_TRY(sag_file_map_open(path, &f->map));
    const uint8_t *b = f->map.bytes;
    if (f->map.size < 8)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: has %zu bytes, not even a safetensors header", path, f->map.size);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | b[i];
    if (n > MAX_HEADER)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: is not a safetensors file (its header would have %llu bytes, the limit is %llu)",
                 path, (unsigned long long)n, (unsigned long long)MAX_HEADER);
    if (n > f->map.size - 8)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: is cut short: a header of %llu bytes in a file of %zu", path,
                 (unsigned long long)n, f->map.size);
    if (n == 0 || b[8] != '{') SAG_FAIL(SAG_ERR_FORMAT, "%s: is not a safetensors file (no JSON header)", path);
    f->data = b + 8 + n;
    f->data_size = f->map.size - 8 - (size_t)n;
    f->strings = sag_host_alloc((size_t)n);
    if (!f->strings) return no_memory(path);
    const char *text = (const char *)b + 8;
    sag_json j = {.name = path, .start = text, .p = text, .end = text + n, .strings = f->strings};
    SAG_TRY(parse_header(f, &j));
    SAG_TRY(check_tiling(f));
    return check_names(f);
}

sag_status sag_safetensors_open(const char *path, sag_safetensors **out)
{
    *out = NULL;
    sag_safetensors *f = sag_host_alloc(sizeof *f);
    if (!f) return no_memory(path);
    sag_status status = read_file(f, path);
    if (status != SAG_OK)
        sag_safetensors_close(f);
    else
        *out = f;
    return status;
}

void sag_safetensors_close(sag_safetensors *f)
{
    if (!f) return;
    sag_file_map_close(&f->map);
    sag_host_free(f->path);
    sag_host_free(f->strings);
    sag_host_free(f->tensor);
    sag_host_free(f->meta);
    sag_host_free(f);
}

/* ----------------------------------------------------------------------------------------------- answers */

int64_t sag_safetensors_count(const sag_safetensors *f)
{
    return f->count;
}

const sag_safetensors_entry *sag_safetensors_at(const sag_safetensors *f, int64_t i)
{
    return i >= 0 && i < f->count ? &f->tensor[i].entry : NULL;
}

const sag_safetensors_entry *sag_safetensors_find(const sag_safetensors *f, const char *name)
{
    tensor_info key = {.entry.name = name};
    const tensor_info *t = f->count ? bsearch(&key, f->tensor, (size_t)f->count, sizeof *f->tensor, by_name) : NULL;
    return t ? &t->entry : NULL;
}

sag_status sag_safetensors_require(const sag_safetensors *f, const sag_safetensors_entry *e)
{
    if (e->supported) return SAG_OK;
    SAG_FAIL(SAG_ERR_FORMAT,
             "%s: tensor %s is %s with %d dimensions%s; supported are F32, BF16, U8 and I32 with up to %d "
             "and no empty ones",
             f->path, e->name, e->dtype_name, e->rank, e->bytes == 0 ? " and is empty" : "", SAG_MAX_RANK);
}

int64_t sag_safetensors_meta_count(const sag_safetensors *f)
{
    return f->n_meta;
}

void sag_safetensors_meta_at(const sag_safetensors *f, int64_t i, const char **key, const char **value)
{
    *key = f->meta[i].key;
    *value = f->meta[i].value;
}

const char *sag_safetensors_meta(const sag_safetensors *f, const char *key)
{
    sag_safetensors_pair wanted = {.key = key};
    const sag_safetensors_pair *p =
        f->n_meta ? bsearch(&wanted, f->meta, (size_t)f->n_meta, sizeof wanted, by_key) : NULL;
    return p ? p->value : NULL;
}
