"""One thread that looks after many channels: what their own threads cannot do while they are busy or blocked.

Why so: a connection's thread reads inline, so while its handler works nobody reads.  Every quarter of a second the
housekeeper borrows the reading side of those channels (``Channel.tend``), so pings and heartbeats are answered and
the end of a connection is noticed.  It also sends the keepalive pings, gives dead, stuck and never-ending connections
up, and drains what ``post`` could not write at once, as soon as the peer reads again.

Threading: one daemon thread per housekeeper; ``add``, ``discard`` and ``drain`` from any thread.  It never waits for
a channel: everything it calls there is non-blocking, so one bad peer cannot hold up the others.
"""

from __future__ import annotations

import logging
import threading
import time

from ..endings import CloseCode, Reason
from ..messages import Opcode
from ..net.waiting import WRITABLE, Waker, wait_any
from ..protocol.liveness import LATE, Liveness, Verdict
from .channel import Channel

__all__ = ["Housekeeper", "TICK"]

log = logging.getLogger("sync_ws")
TICK = 0.25  # seconds between two rounds


class _Watch:
    """What is remembered of a channel from one round to the next."""

    __slots__ = ("liveness", "round_bytes")

    def __init__(self, liveness: Liveness | None) -> None:
        self.liveness = liveness  # None: no Pings
        self.round_bytes = -1  # bytes received at the last round


class Housekeeper:
    """See the module.  ``ping_interval``: seconds of silence before a Ping, None for none; ``ping_timeout``: seconds
    of further silence before the connection is given up; ``close_timeout``: seconds a closing handshake may take."""

    def __init__(self, name: str, *, ping_interval: float | None, ping_timeout: float, close_timeout: float) -> None:
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._close_timeout = close_timeout
        # guards the two below; any thread, for set operations only
        self._lock = threading.RLock()
        self._watched: dict[Channel, _Watch] = {}
        self._draining: set[Channel] = set()
        self._stopping = False
        self._last_round: float | None = None
        self._waker = Waker()
        self._thread = threading.Thread(target=self._run, name=f"{name}-housekeeper", daemon=True)

    @property
    def thread(self) -> threading.Thread:
        return self._thread

    def start(self) -> None:
        """RuntimeError when the system has no thread to give."""
        try:
            self._thread.start()
        except RuntimeError:
            self._close()
            raise

    def stop(self, timeout: float) -> None:
        """End the thread; back within ``timeout`` seconds."""
        self._stopping = True
        self._waker.wake()
        if self._thread.ident is None:  # if it is being started, it finds _stopping set
            self._close()
        elif self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def add(self, channel: Channel) -> None:
        """Look after ``channel`` from now on."""
        channel.writer.on_queued = lambda: self.drain(channel)
        liveness = None
        if self._ping_interval is not None:
            liveness = Liveness(self._ping_interval, self._ping_timeout, time.monotonic(), silent_only=True)
        with self._lock:
            self._watched[channel] = _Watch(liveness)

    def discard(self, channel: Channel) -> None:
        """Leave ``channel`` alone from now on; before its descriptor is given back."""
        channel.writer.on_queued = None
        with self._lock:
            self._watched.pop(channel, None)
            self._draining.discard(channel)

    def drain(self, channel: Channel) -> None:
        """Write what is queued on ``channel`` as soon as its peer reads."""
        with self._lock:
            if channel not in self._watched or channel in self._draining:
                return
            self._draining.add(channel)
        self._waker.wake()

    # -- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            next_round = time.monotonic() + TICK
            while not self._stopping:
                self._wait(next_round - time.monotonic())
                if time.monotonic() >= next_round:
                    self.round(time.monotonic())
                    next_round = time.monotonic() + TICK
        except Exception:
            log.exception("the housekeeper ended: keepalive pings and deadlines are off")
        finally:
            self._close()

    def _wait(self, timeout: float) -> None:
        """Until the next round is due, writing meanwhile to those who read again."""
        self._waker.clear()  # before the look at what there is to do: what comes after it wakes again
        with self._lock:
            draining = {fd: channel for channel in self._draining if (fd := channel.fileno()) >= 0}
        for fd in wait_any(draining, WRITABLE, timeout, self._waker):
            if self._flushed(draining[fd]):
                with self._lock:
                    self._draining.discard(draining[fd])

    def _flushed(self, channel: Channel) -> bool:
        try:
            return channel.writer.flush()
        except Exception:  # one connection's trouble must not end the care for all
            log.exception("writing to a connection failed")
            channel.abort(Reason("internal error", CloseCode.ABNORMAL))
            return True

    def round(self, now: float) -> None:
        """Look after every channel once; ``now`` is the monotonic time."""
        late = self._last_round is not None and now - self._last_round > TICK + LATE
        self._last_round = now
        with self._lock:
            watched = list(self._watched.items())
        for channel, watch in watched:
            try:
                self._look_after(channel, watch, now, late)
            except Exception:
                log.exception("looking after a connection failed")
                channel.abort(Reason("internal error", CloseCode.ABNORMAL))

    def _look_after(self, channel: Channel, watch: _Watch, now: float, late: bool) -> None:
        if channel.ended:
            return
        if channel.bytes_received == watch.round_bytes:  # nobody has read since the last round
            channel.tend()
        watch.round_bytes = channel.bytes_received
        if channel.closing_since is not None:
            if now - channel.closing_since > self._close_timeout and not late:
                channel.abort()
            return
        problem = channel.writer.stuck(now - TICK)  # a thread that waits in send is to find out first, and say so
        if problem and not late:
            channel.abort(Reason(problem, CloseCode.TRY_AGAIN_LATER, by_us=True))
        elif watch.liveness is not None:
            self._keep_alive(channel, watch.liveness, now, late)

    def _keep_alive(self, channel: Channel, liveness: Liveness, now: float, late: bool) -> None:
        verdict = liveness.look(now, channel.bytes_received, channel.unread, late=late)
        if verdict is Verdict.ASK:
            channel.writer.post(Opcode.PING, b"")
        elif verdict is Verdict.DEAD:
            text = f"no sign of life within {self._ping_timeout:g} s of a Ping"
            channel.abort(Reason(text, CloseCode.ABNORMAL))

    def _close(self) -> None:
        self._stopping = True
        self._waker.close()
