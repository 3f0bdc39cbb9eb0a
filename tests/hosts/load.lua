-- Owns what becomes of each answer under load: counts those that failed, that are of two builds, or of an older build than
-- the one before on the same connection. Each thread must have exactly one connection.
local threads = {}
local names = { "answers", "failed", "mixed", "stale" }

function setup(thread)
    table.insert(threads, thread)
end

function init(args)
    lines = tonumber(args[1])
    answers, failed, mixed, stale, example = 0, 0, 0, 0, ""
    newest = ""
    seen, builds = {}, 0
end

function response(status, headers, body)
    answers = answers + 1
    if status ~= 200 then
        failed = failed + 1
        example = "status " .. status
        return
    end
    local count, first, is_mixed = 0, nil, false
    for line in body:gmatch("[^\n]+") do
        count = count + 1
        first = first or line
        is_mixed = is_mixed or line ~= first
    end
    if is_mixed then
        mixed = mixed + 1
        example = body
    elseif count ~= lines then
        failed = failed + 1
        example = body
    elseif first < newest then
        stale = stale + 1
        example = first .. " after " .. newest
    else
        if first ~= newest then
            builds = builds + 1
        end
        newest = first
    end
end

function done(summary, latency, requests)
    local sums = { builds = 0, example = "" }
    for _, name in ipairs(names) do
        sums[name] = 0
    end
    for _, thread in ipairs(threads) do
        for _, name in ipairs(names) do
            sums[name] = sums[name] + (thread:get(name) or 0)
        end
        sums.builds = math.max(sums.builds, thread:get("builds") or 0)
        local example = thread:get("example") or ""
        if example ~= "" then
            sums.example = example
        end
    end
    local errors = summary.errors
    io.write(string.format(
        '\n{"answers": %d, "failed": %d, "mixed": %d, "stale": %d, "broken": %d, "builds": %d, "seconds": %.1f, "p99_ms": %.1f, "example": %q}\n',
        sums.answers, sums.failed, sums.mixed, sums.stale, errors.connect + errors.read + errors.write + errors.timeout,
        sums.builds, summary.duration / 1e6, latency:percentile(99) / 1e3, (sums.example:gsub("%s+", " "))))
end
