/* Shuffle and loader: every image once an epoch, content by (seed, step) alone, random access, clean closing. */
#include <pthread.h>

#include "engine/data/dataset.h"
#include "testing.h"

enum { COUNT = 37, SIDE = 8 };

static sag_dataset *open_quadrupeds(void)
{
    sag_dataset *ds = NULL;
    sag_dataset_options o = {.resolution = SIDE, .channels = 1};
    assert_ok(sag_dataset_open("quadrupeds:37", &o, &ds));
    return ds;
}

static void each_epoch_is_a_permutation(void **state)
{
    (void)state;
    int32_t order[COUNT], other[COUNT];
    for (int64_t epoch = 0; epoch < 5; epoch++) {
        int seen[COUNT] = {0};
        sag_shuffle_epoch(11, epoch, COUNT, order);
        for (int i = 0; i < COUNT; i++) {
            assert_in_range(order[i], 0, COUNT - 1);
            seen[order[i]]++;
        }
        for (int i = 0; i < COUNT; i++) assert_int_equal(seen[i], 1);
    }
    sag_shuffle_epoch(11, 0, COUNT, other);
    assert_memory_not_equal(order, other, sizeof order); /* epochs differ */
    sag_shuffle_epoch(12, 0, COUNT, order);
    assert_memory_not_equal(order, other, sizeof order); /* seeds differ */
    sag_shuffle_epoch(11, 0, 1, order);
    assert_int_equal(order[0], 0);
}

/* All 24 orders of 4 images come up about equally often. */
static void orders_are_uniform(void **state)
{
    (void)state;
    enum { TRIES = 24000 };
    int hits[256] = {0}, kinds = 0;
    for (int64_t e = 0; e < TRIES; e++) {
        int32_t o[4];
        sag_shuffle_epoch(3, e, 4, o);
        hits[o[0] << 6 | o[1] << 4 | o[2] << 2 | o[3]]++;
    }
    for (int i = 0; i < 256; i++) {
        if (!hits[i]) continue;
        kinds++;
        assert_in_range(hits[i], 840, 1160); /* 1000 +- 5 standard deviations */
    }
    assert_int_equal(kinds, 24);
}

/* The batch of a step by its definition. */
static void expected(const sag_dataset *ds, uint64_t seed, int64_t batch, int64_t step, uint8_t *images,
                     int32_t *labels)
{
    int32_t order[COUNT];
    for (int64_t j = 0; j < batch; j++) {
        int64_t place = step * batch + j;
        sag_shuffle_epoch(seed, place / COUNT, COUNT, order);
        assert_ok(sag_dataset_get(ds, order[place % COUNT], images + j * SIDE * SIDE, labels + j));
    }
}

static void check_step(sag_loader *l, const sag_dataset *ds, uint64_t seed, int64_t batch, int64_t step)
{
    uint8_t *want = malloc((size_t)batch * SIDE * SIDE);
    int32_t *want_labels = malloc(sizeof *want_labels * (size_t)batch);
    const uint8_t *images;
    const int32_t *labels;
    expected(ds, seed, batch, step, want, want_labels);
    assert_ok(sag_loader_take(l, step, &images, &labels));
    assert_memory_equal(images, want, (size_t)batch * SIDE * SIDE);
    assert_memory_equal(labels, want_labels, sizeof *want_labels * (size_t)batch);
    free(want);
    free(want_labels);
}

static void batches_follow_the_definition(void **state)
{
    (void)state;
    sag_dataset *ds = open_quadrupeds();
    for (int workers = 0; workers <= 3; workers++)
        for (int slots = 2; slots <= 5; slots++) {
            sag_loader *l = NULL;
            assert_ok(sag_loader_create(ds, 10, 5, slots, workers, &l));
            for (int64_t step = 0; step < 12; step++) check_step(l, ds, 5, 10, step);
            check_step(l, ds, 5, 10, 11);         /* again */
            check_step(l, ds, 5, 10, 1000000007); /* far away, and back */
            check_step(l, ds, 5, 10, 3);
            check_step(l, ds, 5, 10, 2);
            check_step(l, ds, 5, 10, 4);
            sag_loader_destroy(l);
        }
    sag_dataset_release(ds);
}

static void batch_larger_than_the_data(void **state)
{
    (void)state;
    sag_dataset *ds = open_quadrupeds();
    sag_loader *l = NULL;
    assert_ok(sag_loader_create(ds, 100, 1, 3, 2, &l));
    for (int64_t step = 0; step < 4; step++) check_step(l, ds, 1, 100, step);
    sag_loader_destroy(l);
    sag_dataset_release(ds);
}

static void closing_while_it_works(void **state)
{
    (void)state;
    int64_t before = sag_debug_live_host_blocks();
    for (int i = 0; i < 40; i++) {
        sag_dataset *ds = open_quadrupeds();
        sag_loader *l = NULL;
        const uint8_t *images;
        const int32_t *labels;
        assert_ok(sag_loader_create(ds, 16, 1, 4, 1 + i % 3, &l));
        if (i % 2) assert_ok(sag_loader_take(l, i, &images, &labels));
        sag_dataset_release(ds); /* the loader keeps its own reference */
        sag_loader_destroy(l);
    }
    assert_int_equal(sag_debug_live_host_blocks(), before);
}

static void arguments_are_checked(void **state)
{
    (void)state;
    sag_dataset *ds = open_quadrupeds();
    sag_loader *l = NULL;
    const uint8_t *images;
    const int32_t *labels;
    assert_fails(sag_loader_create(ds, 0, 1, 3, 1, &l), SAG_ERR_ARG, "batch 0");
    assert_fails(sag_loader_create(ds, INT64_MAX, 1, 3, 1, &l), SAG_ERR_ARG, "batch");
    assert_fails(sag_loader_create(ds, 4, 1, 1, 1, &l), SAG_ERR_ARG, "slots 1");
    assert_fails(sag_loader_create(ds, 4, 1, 3, -1, &l), SAG_ERR_ARG, "workers -1");
    assert_null(l);
    assert_ok(sag_loader_create(ds, 4, 1, 3, 1, &l));
    assert_fails(sag_loader_take(l, -1, &images, &labels), SAG_ERR_ARG, "step -1");
    assert_fails(sag_loader_take(l, INT64_MAX, &images, &labels), SAG_ERR_ARG, "out of range");
    check_step(l, ds, 1, 4, 0);
    sag_loader_destroy(l);
    sag_dataset_release(ds);
}

static void failing_allocations_leave_nothing(void **state)
{
    (void)state;
    sag_dataset *ds = open_quadrupeds();
    int64_t before = sag_debug_live_host_blocks();
    int failures = 0;
    for (int64_t n = 1; n < 1000; n++) {
        sag_loader *l = NULL;
        sag_debug_fail_allocation(n);
        sag_status s = sag_loader_create(ds, 4, 1, 3, 2, &l);
        sag_debug_fail_allocation(0);
        sag_loader_destroy(l);
        assert_int_equal(sag_debug_live_host_blocks(), before);
        if (s == SAG_OK) break;
        assert_int_equal(s, SAG_ERR_MEMORY);
        failures++;
    }
    assert_true(failures > 5);
    sag_dataset_release(ds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_epoch_is_a_permutation),
        cmocka_unit_test(orders_are_uniform),
        cmocka_unit_test(batches_follow_the_definition),
        cmocka_unit_test(batch_larger_than_the_data),
        cmocka_unit_test(closing_while_it_works),
        cmocka_unit_test(arguments_are_checked),
        cmocka_unit_test(failing_allocations_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
