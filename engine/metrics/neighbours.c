/*
 * neighbours.c - precision and recall (Kynkaanniemi et al., "Improved precision and recall metric for assessing
 * generative models", 2019), density and coverage (Naeem et al., "Reliable fidelity and diversity metrics for
 * generative models", 2020). With r(x) the distance of x to its k-th nearest neighbour among its own kind:
 *
 *     precision  share of fake rows f with |f - x| < r(x) for some real x
 *     recall     share of real rows x with |f - x| < r(f) for some fake f
 *     density    1/k of how many real balls a fake row lies in, in the mean
 *     coverage   share of real rows whose nearest fake row is inside their ball
 *
 * Three stages over strips of 128 rows: real with real and fake with fake for the radii (each pair once), then real
 * with fake. A strip of distances is all that is ever kept. Distances stay squared.
 */
#include <math.h>
#include <string.h>

#include <omp.h>

#include "engine/metrics/metrics_internal.h"
#include "kernels/cpu/neighbours.h"

enum { REAL, FAKE, BETWEEN, STAGES };

struct sag_neighbours {
    sag_rows rows[2]; /* real, fake */
    int64_t k;
    bool inclusive;
    int threads;
    const cpu_neighbours *kernels;
    double *nearest[2]; /* [n][k], ascending: the smallest distances so far */
    double *packed;     /* a strip's rows */
    double *strip;      /* [CPU_DISTANCE_ROWS][columns] */
    double *scratch;    /* [threads][CPU_DISTANCE_SCRATCH] */
    uint8_t *inside;    /* [fake]: in some real ball */
    int64_t first;      /* row at which the next strip begins */
    int stage;
    int64_t recalled, covered, in_balls; /* counts over real rows */
};

static const cpu_neighbours *choose_kernels(void)
{
#ifdef SAGAN_ISA_AVX512
    if (strcmp(sag_cpu_isa(), "avx512") == 0) return &cpu_neighbours_avx512;
#endif
#ifdef SAGAN_ISA_AVX2
    if (strcmp(sag_cpu_isa(), "avx2") == 0) return &cpu_neighbours_avx2;
#endif
#ifdef SAGAN_ISA_GENERIC
    return &cpu_neighbours_generic;
#else
    return NULL;
#endif
}

static double radius(const sag_neighbours *s, int kind, int64_t row)
{
    return s->nearest[kind][row * s->k + s->k - 1];
}

/* One more distance for the list of a row. */
static inline void consider(double *list, int64_t k, double d2)
{
    if (d2 >= list[k - 1]) return;
    int64_t at = k - 1;
    for (; at > 0 && list[at - 1] > d2; at--) list[at] = list[at - 1];
    list[at] = d2;
}

static inline bool in_ball(const sag_neighbours *s, double d2, double r2)
{
    return d2 < r2 || (s->inclusive && d2 == r2);
}

/* strip [rows][columns]: distances of the strip's rows to the first `columns` rows of y. */
static void fill_strip(sag_neighbours *s, sag_rows x, int64_t rows, sag_rows y, int64_t columns)
{
    s->kernels->pack(x.data + s->first * x.d, rows, x.d, s->packed);
#pragma omp parallel for num_threads(s->threads) schedule(dynamic)
    for (int64_t j = 0; j < columns; j += CPU_DISTANCE_COLS)
        s->kernels->tile(s->packed, rows, y.data + j * y.d, sag_min64(CPU_DISTANCE_COLS, columns - j), y.d,
                         s->scratch + (int64_t)omp_get_thread_num() * CPU_DISTANCE_SCRATCH, s->strip + j, columns);
}

/* Pairs (i, j), j < i, of one kind: for the list of i, then for the list of j. The lists do not depend on the order. */
static void find_nearest(sag_neighbours *s, int kind, int64_t rows)
{
    int64_t columns = s->first + rows, k = s->k;
    double *lists = s->nearest[kind];
    fill_strip(s, s->rows[kind], rows, s->rows[kind], columns);
#pragma omp parallel num_threads(s->threads)
    {
#pragma omp for schedule(dynamic)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < s->first + r; j++)
                consider(lists + (s->first + r) * k, k, s->strip[r * columns + j]);
#pragma omp for schedule(dynamic)
        for (int64_t j0 = 0; j0 < columns; j0 += CPU_DISTANCE_COLS)
            for (int64_t r = 0; r < rows; r++)
                for (int64_t j = j0; j < sag_min64(j0 + CPU_DISTANCE_COLS, s->first + r); j++)
                    consider(lists + j * k, k, s->strip[r * columns + j]);
    }
}

static void compare(sag_neighbours *s, int64_t rows)
{
    int64_t columns = s->rows[FAKE].n, recalled = 0, covered = 0, in_balls = 0;
    fill_strip(s, s->rows[REAL], rows, s->rows[FAKE], columns);
#pragma omp parallel num_threads(s->threads)
    {
#pragma omp for schedule(dynamic) reduction(+ : recalled, covered, in_balls)
        for (int64_t r = 0; r < rows; r++) {
            double r2 = radius(s, REAL, s->first + r);
            bool found = false;
            int64_t count = 0;
            for (int64_t j = 0; j < columns; j++) {
                double d2 = s->strip[r * columns + j];
                count += in_ball(s, d2, r2);
                found = found || in_ball(s, d2, radius(s, FAKE, j));
            }
            recalled += found;
            covered += count > 0;
            in_balls += count;
        }
#pragma omp for schedule(static)
        for (int64_t j0 = 0; j0 < columns; j0 += CPU_DISTANCE_COLS)
            for (int64_t r = 0; r < rows; r++) {
                double r2 = radius(s, REAL, s->first + r);
                for (int64_t j = j0; j < sag_min64(j0 + CPU_DISTANCE_COLS, columns); j++)
                    s->inside[j] |= in_ball(s, s->strip[r * columns + j], r2);
            }
    }
    s->recalled += recalled;
    s->covered += covered;
    s->in_balls += in_balls;
}

bool sag_neighbours_step(sag_neighbours *s)
{
    if (s->stage == STAGES) return false;
    int64_t total = s->rows[s->stage == FAKE].n, rows = sag_min64(CPU_DISTANCE_ROWS, total - s->first);
    if (s->stage == BETWEEN)
        compare(s, rows);
    else
        find_nearest(s, s->stage, rows);
    s->first += rows;
    if (s->first == total) {
        s->first = 0;
        s->stage++;
    }
    return s->stage < STAGES;
}

/* In pairs of rows, which is what the time goes with. */
void sag_neighbours_progress(const sag_neighbours *s, int64_t *done, int64_t *total)
{
    int64_t real = s->rows[REAL].n, fake = s->rows[FAKE].n;
    int64_t all[] = {real * (real + 1) / 2, fake * (fake + 1) / 2, real * fake, 0};
    *total = all[REAL] + all[FAKE] + all[BETWEEN];
    *done = s->stage == BETWEEN ? s->first * fake : s->first * (s->first + 1) / 2;
    for (int stage = 0; stage < s->stage; stage++) *done += all[stage];
}

sag_status sag_neighbours_result(const sag_neighbours *s, sag_prdc *out)
{
    memset(out, 0, sizeof *out);
    if (s->stage < STAGES) SAG_FAIL(SAG_ERR_STATE, "neighbours: the result was asked for before the work was done");
    double real = (double)s->rows[REAL].n, fake = (double)s->rows[FAKE].n;
    int64_t inside = 0;
    for (int64_t j = 0; j < s->rows[FAKE].n; j++) inside += s->inside[j];
    out->precision = (double)inside / fake;
    out->recall = (double)s->recalled / real;
    out->density = (double)s->in_balls / ((double)s->k * fake);
    out->coverage = (double)s->covered / real;
    for (int kind = REAL; kind <= FAKE; kind++)
        for (int64_t i = 0; i < s->rows[kind].n; i++) out->zero_radii[kind] += radius(s, kind, i) == 0;
    return SAG_OK;
}

static sag_status check(sag_rows real, sag_rows fake, int64_t k)
{
    if (real.d != fake.d || real.d < 1)
        SAG_FAIL(SAG_ERR_SHAPE, "neighbours: real has %lld features, fake %lld", (long long)real.d, (long long)fake.d);
    if (k < 1) SAG_FAIL(SAG_ERR_ARG, "neighbours: k is %lld, must be 1 at least", (long long)k);
    if (real.n <= k || fake.n <= k)
        SAG_FAIL(SAG_ERR_ARG, "neighbours: %lld real and %lld fake images; k = %lld needs %lld of each at least",
                 (long long)real.n, (long long)fake.n, (long long)k, (long long)k + 1);
    SAG_TRY(sag_rows_check(real, "neighbours: real features"));
    return sag_rows_check(fake, "neighbours: fake features");
}

sag_status sag_neighbours_create(sag_rows real, sag_rows fake, int64_t k, bool inclusive, int threads,
                                 sag_neighbours **out)
{
    *out = NULL;
    SAG_TRY(check(real, fake, k));
    sag_neighbours *s = sag_host_alloc(sizeof *s);
    if (!s) SAG_FAIL(SAG_ERR_MEMORY, "neighbours: out of memory");
    *s = (sag_neighbours){.rows = {real, fake},
                          .k = k,
                          .inclusive = inclusive,
                          .threads = sag_metric_threads(threads),
                          .kernels = choose_kernels()};
    size_t columns = (size_t)(real.n > fake.n ? real.n : fake.n);
    bool ready = s->kernels != NULL;
    for (int kind = REAL; kind <= FAKE; kind++) {
        int64_t n = s->rows[kind].n * k;
        s->nearest[kind] = sag_host_alloc((size_t)n * sizeof *s->nearest[kind]);
        ready = ready && s->nearest[kind];
        for (int64_t i = 0; s->nearest[kind] && i < n; i++) s->nearest[kind][i] = INFINITY;
    }
    s->packed = sag_host_alloc((size_t)(CPU_DISTANCE_ROWS * real.d) * sizeof *s->packed);
    s->strip = sag_host_alloc(CPU_DISTANCE_ROWS * columns * sizeof *s->strip);
    s->scratch = sag_host_alloc((size_t)s->threads * CPU_DISTANCE_SCRATCH * sizeof *s->scratch);
    s->inside = sag_host_alloc((size_t)fake.n);
    if (!ready || !s->packed || !s->strip || !s->scratch || !s->inside) {
        sag_neighbours_destroy(s);
        SAG_FAIL(SAG_ERR_MEMORY, "neighbours: no memory for distances of 128 images to %zu", columns);
    }
    *out = s;
    return SAG_OK;
}

void sag_neighbours_destroy(sag_neighbours *s)
{
    if (!s) return;
    sag_host_free(s->nearest[REAL]);
    sag_host_free(s->nearest[FAKE]);
    sag_host_free(s->packed);
    sag_host_free(s->strip);
    sag_host_free(s->scratch);
    sag_host_free(s->inside);
    sag_host_free(s);
}
