"""Speaks to a Redis, or to what claims to be one, with redis-py: PORT PASSWORD publish|subscribe|fcall.

An empty PASSWORD sends none. `publish` sends one message alone and two in a pipeline, which
redis-py wraps in MULTI and EXEC, and prints the three answers as one JSON list. `subscribe` prints
each message as a JSON list [channel, data] until one says "end", and "ready" once subscribed.
`fcall` publishes to history and prints the id.
"""

import json
import sys

import redis

port, password, action = int(sys.argv[1]), sys.argv[2] or None, sys.argv[3]
# Messages know no databases, history does.
database = 0 if action == "fcall" else 1
client = redis.Redis(port=port, password=password, db=database, client_name="tests")

if action == "publish":
    answers = [client.publish("orders", "one")]
    pipeline = client.pipeline()
    pipeline.publish("orders", "two")
    pipeline.publish("orders", "three\nlines\n")
    print(json.dumps(answers + pipeline.execute()))
elif action == "fcall":
    keys = ["corecast:{orders}", "corecast:clock"]
    answer = client.fcall("corecast_publish", 2, *keys, "orders", 50, 600000, "one", "state")
    print(answer.decode())
else:
    pubsub = client.pubsub()
    pubsub.subscribe("orders")
    pubsub.psubscribe("stock/*")
    waiting = 2
    for message in pubsub.listen():
        if message["type"] in ("subscribe", "psubscribe"):
            waiting -= 1
            if waiting == 0:
                print("ready", flush=True)
            continue
        data = message["data"].decode()
        print(json.dumps([message["channel"].decode(), data]), flush=True)
        if data == "end":
            break
    pubsub.unsubscribe()
    pubsub.punsubscribe()
    pubsub.close()
client.close()
