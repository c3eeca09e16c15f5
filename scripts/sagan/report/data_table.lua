--- data_table.lua - a table with its caption, in a box of its own that scrolls sideways where the page is too narrow.
local html = require "sagan.report.html"

local e = html.element

--- A table. Heads are texts, or { text, "num" } for columns of numbers.
---@param o {class: string?, style: string?, caption: any, columns: any, head: any[], rows: sagan.report.Node[]}
---@return sagan.report.Node
return function(o)
    local head = {}
    for i, cell in ipairs(o.head) do
        local text, class = cell, nil
        if type(cell) == "table" then text, class = cell[1], cell[2] end
        head[i] = e("th", { scope = "col", class = class }, text)
    end
    -- the box can be scrolled with the keyboard
    return e("div", { class = "scroll", tabindex = "0" }, e("table", { class = o.class, style = o.style },
        e("caption", {}, e("div", {}, o.caption)), o.columns, e("thead", {}, e("tr", {}, head)), e("tbody", {}, o.rows)))
end
