"""Answers that end a connection: what they say, and that they reach a peer that is still sending."""

from __future__ import annotations

import errno
import io
import os
import socket
import struct
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

from sync_ws import Headers, Refusal, Request
from sync_ws.net.tls import TlsSocket
from sync_ws.server import answers
from sync_ws.server.answers import NO_THREAD, answer_page, answer_refusal, come_again, write_last, write_page
from sync_ws.testing import LedgerTestCase
from tests.support.raw import read_response


class RefusalTest(LedgerTestCase):
    def test_a_refusal_is_its_status_and_one_plain_line(self) -> None:
        answer = answer_refusal(Refusal(429, "expected fewer attempts", {"Retry-After": "7"}))
        self.assertEqual((answer.status, answer.body), (429, b"expected fewer attempts\n"))
        plain = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
        self.assertEqual(answer.headers, {**plain, "Retry-After": "7"})

    def test_a_refusal_may_say_what_type_its_line_is(self) -> None:
        answer = answer_refusal(Refusal(400, "{}", {"Content-Type": "application/json"}))
        self.assertEqual(answer.headers["Content-Type"], "application/json")

    def test_what_goes_out_without_a_thread_says_the_same_as_what_goes_out_with_one(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(NO_THREAD)
            ours.shutdown(socket.SHUT_WR)
            answer = read_response(theirs)
        full = come_again()
        self.assertEqual((answer.status, answer.body, answer.rest), (full.status, answer_refusal(full).body, b""))
        self.assertEqual(answer.headers["retry-after"], full.headers["Retry-After"])


class PageTest(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = Path(holder.name).resolve()
        (self.folder / "page.html").write_text("<p>hello</p>")

    def ask(self, path: str, method: str = "GET") -> answers.Answer:
        answer = answer_page(self.folder, Request(method, path, {}, Headers(), ("127.0.0.1", 4242)), "/ws/")
        assert answer.page is not None
        self.addCleanup(answer.page.close)
        return answer

    def refused(self, status: int, path: str, method: str = "GET") -> Refusal:
        with self.assertRaises(Refusal) as caught:
            self.ask(path, method)
        self.assertEqual(caught.exception.status, status)
        return caught.exception

    def test_a_page_comes_with_its_type_and_is_not_to_be_guessed_at(self) -> None:
        answer = self.ask("/page.html")
        assert answer.page is not None
        self.assertEqual((answer.status, answer.size, answer.page.read()), (200, 12, b"<p>hello</p>"))
        self.assertEqual(answer.headers["Content-Type"], "text/html; charset=utf-8")
        self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")

    def test_what_is_not_there_is_404_and_what_is_not_asked_for_with_get_405(self) -> None:
        self.assertIn("the WebSocket is at /ws/", self.refused(404, "/other.html", "POST").text)
        self.assertEqual(self.refused(405, "/page.html", "POST").headers, {"Allow": "GET, HEAD"})
        self.assertEqual(self.ask("/page.html", "HEAD").status, 200)

    def test_a_page_that_cannot_be_read_is_404_and_in_the_log(self) -> None:
        with (
            mock.patch.object(answers, "FileIO", side_effect=PermissionError("not yours")),
            self.assertLogs("sync_ws.server", "INFO") as logged,
        ):
            self.refused(404, "/page.html")
        self.assertEqual([record.levelname for record in logged.records], ["INFO"])  # strangers may ask for it for ever
        self.assertIn("page.html", logged.output[0])
        self.assertIn("not yours", logged.output[0])

    def test_a_page_that_cannot_be_opened_now_is_there_another_time(self) -> None:
        with mock.patch.object(answers, "FileIO", side_effect=OSError(errno.EMFILE, "too many open files")):
            self.assertIn("Retry-After", self.refused(503, "/page.html").headers)


class WritePageTest(LedgerTestCase):
    """Over a plain socket, and over what is encrypted piece by piece."""

    SIZE = 3 << 20  # bytes, more than the kernel takes at once

    def setUp(self) -> None:
        super().setUp()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.peer = socket.create_connection(listener.getsockname())
            self.addCleanup(self.peer.close)
            self.sock, _ = listener.accept()
        self.addCleanup(self.sock.close)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.path = Path(holder.name) / "page"
        self.path.write_bytes(os.urandom(self.SIZE))
        self.page = io.FileIO(self.path)
        self.addCleanup(self.page.close)

    def read(self, pause: float) -> threading.Thread:
        """Read all of it in a thread, ten times with a pause."""
        self.got = bytearray()

        def read() -> None:
            pauses = iter([pause] * 10)
            while data := self.peer.recv(64 * 1024):
                self.got += data
                time.sleep(next(pauses, 0))

        thread = threading.Thread(target=read)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.sock.close)
        return thread

    def test_a_page_arrives_whole_though_its_reader_takes_longer_than_it_may_pause(self) -> None:
        with mock.patch.object(answers, "STALL", 0.5):
            thread = self.read(0.1)
            began = time.monotonic()
            write_page(self.sock, self.page, self.SIZE)
            self.sock.close()
            thread.join()
        self.assertGreater(time.monotonic() - began, 0.5)
        self.assertEqual(self.got, self.path.read_bytes())

    def test_piece_by_piece_where_the_kernel_cannot_encrypt(self) -> None:
        thread = self.read(0)
        with mock.patch.object(answers, "TlsSocket", socket.socket):
            write_page(self.sock, self.page, self.SIZE)
        self.sock.close()
        thread.join()
        self.assertEqual(self.got, self.path.read_bytes())

    def test_a_reader_that_takes_nothing_is_given_up(self) -> None:
        for kind in (TlsSocket, socket.socket):
            with (
                self.subTest(kind),
                mock.patch.object(answers, "STALL", 0.1),
                mock.patch.object(answers, "TlsSocket", kind),
                self.assertRaises(TimeoutError),
            ):
                write_page(self.sock, self.page, self.SIZE)

    def test_a_reader_that_dribbles_is_given_up(self) -> None:
        with (
            mock.patch.object(answers, "Deadline", return_value=mock.Mock(passed=True)) as deadline,
            self.assertRaisesRegex(TimeoutError, "bytes a second"),
        ):
            write_page(self.sock, self.page, self.SIZE)
        deadline.assert_called_once_with(answers.STALL + self.SIZE / answers.SLOWEST)

    def test_a_page_that_became_shorter_ends_it(self) -> None:
        for kind in (TlsSocket, socket.socket):
            with (
                self.subTest(kind),
                mock.patch.object(answers, "TlsSocket", kind),
                self.assertRaises(ConnectionAbortedError),
            ):
                os.truncate(self.path, 10)
                write_page(self.sock, self.page, self.SIZE)


class WriteLastTest(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.peer = socket.create_connection(listener.getsockname())
            self.addCleanup(self.peer.close)
            self.sock, _ = listener.accept()
        self.addCleanup(self.sock.close)

    def write(self, data: bytes) -> None:
        try:
            write_last(self.sock, data)
        finally:
            self.sock.close()

    def test_a_peer_that_is_still_sending_reads_all_of_it(self) -> None:
        """A socket closed with unread bytes resets its connection, and the reset overtakes what was written."""
        self.peer.sendall(b"x" * 100_000)
        thread = threading.Thread(target=self.write, args=(b"the last word",))
        thread.start()
        self.addCleanup(thread.join)
        got = b""
        while piece := self.peer.recv(4096):
            got += piece
        self.assertEqual(got, b"the last word")
        self.peer.close()

    def test_it_is_over_when_the_peer_ends_its_stream(self) -> None:
        self.peer.shutdown(socket.SHUT_WR)
        with mock.patch.object(answers, "PATIENCE", 60.0):
            self.write(b"the last word")
        self.assertEqual(self.peer.recv(100), b"the last word")

    def test_a_peer_that_stays_is_given_up_after_its_time(self) -> None:
        started = time.monotonic()
        with mock.patch.object(answers, "PATIENCE", 0.05), self.assertRaises(TimeoutError):
            self.write(b"the last word")
        self.assertLess(time.monotonic() - started, 2)

    def test_a_peer_that_never_stops_is_given_up_after_so_many_bytes(self) -> None:
        def pour() -> None:
            try:
                while True:
                    self.peer.sendall(bytes(65536))
            except OSError:
                return

        thread = threading.Thread(target=pour)
        thread.start()
        self.addCleanup(thread.join)
        started = time.monotonic()
        with mock.patch.object(answers, "PATIENCE", 60.0):
            self.write(b"the last word")
        self.assertLess(time.monotonic() - started, 30)

    def test_a_peer_that_is_gone_is_an_error_of_the_system(self) -> None:
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()
        with self.assertRaises(OSError):
            write_last(self.sock, b"the last word")


if __name__ == "__main__":
    unittest.main()
