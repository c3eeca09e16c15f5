/* dense_attention.h - attention from its definition in double, the whole map in memory: what the tests of it compare with. */
#ifndef SAG_DENSE_ATTENTION_H
#define SAG_DENSE_ATTENTION_H

#include "testing.h"

typedef struct dense {
    int64_t b, nq, nk, d, e;
    double scale;
    double *p, *o, *dq, *dk, *dv; /* p {b,nq,nk} */
} dense;

static double *zeros(int64_t n)
{
    double *x = calloc((size_t)n, sizeof *x);
    assert_non_null(x);
    return x;
}

static double dot(const float *x, const float *y, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)x[i] * (double)y[i];
    return s;
}

/* The map, the output and, given r = do, the three gradients, from the definitions. */
static dense dense_attention(sag_tensor *const *in, double scale, const float *r)
{
    const sag_shape qs = sag_tensor_shape(in[0]), ks = sag_tensor_shape(in[1]), vs = sag_tensor_shape(in[2]);
    dense t = {.b = qs.dim[0], .nq = qs.dim[1], .nk = ks.dim[1], .d = qs.dim[2], .e = vs.dim[2], .scale = scale};
    const float *q = f32(in[0]), *k = f32(in[1]), *v = f32(in[2]);
    t.p = zeros(t.b * t.nq * t.nk);
    t.o = zeros(t.b * t.nq * t.e);
    t.dq = zeros(t.b * t.nq * t.d);
    t.dk = zeros(t.b * t.nk * t.d);
    t.dv = zeros(t.b * t.nk * t.e);
    double *dp = zeros(t.nk);
    for (int64_t row = 0; row < t.b * t.nq; row++) {
        const int64_t image = row / t.nq;
        const float *kb = k + image * t.nk * t.d, *vb = v + image * t.nk * t.e, *dout = r ? r + row * t.e : NULL;
        double *p = t.p + row * t.nk, top = -INFINITY, sum = 0, mean = 0;
        for (int64_t j = 0; j < t.nk; j++) {
            p[j] = scale * dot(q + row * t.d, kb + j * t.d, t.d);
            top = fmax(top, p[j]);
        }
        for (int64_t j = 0; j < t.nk; j++) sum += p[j] = exp(p[j] - top);
        for (int64_t j = 0; j < t.nk; j++) {
            p[j] /= sum;
            for (int64_t c = 0; c < t.e; c++) t.o[row * t.e + c] += p[j] * (double)vb[j * t.e + c];
        }
        if (!dout) continue;
        for (int64_t j = 0; j < t.nk; j++) {
            dp[j] = dot(dout, vb + j * t.e, t.e);
            mean += p[j] * dp[j];
        }
        for (int64_t j = 0; j < t.nk; j++) {
            const double ds = scale * p[j] * (dp[j] - mean);
            for (int64_t c = 0; c < t.e; c++) t.dv[(image * t.nk + j) * t.e + c] += p[j] * (double)dout[c];
            for (int64_t c = 0; c < t.d; c++) {
                t.dq[row * t.d + c] += ds * (double)kb[j * t.d + c];
                t.dk[(image * t.nk + j) * t.d + c] += ds * (double)q[row * t.d + c];
            }
        }
    }
    free(dp);
    return t;
}

static void dense_free(dense *t)
{
    free(t->p);
    free(t->o);
    free(t->dq);
    free(t->dk);
    free(t->dv);
}

#endif
