/* image_pattern.h - the picture that the image tests start from, and comparisons. */
#ifndef SAG_IMAGE_PATTERN_H
#define SAG_IMAGE_PATTERN_H

#include "engine/io/image.h"
#include "testing.h"

static inline sag_image pattern(int height, int width, int channels)
{
    sag_image im;
    assert_ok(sag_image_create(height, width, channels, &im));
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int k = 0; k < channels; k++)
                im.pixels[(y * width + x) * channels + k] = (uint8_t)(37 * x + 59 * y + 83 * k + 7 * x * y);
    return im;
}

static inline void assert_image(const sag_image *im, int height, int width, int channels, const uint8_t *pixels)
{
    assert_int_equal(im->height, height);
    assert_int_equal(im->width, width);
    assert_int_equal(im->channels, channels);
    if (pixels) assert_memory_equal(im->pixels, pixels, sag_image_bytes(im));
}

static inline void assert_equal_images(const sag_image *a, const sag_image *b)
{
    assert_image(a, b->height, b->width, b->channels, b->pixels);
}

#endif
