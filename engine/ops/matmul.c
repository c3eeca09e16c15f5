/* matmul.c - matrix products and the linear layer. Both operands of a product are kept only if the other's gradient is
 * wanted. */
#include "engine/internal.h"

static matmul_args product(const void *a, sag_dtype act_a, int trans_a, const void *b, sag_dtype act_b, int trans_b,
                           void *y, sag_dtype act_y)
{
    return (matmul_args){.a = a,
                         .b = b,
                         .y = y,
                         .act_a = act_a,
                         .act_b = act_b,
                         .act_y = act_y,
                         .batch = 1,
                         .trans_a = trans_a,
                         .trans_b = trans_b};
}

static void set_sizes(matmul_args *a, int64_t batch, int64_t m, int64_t n, int64_t k)
{
    a->batch = batch;
    a->m = m;
    a->n = n;
    a->k = k;
    a->stride_a = m * k;
    a->stride_b = k * n;
    a->stride_y = m * n;
}

/* ------------------------------------------------------------------------------------------------ matmul */

typedef struct matmul_sizes {
    int64_t batch, m, n, k;
    int trans_a, trans_b;
} matmul_sizes;

static matmul_sizes sizes_of(const sag_op_call *c)
{
    const sag_shape *a = &c->in_shape[0], *b = &c->in_shape[1];
    int at = a->rank - 2;
    matmul_sizes s = {.batch = at ? a->dim[0] : 1, .trans_a = c->attr[0] != 0, .trans_b = c->attr[1] != 0};
    s.m = a->dim[at + s.trans_a];
    s.k = a->dim[at + !s.trans_a];
    s.n = b->dim[at + !s.trans_b];
    return s;
}

sag_status sag_op_matmul_fwd(sag_op_call *c)
{
    sag_shape a = c->in_shape[0], b = c->in_shape[1];
    if ((a.rank != 2 && a.rank != 3) || a.rank != b.rank) {
        return sag_op_fail(c, SAG_ERR_SHAPE,
                           "both operands must have rank 2, or both rank 3 with equal first dimension");
    }
    matmul_sizes s = sizes_of(c);
    if (a.rank == 3 && a.dim[0] != b.dim[0]) {
        return sag_op_fail(c, SAG_ERR_SHAPE, "batches differ: %lld and %lld", (long long)a.dim[0], (long long)b.dim[0]);
    }
    int64_t inner = b.dim[b.rank - 2 + s.trans_b];
    if (inner != s.k) {
        return sag_op_fail(c, SAG_ERR_SHAPE, "inner dimensions differ: %s has %lld, %s has %lld",
                           s.trans_a ? "a transposed" : "a", (long long)s.k, s.trans_b ? "b transposed" : "b",
                           (long long)inner);
    }
    sag_dtype act = c->in_dtype[0];
    if ((act != SAG_F32 && act != SAG_BF16) || c->in_dtype[1] != act) {
        return sag_op_fail(c, SAG_ERR_DTYPE, "both operands must be f32 or both bf16, got %s and %s",
                           sag_dtype_name(act), sag_dtype_name(c->in_dtype[1]));
    }
    SAG_TRY(sag_out(c, 0, act, a.rank == 3 ? sag_shape3(s.batch, s.m, s.n) : sag_shape2(s.m, s.n)));
    matmul_args p =
        product(sag_data(c->in[0]), act, s.trans_a, sag_data(c->in[1]), act, s.trans_b, sag_data(c->out[0]), act);
    set_sizes(&p, s.batch, s.m, s.n, s.k);
    c->keep_in = (sag_needs(c, 1) ? 1u : 0u) | (sag_needs(c, 0) ? 2u : 0u);
    return SAG_RUN(c, matmul, &p);
}

/* With A = op(a), B = op(b): dA = dy B^T, dB = A^T dy; the gradient of a transposed operand is the transpose of these.
 */
sag_status sag_op_matmul_bwd(sag_op_call *c)
{
    matmul_sizes s = sizes_of(c);
    sag_grad da, db;
    const void *dy = sag_data(c->dout[0]);
    sag_dtype act = c->in_dtype[0];
    SAG_TRY(sag_grad_in(c, 0, &da));
    if (da.data) {
        matmul_args p = s.trans_a ? product(sag_data(c->in[1]), act, s.trans_b, dy, act, 1, da.data, act)
                                  : product(dy, act, 0, sag_data(c->in[1]), act, !s.trans_b, da.data, act);
        if (s.trans_a)
            set_sizes(&p, s.batch, s.k, s.m, s.n);
        else
            set_sizes(&p, s.batch, s.m, s.k, s.n);
        p.accumulate = da.accumulate;
        SAG_TRY(SAG_RUN(c, matmul, &p));
    }
    SAG_TRY(sag_grad_in(c, 1, &db));
    if (db.data) {
        matmul_args p = s.trans_b ? product(dy, act, 1, sag_data(c->in[0]), act, s.trans_a, db.data, act)
                                  : product(sag_data(c->in[0]), act, !s.trans_a, dy, act, 0, db.data, act);
        if (s.trans_b)
            set_sizes(&p, s.batch, s.n, s.k, s.m);
        else
            set_sizes(&p, s.batch, s.k, s.n, s.m);
        p.accumulate = db.accumulate;
        SAG_TRY(SAG_RUN(c, matmul, &p));
    }
    return SAG_OK;
}

/* ------------------------------------------------------------------------------------------------ linear */

sag_status sag_op_linear_fwd(sag_op_call *c)
{
    sag_shape x = c->in_shape[0], w = c->in_shape[1], b = c->in_shape[2], y = x;
    if (w.rank != 2) return sag_op_fail(c, SAG_ERR_SHAPE, "w must have rank 2, {O,I}");
    int64_t in = x.dim[x.rank - 1], out = w.dim[0];
    if (in != w.dim[1]) {
        return sag_op_fail(c, SAG_ERR_SHAPE, "the last dimension of x is %lld but w takes %lld; they must be equal",
                           (long long)in, (long long)w.dim[1]);
    }
    if (c->in[2] && (b.rank != 1 || b.dim[0] != out)) {
        return sag_op_fail(c, SAG_ERR_SHAPE, "b must be {%lld}, one number for each row of w", (long long)out);
    }
    if (c->in_dtype[0] != SAG_F32 && c->in_dtype[0] != SAG_BF16) {
        return sag_op_fail(c, SAG_ERR_DTYPE, "x must be f32 or bf16, got %s", sag_dtype_name(c->in_dtype[0]));
    }
    if (c->in_dtype[1] != SAG_F32 || (c->in[2] && c->in_dtype[2] != SAG_F32)) {
        return sag_op_fail(c, SAG_ERR_DTYPE, "w and b must be f32");
    }
    y.dim[y.rank - 1] = out;
    SAG_TRY(sag_out(c, 0, c->in_dtype[0], y));
    matmul_args p = product(sag_data(c->in[0]), c->in_dtype[0], 0, sag_data(c->in[1]), SAG_F32, 1, sag_data(c->out[0]),
                            c->in_dtype[0]);
    set_sizes(&p, 1, sag_numel(x) / in, out, in);
    p.bias = sag_data(c->in[2]);
    c->keep_in = (sag_needs(c, 1) ? 1u : 0u) | (sag_needs(c, 0) ? 2u : 0u);
    return SAG_RUN(c, matmul, &p);
}

/* dx = dy w, dw = dy^T x, db = sum of the rows of dy */
sag_status sag_op_linear_bwd(sag_op_call *c)
{
    sag_grad dx, dw, db;
    sag_dtype act = c->in_dtype[0];
    const void *dy = sag_data(c->dout[0]);
    int64_t in = c->in_shape[1].dim[1], out = c->in_shape[1].dim[0], rows = sag_numel(c->in_shape[0]) / in;
    SAG_TRY(sag_grad_in(c, 0, &dx));
    if (dx.data) {
        matmul_args p = product(dy, act, 0, sag_data(c->in[1]), SAG_F32, 0, dx.data, act);
        set_sizes(&p, 1, rows, in, out);
        p.accumulate = dx.accumulate;
        SAG_TRY(SAG_RUN(c, matmul, &p));
    }
    SAG_TRY(sag_grad_in(c, 1, &dw));
    if (dw.data) {
        matmul_args p = product(dy, act, 1, sag_data(c->in[0]), act, 0, dw.data, SAG_F32);
        set_sizes(&p, 1, out, in, rows);
        p.accumulate = dw.accumulate;
        SAG_TRY(SAG_RUN(c, matmul, &p));
    }
    SAG_TRY(sag_grad_in(c, 2, &db));
    if (db.data) {
        column_sum_args p = {.x = dy, .y = db.data, .rows = rows, .cols = out, .accumulate = db.accumulate, .act = act};
        SAG_TRY(SAG_RUN(c, column_sum, &p));
    }
    return SAG_OK;
}
