"""Telling the application, with a line and no thread: who is called when, who looks after the connection meanwhile."""

from __future__ import annotations

import errno
import threading
import unittest
from typing import Any
from unittest import mock

from sync_ws.channel.inbox import Note
from sync_ws.channel.limits import Limits
from sync_ws.client.events import EVENTS, Error
from sync_ws.client.line import Line
from sync_ws.client.teller import Teller
from sync_ws.endings import Reason
from sync_ws.events import EventBus
from sync_ws.testing import LedgerTestCase


class TellerTest(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.line, self.bus = Line(Limits()), EventBus(EVENTS)
        self.teller = Teller(self.bus, self.line, 1.0)
        self.addCleanup(self.teller.stop)
        self.told: list[tuple[str, Any]] = []
        self.line.begin()

    def listen(self, *events: str) -> None:
        for event in events:
            self.bus.on(event, lambda what, event=event: self.told.append((event, what)))

    def open(self) -> Any:
        channel = mock.Mock(ended=False, bytes_received=0, closing_since=None)
        channel.writer.queued = (0, 0)
        channel.writer.stuck.return_value = None
        channel.fileno.return_value = -1
        self.line.opened(channel, None, None)
        return channel

    def keepers(self) -> list[str]:
        return [thread.name for thread in threading.enumerate() if "housekeeper" in thread.name]

    # -- who is called ---------------------------------------------------------------------------------------------

    def test_a_message_and_what_a_note_is_about(self) -> None:
        self.listen("message", "heartbeat")
        self.teller.tell("text")
        self.teller.tell(Note("heartbeat", 0.5))
        self.assertEqual(self.told, [("message", "text"), ("heartbeat", 0.5)])

    def test_after_close_nothing_but_the_end_and_what_was_raised(self) -> None:
        self.listen(*EVENTS)
        self.line.close()
        for event in EVENTS:
            self.teller.emit(event, event)
        self.assertEqual([event for event, _ in self.told], ["close", "error", "gave_up"])

    def test_what_a_function_raises_is_logged_and_told_and_the_others_are_called(self) -> None:
        error = ValueError("on purpose")
        self.bus.on("open", mock.Mock(side_effect=error))
        self.listen("open", "error")
        with self.assertLogs("sync_ws.client", "ERROR") as logs:
            self.teller.emit("open", "it")
        self.assertEqual(self.told, [("error", Error(error)), ("open", "it")])
        self.assertEqual(len(logs.records), 1)

    def test_a_function_for_errors_that_raises_is_not_told_of_that(self) -> None:
        self.bus.on("error", mock.Mock(side_effect=ValueError))
        self.listen("error")
        with self.assertLogs("sync_ws.client", "ERROR") as logs:
            self.teller.emit("error", "first")
        self.assertEqual((self.told, len(logs.records)), ([("error", "first")], 1))

    def test_notes_are_told_where_nobody_takes_them(self) -> None:
        self.listen("heartbeat")
        channel = self.open()
        channel.receiver.take_notes.return_value = [Note("heartbeat", 2)]
        self.line.put_aside(Note("heartbeat", 1))
        self.teller.tell_notes(channel)
        self.assertEqual(self.told, [("heartbeat", 1), ("heartbeat", 2)])
        self.listen("message")  # from now on they come in their order with the messages
        self.teller.tell_notes(channel)
        self.assertEqual(len(self.told), 2)

    # -- what ends the client --------------------------------------------------------------------------------------

    def test_what_is_no_exception_ends_the_client_and_is_named(self) -> None:
        channel = self.open()
        exc = SystemExit(3)
        self.bus.on("message", mock.Mock(side_effect=exc))
        self.listen("open", "gave_up")
        with self.assertLogs("sync_ws.client", "ERROR"):
            self.teller.emit("message", "x")
        reason = self.teller.ended_by
        assert reason is not None
        self.assertEqual(reason, Reason("a function for the event 'message' raised SystemExit(3)", by_us=True))
        self.assertIs(reason.error, exc)
        channel.close.assert_called_once_with(1001)
        self.teller.emit("open", "not told")
        self.teller.emit("gave_up", reason)
        self.assertEqual(self.told, [("gave_up", reason)])

    def test_the_first_of_them_counts(self) -> None:
        with self.assertLogs("sync_ws.client", "ERROR") as logs:
            first = self.teller.end_by("one", SystemExit())
            self.assertIs(self.teller.end_by("two", KeyboardInterrupt()), first)
        self.assertEqual(len(logs.records), 2)

    # -- the housekeeper -------------------------------------------------------------------------------------------

    def test_a_connection_is_looked_after_from_the_first_function_on_until_it_ends(self) -> None:
        channel = self.open()
        self.teller.emit("open", "nobody listens")
        self.assertEqual(self.keepers(), [])
        self.listen("open")
        self.teller.emit("open", "it")
        self.teller.emit("open", "it")
        self.assertEqual(self.keepers(), ["sync_ws-client-housekeeper"])
        self.assertIs(self.teller.kept_channel, channel)
        self.teller.keep_no_more(channel)
        self.assertIsNone(self.teller.kept_channel)
        self.teller.stop()
        self.assertEqual(self.keepers(), [])

    def test_without_a_connection_a_thread_or_a_descriptor_functions_are_called_all_the_same(self) -> None:
        self.listen("reconnecting")
        self.teller.emit("reconnecting", 1)
        self.assertEqual(self.keepers(), [])
        self.open()
        no_thread = mock.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread"))
        with no_thread, self.assertLogs("sync_ws.client", "WARNING"):
            self.teller.emit("reconnecting", 2)
        no_descriptor = mock.patch("socket.socketpair", side_effect=OSError(errno.EMFILE, "Too many open files"))
        with no_descriptor, self.assertLogs("sync_ws.client", "WARNING"):
            self.teller.emit("reconnecting", 3)
        self.assertEqual(self.told, [("reconnecting", number) for number in (1, 2, 3)])
        self.assertIsNone(self.teller.kept_channel)


if __name__ == "__main__":
    unittest.main()
