/*
 * quadruped.h - one animal of the data set quadrupeds: kinds, proportions, pose, coat, and the random numbers they come
 * from. quadrupeds.c chooses and places it, quadruped_body.c draws it.
 */
#ifndef SAG_QUADRUPED_H
#define SAG_QUADRUPED_H

#include <math.h>

#include "engine/data/dataset_internal.h"
#include "engine/data/figure.h"

enum { HORSE, ZEBRA, COW, SHEEP, PIG, DOG, GIRAFFE, ELEPHANT, QUADRUPEDS };
#define FAR_LIGHT 0.70f /* the legs on the far side lie in the shade */
#define RGB8(r, g, b)                                                                                                  \
    {                                                                                                                  \
        (r) / 255.0f, (g) / 255.0f, (b) / 255.0f                                                                       \
    }

typedef struct chance {
    uint64_t key, index, n;
} chance;

static inline float chance_unit(chance *c)
{
    return (float)(sag_data_random(c->key, SAG_DATA_QUADRUPEDS, c->index, c->n++) >> 40) * 0x1p-24f;
}

static inline float between(chance *c, float low, float high)
{
    return low + (high - low) * chance_unit(c);
}

static inline int one_of(chance *c, int n)
{
    int i = (int)(chance_unit(c) * (float)n);
    return i < n ? i : n - 1;
}

static inline rgb tinted(chance *c, rgb base, float by)
{
    float k = between(c, 1 - by, 1 + by);
    return (rgb){fminf(base.r * k * between(c, 0.97f, 1.03f), 1), fminf(base.g * k, 1),
                 fminf(base.b * k * between(c, 0.95f, 1.05f), 1)};
}

/* Proportions in units of about one body length; feet at y = 0, x = 0 in the middle of the body. */
typedef struct build {
    float half;                                  /* from the middle to hip and shoulder */
    float hip, shoulder;                         /* heights of the body's axis */
    float rump, chest;                           /* radii of the body's ends */
    float leg_top, leg_foot;                     /* radii */
    float neck, neck_angle, neck_low, neck_high; /* length, radians above the horizontal, radii */
    float head, head_drop, skull, muzzle;        /* length, radians below the horizontal, radii */
} build;

typedef struct coat {
    rgb base, second, dark; /* body; pattern, mane or face; hooves, eyes */
    figure_pattern pattern;
} coat;

typedef struct pose {
    build b;
    float hip_x, shoulder_x, head_x, head_y; /* head: where the neck ends */
    float tip_x, tip_y;                      /* of the muzzle */
    float hind_x, front_x;                   /* where the legs of a pair meet the body */
    float spread_hind, spread_front;         /* half distance of the two feet of a pair; the sign says which leads */
} pose;

pose sag_quadruped_pose(chance *c, int animal);
/* Height at which legs are counted, in the figure's coordinates. */
float sag_quadruped_ankle(int animal);
void sag_quadruped_draw(figure_scene *s, const pose *p, const coat *k, int animal, chance *c);

#endif
