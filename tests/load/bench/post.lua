-- Makes wrk send the benchmark's events one by one, each with the time at which it was last made ready.
-- Arguments: a file with an event a line, up to the text of its timestamp; the token.
local heads, ready, made, count, at = {}, {}, {}, 0, 0
local second, stamp, unlooked = 0, "", 0
local LOOK_EVERY = 64 -- requests between two looks at the clock

function init(arguments)
  local http = "POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    .. "Authorization: Bearer " .. arguments[2] .. "\r\nContent-Length: %d\r\n\r\n%s"
  for line in io.lines(arguments[1]) do
    count = count + 1
    heads[count] = string.format(http, #line + 29, line)
    made[count] = 0
  end
end

function request()
  if unlooked == 0 then
    unlooked = LOOK_EVERY
    local now = os.time()
    if now ~= second then
      second, stamp = now, os.date("!%Y-%m-%dT%H:%M:%S.", now)
    end
  end
  unlooked, at = unlooked - 1, at % count + 1
  if made[at] ~= second then
    made[at], ready[at] = second, heads[at] .. stamp .. string.format("%06d", at) .. 'Z"}'
  end
  return ready[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"answers": %d, "seconds": %f, "failed": %d, "p50_ms": %f, "p99_ms": %f}\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
