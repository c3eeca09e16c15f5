/* CIFAR-10 records in folders and archives. */
#include "data_files.h"

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
    static const char *const names[] = {
        "cifar-10-batches-bin/data_batch_1.bin", "cifar-10-batches-bin/data_batch_2.bin",
        "cifar-10-batches-bin/data_batch_3.bin", "cifar-10-batches-bin/data_batch_4.bin",
        "cifar-10-batches-bin/data_batch_5.bin", "cifar-10-batches-bin/test_batch.bin"};
    for (int b = 0; b < 6; b++) cifar_batch(names[b], b * 4, 4, 0);
    tar("cifar.tar.gz", names, 6, true); /* holds the batches in reverse order */
    const char *const specs[] = {spec("cifar10", ""), spec("cifar10", "cifar-10-batches-bin"),
                                 spec("cifar10", "cifar.tar.gz"), at("cifar.tar.gz")};
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(cifar10_folder_and_archive),
        WITH_FOLDER(bad_cifar10_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
