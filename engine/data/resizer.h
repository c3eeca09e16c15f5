/*
 * resizer.h - from stored pictures to what the Inception network takes: a square of 299, in the network's scale. Three
 * rules are in use, and scores by different ones do not compare (they are the main cause of mismatched FIDs):
 *
 *   tf1    TensorFlow 1's bilinear: position i of the output looks at i * in / out, its right neighbour clipped;
 * nothing is averaged when shrinking. (x - 128) / 128. The original FID code, torch-fidelity. torch  bilinear with
 * half-pixel centres, (i + 1/2) * in / out - 1/2 from 0; nothing is averaged when shrinking. (x - 127.5) / 127.5.
 * pytorch-fid. clean  Pillow's bicubic (a = -1/2) on floats, along rows first, widened by the ratio when shrinking,
 * clipped to 0..255 but not rounded. (x - 128) / 128. clean-fid.
 *
 * What is drawn by a network is rounded to u8 once, before (float_to_pixels); here u8 goes in and nothing is rounded.
 */
#ifndef SAG_RESIZER_H
#define SAG_RESIZER_H

#include "engine/sagan.h"

typedef enum sag_resizer { SAG_RESIZER_TF1, SAG_RESIZER_TORCH, SAG_RESIZER_CLEAN, SAG_RESIZER_COUNT } sag_resizer;

const char *sag_resizer_name(sag_resizer kind); /* "tf1", "torch", "clean" */

/*
 * images {n, h, w, c}, c 1 or 3, to out {n, side, side, 3}; grey is repeated. Sides up to SAG_IMAGE_MAX_SIDE. The
 * result does not depend on `threads`.
 */
sag_status sag_resizer_run(sag_resizer kind, const uint8_t *images, int64_t n, int h, int w, int c, int side,
                           int threads, float *out);

#endif
