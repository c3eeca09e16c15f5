-- Pictures as text for the terminal, and sagan.show, which prints them.
local core = require "sagan.core"
local helper = require "helper"
local image, terminal_picture = core.image, core.terminal_picture

describe("core.terminal_picture", function()
    setup(helper.start)
    teardown(helper.finish)

    it("says what the terminal can do", function()
        local t = terminal_picture.detect()
        for _, name in ipairs { "colors", "columns", "rows", "cell_width", "cell_height" } do
            assert.is_true(t[name] >= 1, name)
        end
        local known = {}
        for _, mode in ipairs(terminal_picture.modes()) do known[mode] = true end
        assert.is_true(known[t.mode])
    end)

    it("draws half blocks", function()
        local im = core.tensor({ { { 255, 0, 0 } }, { { 0, 0, 255 } } }, { dtype = "u8" })
        assert.equal("\27[38;2;255;0;0m\27[48;2;0;0;255m▀\27[0m\n",
            terminal_picture.render(im, { mode = "half", colors = 1 << 24, columns = 1, rows = 1 }))
        -- a grey picture: 4 rows of cells, 8 columns each
        local grey = terminal_picture.render(core.zeros({ 4, 4, 1 }, { dtype = "u8" }), { mode = "half", rows = 4 })
        assert.equal(4, select(2, grey:gsub("\n", "")))
        assert.equal(32, select(2, grey:gsub("▀", "")))
        helper.no_leaks(function() terminal_picture.render(image.blank(20, 30, 3), { mode = "half" }) end)
    end)

    it("has libchafa's modes, or says what they need", function()
        local im = image.blank(20, 30, 3, { 10, 200, 30 })
        local begins = { symbols = "\27", sixel = "\27P", kitty = "\27_G", iterm2 = "\27]1337;File=" }
        for mode, start in pairs(begins) do
            local text, message, code = terminal_picture.render(im, { mode = mode, columns = 10, rows = 5 })
            if terminal_picture.detect().library then
                assert.equal(start, text:sub(1, #start))
            else
                assert.is_nil(text)
                assert.matches("libchafa%-dev", message)
                assert.equal("unsupported", code)
            end
        end
    end)

    it("refuses what is no picture, naming it", function()
        local function message(...) return helper.message_of(terminal_picture.render, ...) end
        assert.matches("an image is {H,W,C}", message(core.zeros({ 2, 2 }, { dtype = "u8" })))
        assert.matches("u8", message(core.zeros(2, 2, 3)))
        assert.matches("no mode 'sixels'", message(image.blank(2, 2, 3), { mode = "sixels" }))
        assert.matches("no option 'colums' %(did you mean 'columns'%?%)", message(image.blank(2, 2, 3), { colums = 3 }))
        assert.matches("rows must be 1 to", message(image.blank(2, 2, 3), { rows = 0 }))
    end)
end)

describe("sagan.show", function()
    local show = require "sagan.show"
    setup(helper.start)
    teardown(function()
        show.last = nil
        helper.finish()
    end)

    it("knows pictures by their looks", function()
        local function looks(shape, dtype) return show.is_picture(core.zeros(shape, { dtype = dtype or "u8" })) end
        assert.is_true(looks { 8, 8, 3 })
        assert.is_true(looks { 5, 8, 9, 1 })
        assert.is_false(looks { 7, 8, 3 })        -- rather numbers
        assert.is_false(looks { 8, 8, 2 })
        assert.is_false(looks({ 8, 8, 3 }, "f32")) -- could be anything
        assert.is_false(looks { 8, 8 })
        assert.is_false(show.is_picture "x.png")
        local released = core.zeros({ 8, 8, 3 }, { dtype = "u8" })
        released:release()
        assert.is_false(show.is_picture(released))
    end)

    it("makes a picture of images, batches, maps and files", function()
        local picture, text = show.picture(core.full({ 9, 5, 3 }, -1)) -- f32 in [-1, 1]
        assert.equal("picture 5 x 9 RGB", text)
        assert.equal(("\0"):rep(135), picture:bytes())
        assert.equal(("\255"):rep(135), show.picture(core.full({ 9, 5, 3 }, 1)):bytes())
        picture, text = show.picture(core.full({ 1, 9, 5, 1 }, 7, { dtype = "u8" }))
        assert.equal("picture 5 x 9 grey", text)
        assert.same({ 9, 5, 1 }, picture.shape)
        picture, text = show.picture(core.zeros({ 12, 8, 8, 1 }, { dtype = "u8" }))
        assert.equal("12 pictures 8 x 8 grey", text)
        local h, w = picture:size(1), picture:size(2)
        local columns = (w - 1) // 9
        assert.equal(9 * columns + 1, w) -- pad 1 around and between
        assert.equal(9 * ((12 + columns - 1) // columns) + 1, h)
        assert.equal("64 of 100 pictures 8 x 8 grey", select(2, show.picture(core.zeros({ 100, 8, 8, 1 }, { dtype = "u8" }))))
        picture, text = show.picture(core.arange(12):reshape(3, 4))
        assert.equal("map 4 x 3", text)
        assert.same({ 3, 4, 3 }, picture.shape)
        local path = os.tmpname() .. ".png"
        assert(image.write(path, image.blank(6, 7, 3)))
        assert.equal("picture 7 x 6 RGB", select(2, show.picture(path)))
        os.remove(path)
    end)

    it("says why something is none", function()
        local function reason(value)
            local picture, message = show.picture(value)
            assert.is_nil(picture)
            return message
        end
        assert.equal("a number is no picture", reason(5))
        assert.matches("/nonexistent.png: cannot open", reason "/nonexistent.png")
        assert.matches("this is f32 {4}", reason(core.zeros(4)))
        assert.matches("this is f32 {2, 8, 8, 5}", reason(core.zeros(2, 8, 8, 5)))
        assert.matches("this is i32 {8, 8}", reason(core.zeros({ 8, 8 }, { dtype = "i32" })))
        assert.matches("terminal_picture_spec.lua:%d+: a number is no picture", helper.message_of(function()
            show(5)
            return 1
        end))
    end)
end)
