/*
 * events.h - TensorBoard event files: scalars and PNG images.
 *
 * A file is a row of TFRecord frames (length, masked crc32c of the length, payload, masked crc32c of the
 * payload); a payload is one Event message of tensorflow/core/util/event.proto, written by hand here.
 * TensorBoard finds files whose name contains "tfevents".
 */
#ifndef SAG_EVENTS_H
#define SAG_EVENTS_H

#include "engine/sagan.h"

typedef struct sag_events sag_events;

/*
 * append: go on behind the last whole record of an existing file (a torn one is cut off); otherwise start it
 * anew. If path is a folder: append takes its newest event file; without append, or if there is none, a new
 * one is made there.
 */
sag_status sag_events_open(const char *path, bool append, sag_events **out);
/* wall: seconds since 1970. Records are kept in a small buffer until it is full, flushed or closed. */
sag_status sag_events_scalar(sag_events *w, const char *tag, float value, int64_t step, double wall);
sag_status sag_events_image(sag_events *w, const char *tag, const void *png, size_t png_bytes, int height, int width,
                            int channels, int64_t step, double wall);
sag_status sag_events_flush(sag_events *w);
/* Flushes and frees; w is gone even if the status is an error. NULL is allowed. */
sag_status sag_events_close(sag_events *w);

#endif
