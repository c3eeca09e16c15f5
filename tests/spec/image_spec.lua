local core = require "sagan.core"
local helper = require "helper"
local image, system = core.image, core.system

-- A small picture whose every value differs from its neighbours.
local function picture(h, w, c)
    local t = {}
    for y = 1, h do
        t[y] = {}
        for x = 1, w do
            t[y][x] = {}
            for k = 1, c do t[y][x][k] = (37 * x + 59 * y + 83 * k + 7 * x * y) % 256 end
        end
    end
    return core.tensor(t, { dtype = "u8" })
end

local function blank(h, w, c) return image.blank(h, w, c or 3) end

local function pixel(t, y, x)
    local out = {}
    for k = 1, t:size(3) do out[k] = t:get(y, x, k) end
    return out
end

describe("core.image", function()
    setup(helper.start)
    teardown(helper.finish)

    local path
    before_each(function() path = os.tmpname() .. ".png" end)
    after_each(function()
        os.remove(path)
        os.remove((path:gsub("%.png$", "")))
    end)

    it("writes and reads PNG", function()
        for _, c in ipairs { 1, 3 } do
            local t = picture(5, 7, c)
            assert.is_true(image.write(path, t))
            local back = assert(image.read(path))
            assert.same({ 5, 7, c }, back.shape)
            assert.equal("u8", back.dtype)
            assert.equal(t:bytes(), back:bytes())
            local png = image.encode_png(t)
            assert.equal(png, system.read(path))
            assert.equal(t:bytes(), image.decode(png):bytes())
            assert.same({ 5, 7, 4 - c }, image.read(path, 4 - c).shape)
        end
    end)

    it("answers bad files with nil and a message", function()
        local ok, message, code = image.read("/nonexistent.png")
        assert.is_nil(ok)
        assert.truthy(message:find("/nonexistent.png: cannot open", 1, true))
        assert.equal("io", code)
        ok, message, code = image.decode("hello", 0, "mail.png")
        assert.is_nil(ok)
        assert.equal("mail.png: is neither PNG, JPEG nor BMP", message)
        assert.equal("format", code)
        local png = image.encode_png(picture(9, 9, 3))
        for cut = 1, #png - 1, 7 do assert.is_nil((image.decode(png:sub(1, cut)))) end
        ok, message = image.write("/nonexistent/x.png", picture(1, 1, 1))
        assert.is_nil(ok)
        assert.truthy(message:find("/nonexistent/x.png: cannot create", 1, true))
    end)

    it("names what is wrong with an argument", function()
        local m = helper.message_of
        assert.truthy(m(image.encode_png, core.zeros(2, 2, 3)):find("u8"))
        assert.truthy(m(image.encode_png, core.zeros({ 4 }, { dtype = "u8" })):find("an image is {H,W,C}, got {4}", 1, true))
        assert.truthy(m(image.encode_png, core.zeros({ 1, 2, 2, 3 }, { dtype = "u8" })):find("an image is {H,W,C}", 1, true))
        assert.truthy(m(image.resize, core.zeros({ 2, 2, 2 }, { dtype = "u8" }), 1, 1):find("1 or 3 channels", 1, true))
        assert.truthy(m(image.resize, blank(2, 2), 0, 1):find("must be 1 to 16384", 1, true))
        assert.truthy(m(image.write, "x.jpg", blank(2, 2)):find("ends in .png", 1, true))
        assert.truthy(m(image.text, blank(2, 2), 1, 1, "x", 1, { 1, 2 }):find("a colour is", 1, true))
        assert.truthy(m(image.text, blank(2, 2), 1, 1, "x", 1, 256):find("a colour is", 1, true))
        assert.truthy(m(image.blend, blank(2, 2), blank(2, 3), 0.5):find("blend: 2 x 3 x 3 over 2 x 2 x 3", 1, true))
        assert.truthy(m(image.grid, blank(2, 2), 0):find("must be 1 to", 1, true))
        assert.truthy(m(image.convert, blank(2, 2), 2):find("must be 1 or 3", 1, true))
        assert.truthy(m(image.heatmap, core.zeros(4)):find("values are {h,w} or {N,h,w}, got {4}", 1, true))
        assert.truthy(m(image.heatmap, core.zeros(2, 2), 1, 1):find("must be more than low", 1, true))
        assert.truthy(m(image.read, "x", 2):find("must be 1, 3, or 0", 1, true))
    end)

    it("resizes, crops, converts and enlarges one or many", function()
        local a, b = picture(6, 8, 3), picture(6, 8, 3):copy_(picture(6, 8, 3))
        local both = core.ops.concat(a:reshape(1, 6, 8, 3), b:reshape(1, 6, 8, 3), 1)
        for _, f in ipairs {
            function(t) return image.resize(t, 3, 5) end,
            function(t) return image.crop_center(t) end,
            function(t) return image.crop_center(t, 2, 4) end,
            function(t) return image.convert(t, 1) end,
            function(t) return image.enlarge(t, 2) end,
        } do
            local one, two = f(a), f(both)
            assert.equal(4, two.rank)
            assert.equal(one:bytes() .. one:bytes(), two:bytes())
        end
        assert.same({ 3, 5, 3 }, image.resize(a, 3, 5).shape)
        -- a flat picture stays flat, whatever the ratio
        local flat = image.blank(7, 9, 1, 200)
        assert.equal(("\200"):rep(100 * 3), image.resize(flat, 100, 3):bytes())
        local square = image.crop_center(a)
        assert.same({ 6, 6, 3 }, square.shape)
        assert.same(pixel(a, 1, 2), pixel(square, 1, 1))
        assert.same({ 2, 8, 3 }, image.crop_center(a, 2).shape)
        assert.same({ 76 }, pixel(image.convert(image.blank(1, 1, 3, { 255, 0, 0 }), 1), 1, 1))
        assert.same(pixel(a, 6, 8), pixel(image.enlarge(a, 3), 18, 22))
    end)

    it("lays pictures out in a grid", function()
        local t = core.zeros({ 5, 2, 3, 1 }, { dtype = "u8" })
        for i = 1, 5 do t:rows(i, 1):fill_(10 * i) end
        local g = image.grid(t, 3, 1)
        assert.same({ 7, 13, 1 }, g.shape)
        assert.equal(255, g:get(1, 1, 1))
        assert.equal(10, g:get(2, 2, 1))
        assert.equal(50, g:get(5, 6, 1))
        assert.equal(255, g:get(5, 10, 1)) -- the sixth place is empty
        assert.same({ 4, 5, 1 }, image.grid(t:rows(1, 1), 9, 1, 0).shape)
    end)

    it("draws in place, counts from 1 and clips", function()
        local t = blank(10, 12)
        assert.equal(t, image.draw_rect(t, 4, 3, 6, 5, 1, { 255, 0, 9 }))
        assert.same({ 255, 0, 9 }, pixel(t, 3, 4))
        assert.same({ 255, 0, 9 }, pixel(t, 7, 9))
        assert.same({ 0, 0, 0 }, pixel(t, 4, 5))
        image.draw_cross(t, 12, 10, 1, 7)
        assert.same({ 7, 7, 7 }, pixel(t, 10, 12))
        assert.same({ 7, 7, 7 }, pixel(t, 9, 12))
        image.paste(t, image.blank(4, 4, 1, 80), -1, -1)
        assert.same({ 80, 80, 80 }, pixel(t, 2, 2))
        assert.same({ 0, 0, 0 }, pixel(t, 3, 3))
        image.draw_rect(t, -1000000, -1000000, 1, 1)
        local line = blank(10, 12)
        assert.equal(line, image.draw_line(line, 3, 2, 9, 2))
        for x = 3, 9 do assert.same({ 255, 255, 255 }, pixel(line, 2, x)) end
        assert.same({ 0, 0, 0 }, pixel(line, 2, 11))
        image.draw_line(line, 6, 7, 6, 7, 3, { 200, 0, 100 }, 0.5)
        assert.same({ 100, 0, 50 }, pixel(line, 7, 6))
        image.draw_line(line, -1000000, -1000000, -1000000, -1000000)
        assert.has_error(function() image.draw_line(line, 1, 1, 2, 2, 0) end)
        assert.has_error(function() image.draw_line(line, 1, 1, 2, 2, 1, 9, 1.5) end)
        local label = blank(8, 12, 1)
        image.text(label, 1, 1, "T!", 1, 255)
        for x = 1, 5 do assert.equal(255, label:get(1, x, 1)) end
        assert.equal(255, label:get(7, 9, 1))
        assert.equal(0, label:get(8, 3, 1))
        assert.same({ 36, 32 }, { image.text_size("ab\ncde", 2) })
        assert.has_error(function() image.paste(t, t, 2, 2) end)
    end)

    it("turns values into heat", function()
        local heat = image.heatmap(core.tensor { { 0, 1 }, { 0.5, 0.25 } })
        assert.same({ 2, 2, 3 }, heat.shape)
        assert.same({ 18, 23, 85 }, pixel(heat, 1, 1))
        assert.same({ 249, 236, 71 }, pixel(heat, 1, 2))
        local fixed = image.heatmap(core.tensor { { { 0, 1 } }, { { 5, -5 } } }, 0, 5)
        assert.same({ 2, 1, 2, 3 }, fixed.shape)
        assert.equal(249, fixed:get(2, 1, 1, 1))
        assert.equal(18, fixed:get(2, 1, 2, 1))
        local mixed = image.blend(image.blank(1, 1, 3, 100), image.blank(1, 1, 3, { 200, 0, 100 }), 0.25)
        assert.same({ 125, 75, 100 }, pixel(mixed, 1, 1))
        assert.same({ 1, 2, 3 }, image.heatmap(core.tensor({ { 0, 1 } }, { dtype = "bf16" })).shape)
    end)

    it("leaves nothing behind, errors included", function()
        helper.no_leaks(function()
            local t = picture(4, 4, 3)
            local png = image.encode_png(t)
            image.decode(png)
            image.decode(png:sub(1, 40))
            pcall(image.decode, png, 2)
            image.resize(t, 2, 9)
            image.grid(t, 1, 1)
            pcall(image.resize, t, 0, 0)
            pcall(image.enlarge, t, 10000)
            pcall(image.blend, t, image.blank(1, 1, 3), 2)
            image.heatmap(core.tensor { { 1, 2 } })
        end)
    end)
end)
