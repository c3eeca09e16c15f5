/* IDX files: both splits, plain and gzipped, fitted to a size, and what is wrong with one is said with its name. */
#include "data_files.h"

static void idx_plain_and_gzipped(void **state)
{
    (void)state;
    uint8_t buf[8192];
    size_t n = idx_images(buf, 12, 6, 5);
    put("train-images-idx3-ubyte", buf, n);
    put_gz("t10k-images-idx3-ubyte.gz", buf, idx_images(buf, 4, 6, 5));
    put("train-labels-idx1-ubyte", buf, idx_labels(buf, 12, 3));
    put_gz("t10k-labels-idx1-ubyte.gz", buf, idx_labels(buf, 4, 2));
    const char *const specs[] = {spec("idx", ""), folder, spec("idx", "train-images-idx3-ubyte"),
                                 at("train-images-idx3-ubyte")};
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
    open_fails(spec("idx", "train-images-idx3-ubyte"), &test_split, SAG_ERR_IO,
               "no test split"); /* the sibling has .gz */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(idx_plain_and_gzipped),
        WITH_FOLDER(idx_is_fitted),
        WITH_FOLDER(bad_idx_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
