-- corecast: reads histories, in pages that are bounded in bytes where they are made.
--
-- page     KEYS  corecast:{CHANNEL}
--          ARGV  FROM  TO  MAX_BYTES  MAX_ENTRIES  MAX_EVENT_BYTES
--   The entries behind FROM, up to TO, oldest first: as many as fit. The answer has three parts:
--     how it ends   `end`: all of them are there; `more`: there are more, or may be; `big`: the
--                   first does not fit, though its data is no longer than MAX_EVENT_BYTES, and none
--                   is there
--     what else     of `end` without entries: id and p of the oldest entry of the stream, if any;
--                   of `big`: the MAX_BYTES that it takes
--     the entries   id, p, e or nothing, d; where d is longer than MAX_EVENT_BYTES its length as a
--                   number; of an entry that is no event, or has a p or e that none has, its id alone
--
-- newest   KEYS  any number of corecast:{CHANNEL}
--          ARGV  [COUNT]
--   For each key the p of the oldest entry that is told, and the ids of the COUNT newest, newest
--   first; nothing where there are none, an error's text where the key holds something else.
--
-- Entries are taken in small steps, more at a time while they are small: what is not told is hardly
-- read.
local STEP_BYTES = 65536

-- What is left out has to be read all the same, a millisecond for each MiB: enough of it ends a
-- page.
local LEFT_OUT_BYTES = 4194304

-- What an event's p and e have at most.
local ID_BYTES, TYPE_BYTES = 41, 1024

local function fields_of(entry)
  local fields, p, e, d, bytes = entry[2], nil, '', nil, 0
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    bytes = bytes + #name + #value
    if name == 'p' then p = value
    elseif name == 'e' then e = value
    elseif name == 'd' then d = value
    end
  end
  if p and (#p > ID_BYTES or #e > TYPE_BYTES) then
    p = nil
  end
  return p, e, d, bytes
end

-- How many entries the next step takes, of which `most` are wanted, after one of so many bytes.
local function next_step(step, step_bytes, most)
  local fit = math.floor(STEP_BYTES * step / (step_bytes + 1))
  return math.max(1, math.min(step * 4, 256, fit, most))
end

local function page(keys, arguments)
  local from, to = '(' .. arguments[1], arguments[2]
  local bytes_max, entries_max = tonumber(arguments[3]), tonumber(arguments[4])
  local event_bytes_max = tonumber(arguments[5])
  local answer, bytes, left_out, step = {}, 0, 0, 2
  while true do
    local entries = redis.call('XRANGE', keys[1], from, to, 'COUNT', step)
    local step_bytes = 0
    for i = 1, #entries do
      local id = entries[i][1]
      local p, e, d, whole = fields_of(entries[i])
      local told, size, given = { id }, #id + 32, 0
      if p and d then
        given = #p + #e
        if #d > event_bytes_max then
          told = { id, p, e, #d }
        else
          told, given = { id, p, e, d }, given + #d
        end
      end
      size = size + given
      step_bytes = step_bytes + whole
      left_out = left_out + whole - given
      if bytes + size > bytes_max or #answer >= entries_max then
        if #answer == 0 and bytes + size > bytes_max then
          return { 'big', { string.format('%.0f', size) }, {} }
        end
        return { 'more', {}, answer }
      end
      bytes = bytes + size
      answer[#answer + 1] = told
      from = '(' .. id
      if left_out >= LEFT_OUT_BYTES then
        return { 'more', {}, answer }
      end
    end
    if #entries < step then
      break
    end
    step = next_step(step, step_bytes, 256)
  end
  local oldest = {}
  if #answer == 0 then
    local first = redis.call('XRANGE', keys[1], '-', '+', 'COUNT', 1)[1]
    if first then
      oldest = { first[1], fields_of(first) or first[1] }
    end
  end
  return { 'end', oldest, answer }
end

local function newest(keys, arguments)
  local count = tonumber(arguments[1] or 1)
  local answer = {}
  for k = 1, #keys do
    local told, to, step = {}, '+', math.min(count, 2)
    while #told <= count do
      local entries = redis.pcall('XREVRANGE', keys[k], to, '-', 'COUNT', step)
      if entries.err then
        told = entries.err
        break
      end
      local step_bytes = 0
      for i = 1, #entries do
        local id = entries[i][1]
        local p, _, _, whole = fields_of(entries[i])
        told[1] = p or id
        told[#told + 1] = id
        step_bytes = step_bytes + whole
        to = '(' .. id
      end
      if #entries < step then
        break
      end
      step = next_step(step, step_bytes, count - #told + 1)
    end
    answer[k] = told
  end
  return answer
end
