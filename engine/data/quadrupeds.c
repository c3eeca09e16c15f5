/*
 * quadrupeds.c - a data set that needs no files: drawn animals, each with four legs that do not touch, in many builds,
 * coats, poses, sizes and places. Image i is a function of (split, i) alone, at any resolution.
 *
 * Since the legs are separate and known, a score can count them in generated pictures.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/data/quadruped.h"

static const char *const class_names[QUADRUPEDS] = {"horse", "zebra", "cow",     "sheep",
                                                    "pig",   "dog",   "giraffe", "elephant"};
#define DEFAULT_COUNT 10000

/* ------------------------------------------------------------------------------------------------ colours */

static const rgb browns[] = {RGB8(122, 72, 38), RGB8(90, 52, 32),    RGB8(158, 98, 54),
                             RGB8(62, 46, 40),  RGB8(196, 160, 116), RGB8(206, 202, 196)};
static const rgb cows[] = {RGB8(238, 234, 226), RGB8(150, 84, 46), RGB8(232, 226, 214), RGB8(208, 176, 134)};
static const rgb cow_patches[] = {RGB8(40, 36, 36), RGB8(236, 228, 214), RGB8(134, 76, 44), RGB8(122, 70, 40)};
static const rgb dogs[] = {RGB8(176, 120, 66), RGB8(78, 62, 54), RGB8(222, 196, 152), RGB8(140, 134, 130),
                           RGB8(116, 70, 40)};
static const rgb pigs[] = {RGB8(236, 170, 164), RGB8(226, 152, 150), RGB8(206, 146, 136), RGB8(118, 92, 88)};
static const rgb greys[] = {RGB8(136, 134, 138), RGB8(116, 112, 116), RGB8(150, 142, 138)};
#define PICK(c, list) (list)[one_of((c), (int)(sizeof(list) / sizeof *(list)))]

static coat choose_coat(chance *c, int animal)
{
    coat k = {.dark = RGB8(38, 32, 30), .pattern = FIGURE_PLAIN};
    int i;
    switch (animal) {
    case HORSE:
        k.base = PICK(c, browns);
        k.second = sag_rgb_scale(k.base, chance_unit(c) < 0.7f ? 0.42f : 1.5f);
        break;
    case ZEBRA:
        k.base = (rgb)RGB8(238, 234, 224);
        k.second = (rgb)RGB8(34, 30, 32);
        k.pattern = FIGURE_STRIPES;
        break;
    case COW:
        i = one_of(c, 4);
        k.base = cows[i];
        k.second = cow_patches[i];
        k.pattern = FIGURE_PATCHES;
        break;
    case SHEEP:
        k.base = (rgb)RGB8(240, 234, 220);
        k.second = chance_unit(c) < 0.6f ? (rgb)RGB8(58, 50, 48) : (rgb)RGB8(206, 178, 150);
        k.pattern = FIGURE_WOOL;
        break;
    case PIG:
        k.base = PICK(c, pigs);
        k.second = sag_rgb_scale(k.base, 0.86f);
        break;
    case DOG:
        k.base = PICK(c, dogs);
        k.second = chance_unit(c) < 0.5f ? sag_rgb_scale(k.base, 0.55f) : (rgb)RGB8(240, 232, 220);
        k.pattern = chance_unit(c) < 0.45f ? FIGURE_PATCHES : FIGURE_PLAIN;
        break;
    case GIRAFFE:
        k.base = (rgb)RGB8(240, 214, 158);
        k.second = chance_unit(c) < 0.5f ? (rgb)RGB8(166, 94, 40) : (rgb)RGB8(130, 74, 38);
        k.pattern = FIGURE_TILES;
        break;
    default:
        k.base = PICK(c, greys);
        k.second = sag_rgb_scale(k.base, 0.84f);
        break;
    }
    k.base = tinted(c, k.base, 0.08f);
    return k;
}

/* ------------------------------------------------------------------------------------------------- scene */

static float distance(rgb a, rgb b)
{
    float r = a.r - b.r, g = a.g - b.g, l = a.b - b.b;
    return sqrtf(r * r + g * g + l * l);
}

static void choose_background(figure_scene *s, chance *c, rgb legs)
{
    static const rgb sky_top[] = {RGB8(112, 168, 222), RGB8(150, 190, 226), RGB8(236, 188, 140), RGB8(176, 184, 194),
                                  RGB8(96, 132, 190)};
    static const rgb sky_low[] = {RGB8(206, 228, 242), RGB8(238, 240, 236), RGB8(250, 226, 190), RGB8(222, 224, 226),
                                  RGB8(220, 196, 196)};
    static const rgb grounds[] = {RGB8(112, 152, 72),  RGB8(146, 172, 92), RGB8(206, 182, 126), RGB8(232, 236, 242),
                                  RGB8(168, 140, 100), RGB8(84, 118, 66),  RGB8(190, 200, 120), RGB8(74, 66, 60)};
    int sky = one_of(c, 5);
    s->sky_top = tinted(c, sky_top[sky], 0.05f);
    s->sky_low = tinted(c, sky_low[sky], 0.04f);
    /* legs must stand out from the ground: the first drawn ground with contrast, or the best of them */
    float best = -1;
    rgb ground = grounds[0];
    for (int tries = 0; tries < 8; tries++) {
        rgb g = tinted(c, grounds[one_of(c, 8)], 0.08f);
        float contrast = fminf(distance(g, legs), distance(g, sag_rgb_scale(legs, FAR_LIGHT)));
        if (contrast > best && best < 0.4f) {
            best = contrast;
            ground = g;
        }
    }
    s->ground_far = sag_rgb_mix(ground, s->sky_low, 0.25f);
    s->ground_near = sag_rgb_scale(ground, 0.92f);
    s->hill_color = sag_rgb_mix(sag_rgb_scale(ground, 0.75f), s->sky_low, 0.45f);
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
    sag_figure_bounds(s, &x0, &y0, &x1, &y1);
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
    pose p = sag_quadruped_pose(&c, animal);
    coat k = choose_coat(&c, animal);
    s->coat2 = k.pattern == FIGURE_WOOL ? sag_rgb_scale(k.base, 0.85f) : k.second;
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
    sag_quadruped_draw(s, &p, &k, animal, &c);
    place(s, &c);
    choose_background(s, &c, animal == SHEEP ? k.second : k.base);
    sag_figure_finish(s);
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
    sag_figure_draw(&scene, pixels, ds->info.height, ds->info.width, ds->info.channels);
}

/* Measured on the figure just above the feet, not assumed. */
static int quadrupeds_legs(const sag_dataset *ds, int64_t index)
{
    figure_scene scene;
    float narrowest;
    int animal = ds->labels[index];
    compose(&scene, split_key(ds), index, animal);
    return sag_figure_legs(&scene, sag_quadruped_ankle(animal), 0.02f, &narrowest);
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
    SAG_TRY(sag_data_set_classes(ds, class_names, QUADRUPEDS));
    ds->labels = sag_host_alloc(sizeof *ds->labels * (size_t)count);
    if (!ds->labels) SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory for %lld labels", r->spec, (long long)count);
    ds->source = &source;
    ds->info.count = count;
    ds->info.height = ds->info.width = r->o->resolution ? r->o->resolution : 64;
    ds->info.channels = r->o->channels ? r->o->channels : 3;
    for (int64_t i = 0; i < count; i++) {
        chance c = {split_key(ds), (uint64_t)i, 0};
        ds->labels[i] = one_of(&c, QUADRUPEDS);
    }
    return SAG_OK;
}
