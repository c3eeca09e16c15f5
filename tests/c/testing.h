/* testing.h - shared by the C tests: a context, random tensors, error norms and the finite-difference gradient check. */
#ifndef SAG_TESTING_H
#define SAG_TESTING_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/sagan.h"

/* SAGAN_TEST_DEVICE=cuda: the device of every test; else the CPU. */
sag_device testing_device(void);
/* For a cmocka group setup: a program whose device is not there ends as skipped. */
int testing_setup(void **state);
/* One context for the whole program, created at first use. */
sag_context *testing_context(void);
/* For a cmocka group teardown: destroys the context after checking that no tensor and no storage is alive. */
int testing_teardown(void **state);

#define assert_ok(expr)                                                                          \
    do {                                                                                         \
        sag_status s_ = (expr);                                                                  \
        if (s_ != SAG_OK) fail_msg("%s: %s: %s", #expr, sag_status_name(s_), sag_error_message()); \
    } while (0)
/* The call must fail with this status and a message that contains `words`. */
#define assert_fails(expr, status, words)                                                        \
    do {                                                                                         \
        sag_status s_ = (expr);                                                                  \
        if (s_ != (status) || !strstr(sag_error_message(), (words)))                             \
            fail_msg("%s: got %s: \"%s\", wanted %s with \"%s\"", #expr, sag_status_name(s_),    \
                     sag_error_message(), sag_status_name(status), (words));                     \
    } while (0)

/* An index outside its table is refused on the CPU; a card skips its row and runs on. */
#define assert_index_refused(expr, out, words)              \
    do {                                                    \
        if (testing_device() == SAG_CPU) {                  \
            assert_fails(expr, SAG_ERR_ARG, words);         \
        } else {                                            \
            assert_ok(expr);                                \
            sag_tensor_release((out)[0]);                   \
        }                                                   \
    } while (0)

/* Uniform numbers in [low, high) from a small generator of the tests' own, the same on every machine. */
void random_fill(float *x, int64_t n, uint64_t seed, float low, float high);
/* f32, uniform in [-1, 1). */
sag_tensor *make_tensor(sag_shape shape, uint64_t seed);
sag_tensor *make_tensor_between(sag_shape shape, uint64_t seed, float low, float high);
sag_tensor *make_tensor_from(sag_shape shape, const float *values);
sag_tensor *make_i32(int64_t n, const int32_t *values);
/* What t holds: on the CPU its own memory, else a copy of now, which lives until the teardown. */
const void *host_data(const sag_tensor *t);
const float *f32(const sag_tensor *t);
const int32_t *i32(const sag_tensor *t);
/* A copy to be changed, and its way back; or one element. */
float *edit_f32(const sag_tensor *t);
void end_edit(sag_tensor *t, float *p);
void set_f32(sag_tensor *t, int64_t i, float x);
/* What may change a tensor ends the use of copies. */
void testing_changed(void);
#define sag_op_apply(...) (testing_changed(), sag_op_apply(__VA_ARGS__))
#define sag_tape_backward(...) (testing_changed(), sag_tape_backward(__VA_ARGS__))
#define sag_tape_backward_from(...) (testing_changed(), sag_tape_backward_from(__VA_ARGS__))
#define sag_tensor_create(...) (testing_changed(), sag_tensor_create(__VA_ARGS__))
#define sag_tensor_zeros(...) (testing_changed(), sag_tensor_zeros(__VA_ARGS__))
#define sag_tensor_write(...) (testing_changed(), sag_tensor_write(__VA_ARGS__))
#define sag_tensor_copy(...) (testing_changed(), sag_tensor_copy(__VA_ARGS__))
#define sag_tensor_zero_grad(...) (testing_changed(), sag_tensor_zero_grad(__VA_ARGS__))
#define sag_tensor_release(...) (testing_changed(), sag_tensor_release(__VA_ARGS__))
#define sag_graph_launch(...) (testing_changed(), sag_graph_launch(__VA_ARGS__))

/* |a - b| / |b| in the L2 norm (|a| if b is zero). */
double relative_error(const float *a, const double *b, int64_t n);
double relative_error_f32(const float *a, const float *b, int64_t n);
#define assert_close(a, b, n, tolerance)                                                              \
    do {                                                                                              \
        double e_ = relative_error((a), (b), (n));                                                    \
        if (!(e_ <= (tolerance))) fail_msg("relative error %.3g > %.3g", e_, (double)(tolerance));    \
    } while (0)

/* sag_op_apply, failing the test on an error. attrs NULL: the defaults. */
sag_tensor *apply(sag_op op, sag_tensor *const *in, const double *attr);
/* An index in device memory leads outside its table: the CPU refuses with `words`; a card, which nobody waits for, skips what it
 * leads to and writes all of an f32 output, finite (kernel_types.h). */
void check_bad_index(sag_op op, sag_tensor *const *in, const double *attr, const char *words);

/*
 * Gradient check: y = op(in), loss = sum(y * r) with fixed random r, computed in double on the host. For each
 * differentiable f32 input with a set bit in `inputs`, compares the tape's gradient with central differences of step h, in
 * the relative error norm. Checks up to 200 elements of each input, spread over it. Also runs the op with the gradient
 * accumulated twice (two calls on one tape), which must give twice the gradient.
 */
void check_gradients(sag_op op, sag_tensor *const *in, const double *attr, unsigned inputs, double h, double tolerance);

/* Runs the op's forward and backward with 1, 2 and 3 threads and demands equal bits in outputs and gradients; on the CPU. */
void check_threads(sag_op op, sag_tensor *const *in, const double *attr, unsigned inputs);

#endif
