"""The reading side of one open WebSocket: inline in the thread that wants a message, lendable while nobody does.

Why so: the thread that wants a message blocks in ``recv`` itself, parses what arrived there and takes its message in
place.  Handing messages between threads is what makes other threaded implementations slow.  While nobody is reading
(a handler is at work), ``tend`` lets another thread borrow the reading side for a moment: it answers pings and
heartbeats and queues a bounded number of messages, so a busy peer does not look like a dead one.

An interrupt may come anywhere in ``read``: what had been received is there for the next one.  Bytes wait in the frame
reader's ``fresh``, controls in ``_controls``, and the message that was about to be returned in the inbox's ``kept``.

Threading: ``read`` by one thread at a time (the channel's owner sees to it); everything else by any thread.  ``lock``
is held by whoever reads, also while blocked in the socket; ``shutdown`` of the socket is what frees it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from threading import get_ident

from .. import interrupts
from ..errors import ConcurrentReceive, ConnectionClosed
from ..interrupts import STEP, owned
from ..messages import Message, Opcode
from ..net.transport import Transport
from ..net.waiting import NOT_NOW
from ..protocol.closing import Closing
from ..protocol.frame_reader import FrameReader
from ..protocol.frames import Control
from ..timing import Deadline
from .inbox import Inbox, Note
from .writer import Writer

__all__ = ["Receiver"]

SMALL_READ = 16 * 1024  # bytes asked for while little comes: what an idle connection may hold on to
LARGE_READ = 128 * 1024  # bytes asked for while much comes
DIRECT_READ = 16 * 1024  # bytes missing to a frame: from here on they are read to where they belong
PARSE_AHEAD = 256  # messages parsed at once from what was received
PARSE_AHEAD_BYTES = 256 * 1024  # of memory that such messages may take before parsing pauses
FLOOD = 0.1  # seconds after a timeout in which a peer's unbroken stream of control frames may still hold a read up
HOLD = 0.25  # seconds that the peer's last word is held back for messages that came before it to be answered
TURN = 0.1  # seconds that one flooded reader waits at most for others of its kind
TEND = 0.02  # seconds that tend() takes at most, whatever the peer sends


class Receiver:
    """Reads from one transport, by way of one frame reader.

    ``inbox``: where messages wait to be taken, at most ``max_waiting`` or ``max_waiting_bytes`` of them while nobody
    reads.  ``on_control``: handles a control frame, an intercepted message or the peer's failure; what it returns is
    put into the inbox where that stood among the messages.  ``on_lost``: told that the stream ended, or broke.
    ``closing``: says when there is no more to come; ``closed_error`` makes what ``read`` then raises.  All are called
    with ``lock`` held.
    """

    # held by any thread that reads a flood, for one step of parsing, with its receiver's lock held; no wait under it
    _turn = threading.RLock()

    def __init__(
        self,
        transport: Transport,
        reader: FrameReader,
        writer: Writer,
        inbox: Inbox,
        *,
        early: bytes,
        max_waiting: int,
        max_waiting_bytes: int,
        on_control: Callable[[Control], Note | None],
        on_lost: Callable[[OSError | None], None],
        closing: Closing,
        closed_error: Callable[[], ConnectionClosed],
    ) -> None:
        self._transport = transport
        self._small_reads = transport.receiving(SMALL_READ)
        self._reader = reader
        self._writer = writer
        self._inbox = inbox
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._on_control = on_control
        self._on_lost = on_lost
        self._closing = closing
        self._closed_error = closed_error
        # guards everything below, the inbox's filling and the transport's reading; held while blocked in recv
        self.lock = threading.RLock()
        self._busy = False  # somebody is in here: the same thread may be interrupted and come again
        self._in_steps = False  # the main thread has read: a read ends after a moment, with BlockingIOError
        self._read_size = SMALL_READ
        self._until: Deadline | None = None  # when whoever has borrowed the reading side is to stop
        self._controls: list[Control] = []  # met, and not handled yet
        self._noted = 0  # how many of those met in the same parse have put a note into the inbox
        self._held: Control | None = None  # the peer's last word, while messages before it have not been taken
        self._held_since = 0.0
        self.bytes_received = len(early)
        self.messages_received = 0
        if early:
            reader.feed(early)

    def forget_in_child(self) -> None:
        """After fork, in the child: the lock may be held by a thread that is not here, and what came is not for us."""
        self.lock = threading.RLock()
        Receiver._turn = threading.RLock()
        self._busy = False
        self._controls, self._held = [], None
        self._reader.forget()
        self._inbox.forget_in_child()

    @property
    def interrupted(self) -> bool:
        """Whether it is the calling thread's own interrupted frame that is reading, or about to, or just was: then no
        other thread can before it goes on."""
        return owned(self.lock)

    @property
    def behind(self) -> bool:
        """Whether somebody is at work here, and has not come to the end of what was received."""
        return self._busy and self._reader.buffered

    def read(self, timeout: float | None = None) -> Message | Note:
        """The next message, or a note that stands before it.  It stays in the inbox's ``kept``, to be returned again,
        until the caller has handed it on and says so by setting that to None.

        TimeoutError after ``timeout`` seconds (0: only what is there now), ConnectionClosed once everything
        received has been taken and the channel has ended.
        """
        inbox = self._inbox
        with self.lock:
            if self._busy:
                raise ConcurrentReceive("this thread was interrupted while it was receiving; it has to go on first")
            self._busy = True
            try:
                if inbox.kept is None:
                    if self._controls:  # an interrupt came before they had been handled
                        self._take_all()
                    if not inbox:
                        self._fill(timeout)
                    inbox.kept = inbox[0]
                    del inbox[0]
                    self.messages_received += inbox.kept.__class__ is not Note
            finally:
                self._busy = False
        return inbox.kept

    def _fill(self, timeout: float | None) -> None:
        """Until there is something in the inbox."""
        inbox = self._inbox
        deadline = None if timeout is None else Deadline(timeout)
        patience = None if timeout is None else Deadline(timeout + FLOOD)
        while not inbox:
            try:
                if (self._controls or self._reader.buffered or self._reader.fresh) and self._parse():
                    if patience is None or inbox or not patience.passed:
                        continue
                    raise TimeoutError("no message within the timeout")
                if self._held is not None:
                    self._last_word()
                if self._closing.reason is not None:
                    raise self._closed_error()
                if patience is not None and patience.passed:
                    raise TimeoutError("no message within the timeout")
                self._receive(deadline)
            except NOT_NOW:
                continue  # there was something to read, and then there was not
            except OSError as exc:
                if isinstance(exc, TimeoutError) and exc.errno is None:
                    raise  # the caller's timeout; ETIMEDOUT is the kernel giving the peer up
                self._on_lost(exc)
                if self._closing.reason is not None:
                    raise self._closed_error() from exc

    def _receive(self, deadline: Deadline | None) -> None:
        """Read once, waiting for something to read, and parse it.  TimeoutError past the deadline."""
        if deadline is not None:
            while not self._receive_now():
                self._writer.write_batch()
                if not self._transport.wait_readable(deadline.remaining()):
                    raise TimeoutError("no message within the timeout")
            return
        if self._writer.batches.open:
            self._writer.write_batch()
        if not self._in_steps and get_ident() == interrupts.main_ident:
            self._transport.step_reads()
            self._in_steps = True
        reader = self._reader
        if reader.missing < DIRECT_READ:
            size = self._read_size
            reads = self._small_reads if size == SMALL_READ else self._transport.receiving(size)
            for reader.fresh in reads:
                break
            self._received(size)
        else:
            with reader.vacancy() as room:
                for count in self._transport.receiving_into(room):
                    reader.present += count
                    reader.missing -= count
                    break  # there is but one
            self._received_into(count)

    def _receive_now(self, room_for: int = PARSE_AHEAD, budget: int = PARSE_AHEAD_BYTES) -> bool:
        """Read once what is there; False when nothing is.  OSError when the connection broke."""
        reader = self._reader
        try:
            if reader.missing < DIRECT_READ:
                for reader.fresh in self._transport.receiving_now(self._read_size):
                    break  # there is but one
                self._received(self._read_size, room_for, budget)
            else:
                with reader.vacancy() as room:
                    for count in self._transport.receiving_into_now(room):
                        reader.present += count
                        reader.missing -= count
                        break  # there is but one
                self._received_into(count)
        except NOT_NOW:
            return False
        return True

    def _received(self, asked: int, room: int = PARSE_AHEAD, budget: int = PARSE_AHEAD_BYTES) -> None:
        """Parse what one read of ``asked`` bytes brought."""
        reader = self._reader
        size = len(reader.fresh or b"")
        if not size:
            self._on_lost(None)
            return
        self.bytes_received += size
        if size == asked:
            self._read_size = LARGE_READ
        elif size < SMALL_READ:
            self._read_size = SMALL_READ
        # a call less for nearly every message; more of a flood waits for its turn, when who reads comes round to it
        if not reader.more and reader.parse(self._inbox, room, budget, self._controls):
            self._take_all()

    def _received_into(self, size: int) -> None:
        """After a read to where the bytes belong: who reads looks next whether they are all there."""
        if not size:
            self._on_lost(None)
        self.bytes_received += size

    def _parse(self, room: int = PARSE_AHEAD, budget: int = PARSE_AHEAD_BYTES) -> bool:
        """Parse what was received; whether that brought messages or controls, or there is more to parse."""
        before, reader = len(self._inbox), self._reader
        if self._controls:  # an interrupt came before they had been handled
            self._take_all()
            return True
        if reader.more and self._until is None:  # who has only borrowed the reading side waits for nobody
            return self._parse_in_turn(room, budget)
        if reader.parse(self._inbox, room, budget, self._controls):
            self._take_all()
            return True
        return len(self._inbox) > before or reader.more

    def _parse_in_turn(self, room: int, budget: int) -> bool:
        """The same where the peer sends more of what is no message than goes into one step.

        Two dozen such peers would be two dozen threads that never wait, and everybody else would wait for each of them
        whenever he needs the interpreter.  So they wait for each other.
        """
        for taken in map(Receiver._turn.acquire, (True,), (TURN,)):
            try:
                self._reader.more = False
                return self._parse(room, budget)
            finally:
                if taken:
                    Receiver._turn.release()
        return False  # never: there is one ``taken``

    def tend(self) -> bool:
        """Borrow the reading side if nobody is using it: take what is there, answer what the library answers.

        Never waits.  At most ``max_waiting`` messages are left waiting; then reading pauses, and with it the peer.
        False when somebody else is reading.
        """
        for taken in map(self.lock.acquire, (False,)):
            if not taken:
                return False
            try:
                return self._borrowed(self._tend, Deadline(TEND))
            finally:
                self.lock.release()
        return False  # never: there is one ``taken``

    def _borrowed(self, act: Callable[[Deadline], None], deadline: Deadline) -> bool:
        """With lock held: do it, unless it is this thread's own interrupted frame that is reading: False then."""
        if self._busy:
            return False
        self._busy, self._until = True, deadline
        try:
            act(deadline)
        except OSError as exc:
            self._on_lost(exc)
        finally:
            self._busy, self._until = False, None
        return True

    def _tend(self, deadline: Deadline) -> None:
        if self._held is not None:
            if time.monotonic() - self._held_since >= HOLD:
                self._last_word()
            return
        reader = self._reader
        while self._closing.reason is None and not deadline.passed:
            space, budget = self._inbox.space(self._max_waiting, self._max_waiting_bytes)
            if not space:
                return
            if (self._controls or reader.buffered or reader.fresh) and self._parse(space, budget):
                continue
            if not self._receive_now(space, budget):
                return

    def take_notes(self) -> list[Note]:
        """The notes that wait first in the inbox, if nobody is reading; else whoever reads takes them."""
        if not self.lock.acquire(blocking=False):
            return []
        try:
            return self._inbox.take_notes()
        finally:
            self.lock.release()

    # -- for the closing handshake ----------------------------------------------------------------------------------

    def discard_until_end(self, deadline: Deadline) -> None:
        """Read and discard messages until the channel has ended; or, while somebody else reads, wait for him."""
        while self._closing.reason is None and not deadline.passed:
            for taken in map(self.lock.acquire, (True,), (_patience(deadline),)):
                if not taken:
                    break  # and look again
                try:
                    if not self._borrowed(self._discard, deadline):
                        return
                finally:
                    self.lock.release()

    def _discard(self, deadline: Deadline) -> None:
        reader = self._reader
        while self._closing.reason is None and not deadline.passed:
            before = len(self._inbox)
            if self._held is not None:
                self._last_word()
            elif self._controls:  # left by a borrower; their notes go in front of what waited, which stays
                self._take_all()
                before = len(self._inbox)
            elif not ((reader.buffered or reader.fresh) and self._parse()):
                self._writer.flush()
                try:
                    self._receive(Deadline(min(0.1, deadline.remaining() or 0.0)))
                except TimeoutError as exc:
                    if exc.errno is not None:
                        raise
            self._inbox.drop_messages(before)

    def wait_for_end_of_stream(self, deadline: Deadline) -> None:
        """Until the peer ends the stream too: bytes left unread would make our close() a reset."""
        for taken in map(self.lock.acquire, (True,), (deadline.remaining() or 0.0,)):
            if not taken:
                return
            try:
                while not deadline.passed and self._transport.wait_readable(deadline.remaining()):
                    try:
                        if next(self._transport.receiving_now(SMALL_READ)) == b"":
                            return
                    except NOT_NOW:
                        continue  # half a TLS record
            except OSError:
                return  # reset: it has ended
            finally:
                self.lock.release()

    # -- with lock held -------------------------------------------------------------------------------------------

    def _take_all(self) -> None:
        """Handle the controls met: each is taken off the list only when that is done.  Those are left there for which a
        borrower has no time: whoever comes next begins with them."""
        while self._controls:
            control = self._controls[0]
            note = self._take(control)
            if note is not None:
                self._inbox.note(note, control.at + self._noted)
                self._noted += 1
            del self._controls[0]
            if self._until is not None and self._until.passed:
                break
        if not self._controls:
            self._noted = 0

    def _take(self, control: Control) -> Note | None:
        """Pass a control on; but the peer's Close frame or failure, after which nothing is parsed, only once what it
        sent before has been taken.  Else an application that is about to answer a message could or could not,
        depending on how the stream was cut into segments."""
        if control.opcode not in (Opcode.CLOSE, Opcode.FAIL) or not self._inbox:
            return self._on_control(control)
        self._held, self._held_since = control, time.monotonic()
        return None

    def _last_word(self) -> None:
        control = self._held
        assert control is not None
        self._on_control(control)
        self._held = None


def _patience(deadline: Deadline) -> float:
    """Seconds for a lock's ``acquire``, to be tried again: see ``STEP``."""
    remaining = deadline.remaining()
    return STEP if remaining is None else max(min(remaining, STEP), 0.001)
