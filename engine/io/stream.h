/*
 * stream.h - the bytes of a file from front to back, through gzip if it is gzip. What archive.c reads from;
 * not public.
 */
#ifndef SAG_STREAM_H
#define SAG_STREAM_H

#include "engine/sagan.h"

typedef struct sag_stream sag_stream;

sag_status sag_stream_open(const char *path, sag_stream **out);
void sag_stream_close(sag_stream *s); /* NULL is allowed */
/* *got < size only at the end of the data. Damaged or truncated gzip data is SAG_ERR_FORMAT. */
sag_status sag_stream_read(sag_stream *s, void *dst, size_t size, size_t *got);
int64_t sag_stream_offset(const sag_stream *s); /* bytes handed out so far */
const char *sag_stream_path(const sag_stream *s);
bool sag_stream_compressed(const sag_stream *s);

#endif
