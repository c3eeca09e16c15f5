/*
 * norm_bwd.c - gradients of batch normalisation. With d = dy, masked by y > 0 if f is the ReLU, M rows, and sums over
 * them per channel:
 *   dbias = sum d,  dgain = sum d (x - mean) rstd
 *   dx = rstd (g d - A / M - (x - mean) rstd B / M),  A = sum g d,  B = sum g d (x - mean) rstd    (train)
 *   dx = rstd g d                                                                                  (running statistics)
 *
 * Sums in f32 within a piece, in f64 across them. Reads x and dy twice and writes dx: the mask comes from x, by the
 * very expression that forward uses. The second pass runs backwards, over what the first left in the caches.
 */
#include "kernels/cpu/norm_lines.h"

/* d at column j of the line; the comparison is turned so that NaN goes through. */
CPU_INLINE cpu_vec gradient(const lines *t, int64_t j, int64_t n, cpu_vec centred, cpu_vec dy, bool relu)
{
    if (!relu) return dy;
    return cpu_select(affine(centred, cpu_load_part(t->factor + j, n), cpu_load_part(t->bias + j, n)) <= 0.0f, (cpu_vec){0}, dy);
}

/* first = sum d, second = sum d (x - mean), for one piece. */
CPU_INLINE void piece_gradient_sums(const batch_norm_args *a, const place *w, const lines *t, float *first, float *second,
                                bool relu)
{
    cpu_part own = w->q;
    const bool side = side_by_side(&own);
    const cpu_part *q = &own;
    const float *x = (const float *)a->x + w->at, *dy = (const float *)a->dy + w->at;
    float s1[CPU_WIDE], s2[CPU_WIDE];
    memset(s1, 0, (size_t)q->width * sizeof *s1);
    memset(s2, 0, (size_t)q->width * sizeof *s2);
    for (int64_t top = 0; side && top < q->lines; top += SIDE_LINES) {
        cpu_vec sum[SIDE] = {0}, product[SIDE] = {0};
        for (int64_t l = top; l < cpu_min64(top + SIDE_LINES, q->lines); l++)
            for (int k = 0; k < SIDE; k++) {
                const int64_t j = k * CPU_LANES, i = l * SIDE_WIDTH + j;
                cpu_vec centred = cpu_load(x + i) - cpu_load(t->mean + j);
                cpu_vec d = gradient(t, j, CPU_LANES, centred, cpu_load(dy + i), relu);
                sum[k] += d;
                product[k] += d * centred;
            }
        for (int k = 0; k < SIDE; k++) {
            cpu_store(s1 + k * CPU_LANES, cpu_load(s1 + k * CPU_LANES) + sum[k]);
            cpu_store(s2 + k * CPU_LANES, cpu_load(s2 + k * CPU_LANES) + product[k]);
        }
    }
#define BODY(i, j, n)                                                                                                  \
    do {                                                                                                               \
        cpu_vec centred = cpu_load_part(x + (i), n) - cpu_load_part(t->mean + (j), n);                                                   \
        cpu_vec d = gradient(t, j, n, centred, cpu_load_part(dy + (i), n), relu);                                               \
        cpu_store_part(s1 + (j), cpu_load_part(s1 + (j), n) + d, n);                                                                     \
        cpu_store_part(s2 + (j), cpu_load_part(s2 + (j), n) + d * centred, n);                                                           \
    } while (0)
    FOR_VECTORS_FROM(q, side ? q->lines : 0, BODY)
#undef BODY
    cpu_fold(first, s1, q->cols, q->width);
    cpu_fold(second, s2, q->cols, q->width);
}

/* The rows of the gain and bias tables that this batch meets, in the order in which it does. */
typedef struct met {
    int64_t *slot;  /* of each image */
    int64_t *label; /* of each slot */
    int64_t slots;
} met;

static void meet(const batch_norm_args *a, met *m)
{
    m->slots = 0;
    for (int64_t i = 0; i < a->n; i++) {
        int64_t label = a->labels ? a->labels[i] : 0, s = 0;
        while (s < m->slots && m->label[s] != label) s++;
        if (s == m->slots) m->label[m->slots++] = label;
        m->slot[i] = s;
    }
}

/*
 * Adds up the pieces of each image, and these over the images: into the slots of dgain and dbias, and weighted by each
 * image's factor into A and B. One pass per tile of channels, images in order.
 */
static void finish_gradient_sums(sag_kernel_env *env, const batch_norm_args *a, const grid *g, const met *m,
                                 const float *first, const float *second, double *dgain, double *dbias, double *sum_a,
                                 double *sum_b)
{
    memset(dgain, 0, (size_t)(m->slots * a->c) * sizeof *dgain);
    memset(dbias, 0, (size_t)(m->slots * a->c) * sizeof *dbias);
#pragma omp parallel for num_threads(env->threads) schedule(static) if (g->parts * a->c > CPU_SMALL)
    for (int64_t c0 = 0; c0 < a->c; c0 += CHANNELS) {
        int64_t n = cpu_min64(CHANNELS, a->c - c0);
        double ta[CHANNELS] = {0}, tb[CHANNELS] = {0};
        for (int64_t image = 0; image < a->n; image++) {
            double s1[CHANNELS] = {0}, s2[CHANNELS] = {0};
            for (int64_t b = 0; b < g->p.blocks; b++) {
                const float *f = first + (image * g->p.blocks + b) * a->c + c0;
                const float *s = second + (image * g->p.blocks + b) * a->c + c0;
                for (int64_t j = 0; j < n; j++) {
                    s1[j] += (double)f[j];
                    s2[j] += (double)s[j];
                }
            }
            const float *gain = a->gain ? row_of(a, a->gain, image) + c0 : NULL;
            int64_t to = m->slot[image] * a->c + c0;
            for (int64_t j = 0; j < n; j++) {
                double factor = gain ? (double)(gain[j] + a->gain_offset) : 1.0;
                s2[j] *= (double)a->rstd[c0 + j];
                dbias[to + j] += s1[j];
                dgain[to + j] += s2[j];
                ta[j] += factor * s1[j];
                tb[j] += factor * s2[j];
            }
        }
        memcpy(sum_a + c0, ta, (size_t)n * sizeof *ta);
        memcpy(sum_b + c0, tb, (size_t)n * sizeof *tb);
    }
}

static void store_sums(const batch_norm_args *a, float *to, const double *from, const met *m, int accumulate)
{
    if (!to) return;
    if (!accumulate) memset(to, 0, (size_t)((a->labels ? a->classes : 1) * a->c) * sizeof *to);
    for (int64_t s = 0; s < m->slots; s++) {
        float *row = to + m->label[s] * a->c;
        for (int64_t c = 0; c < a->c; c++) row[c] += (float)from[s * a->c + c];
    }
}

/*
 * dx (+)= factor * d - shift - (x - mean) * slope, without the last two where the statistics are constants. `rest` is what
 * rounding takes from shift: the sum of dx over a channel, a bias's gradient in front of the norm, is all cancellation and would
 * keep M times as much.
 */
CPU_INLINE void piece_dx(const batch_norm_args *a, const place *w, const lines *t, bool relu, bool train, bool accumulate)
{
    const cpu_part *q = &w->q;
    const float *x = (const float *)a->x + w->at, *dy = (const float *)a->dy + w->at;
    float *dx = (float *)a->dx + w->at;
#define BODY(i, j, n)                                                                                                  \
    do {                                                                                                               \
        cpu_vec centred = cpu_load_part(x + (i), n) - cpu_load_part(t->mean + (j), n);                                                   \
        cpu_vec d = gradient(t, j, n, centred, cpu_load_part(dy + (i), n), relu) * cpu_load_part(t->factor + (j), n);                    \
        cpu_vec slope = cpu_load_part(t->slope + (j), n), rest = cpu_load_part(t->rest + (j), n);                      \
        if (train) d = (d - cpu_load_part(t->shift + (j), n)) - (centred * slope + rest);                              \
        cpu_store_part(dx + (i), accumulate ? cpu_load_part(dx + (i), n) + d : d, n);                                                    \
    } while (0)
    FOR_VECTORS(q, BODY)
#undef BODY
}

static void all_dx(sag_kernel_env *env, const batch_norm_args *a, const grid *g, const float *shift, const float *slope,
                   const float *rest)
{
#pragma omp parallel num_threads(env->threads) if (a->n * g->image > CPU_SMALL)
    {
        lines t;
        cpu_share own = cpu_share_of(g->pieces);
        for (int64_t piece = own.end - 1; piece >= own.first; piece--) {
            place w = place_of(g, piece);
            lines_of(&t, a, &w);
            cpu_repeat(t.shift, shift + w.q.column, w.q.cols, w.q.width);
            cpu_repeat(t.rest, rest + w.q.column, w.q.cols, w.q.width);
            cpu_repeat(t.slope, slope + w.q.column, w.q.cols, w.q.width);
            switch ((a->relu ? 4 : 0) | (a->train ? 2 : 0) | (a->accumulate ? 1 : 0)) {
            case 0: piece_dx(a, &w, &t, false, false, false); break;
            case 1: piece_dx(a, &w, &t, false, false, true); break;
            case 2: piece_dx(a, &w, &t, false, true, false); break;
            case 3: piece_dx(a, &w, &t, false, true, true); break;
            case 4: piece_dx(a, &w, &t, true, false, false); break;
            case 5: piece_dx(a, &w, &t, true, false, true); break;
            case 6: piece_dx(a, &w, &t, true, true, false); break;
            default: piece_dx(a, &w, &t, true, true, true); break;
            }
        }
    }
}

static int gradient_sums(sag_kernel_env *env, const batch_norm_args *a, const grid *g, float *shift, float *slope,
                         float *rest)
{
    met m = {.slot = env->scratch(env, (size_t)a->n * sizeof *m.slot),
             .label = env->scratch(env, (size_t)a->n * sizeof *m.label)};
    float *first = env->scratch(env, (size_t)(g->parts * a->c) * sizeof *first);
    float *second = env->scratch(env, (size_t)(g->parts * a->c) * sizeof *second);
    double *sums = env->scratch(env, (size_t)(2 * (a->n + 1) * a->c) * sizeof *sums);
    if (!m.slot || !m.label || !first || !second || !sums) return SAG_KERNEL_NO_MEMORY;
    meet(a, &m);
#pragma omp parallel num_threads(env->threads) if (a->n * g->image > CPU_SMALL)
    {
        lines t;
        cpu_share own = cpu_share_of(g->pieces);
        for (int64_t piece = own.first; piece < own.end; piece++) {
            place w = place_of(g, piece);
            int64_t to = w.part * a->c + w.q.column;
            lines_of(&t, a, &w);
            if (a->relu)
                piece_gradient_sums(a, &w, &t, first + to, second + to, true);
            else
                piece_gradient_sums(a, &w, &t, first + to, second + to, false);
        }
    }
    double *dgain = sums, *dbias = sums + a->n * a->c, *sum_a = sums + 2 * a->n * a->c, *sum_b = sum_a + a->c;
    finish_gradient_sums(env, a, g, &m, first, second, dgain, dbias, sum_a, sum_b);
    store_sums(a, a->dgain, dgain, &m, a->accumulate_dgain);
    store_sums(a, a->dbias, dbias, &m, a->accumulate_dbias);
    double rows = (double)(a->n * a->spatial);
    for (int64_t c = 0; c < a->c; c++) {
        double rstd = (double)a->rstd[c];
        shift[c] = (float)(rstd * sum_a[c] / rows);
        rest[c] = (float)(rstd * sum_a[c] / rows - (double)shift[c]);
        slope[c] = (float)(rstd * rstd * sum_b[c] / rows);
    }
    return SAG_KERNEL_OK;
}

int CPU_ISA(batch_norm_bwd)(sag_kernel_env *env, const batch_norm_args *a)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    if (!labels_fit(a)) return SAG_KERNEL_BAD_INDEX;
    grid g = grid_of(a->n, a->spatial, a->c);
    float *shift = env->scratch(env, (size_t)(3 * a->c) * sizeof *shift);
    if (!shift) return SAG_KERNEL_NO_MEMORY;
    memset(shift, 0, (size_t)(3 * a->c) * sizeof *shift);
    if (a->dgain || a->dbias || (a->dx && a->train)) {
        int rc = gradient_sums(env, a, &g, shift, shift + a->c, shift + 2 * a->c);
        if (rc != SAG_KERNEL_OK) return rc;
    }
    if (a->dx) all_dx(env, a, &g, shift, shift + a->c, shift + 2 * a->c);
    return SAG_KERNEL_OK;
}
