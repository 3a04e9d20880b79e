"""The judge over HTTP: uploads in, scores out.

`create_app(load, settings)` is the whole application, `serve(load, settings)` runs it until it is told to stop.
FastAPI, uvicorn and python-multipart are the extra ``serve``; they are imported inside the functions that use them.

Modules
-------
settings  addresses and limits: `Settings`
refusals  what is answered instead of a score: `Refusal`
uploads   a multipart body onto the disk, while counting
sounds    whether an upload is sound, and how much of it
work      the queue in front of the one model: batches, time limits, cancelling
observe   request ids, log lines as JSON
metrics   counters in Prometheus' text format
service   what the routes share: who may come in, and what becomes of their sounds
app       the routes
describe  the OpenAPI document: schemas and examples
page      that document as a page that needs no network
run       uvicorn, and stopping in order
"""

from __future__ import annotations

from judge.server.app import create_app
from judge.server.run import serve
from judge.server.settings import Settings

__all__ = ["Settings", "create_app", "serve"]
