/* The examples of FIPS 180-4 and of NIST's test vectors, every length around a block's end, and files. */
#include "engine/io/sha256.h"
#include "temporary.h"

static void check(const void *bytes, size_t n, const char *want)
{
    char hex[SAG_SHA256_HEX];
    sag_sha256(bytes, n, hex);
    assert_string_equal(hex, want);
}

static void known_messages(void **state)
{
    (void)state;
    check(NULL, 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    check("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopq"
          "rstu",
          112, "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
    uint8_t one = 0xbd;
    check(&one, 1, "68325720aabd7c82f30f554b313d0570c95accbb7dc4b5aae11204c08ffe732b");
}

/* Runs of one byte whose padding takes one block, just one, and two (NIST SHA-256 additional vectors). */
static void lengths_around_a_block(void **state)
{
    (void)state;
    static uint8_t b[1000000];
    check(b, 55, "02779466cdec163811d078815c633f21901413081449002f24aa3e80f0b88ef7");
    check(b, 56, "d4817aa5497628e7c77e6b606107042bbba3130888c5f47a375e6179be789fbb");
    check(b, 57, "65a16cb7861335d5ace3c60718b5052e44660726da4cd13bb745381b235a1785");
    check(b, 64, "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b");
    check(b, 1000, "541b3e9daa09b20bf85fa273e5cbd3e80185aa4ec298e765db87742b70138a53");
    check(b, 1000000, "d29751f2649b32ff572b5e0a9f541ea660a50f94ff0beedfb0b692b924cc8025");
    memset(b, 'a', sizeof b);
    check(b, sizeof b, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    memset(b, 'A', 1000);
    check(b, 1000, "c2e686823489ced2017f6059b8b239318b6364f6dcd835d0a519105a1eadd6e4");
}

static void files(void **state)
{
    (void)state;
    char hex[SAG_SHA256_HEX];
    temp_write("abc", "abc", 3);
    assert_ok(sag_sha256_file(temp_path("abc"), hex));
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    temp_write("none", "", 0);
    assert_ok(sag_sha256_file(temp_path("none"), hex));
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_fails(sag_sha256_file(temp_path("missing"), hex), SAG_ERR_IO, "cannot open");
    assert_string_equal(hex, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_messages), cmocka_unit_test(lengths_around_a_block),
                                       cmocka_unit_test(files)};
    return cmocka_run_group_tests(tests, temp_setup, temp_teardown);
}
