/* The op list against the backend: every slot is filled, every op is described, failures name the op. */
#include "kernels/kernel_table.h"
#include "testing.h"

static void every_kernel_slot_is_filled(void **state)
{
    (void)state;
    testing_context();
    const sag_kernel_table *t = sag_cpu_backend()->kernels;
    struct {
        const char *name;
        bool there;
    } slots[] = {
#define SAG_OP_DIFF(name, signature, doc)
#define SAG_OP_PURE(name, signature, doc)
#define SAG_KERNEL(slot, args) {#slot, t->slot != NULL},
#include "engine/ops.def"
    };
    for (size_t i = 0; i < sizeof slots / sizeof slots[0]; i++) {
        if (!slots[i].there) fail_msg("the cpu backend (%s) lacks kernel %s", sag_cpu_isa(), slots[i].name);
    }
}

static void every_op_has_a_description(void **state)
{
    (void)state;
    for (int op = 0; op < SAG_OP_COUNT; op++) {
        const sag_op_info *info = sag_op_describe((sag_op)op);
        assert_true(strlen(info->doc) > 10);
        assert_int_equal(sag_op_find(info->name), op);
        for (int i = 0; i < info->n_in; i++) assert_int_equal(info->in[i].type, 'T');
        for (int i = 0; i < info->n_attr; i++) assert_non_null(strchr("fiba", info->attr[i].type));
    }
}

static void missing_inputs_are_named(void **state)
{
    (void)state;
    sag_tensor *x = make_tensor(sag_shape4(1, 4, 4, 2), 1), *in[SAG_MAX_IN] = {x}, *out[SAG_MAX_OUT];
    assert_fails(sag_op_apply(testing_context(), SAG_OP_conv2d, in, NULL, out), SAG_ERR_ARG, "'w' is missing");
    sag_context_set_path(testing_context(), "G.block1.conv1");
    assert_fails(sag_op_apply(testing_context(), SAG_OP_conv2d, in, NULL, out), SAG_ERR_ARG, "G.block1.conv1: conv2d(x {1, 4, 4, 2})");
    sag_context_set_path(testing_context(), "");
    sag_tensor_release(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kernel_slot_is_filled),
        cmocka_unit_test(every_op_has_a_description),
        cmocka_unit_test(missing_inputs_are_named),
    };
    return cmocka_run_group_tests(tests, testing_setup, testing_teardown);
}
