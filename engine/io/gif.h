/*
 * gif.h - an animated GIF (version 89a) of images of one size, for training in pictures. Only written, never read.
 *
 * Up to 256 colours in all frames together are kept exactly, so grey images are; more are reduced to 256 by median cut
 * (Heckbert 1982) over 5 bits a channel. Equal frames give equal bytes.
 */
#ifndef SAG_GIF_H
#define SAG_GIF_H

#include "engine/io/image.h"

/* delay: hundredths of a second from one frame to the next; repeated for ever. *bytes: sag_host_free. */
sag_status sag_gif_encode(const sag_image *frames, int64_t n, int delay, uint8_t **bytes, size_t *size);
sag_status sag_gif_write(const char *path, const sag_image *frames, int64_t n, int delay); /* atomic */

#endif
