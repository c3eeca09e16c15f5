/*
 * State dicts that PyTorch wrote (tests/golden/make_pth.py), whole and damaged: cut at every byte, every bit turned
 * over, runs of bytes overwritten; lying archives and tensors; failing memory.
 */
#include "engine/io/file.h"
#include "engine/io/pth.h"
#include "temporary.h"

static const char *const kinds[] = {"zip", "legacy", "deflated"};

static uint8_t *slurp(const char *kind, size_t *n)
{
    char path[4096];
    uint8_t *b;
    snprintf(path, sizeof path, "%s/state_%s.pth", SAGAN_TEST_DATA, kind);
    assert_ok(sag_file_read(path, 0, &b, n));
    return b;
}

/* Opens the bytes as a file, reads every tensor, and adds up what it gave. */
static sag_status read_all(const void *bytes, size_t n, double *sum)
{
    sag_pth *f;
    temp_write("f", bytes, n);
    SAG_TRY(sag_pth_open(temp_path("f"), &f));
    sag_status status = SAG_OK;
    for (int64_t i = 0; i < sag_pth_count(f) && status == SAG_OK; i++) {
        const sag_pth_entry *e = sag_pth_at(f, i);
        *sum += (double)strlen(e->name) + (double)strlen(e->dtype_name) + (double)e->rank;
        for (int k = 0; k < e->rank; k++) *sum += (double)e->dim[k];
        if (!e->supported) continue;
        if (e->bytes > 1 << 20) fail_msg("%s wants %zu bytes of a file of %zu", e->name, e->bytes, n);
        uint8_t *data = malloc(e->bytes);
        status = sag_pth_read(f, e, data);
        for (size_t k = 0; k < e->bytes && status == SAG_OK; k++) *sum += data[k];
        free(data);
    }
    sag_pth_close(f);
    return status;
}

static void all_containers_hold_the_same(void **state)
{
    (void)state;
    double sum[3] = {0};
    for (int k = 0; k < 3; k++) {
        size_t n;
        uint8_t *b = slurp(kinds[k], &n);
        assert_ok(read_all(b, n, &sum[k]));
        sag_pth *f;
        assert_ok(sag_pth_open(temp_path("f"), &f));
        assert_int_equal(sag_pth_count(f), 12);
        const sag_pth_entry *e = sag_pth_find(f, "transposed");
        assert_true(e && e->supported && e->dtype == SAG_F32 && sag_shape_equal(e->shape, sag_shape2(3, 2)));
        assert_string_equal(e->dtype_name, "F32");
        float values[6], want[6] = {-1.0f, -0.625f, -0.875f, -0.5f, -0.75f, -0.375f};
        assert_int_equal(e->bytes, sizeof values);
        assert_ok(sag_pth_read(f, e, values));
        assert_memory_equal(values, want, sizeof want);
        e = sag_pth_find(f, "num_batches_tracked");
        assert_true(e && e->rank == 0 && e->dtype == SAG_I32 && e->bytes == 4 &&
                    sag_shape_equal(e->shape, sag_shape1(1)));
        assert_null(sag_pth_find(f, "none"));
        assert_null(sag_pth_at(f, 12));
        for (int64_t i = 1; i < 12; i++) assert_true(strcmp(sag_pth_at(f, i - 1)->name, sag_pth_at(f, i)->name) < 0);
        sag_pth_close(f);
        sag_host_free(b);
    }
    assert_true(sum[0] > 0 && sum[0] == sum[1] && sum[0] == sum[2]);
    sag_pth_close(NULL);
}

static void must_not_crash(const char *what, size_t at, const uint8_t *b, size_t n)
{
    double sum = 0;
    sag_status s = read_all(b, n, &sum);
    if (s != SAG_OK && s != SAG_ERR_FORMAT && s != SAG_ERR_UNSUPPORTED)
        fail_msg("%s at byte %zu: %s: %s", what, at, sag_status_name(s), sag_error_message());
}

static void damaged_files_never_crash(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        size_t n;
        uint8_t *b = slurp(kinds[k], &n);
        double sum = 0;
        for (size_t cut = 0; cut < n; cut++)
            if (read_all(b, cut, &sum) != SAG_ERR_FORMAT) fail_msg("%s cut at %zu of %zu is taken", kinds[k], cut, n);
        for (size_t i = 0; i < n; i++) {
            uint8_t kept[8];
            for (int bit = 0; bit < 8; bit++) {
                b[i] ^= (uint8_t)(1 << bit);
                must_not_crash("bit", i, b, n);
                b[i] ^= (uint8_t)(1 << bit);
            }
            size_t run = n - i < sizeof kept ? n - i : sizeof kept; /* lengths become giant, or zero */
            memcpy(kept, b + i, run);
            memset(b + i, 0xff, run);
            must_not_crash("run", i, b, n);
            memset(b + i, 0, run);
            must_not_crash("zeros", i, b, n);
            memcpy(b + i, kept, run);
        }
        sag_host_free(b);
    }
}

/* --------------------------------------------------------------------- the older container, written by hand */

static uint8_t made[4096];
static size_t made_size;

static void add(const void *bytes, size_t n)
{
    assert_true(made_size + n <= sizeof made);
    memcpy(made + made_size, bytes, n);
    made_size += n;
}

/* A tensor "t": `arguments` of _rebuild_tensor_v2 behind its storage of n elements of a kind; then `numel` and 8 bytes.
 */
static void make(const char *kind, uint8_t n, const char *arguments, size_t length, uint64_t numel)
{
    static const uint8_t facts[] =
        "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    static const char head[] = "\x80\x02}X\1\0\0\0tctorch._utils\n_rebuild_tensor_v2\n((U\7storagectorch\n";
    made_size = 0;
    add(facts, sizeof facts - 1);
    add(head, sizeof head - 1);
    add(kind, strlen(kind));
    static const char key[] = "Storage\nU\1kU\3cpuK";
    add(key, sizeof key - 1);
    add(&n, 1);
    add("tQ", 2);
    add(arguments, length);
    static const char tail[] = "\x89}tRs.\x80\x02]U\1ka.";
    add(tail, sizeof tail - 1);
    for (int i = 0; i < 8; i++) add(&(uint8_t){(uint8_t)(numel >> 8 * i)}, 1);
    add("\0\0\x80\x3f\0\0\0\x40", 8);
}

#define MAKE(kind, n, arguments, numel) make((kind), (n), (arguments), sizeof(arguments) - 1, (numel))
#define REFUSED(words)                                                                                                 \
    do {                                                                                                               \
        double none_ = 0;                                                                                              \
        assert_fails(read_all(made, made_size, &none_), SAG_ERR_FORMAT, words);                                        \
    } while (0)

static void lying_tensors_are_refused(void **state)
{
    (void)state;
    double sum = 0;
    MAKE("Float", 2, "K\0K\2\x85K\1\x85", 2); /* offset 0, size (2,), stride (1,) */
    assert_ok(read_all(made, made_size, &sum));
    MAKE("Float", 2, "K\0K\2\x85K\1\x85", 1);
    REFUSED("tensor t lies in a storage of 2 F32 elements, but there are 1 F32");
    MAKE("Float", 2, "K\0K\2\x85K\2\x85", 2);
    REFUSED("tensor t has 2 elements, the last at 2, in a storage of 2");
    MAKE("Float", 2, "K\1K\2\x85K\1\x85", 2);
    REFUSED("tensor t has 2 elements, the last at 2, in a storage of 2");
    MAKE("Float", 2, "K\0J\0\0\0\x40\x85K\0\x85", 2); /* 2^30 elements by stride 0 */
    REFUSED("tensor t has 1073741824 elements");
    MAKE("Float", 2, "K\0J\0\0\0\x40J\0\0\0\x40J\0\0\0\x40\x87K\0K\0K\0\x87", 2);
    REFUSED("tensor t has a shape whose size overflows");
    MAKE("Float", 2, "K\0J\xff\xff\xff\xff\x85K\1\x85", 2); /* size -1 */
    REFUSED("tensor t has an offset, sizes or strides that make no sense");
    MAKE("Float", 2, "K\0K\2\x85J\xff\xff\xff\xff\x85", 2);
    REFUSED("tensor t has an offset, sizes or strides that make no sense");
    MAKE("Float", 2, "K\0K\2\x85)", 2);
    REFUSED("tensor t has an offset, sizes or strides that make no sense");
    MAKE("Float", 200, "K\0K\2\x85K\1\x85", 200);
    REFUSED("is cut short: storage k should have 200 elements");
    MAKE("Float", 2, "K\0(K\1K\1K\1K\1K\2t(K\1K\1K\1K\1K\1t", 2); /* five dimensions: listed, not read */
    assert_ok(read_all(made, made_size, &sum));
    sag_pth *f;
    assert_ok(sag_pth_open(temp_path("f"), &f));
    assert_false(sag_pth_at(f, 0)->supported);
    assert_fails(sag_pth_require(f, sag_pth_at(f, 0)), SAG_ERR_FORMAT,
                 "tensor t has 5 dimensions; supported are up to 4");
    sag_pth_close(f);
    MAKE("Float", 2, "K\0K\0\x85K\1\x85", 2);
    assert_ok(sag_file_write_atomic(temp_path("f"), made, made_size));
    assert_ok(sag_pth_open(temp_path("f"), &f));
    assert_fails(sag_pth_require(f, sag_pth_at(f, 0)), SAG_ERR_FORMAT, "tensor t has 1 dimensions and is empty");
    sag_pth_close(f);
    MAKE("Long", 1, "K\0K\1\x85K\1\x85", 1); /* 0x400000003f800000 */
    REFUSED("tensor t holds a number of more than 32 bits");
    MAKE("Bool", 2, "K\0K\2\x85K\1\x85", 2);
    REFUSED("names torch.BoolStorage");
}

static void what_is_no_state_dict_is_named(void **state)
{
    (void)state;
    double sum = 0;
    static const uint8_t end_record[22] = "PK\5\6";
    assert_fails(read_all(end_record, 22, &sum), SAG_ERR_FORMAT, "is a zip archive without data.pkl");
    assert_fails(read_all("\x80\2K\1.", 5, &sum), SAG_ERR_FORMAT, "is a pickle, but not a file of PyTorch's");
    assert_fails(read_all("{\"a\": 1}", 8, &sum), SAG_ERR_FORMAT, "is neither of the two containers");
    assert_fails(read_all("", 0, &sum), SAG_ERR_FORMAT, "is neither of the two containers");
    sag_pth *f;
    assert_fails(sag_pth_open(temp_path("missing"), &f), SAG_ERR_IO, "cannot open");
    assert_null(f);
}

/* An archive may claim a terabyte behind ten packed bytes: it is refused before memory is asked for. */
static void lying_archives_are_refused(void **state)
{
    (void)state;
    size_t n;
    uint8_t *b = slurp("deflated", &n);
    uint8_t *entry = memmem(b, n, "PK\1\2", 4);
    assert_non_null(entry);
    double sum = 0;
    memset(entry + 24, 0xf0, 4); /* the size of data.pkl, 3.7 GB */
    assert_fails(read_all(b, n, &sum), SAG_ERR_FORMAT, "claims a size that its packed bytes cannot hold");
    memset(entry + 24, 0, 4);
    assert_fails(read_all(b, n, &sum), SAG_ERR_FORMAT, "it does not inflate to its 0 bytes");
    entry[8] |= 1;
    assert_fails(read_all(b, n, &sum), SAG_ERR_FORMAT, "data.pkl is encrypted");
    entry[8] ^= 1;
    entry[10] = 14;
    assert_fails(read_all(b, n, &sum), SAG_ERR_FORMAT, "data.pkl is packed by method 14");
    sag_host_free(b);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        size_t n;
        uint8_t *b = slurp(kinds[k], &n);
        int64_t before = sag_debug_live_host_blocks();
        for (int a = 1;; a++) {
            double sum = 0;
            sag_debug_fail_allocation(a);
            sag_status s = read_all(b, n, &sum);
            sag_debug_fail_allocation(0);
            assert_int_equal(sag_debug_live_host_blocks(), before);
            if (s == SAG_OK) {
                assert_true(a > 8);
                break;
            }
            if (s != SAG_ERR_MEMORY) fail_msg("allocation %d: %s: %s", a, sag_status_name(s), sag_error_message());
        }
        sag_host_free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_containers_hold_the_same), cmocka_unit_test(damaged_files_never_crash),
        cmocka_unit_test(lying_tensors_are_refused),    cmocka_unit_test(what_is_no_state_dict_is_named),
        cmocka_unit_test(lying_archives_are_refused),   cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, temp_setup, temp_teardown);
}
