--- Sequential: modules or plain functions, one after the other; modules are named "1", "2", ... by position: layer1, ...

local Module = require "sagan.nn.module"

---@class sagan.nn.Sequential: sagan.nn.Module
---@overload fun(steps: (sagan.nn.Module|fun(x: any): any)[]): sagan.nn.Sequential
local Sequential = Module.class("Sequential")

---@param steps (sagan.nn.Module|fun(x: any): any)[]
function Sequential:init(steps)
    self.steps = {}
    for i, step in ipairs(steps) do
        if type(step) ~= "function" then self:add("layer" .. i, step) end
        self.steps[i] = step
    end
end

function Sequential:forward(x)
    for _, step in ipairs(self.steps) do x = step(x) end
    return x
end

return Sequential
