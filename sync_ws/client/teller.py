"""Telling the application: its functions are called here, by the client's thread, and what they raise is dealt with.

Why so: a function may take its time, and meanwhile nobody would answer Pings or notice that the connection is over; so
a housekeeper does, from the first function on.  What a function raises is logged and emitted as ``error``; what is no
Exception (SystemExit, KeyboardInterrupt) is meant to end a program, which a thread cannot do: it ends the client, which
is as far as the wish can be followed, and ``ended_by`` has it as its ``error``.

Threading: for the client's thread; ``end_by`` and ``is_housekeeper`` also for a heartbeat's timer and the housekeeper.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from ..channel.channel import Channel
from ..channel.housekeeper import Housekeeper
from ..channel.inbox import Note
from ..endings import CloseCode, Reason
from ..events import EventBus
from ..messages import Message
from ..weak import Weakly
from .events import Error
from .line import Line

__all__ = ["Teller"]

log = logging.getLogger("sync_ws.client")


class Teller:
    """See the module.  ``bus``: the functions.  ``close_timeout``: seconds for a closing handshake."""

    def __init__(self, bus: EventBus, line: Line, close_timeout: float) -> None:
        self._bus = bus
        self._line = line
        self._close_timeout = close_timeout
        self._housekeeper: Housekeeper | None = None
        self.kept_channel: Channel | None = None  # the one it looks after
        self.ended_by: Reason | None = None  # what ended the client, if a function did
        bus.on_error = Weakly(self.function_raised)

    def emit(self, event: str, *args: Any) -> None:
        """Call the functions for ``event``.

        After ``close``, and once a function has ended the client, nothing is told but the end itself, and what a
        function raised that was running then.
        """
        over = self._line.closing or self.ended_by is not None
        if not self._bus.has(event) or (over and event not in ("close", "gave_up", "error")):
            return
        channel = self._line.reading_channel
        if channel is not None and channel is not self.kept_channel:
            self.keep(channel)
        try:
            self._bus.emit(event, *args)
        except BaseException as exc:  # no Exception: the bus deals with those
            self.end_by(f"a function for the event {event!r}", exc)

    def tell(self, item: Message | Note) -> None:
        """Of a message, or of what a note is about."""
        if isinstance(item, Note):
            self.emit(item.event, item.what)
        else:
            self.emit("message", item)

    def tell_notes(self, channel: Channel) -> None:
        """Of what nobody has to be in recv() for."""
        if self._line.aside:  # a look costs less than a call, and this is done for every message
            for note in self._line.take_aside():
                self.tell(note)
        if not self._bus.has("message"):  # else they are taken in their order with the messages
            for note in channel.receiver.take_notes():
                self.tell(note)

    def function_raised(self, event: str, args: tuple[Any, ...], exc: Exception) -> None:
        """A function did; the others for this event are called all the same."""
        log.error("a function for the event %r raised", event, exc_info=exc)
        if event != "error":
            self.emit("error", Error(exc))

    def end_by(self, what: str, exc: BaseException) -> Reason:
        """A function raised what is meant to end a program: why the client ends."""
        log.error("%s raised %r, which ends the client", what, exc, exc_info=exc)
        reason = self.ended_by = self.ended_by or Reason(f"{what} raised {exc!r}", by_us=True, error=exc)
        channel = self._line.reading_channel
        if channel is not None:
            channel.close(CloseCode.GOING_AWAY)
        return reason

    # -- the housekeeper ------------------------------------------------------------------------------------------

    def keep(self, channel: Channel) -> None:
        """Have ``channel`` looked after while functions run."""
        if self._housekeeper is None:
            timeout = self._close_timeout
            try:
                keeper = Housekeeper("sync_ws-client", ping_interval=None, ping_timeout=1.0, close_timeout=timeout)
                keeper.start()
            except (RuntimeError, OSError) as exc:
                log.warning("no thread or descriptor to answer while a function runs: %s", exc)
                return
            self._housekeeper = keeper
        self._housekeeper.add(channel)
        self.kept_channel = channel

    @property
    def is_housekeeper(self) -> bool:
        """Whether it is our housekeeper's thread that asks."""
        keeper = self._housekeeper
        return keeper is not None and keeper.thread is threading.current_thread()

    def keep_no_more(self, channel: Channel) -> None:
        """It has ended."""
        if self._housekeeper is not None:
            self._housekeeper.discard(channel)
            self.kept_channel = None

    def stop(self) -> None:
        """There is nothing more to tell, and nobody to look after."""
        if self._housekeeper is not None:
            self._housekeeper.stop(1.0)
