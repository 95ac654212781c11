"""Bytes at the port of a running server: broken opening handshakes, and broken frames behind good ones.

Required: an HTTP answer with a status of ours, or the end of the connection; never a traceback in the log, never a
hang, and all threads freed at the end.

Threading: some threads, each with a random generator and connections of its own, against one server.
"""

from __future__ import annotations

import random
import re
import socket
import struct
import threading
import time
from collections import Counter

from sync_ws import Connection
from sync_ws.testing import serving, wait_until
from tests.fuzz.logs import LoggedErrors
from tests.fuzz.streams import damaged, pieces, stream

__all__ = ["run"]

THREADS = 6
HANDSHAKE = 1.0  # seconds that a request may take
PATIENCE = 15.0  # seconds until a connection counts as hung
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
EXPECTED = {101, 400, 403, 404, 405, 408, 409, 414, 426, 431, 503}
_LINES = (
    b"Host: 127.0.0.1", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip
_MORE = (
    b"Origin: http://127.0.0.1", b"Origin: null", b"Origin :x", b"Sec-WebSocket-Protocol: a, b",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=abc", b"Host: xn--a", b"Host: \xff",
    b"Sec-WebSocket-Extensions: permessage-deflate", b"Sec-WebSocket-Extensions: ;,=\xff",
    b"Connection: \xff, Upgrade",
    b"Upgrade: websocket, foo", b"Content-Length: 5", b"Transfer-Encoding: chunked",
    b" folded", b"nocolon", b"Cookie: \xe4",
    b"Sec-WebSocket-Key: AAAA", b"X: " + b"y" * 9000, b"Sec-WebSocket-Protocol: " + b"a," * 500 + b"a",
)  # fmt: skip
_TARGETS = (
    b"/ws/", b"/ws/?name=a", b"/ws/?name=%0d%0a", b"/ws/?name=\xe2\x80\xae", b"/ws", b"/", b"/../etc/passwd",
    b"/%2e%2e/x", b"//evil", b"*", b"http://x/", b"/ws/?" + b"a=b&" * 100, b"/" + b"x" * 9000, b"/ws/?name=%ff",
    b"/\x00",
)  # fmt: skip


def _request(rng: random.Random) -> bytes:
    """A request, good or bad, as it goes to the port; frames behind it."""
    lines = list(_LINES)
    if rng.random() < 0.5:
        for _ in range(rng.randrange(1, 4)):
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(_MORE + _LINES))
    if rng.random() < 0.2:
        del lines[rng.randrange(len(lines))]
    if rng.random() < 0.02:
        lines += [b"X-%d: y" % number for number in range(rng.choice((50, 2000)))]
    target = rng.choice(_TARGETS) if rng.random() < 0.4 else b"/ws/"
    method = rng.choice((b"POST", b"HEAD", b"get", b"GET ", b"\xff")) if rng.random() < 0.1 else b"GET"
    version = rng.choice((b"HTTP/1.0", b"HTTP/0.9", b"", b"HTTP/2")) if rng.random() < 0.1 else b"HTTP/1.1"
    end = b"\n" if rng.random() < 0.03 else b"\r\n"
    head = end.join([b" ".join((method, target, version)), *lines, b"", b""])
    if rng.random() < 0.3:
        head = damaged(rng, head)
    frames = stream(rng, masked=True, deflate=rng.random() < 0.3)
    return head + (damaged(rng, frames) if rng.random() < 0.3 else frames)


def _exchange(port: int, rng: random.Random) -> str:
    """Send one; what came of it."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ending = rng.random()
        answer = b""
        try:
            data = _request(rng)
            for part in pieces(rng, data) if len(data) < 5000 else [data]:
                sock.sendall(part)
            if ending < 0.1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return "reset by the client"
            if ending < 0.9:  # else the server has to end it
                sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before all was sent: the answer may still be there
        deadline = time.monotonic() + PATIENCE
        try:
            while time.monotonic() < deadline and (data := sock.recv(65536)):
                answer = (answer + data)[:4096]
                if ending >= 0.9 and answer.startswith(b"HTTP/1.1 101"):
                    return "left after 101"
        except TimeoutError:
            return f"HUNG after {answer[:60]!r}"
        except OSError:
            return "reset by the server"
    if not answer:
        return "no answer"
    status = STATUS.match(answer)
    if status is None or int(status[1]) not in EXPECTED:
        return f"UNEXPECTED {answer[:100]!r}"
    return f"status {int(status[1])}"


def _echo(connection: Connection) -> None:
    for message in connection:
        connection.send(message)


def run(seconds: float, seed: int, most: int | None = None, parallel: int = THREADS) -> tuple[Counter[str], list[str]]:
    """Fuzz for so long, or `most` requests of each of so many threads: what came of them, and what was found."""
    counts: Counter[str] = Counter()
    findings: list[str] = []
    lock = threading.Lock()  # guards the two above; held for assignments
    end = time.monotonic() + seconds

    def work(number: int, port: int) -> None:
        rng = random.Random(f"{seed} requests {number}")
        done = 0
        while time.monotonic() < end and (most is None or done < most) and len(findings) < 10:
            state = rng.getstate()
            outcome = _exchange(port, rng)
            done += 1
            with lock:
                counts["requests"] += 1
                counts[outcome.partition(" b'")[0]] += 1
                if outcome.startswith(("HUNG", "UNEXPECTED")):
                    rng.setstate(state)
                    rng.random()  # what the exchange drew first
                    findings.append(f"{outcome} for {_request(rng)!r}")

    with LoggedErrors() as errors:
        options = {"handshake_timeout": HANDSHAKE, "ping_interval": 1.0, "ping_timeout": 1.0, "close_timeout": 1.0}
        with serving(_echo, compression=True, max_message=5000, max_fragments=50, **options) as server:
            threads = [threading.Thread(target=work, args=(number, server.port)) for number in range(parallel)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            try:
                wait_until(lambda: server.stats()["threads"] == 0 and not server.connections, 10.0)
            except AssertionError:
                findings.append(f"the server's threads are not freed: {server.stats()}")
    return counts, findings + [f"logged: {line}" for line in errors.lines[:10]]
