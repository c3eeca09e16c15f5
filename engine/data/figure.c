/* figure.c - the rasteriser of figure.h: per pixel, back to front, coverage from signed distance. */
#include "engine/data/figure.h"

#include <math.h>

static float clamp01(float x)
{
    return x < 0 ? 0 : x > 1 ? 1 : x;
}

static float smooth(float x)
{
    x = clamp01(x);
    return x * x * (3 - 2 * x);
}

rgb sag_rgb_mix(rgb a, rgb b, float t)
{
    return (rgb){a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

rgb sag_rgb_scale(rgb a, float k)
{
    return (rgb){clamp01(a.r * k), clamp01(a.g * k), clamp01(a.b * k)};
}

float sag_rgb_luma(rgb a)
{
    return 0.299f * a.r + 0.587f * a.g + 0.114f * a.b;
}

/* ------------------------------------------------------------------------------------------------ shapes */

static figure_shape *shape_add(figure_scene *s)
{
    /* a scene that is too long loses its last shape, visibly, rather than memory safety */
    int i = s->n < FIGURE_SHAPES ? s->n++ : FIGURE_SHAPES - 1;
    s->shape[i] = (figure_shape){.volume = 0.14f};
    return &s->shape[i];
}

figure_shape *sag_figure_capsule(figure_scene *s, float x0, float y0, float r0, float x1, float y1, float r1, rgb color)
{
    figure_shape *p = shape_add(s);
    p->x0 = x0, p->y0 = y0, p->r0 = r0;
    p->x1 = x1, p->y1 = y1, p->r1 = r1;
    p->color = color;
    return p;
}

figure_shape *sag_figure_ellipse(figure_scene *s, float x, float y, float rx, float ry, float angle, rgb color)
{
    figure_shape *p = shape_add(s);
    p->ellipse = true;
    p->x0 = x, p->y0 = y, p->r0 = rx, p->r1 = ry;
    p->x1 = cosf(angle), p->y1 = sinf(angle);
    p->color = color;
    return p;
}

/* Signed distance; t: how far along the axis in figure units, h: height within the shape, -1 bottom to 1 top. */
static float shape_distance(const figure_shape *p, float x, float y, float *t, float *h)
{
    float dx = x - p->x0, dy = y - p->y0;
    if (p->ellipse) {
        float a = (dx * p->x1 + dy * p->y1) / p->r0, b = (dy * p->x1 - dx * p->y1) / p->r1;
        float k = sqrtf(a * a + b * b);
        float ga = a / p->r0, gb = b / p->r1, g = sqrtf(ga * ga + gb * gb);
        *t = a * p->r0;
        *h = dy / p->r1;
        return g > 1e-9f ? k * (k - 1) / g : -fminf(p->r0, p->r1);
    }
    float ax = p->x1 - p->x0, ay = p->y1 - p->y0, len2 = ax * ax + ay * ay;
    float u = len2 > 0 ? (dx * ax + dy * ay) / len2 : 0, v = clamp01(u);
    float ox = dx - v * ax, oy = dy - v * ay, r = p->r0 + (p->r1 - p->r0) * v;
    *t = u * sqrtf(len2);
    *h = oy / (r > 1e-6f ? r : 1e-6f);
    return sqrtf(ox * ox + oy * oy) - r;
}

void sag_figure_bounds(const figure_scene *s, float *x0, float *y0, float *x1, float *y1)
{
    *x0 = *y0 = 1e9f;
    *x1 = *y1 = -1e9f;
    for (int i = 0; i < s->n; i++) {
        const figure_shape *p = &s->shape[i];
        float r = p->ellipse ? fmaxf(p->r0, p->r1) : 0;
        float ends[2][3] = {{p->x0, p->y0, p->ellipse ? r : p->r0},
                            {p->ellipse ? p->x0 : p->x1, p->ellipse ? p->y0 : p->y1, p->ellipse ? r : p->r1}};
        for (int e = 0; e < 2; e++) {
            float x = ends[e][0] * s->cosine - ends[e][1] * s->sine, y = ends[e][0] * s->sine + ends[e][1] * s->cosine;
            *x0 = fminf(*x0, x - ends[e][2]);
            *x1 = fmaxf(*x1, x + ends[e][2]);
            *y0 = fminf(*y0, y - ends[e][2]);
            *y1 = fmaxf(*y1, y + ends[e][2]);
        }
    }
}

void sag_figure_finish(figure_scene *s)
{
    for (int i = 0; i < s->n; i++) {
        figure_shape *p = &s->shape[i];
        float r = fmaxf(p->r0, p->r1); /* an ellipse may be turned */
        float r0 = p->ellipse ? r : p->r0, r1 = p->ellipse ? r : p->r1;
        float x1 = p->ellipse ? p->x0 : p->x1, y1 = p->ellipse ? p->y0 : p->y1;
        p->box[0] = fminf(p->x0 - r0, x1 - r1);
        p->box[1] = fminf(p->y0 - r0, y1 - r1);
        p->box[2] = fmaxf(p->x0 + r0, x1 + r1);
        p->box[3] = fmaxf(p->y0 + r0, y1 + r1);
    }
}

int sag_figure_legs(const figure_scene *s, float y, float gap, float *narrowest)
{
    enum { STEPS = 2048 };
    float x0, y0, x1, y1, t, h, empty = 1e9f;
    int legs = 0;
    *narrowest = 1e9f;
    sag_figure_bounds(s, &x0, &y0, &x1, &y1);
    float step = (x1 - x0) / STEPS;
    for (int k = 0; k <= STEPS; k++) {
        bool inside = false;
        for (int i = 0; i < s->n && !inside; i++)
            inside = s->shape[i].leg && shape_distance(&s->shape[i], x0 + step * (float)k, y, &t, &h) <= 0;
        if (!inside) {
            empty += step;
            continue;
        }
        if (empty > 0 && legs > 0 && empty < *narrowest) *narrowest = empty;
        if (empty >= gap) legs++;
        empty = 0;
    }
    return legs;
}

/* -------------------------------------------------------------------------------------------------- coat */

static float hash01(uint32_t seed, int x, int y, uint32_t k)
{
    uint32_t h = seed ^ ((uint32_t)x * 0x8da6b343u) ^ ((uint32_t)y * 0xd8163841u) ^ (k * 0xcb1ab31fu);
    h = (h ^ h >> 15) * 0x2c1b3c6du;
    h = (h ^ h >> 12) * 0x297a2d39u;
    return (float)((h ^ h >> 15) >> 8) * 0x1p-24f;
}

/* Rounded tiles with light seams: distance to the border between the two nearest points of a jittered grid. */
static float tiles(const figure_scene *s, float x, float y, float soft)
{
    float gx = x / s->tile_pitch, gy = y / s->tile_pitch, f1 = 9, f2 = 9;
    int cx = (int)floorf(gx), cy = (int)floorf(gy);
    for (int j = cy - 1; j <= cy + 1; j++)
        for (int i = cx - 1; i <= cx + 1; i++) {
            float dx = (float)i + 0.2f + 0.6f * hash01(s->tile_seed, i, j, 0) - gx;
            float dy = (float)j + 0.2f + 0.6f * hash01(s->tile_seed, i, j, 1) - gy;
            float d = sqrtf(dx * dx + dy * dy);
            if (d < f1) {
                f2 = f1;
                f1 = d;
            } else if (d < f2) {
                f2 = d;
            }
        }
    return smooth((f2 - f1 - 0.12f) / (0.10f + soft / s->tile_pitch));
}

static rgb coat_color(const figure_scene *s, const figure_shape *p, float x, float y, float t, float h, float pixel)
{
    rgb c = p->color;
    float k = 0;
    switch (p->pattern) {
    case FIGURE_PLAIN: break;
    case FIGURE_STRIPES: {
        float phase = t / s->stripe_pitch + s->stripe_phase + 0.35f * h * h;
        float saw = fabsf(phase - floorf(phase) - 0.5f) * 2; /* 0 in the middle of a dark stripe */
        float edge = 2 * pixel / s->stripe_pitch + 0.12f;
        k = smooth((0.52f - saw) / edge + 0.5f);
        break;
    }
    case FIGURE_PATCHES:
        for (int i = 0; i < FIGURE_PATCH_COUNT; i++) {
            const float *q = s->patch[i];
            float dx = (x - q[0]) / q[2], dy = (y - q[1]) / q[3];
            float wobble = 1 + 0.18f * sinf(3 * atan2f(dy, dx) + (float)i * 1.7f);
            float d = (sqrtf(dx * dx + dy * dy) - wobble) * fminf(q[2], q[3]);
            k = fmaxf(k, clamp01(0.5f - d / (pixel + 0.004f)));
        }
        break;
    case FIGURE_TILES: k = tiles(s, x, y, pixel); break;
    case FIGURE_WOOL: k = 0.5f + 0.5f * sinf(46 * x + 1.5f * sinf(37 * y)) * sinf(46 * y + 1.5f * sinf(41 * x)); break;
    }
    c = sag_rgb_mix(c, s->coat2, k);
    return sag_rgb_scale(c, 1 + p->volume * (h < -1 ? -1 : h > 1 ? 1 : h));
}

/* -------------------------------------------------------------------------------------------------- draw */

static rgb background(const figure_scene *s, float u, float v, float pixel)
{
    rgb c = sag_rgb_mix(s->sky_top, s->sky_low, clamp01(v / fmaxf(s->horizon, 0.2f)));
    for (int i = 0; i < 2; i++)
        if (s->hill[i][1] > 0) {
            float d = (u - s->hill[i][0]) / s->hill[i][2];
            float top = s->horizon - s->hill[i][1] * expf(-d * d);
            c = sag_rgb_mix(c, i ? sag_rgb_mix(s->hill_color, s->ground_far, 0.4f) : s->hill_color,
                            clamp01((v - top) / pixel + 0.5f));
        }
    if (s->horizon < 1) {
        rgb g = sag_rgb_mix(s->ground_far, s->ground_near, clamp01((v - s->horizon) / (1 - s->horizon)));
        c = sag_rgb_mix(c, g, clamp01((v - s->horizon) / pixel + 0.5f));
    }
    float dx = (u - s->shadow[0]) / s->shadow[2], dy = (v - s->shadow[1]) / s->shadow[3];
    return sag_rgb_scale(c, 1 - 0.34f * smooth(1.25f - sqrtf(dx * dx + dy * dy)));
}

static uint8_t to_byte(float x)
{
    return (uint8_t)(clamp01(x) * 255 + 0.5f);
}

void sag_figure_draw(const figure_scene *s, uint8_t *pixels, int height, int width, int channels)
{
    const float pixel = 1 / (float)(height < width ? height : width); /* in the unit square */
    const float unit = pixel / s->scale;                              /* in figure coordinates */
    for (int row = 0; row < height; row++) {
        float v = ((float)row + 0.5f) / (float)height;
        for (int col = 0; col < width; col++) {
            float u = ((float)col + 0.5f) / (float)width;
            rgb c = background(s, u, v, pixel);
            float px = s->mirror * (u - s->tx) / s->scale, py = (s->ty - v) / s->scale;
            float x = px * s->cosine + py * s->sine, y = py * s->cosine - px * s->sine;
            for (int i = 0; i < s->n; i++) {
                const figure_shape *p = &s->shape[i];
                float t, h;
                if (x < p->box[0] - unit || x > p->box[2] + unit || y < p->box[1] - unit || y > p->box[3] + unit)
                    continue;
                float cover = clamp01(0.5f - shape_distance(p, x, y, &t, &h) / unit);
                if (cover > 0) c = sag_rgb_mix(c, coat_color(s, p, x, y, t, h, unit), cover);
            }
            if (channels == 1) {
                *pixels++ = to_byte(sag_rgb_luma(c));
            } else {
                *pixels++ = to_byte(c.r);
                *pixels++ = to_byte(c.g);
                *pixels++ = to_byte(c.b);
            }
        }
    }
}
