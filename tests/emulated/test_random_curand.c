/*
 * test_random_curand.c - the words of kernels/cuda/random.cu, on the emulated card, against cuRAND's Philox4_32_10: with the seed
 * as its seed, the clock as its sequence and the stream as the upper half of its count of blocks. Skipped where the toolkit's
 * headers are not installed (curand_words.cpp is left out then).
 */
#include "tests/c/testing.h"

void curand_words(unsigned long long seed, unsigned long long sequence, unsigned long long offset, unsigned *words)
    __attribute__((weak));

enum { BLOCKS = 25000 };

/* randint over all of i32 is the word itself, less 2^31. */
static void same_words(uint64_t seed, uint32_t stream, const int32_t clock[2])
{
    sag_tensor *x = NULL, *t = make_i32(2, clock);
    assert_ok(sag_tensor_create(testing_context(), SAG_I32, sag_shape1(4 * BLOCKS), &x));
    double attr[] = {(double)seed, stream, INT32_MIN, (double)INT32_MAX + 1};
    assert_ok(sag_op_apply(testing_context(), SAG_OP_randint, (sag_tensor *[]){x, t}, attr, NULL));
    const int32_t *got = i32(x);
    const unsigned long long sequence = (unsigned long long)(uint32_t)clock[1] << 32 | (uint32_t)clock[0];
    for (uint32_t b = 0; b < BLOCKS; b++) {
        unsigned want[4];
        curand_words(seed, sequence, ((unsigned long long)stream << 32 | b) * 4, want);
        for (int i = 0; i < 4; i++) {
            const uint32_t word = (uint32_t)got[4 * b + (uint32_t)i] ^ 0x80000000u;
            if (word != want[i]) fail_msg("word %d of block %u: %08x, cuRAND's %08x", i, b, word, want[i]);
        }
    }
    sag_tensor_release(t);
    sag_tensor_release(x);
}

static void words_are_curand_s(void **state)
{
    (void)state;
    same_words(0, 0, (int32_t[]){0, 0});
    same_words(1234567890123, 9, (int32_t[]){7, 0});
    same_words((uint64_t)1 << 40, 1000, (int32_t[]){-1, 3});
    same_words(3, (1u << 30) - 1, (int32_t[]){INT32_MIN, -1}); /* the largest stream whose blocks cuRAND counts in 64 bits */
}

int main(void)
{
    if (!curand_words) {
        fprintf(stderr, "skipped: cuRAND's headers are not installed\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(words_are_curand_s)};
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
