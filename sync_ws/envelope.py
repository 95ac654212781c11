"""The JSON envelope on the wire: ``{"ModeCode": ..., "msg": ...}``.

Why so: it is the wire format of the browser page and of every server of its kind, node's ``ws`` echo included, so a
heartbeat in it works with any peer that sends messages back.  An application may send anything else, too.

Threading: pure functions.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .errors import MessageError

__all__ = ["HEART_BEAT_MARK", "Envelope", "ModeCode", "decode", "dumps", "encode", "is_heart_beat", "loads"]

HEART_BEAT_MARK = '"heart_beat"'  # what every heartbeat contains: a cheap test before the JSON is looked at


class ModeCode:
    """The kinds of message there are."""

    MESSAGE = "message"
    HEART_BEAT = "heart_beat"
    ERROR = "error"


class Envelope(NamedTuple):
    """A decoded message: its ModeCode, and what it carries."""

    mode: str
    msg: Any


def dumps(value: Any) -> str:
    """``value`` as compact JSON text; MessageError if it has no JSON form (NaN and infinities have none)."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise MessageError(f"expected a value with a JSON form: {exc}") from exc


def loads(message: str | bytes) -> Any:
    """The value of a JSON text message; MessageError for a binary message or bad JSON."""
    if not isinstance(message, str):
        raise MessageError(f"expected a text message with JSON, got a binary one of {len(message)} bytes")
    try:
        return json.loads(message)
    except (ValueError, RecursionError) as exc:
        raise MessageError(f"expected JSON: {exc}") from exc


def encode(mode: str, msg: Any) -> str:
    """The envelope as text, ready to send; MessageError if ``msg`` has no JSON form."""
    return dumps({"ModeCode": mode, "msg": msg})


def decode(message: str | bytes) -> Envelope:
    """The envelope in a message; MessageError says what was expected when it is none."""
    value = loads(message)
    if not isinstance(value, dict) or not isinstance(value.get("ModeCode"), str):
        example = '{"ModeCode":"message","msg":"hello"}'
        raise MessageError(f'expected a JSON object with a "ModeCode" string, such as {example}')
    return Envelope(value["ModeCode"], value.get("msg"))


def is_heart_beat(message: str) -> bool:
    """Whether a text message is a heartbeat; never raises."""
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("ModeCode") == ModeCode.HEART_BEAT
