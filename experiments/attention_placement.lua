local sagan = require "sagan"

local arms = {}
for _, form in ipairs { "slides", "residual" } do
    for _, size in ipairs { 8, 16, 32, 64 } do
        arms[#arms + 1] = {
            name = (form == "residual" and "residual_" or "") .. "feat" .. size,
            attention = size, model = { attention = { form = form } },
        }
    end
end

-- The paper's table 1, all nine columns.
return sagan.ablation {
    name = "attention_placement",
    question = "Where does attention help, and is it more than the parameters that it adds?",
    base = { name = "none", recipe = "paper", attention = "none" },
    arms = arms,
    published = "paper.attention_placement",
}
