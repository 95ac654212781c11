"""The errors: one root, both Close frames, and words that help."""

from __future__ import annotations

import inspect
import unittest

from sync_ws import errors
from sync_ws.endings import Close, Reason
from sync_ws.errors import ConnectionClosed, HandshakeError, HandshakeRejected, Refusal
from sync_ws.headers import Headers


class Tree(unittest.TestCase):
    def test_everything_raised_has_the_one_root(self) -> None:
        for name, value in vars(errors).items():
            if inspect.isclass(value) and issubclass(value, Exception):
                with self.subTest(name):
                    self.assertTrue(issubclass(value, errors.SyncWsError))

    def test_timeouts_are_timeout_errors_and_bad_messages_value_errors(self) -> None:
        self.assertTrue(issubclass(errors.SendTimeout, TimeoutError))
        self.assertTrue(issubclass(errors.HandshakeTimeout, TimeoutError))
        self.assertTrue(issubclass(errors.HandshakeTimeout, HandshakeError))
        self.assertTrue(issubclass(errors.MessageError, ValueError))

    def test_the_module_docstring_names_every_error(self) -> None:
        for name in errors.__all__:
            value = getattr(errors, name)
            if issubclass(value, Exception):
                self.assertIn(name, errors.__doc__ or "")


class Closed(unittest.TestCase):
    def test_a_closed_error_carries_both_close_frames_and_the_reason(self) -> None:
        reason = Reason("closed by the peer: 1001 bye", code=1001)
        error = ConnectionClosed(reason, Close(1001), Close(1001, "bye"))
        self.assertEqual((error.sent, error.received), (Close(1001), Close(1001, "bye")))
        self.assertEqual((error.reason, error.code, str(error)), (reason, 1001, "closed by the peer: 1001 bye"))

    def test_without_a_close_frame_the_code_is_1006(self) -> None:
        error = ConnectionClosed(Reason("lost"))
        self.assertEqual((error.code, error.sent, error.received), (1006, None, None))


class Refusals(unittest.TestCase):
    def test_a_refusal_has_an_error_status_and_one_line_of_text(self) -> None:
        refusal = Refusal(401, "who are you?", {"WWW-Authenticate": "Bearer"})
        self.assertEqual((refusal.status, refusal.text), (401, "who are you?"))
        self.assertEqual(refusal.headers, {"WWW-Authenticate": "Bearer"})
        self.assertEqual(str(refusal), "401 who are you?")
        for status, text in ((200, "x"), (399, "x"), (600, "x"), (403, "a\nb"), (403, "a\rb")):
            with self.subTest((status, text)), self.assertRaises(ValueError):
                Refusal(status, text)

    def test_handshake_errors_tell_the_reason(self) -> None:
        self.assertEqual(HandshakeError("no luck").reason, Reason("no luck"))
        rejected = HandshakeRejected(Reason("HTTP 503", status=503, retry_after=5.0), {"A": "b"}, b"full")
        self.assertEqual((rejected.status, rejected.headers["A"], rejected.body), (503, "b", b"full"))
        headers = Headers([("A", "b"), ("a", "c")])
        self.assertIs(HandshakeRejected(Reason(""), headers, b"").headers, headers)
        self.assertEqual(rejected.reason.retry_after, 5.0)


if __name__ == "__main__":
    unittest.main()
