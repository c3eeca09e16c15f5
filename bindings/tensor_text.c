/*
 * tensor_text.c - tostring(tensor): one line with shape, dtype and device, then the values in aligned columns. Of a big
 * vector or matrix only the edges are shown, of more dimensions none if they are many; a last line says how the
 * values are spread: range, mean, standard deviation, a histogram in characters.
 */
#include "bindings/lsag.h"

#include <math.h>
#include <stdio.h>

#define EDGE 3          /* items shown at each end of a dimension that is cut short */
#define SHOWN_ROW 8     /* a dimension up to this long is shown whole */
#define SHOWN_ROWS 16   /* of more than two dimensions, all together */
#define SUMMARY_FROM 17 /* elements: fewer are all there to see */
#define BARS 16         /* of the histogram, equally wide between the smallest and the largest value */

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
} printer;

/* The shown index that follows i in a dimension of n; *gap: some were skipped. */
static int64_t next_shown(int64_t i, int64_t n, bool *gap)
{
    *gap = n > SHOWN_ROW && i + 1 == EDGE;
    return *gap ? n - EDGE : i + 1;
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
    for (int64_t i = 0; i < n; i = next_shown(i, n, &gap)) {
        if (gap) write_text(p, "  ...");
        value(p, lsag_element(p->data, p->dtype, start + i));
    }
    write_text(p, "\n");
}

static void matrix(printer *p, int64_t start)
{
    int64_t columns = p->shape.dim[p->shape.rank - 1];
    int64_t rows = p->shape.rank > 1 ? p->shape.dim[p->shape.rank - 2] : 1;
    bool gap = false;
    for (int64_t r = 0; r < rows; r = next_shown(r, rows, &gap)) {
        if (gap) write_text(p, "  ...\n");
        row(p, start + r * columns);
    }
}

/* Vectors and matrices always, more dimensions where that takes few lines. */
static bool shows_values(sag_shape s)
{
    int64_t rows = 1;
    for (int i = 0; i < s.rank - 1; i++) rows *= s.dim[i];
    return s.rank <= 2 || rows <= SHOWN_ROWS;
}

static void visit(printer *p, pass which)
{
    sag_shape s = p->shape;
    int64_t n1 = s.rank == 4 ? s.dim[0] : 1, n2 = s.rank >= 3 ? s.dim[s.rank - 3] : 1;
    int64_t size = s.dim[s.rank - 1] * (s.rank > 1 ? s.dim[s.rank - 2] : 1);
    p->pass = which;
    for (int64_t i = 0; i < n1; i++)
        for (int64_t j = 0; j < n2; j++) {
            char text[64];
            if (s.rank == 4)
                snprintf(text, sizeof text, "[%lld][%lld]\n", (long long)i + 1, (long long)j + 1);
            else
                snprintf(text, sizeof text, "[%lld]\n", (long long)j + 1);
            if (s.rank > 2) write_text(p, text);
            matrix(p, (i * n2 + j) * size);
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

/* Counts of finite values in equal parts of [low, high], as bars of eight heights; a blank: none. */
static void histogram(printer *p, int64_t n, double low, double high)
{
    int64_t count[BARS] = {0}, most = 0;
    double scale = BARS / (high - low);
    if (!isfinite(scale) || !isfinite(high - low)) return; /* one value, or a range that overflows */
    for (int64_t i = 0; i < n; i++) {
        double v = lsag_element(p->data, p->dtype, i);
        if (!isfinite(v)) continue;
        int bar = (int)((v - low) * scale);
        count[bar < BARS ? bar : BARS - 1]++;
    }
    for (int i = 0; i < BARS; i++)
        if (count[i] > most) most = count[i];
    luaL_addstring(p->b, "  ");
    for (int i = 0; i < BARS; i++) {
        static const char *const bars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
        if (count[i] == 0)
            luaL_addchar(p->b, ' ');
        else
            luaL_addstring(p->b, bars[(int)(7.0 * (double)count[i] / (double)most + 0.5)]);
    }
}

static void summary(printer *p, int64_t n)
{
    double low = HUGE_VAL, high = -HUGE_VAL, sum = 0, squares = 0;
    int64_t nans = 0, infinite = 0;
    for (int64_t i = 0; i < n; i++) {
        double v = lsag_element(p->data, p->dtype, i);
        nans += isnan(v) != 0;
        infinite += isinf(v) != 0;
        if (!isfinite(v)) continue;
        if (v < low) low = v;
        if (v > high) high = v;
        sum += v;
    }
    int64_t finite = n - nans - infinite;
    double mean = sum / (double)finite;
    char text[160];
    if (finite > 0) {
        for (int64_t i = 0; i < n; i++) {
            double v = lsag_element(p->data, p->dtype, i);
            if (isfinite(v)) squares += (v - mean) * (v - mean);
        }
        snprintf(text, sizeof text, "min %.4g  max %.4g  mean %.4g  std %.4g", low, high, mean,
                 sqrt(squares / (double)finite));
        luaL_addstring(p->b, text);
        histogram(p, n, low, high);
    }
    if (nans > 0) {
        snprintf(text, sizeof text, "%s%lld nan", finite > 0 ? "  " : "", (long long)nans);
        luaL_addstring(p->b, text);
    }
    if (infinite > 0) {
        snprintf(text, sizeof text, "%s%lld infinite", finite + nans > 0 ? "  " : "", (long long)infinite);
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
    bool listed = shows_values(p.shape);
    if (listed) choose_format(&p);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    p.b = &b;
    if (listed) visit(&p, PASS_WRITE);
    if (sag_tensor_numel(t) >= SUMMARY_FROM) summary(&p, sag_tensor_numel(t));
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
