/*
 * json.h - the little JSON that safetensors headers need: a strict reader that walks the text, and quoting.
 * Not public.
 *
 * A document is walked, not turned into a tree: the caller knows what has to come next and asks for it.
 */
#ifndef SAG_JSON_H
#define SAG_JSON_H

#include "engine/sagan.h"

typedef struct sag_json {
    const char *name; /* of the file, for messages */
    const char *start, *p, *end;
    char *strings; /* decoded strings go here, each with a zero byte; as large as the text is enough */
} sag_json;

/* Passes over white space and takes c, or fails saying what was expected there. */
sag_status sag_json_take(sag_json *j, char c);
/* Passes over white space; true and taken if c comes next. */
bool sag_json_takes(sag_json *j, char c);
/* A string, decoded to UTF-8; no zero bytes inside. *out points into j->strings. */
sag_status sag_json_string(sag_json *j, const char **out);
/* A whole number from 0 to INT64_MAX, without sign, point or exponent. */
sag_status sag_json_whole(sag_json *j, int64_t *out);
/* Nothing but white space is left. */
sag_status sag_json_end(sag_json *j);

bool sag_utf8_valid(const char *text);
/* `text` in quotes with escapes; `out` has room for 6 bytes per byte and 2 more. Returns the length, no zero
 * byte behind. */
size_t sag_json_quote(const char *text, char *out);

#endif
