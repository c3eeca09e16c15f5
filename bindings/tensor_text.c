/*
 * tensor_text.c - tostring(tensor): one line with shape, dtype and device, then the values in aligned columns. Of a big
 * tensor only the edges are shown, and a last line has its minimum, maximum and mean.
 */
#include "bindings/lsag.h"

#include <math.h>
#include <stdio.h>

#define EDGE 3          /* items shown at each end of a dimension that is cut short */
#define EDGE_SLICES 1   /* the same for the dimensions before the last two */
#define SHOWN_ROW 8     /* a dimension up to this long is shown whole */
#define SHOWN_SLICES 4

/* The shown values are visited three times. */
typedef enum pass { PASS_RANGE, PASS_WIDTH, PASS_WRITE } pass;

typedef struct printer {
    luaL_Buffer *b;
    const void *data;
    sag_dtype dtype;
    sag_shape shape;
    pass pass;
    double largest, smallest; /* PASS_RANGE: magnitudes, smallest of the non-zero ones */
    bool whole;
    const char *format;
    int width;
    bool cut; /* something was left out */
} printer;

/* The shown index that follows i in a dimension of n; *gap: some were skipped. */
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

static void write_text(printer *p, const char *text)
{
    if (p->pass == PASS_WRITE) luaL_addstring(p->b, text);
}

static void value(printer *p, double v)
{
    if (p->pass == PASS_RANGE) {
        double size = fabs(v);
        if (!isfinite(v)) return;
        if (size > p->largest) p->largest = size;
        if (size > 0 && size < p->smallest) p->smallest = size;
        if (v != floor(v)) p->whole = false;
        return;
    }
    char text[64];
    int length = format_value(p, v, text, sizeof text);
    if (p->pass == PASS_WIDTH) {
        if (length > p->width) p->width = length;
        return;
    }
    for (int pad = length; pad < p->width + 2; pad++) luaL_addchar(p->b, ' ');
    luaL_addlstring(p->b, text, (size_t)length);
}

static void row(printer *p, int64_t start)
{
    int64_t n = p->shape.dim[p->shape.rank - 1];
    bool gap = false;
    for (int64_t i = 0; i < n; i = next_shown(i, n, SHOWN_ROW, EDGE, &gap)) {
        if (gap) {
            p->cut = true;
            write_text(p, "  ...");
        }
        value(p, lsag_element(p->data, p->dtype, start + i));
    }
    write_text(p, "\n");
}

static void matrix(printer *p, int64_t start)
{
    int64_t columns = p->shape.dim[p->shape.rank - 1];
    int64_t rows = p->shape.rank > 1 ? p->shape.dim[p->shape.rank - 2] : 1;
    bool gap = false;
    for (int64_t r = 0; r < rows; r = next_shown(r, rows, SHOWN_ROW, EDGE, &gap)) {
        if (gap) {
            p->cut = true;
            write_text(p, "  ...\n");
        }
        row(p, start + r * columns);
    }
}

static void visit(printer *p, pass which)
{
    sag_shape s = p->shape;
    int64_t n1 = s.rank == 4 ? s.dim[0] : 1, n2 = s.rank >= 3 ? s.dim[s.rank - 3] : 1;
    int64_t size = s.dim[s.rank - 1] * (s.rank > 1 ? s.dim[s.rank - 2] : 1);
    bool gap1 = false, gap2 = false;
    p->pass = which;
    for (int64_t i = 0; i < n1; i = next_shown(i, n1, SHOWN_SLICES, EDGE_SLICES, &gap1)) {
        if (gap1) {
            p->cut = true;
            write_text(p, "...\n");
        }
        gap2 = false;
        for (int64_t j = 0; j < n2; j = next_shown(j, n2, SHOWN_SLICES, EDGE_SLICES, &gap2)) {
            if (gap2) {
                p->cut = true;
                write_text(p, "...\n");
            }
            char text[64];
            if (s.rank == 4)
                snprintf(text, sizeof text, "[%lld][%lld]\n", (long long)i + 1, (long long)j + 1);
            else
                snprintf(text, sizeof text, "[%lld]\n", (long long)j + 1);
            if (s.rank > 2) write_text(p, text);
            matrix(p, (i * n2 + j) * size);
        }
    }
}

static void choose_format(printer *p)
{
    p->smallest = HUGE_VAL;
    p->whole = true;
    visit(p, PASS_RANGE);
    if (p->whole && p->largest < 1e9)
        p->format = "%.0f";
    else if (p->largest >= 1e5 || p->largest < 0.1 || p->smallest < 5e-5)
        p->format = "%.3e";
    else
        p->format = "%.4f";
    visit(p, PASS_WIDTH);
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
    visit(&p, PASS_WRITE);
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
