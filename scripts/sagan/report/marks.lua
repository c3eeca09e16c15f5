--- marks.lua - how an arm looks in every chart: a colour (class k0 to k8 of style.lua) and a shape, so that it is told apart
--- without colours too.
local html = require "sagan.report.html"

local e = html.element

local marks = {}

--- Colours and shapes before they repeat; the first is neutral, for what the others are compared with.
marks.count = 9

-- around 0, 0; about as large as each other
local SHAPES <const> = {
    [0] = "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0Z",                                 -- circle
    "M-3.1 -3.1H3.1V3.1H-3.1Z",                                                                -- square
    "M0 -4.2L4 2.9H-4Z",                                                                       -- triangle
    "M0 -4.6L4 0L0 4.6L-4 0Z",                                                                 -- diamond
    "M0 4.2L4 -2.9H-4Z",                                                                       -- triangle downwards
    "M-1.5 -4.2H1.5V-1.5H4.2V1.5H1.5V4.2H-1.5V1.5H-4.2V-1.5H-1.5Z",                            -- plus
    "M0 -4.6L1.3 -1.4L4.4 -1.4L1.9 0.6L2.8 3.8L0 1.9L-2.8 3.8L-1.9 0.6L-4.4 -1.4L-1.3 -1.4Z",  -- star
    "M-4.4 -1.9H4.4V1.9H-4.4Z",                                                                -- bar
    "M-1.9 -4.4H1.9V4.4H-1.9Z",                                                                -- upright bar
}

--- The class of an arm's colour.
---@param index integer  from 0
---@return string
function marks.class(index) return "k" .. index % marks.count end

--- An arm's shape.
---@param index integer
---@param x number|string  user units, or a share as "43%"
---@param y number
---@param more? table<string, string>  attributes
---@return sagan.report.Node
function marks.shape(index, x, y, more)
    local attributes = { d = SHAPES[index % marks.count], transform = ("translate(%.1f %.1f)"):format(x, y), class = "mark" }
    for key, value in pairs(more or {}) do attributes[key] = value end
    return e("path", attributes)
end

--- The legend of arms.
---@param arms {name: string, index: integer}[]
---@return sagan.report.Node
function marks.legend(arms)
    local items = {}
    for i, arm in ipairs(arms) do
        items[i] = e("li", { class = marks.class(arm.index) },
            e("svg", { width = 30, height = 12, viewBox = "0 0 30 12", ["aria-hidden"] = "true" },
                e("path", { d = "M1 6H29", class = "line" }), marks.shape(arm.index, 15, 6)),
            arm.name)
    end
    return e("ul", { class = "legend" }, items)
end

return marks
