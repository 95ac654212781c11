"""The client's heartbeat: how often, how long to wait for an answer, and the timer that drives it.

Why so: a TCP connection whose other end has vanished looks like an idle one.  The client asks at every interval; if
nothing at all has come back when the timeout is over, that connection is given up.  Any byte from the peer counts as
an answer, and so do bytes that wait unread in the socket: a busy application must not look like a dead server.

The monitor does no I/O of its own.  It has one armed timer at a time; since ``Timer.cancel`` cannot stop a function
that is already running, a generation number makes late ones harmless.

Threading: every method from any thread.  ``_lock`` is held for assignments; ``send`` and ``on_dead`` are called
without it, in the timer's thread.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Callable

from ..checks import check_seconds
from ..envelope import ModeCode, encode
from ..interrupts import Flag
from ..protocol.liveness import LATE, Liveness, Verdict
from ..timing import Clock, TimerHandle

__all__ = ["Heartbeat", "HeartbeatMonitor"]

log = logging.getLogger("sync_ws.client")
RETRY = 0.25  # seconds between two attempts to get a thread for the timer


@dataclass(frozen=True)
class Heartbeat:
    """Every ``interval`` seconds ask for a sign of life; none within ``timeout`` seconds: the connection is dead.

    ``kind``: ``"message"`` sends ``{"ModeCode":"heart_beat","msg":<time>}``, which any server that sends messages back
    answers; ``"ping"`` sends a Ping frame (RFC 6455 section 5.5.2), which every server answers.  Both times are above
    0.
    """

    interval: float = 30.0
    timeout: float = 3.0
    kind: str = "message"

    def __post_init__(self) -> None:
        check_seconds("Heartbeat.interval", self.interval)
        check_seconds("Heartbeat.timeout", self.timeout)
        if self.kind not in ("message", "ping"):
            raise ValueError(f'Heartbeat.kind is "message" or "ping", not {self.kind!r}')


class HeartbeatMonitor:
    """Watches one connection.

    ``send(payload)``: send a heartbeat without waiting.  ``received()``: how many bytes have come so far.
    ``unread()``: whether bytes wait in the socket.  ``on_dead(text)``: nothing came.
    """

    def __init__(
        self,
        policy: Heartbeat,
        clock: Clock,
        *,
        send: Callable[[str], object],
        received: Callable[[], int],
        unread: Callable[[], bool],
        on_dead: Callable[[str], None],
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._send = send
        self._received = received
        self._unread = unread
        self._on_dead = on_dead
        # guards everything below; any thread, for assignments and for arming a timer.  Its owner may enter again, for
        # stop() may come from a signal handler that interrupted any of these methods
        self._lock = threading.RLock()
        self._stopped = Flag()
        self._generation = 0  # a timer of another generation has nothing to do any more
        self._timer: TimerHandle | None = None
        self._due = 0.0  # when the timer fires, monotonic
        self._liveness = Liveness(policy.interval, policy.timeout, clock.monotonic(), silent_only=False)
        self._payload = ""
        self._sent_at: float | None = None  # None once the answer has come
        self._count = 0
        self.rtt: float | None = None  # seconds, of the last answered heartbeat

    def start(self) -> None:
        """Begin: the first heartbeat goes out after one interval.  Nothing, when stop() came first."""
        with self._lock:
            if self._stopped.is_set():
                return
            self._generation += 1
            now = self._clock.monotonic()
            self._liveness = Liveness(self._policy.interval, self._policy.timeout, now, silent_only=False)
            self._arm(self._policy.interval)

    def stop(self) -> None:
        """End for good: no timer is left.  What a timer is about to send or report at this moment may still be."""
        with self._lock:
            self._stopped.set()
            self._generation += 1
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._due = None, 0.0

    def answered(self, payload: str) -> float | None:
        """``payload`` came back: the round-trip time in seconds, None if it is not the last one sent."""
        with self._lock:
            if self._sent_at is None or payload != self._payload:
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
        was_lost, self._due = self.lost, self._clock.monotonic() + delay
        try:
            self._timer = self._clock.timer(delay, partial(self._fire, self._generation))
        except RuntimeError as exc:  # no thread to be had now: revive() tries again
            if not was_lost:
                log.warning("no timer for the heartbeat: %s", exc)
            self._timer = None

    def _fire(self, generation: int) -> None:
        unread = self._liveness.asked and self._unread()  # asked of the system, so before the lock
        payload = None
        with self._lock:
            if generation != self._generation:
                return
            now = self._clock.monotonic()
            verdict = self._liveness.look(now, self._received(), lambda: unread, late=now - self._due > LATE)
            if verdict is Verdict.DEAD:
                self._generation += 1
                self._timer, self._due = None, 0.0
            else:
                if verdict is Verdict.ASK:
                    payload = self._begin(now)
                self._arm(max(0.0, self._liveness.due - now))
        if payload is not None:
            self._send(payload)
        elif verdict is Verdict.DEAD:
            self._on_dead(f"no answer to a heartbeat within {self._policy.timeout:g} s")
        while self.lost:  # the one thread that is certain to be there is this one
            self._stopped.wait(RETRY)
            self.revive()

    def _begin(self, now: float) -> str:
        """With _lock held: note what is about to be sent."""
        self._count += 1
        if self._policy.kind == "ping":
            self._payload = f"heartbeat {self._count}"
        else:
            self._payload = encode(ModeCode.HEART_BEAT, datetime.now(timezone.utc).isoformat())
        self._sent_at = now
        return self._payload
