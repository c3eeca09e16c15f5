/*
 * data_files.h - for the tests of data sets: a temporary folder for each test, and small files written into it: IDX,
 * PNG, tar. All of it is inline, since each test is a program of its own.
 */
#ifndef SAG_DATA_FILES_H
#define SAG_DATA_FILES_H

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "engine/data/dataset.h"
#include "engine/io/file.h"
#include "engine/io/image.h"
#include "testing.h"

static char folder[64]; /* of the test that runs */

static inline const char *at(const char *name)
{
    static char ring[8][256];
    static int next;
    char *p = ring[next++ & 7];
    snprintf(p, 256, "%s/%s", folder, name);
    return p;
}

/* "kind:folder/name" */
static inline const char *spec(const char *kind, const char *name)
{
    static char ring[8][300];
    static int next;
    char *p = ring[next++ & 7];
    snprintf(p, 300, "%s:%s/%s", kind, folder, name);
    return p;
}

static inline int remove_one(const char *path, const struct stat *s, int type, struct FTW *f)
{
    (void)s, (void)type, (void)f;
    return remove(path);
}

static inline int fresh_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/sagan-data-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static inline int drop_folder(void **state)
{
    (void)state;
    return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void make_parents(const char *path)
{
    char parent[256];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash) *slash = 0;
    assert_ok(sag_file_make_folders(parent));
}

static inline void put(const char *name, const void *bytes, size_t n)
{
    make_parents(at(name));
    FILE *f = fopen(at(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static inline void put_gz(const char *name, const void *bytes, size_t n)
{
    gzFile f = gzopen(at(name), "wb");
    assert_non_null(f);
    assert_int_equal(gzwrite(f, bytes, (unsigned)n), n);
    gzclose(f);
}

static inline uint8_t pixel_of(int image, int y, int x, int c)
{
    return (uint8_t)(image * 37 + y * 11 + x * 5 + c * 91 + 3);
}

static inline uint8_t *put_big_endian(uint8_t *p, uint32_t x)
{
    p[0] = (uint8_t)(x >> 24), p[1] = (uint8_t)(x >> 16), p[2] = (uint8_t)(x >> 8), p[3] = (uint8_t)x;
    return p + 4;
}

static inline size_t idx_images(uint8_t *buf, int n, int h, int w)
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

static inline size_t idx_labels(uint8_t *buf, int n, int classes)
{
    uint8_t *p = buf;
    memcpy(p, "\0\0\x08\x01", 4);
    p = put_big_endian(p + 4, (uint32_t)n);
    for (int i = 0; i < n; i++) *p++ = (uint8_t)(i % classes);
    return (size_t)(p - buf);
}

static inline void png(const char *name, int h, int w, int c, int number)
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
static inline void tar(const char *archive, const char *const *names, int n, bool gzipped)
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

static inline sag_dataset *open_ok(const char *what, const sag_dataset_options *o)
{
    sag_dataset *ds = NULL;
    assert_ok(sag_dataset_open(what, o, &ds));
    return ds;
}

#define open_fails(what, o, status, words)                                                                             \
    do {                                                                                                               \
        sag_dataset *none_ = (sag_dataset *)folder;                                                                    \
        int64_t before_ = sag_debug_live_host_blocks();                                                                \
        assert_fails(sag_dataset_open((what), (o), &none_), status, words);                                            \
        assert_null(none_);                                                                                            \
        assert_int_equal(sag_debug_live_host_blocks(), before_);                                                       \
    } while (0)

static const sag_dataset_options test_split __attribute__((unused)) = {.split = "test"};

static const char *const pets[] __attribute__((unused)) = {
    "pets/train/cat/1.png", "pets/train/cat/2.png", "pets/train/cat/sub/3.png", "pets/train/dog/1.png",
    "pets/train/dog/2.png", "pets/val/cat/9.png",   "pets/val/dog/8.png",       "pets/val/dog/9.png"};

static inline void make_pets(void)
{
    for (int i = 0; i < 8; i++) png(pets[i], 12 + i, 12, 3, i);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, fresh_folder, drop_folder)

#endif
