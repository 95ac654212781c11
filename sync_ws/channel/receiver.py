"""The reading side of one open WebSocket: inline in the thread that wants a message, lendable while nobody does.

Why so: the thread that wants a message blocks in ``recv`` itself, parses what arrived there and takes its message in
place.  Handing messages between threads is what makes other threaded implementations slow.  While nobody is reading
(a handler is at work), ``tend`` lets another thread borrow the reading side for a moment: it answers pings and
heartbeats and queues a bounded number of messages, so a busy peer does not look like a dead one.

Threading: ``read`` by one thread at a time (the channel's owner sees to it); everything else by any thread.  ``lock``
is held by whoever reads, also while blocked in the socket; ``shutdown`` of the socket is what frees it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from ..errors import ConnectionClosed
from ..messages import Message, Opcode
from ..net.transport import Transport
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
FLOOD = 0.1  # seconds after a timeout in which a peer's unbroken stream of control frames may still hold a read up
HOLD = 0.25  # seconds that the peer's last word is held back for messages that came before it to be answered
TEND = 0.02  # seconds that tend() takes at most, whatever the peer sends


class Receiver:
    """See the module.

    ``inbox``: where messages wait to be taken, at most ``max_waiting`` or ``max_waiting_bytes`` of them while nobody
    reads.  ``on_control``: handles a control frame, an intercepted message or the peer's failure; what it returns is
    put into the inbox where that stood among the messages.  ``on_lost``: told that the stream ended, or broke.
    ``closing``: says when there is no more to come; ``closed_error`` makes what ``read`` then raises.  All are called
    with ``lock`` held.
    """

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
        self.lock = threading.Lock()
        self._read_size = SMALL_READ
        self._held: Control | None = None  # the peer's last word, while messages before it have not been taken
        self._held_since = 0.0
        self.bytes_received = len(early)
        self.messages_received = 0
        if early:
            reader.feed(early)

    def read(self, timeout: float | None = None) -> Message | Note:
        """The next message, or a note that stands before it.

        TimeoutError after ``timeout`` seconds (0: only what is there now), ConnectionClosed once everything
        received has been taken and the channel has ended.
        """
        inbox = self._inbox
        deadline = None if timeout is None else Deadline(timeout)
        patience = None if timeout is None else Deadline(timeout + FLOOD)
        with self.lock:
            while not inbox:
                if self._reader.buffered and self._parse_waiting():
                    continue
                if self._held is not None:
                    self._last_word()
                if self._closing.reason is not None:
                    raise self._closed_error()
                if patience is not None and patience.passed:
                    raise TimeoutError("no message within the timeout")
                self._receive(deadline)
            item = inbox.popleft()
            if not isinstance(item, Note):
                self.messages_received += 1
            return item

    def _receive(self, deadline: Deadline | None) -> None:
        """Read once, waiting for something to read, and parse it."""
        try:
            if deadline is not None:
                while not self._receive_now():
                    self._writer.write_batch()
                    if not self._transport.wait_readable(deadline.remaining()):
                        raise TimeoutError("no message within the timeout")
                return
            if self._writer.batches:
                self._writer.write_batch()
            if self._reader.wanted < DIRECT_READ:
                size = self._read_size
                data = self._transport.recv(size)
                self._reader.feed(data)
                self._received_bytes(len(data), size)
            else:
                with self._reader.vacancy() as room:
                    size = self._transport.recv_into(room)
                self._reader.filled(size)
                self._received_bytes(size, 0)
        except OSError as exc:
            if isinstance(exc, TimeoutError) and exc.errno is None:
                raise  # the caller's timeout; ETIMEDOUT is the kernel giving the peer up
            self._on_lost(exc)

    def _receive_now(self, room_for: int = PARSE_AHEAD) -> bool:
        """Read once what is there; False when nothing is.  OSError when the connection broke."""
        if self._reader.wanted < DIRECT_READ:
            data = self._transport.recv_nowait(self._read_size)
            if data is None:
                return False
            self._reader.feed(data)
            self._received_bytes(len(data), self._read_size, room_for)
            return True
        with self._reader.vacancy() as room:
            size = self._transport.recv_into_nowait(room)
        if size is None:
            return False
        self._reader.filled(size)
        self._received_bytes(size, 0, room_for)
        return True

    def _received_bytes(self, received: int, asked: int, room: int = PARSE_AHEAD) -> None:
        """Parse what one read brought; ``asked``: bytes it might have brought, 0 to leave the next one's size alone."""
        if not received:
            self._on_lost(None)
            return
        self.bytes_received += received
        if received == asked:
            self._read_size = LARGE_READ
        elif asked and received < SMALL_READ:
            self._read_size = SMALL_READ
        controls = self._reader.parse(self._inbox, room)
        if controls:
            self._take_all(controls)

    def _parse_waiting(self, room: int = PARSE_AHEAD) -> bool:
        """Parse what an earlier read left; whether that brought messages or controls."""
        before = len(self._inbox)
        controls = self._reader.parse(self._inbox, room)
        if controls:
            self._take_all(controls)
        return bool(controls) or len(self._inbox) > before

    def tend(self) -> bool:
        """Borrow the reading side if nobody is using it: take what is there, answer what the library answers.

        Never waits.  At most ``max_waiting`` messages are left waiting; then reading pauses, and with it the peer.
        False when somebody else is reading.
        """
        if not self.lock.acquire(blocking=False):
            return False
        try:
            deadline = Deadline(TEND)
            if self._held is not None:
                if time.monotonic() - self._held_since >= HOLD:
                    self._last_word()
                return True
            while self._closing.reason is None and (space := self._space()) and not deadline.passed:
                if self._reader.buffered and self._parse_waiting(space):
                    continue
                if not self._receive_now(space):
                    break
        except OSError as exc:
            self._on_lost(exc)
        finally:
            self.lock.release()
        return True

    def _space(self) -> int:
        """How many more messages may wait."""
        return self._inbox.space(self._max_waiting, self._max_waiting_bytes)

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
        """With ``lock`` held: read and discard messages until the channel has ended."""
        while self._closing.reason is None and not deadline.passed:
            before = len(self._inbox)
            if self._held is not None:
                self._last_word()
            elif not (self._reader.buffered and self._parse_waiting()):
                self._writer.flush()
                try:
                    self._receive(Deadline(min(0.1, deadline.remaining() or 0.0)))
                except TimeoutError:
                    continue
            self._inbox.drop_messages(before)

    def wait_for_end_of_stream(self, deadline: Deadline) -> None:
        """Until the peer ends the stream too: bytes left unread would make our close() a reset."""
        if not self.lock.acquire(timeout=deadline.remaining() or 0.001):
            return
        try:
            while not deadline.passed and self._transport.wait_readable(deadline.remaining()):
                if self._transport.recv_nowait(SMALL_READ) == b"":
                    return
        except OSError:
            return  # reset: it has ended
        finally:
            self.lock.release()

    # -- with lock held -------------------------------------------------------------------------------------------

    def _take_all(self, controls: Sequence[Control]) -> None:
        noted = 0  # how many notes stand among the messages by now
        for control in controls:
            note = self._take(control)
            if note is not None:
                self._inbox.note(note, control.at + noted)
                noted += 1

    def _take(self, control: Control) -> Note | None:
        """Pass a control on; but the peer's Close frame or failure, after which nothing is parsed, only once what it
        sent before has been taken.  Else an application that is about to answer a message could or could not,
        depending on how the stream was cut into segments."""
        if control.opcode not in (Opcode.CLOSE, Opcode.FAIL) or not self._inbox:
            return self._on_control(control)
        self._held, self._held_since = control, time.monotonic()
        return None

    def _last_word(self) -> None:
        control, self._held = self._held, None
        assert control is not None
        self._on_control(control)
