--- Recipes: the science of a run as data. A recipe names only what differs from the defaults in fields.lua, which are
--- the paper's. Batch and steps in it are its authors' own: profile=paper keeps them, the smaller profiles replace them.

local nearest = require "sagan.nearest"

local recipes = {}

--- In the order of print.
recipes.names = {
    "paper", "paper_v2", "tf_official", "biggan_pytorch", "studiogan", "mimicry", "sngan_projection", "acgan", "gan",
}

---@class sagan.Recipe
---@field name string
---@field doc string
---@field values table  fields, nested

--- A recipe by its name.
---@param name string
---@return sagan.Recipe
function recipes.get(name)
    for _, known in ipairs(recipes.names) do
        if known == name then
            local recipe = require("sagan.recipes." .. name)
            recipe.name = name
            return recipe
        end
    end
    local near = nearest(tostring(name), recipes.names)
    error(("there is no recipe '%s'%s (%s)"):format(tostring(name),
        near and ("; did you mean '%s'?"):format(near) or "", table.concat(recipes.names, ", ")), 0)
end

return recipes
