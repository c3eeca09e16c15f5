--- The word of a list that a mistyped word was probably meant to be.
-- Used wherever an unknown name is refused: ops, options, config keys, commands.

--- Edits (insert, delete, replace, swap of neighbours) that turn a into b.
local function distance(a, b)
    local older, previous
    local row = {}
    for j = 0, #b do row[j] = j end
    for i = 1, #a do
        older, previous, row = previous, row, { [0] = i }
        for j = 1, #b do
            local cost = a:byte(i) == b:byte(j) and 0 or 1
            local best = math.min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + cost)
            if older and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
                best = math.min(best, older[j - 2] + 1)
            end
            row[j] = best
        end
    end
    return row[#b]
end

--- nearest(word, list) -> the nearest entry, or nil when none is near enough to be worth naming.
-- Letter case does not count; a word that is the start of exactly one entry, or contains it, is near.
return function(word, list)
    local wanted = word:lower()
    local best, best_score
    for _, name in ipairs(list) do
        local candidate = name:lower()
        local score = distance(wanted, candidate)
        local limit = math.max(1, math.max(#wanted, #candidate) // 3)
        local part = #wanted >= 3 and (candidate:find(wanted, 1, true) or (#candidate >= 3 and wanted:find(candidate, 1, true)))
        if score > limit and part then score = limit end
        if score <= limit and (not best or score < best_score or (score == best_score and name < best)) then
            best, best_score = name, score
        end
    end
    return best
end
