"""The client's heartbeat: what it asks, how often, how long to wait for an answer, and the timer that drives it.

Why so: a TCP connection whose other end has vanished looks like an idle one.  The client asks at every interval; if
nothing at all has come back when the timeout is over, that connection is given up.  Any byte from the peer counts as
an answer, and so do bytes that wait unread in the socket: a busy application must not look like a dead server.

What suits any server is a Ping: RFC 6455 section 5.5.2 has every server answer it, and no application sees it.  A
message of ours in somebody else's protocol is another matter.  Of the servers tried, those that do not know it fall
silent (and the connection was given up every 33 seconds), send an error message to the application each time, or close
with 1008, after which no client comes back; to send one and see would be too late.  So the message of the article goes
out by itself only to a server that says in its response (``HEART_BEAT_HEADER``) that it answers it, as this library's
does, for that server's own ``heartbeat`` event.  Everybody else gets Pings, unless told otherwise: ``kind="message"``
for node's server of the article, or a ``message`` of the application's own.

What passes for the answer to the application's own message is taken out of what it receives, whether one is awaited or
not: what is a message must not depend on the time.  It is taken out where messages are parsed, so it goes well though
nobody calls ``recv``.  The price is that ``answer`` is called with the reading side held.

The monitor does no I/O of its own.  It has one armed timer at a time; since ``Timer.cancel`` cannot stop a function
that is already running, a generation number makes late ones harmless.

Threading: every method from any thread.  ``_lock`` is held for assignments; ``message``, ``send`` and ``on_dead`` are
called without it, in the timer's thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

from ..checks import check_seconds
from ..envelope import ModeCode, encode
from ..interrupts import Flag, owned
from ..messages import Message, Opcode, as_payload
from ..protocol.intercepts import HEART_BEAT, HEART_BEAT_HEADER, MAX_LENGTH, Intercept
from ..protocol.liveness import Liveness, Verdict, stopped_for
from ..timing import Clock, TimerHandle

__all__ = ["Heartbeat", "HeartbeatMonitor"]

log = logging.getLogger("sync_ws.client")
RETRY = 0.25  # seconds between two attempts to get a thread for the timer
KINDS = ("auto", "message", "ping")


@dataclass(frozen=True)
class Heartbeat:
    """Every ``interval`` seconds ask for a sign of life; none within ``timeout`` seconds: the connection is dead.

    Where ``timeout`` is the longer of the two, the next question waits for its end.

    ``kind``: ``"ping"`` sends a Ping frame (RFC 6455 section 5.5.2), which every server answers.  ``"message"`` sends
    ``{"ModeCode":"heart_beat","msg":<time>}``, for a server that sends it back.  ``"auto"`` is the message for a server
    that says that it answers it, as this library's does, and a Ping for all others.

    ``message``: what to send instead, str as text or bytes as binary, or a function that is called for each.
    ``answer``: what comes back, or ``function(message)`` that says whether a message is it.  An answer is measured and
    kept from the application; without an ``answer`` everything that comes is the application's.  The functions are
    called by threads of the library: ``message`` may take its time, ``answer`` is called for every message of less than
    1024 characters while the connection is being read, so it looks and returns.

    ValueError or TypeError for anything else; both times are above 0.
    """

    interval: float = 30.0
    timeout: float = 3.0
    kind: str = "auto"
    message: Message | Callable[[], Message] | None = None
    answer: Message | Callable[[Message], object] | None = None

    def __post_init__(self) -> None:
        check_seconds("Heartbeat.interval", self.interval)
        check_seconds("Heartbeat.timeout", self.timeout)
        if self.kind not in KINDS:
            raise ValueError(f'Heartbeat.kind is "auto", "message" or "ping", not {self.kind!r}')
        for name, value in (("message", self.message), ("answer", self.answer)):
            if value is not None and not callable(value) and not isinstance(value, (str, bytes)):
                raise TypeError(f"Heartbeat.{name} is str, bytes or a function, not {type(value).__name__}")
        if self.message is None:
            if self.answer is not None:
                raise ValueError("Heartbeat.answer needs a Heartbeat.message that it is the answer to")
        elif self.kind == "ping":
            raise ValueError('Heartbeat.message is not for kind="ping": a Ping is no message')
        elif not callable(self.message):
            as_payload(self.message)
        if isinstance(self.answer, (str, bytes)) and len(as_payload(self.answer)[1]) >= MAX_LENGTH:
            raise ValueError(f"Heartbeat.answer has less than {MAX_LENGTH} bytes, not {len(self.answer)}")

    @classmethod
    def of(cls, value: Heartbeat | float | None) -> Heartbeat | None:
        """What a ``heartbeat=`` argument means: a policy, the seconds between two heartbeats, or None for none."""
        if value is None or isinstance(value, Heartbeat):
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"heartbeat is a sync_ws.Heartbeat, a number of seconds or None, not {value!r}")
        return cls(interval=check_seconds("heartbeat (None for none)", value))

    def towards(self, headers: Mapping[str, str]) -> Heartbeat:
        """The same for a server that answered with these headers: its ``kind`` is not ``"auto"`` any more."""
        if self.kind != "auto":
            return self
        answered = [item.strip() for item in headers.get(HEART_BEAT_HEADER, "").split(",")]
        ours = self.message is not None or ModeCode.HEART_BEAT in answered
        return replace(self, kind="message" if ours else "ping")

    def intercept(self, raised: Callable[[BaseException], object]) -> Intercept | None:
        """Which messages are its answers, None when none is.  ``raised`` gets what the application's function raises;
        that message goes to the application, unless ``raised`` raises, too.
        """
        answer = self.answer
        if self.message is None:
            return HEART_BEAT if self.kind == "message" else None
        if answer is None:
            return None
        if isinstance(answer, str):  # node's ws, told to send text back, sends it as binary; so the text is what counts
            return Intercept("heartbeat", answer, lambda text: bool(text == answer))
        if isinstance(answer, bytes):
            try:
                mark = answer.decode()
            except UnicodeDecodeError:
                mark = ""
            return Intercept("heartbeat", mark, lambda message: isinstance(message, bytes) and message == answer, True)

        def is_answer(message: Any) -> bool:
            try:
                return bool(answer(message))
            except BaseException as exc:
                raised(exc)
                return False

        return Intercept("heartbeat", "", is_answer, verbatim=True)


class HeartbeatMonitor:
    """Watches one connection.

    ``policy``: not ``"auto"``.  ``send(opcode, payload)``: send a heartbeat without waiting.  ``received()``: how many
    bytes have come so far.  ``unread()``: how many wait in the socket.  ``crowded()``: whether that leaves no room for
    more.  ``on_dead(text)``: nothing came.
    ``raised(exception)``: the application's function for the message did; a Ping goes out in its place.
    """

    def __init__(
        self,
        policy: Heartbeat,
        clock: Clock,
        *,
        send: Callable[[int, bytes], object],
        received: Callable[[], int],
        unread: Callable[[], int],
        crowded: Callable[[], bool] = bool,
        on_dead: Callable[[str], None],
        raised: Callable[[BaseException], object],
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._send = send
        self._received = received
        self._unread = unread
        self._crowded = crowded
        self._on_dead = on_dead
        self._raised = raised
        # guards everything below; any thread, for assignments and for arming a timer.  Its owner may enter again, for
        # stop() may come from a signal handler that interrupted any of these methods
        self._lock = threading.RLock()
        self._stopped = Flag()
        self._generation = 0  # a timer of another generation has nothing to do any more
        self._timer: TimerHandle | None = None
        self._due = 0.0  # when the timer fires, monotonic
        self._armed = (0.0, 0.0)  # when it was armed, and how long the process had computed by then
        self._liveness = Liveness(policy.interval, policy.timeout, clock.monotonic(), silent_only=False)
        self._payload = b""
        self._sent_at: float | None = None  # None once the answer has come
        self._count = 0
        self.rtt: float | None = None  # seconds, of the last answered heartbeat

    def start(self) -> None:
        """Begin: the first heartbeat goes out after one interval.  Nothing, when stop() came first."""
        with self._lock:
            if self._stopped.is_set():
                return
            self._generation += 1
            self._arm(self._policy.interval)

    def stop(self) -> None:
        """End for good: no timer is left.  What a timer is about to send or report at this moment may still be."""
        with self._lock:
            self._stopped.set()
            self._generation += 1
            timer, self._timer, self._due = self._timer, None, 0.0
            if timer is not None:
                timer.cancel()  # not again by a handler that comes now: threading.Timer's lock lets nobody in twice

    @property
    def held_here(self) -> bool:
        """Whether the caller interrupted one of these methods in its own thread: no other can before it goes on."""
        return owned(self._lock)

    def answered(self, payload: bytes | None) -> float | None:
        """``payload`` came back, or (None) an answer that does not say to what: the round-trip time in seconds, None if
        it is not the last heartbeat's.
        """
        with self._lock:
            if self._sent_at is None or (payload is not None and payload != self._payload):
                return None
            self.rtt = self._clock.monotonic() - self._sent_at
            self._sent_at = None
            return self.rtt

    @property
    def lost(self) -> bool:
        """Whether there was no thread for the timer: ``revive`` is needed."""
        return self._timer is None and self._due > 0

    def revive(self) -> None:
        """Arm the timer again if it was lost; called now and then."""
        with self._lock:
            if self.lost:
                self._arm(max(0.0, self._due - self._clock.monotonic()))

    def _arm(self, delay: float) -> None:
        """With _lock held."""
        now = self._clock.monotonic()
        was_lost, self._due, self._armed = self.lost, now + delay, (now, time.process_time())
        try:
            self._timer = self._clock.timer(delay, partial(self._fire, self._generation))
        except RuntimeError as exc:  # no thread to be had now: revive() tries again
            if not was_lost:
                log.warning("no timer for the heartbeat: %s", exc)
            self._timer = None

    def _fire(self, generation: int) -> None:
        unread, crowded = self._unread(), self._crowded()  # asked of the system, so before the lock
        with self._lock:
            if generation != self._generation:
                return
            now = self._clock.monotonic()
            lost = self._stopped_for(now)
            verdict = self._liveness.look(now, self._received(), unread, crowded=lambda: crowded, lost=lost)
            if verdict is Verdict.DEAD:
                self._timer, self._due = None, 0.0
            elif verdict is Verdict.WAIT:
                self._arm(self._liveness.due - now)
        if verdict is Verdict.ASK:
            self._ask(generation)
        elif verdict is Verdict.DEAD:
            what = "a Ping" if self._policy.kind == "ping" else "a message"
            self._on_dead(f"no answer to a heartbeat within {self._policy.timeout:g} s ({what})")
        while self.lost:  # the one thread that is certain to be there is this one
            self._stopped.wait(RETRY)
            self.revive()

    def _stopped_for(self, now: float) -> float:
        """With _lock held: seconds in which the process may have been stopped, if it was: all since it was armed."""
        armed_at, busy = self._armed
        stopped = stopped_for(now - armed_at, self._due - armed_at, time.process_time() - busy)
        return now - armed_at if stopped else 0.0

    def _ask(self, generation: int) -> None:
        opcode, payload = self._question()
        with self._lock:
            if generation != self._generation:  # stopped while the application's function took its time
                return
            now = self._clock.monotonic()
            self._payload, self._sent_at = payload, now
            self._liveness.asked_at(now)
            self._arm(self._policy.timeout)
        self._send(opcode, payload)

    def _question(self) -> tuple[int, bytes]:
        """What to send now.  Without _lock: the application's function may be asked."""
        message = self._policy.message
        if message is None and self._policy.kind == "message":
            return as_payload(encode(ModeCode.HEART_BEAT, datetime.now(timezone.utc).isoformat()))
        if message is not None:
            try:
                return as_payload(message() if callable(message) else message)
            except BaseException as exc:  # SystemExit would end this timer and nothing else, in silence
                self._raised(exc)
        self._count += 1  # by one thread at a time: there is one timer
        return Opcode.PING, f"heartbeat {self._count}".encode()
