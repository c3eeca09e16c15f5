/*
 * legs.c - how many separate legs the figure of a picture stands on, from the pixels alone; for the drawn quadrupeds,
 * whose truth is known (sag_dataset_legs).
 *
 * The ground is what a picture shows at its sides: in each row the background b(x) is the line between the colours at
 * the left and at the right edge, and d(x) = |color(x) - b(x)| / sqrt(channels). A leg is a peak of d, which rises by
 * `step` above the valley before it and falls by as much behind: a shadow is wide and soft and joins none, and two legs
 * without ground between them are one. The foot line is the lowest row with a peak; under it there is ground, else
 * nothing stands. The rows close above the foot line vote, a sixteenth of the picture's height: there legs are furthest
 * apart, and what hangs beside them (a trunk, a tail) ends higher.
 */
#include <math.h>
#include <omp.h>

#include "engine/metrics/metrics_internal.h"

#define LEAST_STEP 9.0f  /* levels of 255 */
#define STEP_SHARE 0.06f /* of the largest d in the lower half */
enum { MOST_LEGS = 15, LEAST_SIDE = 16 };

/* d [width] of a row; returns the largest. */
static float row_distance(const sag_pictures *p, const uint8_t *row, float *d)
{
    int edge = p->width / 32 > 1 ? p->width / 32 : 1;
    float left[4] = {0}, right[4] = {0}, largest = 0;
    for (int c = 0; c < p->channels; c++)
        for (int i = 0; i < edge; i++) {
            left[c] += (float)row[i * p->channels + c] / (float)edge;
            right[c] += (float)row[(p->width - 1 - i) * p->channels + c] / (float)edge;
        }
    for (int x = 0; x < p->width; x++) {
        float t = (float)x / (float)(p->width - 1), sum = 0;
        for (int c = 0; c < p->channels; c++) {
            float away = (float)row[x * p->channels + c] - (left[c] + (right[c] - left[c]) * t);
            sum += away * away;
        }
        d[x] = sqrtf(sum / (float)p->channels);
        largest = fmaxf(largest, d[x]);
    }
    return largest;
}

/* Outside the picture d is 0. */
static int count_peaks(const float *d, int width, float step)
{
    int count = 0;
    float low = 0, high = 0;
    bool rising = false;
    for (int x = 0; x <= width; x++) {
        float v = x < width ? d[x] : 0;
        low = fminf(low, v);
        high = fmaxf(high, v);
        if (!rising && v - low >= step) {
            rising = true;
            high = v;
        } else if (rising && high - v >= step) {
            rising = false;
            low = v;
            count++;
        }
    }
    return count < MOST_LEGS ? count : MOST_LEGS;
}

/* d [height - height / 2][width] */
static int count_legs(const sag_pictures *p, const uint8_t *pixels, int expected, float *d)
{
    int first = p->height / 2, rows = p->height - first, foot = rows - 1, votes[MOST_LEGS + 1] = {0}, best = 0;
    float most = 0;
    for (int y = 0; y < rows; y++)
        most = fmaxf(most, row_distance(p, pixels + (int64_t)(first + y) * p->width * p->channels, d + y * p->width));
    float step = fmaxf(LEAST_STEP, STEP_SHARE * most);
    while (foot >= 0 && count_peaks(d + foot * p->width, p->width, step) == 0) foot--;
    if (foot == rows - 1) return 0; /* no ground under it */
    for (int y = foot - 1; y >= 0 && y >= foot - p->height / 16; y--)
        votes[count_peaks(d + y * p->width, p->width, step)]++;
    for (int k = 1; k <= MOST_LEGS; k++)
        if (votes[k] > 0 && (votes[k] > votes[best] || (votes[k] == votes[best] && best != expected))) best = k;
    return best;
}

sag_status sag_legs(const sag_pictures *p, const int32_t *expected, int threads, int32_t *legs)
{
    if (p->height < LEAST_SIDE || p->width < LEAST_SIDE || p->channels < 1 || p->channels > 4)
        SAG_FAIL(SAG_ERR_SHAPE, "legs: pictures of %dx%d with %d channels, must be %dx%d at least and have 1 to 4",
                 p->height, p->width, p->channels, LEAST_SIDE, LEAST_SIDE);
    threads = sag_metric_threads(threads);
    int64_t floats = (int64_t)(p->height - p->height / 2) * p->width;
    float *d = sag_host_alloc((size_t)(threads * floats) * sizeof *d);
    if (!d) SAG_FAIL(SAG_ERR_MEMORY, "legs: out of memory");
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < p->n; i++)
        legs[i] = count_legs(p, p->pixels + i * p->height * p->width * p->channels, expected[i],
                             d + omp_get_thread_num() * floats);
    sag_host_free(d);
    return SAG_OK;
}
