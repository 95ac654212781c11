"""Tools for testing what is built on WebSockets: the library's own tests use them, and yours may.

- `FaultProxy`: a TCP proxy on loopback that stalls, swallows, cuts, resets, corrupts, throttles and splits.
- `ManualClock`: a clock and timers that a test advances by hand, for every `clock` parameter of the library.
- `LedgerTestCase`: a TestCase under which nothing may be left behind. Its parts, for other frameworks than
  unittest: `ResourceLedger` and `UncaughtThreadErrors`.
- `serving`: a started server for the length of a with block; `free_port`; `wait_until`, a bounded wait.
- `make_certificates`: an authority, a good certificate and several bad ones, for tests of TLS.

An example, whole. The code under test is `Feed`; the test pulls the cable and lives through the 43 seconds it
takes to notice, to wait and to dial again:

    import unittest
    import sync_ws
    from sync_ws.testing import FaultProxy, LedgerTestCase, ManualClock, serving, wait_until

    class Feed:
        def __init__(self, url, **options):
            self.greetings = []
            self.client = sync_ws.Client(url, heartbeat=sync_ws.Heartbeat(30, 3), reconnect=10, **options)
            self.client.on("message", self.greetings.append)

    def greet(conn):
        conn.send("welcome")
        for message in conn:
            conn.send(message)

    class FeedTest(LedgerTestCase):                     # fails on a thread, timer or socket left behind
        def test_a_dead_link_is_noticed_and_replaced(self):
            clock = ManualClock()
            with serving(greet) as server, FaultProxy("127.0.0.1", server.port) as proxy:
                feed = Feed(proxy.url("/ws/"), clock=clock)
                with feed.client:
                    wait_until(lambda: feed.greetings == ["welcome"])
                    proxy.both.blackhole(scope="current")       # nothing arrives any more, and nobody is told
                    clock.advance(30)                           # a heartbeat goes out,
                    armed = clock.armed
                    clock.advance(3)                            # has no answer: the connection is given up,
                    self.assertEqual(clock.wait_for_timer(after=armed), 10)     # and the next attempt waits
                    clock.advance(10)
                    wait_until(lambda: feed.greetings == ["welcome", "welcome"])
                    self.assertEqual(proxy.connections, 2)

    if __name__ == "__main__":
        unittest.main()

Every module says who may call it from which thread. Importing this package has no effect on the process.
"""

from .certificates import Certificates, make_certificates
from .clock import ManualClock, ManualTimer
from .ledger import LedgerTestCase, ResourceLedger, UncaughtError, UncaughtThreadErrors
from .proxy import Direction, FaultProxy, Scope
from .serving import free_port, serving, wait_until

__all__ = [
    "Certificates",
    "Direction",
    "FaultProxy",
    "LedgerTestCase",
    "ManualClock",
    "ManualTimer",
    "ResourceLedger",
    "Scope",
    "UncaughtError",
    "UncaughtThreadErrors",
    "free_port",
    "make_certificates",
    "serving",
    "wait_until",
]
