"""The certificates: the good one is accepted, each bad one is refused for its own reason."""

from __future__ import annotations

import shutil
import ssl
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from sync_ws.testing import LedgerTestCase, make_certificates

EXPIRED, WRONG_HOST, SELF_SIGNED = 10, 62, 18  # X509_V_ERR_ codes; the last is one of two for "not trusted"
WRONG_ADDRESS = 64


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    """A TLS handshake in memory; raises what the client raises."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_end = client.wrap_bio(to_client, to_server, server_hostname=host)
    server_end = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        done = 0
        for end in (client_end, server_end):
            try:
                end.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                pass
        if done == 2:
            return
    raise AssertionError("the handshake came to no end")


@unittest.skipUnless(shutil.which("openssl"), "needs the openssl command")
class Promises(LedgerTestCase):
    timeout = 30.0

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "a b $x %y"  # nothing for a shell or a config file to stumble over
        self.folder.mkdir()
        self.made = make_certificates(self.folder)

    def refusal(self, certificate: Path, host: str = "localhost") -> int:
        with self.assertRaises(ssl.SSLCertVerificationError) as caught:
            handshake(self.made.server_context(certificate), self.made.client_context(), host)
        return caught.exception.verify_code

    def test_each_is_what_it_says(self) -> None:
        made = self.made
        for host in ("localhost", "127.0.0.1", "::1"):
            handshake(made.server_context(), made.client_context(), host)
        handshake(made.server_context(made.server_cert), strict(made.client_context()), "localhost")
        self.assertEqual(self.refusal(made.server_cert, "other.invalid"), WRONG_HOST)
        self.assertEqual(self.refusal(made.expired_cert), EXPIRED)
        self.assertEqual(self.refusal(made.wrong_host_cert), WRONG_HOST)
        self.assertEqual(self.refusal(made.wrong_host_cert, "127.0.0.1"), WRONG_ADDRESS)
        self.assertEqual(self.refusal(made.self_signed), SELF_SIGNED)

    def test_the_system_does_not_trust_the_authority(self) -> None:
        with self.assertRaises(ssl.SSLCertVerificationError):
            handshake(self.made.server_context(), ssl.create_default_context(), "localhost")

    def test_these_files_alone_and_new_ones_each_time(self) -> None:
        files = [getattr(self.made, name) for name in self.made.__dataclass_fields__]
        self.assertEqual(set(self.folder.iterdir()), set(files))
        before = self.made.ca.read_bytes()
        again = make_certificates(str(self.folder))
        self.assertEqual(again, self.made)
        self.assertNotEqual(again.ca.read_bytes(), before)
        handshake(again.server_context(), again.client_context(), "localhost")


class Failures(LedgerTestCase):
    def test_without_the_command_the_error_says_what_is_needed(self) -> None:
        with (
            mock.patch("shutil.which", return_value=None),
            self.assertRaisesRegex(RuntimeError, "needs the openssl command"),
        ):
            make_certificates("anywhere")

    @unittest.skipUnless(shutil.which("openssl"), "needs the openssl command")
    def test_a_failing_command_is_quoted(self) -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            self.assertRaisesRegex(RuntimeError, r"(?s)openssl req -config .* failed with \d+:\n.+"),
        ):
            make_certificates(Path(folder) / "missing")


def strict(context: ssl.SSLContext) -> ssl.SSLContext:
    """As Python 3.13 has it by default: chains follow RFC 5280 to the letter."""
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


if __name__ == "__main__":
    unittest.main()
