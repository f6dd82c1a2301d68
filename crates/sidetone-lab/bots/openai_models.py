"""Judges messages by the models of OpenAI's own SDK: python openai_models.py < lines

Each line is `{"direction": "client" | "server", "message": {…}}`, and gets one: `{"event": "verdict", "errors": […], "unknown": […]}`, with
what is wrong with the message, and the paths of fields that the models don't know. A sound message has neither.
"""

import json
import sys

from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter, ValidationError

from report import report

MODELS = {"client": TypeAdapter(RealtimeClientEvent), "server": TypeAdapter(RealtimeServerEvent)}


def judge(direction, message):
    adapter = MODELS[direction]
    of_type = {model.model_fields["type"].annotation.__args__[0]: model for model in members(adapter)}
    model = of_type.get(message.get("type"))
    if model is None:
        return [f"type: no {direction} event is called {message.get('type')!r}"], []
    try:
        # Of its own type only: of a union's members, the nearest would be taken.
        return [], [*unknown(model.model_validate(message, strict=True))]
    except ValidationError as error:
        return [f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error.errors()], []


def members(adapter):
    return adapter._type.__origin__.__args__


def unknown(value, path=""):
    """The paths of the fields that a model kept without knowing them."""
    if isinstance(value, BaseModel):
        for name in value.model_extra or {}:
            yield f"{path}{name}"
        for name in type(value).model_fields:
            yield from unknown(getattr(value, name), f"{path}{name}.")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown(item, f"{path}{index}.")


for line in sys.stdin:
    request = json.loads(line)
    errors, extra = judge(request["direction"], request["message"])
    report("verdict", errors=errors, unknown=extra)
