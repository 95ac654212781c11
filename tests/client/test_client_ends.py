"""Which ends of a connection or an attempt lead to another attempt."""

from __future__ import annotations

import unittest

from sync_ws import ClientState, CloseCode, Reason
from sync_ws.testing import serving, wait_until
from tests.support.client_case import FINAL_CODES, SOON, ReconnectTestCase, echo
from tests.support.recorder import Recorder
from tests.support.scripted import ScriptedServer, Wire, refusing


class WhichEndsTest(ReconnectTestCase):
    """Every end there is, as it comes over the wire."""

    def test_every_close_code_on_the_wire(self) -> None:
        codes = [code for code in (*range(1000, 1015), 3000, 4000, 4009, 4999) if CloseCode.may_be_sent(code)]
        for code in codes:

            def script(wire: Wire, code: int = code) -> None:
                wire.switch()
                wire.send_frame(8, code.to_bytes(2, "big"))
                wire.wait_for_end()

            with self.subTest(code), ScriptedServer(script) as server:
                client = self.client(server.url(), reconnect=60)
                recorder = Recorder(client)
                client.open(0)
                closed = recorder.wait_for("close")
                self.assertEqual(closed.reconnecting, code not in FINAL_CODES)
                self.assertEqual(closed.reason.code, code)
                self.assertFalse(closed.reason.by_us)
                if closed.reconnecting:
                    recorder.wait_for("reconnecting")
                else:
                    self.wait_for_state(client, ClientState.CLOSED)

    def test_ends_without_a_code(self) -> None:
        def empty_close(wire: Wire) -> None:
            wire.switch()
            wire.send_frame(8)
            wire.wait_for_end()

        def fin(wire: Wire) -> None:
            wire.switch()

        def reset(wire: Wire) -> None:
            wire.switch()
            wire.reset()

        for script, code in ((empty_close, 1005), (fin, 1006), (reset, 1006)):
            with self.subTest(script.__name__), ScriptedServer(script) as server:
                client = self.client(server.url(), reconnect=60)
                recorder = Recorder(client)
                client.open(0)
                self.assertEqual(recorder.wait_for("reconnecting").reason.code, code)

    def test_refusals(self) -> None:
        for status, again in (
            (404, False),
            (401, False),
            (302, False),
            (408, True),
            (425, True),
            (429, True),
            (500, True),
            (503, True),
        ):
            with self.subTest(status), ScriptedServer(refusing(f"{status} X")) as server:
                client = self.client(server.url(), reconnect=60)
                recorder = Recorder(client)
                client.open(0)
                event = recorder.wait_for("reconnecting" if again else "gave_up")
                self.assertEqual(event.reason.status, status)

    def test_the_decision_can_be_overridden_both_ways(self) -> None:
        asked: list[Reason] = []

        def twice(reason: Reason) -> bool:
            asked.append(reason)
            return len(asked) < 3

        def script(wire: Wire) -> None:
            wire.switch()
            wire.send_frame(8, b"\x03\xe8")
            wire.wait_for_end()

        with ScriptedServer(script) as server:
            client = self.client(server.url(), reconnect=0.01, should_reconnect=twice)
            recorder = Recorder(client)
            client.run_forever()
        self.assertEqual([reason.code for reason in asked], [1000, 1000, 1000])
        self.assertEqual(recorder.names.count("open"), 3)

    def test_a_decision_that_raises_is_reported_and_the_default_decides(self) -> None:
        def fail(reason: Reason) -> bool:
            raise ZeroDivisionError

        with ScriptedServer(lambda wire: wire.answer("404 X")) as server, self.assertLogs("sync_ws.client", "ERROR"):
            client = self.client(server.url(), reconnect=0.01, should_reconnect=fail)
            recorder = Recorder(client)
            client.run_forever()
        self.assertEqual(recorder.names, ["error", "gave_up"])

    def test_reconnect_none_means_never(self) -> None:
        with ScriptedServer(Wire.switch) as server:
            client = self.client(server.url(), reconnect=None)
            recorder = Recorder(client)
            client.run_forever()
            self.assertEqual((recorder.names, server.accepted), (["open", "close", "gave_up"], 1))
            self.assertFalse(recorder.of("close")[0].reconnecting)

    def test_two_reconnecting_clients_of_one_name_do_not_fight(self) -> None:
        with serving(echo) as server:
            url = server.url + "?name=test"
            first = self.client(url, reconnect=0.01)
            loser = Recorder(first)
            first.open(SOON)
            second = self.client(url, reconnect=0.01)
            winner = Recorder(second)
            second.open(SOON)
            closed = loser.wait_for("close")
            self.assertEqual((closed.reason.code, closed.reconnecting), (4009, False))
            wait_until(lambda: first.state is ClientState.CLOSED)
            second.send("mine")
            self.assertEqual(second.recv(SOON), "mine")
            self.assertEqual(list(server.clients), ["test"])
            server.send_to("test", "yours")
            self.assertEqual(second.recv(SOON), "yours")
            self.assertEqual((loser.names, winner.names), (["open", "close", "gave_up"], ["open"]))


if __name__ == "__main__":
    unittest.main()
