/*
 * quadrupeds.c - a data set that needs no files: drawn animals, each with four legs that do not touch, in many builds,
 * coats, poses, sizes and places. Image i is a function of (split, i) alone, at any resolution.
 *
 * Since the legs are separate and known, a score can count them in generated pictures.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/data/dataset_internal.h"
#include "engine/data/figure.h"

enum { HORSE, ZEBRA, COW, SHEEP, PIG, DOG, GIRAFFE, ELEPHANT, CLASSES };
static const char *const class_names[CLASSES] = {"horse", "zebra", "cow", "sheep", "pig", "dog", "giraffe", "elephant"};
#define DEFAULT_COUNT 10000
#define FAR_LIGHT 0.70f /* the legs on the far side lie in the shade */

/* Proportions in units of about one body length; feet at y = 0, x = 0 in the middle of the body. */
typedef struct build {
    float half;              /* from the middle to hip and shoulder */
    float hip, shoulder;     /* heights of the body's axis */
    float rump, chest;       /* radii of the body's ends */
    float leg_top, leg_foot; /* radii */
    float neck, neck_angle, neck_low, neck_high; /* length, radians above the horizontal, radii */
    float head, head_drop, skull, muzzle;        /* length, radians below the horizontal, radii */
} build;

static const build builds[CLASSES] = {
    [HORSE] = {.30f, .64f, .64f, .155f, .150f, .056f, .030f, .36f, 1.00f, .115f, .066f, .22f, .75f, .070f, .046f},
    [ZEBRA] = {.29f, .58f, .57f, .155f, .150f, .052f, .030f, .31f, 0.92f, .115f, .070f, .20f, .70f, .068f, .046f},
    [COW] = {.36f, .55f, .55f, .195f, .190f, .056f, .038f, .20f, 0.45f, .140f, .100f, .20f, .75f, .090f, .066f},
    [SHEEP] = {.20f, .43f, .43f, .190f, .190f, .036f, .028f, .16f, 0.60f, .100f, .080f, .15f, .80f, .070f, .048f},
    [PIG] = {.28f, .36f, .35f, .195f, .185f, .058f, .042f, .12f, 0.25f, .160f, .140f, .17f, .35f, .120f, .058f},
    [DOG] = {.26f, .45f, .46f, .105f, .130f, .050f, .032f, .18f, 0.95f, .090f, .075f, .16f, .30f, .085f, .048f},
    [GIRAFFE] = {.22f, .74f, .82f, .135f, .155f, .052f, .030f, .72f, 1.22f, .120f, .055f, .19f, .55f, .060f, .036f},
    [ELEPHANT] = {.30f, .58f, .60f, .245f, .245f, .088f, .072f, .16f, 0.55f, .200f, .180f, .10f, .90f, .165f, .120f},
};

/* ------------------------------------------------------------------------------------------------ chance */

typedef struct chance {
    uint64_t key, index, n;
} chance;

static float chance_unit(chance *c)
{
    return (float)(sag_data_random(c->key, SAG_DATA_QUADRUPEDS, c->index, c->n++) >> 40) * 0x1p-24f;
}

static float between(chance *c, float low, float high)
{
    return low + (high - low) * chance_unit(c);
}

static int one_of(chance *c, int n)
{
    int i = (int)(chance_unit(c) * (float)n);
    return i < n ? i : n - 1;
}

static rgb tinted(chance *c, rgb base, float by)
{
    float k = between(c, 1 - by, 1 + by);
    return (rgb){fminf(base.r * k * between(c, 0.97f, 1.03f), 1), fminf(base.g * k, 1),
                 fminf(base.b * k * between(c, 0.95f, 1.05f), 1)};
}

/* ------------------------------------------------------------------------------------------------ colours */

typedef struct coat {
    rgb base, second, dark; /* body; pattern, mane or face; hooves, eyes */
    figure_pattern pattern;
} coat;

#define C(r, g, b) {(r) / 255.0f, (g) / 255.0f, (b) / 255.0f}
static const rgb browns[] = {C(122, 72, 38), C(90, 52, 32), C(158, 98, 54), C(62, 46, 40), C(196, 160, 116), C(206, 202, 196)};
static const rgb cows[] = {C(238, 234, 226), C(150, 84, 46), C(232, 226, 214), C(208, 176, 134)};
static const rgb cow_patches[] = {C(40, 36, 36), C(236, 228, 214), C(134, 76, 44), C(122, 70, 40)};
static const rgb dogs[] = {C(176, 120, 66), C(78, 62, 54), C(222, 196, 152), C(140, 134, 130), C(116, 70, 40)};
static const rgb pigs[] = {C(236, 170, 164), C(226, 152, 150), C(206, 146, 136), C(118, 92, 88)};
static const rgb greys[] = {C(136, 134, 138), C(116, 112, 116), C(150, 142, 138)};
#define PICK(c, list) (list)[one_of((c), (int)(sizeof(list) / sizeof *(list)))]

static coat choose_coat(chance *c, int animal)
{
    coat k = {.dark = C(38, 32, 30), .pattern = FIGURE_PLAIN};
    int i;
    switch (animal) {
    case HORSE:
        k.base = PICK(c, browns);
        k.second = rgb_scale(k.base, chance_unit(c) < 0.7f ? 0.42f : 1.5f);
        break;
    case ZEBRA:
        k.base = (rgb)C(238, 234, 224);
        k.second = (rgb)C(34, 30, 32);
        k.pattern = FIGURE_STRIPES;
        break;
    case COW:
        i = one_of(c, 4);
        k.base = cows[i];
        k.second = cow_patches[i];
        k.pattern = FIGURE_PATCHES;
        break;
    case SHEEP:
        k.base = (rgb)C(240, 234, 220);
        k.second = chance_unit(c) < 0.6f ? (rgb)C(58, 50, 48) : (rgb)C(206, 178, 150);
        k.pattern = FIGURE_WOOL;
        break;
    case PIG:
        k.base = PICK(c, pigs);
        k.second = rgb_scale(k.base, 0.86f);
        break;
    case DOG:
        k.base = PICK(c, dogs);
        k.second = chance_unit(c) < 0.5f ? rgb_scale(k.base, 0.55f) : (rgb)C(240, 232, 220);
        k.pattern = chance_unit(c) < 0.45f ? FIGURE_PATCHES : FIGURE_PLAIN;
        break;
    case GIRAFFE:
        k.base = (rgb)C(240, 214, 158);
        k.second = chance_unit(c) < 0.5f ? (rgb)C(166, 94, 40) : (rgb)C(130, 74, 38);
        k.pattern = FIGURE_TILES;
        break;
    default:
        k.base = PICK(c, greys);
        k.second = rgb_scale(k.base, 0.84f);
        break;
    }
    k.base = tinted(c, k.base, 0.08f);
    return k;
}

/* --------------------------------------------------------------------------------------------- anatomy */

typedef struct pose {
    build b;
    float hip_x, shoulder_x, head_x, head_y; /* head: where the neck ends */
    float tip_x, tip_y;                      /* of the muzzle */
    float hind_x, front_x;                   /* where the legs of a pair meet the body */
    float spread_hind, spread_front;         /* half distance of the two feet of a pair; the sign says which leads */
} pose;

static pose choose_pose(chance *c, int animal)
{
    pose p = {.b = builds[animal]};
    build *b = &p.b;
    float stretch = between(c, 0.92f, 1.12f), stout = between(c, 0.92f, 1.08f), tall = between(c, 0.92f, 1.08f);
    b->half *= stretch;
    b->rump *= stout, b->chest *= stout * between(c, 0.96f, 1.04f);
    b->hip *= tall, b->shoulder *= tall;
    b->neck *= between(c, 0.92f, 1.08f);
    b->neck_angle += between(c, -0.22f, 0.18f);
    b->head *= between(c, 0.94f, 1.08f);
    b->head_drop += between(c, -0.25f, 0.25f);
    p.hip_x = -b->half;
    p.shoulder_x = b->half;
    p.head_x = b->half + 0.25f * b->chest + b->neck * cosf(b->neck_angle);
    p.head_y = b->shoulder + 0.25f * b->chest + b->neck * sinf(b->neck_angle);
    p.tip_x = p.head_x + b->head * cosf(b->head_drop);
    p.tip_y = p.head_y - b->head * sinf(b->head_drop);
    p.hind_x = p.hip_x - 0.1f * b->rump + 0.4f * b->leg_top;
    p.front_x = p.shoulder_x + 0.1f * b->chest - 0.4f * b->leg_top;
    /* room between the feet of a pair, and as much between the inner feet of the two pairs; at most four equal distances */
    float apart = p.front_x - p.hind_x, even = 0.25f * apart;
    float least = fminf(1.7f * b->leg_foot + 0.024f, even);
    float most = fmaxf(least, fminf(0.16f, 0.5f * apart - 1.7f * b->leg_foot - 0.024f));
    p.spread_hind = between(c, least, most) * (chance_unit(c) < 0.5f ? -1.0f : 1.0f);
    p.spread_front = between(c, least, most) * (chance_unit(c) < 0.5f ? -1.0f : 1.0f);
    return p;
}

/* Two segments; `bend` moves the joint back (hind) or forth (front). */
static void draw_leg(figure_scene *s, const build *b, float top_x, float top_y, float foot_x, float bend, const coat *k,
                     figure_pattern pattern, float light, bool hoof)
{
    float knee_x = top_x + (foot_x - top_x) * 0.55f + bend, knee_y = top_y * 0.46f;
    float mid = b->leg_foot + (b->leg_top - b->leg_foot) * 0.35f;
    figure_shape *upper =
        figure_capsule(s, top_x, top_y, b->leg_top * 1.25f, knee_x, knee_y, mid, rgb_scale(k->base, light));
    figure_shape *lower = figure_capsule(s, knee_x, knee_y, mid, foot_x, b->leg_foot, b->leg_foot,
                                         rgb_scale(k->pattern == FIGURE_WOOL ? k->second : k->base, light));
    upper->volume = lower->volume = 0.04f;
    upper->pattern = lower->pattern = pattern;
    if (k->pattern == FIGURE_WOOL) upper->color = lower->color;
    if (hoof)
        figure_capsule(s, foot_x - 0.004f, b->leg_foot * 0.8f, b->leg_foot * 1.02f, foot_x + b->leg_foot * 0.45f,
                       b->leg_foot * 0.8f, b->leg_foot * 0.8f, rgb_scale(k->dark, light));
    else
        figure_capsule(s, foot_x, b->leg_foot * 0.8f, b->leg_foot * 0.9f, foot_x + b->leg_foot * 0.9f, b->leg_foot * 0.75f,
                       b->leg_foot * 0.75f, rgb_scale(lower->color, 0.92f));
}

static void draw_legs(figure_scene *s, const pose *p, const coat *k, int animal, bool near)
{
    const build *b = &p->b;
    float side = near ? 1.0f : -1.0f, light = near ? 1.0f : FAR_LIGHT;
    figure_pattern pattern = k->pattern == FIGURE_STRIPES ? FIGURE_STRIPES : FIGURE_PLAIN;
    bool hoof = animal != DOG && animal != ELEPHANT;
    float hind_bend = animal == ELEPHANT ? 0 : -0.032f, front_bend = animal == ELEPHANT ? 0 : 0.012f;
    int first = s->n;
    draw_leg(s, b, p->hind_x, b->hip - b->rump * 0.35f, p->hind_x + side * p->spread_hind, hind_bend, k, pattern, light, hoof);
    draw_leg(s, b, p->front_x, b->shoulder - b->chest * 0.35f, p->front_x + side * p->spread_front, front_bend, k, pattern,
             light, hoof);
    for (int i = first; i < s->n; i++) s->shape[i].leg = true;
}

static void draw_tail(figure_scene *s, const pose *p, const coat *k, int animal, chance *c)
{
    const build *b = &p->b;
    float x = p->hip_x - b->rump * 0.85f, y = b->hip + b->rump * 0.45f, swing = between(c, -0.05f, 0.06f);
    switch (animal) {
    case HORSE:
        figure_capsule(s, x, y, 0.030f, x - 0.10f + swing, y - 0.16f, 0.048f, k->second);
        figure_capsule(s, x - 0.10f + swing, y - 0.16f, 0.048f, x - 0.09f + 1.5f * swing, y - 0.40f, 0.018f, k->second);
        break;
    case SHEEP: figure_ellipse(s, x + 0.01f, y - 0.04f, 0.035f, 0.065f, 0.3f, rgb_scale(k->base, 0.92f)); break;
    case PIG: {
        float ox = x - 0.045f, oy = y, last_x = x + 0.03f, last_y = y - 0.02f;
        for (int i = 1; i <= 9; i++) { /* a loop and a half */
            float a = -1.2f + (float)i * 0.95f, r = 0.036f;
            float nx = ox + r * cosf(a) - 0.004f * (float)i, ny = oy + r * sinf(a);
            figure_capsule(s, last_x, last_y, 0.013f, nx, ny, 0.012f, k->second);
            last_x = nx, last_y = ny;
        }
        break;
    }
    case DOG: {
        float up = between(c, 0.05f, 0.24f), back = between(c, 0.10f, 0.18f);
        figure_shape *root = figure_capsule(s, x + 0.03f, y, 0.034f, x - back * 0.7f, y + up * 0.4f, 0.030f, k->base);
        root->volume = 0.05f;
        figure_capsule(s, x - back * 0.7f, y + up * 0.4f, 0.030f, x - back, y + up, 0.014f, k->base);
        break;
    }
    default: { /* thin, with a tuft */
        float end_x = x - 0.07f + swing, end_y = y - (animal == GIRAFFE ? 0.30f : 0.34f);
        figure_capsule(s, x + 0.02f, y, 0.020f, x - 0.05f, y - 0.10f, 0.014f, k->base);
        figure_capsule(s, x - 0.05f, y - 0.10f, 0.014f, end_x, end_y, 0.011f, k->base);
        figure_capsule(s, end_x, end_y + 0.02f, 0.014f, end_x, end_y - 0.06f, 0.024f,
                       k->pattern == FIGURE_PATCHES ? k->dark : k->pattern == FIGURE_PLAIN ? k->dark : k->second);
    }
    }
}

static void draw_body(figure_scene *s, const pose *p, const coat *k, int animal)
{
    const build *b = &p->b;
    if (animal == COW) {
        figure_ellipse(s, p->hip_x + 0.16f, b->hip - b->rump * 0.95f, 0.07f, 0.05f, 0, (rgb)C(232, 170, 160));
    }
    if (animal == SHEEP) {
        float rx = b->half + b->rump * 0.86f, ry = b->rump * 0.98f;
        for (int i = 0; i < 15; i++) {
            float a = (float)i * (6.2831853f / 15.0f);
            figure_ellipse(s, rx * 0.86f * cosf(a), b->hip + ry * 0.86f * sinf(a), 0.068f, 0.068f, 0,
                           rgb_scale(k->base, 0.95f + 0.06f * sinf(a)))->volume = 0.05f;
        }
        figure_shape *wool = figure_ellipse(s, 0, b->hip, rx * 0.93f, ry * 0.93f, 0, k->base);
        wool->volume = 0.10f;
        return;
    }
    figure_shape *body = figure_capsule(s, p->hip_x, b->hip, b->rump, p->shoulder_x, b->shoulder, b->chest, k->base);
    body->pattern = k->pattern;
    body->volume = k->pattern == FIGURE_STRIPES ? 0.08f : 0.16f;
}

static void draw_neck(figure_scene *s, const pose *p, const coat *k, int animal)
{
    const build *b = &p->b;
    float x0 = p->shoulder_x + 0.2f * b->chest, y0 = b->shoulder + 0.3f * b->chest;
    float nx = -sinf(b->neck_angle), ny = cosf(b->neck_angle); /* towards the nape */
    if (animal == HORSE || animal == ZEBRA || animal == GIRAFFE) {
        float low = b->neck_low * 0.75f, high = b->neck_high * 0.85f, r = animal == GIRAFFE ? 0.026f : 0.040f;
        figure_capsule(s, x0 + nx * low, y0 + ny * low, r, p->head_x + nx * high, p->head_y + ny * high, r * 0.9f,
                       animal == GIRAFFE ? rgb_scale(k->second, 0.8f) : k->second);
    }
    figure_shape *neck = figure_capsule(s, x0, y0, b->neck_low, p->head_x, p->head_y, b->neck_high,
                                        animal == SHEEP ? rgb_scale(k->base, 0.97f) : k->base);
    neck->pattern = animal == SHEEP || animal == PIG ? FIGURE_PLAIN : k->pattern;
    neck->volume = 0.06f;
}

static void draw_ear(figure_scene *s, const pose *p, const coat *k, int animal, float light)
{
    const build *b = &p->b;
    float back = light < 1 ? 0.035f : 0, x = p->head_x - 0.2f * b->skull + back, y = p->head_y + b->skull * 0.75f;
    rgb own = rgb_scale(k->base, 0.9f * light);
    switch (animal) {
    case COW: figure_ellipse(s, x - 0.055f + 2 * back, y - 0.035f, 0.062f, 0.026f, 0.25f, rgb_scale(k->second, light)); break;
    case SHEEP: figure_ellipse(s, x - 0.035f + 2 * back, y - 0.045f, 0.050f, 0.020f, 0.5f, rgb_scale(k->second, light)); break;
    case PIG: figure_capsule(s, x - 0.02f, y - 0.01f, 0.042f, x + 0.055f, y + 0.055f, 0.006f, rgb_scale(k->second, light)); break;
    case DOG:
        figure_capsule(s, x - 0.01f, y - 0.01f, 0.030f, x - 0.045f + back, y - 0.105f, 0.034f,
                       rgb_scale(k->second, 0.85f * light));
        break;
    case ELEPHANT:
        if (light < 1) break;
        figure_ellipse(s, p->head_x - 0.10f, p->head_y - 0.03f, 0.125f, 0.185f, 0.12f, rgb_scale(k->base, 0.80f))->volume =
            0.10f;
        break;
    case GIRAFFE:
        figure_capsule(s, x + 0.01f, y - 0.01f, 0.012f, x + 0.02f, y + 0.07f, 0.015f, rgb_scale(k->second, light));
        figure_ellipse(s, x - 0.045f, y - 0.01f, 0.042f, 0.016f, -0.3f, own);
        break;
    default: figure_capsule(s, x, y - 0.02f, 0.026f, x - 0.005f, y + 0.065f, 0.005f, own);
    }
}

static void draw_head(figure_scene *s, const pose *p, const coat *k, int animal, chance *c)
{
    const build *b = &p->b;
    float ax = cosf(b->head_drop), ay = -sinf(b->head_drop); /* along the face */
    rgb face = animal == SHEEP ? k->second : k->base;
    draw_ear(s, p, k, animal, 0.8f);
    if (animal == COW && chance_unit(c) < 0.7f) {
        float x = p->head_x - 0.01f, y = p->head_y + b->skull * 0.8f;
        figure_capsule(s, x, y, 0.018f, x + 0.035f, y + 0.085f, 0.008f, (rgb)C(226, 214, 186));
    }
    figure_shape *head = figure_capsule(s, p->head_x, p->head_y, b->skull, p->tip_x, p->tip_y, b->muzzle, face);
    head->pattern = k->pattern == FIGURE_STRIPES ? FIGURE_STRIPES : k->pattern == FIGURE_PATCHES ? FIGURE_PATCHES : FIGURE_PLAIN;
    head->volume = 0.08f;
    if (animal == ELEPHANT) {
        float curl = between(c, -0.06f, 0.14f), x = p->tip_x, y = p->tip_y - 0.02f, r = 0.100f;
        float dx = 0.058f, dy = -0.085f;
        for (int i = 0; i < 6; i++) { /* the trunk bends forth towards its tip */
            float nx = x + dx, ny = y + dy, nr = r * 0.82f;
            figure_capsule(s, x, y, r, nx, ny, nr, rgb_scale(k->base, 0.97f - 0.015f * (float)i))->volume = 0.02f;
            x = nx, y = ny, r = nr;
            dx = dx * 0.62f + curl * 0.28f * (float)i * 0.5f;
            dy *= 0.96f;
        }
        figure_capsule(s, p->tip_x + 0.01f, p->tip_y - 0.07f, 0.024f, p->tip_x + 0.16f, p->tip_y - 0.13f, 0.008f,
                       (rgb)C(244, 238, 220));
    } else if (animal == PIG) {
        figure_ellipse(s, p->tip_x + 0.035f, p->tip_y, 0.032f, 0.056f, -0.25f, rgb_scale(k->second, 0.9f));
    } else {
        rgb nose = animal == COW ? (rgb)C(226, 176, 164) : animal == GIRAFFE ? rgb_scale(k->base, 0.85f) : k->dark;
        float r = animal == COW ? b->muzzle * 0.96f : animal == DOG ? 0.026f : b->muzzle * 0.80f;
        float at = animal == DOG ? 0.045f : 0.008f, lift = animal == DOG ? 0.02f : 0;
        if (animal != SHEEP) figure_ellipse(s, p->tip_x + ax * at, p->tip_y + ay * at + lift, r, r * 0.9f, 0, nose);
    }
    draw_ear(s, p, k, animal, 1.0f);
    float eye = fmaxf(b->skull * 0.16f, 0.0125f), ex = p->head_x + ax * b->head * 0.30f, ey = p->head_y + ay * b->head * 0.30f;
    ex += -ay * b->skull * 0.30f;
    ey += ax * b->skull * 0.30f;
    if (animal == SHEEP || rgb_luma(face) < 0.3f) figure_ellipse(s, ex, ey, eye * 1.5f, eye * 1.4f, 0, (rgb)C(236, 230, 220));
    figure_ellipse(s, ex, ey, eye, eye, 0, (rgb)C(24, 20, 20));
}

/* ------------------------------------------------------------------------------------------------- scene */

static float distance(rgb a, rgb b)
{
    float r = a.r - b.r, g = a.g - b.g, l = a.b - b.b;
    return sqrtf(r * r + g * g + l * l);
}

static void choose_background(figure_scene *s, chance *c, rgb legs)
{
    static const rgb sky_top[] = {C(112, 168, 222), C(150, 190, 226), C(236, 188, 140), C(176, 184, 194), C(96, 132, 190)};
    static const rgb sky_low[] = {C(206, 228, 242), C(238, 240, 236), C(250, 226, 190), C(222, 224, 226), C(220, 196, 196)};
    static const rgb grounds[] = {C(112, 152, 72),  C(146, 172, 92), C(206, 182, 126), C(232, 236, 242),
                                  C(168, 140, 100), C(84, 118, 66),  C(190, 200, 120), C(74, 66, 60)};
    int sky = one_of(c, 5);
    s->sky_top = tinted(c, sky_top[sky], 0.05f);
    s->sky_low = tinted(c, sky_low[sky], 0.04f);
    /* legs must stand out from the ground: the first drawn ground with contrast, or the best of them */
    float best = -1;
    rgb ground = grounds[0];
    for (int tries = 0; tries < 8; tries++) {
        rgb g = tinted(c, grounds[one_of(c, 8)], 0.08f);
        float contrast = fminf(distance(g, legs), distance(g, rgb_scale(legs, FAR_LIGHT)));
        if (contrast > best && best < 0.4f) {
            best = contrast;
            ground = g;
        }
    }
    s->ground_far = rgb_mix(ground, s->sky_low, 0.25f);
    s->ground_near = rgb_scale(ground, 0.92f);
    s->hill_color = rgb_mix(rgb_scale(ground, 0.75f), s->sky_low, 0.45f);
    for (int i = 0; i < 2; i++) {
        s->hill[i][0] = between(c, 0, 1);
        s->hill[i][1] = chance_unit(c) < 0.55f ? between(c, 0.03f, 0.13f) : 0;
        s->hill[i][2] = between(c, 0.15f, 0.4f);
    }
}

/* Size and place: the figure fits the picture with a margin, its feet on the ground. */
static void place(figure_scene *s, chance *c)
{
    float tilt = between(c, -0.05f, 0.05f), x0, y0, x1, y1;
    s->cosine = cosf(tilt);
    s->sine = sinf(tilt);
    s->mirror = chance_unit(c) < 0.5f ? -1.0f : 1.0f;
    figure_bounds(s, &x0, &y0, &x1, &y1);
    float size = between(c, 0.70f, 0.90f);
    s->scale = size / fmaxf(x1 - x0, y1 - y0);
    float w = (x1 - x0) * s->scale, h = (y1 - y0) * s->scale, middle = 0.5f * (x0 + x1) * s->scale;
    float slack_x = fmaxf(0.5f - 0.04f - 0.5f * w, 0);
    s->tx = 0.5f + between(c, -slack_x, slack_x) - s->mirror * middle;
    float feet = between(c, fmaxf(0.04f + h, 0.72f), 0.955f); /* v of the lowest point */
    s->ty = feet + y0 * s->scale;
    s->horizon = feet - h * between(c, 0.22f, 0.5f);
    s->shadow[0] = s->tx;
    s->shadow[1] = feet - 0.012f;
    s->shadow[2] = 0.45f * w;
    s->shadow[3] = 0.026f;
}

static void compose(figure_scene *s, uint64_t key, int64_t index, int animal)
{
    chance c = {key, (uint64_t)index, 1}; /* number 0 is the class */
    memset(s, 0, sizeof *s);
    pose p = choose_pose(&c, animal);
    coat k = choose_coat(&c, animal);
    s->coat2 = k.pattern == FIGURE_WOOL ? rgb_scale(k.base, 0.85f) : k.second;
    s->stripe_pitch = between(&c, 0.072f, 0.100f);
    s->stripe_phase = chance_unit(&c);
    s->tile_pitch = between(&c, 0.090f, 0.120f);
    s->tile_seed = (uint32_t)(chance_unit(&c) * 16777216.0f);
    for (int i = 0; i < FIGURE_PATCH_COUNT; i++) {
        s->patch[i][0] = between(&c, -p.b.half - p.b.rump, p.head_x + 0.05f);
        s->patch[i][1] = p.b.hip + between(&c, -p.b.rump, 1.2f * p.b.chest);
        s->patch[i][2] = between(&c, 0.06f, 0.15f);
        s->patch[i][3] = between(&c, 0.06f, 0.13f);
    }
    draw_legs(s, &p, &k, animal, false);
    draw_tail(s, &p, &k, animal, &c);
    if (animal == PIG || animal == SHEEP || animal == ELEPHANT) draw_neck(s, &p, &k, animal);
    draw_legs(s, &p, &k, animal, true);
    draw_body(s, &p, &k, animal);
    if (animal != PIG && animal != SHEEP && animal != ELEPHANT) draw_neck(s, &p, &k, animal);
    draw_head(s, &p, &k, animal, &c);
    place(s, &c);
    choose_background(s, &c, animal == SHEEP ? k.second : k.base);
    figure_finish(s);
}

/* ------------------------------------------------------------------------------------------------ source */

static uint64_t split_key(const sag_dataset *ds)
{
    return strcmp(ds->info.split, "test") == 0 ? 0x7e57 : 0x7ea1;
}

static void quadrupeds_read(const sag_dataset *ds, int64_t index, uint8_t *pixels)
{
    figure_scene scene;
    compose(&scene, split_key(ds), index, ds->labels[index]);
    figure_draw(&scene, pixels, ds->info.height, ds->info.width, ds->info.channels);
}

/* Measured on the figure just above the feet, not assumed. */
static int quadrupeds_legs(const sag_dataset *ds, int64_t index)
{
    figure_scene scene;
    float narrowest;
    int animal = ds->labels[index];
    compose(&scene, split_key(ds), index, animal);
    return figure_legs(&scene, 2 * builds[animal].leg_foot, 0.02f, &narrowest);
}

sag_status sag_quadrupeds_open(const sag_open_request *r, sag_dataset *ds)
{
    static const sag_dataset_source source = {.read = quadrupeds_read, .legs = quadrupeds_legs};
    int64_t count = DEFAULT_COUNT;
    if (r->path[0]) {
        char *end;
        count = strtoll(r->path, &end, 10);
        if (*end || count < 1 || count > INT32_MAX)
            SAG_FAIL(SAG_ERR_ARG, "%s: the count is a number from 1 to %d, as in quadrupeds:5000", r->spec, INT32_MAX);
    }
    if (r->o->limit > 0 && r->o->limit < count) count = r->o->limit;
    SAG_TRY(sag_data_set_name(ds, "quadrupeds"));
    SAG_TRY(sag_data_set_classes(ds, class_names, CLASSES));
    ds->labels = sag_host_alloc(sizeof *ds->labels * (size_t)count);
    if (!ds->labels) SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory for %lld labels", r->spec, (long long)count);
    ds->source = &source;
    ds->info.count = count;
    ds->info.height = ds->info.width = r->o->resolution ? r->o->resolution : 64;
    ds->info.channels = r->o->channels ? r->o->channels : 3;
    for (int64_t i = 0; i < count; i++) {
        chance c = {split_key(ds), (uint64_t)i, 0};
        ds->labels[i] = one_of(&c, CLASSES);
    }
    return SAG_OK;
}
