"""Publishes with flask-sse: PORT, then a JSON list of keyword arguments of `sse.publish`."""

import json
import sys

from flask import Flask
from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = f"redis://127.0.0.1:{int(sys.argv[1])}"
app.register_blueprint(sse, url_prefix="/stream")

with app.app_context():
    for call in json.loads(sys.argv[2]):
        sse.publish(**call)
