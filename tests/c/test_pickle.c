/*
 * The pickle machine on pickles written by hand: every opcode it knows, every rule broken once, deep nesting, lying
 * lengths, endless streams of values, random bytes, failing memory.
 */
#include "engine/io/pickle.h"
#include "testing.h"

static const char *const known[] = {"pkg.call", NULL};

static sag_status read_bytes(const void *bytes, size_t n, sag_pickle **out)
{
    size_t at = 0;
    return sag_pickle_read(bytes, n, &at, "p", known, out);
}

/* Of a string literal, zero bytes inside included. */
#define READ(text, out) read_bytes((text), sizeof(text) - 1, (out))
#define REFUSED(text, words)                                                                                           \
    do {                                                                                                               \
        sag_pickle *none_ = NULL;                                                                                      \
        assert_fails(READ(text, &none_), SAG_ERR_FORMAT, words);                                                       \
        assert_null(none_);                                                                                            \
    } while (0)

/* The items of a pickle that is a tuple. */
static const sag_pickle_value *const *items(const sag_pickle *p, int64_t n)
{
    const sag_pickle_value *root = sag_pickle_root(p);
    assert_int_equal(root->kind, SAG_PICKLE_TUPLE);
    assert_int_equal(root->count, n);
    return (const sag_pickle_value *const *)root->item;
}

static void numbers_and_texts(void **state)
{
    (void)state;
    sag_pickle *p;
    static const struct {
        const char *bytes;
        size_t n;
        int64_t value;
    } whole[] = {{"K\xff.", 3, 255},
                 {"M\x01\x02.", 4, 513},
                 {"J\xfe\xff\xff\xff.", 6, -2},
                 {"\x8a\x00.", 3, 0},
                 {"\x8a\x01\x80.", 4, -128},
                 {"\x8a\x02\xff\x00.", 5, 255},
                 {"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80.", 11, INT64_MIN},
                 {"\x8b\x01\x00\x00\x00\x07.", 7, 7}};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        assert_ok(read_bytes(whole[i].bytes, whole[i].n, &p));
        assert_int_equal(sag_pickle_root(p)->kind, SAG_PICKLE_INT);
        assert_int_equal(sag_pickle_root(p)->whole, whole[i].value);
        sag_pickle_free(p);
    }
    assert_ok(READ("\x80\x02(N\x88\x89G\xbf\xf8\0\0\0\0\0\0X\2\0\0\0ab\x8c\1c\x8d\1\0\0\0\0\0\0\0dU\1eT\1\0\0\0f"
                   "\x8a\x09\1\0\0\0\0\0\0\0\1t.",
                   &p));
    const sag_pickle_value *const *v = items(p, 10);
    assert_int_equal(v[0]->kind, SAG_PICKLE_NONE);
    assert_true(v[1]->kind == SAG_PICKLE_BOOL && v[1]->whole == 1);
    assert_true(v[2]->kind == SAG_PICKLE_BOOL && v[2]->whole == 0);
    assert_true(v[3]->kind == SAG_PICKLE_FLOAT && v[3]->number == -1.5);
    assert_true(sag_pickle_is_text(v[4], "ab") && sag_pickle_is_text(v[5], "c") && sag_pickle_is_text(v[6], "d"));
    assert_true(sag_pickle_is_text(v[7], "e") && sag_pickle_is_text(v[8], "f"));
    assert_false(sag_pickle_is_text(v[4], "a") || sag_pickle_is_text(v[4], "abc"));
    assert_true(v[9]->kind == SAG_PICKLE_BIG && v[9]->length == 9);
    sag_pickle_free(p);
}

static void containers_and_memo(void **state)
{
    (void)state;
    sag_pickle *p;
    assert_ok(READ("(]K\1aq\0(K\2K\3e}K\4K\5sr\1\0\0\0(K\6K\7u)K\1\x85K\1K\2\x86K\1K\2K\3\x87"
                   "(K\1l(K\1K\2dh\0j\1\0\0\0K\x63"
                   "0t.",
                   &p));
    const sag_pickle_value *const *v = items(p, 10);
    assert_true(v[0]->kind == SAG_PICKLE_LIST && v[0]->count == 3 && v[0]->item[2]->whole == 3);
    assert_true(v[1]->kind == SAG_PICKLE_DICT && v[1]->count == 4 && v[1]->item[3]->whole == 7);
    for (int i = 2; i < 6; i++) assert_true(v[i]->kind == SAG_PICKLE_TUPLE && v[i]->count == i - 2);
    assert_true(v[6]->kind == SAG_PICKLE_LIST && v[7]->kind == SAG_PICKLE_DICT);
    assert_ptr_equal(v[8], v[0]);
    assert_ptr_equal(v[9], v[1]);
    sag_pickle_free(p);
    assert_ok(READ("\x80\x04\x95\0\0\0\0\0\0\0\0(]\x94h\0t.", &p)); /* protocol 4: FRAME, MEMOIZE */
    v = items(p, 2);
    assert_ptr_equal(v[0], v[1]);
    sag_pickle_free(p);
}

static void calls_are_names_and_arguments(void **state)
{
    (void)state;
    sag_pickle *p;
    assert_ok(READ("(cpkg\ncall\nK\1\x85R\x8c\3pkg\x8c\4call\x93)Rccollections\nOrderedDict\n)RK\1K\2s}b(K\5tQt.", &p));
    const sag_pickle_value *const *v = items(p, 4);
    assert_true(v[0]->kind == SAG_PICKLE_CALL && v[0]->count == 2);
    assert_string_equal(v[0]->item[0]->text, "pkg.call");
    assert_int_equal(v[0]->item[1]->item[0]->whole, 1);
    assert_true(v[1]->kind == SAG_PICKLE_CALL && v[1]->item[1]->count == 0);
    assert_true(v[2]->kind == SAG_PICKLE_DICT && v[2]->count == 2);
    assert_true(v[3]->kind == SAG_PICKLE_PERSISTENT && v[3]->item[0]->item[0]->whole == 5);
    sag_pickle_free(p);
    REFUSED("cos\nsystem\nX\2\0\0\0id\x85R.", "p: pickle, byte 0: names os.system, which is not among");
    REFUSED("\x8c\2os\x8c\6system\x93.", "names os.system");
    REFUSED("cpkg\ncal\n.", "names pkg.cal,");
    REFUSED("cpkg\ncalls\n.", "names pkg.calls,");
    REFUSED("K\1K\2\x93.", "whose name is no text");
    REFUSED("cpkg\ncall\nK\1R.", "calls a name with a number");
    REFUSED("K\1)R.", "calls a number with a tuple");
    REFUSED("ccollections\nOrderedDict\n]\x85R.", "made from arguments");
    REFUSED("cpkg\ncall\n)RK\1b.", "sets the state of an object");
    REFUSED("cpkg\ncall\n)\x81.", "opcode 0x81");
    REFUSED("(ios\nsystem\n.", "opcode 0x69");
    REFUSED("\x82\1.", "opcode 0x82");
}

static void broken_rules_are_named(void **state)
{
    (void)state;
    REFUSED("", "is cut short");
    REFUSED("K", "is cut short");
    REFUSED("X\xff\xff\xff\xff"
            "a.",
            "is cut short");
    REFUSED("\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "is cut short");
    REFUSED("\x8b\xff\xff\xff\xff.", "is cut short");
    REFUSED("cpkg", "is cut short");
    REFUSED("K\1", "is cut short");
    REFUSED(".", "takes a value where there is none");
    REFUSED("(.", "takes a value where there is none");
    REFUSED("(K\1.", "values left over");
    REFUSED("K\1t.", "a mark where there is none");
    REFUSED("K\1\x86.", "takes a value where there is none");
    REFUSED("(K\1\x86.", "takes a value where there is none");
    REFUSED("}K\1K\2a.", "adds to a number as if it were a list");
    REFUSED("]K\1K\2s.", "adds to a list as if it were a dictionary");
    REFUSED("}(K\1u.", "a key without a value");
    REFUSED("(K\1d.", "a key without a value");
    REFUSED("h\0.", "recalls 0, which it never saw");
    REFUSED("K\1r\xff\xff\xff\xff.", "remembers under 4294967295, out of turn");
    REFUSED("q\0.", "takes a value where there is none");
    REFUSED("\x80\x01K\1.", "protocol 1");
    REFUSED("\x80\x06K\1.", "protocol 6");
    char name[300];
    memset(name, 'x', sizeof name);
    name[0] = 'c';
    name[298] = '\n';
    name[299] = '\n';
    sag_pickle *p;
    assert_fails(read_bytes(name, sizeof name, &p), SAG_ERR_FORMAT, "more than 200 bytes");
}

static void one_behind_the_other(void **state)
{
    (void)state;
    static const char two[] = "\x80\2K\1.\x80\2K\2.rest";
    size_t at = 0;
    for (int i = 1; i <= 2; i++) {
        sag_pickle *p;
        assert_ok(sag_pickle_read((const uint8_t *)two, sizeof two - 1, &at, "p", known, &p));
        assert_int_equal(sag_pickle_root(p)->whole, i);
        assert_int_equal(at, 5 * i);
        sag_pickle_free(p);
    }
    sag_pickle *p;
    at = 1000; /* behind the end */
    assert_fails(sag_pickle_read((const uint8_t *)two, sizeof two - 1, &at, "p", known, &p), SAG_ERR_FORMAT,
                 "cut short");
}

/* A million levels need no stack; more values than the limit are refused, however they are made. */
static void depth_and_number_are_bounded(void **state)
{
    (void)state;
    enum { DEPTH = 1000000, LONG = 6000000 };
    uint8_t *b = malloc(LONG + 16);
    sag_pickle *p;
    b[0] = ')';
    memset(b + 1, 0x85, DEPTH);
    b[DEPTH + 1] = '.';
    assert_ok(read_bytes(b, DEPTH + 2, &p));
    sag_pickle_free(p);
    memset(b, '(', DEPTH);
    b[DEPTH] = '.';
    assert_fails(read_bytes(b, DEPTH + 1, &p), SAG_ERR_FORMAT, "where there is none");
    for (int kind = 0; kind < 4; kind++) { /* values, marks, recalled values, recalled values put away */
        static const char *const repeated[] = {"N", "(", "h\0", "h\0a"};
        static const size_t length[] = {1, 1, 2, 3};
        uint8_t *long_one = malloc((size_t)LONG * length[kind] + 16);
        memcpy(long_one, "]q\0", 3);
        for (size_t i = 0; i < LONG; i++) memcpy(long_one + 3 + i * length[kind], repeated[kind], length[kind]);
        assert_fails(read_bytes(long_one, 3 + (size_t)LONG * length[kind], &p), SAG_ERR_FORMAT,
                     "more than 4194304 values");
        free(long_one);
    }
    free(b);
}

static void random_bytes_never_crash(void **state)
{
    (void)state;
    /* opcodes with effects weigh more than the rest */
    static const uint8_t likely[] = "(}])tuldesaqhR.QNK\x85\x86\x87\x94\x8c\x88X";
    uint64_t x = 88172645463325252u;
    int64_t before = sag_debug_live_host_blocks();
    int good = 0;
    for (int round = 0; round < 200000; round++) {
        uint8_t b[64];
        for (size_t i = 0; i < sizeof b; i++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            b[i] = x & 7    ? likely[(x >> 8) % (sizeof likely - 1)]
                   : x & 56 ? (uint8_t)((x >> 8) & 3)
                            : (uint8_t)(x >> 8);
        }
        sag_pickle *p;
        sag_status s = read_bytes(b, sizeof b, &p);
        if (s != SAG_OK && s != SAG_ERR_FORMAT) fail_msg("round %d: %s", round, sag_error_message());
        if (s == SAG_OK) good++, sag_pickle_free(p);
    }
    assert_true(good > 0);
    assert_int_equal(sag_debug_live_host_blocks(), before);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    enum { N = 20000 }; /* more than a block of the arena and than the first stack */
    uint8_t *b = malloc(2 * N + 8);
    b[0] = '(';
    for (int i = 0; i < N; i++) memcpy(b + 1 + 2 * i, "N\x94", 2);
    memcpy(b + 1 + 2 * N, "t.", 2);
    int64_t before = sag_debug_live_host_blocks();
    for (int n = 1;; n++) {
        sag_pickle *p = NULL;
        sag_debug_fail_allocation(n);
        sag_status s = read_bytes(b, 2 * N + 3, &p);
        sag_debug_fail_allocation(0);
        sag_pickle_free(p);
        assert_int_equal(sag_debug_live_host_blocks(), before);
        if (s == SAG_OK) {
            assert_true(n > 10);
            break;
        }
        if (s != SAG_ERR_MEMORY) fail_msg("allocation %d: %s", n, sag_error_message());
    }
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_and_texts),
        cmocka_unit_test(containers_and_memo),
        cmocka_unit_test(calls_are_names_and_arguments),
        cmocka_unit_test(broken_rules_are_named),
        cmocka_unit_test(one_behind_the_other),
        cmocka_unit_test(depth_and_number_are_bounded),
        cmocka_unit_test(random_bytes_never_crash),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
