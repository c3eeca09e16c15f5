/* Packs: written from any source, larger than memory or not, opened again, and refused when they are not sound. */
#include "data_files.h"
#include "engine/io/safetensors.h"

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
    sag_safetensors_item items[2] = {
        {.name = "images", .dtype = SAG_U8, .shape = sag_shape4(4, 2, 2, 1), .data = images},
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(packs_hold_what_they_were_made_of),
        WITH_FOLDER(packing_that_stops_leaves_no_file),
        WITH_FOLDER(bad_packs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
