--- page.lua - the page: from groups to one HTML document that holds all it needs.
local html = require "sagan.report.html"
local format = require "sagan.report.format"
local sections = require "sagan.report.sections"
local pictures = require "sagan.report.pictures"
local style = require "sagan.report.style"

local e = html.element

local page = {}

-- The page asks nobody for anything, and nothing in it runs.
local POLICY <const> = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

local function new_state(options)
    local id = 0
    return {
        budget = pictures.budget(options.bytes or 8e6), band = options.band, prints = {},
        next_id = function()
            id = id + 1
            return "x" .. id
        end,
    }
end

-- How everything was measured, fingerprint by fingerprint.
local function footnotes(state)
    if #state.prints == 0 then return nil end
    local items = {}
    for i, f in ipairs(state.prints) do
        local notes = {}
        for note in pairs(f.notes) do notes[#notes + 1] = note end
        table.sort(notes)
        for k, note in ipairs(notes) do notes[k] = e("small", {}, "Note: " .. note) end
        items[i] = e("li", { id = "print-" .. f.letter }, e("b", {}, "Fingerprint " .. f.letter .. ". "), f.text, ".", notes)
    end
    return e("section", { id = "measured" }, e("h2", {}, "How the scores were measured"),
        e("p", {}, "A score means something only together with how it was measured. Scores of unlike fingerprints are nowhere "
            .. "put side by side."), e("ul", { class = "prints plain" }, items))
end

local function left_out(state)
    local items = {}
    for i, path in ipairs(state.budget.left_out) do items[i] = e("li", {}, path) end
    return #items > 0 and { e("p", {}, ("%s left out, for the size of the page (--megabytes allows more):"):format(
        format.count(#items, "picture"))), e("ul", {}, items) }
end

local function document(title, header, body, footer)
    return e("html", { lang = "en" },
        e("head", {}, e("meta", { charset = "utf-8" }),
            e("meta", { ["http-equiv"] = "Content-Security-Policy", content = POLICY }),
            e("meta", { name = "viewport", content = "width=device-width, initial-scale=1" }),
            e("meta", { name = "color-scheme", content = "light dark" }), e("link", { rel = "icon", href = "data:," }),
            e("title", {}, title), e("style", {}, style)),
        e("body", {}, e("header", {}, header), e("main", {}, body), e("footer", {}, footer)))
end

--- The page of several groups.
---@param groups sagan.report.Group[]
---@param options {bytes: number?, band: string?, title: string?, made: string?}  bytes of pictures; made: the last line
---@return string html
---@return {pictures: integer, left_out: string[]} info
function page.render(groups, options)
    local state = new_state(options)
    local single = #groups == 1
    local title = single and groups[1].name or options.title or "Report"
    local header, body = {}, {}
    for i, group in ipairs(groups) do
        local parts, links = sections.of(state, group, single and "" or ("g%d-"):format(i))
        local kicker, question = sections.kicker(group), group.question ~= "" and e("p", { class = "question" }, group.question)
        local menu = e("nav", { ["aria-label"] = "Sections of " .. group.name }, e("ul", {}, links))
        if single then
            header, body[1] = { kicker, e("h1", {}, title), question, menu }, parts
        else
            body[i] = e("article", { class = "study", id = "g" .. i }, e("h2", {}, group.name), kicker,
                e("p", { class = "kicker" }, e("code", {}, group.path)), question, menu, parts)
            header[i] = e("li", {}, e("a", { href = "#g" .. i }, group.name), question and ": " .. group.question)
        end
    end
    if not single then header = { e("h1", {}, title), e("ul", {}, header) } end
    body[#body + 1] = footnotes(state)
    local text = html.document(document(title, header, body, { left_out(state), e("p", {}, options.made or "") }))
    return text, { pictures = state.budget.used, left_out = state.budget.left_out }
end

return page
