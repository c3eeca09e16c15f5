-- Loaded by busted before every spec file (--helper): whatever the spec does, no tensor and no storage may be alive at its end.

local helper = require "helper"
local busted = require "busted"

helper.start()
busted.subscribe({ "suite", "end" }, function()
    local ok, message = pcall(helper.finish)
    if not ok then
        io.stderr:write(tostring(message), "\n")
        os.exit(1)
    end
    return nil, true
end)
