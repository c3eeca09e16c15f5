/*
 * metrics.h - scores from features: Frechet distance, inception score, kernel distance (KID), precision and recall; and
 * from pictures: legs.
 *
 *   [8] score     G -> feature network -> rows {N, D} -> here -> scores.jsonl
 *
 * What computed the features, from what pixels, is the caller's business. The functions of features take f32 rows in host
 * memory, compute in f64, use memory that does not grow with N^2, and give the same bits for any number of threads (0: all
 * cores). Rows that hold NaN or infinity are refused by row and column, counted from 1.
 */
#ifndef SAG_METRICS_H
#define SAG_METRICS_H

#include "engine/sagan.h"

typedef struct sag_rows {
    const float *data; /* {n, d}, contiguous */
    int64_t n, d;
} sag_rows;

/* SAG_ERR_ARG naming the first value that is not finite, "what: ... in row 3, column 17". */
sag_status sag_rows_check(sag_rows x, const char *what);

/* ------------------------------------------------------------------------------------- singular_values.c */

/* values [min(n, d)]: the singular values of the matrix, the largest first. As roots of the eigenvalues of x x' or x' x in
 * f64, so those below 1e-8 of the largest are noise, as they are in an f32 matrix anyway. */
sag_status sag_singular_values(sag_rows x, int threads, double *values);

/* ----------------------------------------------------------------------------------- moments.c, frechet.c */

/* Mean and scatter sum (x - mean)(x - mean)' of a stream of rows. The first rows set the width. */
typedef struct sag_moments sag_moments;

sag_status sag_moments_create(sag_moments **out);
void sag_moments_destroy(sag_moments *m); /* NULL is allowed */
/* All rows or none. Refused rows spoil the stream: what is asked of it afterwards fails with the same message. */
sag_status sag_moments_add(sag_moments *m, sag_rows x, int threads);
/* As if the other's rows had been added to m. */
sag_status sag_moments_merge(sag_moments *m, const sag_moments *other);
int64_t sag_moments_count(const sag_moments *m);
int64_t sag_moments_width(const sag_moments *m); /* 0: nothing was added yet */
/* mean [D], scatter [D (D + 1) / 2]: the lower triangle, row after row. */
sag_status sag_moments_export(const sag_moments *m, double *mean, double *scatter);
sag_status sag_moments_import(int64_t n, int64_t width, const double *mean, const double *scatter, sag_moments **out);

typedef struct sag_frechet {
    double distance;  /* mean_term + covariance_term, squared as FID is */
    double mean_term; /* |mu1 - mu2|^2 */
    double covariance_term;
    bool collapsed[2]; /* all rows of this set are the same */
} sag_frechet;

/* Two rows at least in each. */
sag_status sag_frechet_distance(const sag_moments *a, const sag_moments *b, int threads, sag_frechet *out);

/* -------------------------------------------------------------------------------------- inception_score.c */

/*
 * scores [splits]: exp of the mean KL divergence between softmax(row) and the mean softmax, over rows i N / S to
 * (i + 1) N / S. order: a permutation of 0 .. n - 1 in which the rows are taken, or NULL.
 */
sag_status sag_inception_score(sag_rows logits, int64_t splits, const int32_t *order, int threads, double *scores);

/* -------------------------------------------------------------------------------------------------- kid.c */

typedef struct sag_kid_options {
    int64_t size; /* rows of a subset, 2 at least */
    int degree;   /* of the kernel (gamma x.y + coef)^degree */
    double gamma; /* 0: 1 / D */
    double coef;
    uint64_t seed;
} sag_kid_options;

/*
 * The unbiased squared MMD between subset number `subset` of x and of y: `size` rows of each, drawn without
 * replacement. A function of (data, options, subset) alone. May be below 0.
 */
sag_status sag_kid_subset(sag_rows x, sag_rows y, const sag_kid_options *o, int64_t subset, int threads, double *mmd2);

/* ------------------------------------------------------------------------------------------- neighbours.c */

/* Precision, recall, density and coverage, a piece at a time. The rows must stay where they are until it is destroyed.
 */
typedef struct sag_neighbours sag_neighbours;

typedef struct sag_prdc {
    double precision, recall, density, coverage;
    int64_t zero_radii[2]; /* real and fake rows whose k nearest are all the same as they are */
} sag_prdc;

/* A ball: distance < radius, or <= radius if inclusive; its radius: the distance to the k-th nearest other row. */
sag_status sag_neighbours_create(sag_rows real, sag_rows fake, int64_t k, bool inclusive, int threads,
                                 sag_neighbours **out);
void sag_neighbours_destroy(sag_neighbours *s); /* NULL is allowed */
/* One piece of the work; false when all is done. */
bool sag_neighbours_step(sag_neighbours *s);
void sag_neighbours_progress(const sag_neighbours *s, int64_t *done, int64_t *total);
sag_status sag_neighbours_result(const sag_neighbours *s, sag_prdc *out);

/* ------------------------------------------------------------------------------------------------- legs.c */

typedef struct sag_pictures {
    const uint8_t *pixels; /* {n, height, width, channels} */
    int64_t n;
    int height, width, channels;
} sag_pictures;

/*
 * legs [n]: the separate legs that each picture's figure stands on, by the count that most rows above its feet show; of
 * counts that equally many show expected[i], if it is one of them, else the largest. 0: nothing stands on a ground there.
 */
sag_status sag_legs(const sag_pictures *p, const int32_t *expected, int threads, int32_t *legs);

#endif
