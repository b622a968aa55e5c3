"""Publishes as Laravel's Redis broadcaster does (a script of PUBLISH commands, sent by EVAL):
PORT, then a JSON list of [[channel, ...], event, data]; channels carry their prefix."""

import json
import sys

import redis

BROADCAST = """for i = 2, #ARGV do
  redis.call('publish', ARGV[i], ARGV[1])
end
"""

client = redis.Redis(port=int(sys.argv[1]))
for channels, event, data in json.loads(sys.argv[2]):
    payload = json.dumps({"event": event, "data": data, "socket": None}, separators=(",", ":"))
    # PHP's json_encode escapes slashes.
    client.eval(BROADCAST, 0, payload.replace("/", "\\/"), *channels)
