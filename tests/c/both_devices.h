/* both_devices.h - a context of the CPU and one of the card, for programs that compare them. */
#ifndef SAG_BOTH_DEVICES_H
#define SAG_BOTH_DEVICES_H

#include "testing.h"

static sag_context *cpu, *card;

/* For a cmocka group; skips the program where there is no card. */
static int both_setup(void **state)
{
    testing_setup(state);
    return sag_context_create(SAG_CPU, &cpu) != SAG_OK || sag_context_create(SAG_CUDA, &card) != SAG_OK;
}

static int both_teardown(void **state)
{
    (void)state;
    sag_context_destroy(cpu);
    sag_context_destroy(card);
    return 0;
}

#endif
