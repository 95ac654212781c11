"""One thread that looks after many channels: what their own threads cannot do while they are busy or blocked.

Why so: a connection's thread reads inline, so while its handler works nobody reads.  Every quarter of a second the
housekeeper borrows the reading side of those channels (``Channel.tend``), so pings and heartbeats are answered and
the end of a connection is noticed.  It also sends the keepalive pings, gives dead, stuck and never-ending connections
up, and drains what ``post`` could not write at once, as soon as the peer reads again.

Deadlines hold whatever peers do.  Reading for them is what can take long, so a round has a bounded time for it, and
those go first who took the least of it lately: who floods waits for those who do not.  What is left undone waits in
the socket, and with it the flood.

Threading: one daemon thread per housekeeper; ``add``, ``discard`` and ``drain`` from any thread.  It never waits for
a channel: everything it calls there is non-blocking, so one bad peer cannot hold up the others.  Nor does it end for
what is raised there, SystemExit included, which would end no more than this thread.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from functools import partial

from ..endings import CloseCode, Reason
from ..forking import ToldOfForks
from ..messages import Opcode
from ..net.heap import give_back_rest
from ..net.waiting import WRITABLE, Waker, wait_any
from ..protocol.liveness import Liveness, Verdict, stopped_for
from ..protocol.masking import load_numpy
from ..timing import Deadline
from .channel import Channel

__all__ = ["Housekeeper", "TICK"]

log = logging.getLogger("sync_ws")
TICK = 0.25  # seconds between the beginnings of two rounds
TENDING = 0.1  # seconds of a round for reading what nobody else reads


class _Watch:
    """What is remembered of a channel from one round to the next."""

    __slots__ = ("cost", "liveness", "round_bytes")

    def __init__(self, liveness: Liveness | None) -> None:
        self.liveness = liveness  # None: no Pings
        self.round_bytes = -1  # bytes received at the last round
        self.cost = 0.0  # seconds of computing it has taken, each round counting half of the one after it


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
        self._draining: dict[Channel, None] = {}  # in the order in which they have their turn
        self._stopping = False
        self._last_round: tuple[float, float] | None = None  # when, and how long the process had computed by then
        self._waker = Waker()
        # the thread holds on to this from its start to its end, and not before: else they would be a circle for good if
        # it is never started
        self._held: list[Housekeeper] = []
        self._thread = threading.Thread(target=_run, args=(self._held,), name=f"{name}-housekeeper", daemon=True)
        _housekeepers.add(self)

    @property
    def thread(self) -> threading.Thread:
        return self._thread

    def start(self) -> None:
        """RuntimeError when the system has no thread to give."""
        self._held.append(self)
        try:
            self._thread.start()
        except RuntimeError:
            self._held.clear()
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
        liveness = None
        if self._ping_interval is not None:
            liveness = Liveness(self._ping_interval, self._ping_timeout, time.monotonic(), silent_only=True)
        with self._lock:
            self._watched[channel] = _Watch(liveness)
        channel.writer.on_queued = partial(_drain, weakref.ref(self), weakref.ref(channel))
        if channel.writer.queued[0]:  # before anybody was told
            self.drain(channel)

    def discard(self, channel: Channel) -> None:
        """Leave ``channel`` alone from now on; before its descriptor is given back."""
        with self._lock:
            self._watched.pop(channel, None)
            self._draining.pop(channel, None)

    def drain(self, channel: Channel) -> None:
        """Write what is queued on ``channel`` as soon as its peer reads."""
        with self._lock:
            if channel not in self._watched or channel in self._draining:
                return
            self._draining[channel] = None
        self._waker.wake()

    # -- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            next_round = time.monotonic() + TICK
            while not self._stopping:
                self._wait(next_round - time.monotonic())
                now = time.monotonic()
                if now >= next_round:
                    self.round(now)
                    next_round = now + TICK
        except BaseException:
            log.exception("the housekeeper ended: keepalive pings and deadlines are off")
        finally:
            self._close()

    def _wait(self, timeout: float) -> None:
        """Until the next round is due, writing meanwhile to those who read again, one after the other."""
        deadline = Deadline(timeout)
        self._waker.clear()  # before the look at what there is to do: what comes after it wakes again
        with self._lock:
            draining = {fd: channel for channel in self._draining if (fd := channel.fileno()) >= 0}
        for fd in wait_any(draining, WRITABLE, timeout, self._waker):
            channel = draining[fd]
            with self._lock:  # before it is flushed: who queues something from then on puts it in again
                self._draining.pop(channel, None)
            if not self._flushed(channel):
                self.drain(channel)
            if deadline.passed:
                return

    def _flushed(self, channel: Channel) -> bool:
        try:
            return channel.writer.flush()
        except BaseException:  # one connection's trouble must not end the care for all
            log.exception("writing to a connection failed")
            channel.abort(Reason("internal error", CloseCode.ABNORMAL))
            return True

    def round(self, now: float) -> None:
        """Look after every channel once; ``now`` is the monotonic time."""
        busy, lost = time.process_time(), 0.0
        if self._last_round is not None:
            then, busy_then = self._last_round
            lost = stopped_for(now - then, TICK, busy - busy_then)
        self._last_round = now, busy
        with self._lock:
            watched = list(self._watched.items())
        self._tend_all([item for item in watched if item[0].bytes_received == item[1].round_bytes])
        for channel, watch in watched:
            try:
                self._look_after(channel, watch, now, lost)
            except BaseException:
                self._failed(channel)
        load_numpy()
        give_back_rest()

    def _tend_all(self, unread: list[tuple[Channel, _Watch]]) -> None:
        """Read for those for whom nobody has read since the last round, as far as the time for it goes."""
        unread.sort(key=lambda item: item[1].cost)
        deadline = Deadline(TENDING)
        for channel, watch in unread:
            watch.cost /= 2
            if not deadline.passed:
                began = time.thread_time()  # not what other threads took meanwhile
                try:
                    channel.tend()
                except BaseException:
                    self._failed(channel)
                watch.cost += time.thread_time() - began

    def _look_after(self, channel: Channel, watch: _Watch, now: float, lost: float) -> None:
        if channel.ended:
            return
        watch.round_bytes = channel.bytes_received
        if lost:
            channel.excuse(now, lost)
        channel.send_owed()
        if channel.closing_since is not None:
            if now - channel.closing_since > self._close_timeout:
                channel.abort()
            return
        problem = channel.writer.stuck(now - TICK)  # a thread that waits in send is to find out first, and say so
        if problem:
            channel.abort(Reason(problem, CloseCode.TRY_AGAIN_LATER, by_us=True))
        elif watch.liveness is not None and not channel.receiver.behind:  # else it is we who are slow
            self._keep_alive(channel, watch.liveness, now, lost)

    def _keep_alive(self, channel: Channel, liveness: Liveness, now: float, lost: float) -> None:
        unread = channel.unread_bytes() if liveness.needs_unread(now) else 0
        verdict = liveness.look(now, channel.bytes_received, unread, crowded=channel.crowded, lost=lost)
        if verdict is Verdict.ASK:
            channel.writer.post(Opcode.PING, b"")
        elif verdict is Verdict.DEAD:
            text = f"no sign of life within {self._ping_timeout:g} s of a Ping"
            channel.abort(Reason(text, CloseCode.ABNORMAL))

    def _failed(self, channel: Channel) -> None:
        log.exception("looking after a connection failed")
        channel.abort(Reason("internal error", CloseCode.ABNORMAL))

    def _close(self) -> None:
        self._stopping = True
        self._waker.close()

    def _forget_in_child(self) -> None:
        """After fork: the thread and those it looked after are the parent's, and it may have held the lock."""
        self._lock = threading.RLock()
        self._stopping = True
        self._watched, self._draining = {}, {}


def _run(held: list[Housekeeper]) -> None:
    held.pop()._run()


def _drain(keeper: weakref.ref[Housekeeper], channel: weakref.ref[Channel]) -> None:
    """What a channel's writer calls; it must not keep alive what it belongs to."""
    there, whose = keeper(), channel()
    if there is not None and whose is not None:
        there.drain(whose)


_housekeepers: ToldOfForks[Housekeeper] = ToldOfForks()
