/*
 * image.h - 8-bit images: decoding (PNG, JPEG, BMP), PNG encoding, channels, cropping, resizing. Drawing is
 * image_draw.h.
 *
 * An image is grey (1 channel) or RGB (3); alpha in a file is dropped and 16 bits become 8. Functions that
 * make an image write it to *out, which then belongs to the caller (sag_image_free); *out is left empty on
 * failure and may not be the source. All of it is safe to call from several threads at once.
 */
#ifndef SAG_IMAGE_H
#define SAG_IMAGE_H

#include "engine/sagan.h"

#define SAG_IMAGE_MAX_SIDE 16384

typedef struct sag_image {
    uint8_t *pixels; /* [height][width][channels] */
    int height, width, channels;
} sag_image;

sag_status sag_image_create(int height, int width, int channels, sag_image *out); /* black */
void sag_image_free(sag_image *image);                                            /* leaves it empty; twice is fine */
size_t sag_image_bytes(const sag_image *image);

/* By the first bytes: "png", "jpeg", "bmp" or NULL. */
const char *sag_image_kind(const void *bytes, size_t size);
/* By the ending of a file name, upper or lower case. */
bool sag_image_is_name(const char *name);

/*
 * channels: 1, 3, or 0 for what the file has. Corrupt and truncated data are SAG_ERR_FORMAT; `name` is only
 * for the message (a path, or "archive.tar: member").
 */
sag_status sag_image_decode(const void *bytes, size_t size, const char *name, int channels, sag_image *out);
/* Size and channels (1 or 3) from the header alone. */
sag_status sag_image_probe(const void *bytes, size_t size, const char *name, int *height, int *width, int *channels);
sag_status sag_image_read(const char *path, int channels, sag_image *out);

/* *bytes belongs to the caller (sag_host_free). Equal images give equal bytes. */
sag_status sag_image_encode_png(const sag_image *image, uint8_t **bytes, size_t *size);
sag_status sag_image_write_png(const char *path, const sag_image *image); /* atomic */

/* grey <-> RGB; luma is (19595 R + 38470 G + 7471 B + 32768) >> 16, ITU-R 601 as Pillow rounds it. */
sag_status sag_image_convert(const sag_image *image, int channels, sag_image *out);
sag_status sag_image_crop(const sag_image *image, int y, int x, int height, int width, sag_image *out);
/* The largest centred square; an odd remainder goes to the bottom or the right. */
sag_status sag_image_crop_square(const sag_image *image, sag_image *out);
/* Pillow's BILINEAR: a triangle filter with half-pixel centres, widened by the ratio when shrinking; along
 * rows first, rounded to 8 bits between the passes, in the same fixed point, so results equal those of Pillow
 * up to 12 bit for bit (13 takes the columns first where that is less work). */
sag_status sag_image_resize(const sag_image *image, int height, int width, sag_image *out);

#endif
