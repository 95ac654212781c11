"""The face that a server's connection and a client share: one who receives, and every message handed on once."""

from __future__ import annotations

import threading
import unittest
from collections.abc import Callable, Iterable
from typing import Any

from sync_ws.channel.conversation import Conversation
from sync_ws.channel.inbox import Inbox
from sync_ws.endings import Reason
from sync_ws.errors import ConcurrentReceive, ConnectionClosed, MessageError
from sync_ws.messages import Data, Message, Pieces
from tests.support.wire import join


class Talk(Conversation):
    """A conversation whose messages are there already; then it is over."""

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        super().__init__(Inbox(messages))
        self.sent: list[Data | Pieces] = []
        self.timeouts: list[float | None] = []
        self.meanwhile: Callable[[], object] = lambda: None  # done while the message is fetched

    def send(self, data: Data | Pieces) -> None:
        self.sent.append(data)

    def ping(self, timeout: float = 10.0) -> float:
        return timeout

    def _next_message(self, timeout: float | None) -> Message:
        self.timeouts.append(timeout)
        self.meanwhile()
        inbox = self._inbox
        if inbox.kept is None:
            if not inbox:
                raise ConnectionClosed(Reason("over"))
            inbox.kept = inbox.popleft()
        assert isinstance(inbox.kept, (str, bytes))
        return inbox.kept


class ReceivingTest(unittest.TestCase):
    def test_each_message_is_handed_on_once_and_the_timeout_passed_down(self) -> None:
        talk = Talk(["a", b"b", "c"])
        self.assertEqual([talk.recv(), talk.recv(5), talk.recv(timeout=0)], ["a", b"b", "c"])
        self.assertEqual(talk.timeouts, [None, 5, 0])
        self.assertIsNone(talk._inbox.kept)
        self.assertRaises(ConnectionClosed, talk.recv)

    def test_a_message_whose_receiver_was_interrupted_is_returned_by_the_next_one(self) -> None:
        talk = Talk(["a", "b"])

        def interrupted() -> None:
            talk._inbox.kept = talk._inbox.popleft()
            raise KeyboardInterrupt

        talk.meanwhile = interrupted
        self.assertRaises(KeyboardInterrupt, talk.recv)
        talk.meanwhile = lambda: None
        self.assertEqual([talk.recv(), talk.recv()], ["a", "b"])

    def test_a_second_receiver_is_told_whichever_thread_it_is(self) -> None:
        talk = Talk(["a", "b"])
        told: list[BaseException] = []

        def also() -> None:
            for call in (talk.recv, talk.recv_json, lambda: next(iter(talk))):
                try:
                    call()
                except ConcurrentReceive as exc:
                    told.append(exc)

        def meanwhile() -> None:
            also()  # as a signal's handler would
            other = threading.Thread(target=also)
            other.start()
            join(other)

        talk.meanwhile = meanwhile
        self.assertEqual(talk.recv(), "a")
        self.assertEqual(len(told), 6)
        talk.meanwhile = lambda: None
        self.assertEqual(talk.recv(), "b")

    def test_iteration_ends_when_the_conversation_is_over_and_only_then(self) -> None:
        self.assertEqual(list(Talk(["a", b"b"])), ["a", b"b"])
        talk = Talk(["a"])
        for _ in talk:
            break
        self.assertRaises(ConnectionClosed, talk.recv)
        talk = Talk(["a"])
        with self.assertRaises(ZeroDivisionError):
            for message in talk:
                raise ZeroDivisionError(message)


class JsonTest(unittest.TestCase):
    def test_values_go_out_as_json_text_and_come_back(self) -> None:
        talk = Talk()
        values: list[Any] = [{"a": [1, None, "é"]}, "text", 1.5, None, []]
        for value in values:
            talk.send_json(value)
        back = Talk(str(message) for message in talk.sent)
        self.assertEqual([back.recv_json(1) for _ in values], values)
        self.assertEqual(back.timeouts, [1] * 5)

    def test_what_has_no_json_form_is_refused_and_not_sent(self) -> None:
        talk = Talk()
        self.assertRaises(MessageError, talk.send_json, object())
        self.assertEqual(talk.sent, [])

    def test_what_is_no_json_is_told_and_taken(self) -> None:
        talk = Talk(["{", "1"])
        self.assertRaises(MessageError, talk.recv_json)
        self.assertEqual(talk.recv_json(), 1)


if __name__ == "__main__":
    unittest.main()
