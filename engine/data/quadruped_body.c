/* quadruped_body.c - proportions of the animals, and how one is put together from capsules and ellipses, back to front.
 */
#include "engine/data/quadruped.h"

static const build builds[QUADRUPEDS] = {
    [HORSE] = {.30f, .64f, .64f, .155f, .150f, .056f, .030f, .36f, 1.00f, .115f, .066f, .22f, .75f, .070f, .046f},
    [ZEBRA] = {.29f, .58f, .57f, .155f, .150f, .052f, .030f, .31f, 0.92f, .115f, .070f, .20f, .70f, .068f, .046f},
    [COW] = {.36f, .55f, .55f, .195f, .190f, .056f, .038f, .20f, 0.45f, .140f, .100f, .20f, .75f, .090f, .066f},
    [SHEEP] = {.20f, .43f, .43f, .190f, .190f, .036f, .028f, .16f, 0.60f, .100f, .080f, .15f, .80f, .070f, .048f},
    [PIG] = {.28f, .36f, .35f, .195f, .185f, .058f, .042f, .12f, 0.25f, .160f, .140f, .17f, .35f, .120f, .058f},
    [DOG] = {.26f, .45f, .46f, .105f, .130f, .050f, .032f, .18f, 0.95f, .090f, .075f, .16f, .30f, .085f, .048f},
    [GIRAFFE] = {.22f, .74f, .82f, .135f, .155f, .052f, .030f, .72f, 1.22f, .120f, .055f, .19f, .55f, .060f, .036f},
    [ELEPHANT] = {.30f, .58f, .60f, .245f, .245f, .088f, .072f, .16f, 0.55f, .200f, .180f, .10f, .90f, .165f, .120f},
};

float sag_quadruped_ankle(int animal)
{
    return 2 * builds[animal].leg_foot;
}

pose sag_quadruped_pose(chance *c, int animal)
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
    /* room between the feet of a pair, and as much between the inner feet of the two pairs; at most four equal
     * distances */
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
        sag_figure_capsule(s, top_x, top_y, b->leg_top * 1.25f, knee_x, knee_y, mid, sag_rgb_scale(k->base, light));
    figure_shape *lower = sag_figure_capsule(s, knee_x, knee_y, mid, foot_x, b->leg_foot, b->leg_foot,
                                             sag_rgb_scale(k->pattern == FIGURE_WOOL ? k->second : k->base, light));
    upper->volume = lower->volume = 0.04f;
    upper->pattern = lower->pattern = pattern;
    if (k->pattern == FIGURE_WOOL) upper->color = lower->color;
    if (hoof)
        sag_figure_capsule(s, foot_x - 0.004f, b->leg_foot * 0.8f, b->leg_foot * 1.02f, foot_x + b->leg_foot * 0.45f,
                           b->leg_foot * 0.8f, b->leg_foot * 0.8f, sag_rgb_scale(k->dark, light));
    else
        sag_figure_capsule(s, foot_x, b->leg_foot * 0.8f, b->leg_foot * 0.9f, foot_x + b->leg_foot * 0.9f,
                           b->leg_foot * 0.75f, b->leg_foot * 0.75f, sag_rgb_scale(lower->color, 0.92f));
}

static void draw_legs(figure_scene *s, const pose *p, const coat *k, int animal, bool near)
{
    const build *b = &p->b;
    float side = near ? 1.0f : -1.0f, light = near ? 1.0f : FAR_LIGHT;
    figure_pattern pattern = k->pattern == FIGURE_STRIPES ? FIGURE_STRIPES : FIGURE_PLAIN;
    bool hoof = animal != DOG && animal != ELEPHANT;
    float hind_bend = animal == ELEPHANT ? 0 : -0.032f, front_bend = animal == ELEPHANT ? 0 : 0.012f;
    int first = s->n;
    draw_leg(s, b, p->hind_x, b->hip - b->rump * 0.35f, p->hind_x + side * p->spread_hind, hind_bend, k, pattern, light,
             hoof);
    draw_leg(s, b, p->front_x, b->shoulder - b->chest * 0.35f, p->front_x + side * p->spread_front, front_bend, k,
             pattern, light, hoof);
    for (int i = first; i < s->n; i++) s->shape[i].leg = true;
}

static void draw_tail(figure_scene *s, const pose *p, const coat *k, int animal, chance *c)
{
    const build *b = &p->b;
    float x = p->hip_x - b->rump * 0.85f, y = b->hip + b->rump * 0.45f, swing = between(c, -0.05f, 0.06f);
    switch (animal) {
    case HORSE:
        sag_figure_capsule(s, x, y, 0.030f, x - 0.10f + swing, y - 0.16f, 0.048f, k->second);
        sag_figure_capsule(s, x - 0.10f + swing, y - 0.16f, 0.048f, x - 0.09f + 1.5f * swing, y - 0.40f, 0.018f,
                           k->second);
        break;
    case SHEEP: sag_figure_ellipse(s, x + 0.01f, y - 0.04f, 0.035f, 0.065f, 0.3f, sag_rgb_scale(k->base, 0.92f)); break;
    case PIG: {
        float ox = x - 0.045f, oy = y, last_x = x + 0.03f, last_y = y - 0.02f;
        for (int i = 1; i <= 9; i++) { /* a loop and a half */
            float a = -1.2f + (float)i * 0.95f, r = 0.036f;
            float nx = ox + r * cosf(a) - 0.004f * (float)i, ny = oy + r * sinf(a);
            sag_figure_capsule(s, last_x, last_y, 0.013f, nx, ny, 0.012f, k->second);
            last_x = nx, last_y = ny;
        }
        break;
    }
    case DOG: {
        float up = between(c, 0.05f, 0.24f), back = between(c, 0.10f, 0.18f);
        figure_shape *root =
            sag_figure_capsule(s, x + 0.03f, y, 0.034f, x - back * 0.7f, y + up * 0.4f, 0.030f, k->base);
        root->volume = 0.05f;
        sag_figure_capsule(s, x - back * 0.7f, y + up * 0.4f, 0.030f, x - back, y + up, 0.014f, k->base);
        break;
    }
    default: { /* thin, with a tuft */
        float end_x = x - 0.07f + swing, end_y = y - (animal == GIRAFFE ? 0.30f : 0.34f);
        sag_figure_capsule(s, x + 0.02f, y, 0.020f, x - 0.05f, y - 0.10f, 0.014f, k->base);
        sag_figure_capsule(s, x - 0.05f, y - 0.10f, 0.014f, end_x, end_y, 0.011f, k->base);
        sag_figure_capsule(s, end_x, end_y + 0.02f, 0.014f, end_x, end_y - 0.06f, 0.024f,
                           k->pattern == FIGURE_PATCHES ? k->dark
                           : k->pattern == FIGURE_PLAIN ? k->dark
                                                        : k->second);
    }
    }
}

static void draw_body(figure_scene *s, const pose *p, const coat *k, int animal)
{
    const build *b = &p->b;
    if (animal == COW) {
        sag_figure_ellipse(s, p->hip_x + 0.16f, b->hip - b->rump * 0.95f, 0.07f, 0.05f, 0, (rgb)RGB8(232, 170, 160));
    }
    if (animal == SHEEP) {
        float rx = b->half + b->rump * 0.86f, ry = b->rump * 0.98f;
        for (int i = 0; i < 15; i++) {
            float a = (float)i * (6.2831853f / 15.0f);
            sag_figure_ellipse(s, rx * 0.86f * cosf(a), b->hip + ry * 0.86f * sinf(a), 0.068f, 0.068f, 0,
                               sag_rgb_scale(k->base, 0.95f + 0.06f * sinf(a)))
                ->volume = 0.05f;
        }
        figure_shape *wool = sag_figure_ellipse(s, 0, b->hip, rx * 0.93f, ry * 0.93f, 0, k->base);
        wool->volume = 0.10f;
        return;
    }
    figure_shape *body =
        sag_figure_capsule(s, p->hip_x, b->hip, b->rump, p->shoulder_x, b->shoulder, b->chest, k->base);
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
        sag_figure_capsule(s, x0 + nx * low, y0 + ny * low, r, p->head_x + nx * high, p->head_y + ny * high, r * 0.9f,
                           animal == GIRAFFE ? sag_rgb_scale(k->second, 0.8f) : k->second);
    }
    figure_shape *neck = sag_figure_capsule(s, x0, y0, b->neck_low, p->head_x, p->head_y, b->neck_high,
                                            animal == SHEEP ? sag_rgb_scale(k->base, 0.97f) : k->base);
    neck->pattern = animal == SHEEP || animal == PIG ? FIGURE_PLAIN : k->pattern;
    neck->volume = 0.06f;
}

static void draw_ear(figure_scene *s, const pose *p, const coat *k, int animal, float light)
{
    const build *b = &p->b;
    float back = light < 1 ? 0.035f : 0, x = p->head_x - 0.2f * b->skull + back, y = p->head_y + b->skull * 0.75f;
    rgb own = sag_rgb_scale(k->base, 0.9f * light);
    switch (animal) {
    case COW:
        sag_figure_ellipse(s, x - 0.055f + 2 * back, y - 0.035f, 0.062f, 0.026f, 0.25f,
                           sag_rgb_scale(k->second, light));
        break;
    case SHEEP:
        sag_figure_ellipse(s, x - 0.035f + 2 * back, y - 0.045f, 0.050f, 0.020f, 0.5f, sag_rgb_scale(k->second, light));
        break;
    case PIG:
        sag_figure_capsule(s, x - 0.02f, y - 0.01f, 0.042f, x + 0.055f, y + 0.055f, 0.006f,
                           sag_rgb_scale(k->second, light));
        break;
    case DOG:
        sag_figure_capsule(s, x - 0.01f, y - 0.01f, 0.030f, x - 0.045f + back, y - 0.105f, 0.034f,
                           sag_rgb_scale(k->second, 0.85f * light));
        break;
    case ELEPHANT:
        if (light < 1) break;
        sag_figure_ellipse(s, p->head_x - 0.10f, p->head_y - 0.03f, 0.125f, 0.185f, 0.12f,
                           sag_rgb_scale(k->base, 0.80f))
            ->volume = 0.10f;
        break;
    case GIRAFFE:
        sag_figure_capsule(s, x + 0.01f, y - 0.01f, 0.012f, x + 0.02f, y + 0.07f, 0.015f,
                           sag_rgb_scale(k->second, light));
        sag_figure_ellipse(s, x - 0.045f, y - 0.01f, 0.042f, 0.016f, -0.3f, own);
        break;
    default: sag_figure_capsule(s, x, y - 0.02f, 0.026f, x - 0.005f, y + 0.065f, 0.005f, own);
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
        sag_figure_capsule(s, x, y, 0.018f, x + 0.035f, y + 0.085f, 0.008f, (rgb)RGB8(226, 214, 186));
    }
    figure_shape *head = sag_figure_capsule(s, p->head_x, p->head_y, b->skull, p->tip_x, p->tip_y, b->muzzle, face);
    head->pattern = k->pattern == FIGURE_STRIPES   ? FIGURE_STRIPES
                    : k->pattern == FIGURE_PATCHES ? FIGURE_PATCHES
                                                   : FIGURE_PLAIN;
    head->volume = 0.08f;
    if (animal == ELEPHANT) {
        float curl = between(c, -0.06f, 0.14f), x = p->tip_x, y = p->tip_y - 0.02f, r = 0.100f;
        float dx = 0.058f, dy = -0.085f;
        for (int i = 0; i < 6; i++) { /* the trunk bends forth towards its tip */
            float nx = x + dx, ny = y + dy, nr = r * 0.82f;
            sag_figure_capsule(s, x, y, r, nx, ny, nr, sag_rgb_scale(k->base, 0.97f - 0.015f * (float)i))->volume =
                0.02f;
            x = nx, y = ny, r = nr;
            dx = dx * 0.62f + curl * 0.28f * (float)i * 0.5f;
            dy *= 0.96f;
        }
        sag_figure_capsule(s, p->tip_x + 0.01f, p->tip_y - 0.07f, 0.024f, p->tip_x + 0.16f, p->tip_y - 0.13f, 0.008f,
                           (rgb)RGB8(244, 238, 220));
    } else if (animal == PIG) {
        sag_figure_ellipse(s, p->tip_x + 0.035f, p->tip_y, 0.032f, 0.056f, -0.25f, sag_rgb_scale(k->second, 0.9f));
    } else {
        rgb nose = animal == COW       ? (rgb)RGB8(226, 176, 164)
                   : animal == GIRAFFE ? sag_rgb_scale(k->base, 0.85f)
                                       : k->dark;
        float r = animal == COW ? b->muzzle * 0.96f : animal == DOG ? 0.026f : b->muzzle * 0.80f;
        float at = animal == DOG ? 0.045f : 0.008f, lift = animal == DOG ? 0.02f : 0;
        if (animal != SHEEP) sag_figure_ellipse(s, p->tip_x + ax * at, p->tip_y + ay * at + lift, r, r * 0.9f, 0, nose);
    }
    draw_ear(s, p, k, animal, 1.0f);
    float eye = fmaxf(b->skull * 0.16f, 0.0125f), ex = p->head_x + ax * b->head * 0.30f,
          ey = p->head_y + ay * b->head * 0.30f;
    ex += -ay * b->skull * 0.30f;
    ey += ax * b->skull * 0.30f;
    if (animal == SHEEP || sag_rgb_luma(face) < 0.3f)
        sag_figure_ellipse(s, ex, ey, eye * 1.5f, eye * 1.4f, 0, (rgb)RGB8(236, 230, 220));
    sag_figure_ellipse(s, ex, ey, eye, eye, 0, (rgb)RGB8(24, 20, 20));
}

void sag_quadruped_draw(figure_scene *s, const pose *p, const coat *k, int animal, chance *c)
{
    draw_legs(s, p, k, animal, false);
    draw_tail(s, p, k, animal, c);
    if (animal == PIG || animal == SHEEP || animal == ELEPHANT) draw_neck(s, p, k, animal);
    draw_legs(s, p, k, animal, true);
    draw_body(s, p, k, animal);
    if (animal != PIG && animal != SHEEP && animal != ELEPHANT) draw_neck(s, p, k, animal);
    draw_head(s, p, k, animal, c);
}
