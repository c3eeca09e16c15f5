/* Specs and options, checks of content, and failing allocations, for every kind of source. */
#include "data_files.h"

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
            if (s != SAG_OK && s != SAG_ERR_MEMORY)
                fail_msg("%s, allocation %d: %s: %s", specs[k], (int)n, sag_status_name(s), sag_error_message());
            sag_dataset_release(ds);
            assert_int_equal(sag_debug_live_host_blocks(), before);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(specs_and_options),
        WITH_FOLDER(the_same_image_again_and_again),
        WITH_FOLDER(failing_allocations_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
