"""Publishes with django-sse-wrapper: PORT, then a JSON list of calls [event, data, channel]."""

import json
import sys

from django.conf import settings

settings.configure(
    SSE_BACKEND_CLASS="sse_wrapper.backends.redis_based.RedisBasedBackend",
    SSE_BACKEND_CONNECTION_SETTINGS={"host": "127.0.0.1", "port": int(sys.argv[1])},
)

from sse_wrapper.events import send_event  # noqa: E402 (reads the settings when imported)

for event, data, channel in json.loads(sys.argv[2]):
    send_event(event, data, channel)
