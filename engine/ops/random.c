/*
 * random.c - random tensors in place. The numbers depend on seed, stream, clock and position alone: the same on every
 * device and for any number of threads, and a resumed run that restores its clock continues as if never stopped.
 */
#include "engine/ops/check.h"

#define MAX_WHOLE ((int64_t)1 << 53) /* whole numbers that a double holds exactly */

static sag_status fill_random(sag_op_call *c, random_args *a, sag_dtype dtype)
{
    int64_t seed, stream;
    SAG_TRY(want_dtype(c, 0, dtype));
    SAG_TRY(want_clock(c, 1));
    SAG_TRY(want_whole(c, 0, -MAX_WHOLE, MAX_WHOLE, &seed));
    SAG_TRY(want_whole(c, 1, 0, UINT32_MAX, &stream));
    if (c->in[0]->numel > (int64_t)UINT32_MAX * 4) {
        return sag_op_fail(c, SAG_ERR_SHAPE, "at most 2^34 random numbers in one call");
    }
    a->x = sag_data(c->in[0]);
    a->clock = sag_data(c->in[1]);
    a->n = c->in[0]->numel;
    a->seed = (uint64_t)seed;
    a->stream = (uint32_t)stream;
    return SAG_RUN(c, random_fill, a);
}

sag_status sag_op_uniform_fwd(sag_op_call *c)
{
    random_args a = {.kind = SAG_RANDOM_UNIFORM, .a = (float)c->attr[2], .b = (float)c->attr[3]};
    if (!(a.a < a.b) || !isfinite(a.b - a.a)) {
        return sag_op_fail(c, SAG_ERR_ARG, "low = %g must be less than high = %g, both finite", c->attr[2], c->attr[3]);
    }
    return fill_random(c, &a, SAG_F32);
}

sag_status sag_op_normal_fwd(sag_op_call *c)
{
    random_args a = {.kind = SAG_RANDOM_NORMAL, .a = (float)c->attr[2], .b = (float)c->attr[3], .bound = (float)c->attr[4]};
    if (!isfinite(a.a) || !(a.b >= 0) || !isfinite(a.b)) {
        return sag_op_fail(c, SAG_ERR_ARG, "mean = %g and std = %g must be finite and std at least 0", c->attr[2], c->attr[3]);
    }
    if (!(a.bound >= 0)) return sag_op_fail(c, SAG_ERR_ARG, "bound = %g must be at least 0 (0: none)", c->attr[4]);
    return fill_random(c, &a, SAG_F32);
}

sag_status sag_op_randint_fwd(sag_op_call *c)
{
    random_args a = {.kind = SAG_RANDOM_INT};
    SAG_TRY(want_whole(c, 2, INT32_MIN, INT32_MAX, &a.low));
    SAG_TRY(want_whole(c, 3, INT32_MIN, (int64_t)INT32_MAX + 1, &a.high));
    if (a.low >= a.high) {
        return sag_op_fail(c, SAG_ERR_ARG, "low = %lld must be less than high = %lld", (long long)a.low, (long long)a.high);
    }
    return fill_random(c, &a, SAG_I32);
}

sag_status sag_op_tick_fwd(sag_op_call *c)
{
    tick_args a;
    SAG_TRY(want_clock(c, 0));
    SAG_TRY(want_whole(c, 0, -MAX_WHOLE, MAX_WHOLE, &a.by));
    a.clock = sag_data(c->in[0]);
    return SAG_RUN(c, tick, &a);
}
