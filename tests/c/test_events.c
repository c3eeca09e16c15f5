/* Event files: bytes against records made by the TensorBoard package, a reader of our own, resuming, torn
 * ends, full disk. */
#include <signal.h>
#include <sys/resource.h>

#include "engine/io/events.h"
#include "engine/io/file.h"
#include "temporary.h"

static uint8_t file[1 << 18];

static size_t slurp(const char *name)
{
    FILE *f = fopen(temp_path(name), "rb");
    assert_non_null(f);
    size_t n = fread(file, 1, sizeof file, f);
    fclose(f);
    return n;
}

/* Bit by bit, from the definition: reflected polynomial 0x82f63b78. */
static uint32_t plain_masked_crc(const uint8_t *p, size_t n)
{
    uint32_t c = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
    }
    c = ~c;
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

static uint64_t little(const uint8_t *p, int n)
{
    uint64_t v = 0;
    for (int i = n - 1; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

/* Checks all frames; the payload of frame number `which` in *payload. Returns how many there are. */
static int frames(size_t size, int which, const uint8_t **payload, size_t *length)
{
    size_t at = 0;
    int n = 0;
    while (at < size) {
        assert_true(size - at >= 16);
        size_t bytes = (size_t)little(file + at, 8);
        assert_true(bytes <= size - at - 16);
        assert_int_equal(little(file + at + 8, 4), plain_masked_crc(file + at, 8));
        assert_int_equal(little(file + at + 12 + bytes, 4), plain_masked_crc(file + at + 12, bytes));
        if (n++ == which) {
            *payload = file + at + 12;
            *length = bytes;
        }
        at += bytes + 16;
    }
    return n;
}

/* Event(wall_time=1234.5, step=300, summary=[tag "loss/d", simple_value 0.25]) as the protobuf library writes
 * it. */
static const uint8_t scalar_event[] = {
    0x09, 0x00, 0x00, 0x00, 0x00, 0x00, 0x4a, 0x93, 0x40, 0x10, 0xac, 0x02, 0x2a, 0x0f, 0x0a,
    0x0d, 0x0a, 0x06, 'l',  'o',  's',  's',  '/',  'd',  0x15, 0x00, 0x00, 0x80, 0x3e,
};
/* Event(wall_time=1234.5, step=1, summary=[tag "x", image(height=2, width=300, colorspace=3, encoded
 * "PNG")]). */
static const uint8_t image_event[] = {
    0x09, 0x00, 0x00, 0x00, 0x00, 0x00, 0x4a, 0x93, 0x40, 0x10, 0x01, 0x2a, 0x13, 0x0a, 0x11, 0x0a,
    0x01, 'x',  0x22, 0x0c, 0x08, 0x02, 0x10, 0xac, 0x02, 0x18, 0x03, 0x22, 0x03, 'P',  'N',  'G',
};

static void records_are_what_tensorboard_reads(void **state)
{
    (void)state;
    /* the check value of CRC-32C for "123456789" is e3069283 */
    uint32_t crc = 0xe3069283u;
    assert_int_equal(plain_masked_crc((const uint8_t *)"123456789", 9), (crc >> 15 | crc << 17) + 0xa282ead8u);
    sag_events *w;
    assert_ok(sag_events_open(temp_path("e"), false, &w));
    assert_ok(sag_events_scalar(w, "loss/d", 0.25f, 300, 1234.5));
    assert_ok(sag_events_image(w, "x", "PNG", 3, 2, 300, 3, 1, 1234.5));
    assert_ok(sag_events_scalar(w, "z", NAN, 0, 1234.5));
    assert_ok(sag_events_close(w));
    const uint8_t *payload;
    size_t size = slurp("e"), n;
    assert_int_equal(frames(size, 0, &payload, &n), 4);
    assert_int_equal(n, 9 + 15);
    assert_memory_equal(payload + 9,
                        "\x1a\x0d"
                        "brain.Event:2",
                        15);
    frames(size, 1, &payload, &n);
    assert_int_equal(n, sizeof scalar_event);
    assert_memory_equal(payload, scalar_event, n);
    frames(size, 2, &payload, &n);
    assert_int_equal(n, sizeof image_event);
    assert_memory_equal(payload, image_event, n);
    assert_ok(sag_events_close(NULL));
}

static void flush_makes_records_visible(void **state)
{
    (void)state;
    sag_events *w;
    assert_ok(sag_events_open(temp_path("f"), false, &w));
    size_t first = slurp("f");
    assert_int_equal(first, 24 + 16);
    assert_ok(sag_events_scalar(w, "a", 1.0f, 1, 0.0));
    assert_int_equal(slurp("f"), first);
    assert_ok(sag_events_flush(w));
    assert_true(slurp("f") > first);
    /* Larger than the buffer: written at once, behind what was waiting. */
    uint8_t *png = calloc(1, 50000);
    assert_ok(sag_events_scalar(w, "a", 2.0f, 2, 0.0));
    assert_ok(sag_events_image(w, "i", png, 50000, 1, 1, 1, 3, 0.0));
    const uint8_t *payload;
    size_t n;
    assert_int_equal(frames(slurp("f"), 3, &payload, &n), 4);
    assert_true(n > 50000);
    for (int i = 0; i < 2000; i++) assert_ok(sag_events_scalar(w, "many", (float)i, i, 0.0));
    assert_ok(sag_events_close(w));
    assert_int_equal(frames(slurp("f"), 3, &payload, &n), 2004);
    free(png);
}

static void resuming_goes_on_behind_whole_records(void **state)
{
    (void)state;
    sag_events *w;
    const uint8_t *payload;
    size_t n;
    assert_ok(sag_events_open(temp_path("r"), true, &w)); /* nothing there yet: starts like a new one */
    for (int i = 0; i < 3; i++) assert_ok(sag_events_scalar(w, "a", 1.0f, i, 0.0));
    assert_ok(sag_events_close(w));
    size_t whole = slurp("r");
    uint8_t *kept = malloc(whole);
    memcpy(kept, file, whole);
    for (size_t cut = 0; cut <= whole; cut++) {
        temp_write("cut", kept, cut);
        assert_ok(sag_events_open(temp_path("cut"), true, &w));
        assert_ok(sag_events_scalar(w, "last", 2.0f, 9, 0.0));
        assert_ok(sag_events_close(w));
        size_t record = (whole - 40) / 3;
        int left = cut < 40 ? 1 : 1 + (int)((cut - 40) / record);
        assert_int_equal(frames(slurp("cut"), 0, &payload, &n), left + 1);
    }
    kept[whole - 7] ^= 1; /* a damaged last record is cut off as well */
    temp_write("cut", kept, whole);
    assert_ok(sag_events_open(temp_path("cut"), true, &w));
    assert_ok(sag_events_close(w));
    assert_int_equal(frames(slurp("cut"), 0, &payload, &n), 3);
    free(kept);
    temp_write("text", "this is somebody's diary", 24);
    assert_fails(sag_events_open(temp_path("text"), true, &w), SAG_ERR_FORMAT, "not a TensorBoard event file");
    assert_int_equal(slurp("text"), 24);
    assert_fails(sag_events_open(temp_path("no/e"), true, &w), SAG_ERR_IO, "no/e: cannot open");
}

static void a_folder_gets_one_file(void **state)
{
    (void)state;
    sag_file_names names;
    sag_events *w;
    assert_ok(sag_file_make_folders(temp_path("run")));
    for (int i = 0; i < 3; i++) {
        assert_ok(sag_events_open(temp_path("run"), true, &w));
        assert_ok(sag_events_scalar(w, "a", 1.0f, i, 0.0));
        assert_ok(sag_events_close(w));
    }
    assert_ok(sag_file_list(temp_path("run"), &names));
    assert_int_equal(names.count, 1);
    assert_int_equal(strncmp(names.name[0], "events.out.tfevents.", 20), 0);
    char name[300];
    snprintf(name, sizeof name, "run/%s", names.name[0]);
    sag_file_names_free(&names);
    const uint8_t *payload;
    size_t n;
    assert_int_equal(frames(slurp(name), 0, &payload, &n), 4);
}

static void bad_values_and_full_disks(void **state)
{
    (void)state;
    sag_events *w;
    char tag[2000];
    memset(tag, 't', sizeof tag);
    tag[1999] = 0;
    assert_ok(sag_events_open(temp_path("d"), false, &w));
    assert_fails(sag_events_scalar(w, "", 0.0f, 0, 0.0), SAG_ERR_ARG, "1 to 1024 bytes");
    assert_fails(sag_events_scalar(w, tag, 0.0f, 0, 0.0), SAG_ERR_ARG, "not 1999");
    tag[1024] = 0;
    assert_ok(sag_events_scalar(w, tag, 0.0f, -1, 0.0)); /* a negative step takes ten bytes */
    assert_ok(sag_events_image(w, tag, "x", 1, INT32_MAX, INT32_MAX, 3, INT64_MAX, 0.0));
    assert_fails(sag_events_image(w, "x", "x", 1, 2, 2, 4, 0, 0.0), SAG_ERR_ARG, "2 x 2 x 4");
    assert_fails(sag_events_image(w, "x", "x", 0, 2, 2, 3, 0, 0.0), SAG_ERR_ARG, "0 bytes");
    assert_ok(sag_events_flush(w));
    size_t before = slurp("d");
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = before + 1000; /* the image will fit in part */
    uint8_t *png = calloc(1, 40000);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    sag_status s = sag_events_image(w, "x", png, 40000, 2, 2, 3, 0, 0.0);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(s, SAG_ERR_IO);
    assert_ok(sag_events_scalar(w, "after", 1.0f, 1, 0.0));
    assert_ok(sag_events_close(w));
    const uint8_t *payload;
    size_t n;
    assert_int_equal(frames(slurp("d"), 3, &payload, &n), 4); /* no torn record between */
    free(png);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_what_tensorboard_reads),
        cmocka_unit_test(flush_makes_records_visible),
        cmocka_unit_test(resuming_goes_on_behind_whole_records),
        cmocka_unit_test(a_folder_gets_one_file),
        cmocka_unit_test(bad_values_and_full_disks),
    };
    return cmocka_run_group_tests(tests, temp_setup, temp_teardown);
}
