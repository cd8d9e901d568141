-- For wrk: every request writes another key of 16 bytes with a value of 24 bytes.
local next_key = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
function request()
  next_key = next_key + 1
  return wrk.format(nil, "/set", nil,
    string.format('{"k":"%016d","v":"%024d","ttl_ms":-1}', next_key, next_key))
end
