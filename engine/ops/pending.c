/* pending.c - weak stand-ins for op families that are not written yet; goes away with the last of them. */
#include "engine/internal.h"

#define PENDING(fn)                                             \
    __attribute__((weak)) sag_status fn(sag_op_call *c)         \
    {                                                           \
        return sag_op_fail(c, SAG_ERR_UNSUPPORTED, "not yet");  \
    }
#define SAG_OP_DIFF(name, signature, doc) PENDING(sag_op_##name##_fwd) PENDING(sag_op_##name##_bwd)
#define SAG_OP_PURE(name, signature, doc) PENDING(sag_op_##name##_fwd)
#define SAG_KERNEL(slot, args)
#include "engine/ops.def"
