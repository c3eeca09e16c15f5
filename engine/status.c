/* status.c - the thread's last error message. */
#include <stdarg.h>
#include <stdio.h>

#include "engine/internal.h"

static _Thread_local char message[1024];

const char *sag_error_message(void)
{
    return message;
}

sag_status sag_fail(sag_status code, const char *fmt, ...)
{
    /* Formatted aside first: an argument may be the current message. */
    char text[sizeof message];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (size_t i = 0; i < sizeof text; i++) message[i] = text[i];
    return code;
}

const char *sag_status_name(sag_status s)
{
    static const char *const names[] = {"ok",    "argument", "shape",  "dtype", "device",
                                        "memory", "io",       "format", "state", "unsupported"};
    return (size_t)s < sizeof names / sizeof names[0] ? names[s] : "unknown";
}
