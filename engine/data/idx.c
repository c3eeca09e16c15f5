/*
 * idx.c - the IDX format of MNIST and its relatives, plain or gzipped: 00 00 type rank, big-endian dims, bytes.
 *
 * Images {N, H, W} or {N, H, W, C} and labels {N}, both of unsigned bytes (type 08). Also Fashion-MNIST where Debian's
 * package dataset-fashion-mnist puts it.
 */
#include <string.h>

#include "engine/data/dataset_internal.h"
#include "engine/io/archive.h"
#include "engine/io/file.h"

#define FASHION_FOLDER "/usr/share/datasets/fashion-mnist"

typedef struct idx_file {
    uint8_t *bytes; /* whole file, owned */
    const uint8_t *data;
    int rank;
    int64_t dim[4];
} idx_file;

static sag_status idx_read(const sag_open_request *r, const char *path, idx_file *f)
{
    size_t size = 0;
    SAG_TRY(sag_gunzip_file(path, r->o->max_bytes, &f->bytes, &size));
    if (size == 0) SAG_FAIL(SAG_ERR_FORMAT, "%s: is empty", path);
    if (size < 8 || f->bytes[0] != 0 || f->bytes[1] != 0)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: not an IDX file (it begins with %02x %02x, IDX with 00 00)", path, f->bytes[0],
                 size > 1 ? f->bytes[1] : 0);
    if (f->bytes[2] != 8)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: IDX element type %02x; only unsigned bytes (08) are read", path, f->bytes[2]);
    f->rank = f->bytes[3];
    if (f->rank < 1 || f->rank > 4) SAG_FAIL(SAG_ERR_FORMAT, "%s: IDX rank %d; 1 to 4 are read", path, f->rank);
    size_t head = 4 + 4 * (size_t)f->rank;
    int64_t want = 1;
    if (size < head) SAG_FAIL(SAG_ERR_FORMAT, "%s: truncated inside the IDX header", path);
    for (int i = 0; i < f->rank; i++) {
        const uint8_t *p = f->bytes + 4 + 4 * i;
        f->dim[i] = (int64_t)p[0] << 24 | (int64_t)p[1] << 16 | (int64_t)p[2] << 8 | p[3];
        if (f->dim[i] < 1) SAG_FAIL(SAG_ERR_FORMAT, "%s: IDX dimension %d is 0: no images or labels", path, i + 1);
        if (__builtin_mul_overflow(want, f->dim[i], &want))
            SAG_FAIL(SAG_ERR_FORMAT, "%s: IDX dimensions overflow: the header is damaged", path);
    }
    if (want != (int64_t)(size - head))
        SAG_FAIL(SAG_ERR_FORMAT, "%s: IDX header promises %lld bytes of data, the file holds %lld: %s", path,
                 (long long)want, (long long)(size - head),
                 want > (int64_t)(size - head) ? "truncated" : "something is appended");
    f->data = f->bytes + head;
    return SAG_OK;
}

static sag_status take_files(const sag_open_request *r, sag_dataset *ds, const char *images, const char *labels,
                             const char *const *class_names, int classes)
{
    idx_file im = {0}, la = {0};
    sag_status s = idx_read(r, images, &im);
    if (s != SAG_OK) goto done;
    if (im.rank < 3) {
        s = sag_fail(SAG_ERR_FORMAT, "%s: IDX of rank %d; images are {N, H, W} or {N, H, W, C}%s", images, im.rank,
                     im.rank == 1 ? ": is this the labels file?" : "");
        goto done;
    }
    int64_t n = im.dim[0], h = im.dim[1], w = im.dim[2], c = im.rank == 4 ? im.dim[3] : 1;
    if (h > 1 << 14 || w > 1 << 14 || (c != 1 && c != 3)) {
        s = sag_fail(SAG_ERR_FORMAT, "%s: images of %lldx%lldx%lld; sides are 1 to 16384, channels 1 or 3", images,
                     (long long)h, (long long)w, (long long)c);
        goto done;
    }
    int highest = 0;
    if (labels) {
        if ((s = idx_read(r, labels, &la)) != SAG_OK) goto done;
        if (la.rank != 1 || la.dim[0] != n) {
            s = sag_fail(SAG_ERR_FORMAT, "%s: %lld labels of rank %d for the %lld images of %s", labels,
                         (long long)la.dim[0], la.rank, (long long)n, images);
            goto done;
        }
        for (int64_t i = 0; i < n; i++) {
            highest = la.data[i] > highest ? la.data[i] : highest;
            if (classes && la.data[i] >= classes) {
                s = sag_fail(SAG_ERR_FORMAT, "%s: label %lld is %d, out of range for %d classes", labels, (long long)i,
                             la.data[i], classes);
                goto done;
            }
        }
    }
    if ((s = sag_data_set_classes(ds, class_names, classes ? classes : highest + 1)) != SAG_OK) goto done;
    s = sag_data_take_raw(r, ds, im.data, labels ? la.data : NULL, 1, n, (int)h, (int)w, (int)c);
done:
    sag_host_free(im.bytes);
    sag_host_free(la.bytes);
    return s;
}

/* ------------------------------------------------------------------------------------------- finding files */

static bool is_idx_name(const char *name, const char *what)
{
    return strstr(name, what) && strstr(name, "idx");
}

static bool is_split_name(const char *name, const char *split)
{
    bool test = strstr(name, "t10k") || strstr(name, "test");
    return strcmp(split, "test") == 0 ? test : !test;
}

bool sag_idx_present(const char *folder)
{
    sag_file_names names;
    bool found = false;
    if (sag_file_list(folder, &names) != SAG_OK) return false;
    for (int64_t i = 0; i < names.count && !found; i++) found = is_idx_name(names.name[i], "images");
    sag_file_names_free(&names);
    return found;
}

/* The file in `folder` whose name says idx, `what` and the split; *out NULL when there is none. */
static sag_status find_in(const char *folder, const char *what, const char *split, char **out)
{
    sag_file_names names;
    *out = NULL;
    SAG_TRY(sag_file_list(folder, &names));
    sag_status s = SAG_OK;
    for (int64_t i = 0; i < names.count && !*out && s == SAG_OK; i++)
        if (is_idx_name(names.name[i], what) && is_split_name(names.name[i], split)) {
            *out = sag_data_text("%s/%s", folder, names.name[i]);
            if (!*out) s = sag_fail(SAG_ERR_MEMORY, "%s: out of memory", folder);
        }
    sag_file_names_free(&names);
    return s;
}

static sag_status open_folder(const sag_open_request *r, sag_dataset *ds, const char *folder,
                              const char *const *class_names, int classes)
{
    char *images = NULL, *labels = NULL;
    sag_status s = find_in(folder, "images", r->split, &images);
    if (s == SAG_OK) s = find_in(folder, "labels", r->split, &labels);
    if (s == SAG_OK && !images)
        s = sag_fail(SAG_ERR_IO,
                     "%s: no images file of split %s in %s (looked for names like train-images-idx3-ubyte or "
                     "t10k-images-idx3-ubyte, plain or .gz)",
                     r->spec, r->split, folder);
    if (s == SAG_OK) s = take_files(r, ds, images, labels, class_names, classes);
    sag_host_free(images);
    sag_host_free(labels);
    return s;
}

/* path with the last `from` in its file name replaced by `to`; NULL when it is not in there or memory is out. */
static char *replaced(const char *path, const char *from, const char *to)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *hit = strstr(name, from);
    if (!hit) return NULL;
    return sag_data_text("%.*s%s%s", (int)(hit - path), path, to, hit + strlen(from));
}

/* The labels beside an images file: images -> labels, idx3/idx4 -> idx1, with and without .gz. NULL when none is there.
 */
static char *labels_beside(const char *images)
{
    char *found = NULL, *name = replaced(images, "images", "labels");
    if (!name) return NULL;
    char *one = replaced(name, "idx3", "idx1");
    if (!one) one = replaced(name, "idx4", "idx1");
    if (!one) one = sag_data_text("%s", name);
    sag_host_free(name);
    if (!one) return NULL;
    size_t n = strlen(one);
    bool gz = n > 3 && strcmp(one + n - 3, ".gz") == 0;
    char *other = gz ? sag_data_text("%.*s", (int)(n - 3), one) : sag_data_text("%s.gz", one);
    if (sag_file_exists(one)) {
        found = one;
        one = NULL;
    } else if (other && sag_file_exists(other)) {
        found = other;
        other = NULL;
    }
    sag_host_free(one);
    sag_host_free(other);
    return found;
}

/* An images file is its own split; the other one is taken only if it lies beside it under the usual name. */
static sag_status open_file(const sag_open_request *r, sag_dataset *ds)
{
    const char *images = r->path;
    char *sibling = NULL;
    const char *slash = strrchr(images, '/');
    if (strcmp(r->split, "test") == 0 && !is_split_name(slash ? slash + 1 : images, "test")) {
        sibling = replaced(images, "train", "t10k");
        if (!sibling || !sag_file_exists(sibling)) {
            sag_status s = sag_fail(SAG_ERR_IO, "%s: no test split beside this file (looked for %s)", r->spec,
                                    sibling ? sibling : "a name with t10k in place of train");
            sag_host_free(sibling);
            return s;
        }
        images = sibling;
    }
    char *labels = labels_beside(images);
    sag_status s = take_files(r, ds, images, labels, NULL, 0);
    sag_host_free(labels);
    sag_host_free(sibling);
    return s;
}

sag_status sag_idx_open(const sag_open_request *r, sag_dataset *ds)
{
    sag_file_info info;
    SAG_TRY(sag_data_set_name(ds, NULL));
    SAG_TRY(sag_file_stat(r->path, &info));
    if (info.type == SAG_FILE_MISSING) SAG_FAIL(SAG_ERR_IO, "%s: %s does not exist", r->spec, r->path);
    return info.type == SAG_FILE_FOLDER ? open_folder(r, ds, r->path, NULL, 0) : open_file(r, ds);
}

/* ---------------------------------------------------------------------------------------- fashion-mnist */

bool sag_fashion_present(void)
{
    return sag_idx_present(FASHION_FOLDER);
}

sag_status sag_fashion_open(const sag_open_request *r, sag_dataset *ds)
{
    static const char *const names[10] = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                          "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};
    if (!sag_fashion_present())
        SAG_FAIL(SAG_ERR_IO, "fashion-mnist: its files are not in " FASHION_FOLDER
                             ": install Debian's package dataset-fashion-mnist, "
                             "name a folder with idx:FOLDER, or use quadrupeds, which needs no files");
    SAG_TRY(sag_data_set_name(ds, "fashion-mnist"));
    return open_folder(r, ds, FASHION_FOLDER, names, 10);
}
