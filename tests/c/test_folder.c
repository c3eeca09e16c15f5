/* Class folders of images, in folders and archives: layouts, splits, skipping, and messages. */
#include "data_files.h"

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
    check_pets(spec("cifar10", "pets.tar"));                        /* images under a name that promises records */
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
    sag_dataset *ds = open_ok(spec("folder", ""), NULL); /* the folder that wraps them is no class */
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
    open_fails(spec("folder", ""), &test_split, SAG_ERR_IO,
               "no test split in it: there is n00000000_grey_owl, n00000001_tench");
    /* names that are equal without their numbers keep them */
    png("twins/n00000000_crane/1.png", 9, 9, 1, 1);
    png("twins/n00000001_crane/1.png", 9, 9, 1, 2);
    ds = open_ok(spec("folder", "twins"), NULL);
    assert_string_equal(sag_dataset_describe(ds)->class_names[1], "n00000001_crane");
    sag_dataset_release(ds);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(folders_and_archives_of_images), WITH_FOLDER(folders_without_splits), WITH_FOLDER(bad_folders),
        WITH_FOLDER(corrupt_images_are_skipped),     WITH_FOLDER(threads_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
