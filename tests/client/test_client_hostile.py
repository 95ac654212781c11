"""The client and servers that break the protocol."""

from __future__ import annotations

import unittest
from functools import partial

from sync_ws import Close, ConnectionClosed, HandshakeError
from sync_ws.testing import wait_until
from tests.support.client_case import SOON, ClientTestCase
from tests.support.recorder import Recorder
from tests.support.scripted import ScriptedServer, Wire, frame


class HostileServerTest(ClientTestCase):
    """Frames that no server may send: closed with the right code, the right reason told, and no second attempt."""

    def test_violations_and_the_code_each_is_answered_with(self) -> None:
        close = b"\x88\x02\x03\xe8"
        for what, data, code in (
            ("masked frame", frame(1, b"hi", masked=True), 1002),
            ("masked control frame", frame(9, b"hi", masked=True), 1002),
            ("RSV1", frame(1, b"hi", rsv=4), 1002),
            ("RSV2", frame(1, b"hi", rsv=2), 1002),
            ("RSV3", frame(9, b"", rsv=1), 1002),
            ("opcode 3", frame(3, b""), 1002),
            ("opcode 11", frame(11, b""), 1002),
            ("long ping", frame(9, bytes(126)), 1002),
            ("long pong", frame(10, bytes(126)), 1002),
            ("long close", frame(8, bytes(126)), 1002),
            ("fragmented ping", frame(9, b"x", fin=False), 1002),
            ("continuation of nothing", frame(0, b"x"), 1002),
            ("message in a message", frame(1, b"x", fin=False) + frame(1, b"y"), 1002),
            ("length of 5 in 16 bits", frame(2, b"xxxxx", form=16), 1002),
            ("length of 5 in 64 bits", frame(2, b"xxxxx", form=64), 1002),
            ("length of 2**63", frame(2, size=1 << 63), 1002),
            ("length of 2**63 - 1", frame(2, size=(1 << 63) - 1), 1009),
            ("length of 1 TiB", frame(2, size=1 << 40), 1009),
            ("fragments over the limit", frame(2, bytes(600), fin=False) + frame(0, bytes(600)), 1009),
            ("bad UTF-8", frame(1, b"\xff"), 1007),
            ("bad UTF-8 over two frames", frame(1, b"\xe2\x82", fin=False) + frame(0, b"\x28"), 1007),
            ("surrogate", frame(1, b"\xed\xa0\x80"), 1007),
        ):
            answered: list[int] = []

            def script(wire: Wire, data: bytes = data, answered: list[int] = answered) -> None:
                wire.switch(then=frame(2, b"fine") + data + close)
                answered.append(wire.read_close())

            with self.subTest(what), ScriptedServer(script) as server:
                client = self.client(server.url(), reconnect=0.01, max_message=1000)
                recorder = Recorder(client)
                client.open(SOON)
                self.assertEqual(client.recv(SOON), b"fine")
                with self.assertRaises(ConnectionClosed) as caught:
                    client.recv(SOON)
                event = recorder.wait_for("close")
                self.assertEqual((event.reason.code, event.reconnecting), (code, False), event.reason)
                self.assertEqual((caught.exception.sent or Close(0)).code, code)
                wait_until(partial(list, answered))
                self.assertEqual((answered, server.accepted), ([code], 1))

    def test_a_clumsy_goodbye_is_answered_as_it_must_be_and_the_client_comes_back(self) -> None:
        for what, payload, code in (
            ("one byte", b"\x03", 1002),
            ("close code 1005", b"\x03\xed", 1002),
            ("close code 1006", b"\x03\xee", 1002),
            ("close code 999", b"\x03\xe7", 1002),
            ("text where the code belongs", b"bye", 1002),
            ("a reason that is not UTF-8", b"\x03\xe8\xff", 1007),
        ):
            answered: list[int] = []

            def script(wire: Wire, payload: bytes = payload, answered: list[int] = answered) -> None:
                wire.switch(then=frame(8, payload))
                answered.append(wire.read_close())

            with self.subTest(what), ScriptedServer(script) as server:
                client = self.client(server.url(), reconnect=0.01)
                recorder = Recorder(client)
                client.open(SOON)
                event = recorder.wait_for("close")
                self.assertEqual((event.reason.code, event.reconnecting), (1006, True), event.reason)
                self.assertIn("a Close frame that is none", event.reason.text)
                wait_until(lambda: server.accepted > 1)
                client.close()
                self.assertEqual(answered[0], code)

    def test_too_many_fragments(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch(then=frame(1, b"", fin=False) + frame(0, b"", fin=False) * 5000)
            answered.append(wire.read_close())

        answered: list[int] = []
        with ScriptedServer(script) as server, self.client(server.url(), max_fragments=100) as client:
            self.assertEqual(list(client), [])
        self.assertEqual(answered, [1009])

    def test_a_bomb_of_deflate(self) -> None:
        import zlib

        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = packer.compress(bytes(64 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)[:-4]

        def script(wire: Wire) -> None:
            wire.switch(headers=("Sec-WebSocket-Extensions: permessage-deflate",))
            wire.send(frame(2, bomb, rsv=4))
            answered.append(wire.read_close())

        answered: list[int] = []
        with ScriptedServer(script) as server, self.client(server.url(), compression=True) as client, self.within():
            self.assertEqual(list(client), [])
        self.assertEqual(answered, [1009])

    def test_three_mebibytes_of_response_headers(self) -> None:
        def script(wire: Wire) -> None:
            wire.read_request()
            wire.send(b"HTTP/1.1 101 X\r\nX: " + b"a" * (3 << 20) + b"\r\n\r\n")

        say = self.assertRaisesRegex(HandshakeError, "head of the response")
        with ScriptedServer(script) as server, self.within(), say:
            self.client(server.url()).open()


if __name__ == "__main__":
    unittest.main()
