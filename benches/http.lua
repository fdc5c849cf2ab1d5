-- For benches/http.sh: so many requests in flight on each connection, and one line of figures at the end.

function init(args)
    local depth = tonumber(args[1] or "1")
    if depth > 1 then
        local requests = wrk.format():rep(depth)
        request = function() return requests end
    end
end

function done(summary, latency, requests)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format("figures %d %d %d %d %d %d\n", summary.requests, summary.duration, failed,
        latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
