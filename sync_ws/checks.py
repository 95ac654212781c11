"""Checks of what the application gives as an option or an argument: the value itself, or an error that names it.

Why so: whatever is wrong is refused in the line that has it, and in the same words everywhere.

Threading: pure functions.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

__all__ = [
    "CONTROL", "FOREVER", "TOKEN", "check_count", "check_flag", "check_function", "check_pairs", "check_seconds",
    "check_strings", "check_timeout", "check_token", "check_value", "shown",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., object])
FOREVER = 1e10  # seconds: some 300 years
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2; for fullmatch
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # what no header field may hold; a tab is allowed in it


def check_seconds(name: str, value: float, *, zero: bool = False) -> float:
    """``value`` as seconds, or a ValueError that names the parameter: finite and above zero (or zero, if told)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {shown(value)}")
    try:
        seconds = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        seconds = math.inf
    if not math.isfinite(seconds) or seconds < 0 or (seconds == 0 and not zero):
        raise ValueError(f"{name} is a finite number of seconds above zero, not {shown(value)}")
    return seconds


def check_timeout(name: str, value: float | None) -> float | None:
    """How long one call may wait, in seconds: None for as long as it takes, and for what no clock will see pass.

    What is below 0 has passed already.  ValueError for not-a-number, TypeError for anything but a number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds or None, not {shown(value)}")
    if value != value:
        raise ValueError(f"{name} is a number of seconds or None, not nan")
    return None if value >= FOREVER else float(value) if value > -FOREVER else -FOREVER


def check_count(name: str, value: int) -> int:
    """``value`` as a count, or an error that names the parameter: a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a whole number, not {shown(value)}")
    if value < 1:
        raise ValueError(f"{name} is at least 1, not {shown(value)}")
    return value


def check_pairs(name: str, value: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> list[tuple[str, str]]:
    """The pairs of a mapping or a list of them, none for None; else a TypeError that names the parameter.

    What came is not shown: it may be a secret.
    """
    form = f"{name} is a mapping, or a list of (name, value) pairs"
    if isinstance(value, (str, bytes)) or not isinstance(value, (Iterable, type(None))):
        raise TypeError(f"{form}, not {type(value).__name__}")
    pairs: list[tuple[str, str]] = []
    for item in value.items() if isinstance(value, Mapping) else value or ():
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            size = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
            raise TypeError(f"{form}; one of them is a {type(item).__name__}{size}")
        pairs.append((item[0], item[1]))
    return pairs


def check_value(what: str, value: str) -> str:
    """``value`` if it fits in one header line; ValueError if it has control characters, line ends above all, or half a
    character (a lone surrogate), which cannot be sent."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is a string, not {type(value).__name__}")
    if CONTROL.search(value):
        raise ValueError(f"{what} must not contain control characters or line ends")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{what} must not contain lone surrogates, which are no characters")
    return value


def check_token(what: str, value: str) -> str:
    """``value`` if it is a token (RFC 9110 section 5.6.2), else ValueError."""
    if not isinstance(value, str) or not TOKEN.fullmatch(value):
        raise ValueError(f"{what} is a token of visible ASCII characters without separators, not {shown(value)}")
    return value


def check_flag(name: str, value: bool) -> bool:
    """``value`` if it is True or False: a string such as "no" would count as true."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, not {shown(value)}")
    return value


def check_function(name: str, value: F, takes: str) -> F:
    """``value`` if it can be called and does its work when it is.  It may be a secret given in the wrong place, so an
    error shows its type only.

    A coroutine function is refused: called, it does nothing, and what it returns counts as true.
    """
    if not callable(value):
        raise TypeError(f"{name} is a function that takes {takes}, not {type(value).__name__}")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise TypeError(f"{name} is a plain function that takes {takes}, not a coroutine function: nobody awaits it")
    return value


def check_strings(name: str, values: Iterable[str], example: str) -> tuple[str, ...]:
    """``values`` as a tuple of strings; TypeError for one string, which lists its letters, and for what is no list."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} is a list of strings, such as {example}, not {shown(values)}")
    found = tuple(values)
    for value in found:
        if not isinstance(value, str):
            raise TypeError(f"{name} is a list of strings, such as {example}, not of {shown(value)}")
    return found


def shown(value: object) -> str:
    """The value for an error's text, on one line and short."""
    try:
        text = ascii(value)
    except ValueError:  # a whole number of more digits than Python writes
        return "a number that large"
    return text if len(text) <= 60 else f"{text[:57]}..."
