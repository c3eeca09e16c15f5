--- Turns an error into the text that a user needs: the line of the script first, then the calls, with runs of library
-- frames folded. SAGAN_TRACEBACK=full shows every frame.
--
--     xpcall(f, require "sagan.traceback")

local here = debug.getinfo(1, "S").source:match("^@(.*)traceback%.lua$") or "\0"

local function is_library(info) return info.source:sub(1, #here + 1) == "@" .. here or info.source == "=sagan" end

local function position(info) return ("%s:%d"):format(info.short_src, info.currentline) end

local function describe(info)
    if info.what == "main" then return "in main chunk" end
    if info.name then return ("in %s '%s'"):format(info.namewhat == "method" and "method" or "function", info.name) end
    return ("in function <%s:%d>"):format(info.short_src, info.linedefined)
end

--- "nn/conv.lua:12" for a library frame
local function library_position(info) return ("%s:%d"):format(info.source:sub(#here + 2), info.currentline) end

local function collect(level)
    local frames = {}
    while true do
        local info = debug.getinfo(level, "Slnt")
        if not info then return frames end
        frames[#frames + 1] = info
        level = level + 1
    end
end

--- The part of the message after "file:line: ", and whether that file belongs to the library.
local function split(message, frames)
    local file, line, rest = message:match("^(.-):(%d+): (.*)$")
    if not file then return message, false, nil end
    for _, info in ipairs(frames) do
        if info.short_src == file then
            local inside = is_library(info)
            return inside and rest or message, true, inside and ("%s:%s"):format(info.source:sub(#here + 2), line) or nil
        end
    end
    return message, file:find("[/.%]]") ~= nil, nil
end

-- What no line of a script is to blame for: memory and the device.
local OF_THE_MACHINE <const> = { "out of memory on %a+: ", "out of memory for scratch", " failed on cuda: ", "device '%a+' failed: ",
    "cannot replay a captured step: " }

local function of_the_machine(message)
    for _, pattern in ipairs(OF_THE_MACHINE) do
        if message:find(pattern) then return true end
    end
    return false
end

return function(err)
    if type(err) ~= "string" then
        local meta = getmetatable(err)
        if not (meta and meta.__tostring) and type(err) ~= "number" then
            err = ("(error object is a %s value)"):format(type(err))
        end
        err = tostring(err)
    end
    local full = os.getenv("SAGAN_TRACEBACK") == "full"
    local frames = collect(3)
    -- What runs the script is of no interest: everything from the program's own call on.
    for i, info in ipairs(frames) do
        if info.what == "C" and info.name == "call" and frames[i + 1] and is_library(frames[i + 1])
            and not full then
            for j = #frames, i, -1 do frames[j] = nil end
            break
        end
    end
    local script
    for _, info in ipairs(frames) do
        if info.what ~= "C" and not is_library(info) then
            script = info
            break
        end
    end
    local message, placed, raised_at = split(err, frames)
    if script and (raised_at or not placed) then message = ("%s: %s"):format(position(script), message) end
    if raised_at and not script and not full and of_the_machine(message) then return message end
    if raised_at and not script then message = err end

    local lines = { message }
    local run, run_first, run_last = 0, nil, nil
    local function flush()
        if run > 0 then
            local where = run_first == run_last and run_first or ("%s ... %s"):format(run_first, run_last)
            lines[#lines + 1] = ("    (%d in the library: %s)"):format(run, where)
        end
        run, run_first, run_last = 0, nil, nil
    end
    for i, info in ipairs(frames) do
        local library = info.what ~= "C" and is_library(info)
        -- A C function counts to the library when a library frame called it.
        if info.what == "C" and frames[i + 1] and frames[i + 1].what ~= "C" then library = is_library(frames[i + 1]) end
        if library and script and not full then
            run = run + (info.what == "C" and 0 or 1)
            if info.what ~= "C" then
                run_first = run_first or library_position(info)
                run_last = library_position(info)
            end
        else
            flush()
            if info.what == "C" then
                if info.name and info.name ~= "error" then lines[#lines + 1] = ("    [C]: in '%s'"):format(info.name) end
            else
                lines[#lines + 1] = ("    %s: %s"):format(position(info), describe(info))
            end
            if info.istailcall then lines[#lines + 1] = "    (...tail calls...)" end
        end
    end
    flush()
    return table.concat(lines, "\n")
end
