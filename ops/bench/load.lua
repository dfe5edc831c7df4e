-- What wrk runs: posts kicks in turn, and prints the result as one line of JSON.
--
-- wrk ... URL -- FILE KEY: the file holds the body of one kick a line, the key goes into X-API-Key.

local requests = {}
local sent = 0

-- All requests are put together beforehand: while wrk measures, Lua only hands out strings.
function init(arguments)
  local headers = { ["Content-Type"] = "application/json", ["X-API-Key"] = arguments[2] }
  for body in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, body)
  end
end

function request()
  sent = sent % #requests + 1
  return requests[sent]
end

-- Times are in microseconds; wrk counts as `status` the answers above 399.
function done(summary, latency)
  local errors, seconds = summary.errors, summary.duration / 1e6
  local form = '\n{"requests": %d, "errors": %d, "throughput": %.6f, '
    .. '"p50_ms": %.4f, "p90_ms": %.4f, "p99_ms": %.4f, "max_ms": %.4f}\n'
  io.write(string.format(form, summary.requests,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout, summary.requests / seconds,
    latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
