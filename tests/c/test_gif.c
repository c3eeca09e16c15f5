/* What is written, read back by a reader of its own: sizes, delays, exact colours where there are few, near ones where
 * there are many, and enough strings to fill the table of codes more than once. */
#include "engine/io/file.h"
#include "engine/io/gif.h"
#include "image_pattern.h"
#include "temporary.h"

/* ------------------------------------------------------------------------------------------------ a reader */

typedef struct reader {
    const uint8_t *bytes;
    size_t size, at;
    int width, height, delay;
    uint8_t colors[256][3];
} reader;

static int take(reader *r)
{
    assert_true(r->at < r->size);
    return r->bytes[r->at++];
}

static int take_short(reader *r)
{
    int low = take(r);
    return low | take(r) << 8;
}

static void read_head(reader *r)
{
    assert_memory_equal(r->bytes, "GIF89a", 6);
    r->at = 6;
    r->width = take_short(r);
    r->height = take_short(r);
    assert_int_equal(take(r) & 0x87, 0x87); /* a global table of 256 */
    r->at += 2;
    for (int i = 0; i < 256; i++) {
        for (int c = 0; c < 3; c++) r->colors[i][c] = (uint8_t)take(r);
    }
}

/* The data of all sub-blocks, as one. */
static size_t read_blocks(reader *r, uint8_t *to, size_t room)
{
    size_t n = 0;
    for (int length = take(r); length; length = take(r)) {
        for (int i = 0; i < length; i++) {
            assert_true(n < room);
            to[n++] = (uint8_t)take(r);
        }
    }
    return n;
}

/* How many end marks were met that had just been widened, and that in one bit less would have ended a byte earlier. Elsewhere
 * the bits that fill the last byte hide what width the writer took. */
static int telling_ends;

/* Strings as (what it continues, its last byte), written out backwards. */
static size_t unpack(const uint8_t *data, size_t size, uint8_t *pixels, size_t room)
{
    static int before[4096];
    static uint8_t last[4096], text[4096];
    int next = 258, width = 9, old = -1, first = 0;
    bool widened = false;
    size_t n = 0, bit = 0;
    for (;;) {
        int code = 0;
        for (int i = 0; i < width; i++, bit++) {
            assert_true(bit / 8 < size);
            code |= (data[bit / 8] >> bit % 8 & 1) << i;
        }
        if (code == 257) break;
        widened = false;
        if (code == 256) {
            next = 258;
            width = 9;
            old = -1;
            continue;
        }
        int length = 0, c = code;
        if (old < 0) {
            assert_true(code < 256);
        } else if (code >= next) {
            assert_int_equal(code, next);
            text[length++] = (uint8_t)first;
            c = old;
        }
        for (; c >= 258; c = before[c]) text[length++] = last[c];
        first = c;
        text[length++] = (uint8_t)c;
        for (int i = length - 1; i >= 0; i--) {
            assert_true(n < room);
            pixels[n++] = text[i];
        }
        if (old >= 0 && next < 4096) {
            before[next] = old;
            last[next++] = (uint8_t)first;
            widened = next == 1 << width && width < 12;
            if (widened) width++;
        }
        old = code;
    }
    assert_true(size - (bit + 7) / 8 == 0);
    telling_ends += widened && bit % 8 == 1;
    return n;
}

/* The next frame as indices; false at the end. */
static bool read_frame(reader *r, uint8_t *pixels, size_t room)
{
    static uint8_t data[4 << 20];
    for (;;) {
        int kind = take(r);
        if (kind == 0x3b) {
            assert_int_equal(r->at, r->size);
            return false;
        }
        if (kind == 0x21) {
            int label = take(r);
            size_t n = read_blocks(r, data, sizeof data);
            if (label == 0xf9) {
                assert_int_equal(n, 4);
                r->delay = data[1] | data[2] << 8;
            }
            continue;
        }
        assert_int_equal(kind, 0x2c);
        assert_int_equal(take_short(r), 0);
        assert_int_equal(take_short(r), 0);
        assert_int_equal(take_short(r), r->width);
        assert_int_equal(take_short(r), r->height);
        assert_int_equal(take(r), 0);
        assert_int_equal(take(r), 8);
        size_t n = read_blocks(r, data, sizeof data);
        assert_int_equal(unpack(data, n, pixels, room), room);
        return true;
    }
}

/* Mean absolute difference of a channel between what was written and what is read. */
static double difference(const sag_image *frames, int64_t n, int delay)
{
    uint8_t *bytes, *again;
    size_t size, size_again, count = (size_t)frames[0].height * (size_t)frames[0].width;
    assert_ok(sag_gif_encode(frames, n, delay, &bytes, &size));
    assert_ok(sag_gif_encode(frames, n, delay, &again, &size_again));
    assert_int_equal(size, size_again);
    assert_memory_equal(bytes, again, size);
    sag_host_free(again);
    reader r = {.bytes = bytes, .size = size};
    read_head(&r);
    assert_int_equal(r.width, frames[0].width);
    assert_int_equal(r.height, frames[0].height);
    uint8_t *pixels = sag_host_alloc(count);
    double sum = 0;
    for (int64_t f = 0; f < n; f++) {
        assert_true(read_frame(&r, pixels, count));
        assert_int_equal(r.delay, delay);
        int channels = frames[f].channels;
        for (size_t i = 0; i < count; i++) {
            for (int c = 0; c < 3; c++) {
                int want = frames[f].pixels[i * (size_t)channels + (size_t)(channels == 3 ? c : 0)];
                sum += abs(want - r.colors[pixels[i]][c]);
            }
        }
    }
    assert_false(read_frame(&r, pixels, count));
    sag_host_free(pixels);
    sag_host_free(bytes);
    return sum / (double)(3 * count * (size_t)n);
}

/* ------------------------------------------------------------------------------------------------- tests */

static uint32_t noise_state = 1;
static uint8_t noise(void)
{
    noise_state = noise_state * 1664525u + 1013904223u;
    return (uint8_t)(noise_state >> 24);
}

static void few_colors_are_exact(void **state)
{
    (void)state;
    sag_image frames[3];
    for (int f = 0; f < 3; f++) {
        assert_ok(sag_image_create(37, 53, f == 1 ? 1 : 3, &frames[f]));
        for (size_t i = 0; i < sag_image_bytes(&frames[f]); i++) frames[f].pixels[i] = (uint8_t)(85 * (noise() % 4));
    }
    assert_true(difference(frames, 3, 7) == 0);
    for (int f = 0; f < 3; f++) sag_image_free(&frames[f]);
}

/* Noise makes a new string with almost every pixel: the table fills every 4,000 of them. All widths of codes occur. */
static void grey_noise_is_exact_at_every_length(void **state)
{
    (void)state;
    for (int width = 1; width < 9000; width += width < 600 ? 1 : 997) {
        sag_image im;
        assert_ok(sag_image_create(1, width, 1, &im));
        for (int i = 0; i < width; i++) im.pixels[i] = noise();
        assert_true(difference(&im, 1, 0) == 0);
        sag_image_free(&im);
    }
    sag_image im;
    assert_ok(sag_image_create(200, 300, 1, &im));
    for (size_t i = 0; i < sag_image_bytes(&im); i++) im.pixels[i] = noise();
    assert_true(difference(&im, 1, 65535) == 0);
    memset(im.pixels, 9, sag_image_bytes(&im)); /* one string that grows */
    assert_true(difference(&im, 1, 1) == 0);
    sag_image_free(&im);
}

/* No pair of neighbours occurs twice, so each pixel is a code and a string of its own, and a picture can end where a width
 * does: after 255, 767 or 1791 pixels, or so many beyond whole tables of 3839. Of the end marks there one in eight tells. */
static void ends_where_codes_widen(void **state)
{
    (void)state;
    static const int ends[] = {255, 767, 1791};
    static uint8_t pixels[1 << 15];
    for (int i = 0, value = 0; i < 1 << 15; i++) {
        pixels[i] = (uint8_t)value;
        value += 2 * (i / 256) + 1;
    }
    telling_ends = 0;
    for (int table = 0; table < 8; table++) {
        for (int end = 0; end < 3; end++) {
            for (int length = ends[end] - 1; length <= ends[end] + 1; length++) {
                sag_image im = {.pixels = pixels, .height = 1, .width = table * 3839 + length, .channels = 1};
                assert_true(difference(&im, 1, 0) == 0);
            }
        }
    }
    assert_true(telling_ends >= 3);
}

static void many_colors_are_near(void **state)
{
    (void)state;
    sag_image im;
    assert_ok(sag_image_create(128, 128, 3, &im));
    for (int y = 0; y < 128; y++) {
        for (int x = 0; x < 128; x++) {
            uint8_t *p = im.pixels + (y * 128 + x) * 3;
            p[0] = (uint8_t)(2 * x);
            p[1] = (uint8_t)(2 * y);
            p[2] = (uint8_t)(255 - x - y);
        }
    }
    double smooth = difference(&im, 1, 10);
    assert_true(smooth > 0 && smooth < 4); /* 256 cells of a plane, 16 x 16 levels: 4 on the average along two axes */
    for (size_t i = 0; i < sag_image_bytes(&im); i++) im.pixels[i] = noise();
    assert_true(difference(&im, 1, 10) < 16); /* 256 cells of the cube, 40 levels a side: 10 */
    sag_image_free(&im);
}

static void files_and_refusals(void **state)
{
    (void)state;
    sag_image frames[2] = {pattern(5, 7, 3), pattern(5, 8, 3)};
    uint8_t *bytes;
    size_t size;
    assert_fails(sag_gif_encode(frames, 0, 1, &bytes, &size), SAG_ERR_ARG, "one frame at least");
    assert_fails(sag_gif_encode(frames, 1, -1, &bytes, &size), SAG_ERR_ARG, "delay");
    assert_fails(sag_gif_encode(frames, 2, 1, &bytes, &size), SAG_ERR_SHAPE,
                 "frame 2 of a GIF is 8x5, the first is 7x5");
    assert_null(bytes);
    char path[128];
    snprintf(path, sizeof path, "%s/a.gif", temp_root);
    assert_ok(sag_gif_write(path, frames, 1, 5));
    uint8_t *file;
    size_t file_size;
    assert_ok(sag_file_read(path, 0, &file, &file_size));
    assert_ok(sag_gif_encode(frames, 1, 5, &bytes, &size));
    assert_int_equal(size, file_size);
    assert_memory_equal(bytes, file, size);
    sag_host_free(bytes);
    sag_host_free(file);
    snprintf(path, sizeof path, "%s/none/a.gif", temp_root);
    assert_fails(sag_gif_write(path, frames, 1, 5), SAG_ERR_IO, "none/a.gif");
    sag_image_free(&frames[0]);
    sag_image_free(&frames[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(few_colors_are_exact),
                                       cmocka_unit_test(grey_noise_is_exact_at_every_length),
                                       cmocka_unit_test(ends_where_codes_widen), cmocka_unit_test(many_colors_are_near), cmocka_unit_test(files_and_refusals)};
    return cmocka_run_group_tests(tests, temp_setup, temp_teardown);
}
