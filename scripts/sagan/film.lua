--- film.lua - the progress of a training as an animation: the sheets that the run drew (samples/ema-*.png, or raw-*.png where
--- it keeps no average), one after the other, each with its step.
local core = require "sagan.core"
local pictures = require "sagan.pictures"
local image, system = core.image, core.system

local film = {}

local STRIP <const>, PAPER <const>, INK <const> = 12, { 255, 255, 255 }, { 32, 32, 32 }
local LONG <const> = 8 -- how often the last frame is shown before it begins again

--- The sheets of one kind: step and path, in order.
local function sheets(folder, kind)
    local found = {}
    for _, name in ipairs(system.list(folder .. "/samples") or {}) do
        local step = name:match("^" .. kind .. "%-(%d+)%.png$")
        if step then found[#found + 1] = { step = tonumber(step), path = folder .. "/samples/" .. name } end
    end
    return found
end

--- Writes the animation.
---@param folder string  a run folder
---@param file string    ends in .gif
---@param options? {raw: boolean?, seconds: number?}  seconds from one sheet to the next, 0.2
---@return integer? frames
---@return string? message
function film.write(folder, file, options)
    local o = options or {}
    local list = sheets(folder, o.raw and "raw" or "ema")
    if #list == 0 then list = sheets(folder, "raw") end
    if #list == 0 then return nil, folder .. ": no sheets in samples/ yet; sample.every says how often a run draws them" end
    local frames, size = {}, nil
    for i = #list, 1, -1 do -- the last sheet gives the size; fields of the sheet may have changed while the run went on
        local sheet, message = image.read(list[i].path, 3)
        if not sheet then return nil, message end
        size = size or sheet.shape
        if sheet:size(1) == size[1] and sheet:size(2) == size[2] then
            local frame = image.blank(size[1] + STRIP, size[2], 3, PAPER)
            image.paste(frame, sheet, 1, 1)
            image.text(frame, 3, size[1] + 3, "step " .. list[i].step, 1, INK)
            table.insert(frames, 1, frame)
        end
    end
    local count = #frames
    for _ = 2, LONG do frames[#frames + 1] = frames[count] end
    local ok, message = image.write_gif(file, pictures.stack(frames), o.seconds)
    if not ok then return nil, message end
    return count
end

return film
