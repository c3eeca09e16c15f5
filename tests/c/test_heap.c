/* The heap's placement: the smallest gap first, no overlap whatever comes and goes, segments given back. */
#include "testing.h"

#include "engine/heap.h"

/* Blocks are members of their owners and know their neighbours by address, so they must not be copied once placed. */
static void put(sag_heap *h, sag_heap_block *b, size_t size)
{
    *b = (sag_heap_block){.size = size};
    assert_true(sag_heap_place(h, b) || sag_heap_grow(h, b, sag_cpu_backend(), NULL));
}

static void the_smallest_gap_that_holds_it(void **state)
{
    (void)state;
    sag_heap h = {.grow = 1 << 20, .lazy = true};
    sag_heap_block b[7], again;
    const size_t size[7] = {4096, 30720, 4096, 20480, 4096, 10240, 4096};
    for (int i = 0; i < 7; i++) put(&h, &b[i], size[i]);
    for (int i = 1; i < 7; i += 2) sag_heap_remove(&h, &b[i]); /* gaps of 30720, 20480 and 10240 */
    put(&h, &again, 15360);
    assert_ptr_equal(again.data, b[3].data);
    sag_heap_block rest;
    put(&h, &rest, 30720);
    assert_ptr_equal(rest.data, b[1].data);
    sag_heap_remove(&h, &again);
    sag_heap_remove(&h, &b[2]); /* what was two gaps and a block is one gap */
    put(&h, &again, 20480 + 4096);
    assert_ptr_equal(again.data, b[2].data);
    sag_heap_remove(&h, &again);
    sag_heap_remove(&h, &rest);
    for (int i = 0; i < 7; i += 2) {
        if (i != 2) sag_heap_remove(&h, &b[i]);
    }
    assert_int_equal(sag_heap_idle(&h), h.segment[0].touched);
    sag_heap_trim(&h, sag_cpu_backend(), NULL);
    assert_null(h.segment[0].data);
    assert_int_equal(sag_heap_idle(&h), 0);
}

enum { BLOCKS = 200, BYTES = 1 << 16 };

/* Sizes and lifetimes at random over several segments: every block keeps what was written into it. */
static void blocks_never_overlap(void **state)
{
    (void)state;
    static sag_heap_block b[BLOCKS];
    static unsigned char value[BLOCKS];
    sag_heap h = {.grow = 1 << 20, .lazy = true};
    uint64_t random = 1;
    size_t in_use = 0;
    for (int step = 0; step < 20000; step++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        int i = (int)(random >> 33) % BLOCKS;
        if (value[i]) {
            for (size_t k = 0; k < b[i].size; k += 64) assert_int_equal((unsigned char)b[i].data[k], value[i]);
            in_use -= b[i].size;
            sag_heap_remove(&h, &b[i]);
            value[i] = 0;
        } else {
            put(&h, &b[i], ((random >> 20) % (BYTES / 64) + 1) * 64);
            assert_int_equal((uintptr_t)b[i].data % 64, 0);
            value[i] = (unsigned char)(step % 255 + 1);
            for (size_t k = 0; k < b[i].size; k += 64) b[i].data[k] = (char)value[i];
            in_use += b[i].size;
        }
        if (step == 10000) sag_heap_trim(&h, sag_cpu_backend(), NULL); /* in mid-use: no block may notice */
    }
    assert_non_null(h.segment[1].data);
    size_t held = sag_heap_idle(&h) + in_use;
    assert_true(held >= in_use && held < 2 * BLOCKS * (size_t)BYTES);
    for (int i = 0; i < BLOCKS; i++) {
        if (value[i]) sag_heap_remove(&h, &b[i]);
    }
    sag_heap_trim(&h, sag_cpu_backend(), NULL);
    assert_null(h.segment[0].data);
}

/* What one size no longer needs serves another: a context's device memory stays near the most that is in use at once. */
static void freed_memory_serves_other_sizes(void **state)
{
    (void)state;
    sag_context *ctx = NULL;
    sag_memory_stats m;
    assert_ok(sag_context_create(SAG_CPU, &ctx));
    for (int round = 0; round < 8; round++) {
        sag_tensor *t[4];
        for (int i = 0; i < 4; i++) assert_ok(sag_tensor_create(ctx, SAG_F32, sag_shape1((1 << 18) + 20000 * (i + round)), &t[i]));
        for (int i = 0; i < 4; i++) sag_tensor_release(t[i]);
    }
    sag_context_memory(ctx, &m);
    assert_int_equal(m.bytes_in_use, 0);
    assert_true(m.bytes_cached >= m.bytes_peak && m.bytes_cached < m.bytes_peak + m.bytes_peak / 4);
    sag_context_trim(ctx);
    sag_context_memory(ctx, &m);
    assert_int_equal(m.bytes_cached, 0);
    sag_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_smallest_gap_that_holds_it),
        cmocka_unit_test(blocks_never_overlap),
        cmocka_unit_test(freed_memory_serves_other_sizes),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
