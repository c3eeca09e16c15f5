/*
 * resizer.c - every rule as a table of taps for each direction: output position i is the weighted sum of `count` inputs
 * from `first` on. All rows of an image are resized along x into a buffer of floats, then along y.
 *
 * The bilinear rules' positions are computed in f32, as TensorFlow and PyTorch do: f64 would move them by up to 1e-4.
 */
#include "engine/data/resizer.h"

#include <math.h>
#include <string.h>

#include "engine/io/image.h"

typedef struct taps {
    int out, most; /* weights kept for each output position */
    int *first;    /* [out] */
    int *count;    /* [out] */
    float *weight; /* [out][most] */
} taps;

const char *sag_resizer_name(sag_resizer kind)
{
    static const char *const names[] = {"tf1", "torch", "clean"};
    return names[kind];
}

/* ------------------------------------------------------------------------------------------------- taps */

/* Two neighbours of the position `at`, which is not negative. */
static void bilinear(taps *t, int i, float at, int in)
{
    int low = (int)at < in - 1 ? (int)at : in - 1;
    float part = at - (float)low;
    t->first[i] = low;
    t->count[i] = low + 1 < in ? 2 : 1;
    t->weight[2 * i] = t->count[i] == 2 ? 1.0f - part : 1.0f;
    t->weight[2 * i + 1] = part;
}

/* Keys' cubic convolution with a = -1/2. */
static double cubic(double x)
{
    x = fabs(x);
    if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1.0;
    if (x < 2.0) return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0;
    return 0.0;
}

/* exact: room for the weights of one position */
static void bicubic(taps *t, int i, int in, double *exact)
{
    double ratio = (double)in / (double)t->out, stretch = ratio < 1.0 ? 1.0 : ratio, support = 2.0 * stretch;
    double centre = ((double)i + 0.5) * ratio, sum = 0.0;
    int low = (int)(centre - support + 0.5), high = (int)(centre + support + 0.5);
    if (centre - support + 0.5 < 0.0) low = 0;
    if (high > in) high = in;
    for (int k = low; k < high; k++) sum += exact[k - low] = cubic(((double)k - centre + 0.5) / stretch);
    for (int k = low; k < high; k++)
        t->weight[(size_t)i * (size_t)t->most + (size_t)(k - low)] = (float)(exact[k - low] / sum);
    t->first[i] = low;
    t->count[i] = high - low;
}

static void taps_free(taps *t)
{
    sag_host_free(t->first);
    sag_host_free(t->count);
    sag_host_free(t->weight);
}

static sag_status taps_create(sag_resizer kind, int in, int out, taps *t)
{
    double ratio = (double)in / (double)out;
    int most = kind == SAG_RESIZER_CLEAN ? (int)ceil(2.0 * (ratio < 1.0 ? 1.0 : ratio)) * 2 + 1 : 2;
    *t = (taps){.out = out, .most = most};
    t->first = sag_host_alloc((size_t)out * sizeof *t->first);
    t->count = sag_host_alloc((size_t)out * sizeof *t->count);
    t->weight = sag_host_alloc((size_t)out * (size_t)most * sizeof *t->weight);
    double *exact = sag_host_alloc((size_t)most * sizeof *exact);
    if (!t->first || !t->count || !t->weight || !exact) {
        sag_host_free(exact);
        taps_free(t);
        SAG_FAIL(SAG_ERR_MEMORY, "resizer: no memory for %d x %d weights", out, most);
    }
    const float scale = (float)in / (float)out;
    for (int i = 0; i < out; i++) {
        if (kind == SAG_RESIZER_CLEAN) {
            bicubic(t, i, in, exact);
        } else {
            float at = kind == SAG_RESIZER_TF1 ? (float)i * scale : ((float)i + 0.5f) * scale - 0.5f;
            bilinear(t, i, at > 0.0f ? at : 0.0f, in);
        }
    }
    sag_host_free(exact);
    return SAG_OK;
}

/* --------------------------------------------------------------------------------------------- one image */

typedef struct plan {
    taps across, down;
    int h, w, c, side;
    float zero, scale;
} plan;

/* A row {w, c} of the image to {side, c}. */
static void resize_row(const plan *p, const uint8_t *from, float *to)
{
    const taps *t = &p->across;
    for (int x = 0; x < p->side; x++) {
        const float *weight = t->weight + (size_t)x * (size_t)t->most;
        const uint8_t *s = from + (size_t)t->first[x] * (size_t)p->c;
        for (int k = 0; k < p->c; k++) {
            float sum = 0.0f;
            for (int i = 0; i < t->count[x]; i++) sum += (float)s[(size_t)i * (size_t)p->c + (size_t)k] * weight[i];
            to[x * p->c + k] = sum;
        }
    }
}

/* Row y of the output {side, 3} from the image's rows {h, side, c}; sum {side, c}. */
static void resize_column(const plan *p, const float *rows, int y, float *sum, float *to)
{
    const taps *t = &p->down;
    const size_t line = (size_t)p->side * (size_t)p->c;
    const float *weight = t->weight + (size_t)y * (size_t)t->most;
    memset(sum, 0, line * sizeof *sum);
    for (int i = 0; i < t->count[y]; i++) {
        const float *from = rows + (size_t)(t->first[y] + i) * line;
        for (size_t j = 0; j < line; j++) sum[j] += from[j] * weight[i];
    }
    for (size_t j = 0; j < line; j++) {
        float v = sum[j] < 0.0f ? 0.0f : sum[j] > 255.0f ? 255.0f : sum[j];
        sum[j] = (v - p->zero) * p->scale;
    }
    if (p->c == 3) {
        memcpy(to, sum, line * sizeof *to);
    } else {
        for (int x = 0; x < p->side; x++) to[3 * x] = to[3 * x + 1] = to[3 * x + 2] = sum[x];
    }
}

static bool resize_image(const plan *p, const uint8_t *image, float *out)
{
    const size_t line = (size_t)p->side * (size_t)p->c;
    float *rows = sag_host_alloc(((size_t)p->h + 1) * line * sizeof *rows); /* the last one: sums */
    if (!rows) return false;
    for (int y = 0; y < p->h; y++)
        resize_row(p, image + (size_t)y * (size_t)p->w * (size_t)p->c, rows + (size_t)y * line);
    for (int y = 0; y < p->side; y++)
        resize_column(p, rows, y, rows + (size_t)p->h * line, out + (size_t)y * (size_t)p->side * 3);
    sag_host_free(rows);
    return true;
}

sag_status sag_resizer_run(sag_resizer kind, const uint8_t *images, int64_t n, int h, int w, int c, int side,
                           int threads, float *out)
{
    if (n < 1 || (c != 1 && c != 3) || h < 1 || w < 1 || side < 1 || h > SAG_IMAGE_MAX_SIDE || w > SAG_IMAGE_MAX_SIDE ||
        side > SAG_IMAGE_MAX_SIDE)
        SAG_FAIL(SAG_ERR_ARG, "resizer: %d x %d x %d to %d: images have 1 or 3 channels, and sides are 1 to %d", h, w,
                 c, side, SAG_IMAGE_MAX_SIDE);
    plan p = {.h = h, .w = w, .c = c, .side = side, .zero = 128.0f, .scale = 1.0f / 128.0f};
    if (kind == SAG_RESIZER_TORCH) p.zero = 127.5f, p.scale = 1.0f / 127.5f;
    SAG_TRY(taps_create(kind, w, side, &p.across));
    sag_status status = taps_create(kind, h, side, &p.down);
    if (status != SAG_OK) {
        taps_free(&p.across);
        return status;
    }
    const int64_t in_bytes = (int64_t)h * w * c, out_numbers = (int64_t)side * side * 3;
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : failed) if (n > 1)
    for (int64_t i = 0; i < n; i++) failed |= !resize_image(&p, images + i * in_bytes, out + i * out_numbers);
    taps_free(&p.across);
    taps_free(&p.down);
    if (failed) SAG_FAIL(SAG_ERR_MEMORY, "resizer: no memory for the rows of an image");
    return SAG_OK;
}
