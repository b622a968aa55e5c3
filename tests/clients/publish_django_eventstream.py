"""Publishes with django-eventstream: PORT, then a JSON list of [channel, event_type, data]."""

import json
import sys

import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["django_eventstream"],
    EVENTSTREAM_REDIS={"host": "127.0.0.1", "port": int(sys.argv[1]), "db": 0},
    SECRET_KEY="tests",
)
django.setup()

from django_eventstream import send_event  # noqa: E402 (reads the settings when imported)

for channel, event_type, data in json.loads(sys.argv[2]):
    send_event(channel, event_type, data)
