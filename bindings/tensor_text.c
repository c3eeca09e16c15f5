/*
 * tensor_text.c - tostring(tensor): one line with shape, dtype and device, then the values in aligned columns. Of a big
 * tensor only the edges are shown, and a last line has its minimum, maximum and mean.
 */
#include "bindings/lsag.h"

#include <math.h>
#include <string.h>

#define EDGE 3          /* items shown at each end of a dimension that is cut short */
#define EDGE_SLICES 1   /* the same for the dimensions before the last two */
#define SHOWN_ROW 8     /* a dimension up to this long is shown whole */
#define SHOWN_SLICES 4

typedef struct printer {
    luaL_Buffer *b;
    const void *data;
    sag_dtype dtype;
    sag_shape shape;
    char format[8];
    int width;
    bool cut; /* something was left out */
} printer;

/* Calls for the shown indices of a dimension: the next one after i, or a gap. */
static int64_t next_shown(int64_t i, int64_t n, int64_t shown, int64_t edge, bool *gap)
{
    *gap = n > shown && i + 1 == edge;
    return *gap ? n - edge : i + 1;
}

static int format_value(const printer *p, double v, char *text, size_t size)
{
    if (isnan(v)) return snprintf(text, size, "nan");
    if (isinf(v)) return snprintf(text, size, v < 0 ? "-inf" : "inf");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    return snprintf(text, size, p->format, v);
#pragma GCC diagnostic pop
}

/* Visits what will be shown: measure decides on format and width, else the text is written. */
static void row(printer *p, int64_t start, bool measure, double *largest, double *smallest, bool *whole)
{
    int64_t n = p->shape.dim[p->shape.rank - 1];
    bool gap = false;
    for (int64_t i = 0; i < n; i = next_shown(i, n, SHOWN_ROW, EDGE, &gap)) {
        if (gap) {
            p->cut = true;
            if (!measure) luaL_addstring(p->b, "  ...");
        }
        double v = lsag_element(p->data, p->dtype, start + i);
        char text[64];
        if (measure) {
            double size = fabs(v);
            if (!isfinite(v)) continue;
            if (size > *largest) *largest = size;
            if (size > 0 && size < *smallest) *smallest = size;
            if (v != floor(v)) *whole = false;
            continue;
        }
        int length = format_value(p, v, text, sizeof text);
        for (int pad = length; pad < p->width + 2; pad++) luaL_addchar(p->b, ' ');
        luaL_addlstring(p->b, text, (size_t)length);
    }
    if (!measure) luaL_addchar(p->b, '\n');
}

static void matrix(printer *p, int64_t start, bool measure, double *largest, double *smallest, bool *whole)
{
    int64_t columns = p->shape.dim[p->shape.rank - 1];
    int64_t rows = p->shape.rank > 1 ? p->shape.dim[p->shape.rank - 2] : 1;
    bool gap = false;
    for (int64_t r = 0; r < rows; r = next_shown(r, rows, SHOWN_ROW, EDGE, &gap)) {
        if (gap) p->cut = true;
        if (gap && !measure) luaL_addstring(p->b, "  ...\n");
        row(p, start + r * columns, measure, largest, smallest, whole);
    }
}

static void slices(printer *p, bool measure, double *largest, double *smallest, bool *whole)
{
    sag_shape s = p->shape;
    int64_t n1 = s.rank == 4 ? s.dim[0] : 1, n2 = s.rank >= 3 ? s.dim[s.rank - 3] : 1;
    int64_t size = s.dim[s.rank - 1] * (s.rank > 1 ? s.dim[s.rank - 2] : 1);
    bool gap1 = false, gap2 = false;
    for (int64_t i = 0; i < n1; i = next_shown(i, n1, SHOWN_SLICES, EDGE_SLICES, &gap1)) {
        if (gap1) p->cut = true;
        if (gap1 && !measure) luaL_addstring(p->b, "...\n");
        gap2 = false;
        for (int64_t j = 0; j < n2; j = next_shown(j, n2, SHOWN_SLICES, EDGE_SLICES, &gap2)) {
            if (gap2) p->cut = true;
            if (gap2 && !measure) luaL_addstring(p->b, "...\n");
            if (s.rank > 2 && !measure) {
                char text[64];
                if (s.rank == 4)
                    snprintf(text, sizeof text, "[%lld][%lld]\n", (long long)i + 1, (long long)j + 1);
                else
                    snprintf(text, sizeof text, "[%lld]\n", (long long)j + 1);
                luaL_addstring(p->b, text);
            }
            matrix(p, (i * n2 + j) * size, measure, largest, smallest, whole);
        }
    }
}

static void choose_format(printer *p)
{
    double largest = 0, smallest = HUGE_VAL;
    bool whole = true;
    slices(p, true, &largest, &smallest, &whole);
    const char *format = "%.4f";
    if (whole && largest < 1e9)
        format = "%.0f";
    else if (largest >= 1e5 || (smallest < 1e-3 && largest < 1))
        format = "%.3e";
    strcpy(p->format, format);
    /* One width for all columns: the widest of what can occur, a sign included. */
    char text[64];
    int a = format_value(p, -largest, text, sizeof text);
    p->width = a > 3 ? a : 3;
    if (whole && largest < 1e9) p->width = a > 1 ? a : 1;
}

static void summary(printer *p, int64_t n)
{
    double low = HUGE_VAL, high = -HUGE_VAL, sum = 0;
    int64_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        double v = lsag_element(p->data, p->dtype, i);
        if (!isfinite(v)) {
            bad++;
            continue;
        }
        if (v < low) low = v;
        if (v > high) high = v;
        sum += v;
    }
    char text[160];
    if (bad < n) {
        snprintf(text, sizeof text, "min %.4g  max %.4g  mean %.4g", low, high, sum / (double)(n - bad));
        luaL_addstring(p->b, text);
    }
    if (bad > 0) {
        snprintf(text, sizeof text, "%s%lld not finite", bad < n ? "  " : "", (long long)bad);
        luaL_addstring(p->b, text);
    }
    luaL_addchar(p->b, '\n');
}

/* The values; runs under pcall so that tostring itself never fails (a device may be recording). */
static int l_values(lua_State *L)
{
    sag_tensor *t = lsag_check_tensor(L, 1);
    printer p = {.shape = sag_tensor_shape(t)};
    p.data = lsag_push_host(L, t, &p.dtype);
    choose_format(&p);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    p.b = &b;
    slices(&p, false, NULL, NULL, NULL);
    if (p.cut) summary(&p, sag_tensor_numel(t));
    luaL_pushresult(&b);
    return 1;
}

int lsag_tensor_tostring(lua_State *L)
{
    lsag_tensor *u = lsag_to_userdata(L, 1);
    if (!u) return luaL_typeerror(L, 1, "tensor");
    if (!u->t) {
        lua_pushliteral(L, "tensor (released)");
        return 1;
    }
    char text[96];
    sag_shape_text(sag_tensor_shape(u->t), text, sizeof text);
    lua_pushfstring(L, "tensor %s %s %s", text, sag_dtype_name(sag_tensor_dtype(u->t)),
                    sag_device_name(sag_context_device(sag_tensor_context(u->t))));
    lua_pushcfunction(L, l_values);
    lua_pushvalue(L, 1);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
        lua_pushfstring(L, "\n(%s)", luaL_tolstring(L, -1, NULL));
        lua_remove(L, -2);
        lua_remove(L, -2);
    } else {
        size_t length;
        const char *values = lua_tolstring(L, -1, &length);
        lua_pushliteral(L, "\n");
        lua_pushlstring(L, values, length - 1); /* no newline at the end */
        lua_concat(L, 2);
        lua_remove(L, -2);
    }
    lua_concat(L, 2);
    return 1;
}
