/*
 * cifar10.c - the binary version of CIFAR-10: data_batch_1.bin .. data_batch_5.bin and test_batch.bin, in a folder or
 * in the .tar.gz they come in. A record is one label byte and 3 planes (R, G, B) of 32 x 32 bytes.
 *
 * An archive or folder of image files under the same name is handed to the folder source.
 */
#include <string.h>

#include "engine/data/dataset_internal.h"
#include "engine/io/archive.h"
#include "engine/io/file.h"
#include "engine/io/image.h"

enum { SIDE = 32, PLANE = SIDE * SIDE, RECORD = 1 + 3 * PLANE, FILES = 6, TEST_FILE = 5 };
static const char *const file_names[FILES] = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                              "data_batch_4.bin", "data_batch_5.bin", "test_batch.bin"};

typedef struct batches {
    const char *where;
    uint8_t *bytes[FILES]; /* owned */
    size_t size[FILES];
    bool wanted[FILES];
    bool seen; /* any of the files, for recognition */
} batches;

static int file_of(const char *name)
{
    const char *slash = strrchr(name, '/');
    if (slash) name = slash + 1;
    for (int i = 0; i < FILES; i++)
        if (strcmp(name, file_names[i]) == 0) return i;
    return -1;
}

/* ------------------------------------------------------------------------------------------- recognition */

static bool wants_any(void *user, const char *name, int64_t size)
{
    (void)user, (void)size;
    return file_of(name) >= 0 || sag_image_is_name(name); /* an image settles it as well: no need to read on */
}

static sag_status see(void *user, const sag_archive_member *member, bool *stop)
{
    *(bool *)user = file_of(member->name) >= 0;
    *stop = true;
    return SAG_OK;
}

/* The folder itself or the one that the archive unpacks to; NULL when neither has the files. */
static char *folder_with_batches(const char *path)
{
    static const char *const inside[2] = {"", "/cifar-10-batches-bin"};
    for (int i = 0; i < 2; i++)
        for (int f = 0; f < FILES; f += TEST_FILE) {
            char *name = sag_data_text("%s%s/%s", path, inside[i], file_names[f]);
            bool there = name && sag_file_exists(name);
            sag_host_free(name);
            if (there) return sag_data_text("%s%s", path, inside[i]);
        }
    return NULL;
}

bool sag_cifar10_present(const char *path)
{
    char *folder = folder_with_batches(path);
    sag_host_free(folder);
    if (folder) return true;
    bool found = false;
    sag_archive_visitor v = {.user = &found, .wants = wants_any, .visit = see};
    return sag_archive_is(path) && sag_archive_walk(path, &v) == SAG_OK && found;
}

/* --------------------------------------------------------------------------------------------------- open */

static bool wants_split(void *user, const char *name, int64_t size)
{
    (void)size;
    batches *b = user;
    int f = file_of(name);
    return f >= 0 && b->wanted[f];
}

static sag_status take_member(void *user, const sag_archive_member *member, bool *stop)
{
    batches *b = user;
    int f = file_of(member->name);
    if (b->bytes[f]) SAG_FAIL(SAG_ERR_FORMAT, "%s: holds %s twice", b->where, file_names[f]);
    b->bytes[f] = sag_host_alloc(member->size + 1);
    if (!b->bytes[f]) SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory for %s", b->where, file_names[f]);
    memcpy(b->bytes[f], member->bytes, member->size);
    b->size[f] = member->size;
    *stop = true;
    for (int i = 0; i < FILES; i++)
        if (b->wanted[i] && !b->bytes[i]) *stop = false;
    return SAG_OK;
}

static sag_status read_folder(batches *b, const char *folder)
{
    for (int f = 0; f < FILES; f++) {
        if (!b->wanted[f]) continue;
        char *path = sag_data_text("%s/%s", folder, file_names[f]);
        if (!path) SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory", folder);
        sag_status s = sag_file_exists(path) ? sag_file_read(path, 0, &b->bytes[f], &b->size[f]) : SAG_OK;
        sag_host_free(path);
        SAG_TRY(s);
    }
    return SAG_OK;
}

/* Planes to pixels; checks every label. */
static sag_status unpack(const batches *b, uint8_t *pixels, uint8_t *labels)
{
    for (int f = 0; f < FILES; f++) {
        if (!b->wanted[f]) continue;
        for (const uint8_t *p = b->bytes[f], *end = p + b->size[f]; p < end; p += RECORD) {
            if (p[0] > 9)
                SAG_FAIL(SAG_ERR_FORMAT,
                         "%s: %s: record %lld has label %d; CIFAR-10 has 0 to 9 (CIFAR-100 is not read)", b->where,
                         file_names[f], (long long)((p - b->bytes[f]) / RECORD), p[0]);
            *labels++ = p[0];
            for (int i = 0; i < PLANE; i++)
                for (int c = 0; c < 3; c++) *pixels++ = p[1 + c * PLANE + i];
        }
    }
    return SAG_OK;
}

static sag_status open_batches(const sag_open_request *r, sag_dataset *ds, const char *folder, batches *b)
{
    static const char *const names[10] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                          "dog",      "frog",       "horse", "ship", "truck"};
    if (folder) {
        SAG_TRY(read_folder(b, folder));
    } else {
        sag_archive_visitor v = {.user = b, .wants = wants_split, .visit = take_member};
        SAG_TRY(sag_archive_walk(r->path, &v));
    }
    int64_t n = 0;
    for (int f = 0; f < FILES; f++) {
        if (!b->wanted[f]) continue;
        if (!b->bytes[f])
            SAG_FAIL(SAG_ERR_IO, "%s: %s is missing (split %s needs %s)", r->spec, file_names[f], r->split,
                     f == TEST_FILE ? "it" : "data_batch_1.bin to data_batch_5.bin");
        if (b->size[f] % RECORD != 0)
            SAG_FAIL(SAG_ERR_FORMAT, "%s: %s has %zu bytes, which is not a whole number of %d-byte records: truncated?",
                     r->spec, file_names[f], b->size[f], RECORD);
        n += (int64_t)(b->size[f] / RECORD);
    }
    if (n < 1) SAG_FAIL(SAG_ERR_FORMAT, "%s: no images of split %s", r->spec, r->split);
    uint8_t *pixels = sag_host_alloc((size_t)n * 3 * PLANE), *labels = sag_host_alloc((size_t)n);
    sag_status s = pixels && labels
                       ? SAG_OK
                       : sag_fail(SAG_ERR_MEMORY, "%s: out of memory for %lld images", r->spec, (long long)n);
    if (s == SAG_OK) s = unpack(b, pixels, labels);
    if (s == SAG_OK) s = sag_data_set_name(ds, "cifar10");
    if (s == SAG_OK) s = sag_data_set_classes(ds, names, 10);
    if (s == SAG_OK) s = sag_data_take_raw(r, ds, pixels, labels, 1, n, SIDE, SIDE, 3);
    sag_host_free(pixels);
    sag_host_free(labels);
    return s;
}

sag_status sag_cifar10_open(const sag_open_request *r, sag_dataset *ds)
{
    sag_file_info info;
    SAG_TRY(sag_file_stat(r->path, &info));
    if (info.type == SAG_FILE_MISSING) SAG_FAIL(SAG_ERR_IO, "%s: %s does not exist", r->spec, r->path);
    if (!sag_cifar10_present(r->path)) {
        if (info.type == SAG_FILE_FOLDER || sag_archive_is(r->path)) return sag_folder_open(r, ds);
        SAG_FAIL(SAG_ERR_FORMAT, "%s: neither a folder nor a .tar or .tar.gz archive with the binary batches", r->spec);
    }
    batches b = {.where = r->path};
    for (int f = 0; f < FILES; f++) b.wanted[f] = (f == TEST_FILE) == (strcmp(r->split, "test") == 0);
    char *folder = info.type == SAG_FILE_FOLDER ? folder_with_batches(r->path) : NULL;
    sag_status s = open_batches(r, ds, folder, &b);
    sag_host_free(folder);
    for (int f = 0; f < FILES; f++) sag_host_free(b.bytes[f]);
    return s;
}
