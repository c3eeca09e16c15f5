/*
 * Data sets from files that the tests write themselves: IDX, CIFAR-10 records, class folders and archives, packs; what is
 * wrong with a file is said with its name.
 */
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "engine/data/dataset.h"
#include "engine/io/file.h"
#include "engine/io/image.h"
#include "engine/io/safetensors.h"
#include "testing.h"

/* ------------------------------------------------------------------------------------------ files of our own */

static char folder[64];

static const char *at(const char *name)
{
    static char ring[8][256];
    static int next;
    char *p = ring[next++ & 7];
    snprintf(p, 256, "%s/%s", folder, name);
    return p;
}

/* "kind:folder/name" */
static const char *spec(const char *kind, const char *name)
{
    static char ring[8][300];
    static int next;
    char *p = ring[next++ & 7];
    snprintf(p, 300, "%s:%s/%s", kind, folder, name);
    return p;
}

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *f)
{
    (void)s, (void)type, (void)f;
    return remove(path);
}

static int fresh_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/sagan-data-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void make_parents(const char *path)
{
    char parent[256];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash) *slash = 0;
    assert_ok(sag_file_make_folders(parent));
}

static void put(const char *name, const void *bytes, size_t n)
{
    make_parents(at(name));
    FILE *f = fopen(at(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void put_gz(const char *name, const void *bytes, size_t n)
{
    gzFile f = gzopen(at(name), "wb");
    assert_non_null(f);
    assert_int_equal(gzwrite(f, bytes, (unsigned)n), n);
    gzclose(f);
}

static uint8_t pixel_of(int image, int y, int x, int c)
{
    return (uint8_t)(image * 37 + y * 11 + x * 5 + c * 91 + 3);
}

static uint8_t *put_big_endian(uint8_t *p, uint32_t x)
{
    p[0] = (uint8_t)(x >> 24), p[1] = (uint8_t)(x >> 16), p[2] = (uint8_t)(x >> 8), p[3] = (uint8_t)x;
    return p + 4;
}

static size_t idx_images(uint8_t *buf, int n, int h, int w)
{
    uint8_t *p = buf;
    memcpy(p, "\0\0\x08\x03", 4);
    p = put_big_endian(p + 4, (uint32_t)n);
    p = put_big_endian(p, (uint32_t)h);
    p = put_big_endian(p, (uint32_t)w);
    for (int i = 0; i < n; i++)
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++) *p++ = pixel_of(i, y, x, 0);
    return (size_t)(p - buf);
}

static size_t idx_labels(uint8_t *buf, int n, int classes)
{
    uint8_t *p = buf;
    memcpy(p, "\0\0\x08\x01", 4);
    p = put_big_endian(p + 4, (uint32_t)n);
    for (int i = 0; i < n; i++) *p++ = (uint8_t)(i % classes);
    return (size_t)(p - buf);
}

static void png(const char *name, int h, int w, int c, int number)
{
    sag_image image;
    assert_ok(sag_image_create(h, w, c, &image));
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int k = 0; k < c; k++) image.pixels[(y * w + x) * c + k] = pixel_of(number, y, x, k);
    make_parents(at(name));
    assert_ok(sag_image_write_png(at(name), &image));
    sag_image_free(&image);
}

/* The files of `folder`/from as a tar (gzipped or not) under their names, in an order of its own. */
static void tar(const char *archive, const char *const *names, int n, bool gzipped)
{
    gzFile f = gzopen(at(archive), gzipped ? "wb" : "wbT");
    assert_non_null(f);
    for (int i = n - 1; i >= 0; i--) {
        uint8_t head[512] = {0}, zero[512] = {0}, *bytes = NULL;
        size_t size = 0;
        assert_ok(sag_file_read(at(names[i]), 0, &bytes, &size));
        snprintf((char *)head, 100, "%s", names[i]);
        strcpy((char *)head + 100, "0000644");
        snprintf((char *)head + 124, 12, "%011lo", (unsigned long)size);
        strcpy((char *)head + 136, "00000000000");
        head[156] = '0';
        memcpy(head + 257, "ustar\00000", 8);
        memset(head + 148, ' ', 8);
        unsigned sum = 0;
        for (int b = 0; b < 512; b++) sum += head[b];
        snprintf((char *)head + 148, 8, "%06o", sum);
        gzwrite(f, head, 512);
        gzwrite(f, bytes, (unsigned)size);
        if (size % 512) gzwrite(f, zero, (unsigned)(512 - size % 512));
        sag_host_free(bytes);
    }
    uint8_t end[1024] = {0};
    gzwrite(f, end, sizeof end);
    gzclose(f);
}

static sag_dataset *open_ok(const char *what, const sag_dataset_options *o)
{
    sag_dataset *ds = NULL;
    assert_ok(sag_dataset_open(what, o, &ds));
    return ds;
}

#define open_fails(what, o, status, words)                              \
    do {                                                                \
        sag_dataset *none_ = (sag_dataset *)folder;                     \
        int64_t before_ = sag_debug_live_host_blocks();                 \
        assert_fails(sag_dataset_open((what), (o), &none_), status, words); \
        assert_null(none_);                                             \
        assert_int_equal(sag_debug_live_host_blocks(), before_);        \
    } while (0)

static const sag_dataset_options test_split = {.split = "test"};

/* ----------------------------------------------------------------------------------------------------- IDX */

static void idx_plain_and_gzipped(void **state)
{
    (void)state;
    uint8_t buf[8192];
    size_t n = idx_images(buf, 12, 6, 5);
    put("train-images-idx3-ubyte", buf, n);
    put_gz("t10k-images-idx3-ubyte.gz", buf, idx_images(buf, 4, 6, 5));
    put("train-labels-idx1-ubyte", buf, idx_labels(buf, 12, 3));
    put_gz("t10k-labels-idx1-ubyte.gz", buf, idx_labels(buf, 4, 2));
    const char *const specs[] = {spec("idx", ""), folder, spec("idx", "train-images-idx3-ubyte"), at("train-images-idx3-ubyte")};
    for (int k = 0; k < 4; k++) {
        sag_dataset *ds = open_ok(specs[k], NULL);
        const sag_dataset_info *in = sag_dataset_describe(ds);
        assert_int_equal(in->count, 12);
        assert_int_equal(in->height, 6);
        assert_int_equal(in->width, 5);
        assert_int_equal(in->channels, 1);
        assert_int_equal(in->classes, 3);
        assert_string_equal(in->class_names[2], "2");
        assert_memory_equal(in->spec, "idx:", 4);
        for (int64_t i = 0; i < 12; i++) {
            uint8_t pixels[30];
            int32_t label;
            assert_ok(sag_dataset_get(ds, i, pixels, &label));
            assert_int_equal(label, i % 3);
            for (int y = 0; y < 6; y++)
                for (int x = 0; x < 5; x++) assert_int_equal(pixels[y * 5 + x], pixel_of((int)i, y, x, 0));
        }
        sag_dataset_release(ds);
    }
    sag_dataset *ds = open_ok(spec("idx", ""), &test_split);
    assert_int_equal(sag_dataset_describe(ds)->count, 4);
    assert_string_equal(sag_dataset_describe(ds)->split, "test");
    sag_dataset_release(ds);
    open_fails(spec("idx", "train-images-idx3-ubyte"), &test_split, SAG_ERR_IO, "no test split"); /* the sibling has .gz */
}

/* Against the image functions called one by one. */
static void idx_is_fitted(void **state)
{
    (void)state;
    uint8_t buf[8192];
    put("train-images-idx3-ubyte", buf, idx_images(buf, 5, 10, 16));
    sag_dataset_options o = {.resolution = 7, .channels = 3, .limit = 2, .threads = 2};
    sag_dataset *ds = open_ok(spec("idx", ""), &o);
    const sag_dataset_info *in = sag_dataset_describe(ds);
    assert_int_equal(in->count, 2);
    assert_int_equal(in->height, 7);
    assert_int_equal(in->width, 7);
    assert_int_equal(in->channels, 3);
    assert_int_equal(in->classes, 1); /* no labels beside it */
    for (int64_t i = 0; i < 2; i++) {
        sag_image raw = {buf + 16 + (i == 1 ? 2 : 0) * 160, 10, 16, 1}, rgb, square, small; /* images 0 and 5 / 2 */
        uint8_t pixels[7 * 7 * 3];
        assert_ok(sag_image_convert(&raw, 3, &rgb));
        assert_ok(sag_image_crop_square(&rgb, &square));
        assert_ok(sag_image_resize(&square, 7, 7, &small));
        assert_ok(sag_dataset_get(ds, i, pixels, NULL));
        assert_memory_equal(pixels, small.pixels, sizeof pixels);
        sag_image_free(&rgb);
        sag_image_free(&square);
        sag_image_free(&small);
    }
    assert_fails(sag_dataset_check(ds), SAG_ERR_FORMAT, "one class");
    sag_dataset_release(ds);
}

static void bad_idx_files(void **state)
{
    (void)state;
    uint8_t buf[8192];
    size_t n = idx_images(buf, 12, 6, 5);
    put("a/train-images-idx3-ubyte", buf, n - 1);
    open_fails(spec("idx", "a"), NULL, SAG_ERR_FORMAT, "truncated");
    put("b/train-images-idx3-ubyte", buf, n + 1);
    open_fails(spec("idx", "b"), NULL, SAG_ERR_FORMAT, "appended");
    put("c/train-images-idx3-ubyte", buf, 6);
    open_fails(spec("idx", "c"), NULL, SAG_ERR_FORMAT, "not an IDX file");
    buf[2] = 0x0d;
    put("d/train-images-idx3-ubyte", buf, n);
    open_fails(spec("idx", "d"), NULL, SAG_ERR_FORMAT, "0d");
    buf[2] = 8;
    put_big_endian(buf + 4, 0xffffffffu);
    put_big_endian(buf + 8, 0xffffffffu);
    put_big_endian(buf + 12, 0xffffffffu);
    put("e/train-images-idx3-ubyte", buf, n);
    open_fails(spec("idx", "e"), NULL, SAG_ERR_FORMAT, "overflow");
    put_big_endian(buf + 4, 0);
    put("f/train-images-idx3-ubyte", buf, 16);
    open_fails(spec("idx", "f"), NULL, SAG_ERR_FORMAT, "dimension 1 is 0");
    n = idx_images(buf, 12, 6, 5);
    put("g/train-images-idx3-ubyte", buf, n);
    put("g/train-labels-idx1-ubyte", buf, idx_labels(buf, 11, 3));
    open_fails(spec("idx", "g"), NULL, SAG_ERR_FORMAT, "11 labels");
    open_fails(spec("idx", "g/train-labels-idx1-ubyte"), NULL, SAG_ERR_FORMAT, "labels file?");
    open_fails(spec("idx", "g"), &test_split, SAG_ERR_IO, "no images file of split test");
    open_fails(spec("idx", "missing"), NULL, SAG_ERR_IO, "does not exist");
    put("h/train-images-idx3-ubyte.gz", "\x1f\x8b\x08 and no more", 16);
    open_fails(spec("idx", "h"), NULL, SAG_ERR_FORMAT, "h/train-images-idx3-ubyte.gz");
}

/* -------------------------------------------------------------------------------------------------- CIFAR-10 */

enum { RECORD = 3073 };

static void cifar_batch(const char *name, int first, int n, int bad_label)
{
    uint8_t *bytes = malloc((size_t)n * RECORD), *p = bytes;
    for (int i = 0; i < n; i++) {
        *p++ = (uint8_t)(i == 1 && bad_label ? bad_label : (first + i) % 10);
        for (int c = 0; c < 3; c++)
            for (int y = 0; y < 32; y++)
                for (int x = 0; x < 32; x++) *p++ = pixel_of(first + i, y, x, c);
    }
    put(name, bytes, (size_t)n * RECORD);
    free(bytes);
}

static void cifar10_folder_and_archive(void **state)
{
    (void)state;
    static const char *const names[] = {"cifar-10-batches-bin/data_batch_1.bin", "cifar-10-batches-bin/data_batch_2.bin",
                                        "cifar-10-batches-bin/data_batch_3.bin", "cifar-10-batches-bin/data_batch_4.bin",
                                        "cifar-10-batches-bin/data_batch_5.bin", "cifar-10-batches-bin/test_batch.bin"};
    for (int b = 0; b < 6; b++) cifar_batch(names[b], b * 4, 4, 0);
    tar("cifar.tar.gz", names, 6, true); /* holds the batches in reverse order */
    const char *const specs[] = {spec("cifar10", ""), spec("cifar10", "cifar-10-batches-bin"), spec("cifar10", "cifar.tar.gz"),
                                 at("cifar.tar.gz")};
    char hex[2][33];
    for (int k = 0; k < 4; k++) {
        sag_dataset *ds = open_ok(specs[k], NULL);
        const sag_dataset_info *in = sag_dataset_describe(ds);
        assert_int_equal(in->count, 20);
        assert_int_equal(in->classes, 10);
        assert_string_equal(in->name, "cifar10");
        assert_string_equal(in->class_names[9], "truck");
        uint8_t pixels[RECORD - 1];
        int32_t label;
        assert_ok(sag_dataset_get(ds, 13, pixels, &label));
        assert_int_equal(label, 3);
        for (int y = 0; y < 32; y++)
            for (int x = 0; x < 32; x++)
                for (int c = 0; c < 3; c++) assert_int_equal(pixels[(y * 32 + x) * 3 + c], pixel_of(13, y, x, c));
        assert_ok(sag_dataset_hash(ds, hex[k > 0]));
        assert_string_equal(hex[k > 0], hex[0]);
        sag_dataset_release(ds);
        ds = open_ok(specs[k], &test_split);
        assert_int_equal(sag_dataset_describe(ds)->count, 4);
        assert_ok(sag_dataset_get(ds, 0, NULL, &label));
        assert_int_equal(label, 0);
        sag_dataset_release(ds);
    }
}

static void bad_cifar10_files(void **state)
{
    (void)state;
    cifar_batch("data_batch_1.bin", 0, 4, 0);
    open_fails(spec("cifar10", ""), NULL, SAG_ERR_IO, "data_batch_2.bin is missing");
    open_fails(spec("cifar10", ""), &test_split, SAG_ERR_IO, "test_batch.bin is missing");
    cifar_batch("test_batch.bin", 0, 4, 17);
    open_fails(spec("cifar10", ""), &test_split, SAG_ERR_FORMAT, "record 1 has label 17");
    put("test_batch.bin", folder, 20);
    open_fails(spec("cifar10", ""), &test_split, SAG_ERR_FORMAT, "not a whole number");
    open_fails(spec("cifar10", "test_batch.bin"), NULL, SAG_ERR_FORMAT, "neither a folder nor");
}

/* --------------------------------------------------------------------------------------------------- folders */

static const char *const pets[] = {"pets/train/cat/1.png", "pets/train/cat/2.png", "pets/train/cat/sub/3.png",
                                   "pets/train/dog/1.png", "pets/train/dog/2.png", "pets/val/cat/9.png",
                                   "pets/val/dog/8.png",   "pets/val/dog/9.png"};

static void make_pets(void)
{
    for (int i = 0; i < 8; i++) png(pets[i], 12 + i, 12, 3, i);
}

static void check_pets(const char *what)
{
    sag_dataset_options o = {.resolution = 8, .channels = 3, .threads = 2};
    sag_dataset *ds = open_ok(what, &o);
    const sag_dataset_info *in = sag_dataset_describe(ds);
    assert_int_equal(in->count, 5);
    assert_int_equal(in->classes, 2);
    assert_int_equal(in->skipped, 0);
    assert_string_equal(in->class_names[0], "cat");
    assert_string_equal(in->class_names[1], "dog");
    for (int64_t i = 0; i < 5; i++) {
        sag_image whole, square, small;
        uint8_t pixels[8 * 8 * 3];
        int32_t label;
        assert_ok(sag_image_read(at(pets[i]), 3, &whole));
        assert_ok(sag_image_crop_square(&whole, &square));
        assert_ok(sag_image_resize(&square, 8, 8, &small));
        assert_ok(sag_dataset_get(ds, i, pixels, &label));
        assert_int_equal(label, i >= 3);
        assert_memory_equal(pixels, small.pixels, sizeof pixels);
        sag_image_free(&whole);
        sag_image_free(&square);
        sag_image_free(&small);
    }
    assert_ok(sag_dataset_check(ds));
    sag_dataset_release(ds);
    o.split = "test"; /* val/ serves */
    ds = open_ok(what, &o);
    int64_t counts[2];
    sag_dataset_histogram(ds, counts);
    assert_int_equal(counts[0], 1);
    assert_int_equal(counts[1], 2);
    sag_dataset_release(ds);
}

static void folders_and_archives_of_images(void **state)
{
    (void)state;
    make_pets();
    png("pets/train/.hidden/1.png", 5, 5, 1, 0);
    put("pets/readme.txt", "x", 1);
    tar("pets.tar", pets, 8, false);
    tar("pets.tar.gz", pets, 8, true);
    check_pets(spec("folder", "pets"));
    check_pets(spec("folder", "pets/"));
    check_pets(spec("folder", "pets.tar"));
    check_pets(spec("folder", "pets.tar.gz"));
    check_pets(at("pets"));
    check_pets(at("pets.tar.gz"));
    check_pets(spec("cifar10", "pets.tar")); /* images under a name that promises records */
    sag_dataset *ds = open_ok(spec("folder", "pets.tar.gz"), NULL); /* as found */
    assert_int_equal(sag_dataset_describe(ds)->height, 12);
    assert_int_equal(sag_dataset_describe(ds)->channels, 3);
    assert_string_equal(sag_dataset_describe(ds)->name, "pets");
    sag_dataset_release(ds);
}

static void folders_without_splits(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        char name[64];
        snprintf(name, sizeof name, "wrap/n0000000%d_%s/%d.PNG", i % 2, i % 2 ? "tench" : "grey_owl", i);
        png(name, 9, 9, 1, i);
    }
    sag_dataset *ds = open_ok(spec("folder", ""), NULL);
    const sag_dataset_info *in = sag_dataset_describe(ds);
    assert_int_equal(in->count, 6);
    assert_int_equal(in->channels, 1);
    assert_int_equal(in->height, 9);
    assert_string_equal(in->class_names[0], "grey_owl");
    assert_string_equal(in->class_names[1], "tench");
    sag_dataset_release(ds);
    sag_dataset_options o = {.limit = 2}; /* evenly spaced: both classes */
    ds = open_ok(spec("folder", ""), &o);
    int64_t counts[2];
    sag_dataset_histogram(ds, counts);
    assert_int_equal(counts[0], 1);
    assert_int_equal(counts[1], 1);
    sag_dataset_release(ds);
    open_fails(spec("folder", ""), &test_split, SAG_ERR_IO, "no test split in it: there is n00000000_grey_owl, n00000001_tench");
    /* one class */
    ds = open_ok(spec("folder", "wrap/n00000000_grey_owl"), NULL);
    assert_int_equal(sag_dataset_describe(ds)->classes, 1);
    assert_fails(sag_dataset_check(ds), SAG_ERR_FORMAT, "n00000000_grey_owl");
    sag_dataset_release(ds);
}

static void bad_folders(void **state)
{
    (void)state;
    open_fails(spec("folder", "nowhere"), NULL, SAG_ERR_IO, "does not exist");
    put("empty/a/readme.txt", "x", 1);
    open_fails(spec("folder", "empty"), NULL, SAG_ERR_FORMAT, "no images");
    open_fails(spec("folder", "empty/a/readme.txt"), NULL, SAG_ERR_FORMAT, "neither a folder nor");
    png("one/train/cat/1.png", 8, 8, 1, 1);
    png("one/train/dog/1.png", 8, 8, 1, 1);
    open_fails(spec("folder", "one"), &test_split, SAG_ERR_IO, "there is train");
    assert_ok(sag_file_make_folders(at("one/train/fox")));
    open_fails(spec("folder", "one"), NULL, SAG_ERR_FORMAT, "class folder fox has no images");
    png("two/train/cat/1.png", 8, 8, 1, 1);
    png("two/test/cow/1.png", 8, 8, 1, 1);
    open_fails(spec("folder", "two"), &test_split, SAG_ERR_FORMAT, "class cow is in test/ but not in train/");
    sag_dataset_options tight = {.max_bytes = 100};
    png("three/cat/1.png", 8, 8, 1, 1);
    png("three/dog/1.png", 8, 8, 1, 1);
    open_fails(spec("folder", "three"), &tight, SAG_ERR_ARG, "pack:FILE");
}

/* 150 images of class a and 50 of class b. */
static void many_images(void)
{
    for (int i = 0; i < 200; i++) {
        char name[64];
        snprintf(name, sizeof name, "many/%s/%03d.png", i < 150 ? "a" : "b", i);
        png(name, 4, 4, 1, i);
    }
}

static void corrupt_images_are_skipped(void **state)
{
    (void)state;
    many_images();
    put("many/a/010.png", "\x89PNG\r\n\x1a\n and rubbish", 20);
    put("many/b/199.png", "", 0);
    sag_dataset *ds = open_ok(spec("folder", "many"), NULL);
    const sag_dataset_info *in = sag_dataset_describe(ds);
    assert_int_equal(in->count, 198);
    assert_int_equal(in->skipped, 2);
    uint8_t pixels[16];
    int32_t label;
    assert_ok(sag_dataset_get(ds, 9, pixels, &label));
    assert_int_equal(pixels[0], pixel_of(9, 0, 0, 0));
    assert_ok(sag_dataset_get(ds, 10, pixels, &label)); /* the next one moves up */
    assert_int_equal(pixels[0], pixel_of(11, 0, 0, 0));
    assert_ok(sag_dataset_get(ds, 197, pixels, &label));
    assert_int_equal(pixels[0], pixel_of(198, 0, 0, 0));
    assert_int_equal(label, 1);
    sag_dataset_release(ds);
    put("many/a/011.png", "no", 2);
    open_fails(spec("folder", "many"), NULL, SAG_ERR_FORMAT, "more than 1 %");
    put("many/a/011.png", "no", 2);
    png("many/a/011.png", 4, 4, 1, 11);
    png("many/a/010.png", 4, 4, 1, 10);
    png("many/b/199.png", 4, 4, 1, 199);
    put("many/c/1.png", "no", 2);
    open_fails(spec("folder", "many"), NULL, SAG_ERR_FORMAT, "class c ends up with no images");
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    many_images();
    char hex[3][33];
    for (int t = 1; t <= 3; t++) {
        sag_dataset_options o = {.resolution = 5, .threads = t};
        sag_dataset *ds = open_ok(spec("folder", "many"), &o);
        assert_ok(sag_dataset_hash(ds, hex[t - 1]));
        sag_dataset_release(ds);
    }
    assert_string_equal(hex[0], hex[1]);
    assert_string_equal(hex[0], hex[2]);
}

/* ------------------------------------------------------------------------------------------------------ packs */

static void packs_hold_what_they_were_made_of(void **state)
{
    (void)state;
    make_pets();
    tar("pets.tar.gz", pets, 8, true);
    sag_dataset_options o = {.resolution = 8}, tight = {.resolution = 8, .max_bytes = 10};
    int64_t count = 0, blocks = sag_debug_live_host_blocks();
    assert_ok(sag_dataset_pack(spec("folder", "pets"), &o, at("pets.safetensors"), &count));
    assert_int_equal(count, 5);
    /* images that do not fit in memory go through a file, and the pack is the same but for its metadata */
    assert_ok(sag_dataset_pack(spec("folder", "pets.tar.gz"), &tight, at("tight.safetensors"), &count));
    sag_dataset *from = open_ok(spec("folder", "pets"), &o), *to = open_ok(spec("pack", "pets.safetensors"), NULL);
    sag_dataset *streamed = open_ok(at("tight.safetensors"), NULL);
    char a[33], b[33], c[33];
    assert_ok(sag_dataset_hash(from, a));
    assert_ok(sag_dataset_hash(to, b));
    assert_ok(sag_dataset_hash(streamed, c));
    assert_string_equal(a, b);
    assert_string_equal(a, c);
    assert_string_equal(sag_dataset_describe(to)->name, "pets");
    assert_string_equal(sag_dataset_describe(to)->class_names[1], "dog");
    sag_dataset_release(streamed);
    sag_dataset_release(from);
    sag_dataset_release(to);
    sag_file_names names;
    assert_ok(sag_file_list(folder, &names)); /* no temporary file stays */
    assert_int_equal(names.count, 4);
    sag_file_names_free(&names);
    /* another size is fitted like that of any source */
    sag_dataset_options small = {.resolution = 4, .channels = 1, .limit = 2};
    to = open_ok(spec("pack", "pets.safetensors"), &small);
    assert_int_equal(sag_dataset_describe(to)->height, 4);
    assert_int_equal(sag_dataset_describe(to)->count, 2);
    assert_int_equal(sag_dataset_describe(to)->classes, 2);
    sag_dataset_release(to);
    open_fails(spec("pack", "pets.safetensors"), &test_split, SAG_ERR_IO, "holds the train split");
    assert_int_equal(sag_debug_live_host_blocks(), blocks);
}

static bool stop_at_once(void *user, int64_t done, int64_t total)
{
    (void)done, (void)total;
    (*(int *)user)++;
    return false;
}

static void packing_that_stops_leaves_no_file(void **state)
{
    (void)state;
    int calls = 0;
    sag_dataset_options o = {.progress = stop_at_once, .progress_user = &calls};
    make_pets();
    assert_fails(sag_dataset_pack(spec("folder", "pets"), &o, at("p.safetensors"), NULL), SAG_ERR_STATE, "stopped");
    assert_fails(sag_dataset_pack("quadrupeds:300", &o, at("q.safetensors"), NULL), SAG_ERR_STATE, "stopped");
    assert_int_equal(calls, 2);
    assert_fails(sag_dataset_pack("quadrupeds:3", NULL, at("no/such/folder/q"), NULL), SAG_ERR_IO, "no/such/folder");
    sag_file_names names;
    assert_ok(sag_file_list(folder, &names));
    assert_int_equal(names.count, 1);
    sag_file_names_free(&names);
}

static void bad_packs(void **state)
{
    (void)state;
    uint8_t images[4 * 2 * 2] = {0};
    int32_t labels[4] = {0, 1, 2, 0};
    sag_safetensors_item items[2] = {{.name = "images", .dtype = SAG_U8, .shape = sag_shape4(4, 2, 2, 1), .data = images},
                                     {.name = "labels", .dtype = SAG_I32, .shape = sag_shape1(4), .data = labels}};
    sag_safetensors_pair meta = {"class_names", "a\nb"};
    assert_ok(sag_safetensors_write(at("x"), items, 2, &meta, 1));
    open_fails(spec("pack", "x"), NULL, SAG_ERR_FORMAT, "label 2 is out of range for the 2 class names");
    assert_ok(sag_safetensors_write(at("x"), items, 2, NULL, 0));
    sag_dataset *ds = open_ok(spec("pack", "x"), NULL);
    assert_int_equal(sag_dataset_describe(ds)->classes, 3);
    assert_fails(sag_dataset_check(ds), SAG_ERR_FORMAT, "one flat colour");
    sag_dataset_release(ds);
    assert_ok(sag_safetensors_write(at("x"), items, 1, NULL, 0));
    open_fails(spec("pack", "x"), NULL, SAG_ERR_FORMAT, "no tensor `labels`");
    items[1].shape = sag_shape1(3);
    assert_ok(sag_safetensors_write(at("x"), items, 2, NULL, 0));
    open_fails(spec("pack", "x"), NULL, SAG_ERR_FORMAT, "3 elements");
    items[1].shape = sag_shape1(4);
    labels[3] = -1;
    assert_ok(sag_safetensors_write(at("x"), items, 2, NULL, 0));
    open_fails(spec("pack", "x"), NULL, SAG_ERR_FORMAT, "label 3 is -1");
    put("x", "rubbish", 7);
    open_fails(spec("pack", "x"), NULL, SAG_ERR_FORMAT, "x");
    open_fails(at("x"), NULL, SAG_ERR_FORMAT, "not a pack, an archive");
}

/* ---------------------------------------------------------------------------------------------------- general */

static void specs_and_options(void **state)
{
    (void)state;
    sag_dataset_options o = {.resolution = -1};
    open_fails("quadrupeds", &o, SAG_ERR_ARG, "resolution -1");
    o = (sag_dataset_options){.channels = 2};
    open_fails("quadrupeds", &o, SAG_ERR_ARG, "channels 2");
    o = (sag_dataset_options){.split = "val"};
    open_fails("quadrupeds", &o, SAG_ERR_ARG, "split \"val\"");
    o = (sag_dataset_options){.limit = -3};
    open_fails("quadrupeds", &o, SAG_ERR_ARG, "limit -3");
    open_fails("", NULL, SAG_ERR_ARG, "empty");
    open_fails(NULL, NULL, SAG_ERR_ARG, "no spec");
    open_fails("idx", NULL, SAG_ERR_ARG, "needs a path");
    open_fails("pack:", NULL, SAG_ERR_ARG, "needs a path");
    open_fails("quadruped", NULL, SAG_ERR_IO, "neither a source nor a path");
    sag_dataset *ds = open_ok("auto", &(sag_dataset_options){.limit = 20});
    assert_string_not_equal(sag_dataset_describe(ds)->spec, "auto");
    assert_int_equal(sag_dataset_describe(ds)->count, 20);
    sag_dataset_release(ds);
}

static void the_same_image_again_and_again(void **state)
{
    (void)state;
    uint8_t buf[4096];
    idx_images(buf, 40, 4, 4);
    for (int i = 1; i < 40; i++) memcpy(buf + 16 + 16 * i, buf + 16, 16);
    put("train-images-idx3-ubyte", buf, 16 + 40 * 16);
    put("train-labels-idx1-ubyte", buf, idx_labels(buf, 40, 4));
    sag_dataset *ds = open_ok(spec("idx", ""), NULL);
    assert_fails(sag_dataset_check(ds), SAG_ERR_FORMAT, "the same image");
    sag_dataset_release(ds);
}

static void failing_allocations_leave_nothing(void **state)
{
    (void)state;
    make_pets();
    tar("pets.tar.gz", pets, 8, true);
    sag_dataset_options o = {.resolution = 8};
    assert_ok(sag_dataset_pack(spec("folder", "pets"), &o, at("p.safetensors"), NULL));
    const char *const specs[] = {spec("folder", "pets"), spec("folder", "pets.tar.gz"), spec("pack", "p.safetensors"),
                                 "quadrupeds:5"};
    o.threads = 1;
    for (int k = 0; k < 4; k++) {
        int64_t before = sag_debug_live_host_blocks();
        bool done = false;
        for (int64_t n = 1; n < 3000 && !done; n++) {
            sag_dataset *ds = NULL;
            sag_debug_fail_allocation(n);
            sag_status s = sag_dataset_open(specs[k], &o, &ds);
            sag_debug_fail_allocation(0);
            if (s == SAG_OK && n > 200) done = true;
            if (s != SAG_OK && s != SAG_ERR_MEMORY) fail_msg("%s, allocation %d: %s: %s", specs[k], (int)n, sag_status_name(s),
                                                             sag_error_message());
            sag_dataset_release(ds);
            assert_int_equal(sag_debug_live_host_blocks(), before);
        }
    }
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, fresh_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(idx_plain_and_gzipped),
        WITH_FOLDER(idx_is_fitted),
        WITH_FOLDER(bad_idx_files),
        WITH_FOLDER(cifar10_folder_and_archive),
        WITH_FOLDER(bad_cifar10_files),
        WITH_FOLDER(folders_and_archives_of_images),
        WITH_FOLDER(folders_without_splits),
        WITH_FOLDER(bad_folders),
        WITH_FOLDER(corrupt_images_are_skipped),
        WITH_FOLDER(threads_do_not_matter),
        WITH_FOLDER(packs_hold_what_they_were_made_of),
        WITH_FOLDER(packing_that_stops_leaves_no_file),
        WITH_FOLDER(bad_packs),
        WITH_FOLDER(specs_and_options),
        WITH_FOLDER(the_same_image_again_and_again),
        WITH_FOLDER(failing_allocations_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
