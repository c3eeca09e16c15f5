-- The row of the paper's table comes from Miyato and Koyama, who compared heads within their own networks and training. The
-- class head names fakes in D's loss too, as Odena et al. have it; auxiliary.d_on_fake=false is StudioGAN's ACGAN-Mod.
local function with_class_head(values)
    local copy = {}
    for key, value in pairs(values) do copy[key] = value end
    copy.model = { d_head = "auxiliary" }
    for key, value in pairs(values.model) do copy.model[key] = value end
    return copy
end

return {
    doc = "Auxiliary classifier (Odena et al. 2017) in place of the projection; everything else as in sngan_projection.",
    values = with_class_head(require("sagan.recipes.sngan_projection").values),
}
