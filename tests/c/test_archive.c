/* tar in its dialects, gzip, truncation at every byte, damage, limits. The archives are built here, header by
 * header. */
#include <zlib.h>

#include "engine/io/archive.h"
#include "temporary.h"

/* ------------------------------------------------------------------------------------ building archives */

typedef struct tar {
    uint8_t bytes[1 << 16];
    size_t size;
} tar;

static void finish_header(uint8_t *h)
{
    memset(h + 148, ' ', 8);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++) sum += h[i];
    snprintf((char *)h + 148, 8, "%06o", sum);
}

static uint8_t *add_header(tar *t, const char *name, char type, const char *size_field)
{
    uint8_t *h = t->bytes + t->size;
    memset(h, 0, 512);
    memcpy(h, name, strnlen(name, 100));
    memcpy(h + 100, "0000644", 7);
    memcpy(h + 124, size_field, strlen(size_field));
    h[156] = (uint8_t)type;
    memcpy(h + 257,
           "ustar\0"
           "00",
           8);
    finish_header(h);
    t->size += 512;
    return h;
}

static void add_data(tar *t, const void *data, size_t n)
{
    memcpy(t->bytes + t->size, data, n);
    size_t padded = (n + 511) / 512 * 512;
    memset(t->bytes + t->size + n, 0, padded - n);
    t->size += padded;
}

static uint8_t *add_file(tar *t, const char *name, char type, const void *data, size_t n)
{
    char size[13];
    snprintf(size, sizeof size, "%011zo", n);
    uint8_t *h = add_header(t, name, type, size);
    add_data(t, data, n);
    return h;
}

static void add_end(tar *t)
{
    memset(t->bytes + t->size, 0, 1024);
    t->size += 1024;
}

static void gzip(const void *bytes, size_t n, uint8_t *out, size_t *size)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)(uintptr_t)bytes;
    z.avail_in = (unsigned)n;
    z.next_out = out;
    z.avail_out = 1 << 20;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    *size = z.total_out;
    deflateEnd(&z);
}

/* ------------------------------------------------------------------------------------- what was visited */

typedef struct seen {
    char text[4096]; /* "name:size:crc " of each member */
    int64_t last_offset;
    int wanted, stop_after, visits;
} seen;

static sag_status note(void *user, const sag_archive_member *m, bool *stop)
{
    seen *s = user;
    size_t n = strlen(s->text);
    snprintf(s->text + n, sizeof s->text - n, "%s:%zu:%08lx ", m->name, m->size, crc32(0, m->bytes, (unsigned)m->size));
    s->last_offset = m->offset;
    assert_int_equal(m->bytes[m->size], 0); /* there is one zero byte behind */
    if (++s->visits == s->stop_after) *stop = true;
    return SAG_OK;
}

static bool wants_b(void *user, const char *name, int64_t size)
{
    (void)size;
    ((seen *)user)->wanted++;
    return strstr(name, "b") != NULL;
}

static sag_status walk(const char *name, seen *s)
{
    sag_archive_visitor v = {.user = s, .visit = note};
    return sag_archive_walk(temp_path(name), &v);
}

static void expect(seen *s, const char *name, const void *data, size_t n)
{
    char line[600];
    snprintf(line, sizeof line, "%s:%zu:%08lx ", name, n, crc32(0, data, (unsigned)n));
    if (strncmp(s->text, line, strlen(line)) != 0) fail_msg("wanted %s, have %.200s", line, s->text);
    memmove(s->text, s->text + strlen(line), strlen(s->text + strlen(line)) + 1);
}

static uint8_t data[3000];
static char long_name[301];

static void build(tar *t)
{
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * i >> 3);
    memset(long_name, 'n', 300);
    t->size = 0;
    char pax[400];
    add_header(t, "dir/", '5', "00000000000");
    add_file(t, "./dir/a.png", '0', data, 1000);
    add_file(t, "old-style", 0, data, 512);
    add_header(t, "link", '2', "00000000000");
    add_header(t, "hard", '1', "00000001750"); /* a size, but no data */
    add_file(t, "empty", '0', "", 0);
    uint8_t *h = add_header(t, "leaf.b", '0', "00000000003"); /* ustar: prefix "some/where" */
    memcpy(h + 345, "some/where", 10);
    finish_header(h);
    add_data(t, "xyz", 3);
    add_file(t, "././@LongLink", 'L', long_name, 301);
    add_file(t, "cut", '0', data, 513);
    int n = snprintf(pax, sizeof pax, "16 comment=blah\n20 path=pax/n\xc3\xa4me.b\n");
    add_file(t, "paxheader", 'x', pax, (size_t)n);
    add_file(t, "short", '0', data, 2048);
    add_file(t, "global", 'g', "20 path=not/for/you\n", 20);
    n = snprintf(pax, sizeof pax, "13 size=3000\n");
    add_file(t, "paxheader", 'x', pax, (size_t)n);
    add_header(t, "sized", '0', "00000000000");
    add_data(t, data, 3000);
    h = add_header(t, "base256", '0', "00000000000");
    memset(h + 124, 0, 12);
    h[124] = 0x80;
    h[134] = 1; /* 256 + 1 */
    h[135] = 1;
    finish_header(h);
    add_data(t, data, 257);
    add_end(t);
}

static void expect_all(seen *s)
{
    expect(s, "dir/a.png", data, 1000);
    expect(s, "old-style", data, 512);
    expect(s, "empty", data, 0);
    expect(s, "some/where/leaf.b", "xyz", 3);
    expect(s, long_name, data, 513);
    expect(s, "pax/n\xc3\xa4me.b", data, 2048);
    expect(s, "sized", data, 3000);
    expect(s, "base256", data, 257);
    assert_string_equal(s->text, "");
}

static tar t;
static uint8_t packed[1 << 20];

static void all_dialects_are_read(void **state)
{
    (void)state;
    size_t n;
    build(&t);
    temp_write("x.tar", t.bytes, t.size);
    seen s = {0};
    assert_ok(walk("x.tar", &s));
    expect_all(&s);
    assert_memory_equal(t.bytes + s.last_offset, data, 257);
    gzip(t.bytes, t.size, packed, &n);
    temp_write("x.tgz", packed, n);
    s = (seen){0};
    assert_ok(walk("x.tgz", &s));
    expect_all(&s);
    assert_true(sag_archive_is(temp_path("x.tar")));
    assert_true(sag_archive_is(temp_path("x.tgz")));
    temp_write("other", data, sizeof data);
    assert_false(sag_archive_is(temp_path("other")));
    assert_false(sag_archive_is(temp_path("missing")));
    /* One end block, and padding as tar's blocking factor makes it. */
    temp_write("x.tar", t.bytes, t.size - 512);
    s = (seen){0};
    assert_ok(walk("x.tar", &s));
    memset(t.bytes + t.size, 0, 10240);
    temp_write("x.tar", t.bytes, t.size + 10240);
    s = (seen){0};
    assert_ok(walk("x.tar", &s));
    expect_all(&s);
}

static void members_can_be_passed_over(void **state)
{
    (void)state;
    build(&t);
    temp_write("x.tar", t.bytes, t.size);
    seen s = {0};
    sag_archive_visitor v = {.user = &s, .visit = note, .wants = wants_b, .max_member = 2048};
    assert_ok(sag_archive_walk(temp_path("x.tar"), &v)); /* the 3000 bytes of "sized" are not wanted */
    assert_int_equal(s.wanted, 8);
    expect(&s, "some/where/leaf.b", "xyz", 3);
    expect(&s, "pax/n\xc3\xa4me.b", data, 2048);
    expect(&s, "base256", data, 257);
    v.max_member = 2047;
    assert_fails(sag_archive_walk(temp_path("x.tar"), &v), SAG_ERR_FORMAT, "has 2048 bytes, the limit here is 2047");
    v = (sag_archive_visitor){.user = &s, .visit = note};
    s = (seen){.stop_after = 2};
    assert_ok(sag_archive_walk(temp_path("x.tar"), &v));
    assert_int_equal(s.visits, 2);
}

static void every_truncation_is_noticed(void **state)
{
    (void)state;
    size_t n;
    build(&t);
    for (size_t cut = 0; cut < t.size - 1024; cut += cut % 512 == 511 || cut % 512 == 0 ? 1 : 73) {
        temp_write("cut.tar", t.bytes, cut);
        seen s = {0};
        sag_status got = walk("cut.tar", &s);
        if (got != SAG_ERR_FORMAT) fail_msg("tar cut at %zu: %s", cut, sag_status_name(got));
        assert_non_null(strstr(sag_error_message(), "cut.tar: byte "));
    }
    gzip(t.bytes, t.size, packed, &n);
    for (size_t cut = 0; cut < n; cut++) {
        temp_write("cut.tgz", packed, cut);
        seen s = {0};
        sag_status got = walk("cut.tgz", &s);
        if (got != SAG_ERR_FORMAT) fail_msg("tar.gz cut at %zu of %zu: %s", cut, n, sag_status_name(got));
    }
}

static void damage_is_noticed(void **state)
{
    (void)state;
    size_t n;
    build(&t);
    for (size_t i = 0; i < 512; i += 3) { /* the header of the second member */
        tar bad = t;
        bad.bytes[512 + i] ^= 0x15;
        temp_write("bad.tar", bad.bytes, bad.size);
        seen s = {0};
        if (walk("bad.tar", &s) == SAG_OK) fail_msg("byte %zu of a header may change", i);
    }
    gzip(t.bytes, t.size, packed, &n);
    for (size_t i = 0; i < n; i++) {
        if (i >= 3 && i < 10) continue; /* flags we do not read, time, system: no checksum covers them */
        packed[i] ^= 0x20;
        temp_write("bad.tgz", packed, n);
        seen s = {0};
        sag_status got = walk("bad.tgz", &s);
        if (got == SAG_OK) expect_all(&s); /* another distance to the same bytes is no damage */
        packed[i] ^= 0x20;
    }
}

static void refuse(const char *words)
{
    temp_write("bad.tar", t.bytes, t.size);
    seen s = {0};
    assert_fails(walk("bad.tar", &s), SAG_ERR_FORMAT, words);
}

static void senseless_headers_are_refused(void **state)
{
    (void)state;
    t.size = 0;
    uint8_t *h = add_header(&t, "x", '0', "00000000000");
    memset(h + 124, 0xff, 12);
    finish_header(h);
    refuse("byte 0: a member's size makes no sense");
    memset(h + 124, 0xff, 12);
    h[124] = 0x80;
    finish_header(h);
    refuse("size makes no sense");
    memset(h + 124, 0, 12);
    h[124] = 0x80;
    memset(h + 128, 0x7f, 8); /* fits in 63 bits */
    finish_header(h);
    refuse("the limit here is");
    memcpy(h + 124, "12x4567\0\0\0\0", 12);
    finish_header(h);
    refuse("size makes no sense");
    t.size = 0;
    add_header(&t, "x", 'S', "00000000000");
    refuse("sparse");
    t.size = 0;
    add_header(&t, "x", 'L', "77777777777");
    refuse("header extension of");
    static const char *const pax[] = {
        "3 path=x\n",   "99 path=x\n",  "x", "0 a=b\n", "8 pathx\n", "-1 a=b\n", "99999999999999999999 a=b\n",
        "11 size=-1\n", "12 size=1x2\n"};
    for (size_t i = 0; i < sizeof pax / sizeof *pax; i++) {
        t.size = 0;
        add_file(&t, "p", 'x', pax[i], strlen(pax[i]));
        add_file(&t, "f", '0', "abc", 3);
        add_end(&t);
        refuse("pax header");
    }
    t.size = 0;
    const char *huge = "28 size=9223372036854775807\n";
    add_file(&t, "p", 'x', huge, strlen(huge));
    add_file(&t, "f", '0', "abc", 3);
    add_end(&t);
    refuse("size makes no sense");
    /* A member that promises a gigabyte costs no gigabyte: it fails where the file ends. */
    t.size = 0;
    add_header(&t, "f", '0', "07777777777");
    refuse("is cut short");
    temp_write("bad.tar", data, sizeof data);
    seen s = {0};
    assert_fails(walk("bad.tar", &s), SAG_ERR_FORMAT, "is not a tar archive");
    temp_write("bad.tar", "", 0);
    assert_fails(walk("bad.tar", &s), SAG_ERR_FORMAT, "is not a tar archive");
    assert_fails(walk("missing.tar", &s), SAG_ERR_IO, "No such file");
    assert_fails(walk(".", &s), SAG_ERR_IO, "not a regular file");
}

static void gunzip_reads_whole_files(void **state)
{
    (void)state;
    uint8_t *bytes, *large = malloc(3000000);
    size_t n, m, size;
    for (size_t i = 0; i < 3000000; i++) large[i] = (uint8_t)(i >> 9);
    gzip(large, 3000000, packed, &n);
    gzip("tail", 4, packed + n, &m);
    memset(packed + n + m, 0, 100); /* two members and padding */
    temp_write("f.gz", packed, n + m + 100);
    assert_ok(sag_gunzip_file(temp_path("f.gz"), 0, &bytes, &size));
    assert_int_equal(size, 3000004);
    assert_memory_equal(bytes, large, 3000000);
    assert_memory_equal(bytes + 3000000, "tail", 5);
    sag_host_free(bytes);
    assert_fails(sag_gunzip_file(temp_path("f.gz"), 3000003, &bytes, &size), SAG_ERR_FORMAT, "more than 3000003 bytes");
    assert_null(bytes);
    temp_write("f.gz", packed, n - 1);
    assert_fails(sag_gunzip_file(temp_path("f.gz"), 0, &bytes, &size), SAG_ERR_FORMAT,
                 "gzip data is cut short at byte");
    packed[n / 2] ^= 1;
    temp_write("f.gz", packed, n);
    assert_fails(sag_gunzip_file(temp_path("f.gz"), 0, &bytes, &size), SAG_ERR_FORMAT, "damaged near byte");
    packed[n / 2] ^= 1;
    memcpy(packed + n, "junk", 4);
    temp_write("f.gz", packed, n + 4);
    assert_fails(sag_gunzip_file(temp_path("f.gz"), 0, &bytes, &size), SAG_ERR_FORMAT, "not gzip follows");
    temp_write("plain", "as it is", 8);
    assert_ok(sag_gunzip_file(temp_path("plain"), 0, &bytes, &size));
    assert_int_equal(size, 8);
    assert_memory_equal(bytes, "as it is", 9);
    sag_host_free(bytes);
    free(large);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    size_t size;
    build(&t);
    gzip(t.bytes, t.size, packed, &size);
    temp_write("x.tgz", packed, size);
    int64_t before = sag_debug_live_host_blocks();
    for (int n = 1;; n++) {
        seen s = {0};
        sag_debug_fail_allocation(n);
        sag_status got = walk("x.tgz", &s);
        if (got == SAG_OK) {
            uint8_t *bytes;
            got = sag_gunzip_file(temp_path("x.tgz"), 0, &bytes, &size);
            if (got == SAG_OK) sag_host_free(bytes);
        }
        sag_debug_fail_allocation(0);
        assert_int_equal(sag_debug_live_host_blocks(), before);
        if (got == SAG_OK) {
            assert_true(n > 6);
            break;
        }
        if (got != SAG_ERR_MEMORY) fail_msg("allocation %d: %s: %s", n, sag_status_name(got), sag_error_message());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_dialects_are_read),         cmocka_unit_test(members_can_be_passed_over),
        cmocka_unit_test(every_truncation_is_noticed),   cmocka_unit_test(damage_is_noticed),
        cmocka_unit_test(senseless_headers_are_refused), cmocka_unit_test(gunzip_reads_whole_files),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, temp_setup, temp_teardown);
}
