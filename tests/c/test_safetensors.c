/* Round trips, every rule of the format broken once, truncation at every byte, flipped bytes, failing memory.
 */
#include <unistd.h>

#include "engine/io/safetensors.h"
#include "temporary.h"

static const float weights[6] = {0.0f, -1.5f, 3.25e-20f, INFINITY, 1e30f, 7.0f};
static const uint8_t pixels[5] = {0, 1, 254, 255, 7};
static const int32_t labels[3] = {-1, 0, INT32_MAX};
static const uint16_t halves[2] = {0x3f80, 0xc000};

/* Hands out labels in uneven pieces. */
static sag_status fill_labels(void *user, void *dst, size_t bytes)
{
    size_t *at = user;
    memcpy(dst, (const uint8_t *)labels + *at, bytes);
    *at += bytes;
    return SAG_OK;
}

static sag_status write_sample(const char *name, bool reversed)
{
    size_t at = 0;
    sag_safetensors_item items[] = {
        {.name = "w", .dtype = SAG_F32, .shape = sag_shape2(2, 3), .data = weights},
        {.name = "pixels", .dtype = SAG_U8, .shape = sag_shape1(5), .data = pixels},
        {.name = "a \"quoted\"\\\n\xc3\xa4",
         .dtype = SAG_I32,
         .shape = sag_shape3(3, 1, 1),
         .fill = fill_labels,
         .user = &at},
        {.name = "half", .dtype = SAG_BF16, .shape = sag_shape1(2), .data = halves},
    };
    sag_safetensors_pair meta[] = {{"format", "pt"}, {"classes", "T-shirt\nBag \xe2\x82\xac"}, {"", ""}};
    if (reversed) {
        sag_safetensors_item t = items[0];
        items[0] = items[3];
        items[3] = t;
        sag_safetensors_pair p = meta[0];
        meta[0] = meta[2];
        meta[2] = p;
    }
    return sag_safetensors_write(temp_path(name), items, 4, meta, 3);
}

static void check_sample(const sag_safetensors *f)
{
    assert_int_equal(sag_safetensors_count(f), 4);
    const sag_safetensors_entry *e = sag_safetensors_find(f, "w");
    assert_non_null(e);
    assert_true(e->supported && e->dtype == SAG_F32 && sag_shape_equal(e->shape, sag_shape2(2, 3)));
    assert_int_equal(e->bytes, sizeof weights);
    assert_memory_equal(e->data, weights, sizeof weights);
    assert_int_equal((uintptr_t)e->data % sizeof(float), 0); /* behind 12 bytes of i32 */
    e = sag_safetensors_find(f, "pixels");
    assert_true(e && e->dtype == SAG_U8 && sag_shape_equal(e->shape, sag_shape1(5)));
    assert_memory_equal(e->data, pixels, 5);
    e = sag_safetensors_find(f, "a \"quoted\"\\\n\xc3\xa4");
    assert_true(e && e->dtype == SAG_I32 && sag_shape_equal(e->shape, sag_shape3(3, 1, 1)));
    assert_memory_equal(e->data, labels, sizeof labels);
    e = sag_safetensors_find(f, "half");
    assert_true(e && e->dtype == SAG_BF16);
    assert_memory_equal(e->data, halves, sizeof halves);
    assert_null(sag_safetensors_find(f, "none"));
    assert_int_equal(sag_safetensors_meta_count(f), 3);
    assert_string_equal(sag_safetensors_meta(f, "classes"), "T-shirt\nBag \xe2\x82\xac");
    assert_string_equal(sag_safetensors_meta(f, ""), "");
    assert_null(sag_safetensors_meta(f, "none"));
    for (int64_t i = 1; i < 4; i++)
        assert_true(strcmp(sag_safetensors_at(f, i - 1)->name, sag_safetensors_at(f, i)->name) < 0);
    assert_null(sag_safetensors_at(f, 4));
}

static uint8_t *slurp(const char *name, size_t *size)
{
    FILE *f = fopen(temp_path(name), "rb");
    assert_non_null(f);
    uint8_t *b = malloc(1 << 16);
    *size = fread(b, 1, 1 << 16, f);
    fclose(f);
    return b;
}

static void tensors_and_metadata_come_back(void **state)
{
    (void)state;
    sag_safetensors *f;
    assert_ok(write_sample("x", false));
    assert_ok(sag_safetensors_open(temp_path("x"), &f));
    check_sample(f);
    sag_safetensors_close(f);
    assert_ok(write_sample("y", true));
    size_t n, m;
    uint8_t *a = slurp("x", &n), *b = slurp("y", &m);
    assert_true(n == m && memcmp(a, b, n) == 0); /* the order in which items are given leaves no trace */
    assert_int_equal((a[0] | a[1] << 8) % 8, 0);
    free(a);
    free(b);
    for (int length = 1; length <= 8; length++) { /* the data begins at a multiple of 8, however long the names are */
        sag_safetensors_item one = {
            .name = &"abcdefgh"[8 - length], .dtype = SAG_U8, .shape = sag_shape1(5), .data = pixels};
        assert_ok(sag_safetensors_write(temp_path("y"), &one, 1, NULL, 0));
        a = slurp("y", &n);
        assert_int_equal(a[0] % 8, 0);
        assert_int_equal(n, 8 + a[0] + 5);
        free(a);
    }
    assert_ok(sag_safetensors_write(temp_path("empty"), NULL, 0, NULL, 0));
    assert_ok(sag_safetensors_open(temp_path("empty"), &f));
    assert_int_equal(sag_safetensors_count(f), 0);
    sag_safetensors_close(f);
    sag_safetensors_close(NULL);
}

static sag_status refuse_fill(void *user, void *dst, size_t bytes)
{
    (void)user, (void)dst, (void)bytes;
    return sag_fail(SAG_ERR_FORMAT, "photo 7 is damaged");
}

static void bad_items_write_nothing(void **state)
{
    (void)state;
    const char *p = temp_path("none");
    sag_safetensors_item two[2] = {{.name = "a", .dtype = SAG_U8, .shape = sag_shape1(5), .data = pixels},
                                   {.name = "a", .dtype = SAG_U8, .shape = sag_shape1(5), .data = pixels}};
    assert_fails(sag_safetensors_write(p, two, 2, NULL, 0), SAG_ERR_ARG, "two tensors are called a");
    two[1].name = "__metadata__";
    assert_fails(sag_safetensors_write(p, two, 2, NULL, 0), SAG_ERR_ARG, "no tensor can be called");
    two[1].name = "\xff";
    assert_fails(sag_safetensors_write(p, two, 2, NULL, 0), SAG_ERR_ARG, "not UTF-8");
    two[1].name = "b";
    two[1].data = NULL;
    assert_fails(sag_safetensors_write(p, two, 2, NULL, 0), SAG_ERR_ARG, "b has no data");
    two[1].fill = refuse_fill;
    assert_fails(sag_safetensors_write(p, two, 2, NULL, 0), SAG_ERR_FORMAT, "photo 7");
    two[1].shape = sag_shape1(0);
    assert_fails(sag_safetensors_write(p, two, 2, NULL, 0), SAG_ERR_SHAPE, "at least 1");
    sag_safetensors_pair meta[2] = {{"k", "1"}, {"k", "2"}};
    assert_fails(sag_safetensors_write(p, two, 1, meta, 2), SAG_ERR_ARG, "two values for k");
    assert_false(access(p, F_OK) == 0);
}

/* A file from a header text and n zero bytes of data. */
static void make(const char *header, size_t n)
{
    uint8_t b[4096] = {0};
    size_t h = strlen(header);
    b[0] = (uint8_t)h;
    b[1] = (uint8_t)(h >> 8);
    memcpy(b + 8, header, h);
    temp_write("made", b, 8 + h + n);
}

static void broken_rules_are_named(void **state)
{
    (void)state;
#define T(dtype, shape, from, to) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"
    static const struct {
        const char *header;
        size_t data;
        const char *words; /* NULL: fine */
    } cases[] = {
        {"{}", 0, NULL},
        {"{}   \n", 0, NULL},
        {"{\"a\":" T("F32", "[2]", 0, 8) "}", 8, NULL},
        {" {}", 0, "no JSON header"},
        {"[]", 0, "no JSON header"},
        {"{} x", 0, "JSON byte 3: the end expected"},
        {"{\"a\":" T("F32", "[2]", 0, 8) "}", 9, "8 bytes of tensors, but 9 bytes of data"},
        {"{\"a\":" T("F32", "[2]", 0, 8) "}", 7, "tensor a has offsets 0 to 8"},
        {"{\"a\":" T("F32", "[3]", 0, 8) "}", 8, "tensor a has 8 bytes where its shape and dtype F32 need 12"},
        {"{\"a\":" T("F32", "[2]", 8, 0) "}", 8, "tensor a has offsets 8 to 0"},
        {"{\"a\":" T("U8", "[4]", 0, 4) ",\"b\":" T("U8", "[4]", 3, 7) "}", 7, "they overlap"},
        {"{\"a\":" T("U8", "[4]", 0, 4) ",\"b\":" T("U8", "[4]", 5, 9) "}", 9, "a hole"},
        {"{\"a\":" T("U8", "[4]", 1, 5) "}", 5, "a hole"},
        {"{\"a\":" T("U8", "[4]", 0, 4) ",\"a\":" T("U8", "[4]", 4, 8) "}", 8, "two tensors are called a"},
        {"{\"a\":" T("U9", "[4]", 0, 4) "}", 4, "tensor a has the unknown dtype U9"},
        {"{\"a\":" T("U8", "[4294967296,4294967296]", 0, 0) "}", 0, "whose size overflows"},
        {"{\"a\":" T("U8", "[4294967296,4294967296,0]", 0, 0) "}", 0, NULL},
        {"{\"a\":" T("U8", "[99999999999999999999]", 0, 0) "}", 0, "a number below 2^63"},
        {"{\"a\":" T("U8", "[-1]", 0, 0) "}", 0, "a whole number"},
        {"{\"a\":" T("U8", "[1.0]", 0, 1) "}", 1, "a whole number"},
        {"{\"a\":" T("U8", "[01]", 0, 1) "}", 1, "a whole number"},
        {"{\"a\":" T("U8", "[1,]", 0, 1) "}", 1, "a whole number"},
        {"{\"a\":" T("U8", "[1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1, "more than 8 dimensions"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 0, "needs dtype, shape and data_offsets"},
        {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}", 0, "has its dtype twice"},
        {"{\"a\":{\"type\":\"U8\"}}", 0, "an unknown field type"},
        {"{\"a\":{}}", 0, "a string expected"},
        {"{\"a\":3}", 0, "'{' expected"},
        {"{\"a\":" T("U8", "[1]", 0, 1) ",}", 1, "a string expected"},
        {"{\"a\" " T("U8", "[1]", 0, 1) "}", 1, "':' expected"},
        {"{\"__metadata__\":{\"k\":\"v\"},\"__metadata__\":{\"l\":\"v\"}}", 0, "__metadata__ comes twice"},
        {"{\"__metadata__\":{\"k\":\"v\",\"k\":\"w\"}}", 0, "two values for k"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "a string expected"},
        {"{\"__metadata__\":{\"\\u00e4\\ud83d\\ude00\\/\":\"\"}}", 0, NULL},
        {"{\"__metadata__\":{\"\\ud83d\":\"\"}}", 0, "surrogate pair"},
        {"{\"__metadata__\":{\"\\ude00\":\"\"}}", 0, "surrogate pair"},
        {"{\"__metadata__\":{\"\\u0000\":\"\"}}", 0, "other than 0000"},
        {"{\"__metadata__\":{\"\\u12g4\":\"\"}}", 0, "four hex digits"},
        {"{\"__metadata__\":{\"\\x\":\"\"}}", 0, "an escape expected"},
        {"{\"__metadata__\":{\"\n\":\"\"}}", 0, "a character of a string"},
        {"{\"__metadata__\":{\"\xff\":\"\"}}", 0, "a character of a string"},
        {"{\"__metadata__\":{\"\xc0\x80\":\"\"}}", 0, "a character of a string"},
        {"{\"__metadata__\":{\"\xed\xa0\x80\":\"\"}}", 0, "a character of a string"},
        {"{\"__metadata__\":{\"open", 0, "JSON ends at byte"},
        {"{", 0, "JSON ends at byte 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make(cases[i].header, cases[i].data);
        sag_safetensors *f;
        sag_status s = sag_safetensors_open(temp_path("made"), &f);
        if (!cases[i].words && s != SAG_OK) fail_msg("%s: %s", cases[i].header, sag_error_message());
        if (cases[i].words && (s != SAG_ERR_FORMAT || !strstr(sag_error_message(), cases[i].words) ||
                               !strstr(sag_error_message(), "/made: ")))
            fail_msg("%s: %s: %s", cases[i].header, sag_status_name(s), sag_error_message());
        sag_safetensors_close(f);
    }
    sag_safetensors *f;
    assert_fails(sag_safetensors_open(temp_path("missing"), &f), SAG_ERR_IO, "No such file");
    temp_write("made", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
    assert_fails(sag_safetensors_open(temp_path("made"), &f), SAG_ERR_FORMAT, "is not a safetensors file");
    temp_write("made", "\x00\xe1\xf5\x05\0\0\0\0{}", 10); /* 100000000 is allowed, but the file ends */
    assert_fails(sag_safetensors_open(temp_path("made"), &f), SAG_ERR_FORMAT, "is cut short");
    temp_write("made", "\x01\xe1\xf5\x05\0\0\0\0{}", 10);
    assert_fails(sag_safetensors_open(temp_path("made"), &f), SAG_ERR_FORMAT, "the limit is 100000000");
}

static void foreign_tensors_can_be_listed(void **state)
{
    (void)state;
    make("{\"s\":" T("F32", "[]", 0, 4) ",\"n\":" T("I64", "[2,1]", 4, 20) ",\"five\":" T(
             "U8", "[1,1,1,1,1]", 20, 21) ",\"void\":" T("F32", "[2,0]", 21, 21) "}",
         21);
    sag_safetensors *f;
    assert_ok(sag_safetensors_open(temp_path("made"), &f));
    const sag_safetensors_entry *e = sag_safetensors_find(f, "s");
    assert_true(e->supported && e->rank == 0 && sag_shape_equal(e->shape, sag_shape1(1)));
    assert_ok(sag_safetensors_require(f, e));
    e = sag_safetensors_find(f, "n");
    assert_true(!e->supported && e->rank == 2 && e->dim[0] == 2 && e->bytes == 16);
    assert_string_equal(e->dtype_name, "I64");
    assert_fails(sag_safetensors_require(f, e), SAG_ERR_FORMAT,
                 "tensor n is I64 with 2 dimensions; supported are F32, BF16");
    assert_fails(sag_safetensors_require(f, sag_safetensors_find(f, "five")), SAG_ERR_FORMAT, "5 dimensions");
    assert_fails(sag_safetensors_require(f, sag_safetensors_find(f, "void")), SAG_ERR_FORMAT, "is empty");
    sag_safetensors_close(f);
}

/* Reads everything that an opened file offers, so that a wrong pointer shows under a sanitizer. */
static unsigned touch(const sag_safetensors *f)
{
    unsigned sum = 0;
    for (int64_t i = 0; i < sag_safetensors_count(f); i++) {
        const sag_safetensors_entry *e = sag_safetensors_at(f, i);
        sum += (unsigned)strlen(e->name) + (unsigned)strlen(e->dtype_name);
        for (size_t k = 0; k < e->bytes; k++) sum += e->data[k];
        for (int k = 0; k < e->rank; k++) sum += (unsigned)e->dim[k];
    }
    for (int64_t i = 0; i < sag_safetensors_meta_count(f); i++) {
        const char *key, *value;
        sag_safetensors_meta_at(f, i, &key, &value);
        sum += (unsigned)strlen(key) + (unsigned)strlen(value);
    }
    return sum;
}

static void damaged_files_never_crash(void **state)
{
    (void)state;
    assert_ok(write_sample("x", false));
    size_t n;
    uint8_t *b = slurp("x", &n);
    sag_safetensors *f;
    for (size_t cut = 0; cut < n; cut++) {
        temp_write("cut", b, cut);
        sag_status s = sag_safetensors_open(temp_path("cut"), &f);
        if (s != SAG_ERR_FORMAT) fail_msg("cut at %zu of %zu: %s", cut, n, sag_status_name(s));
    }
    b[n] = 0;
    temp_write("cut", b, n + 1);
    assert_fails(sag_safetensors_open(temp_path("cut"), &f), SAG_ERR_FORMAT, "bytes of data");
    unsigned total = 0;
    for (size_t i = 0; i < n; i++)
        for (int bit = 0; bit < 8; bit++) {
            b[i] ^= (uint8_t)(1 << bit);
            temp_write("flip", b, n);
            sag_status s = sag_safetensors_open(temp_path("flip"), &f);
            if (s == SAG_OK)
                total += touch(f);
            else if (s != SAG_ERR_FORMAT)
                fail_msg("bit %d of byte %zu: %s", bit, i, sag_error_message());
            sag_safetensors_close(f);
            b[i] ^= (uint8_t)(1 << bit);
        }
    assert_true(total > 0);
    free(b);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    int64_t before = sag_debug_live_host_blocks();
    for (int n = 1;; n++) {
        sag_safetensors *f = NULL;
        sag_debug_fail_allocation(n);
        sag_status s = write_sample("m", false);
        if (s == SAG_OK) s = sag_safetensors_open(temp_path("m"), &f);
        sag_debug_fail_allocation(0);
        sag_safetensors_close(f);
        assert_int_equal(sag_debug_live_host_blocks(), before);
        if (s == SAG_OK) {
            assert_true(n > 9);
            break;
        }
        if (s != SAG_ERR_MEMORY) fail_msg("allocation %d: %s: %s", n, sag_status_name(s), sag_error_message());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_and_metadata_come_back), cmocka_unit_test(bad_items_write_nothing),
        cmocka_unit_test(broken_rules_are_named),         cmocka_unit_test(foreign_tensors_can_be_listed),
        cmocka_unit_test(damaged_files_never_crash),      cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, temp_setup, temp_teardown);
}
