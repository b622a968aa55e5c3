-- corecast: publishes an event, and keeps it for streams that come back. All in one step.
--
--   KEYS  corecast:{CHANNEL}  corecast:clock
--   ARGV  CHANNEL  MAXLEN  TTL_MS  DATA  [EVENT  [MAX_BYTES]]
--   The answer is the id of the event, ms-seq. DATA that is longer than MAX_BYTES is refused.
--
-- An event is sent and kept, or neither. Whether its publisher may do all that this takes is asked
-- before anything is written, or, before Redis 7, found out by sending it before it is kept. Should
-- keeping fail then, the error says so, and of events up to that one nothing is known.
--
-- Ids grow over all channels. The clock is a stream of one entry: the id of the newest event, and
-- fields that say how much of what was published can be relied on to be found:
--   since    Of events up to this id nothing is known. It is where the clock began, or the last
--            id before Redis was found to have evicted keys, which may have been ours.
--   ttl      The shortest TTL_MS since then: no later event was lost while it was younger.
--   evicted  Keys that Redis had evicted by then.
--   hole     Of events between this id and the one before it in a channel nothing is known: one was
--            sent that could not be kept.
--
-- Each channel has a stream of its events: p, e (if there is an EVENT) and d. Subscribers get
-- NUL id SP [<]p [SP EVENT] LF DATA.
--
-- p promises: no event of this channel has, or ever had, an id between p and the event's own. It
-- is the event before, or, if that was not kept, the latest id that a lost one can have had; then
-- subscribers see < before it. So a stream that has everything up to an id of at least p has missed
-- nothing before this event, and a subscriber who did not get the event p has lost something.
local function publish(keys, arguments)
  local function refuse(problem)
    return redis.error_reply('ERR corecast_publish: ' .. problem)
  end
  local function whole(text)
    return #text <= 15 and text:find('^[1-9]%d*$') and tonumber(text)
  end
  local function parse(text)
    local ms, seq = text:match('^(%d+)-(%d+)$')
    return { tonumber(ms), tonumber(seq) }
  end
  local function show(id)
    return string.format('%.0f-%.0f', id[1], id[2])
  end
  local function later(one, other)
    local is_later = one[1] > other[1] or one[1] == other[1] and one[2] > other[2]
    return is_later and one or other
  end
  local function newest(key)
    return redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  end

  if #keys ~= 2 or #arguments < 4 or #arguments > 6 then
    return refuse('expected 2 keys, then CHANNEL MAXLEN TTL_MS DATA [EVENT [MAX_BYTES]]')
  end
  local channel, data = arguments[1], arguments[4]
  local maxlen, ttl = whole(arguments[2]), whole(arguments[3])
  local event = (arguments[5] or ''):gsub('[%z\r\n]', '')
  local bytes_max = whole(arguments[6] or '1048576')
  if keys[1] ~= 'corecast:{' .. channel .. '}' or keys[2] ~= 'corecast:clock' then
    return refuse('the keys must be corecast:{CHANNEL} and corecast:clock')
  elseif not maxlen then
    return refuse('MAXLEN must be a whole number above 0')
  elseif not ttl then
    return refuse('TTL_MS must be a whole number above 0')
  elseif not bytes_max then
    return refuse('MAX_BYTES must be a whole number above 0')
  elseif #data > bytes_max then
    local lengths = string.format('%.0f bytes, and no more than %.0f', #data, bytes_max)
    return refuse('DATA has ' .. lengths .. ' are kept')
  elseif #event > 1024 then
    return refuse('EVENT must not be longer than 1024 bytes')
  end

  local asks = redis.acl_check_cmd
  local function may(name, ...)
    if not asks or asks(name, ...) then return end
    return redis.error_reply('NOPERM corecast_publish: this user may not ' .. name .. ' ' .. (...))
  end
  local refusal = may('PUBLISH', channel, '')
    or may('XADD', keys[2], 'MAXLEN', '1', '*', 'since', '')
    or may('XADD', keys[1], 'MAXLEN', '~', '1', '*', 'd', '')
    or may('PEXPIREAT', keys[1], '1')
  if refusal then
    return refusal
  end

  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local entry, clock = newest(keys[1]), newest(keys[2])
  local previous = entry and parse(entry[1])

  -- The last id that was given, as far as anything here remembers. A clock that is missing, or
  -- behind the channel, was lost: what was published with the old one may be lost too.
  local last = clock and parse(clock[1]) or { now, 0 }
  local trusted = clock and clock[2][5] == 'evicted'
  if previous and later(previous, last) ~= last then
    last, trusted = previous, false
  end
  -- What is missing may have been evicted, and other events with it. It is asked only then, for it
  -- takes as long as the rest.
  local evicted = trusted and clock[2][6]
  if not (previous and evicted) then
    local count = redis.call('INFO', 'stats'):match('evicted_keys:(%d+)') or '0'
    trusted, evicted = trusted and count == evicted, count
  end
  local since = trusted and parse(clock[2][2]) or last
  local shortest = trusted and tonumber(clock[2][4]) or ttl

  local hole = clock and clock[2][7] == 'hole' and parse(clock[2][8])
  if previous and hole and later(hole, previous) == hole then
    entry, previous = nil, hole
  end

  -- Also where the time of day was set back, or another node's is behind.
  local id = now > last[1] and { now, 0 } or { last[1], last[2] + 1 }
  -- Without an entry, what there was expired: it is older than the shortest time to live, or than
  -- nine tenths of it where the time of day was set back since.
  if not previous then
    local age = shortest - math.floor(shortest / 10)
    local bound = { math.max(math.max(now, last[1]) - age + 1, 0), 0 }
    previous = later(since, later(bound, last) == last and bound or last)
  end

  local name, before = show(id), show(previous)
  local fields = { 'p', before, 'd', data }
  local head = name .. (entry and ' ' or ' <') .. before
  if event ~= '' then
    fields = { 'p', before, 'e', event, 'd', data }
    head = head .. ' ' .. event
  end
  shortest = string.format('%.0f', math.min(shortest, ttl))
  local function write_clock(newest_id, since_id, hole_id)
    local state = { 'since', since_id, 'ttl', shortest, 'evicted', evicted }
    if hole_id then
      state[7], state[8] = 'hole', hole_id
    end
    redis.call('XADD', keys[2], 'MAXLEN', '1', newest_id, unpack(state))
  end
  write_clock(name, show(since), hole and show(hole))
  local sent = redis.pcall('PUBLISH', channel, '\0' .. head .. '\n' .. data)
  if type(sent) == 'table' and sent.err then
    return sent
  end
  local kept = redis.pcall('XADD', keys[1], 'MAXLEN', '~', arguments[2], name, unpack(fields))
  if type(kept) == 'string' then
    -- By the clock of the ids: whatever the time of day did, an event as old as its id is gone.
    kept = redis.pcall('PEXPIREAT', keys[1], string.format('%.0f', id[1] + ttl))
  end
  if type(kept) == 'table' and kept.err then
    local past = show({ id[1], id[2] + 1 })
    write_clock(past, past, past)
    return redis.error_reply(kept.err .. ' (the event was sent, and is not kept)')
  end
  return name
end
