--- require "sagan": the engine and its Lua library as one table.
--
--     local sagan = require "sagan"
--     local x = sagan.tensor{{1, 2}, {3, 4}}
--     local G = sagan.models.generator(config)
--
-- Everything of sagan.core is here; the modules under scripts/sagan are loaded when they are first named.
local core = require "sagan.core"

local sagan = {}
for name, value in pairs(core) do sagan[name] = value end
sagan.metrics = nil -- sagan/metrics.lua stands before that part of core

--- A run folder to look at: sagan.open "runs/feat32" (sagan/run.lua).
---@param path string
---@param options? sagan.OpenOptions
---@return sagan.OpenRun? run
---@return string? message
function sagan.open(path, options) return require "sagan.run".open(path, options) end

--- Every name that a module or folder of modules below `prefix` could be asked for by, for the hint and for completion.
local function names_below(prefix, known)
    local names = {}
    for name in pairs(known) do names[#names + 1] = name end
    local init = package.searchpath("sagan.init", package.path)
    local folder = init and init:gsub("init%.lua$", "") .. prefix:gsub("^sagan%.?", ""):gsub("%.", "/")
    for _, file in ipairs(folder and core.system and core.system.list(folder) or {}) do
        local name = file:gsub("%.lua$", "")
        if name ~= "init" and name ~= "meta" then names[#names + 1] = name end
    end
    return names
end

--- A table that requires prefix.<name> when the field is first read. The metatable's __names lists what could be read.
local function lazy(table, prefix)
    return setmetatable(table, {
        __names = function(self) return names_below(prefix, self) end,
        __index = function(self, name)
            if type(name) ~= "string" then return nil end
            local full = prefix .. "." .. name
            local value
            if package.loaded[full] or package.preload[full] or package.searchpath(full, package.path) then
                value = require(full)
            elseif name == "models" or name == "recipes" or name == "commands" then
                value = lazy({}, full) -- a folder without a module of its own
            else
                local near = require "sagan.nearest"(name, names_below(prefix, self))
                error(("%s has no '%s'%s"):format(prefix, name, near and (" (did you mean '%s'?)"):format(near) or ""), 2)
            end
            rawset(self, name, value)
            return value
        end,
    })
end

return lazy(sagan, "sagan")
