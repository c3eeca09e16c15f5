/* json.c - see json.h (RFC 8259). */
#include "engine/io/json.h"

#include <string.h>

static sag_status json_fail(const sag_json *j, const char *expected)
{
    long long at = (long long)(j->p - j->start);
    if (j->p >= j->end)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: JSON ends at byte %lld where %s should be", j->name, at, expected);
    SAG_FAIL(SAG_ERR_FORMAT, "%s: JSON byte %lld: %s expected", j->name, at, expected);
}

static void skip_space(sag_json *j)
{
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\t' || *j->p == '\r')) j->p++;
}

bool sag_json_takes(sag_json *j, char c)
{
    skip_space(j);
    if (j->p >= j->end || *j->p != c) return false;
    j->p++;
    return true;
}

sag_status sag_json_take(sag_json *j, char c)
{
    char expected[4] = {'\'', c, '\'', 0};
    return sag_json_takes(j, c) ? SAG_OK : json_fail(j, expected);
}

sag_status sag_json_end(sag_json *j)
{
    skip_space(j);
    return j->p == j->end ? SAG_OK : json_fail(j, "the end");
}

sag_status sag_json_whole(sag_json *j, int64_t *out)
{
    skip_space(j);
    const char *first = j->p;
    int64_t v = 0;
    while (j->p < j->end && *j->p >= '0' && *j->p <= '9') {
        if (__builtin_mul_overflow(v, (int64_t)10, &v) || __builtin_add_overflow(v, (int64_t)(*j->p - '0'), &v)) {
            j->p = first;
            return json_fail(j, "a number below 2^63");
        }
        j->p++;
    }
    bool bad = j->p == first || (*first == '0' && j->p - first > 1) ||
               (j->p < j->end && (*j->p == '.' || *j->p == 'e' || *j->p == 'E'));
    if (bad) {
        j->p = first;
        return json_fail(j, "a whole number");
    }
    *out = v;
    return SAG_OK;
}

/* Length of the well-formed UTF-8 sequence at p (RFC 3629: no overlong forms, no surrogates), 0 if there is
 * none. */
static int utf8_length(const char *text, const char *end)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t left = (size_t)(end - text);
    if (left == 0) return 0;
    if (p[0] < 0x80) return 1;
    int n = p[0] >= 0xc2 && p[0] <= 0xdf ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : 0;
    if (n == 0 || left < (size_t)n) return 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

static size_t utf8_put(uint32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* Four hex digits behind "\u". */
static bool hex4(sag_json *j, uint32_t *out)
{
    if (j->end - j->p < 4) return false;
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        char c = j->p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return false;
        v = v << 4 | (uint32_t)digit;
    }
    j->p += 4;
    *out = v;
    return true;
}

static sag_status escape(sag_json *j)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *known = j->p < j->end && *j->p ? strchr(from, *j->p) : NULL;
    if (known) {
        *j->strings++ = to[known - from];
        j->p++;
        return SAG_OK;
    }
    uint32_t c, low;
    if (j->p >= j->end || *j->p != 'u') return json_fail(j, "an escape");
    j->p++;
    if (!hex4(j, &c) || c == 0) return json_fail(j, "four hex digits other than 0000");
    if (c >= 0xd800 && c <= 0xdfff) {
        bool pair = c < 0xdc00 && j->end - j->p >= 2 && j->p[0] == '\\' && j->p[1] == 'u';
        if (pair) j->p += 2;
        if (!pair || !hex4(j, &low) || low < 0xdc00 || low > 0xdfff)
            return json_fail(j, "the second half of a surrogate pair");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    j->strings += utf8_put(c, j->strings);
    return SAG_OK;
}

sag_status sag_json_string(sag_json *j, const char **out)
{
    skip_space(j);
    if (j->p >= j->end || *j->p != '"') return json_fail(j, "a string");
    j->p++;
    *out = j->strings;
    while (j->p < j->end && *j->p != '"') {
        if (*j->p == '\\') {
            j->p++;
            SAG_TRY(escape(j));
            continue;
        }
        int n = utf8_length(j->p, j->end);
        if (n == 0 || (uint8_t)*j->p < 0x20) return json_fail(j, "a character of a string");
        memcpy(j->strings, j->p, (size_t)n);
        j->strings += n;
        j->p += n;
    }
    if (j->p >= j->end) return json_fail(j, "the end of a string");
    j->p++;
    *j->strings++ = 0;
    return SAG_OK;
}

bool sag_utf8_valid(const char *text)
{
    const char *end = text + strlen(text);
    while (text < end) {
        int n = utf8_length(text, end);
        if (n == 0) return false;
        text += n;
    }
    return true;
}

size_t sag_json_quote(const char *text, char *out)
{
    static const char hex[] = "0123456789abcdef";
    char *o = out;
    *o++ = '"';
    for (; *text; text++) {
        uint8_t c = (uint8_t)*text;
        if (c == '"' || c == '\\') {
            *o++ = '\\';
            *o++ = (char)c;
        } else if (c < 0x20) {
            memcpy(o, "\\u00", 4);
            o[4] = hex[c >> 4];
            o[5] = hex[c & 15];
            o += 6;
        } else {
            *o++ = (char)c;
        }
    }
    *o++ = '"';
    return (size_t)(o - out);
}
