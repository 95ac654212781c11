"""Two channels, one each side, that talk to each other."""

from __future__ import annotations

import os
import unittest
from typing import Any

from sync_ws.channel.channel import Channel
from sync_ws.channel.limits import Limits
from sync_ws.endings import Close
from sync_ws.errors import ConnectionClosed
from sync_ws.messages import Opcode
from sync_ws.protocol.deflate import Deflate, Negotiation
from tests.support.channel_case import OVER, ChannelTestCase, tcp_pair
from tests.support.wire import join, make_channel

TEXT, BINARY, CLOSE, PING, PONG = Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG


class Both(ChannelTestCase):
    """Two channels, one each side, talking to each other."""

    def pair(self, deflate: bool) -> tuple[Channel, Channel]:
        ours, theirs = tcp_pair()
        channels = []
        for sock, client in ((ours, True), (theirs, False)):
            channel, _ = make_channel(
                sock, client=client, limits=Limits(), deflate=Deflate(Negotiation()) if deflate else None
            )
            channels.append(channel)

        def clean() -> None:
            for channel in channels:
                channel.abort(OVER)
                channel.release()

        self.addCleanup(clean)
        return channels[0], channels[1]

    def test_a_conversation_in_both_directions_at_once(self) -> None:
        for deflate in (False, True):
            client, server = self.pair(deflate)
            messages: list[Any] = ["text ☃", b"\x00\xff", "", b"", "long " * 20_000, os.urandom(200_000), "x" * 64]

            def talk(channel: Channel, messages: list[Any] = messages) -> list[Any]:
                sender = self.start(lambda: [channel.send(message) for message in messages * 5])
                got = [channel.read(10) for _ in range(5 * len(messages))]
                join(sender)
                return got

            there, here = self.start(lambda: talk(server)), talk(client)  # noqa: B023
            join(there)
            self.assertEqual(here, messages * 5)
            self.assertEqual(there.result, messages * 5)

    def test_closing_from_either_side_ends_both_with_the_same_code(self) -> None:
        for first in (0, 1):
            pair = self.pair(False)
            closing, other = pair[first], pair[1 - first]
            reader = self.start(other.read)
            closing.close(4321, "enough")
            join(reader)
            for error in (reader.error, closing.closed_error()):
                assert isinstance(error, ConnectionClosed)
                self.assertEqual((error.sent, error.received), (Close(4321, "enough"),) * 2)

    def test_closing_from_both_sides_at_once(self) -> None:
        client, server = self.pair(False)
        closing = [self.start(client.close), self.start(server.close)]
        join(*closing)
        self.assertEqual([thread.error for thread in closing], [None, None])
        self.assertTrue(client.ended and server.ended)
        self.assertEqual({client.closed_error().code, server.closed_error().code}, {1000})


if __name__ == "__main__":
    unittest.main()
